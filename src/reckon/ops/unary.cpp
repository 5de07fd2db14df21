// ops/unary: element-wise rows beside those of ops/elementwise.cpp, with rules of public operations, and functions composed of both.
#include "reckon/ops/unary.h"

#include <cmath>
#include <numbers>

#include "reckon/engine/autocast.h"
#include "reckon/ops/dtypes.h"
#include "reckon/ops/ops.h"
#include "reckon/ops/rows.h"

namespace reckon {
namespace {
void check_float(const Plan& p) { check(is_float(p.in[0].dtype), "wants a floating-point tensor, got {}", p.in[0].dtype); }

template <int kCost>
void plan_unary(Plan& p) {
  check_float(p);
  p.output(p.in[0]);
  p.vector_flops({kCost, p.in[0].numel()});
}
void plan_clamp(Plan& p) {
  const auto c = p.params.as<ClampParams>();
  const DType dtype = p.in[0].dtype;
  check(is_float(dtype) || dtype == DType::i32 || dtype == DType::i64, "wants floats, i32 or i64, got {}", dtype);
  check(c.low <= c.high, "the lower bound {} is above the upper bound {}", c.low, c.high);  // false for NaN, too
  p.output(p.in[0]);
  p.vector_flops({2, p.in[0].numel()});
}
void plan_compare(Plan& p) {
  check(p.in[0].dtype == p.in[1].dtype, "dtypes differ: {} and {}; cast one of them", p.in[0].dtype, p.in[1].dtype);
  p.output(broadcast(p.in[0].shape, p.in[1].shape), DType::boolean);
  p.flops.vector = p.out[0].numel();
}

Tensor constant(const Tensor& like, double value) { return full(like.device(), {Shape{}, like.dtype()}, value); }
Tensor unary(const OpDef& row, const Tensor& x) { return call(row, tensors(x))[0]; }

Tensors vjp_sin(Vjp& v) { return {mul(v.dy[0], cos(v.in(0)))}; }
Tensors vjp_cos(Vjp& v) { return {neg(mul(v.dy[0], sin(v.in(0))))}; }
Tensors vjp_erf(Vjp& v) {  // 2 / sqrt(pi) exp(-x^2)
  return {mul(v.dy[0], affine(exp(neg(square(v.in(0)))), 2 * std::numbers::inv_sqrtpi))};
}
// Steps: flat wherever they have a slope.
Tensors vjp_step(Vjp& v) { return {expand(constant(v.dy[0], 0), v.dy[0].shape())}; }
Tensors vjp_log1p(Vjp& v) { return {div(v.dy[0], affine(v.in(0), 1, 1))}; }
Tensors vjp_expm1(Vjp& v) { return {mul(v.dy[0], affine(v.out(0), 1, 1))}; }
Tensors vjp_softplus(Vjp& v) { return {mul(v.dy[0], sigmoid(v.in(0)))}; }
Tensors vjp_gelu_erf(Vjp& v) {  // Phi(x) + x phi(x)
  const Tensor x = v.in(0), below = affine(erf(affine(x, std::numbers::sqrt2 / 2)), 0.5, 0.5);
  const Tensor density = affine(exp(affine(square(x), -0.5)), std::numbers::inv_sqrtpi * std::numbers::sqrt2 / 2);
  return {mul(v.dy[0], add(below, mul(x, density)))};
}
Tensors vjp_clamp(Vjp& v) {
  const auto c = v.as<ClampParams>();
  const Tensor x = v.in(0), zero = constant(v.dy[0], 0);
  const Tensor above_low = where(less(x, constant(x, c.low)), zero, v.dy[0]);
  return {where(less(constant(x, c.high), x), zero, above_low)};
}
}  // namespace

#define UNARY(name, cost, rule, kept_in, kept_out, policy)                                                                             \
  const OpDef op::name {                                                                                                               \
    k_##name, #name, plan_unary<cost>, rule, {.in = kept_in, .out = kept_out}, { .reuse = 0b1, .autocast = AutocastPolicy::policy } \
  }
UNARY(sin, 1, vjp_sin, 1, 0, none);
UNARY(cos, 1, vjp_cos, 1, 0, none);
UNARY(erf, 1, vjp_erf, 1, 0, none);
UNARY(floor, 1, vjp_step, 0, 0, none);
UNARY(ceil, 1, vjp_step, 0, 0, none);
UNARY(round, 1, vjp_step, 0, 0, none);
UNARY(sign, 1, vjp_step, 0, 0, none);
UNARY(log1p, 1, vjp_log1p, 1, 0, wide);
UNARY(expm1, 1, vjp_expm1, 0, 1, wide);
UNARY(softplus, 5, vjp_softplus, 1, 0, wide);
UNARY(gelu_erf, 5, vjp_gelu_erf, 1, 0, none);
#undef UNARY
const OpDef op::clamp{k_clamp, "clamp", plan_clamp, vjp_clamp, {.in = 1}, {.reuse = 0b1}};
const OpDef op::not_equal{k_not_equal, "not_equal", plan_compare, nullptr, {}, {.any_stride = 0b11, .detached_outputs = 1, .autocast = AutocastPolicy::widest}};

// Of whole numbers those of their f32 values; they are whole already, and have a sign.
#define UNARY(name) \
  Tensor name(const Tensor& x) { return unary(op::name, to_floats(x)); }
UNARY(sin)
UNARY(cos)
UNARY(erf)
UNARY(log1p)
UNARY(expm1)
UNARY(gelu_erf)
#undef UNARY
#define UNARY(name) \
  Tensor name(const Tensor& x) { return is_integer(x.dtype()) ? x : unary(op::name, x); }
UNARY(floor)
UNARY(ceil)
UNARY(round)
#undef UNARY
Tensor sign(const Tensor& x) {
  if (!is_integer(x.dtype())) return unary(op::sign, x);
  const Tensor zero = constant(x, 0);
  return sub(cast(less(zero, x), x.dtype()), cast(less(x, zero), x.dtype()));
}
Tensor softplus(const Tensor& in, double beta) {
  const Tensor x = autocast_input(AutocastPolicy::wide, to_floats(in));
  if (beta == 1) return unary(op::softplus, x);
  check(beta > 0 && std::isfinite(beta), "softplus: beta must be above 0 and finite, got {}", beta);
  const Tensor wide = size_of(x.dtype()) == 2 ? cast(x, DType::f32) : x;  // beta x might be beyond 16 bits
  return cast(affine(unary(op::softplus, affine(wide, beta)), 1 / beta), x.dtype());
}
Tensor clamp(const Tensor& in, double low, double high) {
  const auto is_fraction = [](double v) { return std::isfinite(v) && std::trunc(v) != v; };
  const Tensor x = is_fraction(low) || is_fraction(high) ? to_floats(in) : in;
  return call(op::clamp, tensors(x), ClampParams{low, high})[0];
}
Tensor elu(const Tensor& x, double alpha) {
  // exp of what is not taken could be infinite, and its gradient times 0 a NaN.
  const Tensor below = affine(expm1(clamp(x, -INFINITY, 0)), alpha);
  return where(less(constant(x, 0), x), x, below);
}
Tensor leaky_relu(const Tensor& x, double slope) { return where(less(constant(x, 0), x), x, affine(x, slope)); }
Tensor hard_sigmoid(const Tensor& x, double alpha, double beta) { return clamp(affine(x, alpha, beta), 0, 1); }

Tensor not_equal(const Tensor& a, const Tensor& b) {
  const DType dtype = result_dtype("not_equal", a, b);
  return call(op::not_equal, tensors(cast(a, dtype), cast(b, dtype)))[0];
}
Tensor greater(const Tensor& a, const Tensor& b) { return less(b, a); }
Tensor greater_equal(const Tensor& a, const Tensor& b) { return less_equal(b, a); }

namespace {
void check_bool(const Tensor& a, const Tensor& b, const char* name) {
  check(a.dtype() == DType::boolean && b.dtype() == DType::boolean, "{}: wants bool, got {} and {}", name, a, b);
}
}  // namespace
Tensor logical_and(const Tensor& a, const Tensor& b) {
  check_bool(a, b, "logical_and");
  return where(a, b, a);
}
Tensor logical_or(const Tensor& a, const Tensor& b) {
  check_bool(a, b, "logical_or");
  return where(a, a, b);
}
Tensor logical_xor(const Tensor& a, const Tensor& b) {
  check_bool(a, b, "logical_xor");
  return not_equal(a, b);
}
Tensor logical_not(const Tensor& x) {
  check_bool(x, x, "logical_not");
  return equal(x, constant(x, 0));
}
Tensor isnan(const Tensor& x) { return not_equal(x, x); }
Tensor isinf(const Tensor& x) { return is_float(x.dtype()) ? equal(abs(x), constant(x, INFINITY)) : not_equal(x, x); }
}  // namespace reckon
