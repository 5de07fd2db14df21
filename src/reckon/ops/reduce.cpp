// ops/reduce: sums and maxima over any axes, softmax over the last.
#include "reckon/engine/autocast.h"
#include "reckon/ops/axes.h"
#include "reckon/ops/dtypes.h"
#include "reckon/ops/ops.h"
#include "reckon/ops/rows.h"

namespace reckon {
namespace {
Shape reduced_shape(const Shape& in, const ReduceParams& r) {
  int64_t e[kMaxRank];
  size_t n = 0;
  for (int axis = 0; axis < in.rank(); ++axis) {
    if (!(r.axes >> axis & 1u)) e[n++] = in[axis];
    else if (r.keepdim) e[n++] = 1;
  }
  return Shape(std::span<const int64_t>(e, n));
}
// Whole numbers and bool are summed in i64, where they wrap.
void plan_sum(Plan& p) {
  const DType dtype = p.in[0].dtype;
  const auto r = p.params.as<ReduceParams>();
  p.output(reduced_shape(p.in[0].shape, r), !is_float(dtype) ? DType::i64 : r.wide ? statistics_dtype(dtype) : dtype);
  p.flops.vector = p.in[0].numel();
}
uint32_t summed_axes(const Params& params) { return params.as<ReduceParams>().axes; }
void plan_max(Plan& p) {
  p.output(reduced_shape(p.in[0].shape, p.params.as<ReduceParams>()), p.in[0].dtype);
  p.flops.vector = p.in[0].numel();
  check(p.out[0].numel() == 0 || p.in[0].numel() > 0, "the maximum over an empty axis of {} is undefined", p.in[0].shape);
}
// A reduced tensor, stretched back over the axes that were reduced.
Tensor stretch(const Tensor& y, const Shape& to, const ReduceParams& r) {
  const Shape kept = reduced_shape(to, {r.axes, true});
  return expand(reshape(y, kept), to);
}
Tensors vjp_sum(Vjp& v) {
  const TensorSpec& x = v.node.in_specs()[0];
  return {stretch(cast(v.dy[0], x.dtype), x.shape, v.as<ReduceParams>())};
}
// Equal maxima share the gradient evenly.
Tensors vjp_max(Vjp& v) {
  const auto r = v.as<ReduceParams>();
  const Tensor x = v.in(0);
  const Tensor hits = cast(equal(x, stretch(v.out(0), x.shape(), r)), x.dtype());
  const Tensor count = call(op::sum, tensors(hits), r)[0];
  return {mul(hits, stretch(div(v.dy[0], count), x.shape(), r))};
}

void plan_softmax(Plan& p) {
  check(is_float(p.in[0].dtype), "wants a floating-point tensor, got {}", p.in[0].dtype);
  check(p.in[0].shape.rank() >= 1, "wants at least one axis");
  p.output(p.in[0]);
  p.vector_flops({5, p.in[0].numel()});
}
void plan_softmax_back(Plan& p) {  // dy, y
  check(p.in[0] == p.in[1], "dy {} does not match {}", p.in[0], p.in[1]);
  p.output(p.in[1]);
  p.vector_flops({4, p.in[1].numel()});
}
Tensors vjp_softmax(Vjp& v) { return {call(op::softmax_back, tensors(std::move(v.dy[0]), v.out(0)))[0]}; }
Tensors vjp_log_softmax(Vjp& v) { return {call(op::log_softmax_back, tensors(std::move(v.dy[0]), v.out(0)))[0]}; }

// Both are linear in dy. g: the gradient of their result.
Tensors vjp_softmax_back(Vjp& v) {  // y (dy - sum(dy y))
  const Tensor dy = v.in(0), y = v.in(1), g = v.dy[0];
  Tensors d(2);
  if (v.needs_in(0)) d[0] = call(op::softmax_back, tensors(g, y))[0];
  if (v.needs_in(1)) d[1] = sub(mul(g, sub(dy, sum(mul(dy, y), {-1}, true))), mul(dy, sum(mul(g, y), {-1}, true)));
  return d;
}
Tensors vjp_log_softmax_back(Vjp& v) {  // dy - exp(y) sum(dy)
  const Tensor dy = v.in(0), g = v.dy[0], spread = mul(g, exp(v.in(1)));
  Tensors d(2);
  if (v.needs_in(0)) d[0] = sub(g, sum(spread, {-1}, true));
  if (v.needs_in(1)) d[1] = neg(mul(spread, sum(dy, {-1}, true)));
  return d;
}

ReduceParams reduce_params(const char* operation, const Tensor& x, std::initializer_list<int> axes, bool keepdim) {
  return {axes_of(operation, x.shape(), axes), keepdim};
}
}  // namespace

const OpDef op::sum{k_sum, "sum", plan_sum, vjp_sum, {}, {.any_stride = 0b1, .sums = summed_axes, .autocast = AutocastPolicy::wide}};
const OpDef op::max{k_max, "max", plan_max, vjp_max, {.in = 0b1, .out = 0b1}, {.any_stride = 0b1}};
const OpDef op::softmax{k_softmax, "softmax", plan_softmax, vjp_softmax, {.out = 0b1}, {.reuse = 0b1, .autocast = AutocastPolicy::wide}};
const OpDef op::softmax_back{k_softmax_back, "softmax_back", plan_softmax_back, vjp_softmax_back, {.in = 0b11}, {.reuse = 0b1}};
const OpDef op::log_softmax{k_log_softmax, "log_softmax", plan_softmax, vjp_log_softmax, {.out = 0b1}, {.reuse = 0b1, .autocast = AutocastPolicy::wide}};
const OpDef op::log_softmax_back{k_log_softmax_back, "log_softmax_back", plan_softmax_back, vjp_log_softmax_back, {.in = 0b11}, {.reuse = 0b1}};

Tensor sum(const Tensor& x, std::initializer_list<int> axes, bool keepdim) {
  return call(op::sum, tensors(x), reduce_params("sum", x, axes, keepdim))[0];
}
Tensor max(const Tensor& x, std::initializer_list<int> axes, bool keepdim) {
  return call(op::max, tensors(x), reduce_params("max", x, axes, keepdim))[0];
}
Tensor mean(const Tensor& in, std::initializer_list<int> axes, bool keepdim) {
  check_has_fractions("mean", in);
  const Tensor x = autocast_input(AutocastPolicy::wide, in);
  // The sum of 16-bit numbers might be beyond their type where the mean is not.
  ReduceParams r = reduce_params("mean", x, axes, keepdim);
  r.wide = true;
  const Tensor total = call(op::sum, tensors(x), r)[0];
  check(x.numel() > 0 || total.numel() == 0, "mean: the mean over an empty axis of {} is undefined", x.shape());
  return cast(total.numel() ? affine(total, double(total.numel()) / double(x.numel())) : total, x.dtype());
}
Tensor sum_to(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  ReduceParams r{0, false};
  const int lead = x.rank() - shape.rank();
  for (int axis = 0; axis < x.rank(); ++axis)
    if (axis < lead || (shape[axis - lead] == 1 && x.shape()[axis] != 1)) r.axes |= 1u << axis;
  return reshape(call(op::sum, tensors(x), r)[0], shape);
}
namespace {
Tensor over_axis(const OpDef& row, const Tensor& x, int axis) {
  if (x.rank() == 0 || axis_of(row.name, x.shape(), axis) == x.rank() - 1) return call(row, tensors(x))[0];
  return transpose(call(row, tensors(transpose(x, axis, -1)))[0], axis, -1);
}
}  // namespace
Tensor softmax(const Tensor& x, int axis) { return over_axis(op::softmax, x, axis); }
Tensor log_softmax(const Tensor& x, int axis) { return over_axis(op::log_softmax, x, axis); }
}  // namespace reckon
