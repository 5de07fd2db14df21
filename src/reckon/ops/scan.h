// ops/scan: running sums and products. Users include it beside ops/ops.h.
#pragma once
#include "reckon/tensor/tensor.h"

namespace reckon {

/// y[i] = x[0] + ... + x[i] along `axis`; reverse: from the end; exclusive: without x[i] itself. Float types are summed in float64 and
/// rounded once an element; whole numbers and bool give i64, which wraps, as in PyTorch.
Tensor cumsum(Tensor x, int axis, bool reverse = false, bool exclusive = false);
/// y[i] = x[0] * ... * x[i] along `axis`, in log2(extent) products of whole tensors, so that gradients of any order are exact where factors
/// are 0. 16-bit floats are multiplied in float32; whole numbers and bool give i64.
Tensor cumprod(const Tensor& x, int axis);
}  // namespace reckon
