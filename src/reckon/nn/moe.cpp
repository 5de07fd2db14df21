#include "reckon/nn/moe.h"

#include <algorithm>
#include <cmath>

#include "reckon/ops/attention_rows.h"

namespace reckon::nn {
namespace {
MoeOptions checked(const MoeOptions& o, const std::string& path) {
  check(o.experts >= 1 && o.top_k >= 1 && o.top_k <= o.experts && o.top_k <= kMaxChoices,
        "{}: cannot send each token to {} of {} experts; to {} at most", path, o.top_k, o.experts, kMaxChoices);
  check(o.capacity_factor > 0 && std::isfinite(o.capacity_factor), "{}: the capacity factor must be positive, got {}", path,
        o.capacity_factor);
  return o;
}
// Fans are those of one expert's matrix; Init's rules know matrices, not stacks of them.
Init of_expert(int64_t fan_in) { return {Init::normal, 1 / std::sqrt(double(fan_in)), 1}; }
int64_t rows_up(const MoeOptions& o, int64_t inner) { return o.kind == MlpKind::swiglu ? 2 * inner : inner; }
}  // namespace

int64_t moe_capacity(int64_t tokens, const MoeOptions& o) {
  const double share = double(tokens) * double(o.top_k) / double(o.experts);
  return int64_t(std::clamp(std::ceil(share * o.capacity_factor), 1.0, double(std::max<int64_t>(tokens, 1))));
}

MoE::MoE(Module& parent, std::string_view name, int64_t width, int64_t inner, const MoeOptions& how)
    : Module(parent, name),
      options(checked(how, path())),
      router(*this, "router", width, options.experts, false, {Init::normal, 0.02, 1}),
      up(parameter(options.kind == MlpKind::swiglu ? "gate_up" : "up", {options.experts, rows_up(options, inner), width}, of_expert(width),
                   true)),
      down(parameter("down", {options.experts, width, inner}, of_expert(inner), true)) {}

// x [E, R, width] -> the same, each expert on its own rows.
Tensor MoE::run_experts(const Tensor& x, int64_t needed_rows) const {
  const auto needed = [&](const Parameter& w) { return checked_product({needed_rows, w.shape[1], w.shape[2]}); };
  const Tensor inner = matmul_of_pairs(x, transpose(up.value), needed(up));
  return matmul_of_pairs(options.kind == MlpKind::swiglu ? swiglu(inner) : gelu(inner), transpose(down.value), needed(down));
}

MoE::Result MoE::operator()(const Tensor& x) const {
  const ModuleScope module = scope();
  const int64_t width = up.shape[2], E = options.experts, k = options.top_k;
  check(x.rank() >= 1 && x.shape().last() == width && x.numel() > 0, "{}: x must be [..., {}] with at least one token, got {}", path(),
        width, x);
  const Tensor tokens = reshape(x, {x.numel() / width, width});
  const int64_t N = tokens.shape()[0], capacity = moe_capacity(N, options);
  const Tensor logits = cast(router(tokens), statistics_dtype(x.dtype())), probabilities = softmax(logits);
  const Routing routing = route_top_k(probabilities, k, capacity);
  Tensor weights = pick_experts(probabilities, routing.experts);
  if (options.renormalize) weights = div(weights, sum(weights, {-1}, true));
  const Tensor y = run_experts(moe_dispatch(tokens, routing), std::min(N * k, E * capacity));
  Result r{.y = reshape(moe_combine(y, routing, cast(weights, x.dtype())), x.shape()), .load = routing.load, .dropped = routing.dropped};
  const Tensor shares = affine(cast(routing.load, probabilities.dtype()), 1 / double(N * k));
  r.balance_loss = affine(sum(mul(shares, mean(probabilities, {0}))), double(E));
  // Any column less its log-softmax is the log-sum-exp of its row.
  r.z_loss = mean(square(slice(sub(logits, log_softmax(logits)), 1, 0, 1)));
  return r;
}
}  // namespace reckon::nn
