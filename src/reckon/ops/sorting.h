// ops/sorting: elements in order along an axis. Users include it beside ops/ops.h. Any dtype but the 8-bit floats. Equal elements keep
// their order, so every result is unique; -0 equals 0, and a NaN counts as larger than everything, as in PyTorch.
#pragma once
#include "reckon/tensor/tensor.h"

namespace reckon {

struct ValuesAndIndices {
  Tensor values;   // differentiable
  Tensor indices;  // i64 positions along the axis
};
/// x in ascending or descending order along `axis`.
ValuesAndIndices sort(const Tensor& x, int axis = -1, bool descending = false);
/// The positions that sort x: gather(x, axis, argsort(x, axis)) is sorted.
Tensor argsort(const Tensor& x, int axis = -1, bool descending = false);
/// The k largest (or smallest) elements along `axis`, the largest (smallest) first. Throws Error unless 1 <= k <= the axis' extent.
ValuesAndIndices top_k(const Tensor& x, int64_t k, int axis = -1, bool largest = true);
/// The position (i64) of the first largest or smallest element along `axis`; of the first NaN if there is one. Throws Error for an empty
/// axis.
Tensor argmax(const Tensor& x, int axis, bool keepdim = false);
Tensor argmin(const Tensor& x, int axis, bool keepdim = false);
}  // namespace reckon
