// ops/packing: several tensors as one by named axes: pack, unpack, and lists of tensors as one tensor with a leading axis.
#pragma once
#include "reckon/ops/einops.h"

namespace reckon {

using PackPattern = Pattern<PatternOf::pack>;
/// The extents that each tensor had at the star. For unpack, one extent may be -1: what is left.
using PackedShapes = std::vector<std::vector<int64_t>>;
struct Packed {
  Tensor tensor;
  PackedShapes shapes;
};

/// Merges the axes at the star into one and joins the tensors along it: pack({[2, 3, 5], [2, 3, 7, 5]}, "i j * k") is [2, 3, 8, 5], with
/// shapes {}, {7}. Named axes have one length in all tensors, which have one dtype. A copy, even of one tensor.
Packed pack(const Tensors& tensors, PackPattern pattern);
/// The tensors that were packed: views.
Tensors unpack(const Tensor& packed, const PackedShapes& shapes, PackPattern pattern);

// A list counts as one tensor with a leading axis: it is stacked, by a copy, and then treated as one.
Tensor rearrange(const Tensors& list, RearrangePattern pattern, const AxisLengths& lengths = {});
Tensor reduce(const Tensors& list, ReducePattern pattern, Reducer reducer, const AxisLengths& lengths = {});
Tensor repeat(const Tensors& list, RepeatPattern pattern, const AxisLengths& lengths = {});
}  // namespace reckon
