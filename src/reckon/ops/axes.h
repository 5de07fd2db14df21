// ops/axes: views by axes that are known at run time only, and what they are made of. For this room and its tests.
#pragma once
#include "reckon/engine/call.h"

namespace reckon {

namespace op {
extern const OpDef diagonal;  // a view: no kernel
}

// ---- Parameters of the rows reshape and expand, permute, and diagonal.
struct ShapeParams {
  int32_t rank;
  int64_t extents[kMaxRank];
  explicit ShapeParams(const Shape& shape);
  ShapeParams() = default;
  Shape shape() const { return Shape(std::span<const int64_t>(extents, size_t(rank))); }
};
struct PermuteParams {
  int8_t axes[kMaxRank];  // axis i of the result is axis axes[i] of the input
};
struct DiagonalParams {
  int32_t first, second;  // of one extent
};

/// The strides of `shape` over the same elements, in order; false if some axis would need two, so that only a copy has that shape.
bool reshape_layout(const Layout& in, const Shape& shape, Layout& out);

/// `axis` counted from the front; negative ones count from the end. Throws Error, which names the operation, if the shape has no such axis.
int axis_of(const char* operation, const Shape& shape, int axis);
/// The bits of these axes, of all if none is named. Throws Error likewise, and if one is named twice.
uint32_t axes_of(const char* operation, const Shape& shape, std::initializer_list<int> axes);

/// True if `from` is `to` where axes of 1 and missing leading ones are repeated.
bool broadcasts_to(const Shape& from, const Shape& to);

/// permute() by a list that is made at run time.
Tensor permute(const Tensor& x, std::span<const int> axes);
/// The elements whose places along two axes are equal, without a copy: the axes go, and one of their extent is the last.
/// Throws Error if the extents differ.
Tensor diagonal(const Tensor& x, int first, int second);
}  // namespace reckon
