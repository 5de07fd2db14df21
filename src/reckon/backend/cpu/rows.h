// backend/cpu/rows: what the row kernels share: where a row starts, how work is cut, and how slices of rows are summed. The kernels take
// plain pointers: no tensor, no allocation. Work is cut by size only, so no result depends on the number of threads.
#pragma once
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// Where row r starts, in elements: (r / heads) * stride + (r % heads) * head_stride. The last axis is contiguous.
/// Plain rows: {cols}. The q heads inside packed qkv rows: {stride of a packed row, number of heads, head_dim}.
struct RowLayout {
  int64_t stride = 0;
  int64_t heads = 1;
  int64_t head_stride = 0;
  int64_t at(int64_t row) const { return heads == 1 ? row * stride : row / heads * stride + row % heads * head_stride; }
};

/// Bytes of data that one task of parallel_range should touch: large against the cost of a task, small against a thread's share.
inline constexpr int64_t kTaskBytes = 64 << 10;
/// Elements in one task of an element-wise kernel.
inline constexpr int64_t kTaskElements = 16 << 10;
/// Rows in one task; at least 1.
constexpr int64_t rows_per_task(int64_t bytes_per_row) {
  return bytes_per_row >= kTaskBytes ? 1 : kTaskBytes / (bytes_per_row > 0 ? bytes_per_row : 1);
}

/// Rows are reduced in at most kMaxSlices slices of at least kSliceRows rows, whose partial sums are added in order.
inline constexpr int64_t kMaxSlices = 64, kSliceRows = 32;
struct Slices {
  int64_t count = 0, rows_each = 1;
};
/// The fixed cut of `rows` rows; count grows monotonically with rows.
Slices slices_of(int64_t rows);
/// Upper bound of slices_of(rows).count, monotone in rows: what workspaces are sized by.
int64_t slice_bound(int64_t rows);

/// out[c] = (accumulate ? out[c] : 0) + sum over s, in order and in double, of partial[s * stride + c], for c in [0, cols).
/// partial is f64 if f64_partial, else f32; out is any float dtype. Parallel over columns.
void sum_slices(const void* partial, bool f64_partial, int64_t slices, int64_t stride, int64_t cols, void* out, DType out_dtype,
                bool accumulate);

/// One element of a float tensor, as double, and back (rounded to nearest even). For edges and tails, not for inner loops.
double load_float(DType dtype, const void* data, int64_t at);
void store_float(DType dtype, void* data, int64_t at, double value);
}  // namespace reckon::cpu
