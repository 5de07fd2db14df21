// ops/indexing: views by numbers and slices; gather, scatter and what is made of them; masks.
#include "reckon/ops/indexing.h"

#include <algorithm>

#include "reckon/ops/axes.h"
#include "reckon/ops/dtypes.h"
#include "reckon/ops/ops.h"
#include "reckon/ops/rows.h"

namespace reckon {
namespace {
// ---- gather: x, index -> y
void check_index(const TensorSpec& index) {
  check(index.dtype == DType::i32 || index.dtype == DType::i64, "indices must be i32 or i64, got {}", index.dtype);
}
// index fits into `whole` beside the axis.
void check_within(const TensorSpec& index, const TensorSpec& whole, int axis, const char* name) {
  check_index(index);
  check(index.shape.rank() == whole.shape.rank(), "index {} and {} {} differ in rank", index.shape, name, whole.shape);
  for (int i = 0; i < index.shape.rank(); ++i)
    check(i == axis || index.shape[i] <= whole.shape[i], "index {} is longer than {} {} along axis {}, beside axis {}", index.shape, name,
          whole.shape, i, axis);
}
// An index that is repeated beside the axis is read once.
int64_t index_bytes(const Plan& p) {
  const auto a = p.params.as<AxisParams>();
  return a.slices ? checked_multiply(p.in[1].shape[a.axis], size_of(p.in[1].dtype)) : p.in[1].bytes();
}
void plan_gather(Plan& p) {
  check_within(p.in[1], p.in[0], p.params.as<AxisParams>().axis, "x");
  p.output(p.in[1].shape, p.in[0].dtype);
  p.bytes_moved = checked_sum({checked_multiply(2, p.out[0].bytes()), index_bytes(p)});  // the elements that are asked for, not all of x
}
Tensor zeros_like(const Tensor& like, const Shape& shape) { return expand(zeros(like.device(), {Shape{}, like.dtype()}), shape); }
Tensors vjp_gather(Vjp& v) {
  const auto p = v.as<AxisParams>();
  const Tensor base = zeros_like(v.dy[0], v.node.in_specs()[0].shape);
  return {call(op::scatter_add, tensors(base, v.in(1), v.dy[0]), p)[0], Tensor()};
}

// ---- scatter and scatter_add: x, index, src -> y
void plan_scatter(Plan& p) {
  const int axis = p.params.as<AxisParams>().axis;
  check_within(p.in[1], p.in[0], axis, "x");
  check(p.in[2].dtype == p.in[0].dtype, "x and src differ in dtype: {} and {}", p.in[0].dtype, p.in[2].dtype);
  check(p.in[2].shape == p.in[1].shape, "src {} does not match index {}", p.in[2].shape, p.in[1].shape);
  p.output(p.in[0]);
  p.bytes_moved = checked_sum({p.in[0].bytes(), index_bytes(p), p.in[2].bytes(), p.out[0].bytes()});
}
void plan_scatter_add(Plan& p) {
  plan_scatter(p);
  check(p.in[0].dtype != DType::boolean, "has no bool arithmetic");
  p.vector_flops({1, p.in[1].numel()});
}
// What an index out of range left out has no gradient, where gather() would read NaN.
Tensor gather_or_zero(const Tensor& dy, int axis, const Tensor& index) {
  return call(op::gather, tensors(dy, index), AxisParams{axis, true})[0];
}
// Of equal indices the last one was kept: a second scatter, of positions, tells which ones those are.
Tensor is_kept(const Tensor& index, const Shape& whole, int axis) {
  Device& device = index.device();
  Shape positions = index.shape();
  for (int i = 0; i < positions.rank(); ++i)
    if (i != axis) positions = positions.with(i, 1);
  const Tensor at = expand(reshape(arange(device, index.shape()[axis], DType::i64), positions), index.shape());
  const Tensor none = expand(full(device, {Shape{}, DType::i64}, -1), whole);
  return equal(gather(scatter(none, axis, index, at), axis, index), at);
}
Tensors vjp_scatter(Vjp& v) {
  const auto p = v.as<AxisParams>();
  const Tensor index = v.in(1);
  Tensors dx(3);
  if (v.needs_in(2)) {
    const Tensor kept = is_kept(index, v.node.in_specs()[0].shape, p.axis);
    dx[2] = where(kept, gather_or_zero(v.dy[0], p.axis, index), zeros(v.dy[0].device(), {Shape{}, v.dy[0].dtype()}));
  }
  if (v.needs_in(0)) dx[0] = scatter(v.dy[0], p.axis, index, zeros_like(v.dy[0], index.shape()));
  return dx;
}
Tensors vjp_scatter_add(Vjp& v) {
  Tensors dx(3);
  if (v.needs_in(2)) dx[2] = gather_or_zero(v.dy[0], v.as<AxisParams>().axis, v.in(1));
  if (v.needs_in(0)) dx[0] = v.dy[0];
  return dx;
}

// ---- triangle: x -> y, one side of a diagonal of the last two axes
// Elements of [rows, columns] that are kept: each row's share, which grows by one a row from 0 to all columns.
int64_t kept_elements(int64_t rows, int64_t columns, const TriangleParams& t) {
  const int64_t below = t.upper ? t.shift : t.shift + 1;  // columns on the lower side in row 0
  const int64_t some = std::clamp<int64_t>(-below, 0, rows), all = std::clamp<int64_t>(columns - below, some, rows);
  const __int128 lower = __int128(all - some) * (some + all - 1 + 2 * below) / 2 + __int128(rows - all) * columns;
  return t.upper ? rows * columns - int64_t(lower) : int64_t(lower);
}
void plan_triangle(Plan& p) {
  const TensorSpec x = p.in[0];
  check(x.shape.rank() >= 2, "wants at least two axes, got {}", x.shape);
  p.output(x);
  const int64_t rows = x.shape[-2], columns = x.shape[-1], matrices = x.shape.numel() == 0 ? 0 : x.shape.numel() / rows / columns;
  const int64_t kept = matrices == 0 ? 0 : checked_multiply(matrices, kept_elements(rows, columns, p.params.as<TriangleParams>()));
  p.bytes_moved = checked_sum({checked_multiply(kept, size_of(x.dtype)), p.out[0].bytes()});  // what is not kept is not read
}
Tensors vjp_triangle(Vjp& v) { return {call(op::triangle, tensors(std::move(v.dy[0])), v.as<TriangleParams>())[0]}; }

Tensor scatter_by(const OpDef& row, const Tensor& x, int axis, const Tensor& index, Tensor src) {
  axis = axis_of(row.name, x.shape(), axis);
  check(src.rank() == index.rank(), "{}: src {} and index {} differ in rank", row.name, src.shape(), index.shape());
  for (int i = 0; i < src.rank(); ++i)
    if (src.shape()[i] > index.shape()[i]) src = slice(src, i, 0, index.shape()[i]);
  return call(row, tensors(x, index, src), AxisParams{axis})[0];
}

// index [N] as one that all slices along the axis share.
Tensor along(const Tensor& index, const Tensor& x, int axis, const char* name) {
  check(index.rank() == 1, "{}: index must be [N], got {}", name, index);
  std::vector<int64_t> ones(size_t(x.rank()), 1);
  ones[size_t(axis)] = index.numel();
  return expand(view(contiguous(index), Shape(std::span<const int64_t>(ones))), x.shape().with(axis, index.numel()));
}

// ---- slices
// axis: where axis `from` of the shape is by now.
SliceParams resolved(const Slice& s, int axis, int from, const Shape& shape) {
  const int64_t extent = shape[from];
  check(s.step != 0, "index: the step along axis {} of {} is 0: 1 takes every element, -1 goes backwards", from, shape);
  const bool back = s.step < 0;
  // Python's rule: bounds count from the end if negative, and are cut to [0, extent], or to [-1, extent - 1] where the slice goes
  // backwards.
  const auto bound = [&](const std::optional<int64_t>& at, int64_t otherwise) {
    if (!at) return otherwise;
    return std::clamp<int64_t>(*at < 0 ? *at + extent : *at, back ? -1 : 0, back ? extent - 1 : extent);
  };
  SliceParams p{axis, extent, bound(s.start, back ? extent - 1 : 0), bound(s.stop, back ? -1 : extent), s.step};
  if (back ? p.start <= p.stop : p.stop <= p.start) p.start = p.stop = 0;
  // A step beyond the axis takes one element, as the extent does; larger ones could overflow a stride.
  p.step = std::clamp<int64_t>(p.step, -std::max<int64_t>(extent, 1), std::max<int64_t>(extent, 1));
  return p;
}
}  // namespace

const OpDef op::gather{k_gather, "gather", plan_gather, vjp_gather, {.in = 0b10}, {.any_stride = 0b11}};
const OpDef op::scatter{k_scatter, "scatter", plan_scatter, vjp_scatter, {.in = 0b10}, {.reuse = 0b1, .any_stride = 0b111, .autocast = AutocastPolicy::widest}};
const OpDef op::scatter_add{k_scatter_add,   "scatter_add", plan_scatter_add,
                            vjp_scatter_add, {.in = 0b10},  {.reuse = 0b1, .any_stride = 0b111, .autocast = AutocastPolicy::widest}};
const OpDef op::triangle{k_triangle, "triangle", plan_triangle, vjp_triangle, {}, {.reuse = 0b1, .any_stride = 0b1}};

// New axes come last: before axes go, there might be more than a tensor has.
Tensor index(const Tensor& x, std::span<const Index> items) {
  using Kind = Index::Kind;
  int named = 0, dots = 0, fresh = 0, gone = 0;
  for (const Index& item : items) {
    named += item.kind == Kind::number || item.kind == Kind::slice;
    dots += item.kind == Kind::ellipsis;
    fresh += item.kind == Kind::newaxis;
    gone += item.kind == Kind::number;
  }
  check(dots <= 1, "index: {} ellipses in one list; one stands for all axes that are not named", dots);
  check(named <= x.rank(), "index: {} axes are indexed, {} has {}", named, x.shape(), x.rank());
  check(x.rank() - gone + fresh <= kMaxRank,
        "index: {} with {} new axes, and without {} that have a number, would have {}; a tensor has at most {} axes", x.shape(), fresh,
        gone, x.rank() - gone + fresh, kMaxRank);
  Tensor y = x;
  int from = 0, axis = 0, place = 0;  // that the next item is about: of x, of y, of the result
  std::vector<int> places;            // of new axes
  for (const Index& item : items) {
    switch (item.kind) {
      case Kind::number: {
        const int64_t extent = x.shape()[from];
        check(item.number >= -extent && item.number < extent, "index: index {} is out of range for axis {} of {}", item.number, from,
              x.shape());
        y = select(y, axis, item.number);
        ++from;
        break;
      }
      case Kind::slice: {
        const SliceParams p = resolved(item.slice, axis, from, x.shape());
        if (p.start != 0 || p.stop != p.extent || p.step != 1) y = call(op::slice, tensors(y), p)[0];
        ++from, ++axis, ++place;
        break;
      }
      case Kind::ellipsis:
        from += x.rank() - named, axis += x.rank() - named, place += x.rank() - named;
        break;
      case Kind::newaxis:
        places.push_back(place++);
        break;
    }
  }
  for (const int at : places) y = unsqueeze(y, at);
  return y;
}

Tensor gather(const Tensor& x, int axis, const Tensor& index) {
  return call(op::gather, tensors(x, index), AxisParams{axis_of("gather", x.shape(), axis)})[0];
}

Tensor take_along_axis(const Tensor& x, const Tensor& index, int axis) {
  axis = axis_of("take_along_axis", x.shape(), axis);
  check(x.rank() == index.rank(), "take_along_axis: x {} and index {} differ in rank", x.shape(), index.shape());
  for (int i = 0; i < x.rank(); ++i)
    check(i == axis || x.shape()[i] == index.shape()[i] || x.shape()[i] == 1 || index.shape()[i] == 1,
          "take_along_axis: x {} and index {} do not broadcast along axis {}, beside axis {}", x.shape(), index.shape(), i, axis);
  const Shape common = broadcast(x.shape().with(axis, 1), index.shape().with(axis, 1));
  return gather(expand(x, common.with(axis, x.shape()[axis])), axis, expand(index, common.with(axis, index.shape()[axis])));
}

Tensor index_select(const Tensor& x, int axis, const Tensor& index) {
  axis = axis_of("index_select", x.shape(), axis);
  return call(op::gather, tensors(x, along(index, x, axis, "index_select")), AxisParams{axis, false, true})[0];
}

Tensor scatter(const Tensor& x, int axis, const Tensor& index, const Tensor& src) { return scatter_by(op::scatter, x, axis, index, src); }
Tensor scatter_add(const Tensor& x, int axis, const Tensor& index, const Tensor& src) {
  return scatter_by(op::scatter_add, x, axis, index, src);
}

Tensor index_add(const Tensor& x, int axis, const Tensor& index, const Tensor& src) {
  axis = axis_of("index_add", x.shape(), axis);
  check(src.rank() == x.rank() && src.shape().with(axis, 0) == x.shape().with(axis, 0), "index_add: src {} and x {} differ beside axis {}",
        src.shape(), x.shape(), axis);
  check(index.rank() == 1 && index.numel() == src.shape()[axis], "index_add: index {} does not name the {} slices of src {} along axis {}",
        index, src.shape()[axis], src.shape(), axis);
  return call(op::scatter_add, tensors(x, along(index, x, axis, "index_add"), src), AxisParams{axis, false, true})[0];
}

Tensor masked_fill(const Tensor& x, const Tensor& mask, double value) {
  check(mask.dtype() == DType::boolean, "masked_fill: the mask is {}, not bool", mask);
  check(broadcasts_to(mask.shape(), x.shape()), "masked_fill: mask {} does not broadcast to x {}", mask.shape(), x.shape());
  check_holds("masked_fill", x.dtype(), value);
  return where(mask, full(x.device(), {Shape{}, x.dtype()}, value), x);
}

namespace {
Tensor triangle(const Tensor& x, TriangleParams t, const char* name) {
  check(x.rank() >= 2, "{}: wants at least two axes, got {}", name, x.shape());
  // Beyond these all or nothing is kept anyway, and no sum overflows.
  t.shift = std::clamp<int64_t>(t.shift, -x.shape()[-2] - 1, x.shape()[-1] + 1);
  return call(op::triangle, tensors(x), t)[0];
}
}  // namespace

Tensor tril(const Tensor& x, int64_t k) { return triangle(x, {false, k}, "tril"); }
Tensor triu(const Tensor& x, int64_t k) { return triangle(x, {true, k}, "triu"); }

Tensor one_hot(const Tensor& ids, int64_t classes, DType dtype) {
  check(ids.dtype() == DType::i32 || ids.dtype() == DType::i64, "one_hot: ids must be i32 or i64, got {}", ids);
  check(classes >= 1, "one_hot: wants at least one class, got {}", classes);
  return cast(equal(unsqueeze(ids, -1), arange(ids.device(), classes, ids.dtype())), dtype);
}
}  // namespace reckon
