// ops/conv: two-dimensional convolution. Users include it beside ops/ops.h.
#pragma once
#include "reckon/tensor/tensor.h"

namespace reckon {

/// Along height and width.
struct Conv2dOptions {
  int64_t stride[2] = {1, 1};
  int64_t padding[2] = {0, 0};  // zeros on both sides
  int64_t dilation[2] = {1, 1};
  int64_t groups = 1;
};
/// Cross-correlation, as in PyTorch: x [B, C, H, W], w [O, C / groups, h, w], bias [O] or undefined -> [B, O, H', W'] with
/// H' = (H + 2 padding - dilation (h - 1) - 1) / stride + 1. One float dtype; sums in float32 (float64 for f64), rounded once.
/// Throws Error for shapes that do not fit, naming both. Gradients of any order.
Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& bias = {}, const Conv2dOptions& options = {});
}  // namespace reckon
