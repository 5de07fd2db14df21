// ops/scan: running sums and products. Users include it beside ops/ops.h.
#pragma once
#include "reckon/tensor/tensor.h"

namespace reckon {

/// y[i] = x[0] + ... + x[i] along `axis`; reverse: from the end; exclusive: without x[i] itself. Float types are summed in float64 and
/// rounded once an element; i32 and i64 wrap. Throws Error for other dtypes: cast them first.
Tensor cumsum(Tensor x, int axis, bool reverse = false, bool exclusive = false);
/// y[i] = x[0] * ... * x[i] along `axis`, in log2(extent) products of whole tensors, so that gradients of any order are exact where factors
/// are 0. Floats (16-bit ones in float32), i32 and i64, which wrap.
Tensor cumprod(const Tensor& x, int axis);
}  // namespace reckon
