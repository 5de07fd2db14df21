// backend/cpu/triangle: a part of each row is copied, the rest is zero; what is not kept is not read.
#include "reckon/backend/cpu/triangle.h"

#include <algorithm>
#include <cstring>

#include "reckon/backend/cpu/row_tasks.h"
#include "reckon/backend/cpu/stream.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
template <class T>
void copy_as(const void* from, int64_t stride, void* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) static_cast<T*>(to)[i] = static_cast<const T*>(from)[i * stride];
}
void copy_part(int64_t bytes, const void* from, int64_t stride, void* to, int64_t n, bool streams) {
  if (n == 0 || (from == to && stride == 1)) return;
  if (stride == 1) return streams ? stream_run(from, to, n * bytes) : void(std::memcpy(to, from, size_t(n * bytes)));
  switch (bytes) {
    case 1:
      return copy_as<uint8_t>(from, stride, to, n);
    case 2:
      return copy_as<uint16_t>(from, stride, to, n);
    case 4:
      return copy_as<uint32_t>(from, stride, to, n);
    default:
      return copy_as<uint64_t>(from, stride, to, n);
  }
}
void clear_part(char* to, int64_t bytes, bool streams) {
  constexpr int64_t kZeros = 4096;
  alignas(64) static constexpr char zeros[kZeros] = {};
  if (!streams) return void(std::memset(to, 0, size_t(bytes)));
  for (int64_t i = 0; i < bytes; i += kZeros) stream_run(zeros, to + i, std::min(kZeros, bytes - i));
}
}  // namespace

void triangle(int64_t element_bytes, const Shape& shape, Strided x, bool upper, int64_t shift, void* y) {
  RECKON_ASSERT(element_bytes == 1 || element_bytes == 2 || element_bytes == 4 || element_bytes == 8);
  if (shape.numel() == 0) return;
  const int64_t rows = shape[-2], columns = shape[-1], step = x.strides[shape.rank() - 1];
  int64_t dense[kMaxRank];
  dense_strides(shape, dense);
  const int64_t* strides[] = {dense, x.strides};
  const Loop loop = make_loop(shape.with(-1, 1), 2, strides);  // of the rows, in the order of y
  const RowTasks tasks = row_tasks(loop.total, 2 * columns * element_bytes, columns * element_bytes);
  parallel_range(loop.total, tasks.rows_each, [&](int64_t begin, int64_t end) {
    walk(loop, begin, end, [&](int64_t n, const int64_t* at) {
      for (int64_t i = 0; i < n; ++i) {
        const int64_t to = at[0] + i * loop.inner_stride(0), from = at[1] + i * loop.inner_stride(1), row = to / columns % rows;
        const int64_t edge = std::clamp<int64_t>(row + shift + (upper ? 0 : 1), 0, columns);
        const int64_t first = upper ? edge : 0, last = upper ? columns : edge;  // what is kept
        char* const out = static_cast<char*>(y) + to * element_bytes;
        clear_part(out, first * element_bytes, tasks.streams);
        copy_part(element_bytes, static_cast<const char*>(x.data) + (from + first * step) * element_bytes, step,
                  out + first * element_bytes, last - first, tasks.streams);
        clear_part(out + last * element_bytes, (columns - last) * element_bytes, tasks.streams);
      }
    });
    if (tasks.streams) stream_fence();
  });
}
}  // namespace reckon::cpu
