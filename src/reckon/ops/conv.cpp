// ops/conv: a convolution and its two gradients, each linear in each of two tensors, so that the rules of all three are calls of the
// others.
#include "reckon/ops/conv.h"

#include "reckon/ops/ops.h"
#include "reckon/ops/rows.h"

namespace reckon {
namespace {
// Positions of a kernel of `taps` along an axis.
int64_t positions(int64_t extent, int64_t taps, const ConvParams& c, int axis) {
  const int64_t reach = c.dilation[axis] * (taps - 1) + 1, padded = extent + 2 * c.padding[axis];
  check(reach <= padded, "the kernel reaches over {} elements along {}, the padded input has {} ({} + 2 * {})", reach,
        axis ? "width" : "height", padded, extent, c.padding[axis]);
  return (padded - reach) / c.stride[axis] + 1;
}
void check_params(const ConvParams& c) {
  constexpr int64_t kMost = 1 << 30;  // so that no position overflows
  for (const int axis : {0, 1}) {
    check(c.stride[axis] >= 1 && c.stride[axis] <= kMost, "the stride must be in [1, 2^30], got {}", c.stride[axis]);
    check(c.dilation[axis] >= 1 && c.dilation[axis] <= kMost, "the dilation must be in [1, 2^30], got {}", c.dilation[axis]);
    check(c.padding[axis] >= 0 && c.padding[axis] <= kMost, "the padding must be in [0, 2^30], got {}", c.padding[axis]);
  }
  check(c.groups >= 1, "groups must be at least 1, got {}", c.groups);
}
// The result of a convolution of these shapes.
Shape output_shape(const Shape& x, const Shape& w, const ConvParams& c) {
  check_params(c);
  check(x.rank() == 4 && w.rank() == 4, "wants x [B, C, H, W] and w [O, C / groups, h, w], got {} and {}", x, w);
  check(w[0] >= 1 && w[1] >= 1 && w[2] >= 1 && w[3] >= 1, "w {} is empty", w);
  check(w[0] % c.groups == 0 && x[1] % c.groups == 0, "{} groups do not divide the {} channels of x {} and the {} of w {}", c.groups, x[1],
        x, w[0], w);
  check(x[1] / c.groups == w[1], "w {} takes {} channels a group, x {} has {} in {} groups", w, w[1], x, x[1], c.groups);
  check(w[2] < 1 << 30 && w[3] < 1 << 30 && x[2] < 1 << 30 && x[3] < 1 << 30, "x {} or w {} is longer than 2^30", x, w);
  return {x[0], w[0], positions(x[2], w[2], c, 0), positions(x[3], w[3], c, 1)};
}
// All three products multiply each output with each tap of each channel of its group; those over padding count, too.
void count_products(Plan& p, const Shape& y, const Shape& w) { p.matmul_flops({2, y.numel(), w[1], w[2], w[3]}); }
void check_dtypes(const TensorSpec& a, const TensorSpec& b) {
  check(a.dtype == b.dtype && is_float(a.dtype), "wants two floating-point tensors of one dtype, got {} and {}", a, b);
}

// x, w (, bias) -> y
void plan_conv2d(Plan& p) {
  check_dtypes(p.in[0], p.in[1]);
  const Shape y = output_shape(p.in[0].shape, p.in[1].shape, p.params.as<ConvParams>());
  p.output(y, p.in[0].dtype);
  count_products(p, y, p.in[1].shape);
  if (p.in.size() == 2) return;
  check(p.in[2] == TensorSpec{{y[1]}, p.in[0].dtype}, "bias {} does not match w {}", p.in[2], p.in[1]);
  p.vector_flops({y.numel()});
}
// dy, w -> dx, whose height and width are given
void plan_conv2d_back_x(Plan& p) {
  const auto c = p.params.as<ConvParams>();
  const Shape &dy = p.in[0].shape, &w = p.in[1].shape;
  check_dtypes(p.in[0], p.in[1]);
  check(dy.rank() == 4 && w.rank() == 4, "wants dy [B, O, H', W'] and w [O, C / groups, h, w], got {} and {}", dy, w);
  const Shape x{dy[0], checked_multiply(w[1], c.groups), c.extent[0], c.extent[1]};
  check(output_shape(x, w, c) == dy, "dy {} is not the result of x {} and w {}", dy, x, w);
  p.output(x, p.in[0].dtype);
  count_products(p, dy, w);
}
// dy, x -> dw, whose height and width are given
void plan_conv2d_back_w(Plan& p) {
  const auto c = p.params.as<ConvParams>();
  const Shape &dy = p.in[0].shape, &x = p.in[1].shape;
  check_dtypes(p.in[0], p.in[1]);
  check(dy.rank() == 4 && x.rank() == 4 && c.groups >= 1, "wants dy [B, O, H', W'] and x [B, C, H, W], got {} and {}", dy, x);
  const Shape w{dy[1], x[1] / c.groups, c.extent[0], c.extent[1]};
  check(output_shape(x, w, c) == dy, "dy {} is not the result of x {} and w {}", dy, x, w);
  p.output(w, p.in[0].dtype);
  count_products(p, dy, w);
}

Tensor forward(const Tensor& x, const Tensor& w, const ConvParams& c) { return call(op::conv2d, tensors(x, w), c)[0]; }
Tensor back_x(const Tensor& dy, const Tensor& w, ConvParams c, const Shape& x) {
  c.extent[0] = x[2], c.extent[1] = x[3];
  return call(op::conv2d_back_x, tensors(dy, w), c)[0];
}
Tensor back_w(const Tensor& dy, const Tensor& x, ConvParams c, const Shape& w) {
  c.extent[0] = w[2], c.extent[1] = w[3];
  return call(op::conv2d_back_w, tensors(dy, x), c)[0];
}
Tensors vjp_conv2d(Vjp& v) {
  const auto c = v.as<ConvParams>();
  const std::vector<TensorSpec>& in = v.node.in_specs();
  Tensors dx(in.size());
  if (in.size() > 2 && v.needs_in(2)) dx[2] = sum(v.dy[0], {0, 2, 3});
  if (v.needs_in(1)) dx[1] = back_w(v.dy[0], v.in(0), c, in[1].shape);
  if (v.needs_in(0)) dx[0] = back_x(v.dy[0], v.in(1), c, in[0].shape);
  return dx;
}
Tensors vjp_conv2d_back_x(Vjp& v) {  // of dx = back_x(dy, w)
  const auto c = v.as<ConvParams>();
  Tensors d(2);
  if (v.needs_in(0)) d[0] = forward(v.dy[0], v.in(1), c);
  if (v.needs_in(1)) d[1] = back_w(v.in(0), v.dy[0], c, v.node.in_specs()[1].shape);
  return d;
}
Tensors vjp_conv2d_back_w(Vjp& v) {  // of dw = back_w(dy, x)
  const auto c = v.as<ConvParams>();
  Tensors d(2);
  if (v.needs_in(0)) d[0] = forward(v.in(1), v.dy[0], c);
  if (v.needs_in(1)) d[1] = back_x(v.in(0), v.dy[0], c, v.node.in_specs()[1].shape);
  return d;
}
}  // namespace

const OpDef op::conv2d{k_conv2d, "conv2d", plan_conv2d, vjp_conv2d, {.in = 0b11}, {.autocast = AutocastPolicy::low}};
const OpDef op::conv2d_back_x{k_conv2d_back_x, "conv2d_back_x", plan_conv2d_back_x, vjp_conv2d_back_x, {.in = 0b11}};
const OpDef op::conv2d_back_w{k_conv2d_back_w, "conv2d_back_w", plan_conv2d_back_w, vjp_conv2d_back_w, {.in = 0b11}};

Tensor conv2d(const Tensor& x, const Tensor& w, const Tensor& bias, const Conv2dOptions& o) {
  const ConvParams c{{o.stride[0], o.stride[1]}, {o.padding[0], o.padding[1]}, {o.dilation[0], o.dilation[1]}, {0, 0}, o.groups};
  return call(op::conv2d, bias.defined() ? tensors(x, w, bias) : tensors(x, w), c)[0];
}
}  // namespace reckon
