// ops/indexing: elements by position: views by numbers and slices, and rows and elements by tensors of indices. Users include it beside
// ops/ops.h.
#pragma once
#include <optional>

#include "reckon/tensor/tensor.h"

namespace reckon {

/// Python's start:stop:step. Bounds may be left out, count from the end if negative, and are cut to the axis; the step may be negative.
struct Slice {
  std::optional<int64_t> start = {}, stop = {};
  int64_t step = 1;
};
/// As many whole axes as are not named; at most once in a list.
inline constexpr struct Ellipsis {
} ellipsis;
/// A new axis of extent 1.
inline constexpr struct NewAxis {
} newaxis;

/// One item of a list in brackets: a number, a slice, ellipsis or newaxis.
struct Index {
  enum class Kind : uint8_t { number, slice, ellipsis, newaxis } kind;
  int64_t number = 0;
  Slice slice = {};
  Index(int64_t at) : kind(Kind::number), number(at) {}
  Index(int at) : kind(Kind::number), number(at) {}
  Index(const Slice& s) : kind(Kind::slice), slice(s) {}
  Index(Ellipsis) : kind(Kind::ellipsis) {}
  Index(NewAxis) : kind(Kind::newaxis) {}
};

/// NumPy's basic indexing, always a view: index(x, {Slice{1, -1, 2}, 3, ellipsis, newaxis}) is x[1:-1:2, 3, ..., None]. A negative step
/// gives a negative stride. Throws Error for a number out of range, too many items, a step of 0 or a second ellipsis.
Tensor index(const Tensor& x, std::span<const Index> items);
inline Tensor index(const Tensor& x, std::initializer_list<Index> items) {
  return index(x, std::span<const Index>(items.begin(), items.size()));
}

// ---- Tensors of indices are i32 or i64 and count from 0. They are data, which a plan cannot see: an index outside [0, extent) reads NaN
// (0 in integers, false), as in embedding(), and what it would write is left out; nothing outside a tensor is touched.

/// y[i, j, ...] = x[index[i, j, ...], j, ...] (for axis 0), of index's shape, which has x's rank and is at most as long beside `axis`.
/// Any dtype but the 8-bit floats; its gradient adds in order of the indices, with the same bits at any number of threads.
Tensor gather(const Tensor& x, int axis, const Tensor& index);
/// The same where shapes beside `axis` broadcast, as numpy.take_along_axis.
Tensor take_along_axis(const Tensor& x, const Tensor& index, int axis);
/// x's slices at index [N] along `axis`: its extent becomes N.
Tensor index_select(const Tensor& x, int axis, const Tensor& index);
/// x with src[i, j, ...] written to [index[i, j, ...], j, ...] (for axis 0). src has index's shape or is longer, and x's dtype. Where
/// indices repeat the last one along the axis stays, and it alone has a gradient.
Tensor scatter(const Tensor& x, int axis, const Tensor& index, const Tensor& src);
/// The same, adding: in the order of the indices along the axis, in float32 or wider; integers wrap.
Tensor scatter_add(const Tensor& x, int axis, const Tensor& index, const Tensor& src);
/// x with src's slices added at index [N] along `axis`; src has x's shape but for N there.
Tensor index_add(const Tensor& x, int axis, const Tensor& index, const Tensor& src);

// ---- masks
/// `value` where mask (bool, broadcast to x) is true, else x. Any dtype but the 8-bit floats; Error if it does not hold the value.
Tensor masked_fill(const Tensor& x, const Tensor& mask, double value);
/// x [..., M, N] where column <= row + k, else 0: the lower triangle.
Tensor tril(const Tensor& x, int64_t k = 0);
/// x [..., M, N] where column >= row + k, else 0: the upper triangle.
Tensor triu(const Tensor& x, int64_t k = 0);
/// ids [...] (i32 or i64) -> [..., classes]: 1 at the id, else 0; all 0 for an id outside [0, classes).
Tensor one_hot(const Tensor& ids, int64_t classes, DType dtype = DType::f32);
}  // namespace reckon
