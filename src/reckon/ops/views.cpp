// ops/views: operations that change the layout and copy nothing, and the copies that undo them.
#include <algorithm>

#include "reckon/ops/axes.h"
#include "reckon/ops/ops.h"
#include "reckon/ops/rows.h"

namespace reckon {
ShapeParams::ShapeParams(const Shape& shape) : rank(shape.rank()), extents{} { std::copy(shape.begin(), shape.end(), extents); }

// Walks groups of axes that are contiguous in `in`.
bool reshape_layout(const Layout& in, const Shape& shape, Layout& out) {
  out = Layout(shape);
  out.offset = in.offset;
  if (shape.numel() == 0 || in.is_contiguous()) return true;
  int to = shape.rank() - 1;
  for (int from = in.shape.rank() - 1; from >= 0; --from) {
    if (in.shape[from] == 1) continue;
    const int64_t base = in.strides[from];
    // Extend the group outwards while the next axis continues this one without a gap.
    int64_t extent = in.shape[from];
    while (from > 0 && (in.shape[from - 1] == 1 || in.strides[from - 1] == base * extent)) extent *= in.shape[--from];
    int64_t filled = 1;
    while (to >= 0 && (filled < extent || shape[to] == 1)) {
      out.strides[to] = base * filled;
      filled *= shape[to--];
    }
    if (filled != extent) return false;
  }
  while (to >= 0 && shape[to] == 1) out.strides[to--] = 1;
  return to < 0;
}

int axis_of(const char* operation, const Shape& shape, int axis) {
  const int rank = shape.rank();
  check(rank > 0, "{}: a scalar has no axis {}", operation, axis);
  check(axis >= -rank && axis < rank, "{}: axis {} is out of range for shape {}, whose axes are 0 to {}, or -{} to -1 from the end",
        operation, axis, shape, rank - 1, rank);
  return axis < 0 ? axis + rank : axis;
}
uint32_t axes_of(const char* operation, const Shape& shape, std::initializer_list<int> axes) {
  uint32_t bits = axes.size() == 0 ? (1u << shape.rank()) - 1 : 0;
  for (const int axis : axes) {
    const uint32_t bit = 1u << axis_of(operation, shape, axis);
    check(!(bits & bit), "{}: axis {} of shape {} is named twice", operation, axis, shape);
    bits |= bit;
  }
  return bits;
}
bool broadcasts_to(const Shape& from, const Shape& to) {
  const int lead = to.rank() - from.rank();
  bool fits = lead >= 0;
  for (int axis = 0; fits && axis < from.rank(); ++axis) fits = from[axis] == to[axis + lead] || from[axis] == 1;
  return fits;
}

namespace {
// ---- reshape
std::string strides_of(const Layout& layout) {
  std::string list;
  for (int axis = 0; axis < layout.shape.rank(); ++axis) list += text("{}{}", axis ? ", " : "", layout.strides[axis]);
  return "[" + list + "]";
}
void plan_reshape(Plan& p) {
  const Shape shape = p.params.as<ShapeParams>().shape();
  check(shape.numel() == p.in[0].numel(), "shape {} does not hold the {} elements of {}", shape, p.in[0].numel(), p.in[0].shape);
  p.output(shape, p.in[0].dtype);
}
Layout view_reshape(const Layout& in, const Params& params) {
  Layout out;
  const Shape shape = params.as<ShapeParams>().shape();
  check(reshape_layout(in, shape, out),
        "view: {} with strides {} has no view of shape {}: view size is not compatible with input tensor's size and stride; call "
        "contiguous() first, or reshape()",
        in.shape, strides_of(in), shape);
  return out;
}
Tensors vjp_reshape(Vjp& v) { return {reshape(v.dy[0], v.node.in_specs()[0].shape)}; }

// ---- permute
void plan_permute(Plan& p) {
  const auto axes = p.params.as<PermuteParams>();
  int64_t e[kMaxRank];
  for (int i = 0; i < p.in[0].shape.rank(); ++i) e[i] = p.in[0].shape[axes.axes[i]];
  p.output(Shape(std::span<const int64_t>(e, size_t(p.in[0].shape.rank()))), p.in[0].dtype);
}
Layout view_permute(const Layout& in, const Params& params) {
  const auto axes = params.as<PermuteParams>();
  int64_t e[kMaxRank];
  Layout out;
  for (int i = 0; i < in.shape.rank(); ++i) {
    e[i] = in.shape[axes.axes[i]];
    out.strides[i] = in.strides[axes.axes[i]];
  }
  out.shape = Shape(std::span<const int64_t>(e, size_t(in.shape.rank())));
  out.offset = in.offset;
  return out;
}
Tensor permute_by(const Tensor& x, const PermuteParams& axes) { return call(op::permute, tensors(x), axes)[0]; }
Tensors vjp_permute(Vjp& v) {
  const auto axes = v.as<PermuteParams>();
  PermuteParams inverse{};
  for (int i = 0; i < v.dy[0].rank(); ++i) inverse.axes[axes.axes[i]] = int8_t(i);
  return {permute_by(v.dy[0], inverse)};
}

// ---- slice
// A negative step goes from start down to above stop, which is -1 for the whole axis.
int64_t slice_count(const SliceParams& s) {
  if (s.step < 0) return s.start <= s.stop ? 0 : (s.start - s.stop - 1) / -s.step + 1;
  return s.stop <= s.start ? 0 : (s.stop - s.start - 1) / s.step + 1;
}
void plan_slice(Plan& p) {
  const auto s = p.params.as<SliceParams>();
  p.output(p.in[0].shape.with(s.axis, slice_count(s)), p.in[0].dtype);
}
Layout view_slice(const Layout& in, const Params& params) {
  const auto s = params.as<SliceParams>();
  Layout out = in;
  out.shape = in.shape.with(s.axis, slice_count(s));
  out.offset += s.start * in.strides[s.axis];
  if (out.shape[s.axis] > 1) out.strides[s.axis] *= s.step;
  return out;
}
Tensors vjp_slice(Vjp& v) { return {call(op::slice_back, tensors(v.dy[0]), v.as<SliceParams>())[0]}; }
void plan_slice_back(Plan& p) {
  const auto s = p.params.as<SliceParams>();
  p.output(p.in[0].shape.with(s.axis, s.extent), p.in[0].dtype);
}
Tensors vjp_slice_back(Vjp& v) { return {call(op::slice, tensors(v.dy[0]), v.as<SliceParams>())[0]}; }

// ---- expand
void plan_expand(Plan& p) {
  const Shape &in = p.in[0].shape, out = p.params.as<ShapeParams>().shape();
  check(out.rank() >= in.rank() && broadcast(in, out) == out, "{} does not expand to {}", in, out);
  p.output(out, p.in[0].dtype);
}
Layout view_expand(const Layout& in, const Params& params) {
  Layout out;
  out.shape = params.as<ShapeParams>().shape();
  out.offset = in.offset;
  for (int axis = 0; axis < out.shape.rank(); ++axis) {
    const int from = axis - (out.shape.rank() - in.shape.rank());
    out.strides[axis] = from < 0 || (in.shape[from] == 1 && out.shape[axis] != 1) ? 0 : in.strides[from];
  }
  return out;
}
Tensors vjp_expand(Vjp& v) { return {sum_to(v.dy[0], v.node.in_specs()[0].shape)}; }

// ---- diagonal
Shape diagonal_shape(const Shape& in, const DiagonalParams& d) {
  return in.without(std::max(d.first, d.second)).without(std::min(d.first, d.second));
}
void plan_diagonal(Plan& p) {
  const auto d = p.params.as<DiagonalParams>();
  const Shape& in = p.in[0].shape;
  check(d.first != d.second && in[d.first] == in[d.second], "axes {} and {} of {} have no diagonal", d.first, d.second, in);
  p.output(diagonal_shape(in, d).appended(in[d.first]), p.in[0].dtype);
}
Layout view_diagonal(const Layout& in, const Params& params) {
  const auto d = params.as<DiagonalParams>();
  Layout out;
  out.shape = diagonal_shape(in.shape, d).appended(in.shape[d.first]);
  out.offset = in.offset;
  int to = 0;
  for (int axis = 0; axis < in.shape.rank(); ++axis)
    if (axis != d.first && axis != d.second) out.strides[to++] = in.strides[axis];
  out.strides[to] = in.strides[d.first] + in.strides[d.second];
  return out;
}
// dy stands on every (n + 1)-th element of [..., n * n], of which the last two axes are made and brought back to their places.
Tensors vjp_diagonal(Vjp& v) {
  const auto d = v.as<DiagonalParams>();
  const Shape& in = v.node.in_specs()[0].shape;
  const int64_t n = in[d.first];
  const int last = in.rank() - 1;
  const Tensor wide = call(op::slice_back, tensors(v.dy[0]), SliceParams{last - 1, n * n, 0, n * n, n + 1})[0];
  PermuteParams back{};
  for (int axis = 0, from = 0; axis < in.rank(); ++axis)
    back.axes[axis] = int8_t(axis == d.first ? last - 1 : axis == d.second ? last : from++);
  return {permute_by(reshape(wide, diagonal_shape(in, d).appended(n).appended(n)), back)};
}

// ---- copies
void plan_contiguous(Plan& p) { p.output(p.in[0]); }
Tensors vjp_contiguous(Vjp& v) { return {std::move(v.dy[0])}; }
void plan_cast(Plan& p) { p.output(p.in[0].shape, p.params.as<CastParams>().to); }
Tensors vjp_cast(Vjp& v) {
  const DType from = v.node.in_specs()[0].dtype;
  return {is_float(from) ? cast(v.dy[0], from) : Tensor()};
}
}  // namespace

const OpDef op::reshape{-1, "reshape", plan_reshape, vjp_reshape, {}, {.view = view_reshape}};
const OpDef op::permute{-1, "permute", plan_permute, vjp_permute, {}, {.view = view_permute}};
const OpDef op::slice{-1, "slice", plan_slice, vjp_slice, {}, {.view = view_slice}};
const OpDef op::expand{-1, "expand", plan_expand, vjp_expand, {}, {.view = view_expand}};
const OpDef op::diagonal{-1, "diagonal", plan_diagonal, vjp_diagonal, {}, {.view = view_diagonal}};
const OpDef op::slice_back{k_slice_back, "slice_back", plan_slice_back, vjp_slice_back, {}, {.any_stride = 0b1}};
const OpDef op::contiguous{k_contiguous,   "contiguous", plan_contiguous,
                           vjp_contiguous, {},           {.any_stride = 0b1, .pointwise = true, .float8 = true}};
const OpDef op::cast{k_cast, "cast", plan_cast, vjp_cast, {}, {.pointwise = true, .float8 = true}};

Tensor view(const Tensor& x, const Shape& shape) { return call(op::reshape, tensors(x), ShapeParams(shape))[0]; }
Tensor reshape(const Tensor& x, const Shape& shape) {
  if (shape == x.shape()) return x;
  Layout out;
  check(shape.numel() == x.numel(), "reshape: shape {} does not hold the {} elements of {}", shape, x.numel(), x.shape());
  return view(reshape_layout(x.layout(), shape, out) ? x : contiguous(x), shape);
}
Tensor permute(const Tensor& x, std::initializer_list<int> axes) { return permute(x, std::span<const int>(axes.begin(), axes.size())); }
Tensor permute(const Tensor& x, std::span<const int> axes) {
  check(int(axes.size()) == x.rank(), "permute: {} axes are named, {} has {}", axes.size(), x.shape(), x.rank());
  PermuteParams packed{};
  uint32_t seen = 0;
  int at = 0;
  for (const int axis : axes) {
    packed.axes[at] = int8_t(axis_of("permute", x.shape(), axis));
    seen |= 1u << packed.axes[at++];
  }
  check(seen == (1u << x.rank()) - 1, "permute: an axis of {} is named twice", x.shape());
  return permute_by(x, packed);
}
Tensor diagonal(const Tensor& x, int first, int second) {
  return call(op::diagonal, tensors(x), DiagonalParams{axis_of("diagonal", x.shape(), first), axis_of("diagonal", x.shape(), second)})[0];
}
Tensor transpose(const Tensor& x, int axis_a, int axis_b) {
  PermuteParams packed{};
  for (int i = 0; i < x.rank(); ++i) packed.axes[i] = int8_t(i);
  std::swap(packed.axes[axis_of("transpose", x.shape(), axis_a)], packed.axes[axis_of("transpose", x.shape(), axis_b)]);
  return permute_by(x, packed);
}
Tensor slice(const Tensor& x, int axis, int64_t start, int64_t stop, int64_t step) {
  axis = axis_of("slice", x.shape(), axis);
  const int64_t extent = x.shape()[axis];
  check(step >= 1, "slice: the step must be at least 1, got {}; index() and flip() go backwards", step);
  const auto clamp = [&](int64_t at) { return std::clamp<int64_t>(at < 0 ? at + extent : at, 0, extent); };
  return call(op::slice, tensors(x), SliceParams{axis, extent, clamp(start), clamp(stop), step})[0];
}
Tensor select(const Tensor& x, int axis, int64_t index) {
  axis = axis_of("select", x.shape(), axis);
  const int64_t extent = x.shape()[axis];
  check(index >= -extent && index < extent, "select: index {} is out of range for axis {} of {}", index, axis, x.shape());
  if (index < 0) index += extent;
  return squeeze(slice(x, axis, index, index + 1), axis);
}
Tensor expand(const Tensor& x, const Shape& shape) {
  if (shape == x.shape()) return x;
  return call(op::expand, tensors(x), ShapeParams(shape))[0];
}
Tensor unsqueeze(const Tensor& x, int axis) {
  check(axis >= -x.rank() - 1 && axis <= x.rank(),
        "unsqueeze: axis {} is out of range for {}: a new axis is one of 0 to {}, or -{} to -1 from the end", axis, x.shape(), x.rank(),
        x.rank() + 1);
  check(x.rank() < kMaxRank, "unsqueeze: {} has no room for a new axis: a tensor has at most {} axes", x.shape(), kMaxRank);
  if (axis < 0) axis += x.rank() + 1;
  std::vector<int64_t> e(x.shape().begin(), x.shape().end());
  e.insert(e.begin() + axis, 1);
  return view(x, Shape(std::span<const int64_t>(e)));
}
Tensor squeeze(const Tensor& x, int axis) {
  axis = axis_of("squeeze", x.shape(), axis);
  check(x.shape()[axis] == 1, "squeeze: axis {} of {} is not 1", axis, x.shape());
  return view(x, x.shape().without(axis));
}
Tensor contiguous(const Tensor& x) { return x.is_contiguous() ? x : call(op::contiguous, tensors(x))[0]; }
Tensor cast(const Tensor& x, DType dtype) { return x.dtype() == dtype ? x : call(op::cast, tensors(x), CastParams{dtype})[0]; }
}  // namespace reckon
