// ops/elementwise: unary and binary operations with broadcasting, comparisons and selection.
#include <cmath>

#include "reckon/ops/dtypes.h"
#include "reckon/ops/ops.h"
#include "reckon/ops/rows.h"
#include "reckon/ops/unary.h"

namespace reckon {
namespace {
// The public functions promote; a row itself takes one dtype.
void check_same_dtype(const Plan& p, size_t a = 0, size_t b = 1) {
  check(p.in[a].dtype == p.in[b].dtype, "dtypes differ: {} and {}; cast one of them", p.in[a].dtype, p.in[b].dtype);
}
void check_float(const Plan& p, size_t i = 0) { check(is_float(p.in[i].dtype), "wants a floating-point tensor, got {}", p.in[i].dtype); }

template <int kCost>
void plan_unary(Plan& p) {
  check_float(p);
  p.output(p.in[0]);
  p.vector_flops({kCost, p.in[0].numel()});
}
// Whole numbers too; they wrap.
void plan_number_unary(Plan& p) {
  check(p.in[0].dtype != DType::boolean, "has no bool arithmetic; cast it, or take equal() and where()");
  p.output(p.in[0]);
  p.flops.vector = p.in[0].numel();
}
// dy and the kept tensor -> dx
template <int kCost>
void plan_unary_back(Plan& p) {
  check_float(p);
  check(p.in[0] == p.in[1], "dy {} does not match {}", p.in[0], p.in[1]);
  p.output(p.in[1]);
  p.vector_flops({kCost, p.in[1].numel()});
}
void plan_binary(Plan& p) {
  check_same_dtype(p);
  p.output(broadcast(p.in[0].shape, p.in[1].shape), p.in[0].dtype);
  p.flops.vector = p.out[0].numel();
}
// bool has no differences, quotients and powers.
void plan_number_binary(Plan& p) {
  check(p.in[0].dtype != DType::boolean || p.in[1].dtype != DType::boolean, "has no bool arithmetic; cast the inputs, or compare them with equal()");
  plan_binary(p);
}
void plan_float_binary(Plan& p) {
  check_float(p);
  plan_binary(p);
}
void plan_compare(Plan& p) {
  check_same_dtype(p);
  p.output(broadcast(p.in[0].shape, p.in[1].shape), DType::boolean);
  p.flops.vector = p.out[0].numel();
}
void plan_where(Plan& p) {
  check(p.in[0].dtype == DType::boolean, "the condition is {}, not bool", p.in[0].dtype);
  check_same_dtype(p, 1, 2);
  p.output(broadcast(p.in[0].shape, broadcast(p.in[1].shape, p.in[2].shape)), p.in[1].dtype);
}

Tensor binary(const OpDef& row, const Tensor& a, const Tensor& b) {
  const DType dtype = result_dtype(row.name, a, b);
  return call(row, tensors(cast(a, dtype), cast(b, dtype)))[0];
}
// Of whole numbers the operation gives floats: f32, as in PyTorch.
Tensor float_binary(const OpDef& row, const Tensor& a, const Tensor& b) {
  const DType dtype = result_dtype(row.name, a, b);
  return is_float(dtype) || is_float8(dtype) ? binary(row, a, b) : call(row, tensors(to_floats(a), to_floats(b)))[0];
}
Tensor unary(const OpDef& row, const Tensor& x) { return call(row, tensors(x))[0]; }

// 0 times x would be NaN where x is infinite or NaN.
Tensor zero_of(const Tensor& x) { return zeros(x.device(), {Shape{}, x.dtype()}); }

Tensors vjp_add(Vjp& v) {
  const Shape &a = v.node.in_specs()[0].shape, &b = v.node.in_specs()[1].shape;
  Tensors dx(2);
  if (v.needs_in(0)) dx[0] = sum_to(v.dy[0], a);
  if (v.needs_in(1)) dx[1] = sum_to(v.dy[0], b);
  return dx;
}
Tensors vjp_sub(Vjp& v) {
  const Shape &a = v.node.in_specs()[0].shape, &b = v.node.in_specs()[1].shape;
  Tensors dx(2);
  if (v.needs_in(1)) dx[1] = neg(sum_to(v.dy[0], b));
  if (v.needs_in(0)) dx[0] = sum_to(v.dy[0], a);
  return dx;
}
Tensors vjp_mul(Vjp& v) {
  const Tensor a = v.in(0), b = v.in(1);
  Tensors dx(2);
  if (v.needs_in(0)) dx[0] = sum_to(mul(v.dy[0], b), a.shape());
  if (v.needs_in(1)) dx[1] = sum_to(mul(v.dy[0], a), b.shape());
  return dx;
}
Tensors vjp_div(Vjp& v) {  // y = a / b: da = dy / b, db = -(dy / b) (a / b): b^2 might be beyond the type
  const Tensor a = v.in(0), b = v.in(1), da = div(v.dy[0], b);
  Tensors dx(2);
  if (v.needs_in(1)) dx[1] = sum_to(neg(mul(da, div(a, b))), b.shape());
  if (v.needs_in(0)) dx[0] = sum_to(da, a.shape());
  return dx;
}
// Where both are equal the gradient goes to both, half each.
Tensors vjp_extremum(Vjp& v, bool is_max) {
  const Tensor a = v.in(0), b = v.in(1);
  const Tensor half = affine(v.dy[0], 0.5), zero = zero_of(v.dy[0]);
  const Tensor tie = equal(a, b), a_wins = is_max ? less(b, a) : less(a, b), b_wins = is_max ? less(a, b) : less(b, a);
  Tensors dx(2);
  if (v.needs_in(0)) dx[0] = sum_to(where(a_wins, v.dy[0], where(tie, half, zero)), a.shape());
  if (v.needs_in(1)) dx[1] = sum_to(where(b_wins, v.dy[0], where(tie, half, zero)), b.shape());
  return dx;
}
Tensors vjp_maximum(Vjp& v) { return vjp_extremum(v, true); }
Tensors vjp_minimum(Vjp& v) { return vjp_extremum(v, false); }
// y = a^b: da = dy b a^(b-1), db = dy a^b log a. At base 0 both may be 0 times infinity: da is 0 for b = 0, db for b >= 0, as in PyTorch.
// Taking 1 for the base there makes the products 0 without a NaN on the way, so that gradients of them are finite too.
Tensors vjp_pow(Vjp& v) {
  const Tensor a = v.in(0), b = v.in(1), zero = zero_of(a), one = ones(a.device(), {Shape{}, a.dtype()});
  const auto base_of_zeros = [&](const Tensor& exponents) { return where(equal(a, zero), where(exponents, one, a), a); };
  Tensors dx(2);
  if (v.needs_in(0)) dx[0] = sum_to(mul(v.dy[0], mul(b, pow(base_of_zeros(equal(b, zero)), affine(b, 1, -1)))), a.shape());
  if (v.needs_in(1)) dx[1] = sum_to(mul(v.dy[0], mul(pow(a, b), log(base_of_zeros(less_equal(zero, b))))), b.shape());
  return dx;
}

// y = floor(a / b) carries no gradient: it is 0 wherever there is one. r = a - floor(a / b) b: da = dy, db = -dy floor(a / b).
Tensors vjp_remainder(Vjp& v) {
  const Shape &a = v.node.in_specs()[0].shape, &b = v.node.in_specs()[1].shape;
  Tensors dx(2);
  if (v.needs_in(1)) dx[1] = neg(sum_to(mul(v.dy[0], floor_divide(v.in(0), v.in(1))), b));
  if (v.needs_in(0)) dx[0] = sum_to(v.dy[0], a);
  return dx;
}

// A number that 64 bits hold.
bool is_whole(double v) { return std::trunc(v) == v && std::abs(v) < 0x1p63; }
void plan_affine(Plan& p) {
  const auto a = p.params.as<AffineParams>();
  check(p.in[0].dtype != DType::boolean, "has no bool arithmetic; cast it first");
  check(is_float(p.in[0].dtype) || (is_whole(a.alpha) && is_whole(a.beta)),
        "{} x + {} is not taken of {}: cast it to a float first", a.alpha, a.beta, p.in[0].dtype);
  p.output(p.in[0]);
  p.vector_flops({2, p.in[0].numel()});
}
Tensors vjp_affine(Vjp& v) { return {affine(std::move(v.dy[0]), v.as<AffineParams>().alpha)}; }
Tensors vjp_neg(Vjp& v) { return {neg(v.dy[0])}; }
Tensors vjp_exp(Vjp& v) { return {mul(v.dy[0], v.out(0))}; }
Tensors vjp_log(Vjp& v) { return {div(v.dy[0], v.in(0))}; }
Tensors vjp_sqrt(Vjp& v) { return {div(affine(v.dy[0], 0.5), v.out(0))}; }
Tensors vjp_rsqrt(Vjp& v) {  // y = x^-1/2: dx = -dy y^3 / 2, where y^3 alone might be beyond the type
  const Tensor y = v.out(0);
  return {mul(mul(mul(affine(v.dy[0], -0.5), y), y), y)};
}
Tensors vjp_square(Vjp& v) { return {mul(v.dy[0], affine(v.in(0), 2))}; }
Tensors vjp_reciprocal(Vjp& v) { return {neg(mul(v.dy[0], square(v.out(0))))}; }
Tensors vjp_abs(Vjp& v) {  // the subgradient at 0 is 0
  const Tensor x = v.in(0), zero = zero_of(x);
  return {where(less(zero, x), v.dy[0], where(less(x, zero), neg(v.dy[0]), zero))};
}
Tensor back(const OpDef& row, Vjp& v, Tensor kept) { return call(row, tensors(std::move(v.dy[0]), std::move(kept)))[0]; }
Tensors vjp_tanh(Vjp& v) { return {back(op::tanh_back, v, v.out(0))}; }
Tensors vjp_sigmoid(Vjp& v) { return {back(op::sigmoid_back, v, v.out(0))}; }
Tensors vjp_relu(Vjp& v) { return {back(op::relu_back, v, v.out(0))}; }
Tensors vjp_gelu(Vjp& v) { return {back(op::gelu_back, v, v.in(0))}; }
Tensors vjp_silu(Vjp& v) { return {back(op::silu_back, v, v.in(0))}; }

// ---- gradients of gradients: the rules of the rows above, whose inputs are dy and what was kept, for a gradient g of their result. Rows that
// are linear in dy are their own derivative there.
Tensors vjp_tanh_back(Vjp& v) {  // dy (1 - y^2)
  const Tensor dy = v.in(0), y = v.in(1), g = v.dy[0];
  Tensors d(2);
  if (v.needs_in(0)) d[0] = call(op::tanh_back, tensors(g, y))[0];
  if (v.needs_in(1)) d[1] = mul(mul(g, dy), affine(y, -2));
  return d;
}
Tensors vjp_sigmoid_back(Vjp& v) {  // dy y (1 - y)
  const Tensor dy = v.in(0), y = v.in(1), g = v.dy[0];
  Tensors d(2);
  if (v.needs_in(0)) d[0] = call(op::sigmoid_back, tensors(g, y))[0];
  if (v.needs_in(1)) d[1] = mul(mul(g, dy), affine(y, -2, 1));
  return d;
}
Tensors vjp_relu_back(Vjp& v) {  // dy where y > 0; constant in y
  const Tensor y = v.in(1);
  Tensors d(2);
  if (v.needs_in(0)) d[0] = call(op::relu_back, tensors(v.dy[0], y))[0];
  if (v.needs_in(1)) d[1] = zeros(y.device(), y.spec());
  return d;
}
// With u = c (x + a x^3) and t = tanh(u): gelu = x (1 + t) / 2, and gelu'' = (1 - t^2) (u' + x u'' / 2 - x t u'^2).
// Beyond 10 it is 0 in every type, and its factors are not finite in all.
Tensor gelu_second(const Tensor& everywhere) {
  const Tensor x = clamp(everywhere, -10, 10);
  constexpr double c = std::numbers::sqrt2 * std::numbers::inv_sqrtpi, a = 0.044715;
  const Tensor xx = square(x), t = tanh(mul(x, affine(xx, a * c, c))), slope = affine(xx, 3 * a * c, c);  // slope: u'; x u'' = 6 a c x^2
  const Tensor rest = sub(add(slope, affine(xx, 3 * a * c)), mul(mul(x, t), square(slope)));
  return mul(affine(square(t), -1, 1), rest);
}
Tensors vjp_gelu_back(Vjp& v) {  // dy gelu'(x)
  const Tensor dy = v.in(0), x = v.in(1), g = v.dy[0];
  Tensors d(2);
  if (v.needs_in(0)) d[0] = call(op::gelu_back, tensors(g, x))[0];
  if (v.needs_in(1)) d[1] = mul(mul(g, dy), gelu_second(x));
  return d;
}
// silu'' = s (1 - s) (2 + x (1 - 2 s))
Tensor silu_second(const Tensor& x) {
  const Tensor s = sigmoid(x);
  return mul(mul(s, affine(s, -1, 1)), affine(mul(x, affine(s, -2, 1)), 1, 2));
}
Tensors vjp_silu_back(Vjp& v) {  // dy silu'(x)
  const Tensor dy = v.in(0), x = v.in(1), g = v.dy[0];
  Tensors d(2);
  if (v.needs_in(0)) d[0] = call(op::silu_back, tensors(g, x))[0];
  if (v.needs_in(1)) d[1] = mul(mul(g, dy), silu_second(x));
  return d;
}
Tensors vjp_where(Vjp& v) {
  const Tensor condition = v.in(0), zero = zero_of(v.dy[0]);
  Tensors dx(3);
  if (v.needs_in(1)) dx[1] = sum_to(where(condition, v.dy[0], zero), v.node.in_specs()[1].shape);
  if (v.needs_in(2)) dx[2] = sum_to(where(condition, zero, v.dy[0]), v.node.in_specs()[2].shape);
  return dx;
}

void plan_swiglu(Plan& p) {
  check_float(p);
  check(p.in[0].shape.rank() >= 1 && p.in[0].shape.last() % 2 == 0, "the last axis holds gate and up: its extent must be even, got {}", p.in[0].shape);
  p.output(p.in[0].shape.with(-1, p.in[0].shape.last() / 2), p.in[0].dtype);
  p.vector_flops({6, p.out[0].numel()});
}
void plan_swiglu_back(Plan& p) {
  p.output(p.in[1]);
  p.vector_flops({14, p.in[0].numel()});
}
Tensors vjp_swiglu(Vjp& v) { return {back(op::swiglu_back, v, v.in(0))}; }

// Half h of the last axis, and a tensor of zeros but for that half.
Tensor half(const Tensor& x, int h) {
  const int64_t width = x.shape().last() / 2;
  return slice(x, -1, h * width, (h + 1) * width);
}
Tensor padded_half(const Tensor& x, int h) {
  const int64_t width = x.shape().last();
  return call(op::slice_back, tensors(x), SliceParams{x.rank() - 1, 2 * width, h * width, (h + 1) * width, 1})[0];
}
Tensors vjp_swiglu_back(Vjp& v) {  // dy, x = (gate | up) -> (dy up silu'(gate) | dy silu(gate))
  const Tensor dy = v.in(0), x = v.in(1), gate = contiguous(half(x, 0)), up = half(x, 1);
  const Tensor to_gate = half(v.dy[0], 0), to_up = half(v.dy[0], 1);
  Tensors d(2);
  if (v.needs_in(0)) d[0] = add(call(op::silu_back, tensors(mul(to_gate, up), gate))[0], mul(to_up, silu(gate)));
  if (v.needs_in(1)) {
    const Tensor both = mul(to_gate, dy);
    const Tensor dgate = add(mul(mul(both, up), silu_second(gate)), call(op::silu_back, tensors(mul(to_up, dy), gate))[0]);
    d[1] = add(padded_half(dgate, 0), padded_half(call(op::silu_back, tensors(both, gate))[0], 1));
  }
  return d;
}
}  // namespace

// Costs per element are listed in docs/flops.md. A unary operation may write over its input when nobody else holds it.
#define BINARY(name, plan, vjp, kept, policy) \
  const OpDef op::name{k_##name, #name, plan, vjp, {.in = kept}, {.reuse = 0b11, .any_stride = 0b11, .pointwise = true, .autocast = AutocastPolicy::policy}}
BINARY(add, plan_binary, vjp_add, 0, widest);
BINARY(sub, plan_number_binary, vjp_sub, 0, widest);
BINARY(mul, plan_binary, vjp_mul, 0b11, widest);
BINARY(div, plan_float_binary, vjp_div, 0b11, widest);
BINARY(maximum, plan_binary, vjp_maximum, 0b11, widest);
BINARY(minimum, plan_binary, vjp_minimum, 0b11, widest);
BINARY(pow, plan_number_binary, vjp_pow, 0b11, wide);
#undef BINARY
const OpDef op::floor_divide{k_floor_divide, "floor_divide", plan_number_binary, nullptr, {}, {.any_stride = 0b11, .detached_outputs = 1, .autocast = AutocastPolicy::widest}};
const OpDef op::remainder{k_remainder, "remainder", plan_number_binary, vjp_remainder, {.in = 0b11}, {.any_stride = 0b11, .autocast = AutocastPolicy::widest}};
const OpDef op::affine{k_affine, "affine", plan_affine, vjp_affine, {}, {.reuse = 0b1, .pointwise = true}};
#define NUMBER_UNARY(name, kept, policy) \
  const OpDef op::name{k_##name, #name, plan_number_unary, vjp_##name, {.in = kept}, {.reuse = 0b1, .pointwise = true, .autocast = AutocastPolicy::policy}}
NUMBER_UNARY(neg, 0, none);
NUMBER_UNARY(square, 1, wide);
NUMBER_UNARY(abs, 1, none);
#undef NUMBER_UNARY
#define UNARY(name, cost, kept_in, kept_out, policy) \
  const OpDef op::name{k_##name, #name, plan_unary<cost>, vjp_##name, {.in = kept_in, .out = kept_out}, {.reuse = 0b1, .pointwise = true, .autocast = AutocastPolicy::policy}}
UNARY(exp, 1, 0, 1, wide);
UNARY(log, 1, 1, 0, wide);
UNARY(sqrt, 1, 0, 1, none);
UNARY(rsqrt, 1, 0, 1, wide);
UNARY(reciprocal, 1, 0, 1, wide);
UNARY(tanh, 1, 0, 1, none);
UNARY(sigmoid, 4, 0, 1, none);
UNARY(relu, 1, 0, 1, none);
UNARY(gelu, 9, 1, 0, none);
UNARY(silu, 5, 1, 0, none);
#undef UNARY
const OpDef op::tanh_back{k_tanh_back, "tanh_back", plan_unary_back<3>, vjp_tanh_back, {.in = 0b11}, {.reuse = 0b1, .pointwise = true}};
const OpDef op::sigmoid_back{k_sigmoid_back, "sigmoid_back", plan_unary_back<3>, vjp_sigmoid_back, {.in = 0b11}, {.reuse = 0b1, .pointwise = true}};
const OpDef op::relu_back{k_relu_back, "relu_back", plan_unary_back<1>, vjp_relu_back, {.in = 0b10}, {.reuse = 0b1, .pointwise = true}};
const OpDef op::gelu_back{k_gelu_back, "gelu_back", plan_unary_back<19>, vjp_gelu_back, {.in = 0b11}, {.reuse = 0b11, .pointwise = true}};
const OpDef op::silu_back{k_silu_back, "silu_back", plan_unary_back<9>, vjp_silu_back, {.in = 0b11}, {.reuse = 0b11, .pointwise = true}};
const OpDef op::equal{k_equal, "equal", plan_compare, nullptr, {}, {.any_stride = 0b11, .detached_outputs = 1, .pointwise = true, .autocast = AutocastPolicy::widest}};
const OpDef op::less{k_less, "less", plan_compare, nullptr, {}, {.any_stride = 0b11, .detached_outputs = 1, .pointwise = true, .autocast = AutocastPolicy::widest}};
const OpDef op::less_equal{k_less_equal, "less_equal", plan_compare, nullptr, {}, {.any_stride = 0b11, .detached_outputs = 1, .pointwise = true, .autocast = AutocastPolicy::widest}};
const OpDef op::where{k_where, "where", plan_where, vjp_where, {.in = 0b1}, {.any_stride = 0b111, .pointwise = true, .autocast = AutocastPolicy::widest}};
const OpDef op::swiglu{k_swiglu, "swiglu", plan_swiglu, vjp_swiglu, {.in = 0b1}};
const OpDef op::swiglu_back{k_swiglu_back, "swiglu_back", plan_swiglu_back, vjp_swiglu_back, {.in = 0b11}, {.reuse = 0b10}};

Tensor add(Tensor a, Tensor b) {
  const DType dtype = result_dtype("add", a, b);
  if (a.dtype() != dtype) a = cast(a, dtype);
  if (b.dtype() != dtype) b = cast(b, dtype);
  return call(op::add, tensors(std::move(a), std::move(b)))[0];
}
Tensor sub(const Tensor& a, const Tensor& b) { return binary(op::sub, a, b); }
Tensor mul(const Tensor& a, const Tensor& b) { return binary(op::mul, a, b); }
Tensor div(const Tensor& a, const Tensor& b) { return float_binary(op::div, a, b); }
Tensor floor_divide(const Tensor& a, const Tensor& b) { return binary(op::floor_divide, a, b); }
Tensor remainder(const Tensor& a, const Tensor& b) { return binary(op::remainder, a, b); }
Tensor maximum(const Tensor& a, const Tensor& b) { return binary(op::maximum, a, b); }
Tensor minimum(const Tensor& a, const Tensor& b) { return binary(op::minimum, a, b); }
Tensor pow(const Tensor& a, const Tensor& b) { return binary(op::pow, a, b); }
Tensor affine(Tensor x, double alpha, double beta) {
  if (!is_float(x.dtype()) && !is_float8(x.dtype())) {
    if (!is_whole(alpha) || !is_whole(beta)) x = to_floats(x);
    if (x.dtype() == DType::boolean) x = cast(x, DType::i64);
  }
  return call(op::affine, tensors(std::move(x)), AffineParams{alpha, beta})[0];
}
#define UNARY(name) \
  Tensor name(const Tensor& x) { return unary(op::name, x); }
UNARY(neg)
UNARY(square)
UNARY(abs)
UNARY(swiglu)
#undef UNARY
#define UNARY(name) \
  Tensor name(const Tensor& x) { return unary(op::name, to_floats(x)); }
UNARY(exp)
UNARY(log)
UNARY(sqrt)
UNARY(rsqrt)
UNARY(reciprocal)
UNARY(tanh)
UNARY(sigmoid)
UNARY(gelu)
UNARY(silu)
#undef UNARY
Tensor relu(const Tensor& x) {
  return is_integer(x.dtype()) ? maximum(x, zero_of(x)) : unary(op::relu, x);
}
Tensor equal(const Tensor& a, const Tensor& b) { return binary(op::equal, a, b); }
Tensor less(const Tensor& a, const Tensor& b) { return binary(op::less, a, b); }
Tensor less_equal(const Tensor& a, const Tensor& b) { return binary(op::less_equal, a, b); }
Tensor where(const Tensor& condition, const Tensor& a, const Tensor& b) {
  const DType dtype = result_dtype("where", a, b);
  return call(op::where, tensors(condition, cast(a, dtype), cast(b, dtype)))[0];
}
}  // namespace reckon
