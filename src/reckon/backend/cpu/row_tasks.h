// backend/cpu/row_tasks: how kernels that read and write rows or elements are cut, and store results once a tensor is beyond every cache.
#pragma once
#include <cstdint>

#include "reckon/backend/cpu/rows.h"

namespace reckon::cpu {

/// Of kernels that read and write more bytes than this, nothing would be found in a cache again.
inline constexpr int64_t kCachedBytes = 32 << 20;
/// What one of their tasks touches: a thread reads on in one place, which the processor foresees.
inline constexpr int64_t kLongTaskBytes = 512 << 10;

/// Bytes of a run below which it is not streamed: shorter ones end in too many lines that are stored by parts.
inline constexpr int64_t kLeastRun = 2048;

struct RowTasks {
  int64_t rows_each = 1;
  bool streams = false;  // results go past the caches
};
/// For `rows` rows of which each reads and writes `bytes_per_row` bytes and writes runs of `run_bytes`. Depends on sizes only.
constexpr RowTasks row_tasks(int64_t rows, int64_t bytes_per_row, int64_t run_bytes) {
  const bool beyond = bytes_per_row > 0 && rows > kCachedBytes / bytes_per_row;
  const int64_t long_task = beyond && bytes_per_row < kLongTaskBytes ? kLongTaskBytes / bytes_per_row : 1;
  return {beyond ? long_task : rows_per_task(bytes_per_row), beyond && run_bytes >= kLeastRun};
}

struct ElementTasks {
  int64_t elements_each = kTaskElements;
  bool streams = false;  // results go past the caches
};
/// What one task does, [begin, end).
struct ElementPart {
  int64_t begin, end;
  bool streams;
};
/// For n elements of which each reads and writes `bytes_each` bytes. Results in place of an operand are near already, and do not stream.
/// Tasks start at multiples of a cache line.
constexpr ElementTasks element_tasks(int64_t n, int64_t bytes_each, bool in_place) {
  if (in_place || bytes_each <= 0 || n <= kCachedBytes / bytes_each) return {};
  return {kLongTaskBytes / bytes_each / 64 * 64, true};
}
}  // namespace reckon::cpu
