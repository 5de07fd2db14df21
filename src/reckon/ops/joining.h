// ops/joining: tensors from several tensors, and parts of one. Users include it beside ops/ops.h.
#pragma once
#include "reckon/tensor/tensor.h"

namespace reckon {

/// Tensors of one dtype, whose shapes are equal but for `axis`, one after another along it. Any dtype. Above 32 tensors, groups of 32 are
/// joined first, so their elements are copied once more. Throws Error for no tensors, and for shapes or dtypes that differ, naming both.
Tensor concatenate(const Tensors& parts, int axis);
/// Tensors of one shape, one after another along a new axis. A scalar's new axis is 0.
Tensor stack(const Tensors& parts, int axis = 0);
/// Views of x with these extents along `axis`; they add up to its extent.
Tensors split(const Tensor& x, std::span<const int64_t> sizes, int axis);
/// Views of x of `size` along `axis`, the last one smaller if that does not come out even.
Tensors split(const Tensor& x, int64_t size, int axis);
/// At most `count` views of equal extent along `axis`, but for a smaller last one, as in PyTorch.
Tensors chunk(const Tensor& x, int64_t count, int axis);

/// A view that goes backwards along these axes (none: all). Its strides there are negative.
Tensor flip(const Tensor& x, std::initializer_list<int> axes = {});
/// Element i of the result along `axis` is element i - shift of x, around the end. A copy, or x if nothing moves.
Tensor roll(const Tensor& x, int64_t shift, int axis);
/// x repeats[i] times along axis i, as numpy.tile: missing leading axes of either side count as 1. One copy an axis that
/// repeats, or a view with stride 0 where that is enough.
Tensor tile(const Tensor& x, std::span<const int64_t> repeats);
/// Each element `count` times in a row along `axis`. A copy, or a view with stride 0 where that is enough.
Tensor repeat_interleave(const Tensor& x, int64_t count, int axis);
/// before[i] and after[i] elements of `value` around x along axis i; one entry an axis.
Tensor pad(const Tensor& x, std::span<const int64_t> before, std::span<const int64_t> after, double value = 0);
}  // namespace reckon
