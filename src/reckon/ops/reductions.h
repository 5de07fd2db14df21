// ops/reductions: further reductions, composed of the rows of ops/reduce.cpp and others. Users include it beside ops/ops.h.
// Axes: none means all. Each is planned like any other composition: what it makes on the way is memory that the plan shows.
// What adds or multiplies does it in float32 for the 16-bit floats, and rounds once.
#pragma once
#include "reckon/tensor/tensor.h"

namespace reckon {

/// Equal minima share the gradient evenly. Any dtype but the 8-bit floats. Throws Error for an empty axis.
Tensor min(const Tensor& x, std::initializer_list<int> axes = {}, bool keepdim = false);
/// By halves, so that its gradient is exact where factors are 0. Whole numbers and bool give i64; 1 for an empty axis.
Tensor prod(const Tensor& x, std::initializer_list<int> axes = {}, bool keepdim = false);
/// Of bool tensors: whether one element is true (false for an empty axis), whether all are (true for an empty axis).
Tensor any(const Tensor& x, std::initializer_list<int> axes = {}, bool keepdim = false);
Tensor all(const Tensor& x, std::initializer_list<int> axes = {}, bool keepdim = false);
/// Sum of squares around the mean over n - correction: 1 is Bessel's, 0 the population's. Throws Error if n <= correction.
Tensor variance(const Tensor& x, std::initializer_list<int> axes = {}, double correction = 1, bool keepdim = false);
/// (sum |x|^p)^(1/p); p infinite: the largest |x|. The gradient of a norm of 0 is 0 for p = 2, as in PyTorch. Throws Error unless p >= 1.
Tensor norm(const Tensor& x, double p = 2, std::initializer_list<int> axes = {}, bool keepdim = false);
/// log(sum exp(x)), without overflow. Throws Error for an empty axis.
Tensor logsumexp(const Tensor& x, std::initializer_list<int> axes = {}, bool keepdim = false);
}  // namespace reckon
