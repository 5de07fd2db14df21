// ops/float8: plans, the gradient rule and rows of linear layers in 8-bit floats. What is noted for the next step is noted by backward: a
// forward pass without side effects may lie in a checkpointed segment.
#include "reckon/ops/float8.h"

#include "reckon/engine/context.h"
#include "reckon/ops/ops.h"
#include "reckon/ops/rows.h"

namespace reckon {
namespace {
// Inputs and outputs of linear_fp8 and linear_fp8_again.
enum : size_t { kX, kW, kScales, kAmax, kBias };
enum : size_t { kY, kStats, kCodes };

const TensorSpec kThree{{kFloat8Tensors}, DType::f32}, kPair{{2}, DType::f32}, kPairs{{4}, DType::f32};

void check_wide(const TensorSpec& x, const char* what) {
  check(x.dtype == DType::f32 || x.dtype == DType::bf16, "{} must be f32 or bf16, got {}", what, x);
}
void check_codes(const TensorSpec& x, DType format, const char* what) {
  check(x.dtype == format, "{} must be {}, got {}", what, format, x);
}

// x, scale [1] -> codes, stats [2]: largest magnitude, scale
void plan_quantize(Plan& p) {
  const DType format = p.params.as<QuantizeParams>().format;
  check(is_float8(format), "the format must be f8e4m3fn or f8e5m2, got {}", format);
  check_wide(p.in[0], "x");
  check(p.in[1] == TensorSpec{{1}, DType::f32}, "the scale must be f32[1], got {}", p.in[1]);
  p.output(p.in[0].shape, format);
  p.output(kPair);
  p.vector_flops({5, p.in[0].numel()});
}

// x [..., K], w [N, K], scales [3], amax [3] (not read: the node keeps it for its rule) (, bias [N])
// -> y [..., N], stats [4]: largest magnitudes of x and w, their scales (, codes of x)
void plan_linear(Plan& p) {
  const Shape &x = p.in[kX].shape, &w = p.in[kW].shape;
  check_wide(p.in[kX], "x");
  check(p.in[kX].dtype == p.in[kW].dtype, "x and w differ in dtype: {} and {}", p.in[kX], p.in[kW]);
  check(w.rank() == 2 && x.rank() >= 1, "wants x [..., K] and w [N, K], got {} and {}", x, w);
  check(x.last() == w.last(), "inner sizes differ: x {} and w {}", x, w);
  check(p.in[kScales] == kThree && p.in[kAmax] == kThree, "the state must be two of {}, got {} and {}", kThree, p.in[kScales], p.in[kAmax]);
  const int64_t m = x.rows(), n = w[0], k = w[1];
  const bool bias = p.in.size() > kBias;
  if (bias) check(p.in[kBias] == TensorSpec{{n}, p.in[kX].dtype}, "bias {} does not match w {}", p.in[kBias], p.in[kW]);
  p.output(x.with(-1, n), p.in[kX].dtype);
  p.output(kPairs);
  p.matmul_flops({2, m, n, k});
  p.flops.vector = checked_sum({checked_product({6, m, k}), checked_product({6, n, k}), bias ? checked_product({m, n}) : 0});
}
void plan_linear_fp8(Plan& p) {
  plan_linear(p);
  p.output(p.in[kX].shape, DType::f8e4m3fn);
}
// codes of dy [..., N], w [N, K], stats of dy [2], stats of the layer [4] -> dx [..., K]
void plan_back_x(Plan& p) {
  const Shape &dy = p.in[0].shape, &w = p.in[1].shape;
  check_codes(p.in[0], DType::f8e5m2, "dy");
  check_wide(p.in[1], "w");
  check(w.rank() == 2 && dy.rank() >= 1 && dy.last() == w[0], "dy {} does not match w {}", dy, w);
  check(p.in[2] == kPair && p.in[3] == kPairs, "wants statistics {} and {}, got {} and {}", kPair, kPairs, p.in[2], p.in[3]);
  const int64_t m = dy.rows(), n = w[0], k = w[1];
  p.output({dy.with(-1, k), p.in[1].dtype});
  p.matmul_flops({2, m, n, k});
  p.flops.vector = checked_sum({checked_product({m, n}), checked_product({4, n, k})});
}
// codes of dy [..., N], codes of x [..., K], stats of dy [2], stats of the layer [4] (, slot [N, K]) -> dw [N, K], or into the slot
void plan_back_w(Plan& p) {
  const Shape &dy = p.in[0].shape, &x = p.in[1].shape;
  check_codes(p.in[0], DType::f8e5m2, "dy");
  check_codes(p.in[1], DType::f8e4m3fn, "x");
  check(dy.rank() == x.rank() && dy.rows() == x.rows(), "dy {} and x {} have different rows", dy, x);
  check(p.in[2] == kPair && p.in[3] == kPairs, "wants statistics {} and {}, got {} and {}", kPair, kPairs, p.in[2], p.in[3]);
  const int64_t m = dy.rows(), n = dy.last(), k = x.last();
  const bool slot = p.in.size() > 4;
  const TensorSpec dw{{n, k}, slot ? p.in[4].dtype : p.params.as<LinearParams>().out};
  check_wide(dw, "dw");
  if (slot) {
    check(p.in[4] == dw, "slot {} is not [{}, {}]", p.in[4], n, k);
  } else {
    p.output(dw);
  }
  p.matmul_flops({2, m, n, k});
  p.flops.vector = checked_sum({checked_product({m, n}), checked_product({m, k})});
}
// amax [3], stats of the layer [4], stats of dy [2]
void plan_record(Plan& p) {
  check(p.in[0] == kThree && p.in[1] == kPairs && p.in[2] == kPair, "wants {}, {} and {}, got {}, {} and {}", kThree, kPairs, kPair,
        p.in[0], p.in[1], p.in[2]);
  p.vector_flops({kFloat8Tensors});
}
// step_scalars, amax [3], history [3, window], scales [3]
void plan_step_scales(Plan& p) {
  check(p.in[0] == TensorSpec{{kStepScalars}, DType::f64}, "wants step_scalars first");
  check(p.in[1] == kThree && p.in[3] == kThree, "amax and scales must be {}, got {} and {}", kThree, p.in[1], p.in[3]);
  check(p.in[2].dtype == DType::f32 && p.in[2].shape.rank() == 2 && p.in[2].shape[0] == kFloat8Tensors && p.in[2].shape[1] >= 1,
        "history must be f32[3, window], got {}", p.in[2]);
  p.vector_flops({p.in[2].numel()});
}

// One value of a small tensor.
Tensor part_of(const Tensor& x, int64_t at) {
  Layout layout(Shape{1});
  layout.offset = x.layout().offset + at;
  return x.alias(layout);
}

Tensors vjp_linear_fp8(Vjp& v) {
  const bool again = &v.node.op() == &op::linear_fp8_again;
  Tensors dx(v.node.in_specs().size());
  Tensor dy = std::move(v.dy[kY]);
  const Tensor stats = v.out(kStats), scales = v.in(kScales);
  const QuantizedFp8 g = quantize_fp8(dy, DType::f8e5m2, part_of(scales, kFloat8Gradient));
  call(op::record_fp8_amax, tensors(v.in(kAmax), stats, g.stats));
  if (dx.size() > kBias) dx[kBias] = parameter_gradient(v, op::linear_back_b, kBias, tensors(dy));
  dy = Tensor();
  if (v.needs_in(kW)) {
    // The scale that forward used: where it had none it took what fits x, as this would.
    Tensor x = again ? quantize_fp8(v.in(kX), DType::f8e4m3fn, part_of(stats, 2)).codes : v.out(kCodes);
    dx[kW] = parameter_gradient(v, op::linear_fp8_back_w, kW, tensors(g.codes, std::move(x), g.stats, stats));
  }
  if (v.needs_in(kX)) dx[kX] = call(op::linear_fp8_back_x, tensors(g.codes, v.in(kW), g.stats, stats))[0];
  return dx;
}
}  // namespace

const OpDef op::quantize_fp8{k_quantize_fp8, "quantize_fp8", plan_quantize};
const OpDef op::linear_fp8{
    k_linear_fp8, "linear_fp8", plan_linear_fp8, vjp_linear_fp8, {.in = 0b1110, .out = 0b110}, {.detached_outputs = 0b110}};
const OpDef op::linear_fp8_again{k_linear_fp8_again, "linear_fp8_again",          plan_linear,
                                 vjp_linear_fp8,     {.in = 0b1111, .out = 0b10}, {.detached_outputs = 0b10}};
const OpDef op::linear_fp8_back_x{k_linear_fp8_back_x, "linear_fp8_back_x", plan_back_x, nullptr, {}, {.float8 = true}};
const OpDef op::linear_fp8_back_w{k_linear_fp8_back_w, "linear_fp8_back_w", plan_back_w, nullptr, {}, {.mutates = 0b10000, .float8 = true}};
const OpDef op::record_fp8_amax{k_record_fp8_amax, "record_fp8_amax", plan_record, nullptr, {}, {.mutates = 0b1}};
const OpDef op::step_fp8_scales{k_step_fp8_scales, "step_fp8_scales", plan_step_scales, nullptr, {}, {.mutates = 0b1110}};

Float8State Float8State::make(Device& device, int64_t window) {
  check(window >= 1, "a history of {} steps; it needs at least 1", window);
  return {zeros(device, kThree), zeros(device, kThree), zeros(device, {{kFloat8Tensors, window}, DType::f32})};
}
QuantizedFp8 quantize_fp8(const Tensor& x, DType format, const Tensor& scale) {
  Tensors out = call(op::quantize_fp8, tensors(x, scale), QuantizeParams{format});
  return {std::move(out[0]), std::move(out[1])};
}
Tensor linear_fp8(const Tensor& x, const Tensor& w, const Tensor& bias, const Float8State& state, bool keep_input) {
  Tensors in = tensors(x, w, state.scales, state.amax);
  if (bias.defined()) in.push_back(bias);
  return call(keep_input ? op::linear_fp8_again : op::linear_fp8, std::move(in))[0];
}
void step_fp8_scales_(const Tensor& step_scalars, const Float8State& state) {
  call(op::step_fp8_scales, tensors(step_scalars, state.amax, state.history, state.scales));
}
}  // namespace reckon
