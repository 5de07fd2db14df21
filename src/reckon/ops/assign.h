// ops/assign: values into tensors that exist, or into views of them. Users include it beside ops/ops.h.
#pragma once
#include "reckon/tensor/tensor.h"

namespace reckon {

/// Writes `source` over the elements of `view`, which may lie in any strides: copy_(index(x, {Slice{1, 3}, -1}), y). source broadcasts to
/// view's shape and is rounded to its dtype as by cast(); if the two overlap, it is copied first. Backward refuses what it kept of the
/// storage before. Throws Error, and writes nothing, for a source that does not broadcast, for a view with an axis of stride 0 (expand())
/// and, where a graph is recorded, for a view or source that requires a gradient.
void copy_(const Tensor& view, const Tensor& source);
/// The same with one number, which a view of whole numbers or bool must hold exactly.
void fill_(const Tensor& view, double value);
}  // namespace reckon
