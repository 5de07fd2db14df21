// ops/norm: LayerNorm, RMSNorm and QK-norm, over the last axis.
#include "reckon/ops/fallback.h"
#include "reckon/ops/ops.h"

namespace reckon {
namespace {
// The weights are the inputs from `first` on.
void check_norm(const Plan& p, size_t first) {
  check(is_float(p.in[0].dtype), "wants a floating-point tensor, got {}", p.in[0].dtype);
  check(p.in[0].shape.rank() >= 1, "x needs at least one axis");
  for (size_t i = first; i < p.in.size(); ++i)
    check(p.in[i] == TensorSpec{{p.in[0].shape.last()}, p.in[0].dtype}, "weight {} does not match the last axis of x {}", p.in[i], p.in[0]);
}
// FLOPs an element of a norm's backward pass: xhat; with dx also dy * weight, the row's sums and dx itself; then dw and db.
int64_t back_cost(bool layer, bool dx, bool dw, bool db) { return (dx || dw ? 1 + layer : 0) + (dx ? 6 + 2 * layer : 0) + 2 * dw + db; }

// in: x, weight (, bias) -> y, mean, rstd
void plan_layer_norm(Plan& p) {
  check_norm(p, 1);
  const TensorSpec x = p.in[0];
  p.output(x);
  p.output(x.shape.without_last(), statistics_dtype(x.dtype));
  p.output(x.shape.without_last(), statistics_dtype(x.dtype));
  p.vector_flops({p.in.size() > 2 ? 8 : 7, x.numel()});
}
void check_norm_back(const Plan& p, size_t dsum) {
  check(p.in[0] == p.in[1], "dy {} does not match x {}", p.in[0], p.in[1]);
  if (p.in.size() > dsum) check(p.in[dsum] == p.in[1], "dsum {} does not match x {}", p.in[dsum], p.in[1]);
}
// in: dy, x, weight, mean, rstd (, dsum, added to dx) -> dx, dw, db as needed (needs bits 0, 1, 2)
void plan_layer_norm_back(Plan& p) {
  check_norm_back(p, 5);
  if (p.needs(0)) p.output(p.in[1]);
  if (p.needs(1)) p.output(p.in[2].shape, statistics_dtype(p.in[2].dtype));
  if (p.needs(2)) p.output(p.in[2].shape, statistics_dtype(p.in[2].dtype));
  p.vector_flops({back_cost(true, p.needs(0), p.needs(1), p.needs(2)) + (p.needs(0) && p.in.size() > 5), p.in[1].numel()});
}
// in: x, weight -> y, rstd
void plan_rms_norm(Plan& p) {
  check_norm(p, 1);
  p.output(p.in[0]);
  p.output(p.in[0].shape.without_last(), statistics_dtype(p.in[0].dtype));
  p.vector_flops({4, p.in[0].numel()});
}
// in: dy, x, weight, rstd (, dsum) -> dx, dw as needed
void plan_rms_norm_back(Plan& p) {
  check_norm_back(p, 4);
  if (p.needs(0)) p.output(p.in[1]);
  if (p.needs(1)) p.output(p.in[2].shape, statistics_dtype(p.in[2].dtype));
  p.vector_flops({back_cost(false, p.needs(0), p.needs(1), false) + (p.needs(0) && p.in.size() > 4), p.in[1].numel()});
}

// in: x, residual, weight (, bias) -> sum, y (, mean), rstd
void plan_add_norm(Plan& p, bool layer) {
  check(p.in[0] == p.in[1], "x {} and the residual {} differ", p.in[0], p.in[1]);
  check_norm(p, 2);
  const TensorSpec x = p.in[0];
  p.output(x);
  p.output(x);
  for (int i = 0; i < 1 + layer; ++i) p.output(x.shape.without_last(), statistics_dtype(x.dtype));
  p.vector_flops({(layer ? 8 : 5) + (p.in.size() > 3), x.numel()});
}
void plan_add_layer_norm(Plan& p) { plan_add_norm(p, true); }
void plan_add_rms_norm(Plan& p) { plan_add_norm(p, false); }

// The outputs that were computed, put back at their inputs; parameter gradients leave in the parameter's dtype.
Tensors scatter(const Vjp& v, uint32_t needs, Tensors computed) {
  Tensors dx(v.node.in_specs().size());
  size_t at = 0;
  for (size_t i = 0; i < dx.size(); ++i) {
    if (!(needs >> i & 1u)) continue;
    dx[i] = std::move(computed[at++]);
    if (!v.slot(int(i)).defined()) dx[i] = cast(dx[i], v.node.in_specs()[i].dtype);
  }
  return dx;
}
Tensors vjp_layer_norm(Vjp& v) {
  const uint32_t needs = v.needs & (v.node.in_specs().size() > 2 ? 0b111u : 0b011u);
  return scatter(v, needs, call(op::layer_norm_back, tensors(std::move(v.dy[0]), v.in(0), v.in(1), v.out(1), v.out(2)), {v.as<NormParams>(), needs}));
}
Tensors vjp_rms_norm(Vjp& v) {
  const uint32_t needs = v.needs & 0b11u;
  return scatter(v, needs, call(op::rms_norm_back, tensors(std::move(v.dy[0]), v.in(0), v.in(1), v.out(1)), {v.as<NormParams>(), needs}));
}

// dy: of the sum, and of y. x and the residual have the same gradient.
Tensors add_norm_gradients(const Vjp& v, const OpDef& row, Tensors in) {
  const bool sum_needed = v.needs & 0b11u;
  const uint32_t needs = uint32_t(sum_needed) | (v.needs >> 2 & 0b11u) << 1;
  Tensors computed = call(row, std::move(in), {v.as<NormParams>(), needs}), dx(v.node.in_specs().size());
  size_t at = 0;
  if (sum_needed) {
    for (size_t i = 0; i < 2; ++i)
      if (v.needs >> i & 1u) dx[i] = computed[0];
    ++at;
  }
  for (size_t i = 2; i < dx.size(); ++i) {
    if (!(v.needs >> i & 1u)) continue;
    dx[i] = std::move(computed[at++]);
    if (!v.slot(int(i)).defined()) dx[i] = cast(dx[i], v.node.in_specs()[i].dtype);
  }
  return dx;
}
Tensors vjp_add_layer_norm(Vjp& v) {
  return add_norm_gradients(v, op::layer_norm_back, tensors(std::move(v.dy[1]), v.out(0), v.in(2), v.out(2), v.out(3), std::move(v.dy[0])));
}
Tensors vjp_add_rms_norm(Vjp& v) {
  return add_norm_gradients(v, op::rms_norm_back, tensors(std::move(v.dy[1]), v.out(0), v.in(2), v.out(2), std::move(v.dy[0])));
}

// ---- the same by public operations, for gradients of gradients. Without weight and bias, in the dtype of the statistics.
Tensor plain_norm(const Tensor& x, double eps, bool layer) {
  const Tensor wide = cast(x, statistics_dtype(x.dtype())), centred = layer ? sub(wide, mean(wide, {-1}, true)) : wide;
  return mul(centred, rsqrt(affine(mean(square(centred), {-1}, true), 1, eps)));
}
Tensor plain_norm(const Tensor& x, const Tensor& weight, double eps, bool layer) {
  const Tensor y = plain_norm(x, eps, layer);
  return cast(mul(y, cast(weight, y.dtype())), x.dtype());
}
// needs: bits of x and weight
Tensors plain_norm_gradients(const Vjp& v, const Tensor& x, const Tensor& weight, const Tensor& dy, uint32_t needs, bool layer) {
  const double eps = v.as<NormParams>().eps;
  return differentiated({x, weight}, dy, needs, [=](const Tensors& in) { return plain_norm(in[0], in[1], eps, layer); });
}
Tensors norm_fallback(Vjp& v, bool layer) {
  Tensors d = plain_norm_gradients(v, v.in(0), v.in(1), v.dy[0], v.needs, layer);
  d.resize(v.node.in_specs().size());
  if (d.size() > 2 && v.needs_in(2)) d[2] = sum_to(v.dy[0], v.node.in_specs()[2].shape);
  return d;
}
Tensors layer_norm_fallback(Vjp& v) { return norm_fallback(v, true); }
Tensors rms_norm_fallback(Vjp& v) { return norm_fallback(v, false); }

// dy: of the sum, and of its norm
Tensors add_norm_fallback(Vjp& v, bool layer) {
  const bool sum_needed = v.needs & 0b11u;
  const Tensors g = plain_norm_gradients(v, v.out(0), v.in(2), v.dy[1], uint32_t(sum_needed) | (v.needs >> 2 & 1u) << 1, layer);
  Tensors d(v.node.in_specs().size());
  if (sum_needed) d[0] = d[1] = add(v.dy[0], g[0]);
  d[2] = g[1];
  if (d.size() > 3 && v.needs_in(3)) d[3] = sum_to(v.dy[1], v.node.in_specs()[3].shape);
  return d;
}
Tensors add_layer_norm_fallback(Vjp& v) { return add_norm_fallback(v, true); }
Tensors add_rms_norm_fallback(Vjp& v) { return add_norm_fallback(v, false); }

// ---- QK-norm. in: qkv [..., (H + 2 KV) D], wq [D], wk [D] -> y, rstd [rows, H + KV]
void plan_qk_norm(Plan& p) {
  const auto q = p.params.as<QkNormParams>();
  const int64_t width = checked_multiply(q.heads + 2 * int64_t(q.kv_heads), q.head_dim);
  check(is_float(p.in[0].dtype) && p.in[0].shape.rank() >= 1 && p.in[0].shape.last() == width, "qkv {} is not [..., {}]", p.in[0], width);
  for (int i = 1; i <= 2; ++i) check(p.in[size_t(i)] == TensorSpec{{q.head_dim}, p.in[0].dtype}, "weight {} is not [{}]", p.in[size_t(i)], q.head_dim);
  p.output(p.in[0]);
  p.output({p.in[0].shape.rows(), int64_t(q.heads) + q.kv_heads}, statistics_dtype(p.in[0].dtype));
  p.vector_flops({4, p.in[0].shape.rows(), int64_t(q.heads) + q.kv_heads, q.head_dim});
}
// in: dy, qkv, wq, wk, rstd -> dqkv, dwq, dwk as needed
void plan_qk_norm_back(Plan& p) {
  const auto q = p.params.as<QkNormParams>();
  check(p.in[0] == p.in[1], "dy {} does not match qkv {}", p.in[0], p.in[1]);
  if (p.needs(0)) p.output(p.in[1]);
  for (int i = 1; i <= 2; ++i)
    if (p.needs(i)) p.output(p.in[2].shape, statistics_dtype(p.in[2].dtype));
  const int64_t elements = checked_product({p.in[1].shape.rows(), q.head_dim});
  const auto work = [&](int64_t heads, bool dw) { return checked_product({back_cost(false, p.needs(0), dw, false), elements, heads}); };
  p.flops.vector = checked_sum({work(q.heads, p.needs(1)), work(q.kv_heads, p.needs(2))});
}
Tensors vjp_qk_norm(Vjp& v) {
  const uint32_t needs = v.needs & 0b111u;
  return scatter(v, needs, call(op::qk_norm_back, tensors(std::move(v.dy[0]), v.in(0), v.in(1), v.in(2), v.out(1)), {v.as<QkNormParams>(), needs}));
}
Tensor plain_qk_norm(const Tensors& in, const QkNormParams& q) {
  const int64_t heads = int64_t(q.heads) + 2 * int64_t(q.kv_heads), keys = int64_t(q.heads) + q.kv_heads;
  const Tensor split = reshape(in[0], {in[0].shape().rows(), heads, q.head_dim});
  const auto placed = [&](const Tensor& part, int64_t first, int64_t last) {
    return call(op::slice_back, tensors(part), SliceParams{1, heads, first, last, 1})[0];
  };
  const Tensor queries = plain_norm(slice(split, 1, 0, q.heads), in[1], q.eps, false);
  const Tensor normed_keys = plain_norm(slice(split, 1, q.heads, keys), in[2], q.eps, false);
  const Tensor all = add(add(placed(queries, 0, q.heads), placed(normed_keys, q.heads, keys)), placed(slice(split, 1, keys, heads), keys, heads));
  return reshape(all, in[0].shape());
}
Tensors qk_norm_fallback(Vjp& v) {
  const auto q = v.as<QkNormParams>();
  return differentiated({v.in(0), v.in(1), v.in(2)}, v.dy[0], v.needs, [=](const Tensors& in) { return plain_qk_norm(in, q); });
}
}  // namespace

const OpDef op::layer_norm{k_layer_norm, "layer_norm", plan_layer_norm, vjp_layer_norm, {.in = 0b011, .out = 0b110}, {.detached_outputs = 0b110, .fallback = layer_norm_fallback, .autocast = AutocastPolicy::wide}};
const OpDef op::layer_norm_back{k_layer_norm_back, "layer_norm_back", plan_layer_norm_back};
const OpDef op::rms_norm{k_rms_norm, "rms_norm", plan_rms_norm, vjp_rms_norm, {.in = 0b11, .out = 0b10}, {.detached_outputs = 0b10, .fallback = rms_norm_fallback, .autocast = AutocastPolicy::wide}};
const OpDef op::rms_norm_back{k_rms_norm_back, "rms_norm_back", plan_rms_norm_back};
const OpDef op::add_layer_norm{
    k_add_layer_norm, "add_layer_norm", plan_add_layer_norm, vjp_add_layer_norm, {.in = 0b0100, .out = 0b1101}, {.reuse = 0b11, .detached_outputs = 0b1100, .fallback = add_layer_norm_fallback, .autocast = AutocastPolicy::wide}};
const OpDef op::add_rms_norm{
    k_add_rms_norm, "add_rms_norm", plan_add_rms_norm, vjp_add_rms_norm, {.in = 0b100, .out = 0b101}, {.reuse = 0b11, .detached_outputs = 0b100, .fallback = add_rms_norm_fallback, .autocast = AutocastPolicy::wide}};
const OpDef op::qk_norm{k_qk_norm, "qk_norm", plan_qk_norm, vjp_qk_norm, {.in = 0b111, .out = 0b10}, {.detached_outputs = 0b10, .fallback = qk_norm_fallback, .autocast = AutocastPolicy::wide}};
const OpDef op::qk_norm_back{k_qk_norm_back, "qk_norm_back", plan_qk_norm_back};

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  return call(op::layer_norm, bias.defined() ? tensors(x, weight, bias) : tensors(x, weight), NormParams{eps})[0];
}
SumAndNorm add_layer_norm(Tensor x, Tensor residual, const Tensor& weight, const Tensor& bias, double eps) {
  Tensors in = tensors(std::move(x), std::move(residual), weight);
  if (bias.defined()) in.push_back(bias);
  Tensors out = call(op::add_layer_norm, std::move(in), NormParams{eps});
  return {std::move(out[0]), std::move(out[1])};
}
SumAndNorm add_rms_norm(Tensor x, Tensor residual, const Tensor& weight, double eps) {
  Tensors out = call(op::add_rms_norm, tensors(std::move(x), std::move(residual), weight), NormParams{eps});
  return {std::move(out[0]), std::move(out[1])};
}
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) { return call(op::rms_norm, tensors(x, weight), NormParams{eps})[0]; }
Tensor qk_norm(const Tensor& qkv, const Tensor& q_weight, const Tensor& k_weight, int64_t heads, int64_t kv_heads, int64_t head_dim, double eps) {
  return call(op::qk_norm, tensors(qkv, q_weight, k_weight), QkNormParams{eps, int32_t(heads), int32_t(kv_heads), int32_t(head_dim)})[0];
}
}  // namespace reckon
