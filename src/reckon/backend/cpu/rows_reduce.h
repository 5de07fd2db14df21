// backend/cpu/rows_reduce: sums, means and maxima over any axes, column sums, and the two checks of a gradient: its norm and its
// finiteness.
#pragma once
#include <cstdint>

#include "reckon/backend/cpu/rows_walk.h"
#include "reckon/tensor/dtype.h"
#include "reckon/tensor/shape.h"

namespace reckon::cpu {

enum class Reduce : uint8_t { sum, mean, max };

/// out = op of x over the axes whose bits are set in `axes` (bit 0: the first axis); out is dense, in the order of the axes that remain.
/// Sums are taken in short runs of f32 that are added in double (all in double for f64), in an order fixed by the shape and strides. An
/// empty sum is 0, an empty mean NaN, an empty maximum -inf; the maximum of anything with a NaN is NaN. Float types; out may be another
/// one. Whole numbers and bool, not for means: out is i64, where sums wrap, or x's type.
void reduce(Reduce op, DType dtype, const Shape& shape, Strided x, uint32_t axes, DType out_dtype, void* out, void* workspace);
/// Bytes of partial results; monotone in every extent.
int64_t reduce_workspace(const Shape& shape, uint32_t axes);

/// How reduce() cuts the `reduced` elements of each of `outputs` results: slice s is [s * each, (s + 1) * each) of them, and the sums of the
/// slices, kept as doubles [slices, outputs], are added in order.
struct SumCut {
  int64_t slices, each;
};
SumCut sum_cut(int64_t outputs, int64_t reduced);
/// Continues the sum of a slice by n contiguous elements that begin a multiple of kSumRun elements after the slice does: the order of reduce().
/// n is such a multiple too, unless the slice ends. Float types.
inline constexpr int64_t kSumRun = 1024;
double sum_run(DType dtype, const void* x, int64_t n, double sum);

/// out[c] = (accumulate ? out[c] : 0) + sum over rows of x[r * row_stride + c]: the gradient of a bias. Fixed slices of rows, f32 within
/// a slice (f64 for f64), double across; out is of any float type.
void column_sums(DType dtype, const void* x, int64_t rows, int64_t cols, int64_t row_stride, DType out_dtype, void* out, bool accumulate,
                 void* workspace);
int64_t column_sums_workspace(DType dtype, int64_t rows, int64_t cols);

/// out[0] = sum of x[i]^2 over n contiguous floats, squared and summed in double.
void sum_of_squares(DType dtype, const void* x, int64_t n, double* out, void* workspace);
/// out[0] = how many of n contiguous floats are infinite or NaN.
void count_nonfinite(DType dtype, const void* x, int64_t n, int64_t* out, void* workspace);
/// For either; monotone in n.
int64_t flat_reduce_workspace(int64_t n);
}  // namespace reckon::cpu
