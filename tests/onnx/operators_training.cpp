// tests/onnx/operators_training: one step of an optimizer, by train/optimizer on parameters of the given values, gradients and state.
#include <cmath>

#include "reckon/engine/context.h"
#include "reckon/train/optimizer.h"
#include "tests/onnx/operators.h"

namespace reckon::onnx {
namespace {
// Inputs are R (learning rate), T (steps so far), then of each of `count` tensors X, G and one group a state; outputs are X and the states.
Tensors stepped(const Call& c, OptimConfig config, const std::vector<std::string>& states, int64_t steps) {
  const size_t groups = 2 + states.size(), count = (c.in.size() - 2) / groups;
  config.lr = c[0].item();
  config.weight_decay = c.number("norm_coefficient", 0);
  config.weight_decay_kind = DecayKind::coupled;
  config.clip_norm = 0;
  if (c.number("norm_coefficient_post", 0) != 0) throw NotApplicable{"decay after the step"};
  const auto name = [](size_t i) { return "x" + std::to_string(i); };
  Parameters parameters;
  for (size_t i = 0; i < count; ++i) parameters.declare(name(i), c[2 + i].shape(), {Init::zeros}, true);
  parameters.materialize(c.device, {c[2].dtype(), true}, 0);
  Optimizer optimizer(c.device, parameters, config);
  Optimizer::StateDict given{{"step", full(c.device, {Shape{}, DType::f64}, double(steps))}};
  const auto put = [](const Tensor& place, const Tensor& value) { place.write(value.raw(), value.spec().bytes()); };
  for (size_t i = 0; i < count; ++i) {
    put(parameters.find(name(i))->value, c[2 + i]);
    put(parameters.find(name(i))->value.grad_slot(), c[2 + count + i]);
    for (size_t s = 0; s < states.size(); ++s) given.push_back({states[s] + "." + name(i), c[2 + (2 + s) * count + i]});
  }
  parameters.mark_gradients_filled();
  optimizer.load_state_dict(given);
  optimizer.set_lr(config.lr);
  {
    const NoGrad guard;
    optimizer.step();
  }
  Tensors out;
  for (size_t i = 0; i < count; ++i) out.push_back(contiguous(parameters.find(name(i))->value.detached()));
  const auto after = optimizer.state_dict();
  for (const std::string& state : states)
    for (size_t i = 0; i < count; ++i)
      for (const auto& [place, value] : after)
        if (place == state + "." + name(i)) out.push_back(contiguous(value));
  return out;
}
// ONNX corrects no bias at T = 0; late steps have nothing to correct.
constexpr int64_t kLate = 1 << 24;

Tensors adagrad(const Call& c) {
  OptimConfig o;
  o.name = OptimizerKind::adagrad;
  o.eps = c.number("epsilon", 1e-6);
  Tensors in = c.in;
  const double rate = c[0].item() / (1 + c[1].item() * c.number("decay_factor", 0));
  in[0] = full(c.device, {Shape{}, DType::f64}, rate);
  return stepped({c.node, in, c.opset, c.device}, o, {"sum_of_squares"}, 0);
}
// ONNX adds epsilon to the root of the uncorrected mean square, we to that of the corrected one.
Tensors adam(const Call& c) {
  OptimConfig o;
  o.name = OptimizerKind::adam;
  o.beta1 = c.number("alpha", 0.9);
  o.beta2 = c.number("beta", 0.999);
  const int64_t steps = int64_t(c[1].item());
  o.eps = c.number("epsilon", 1e-6) / (steps > 0 ? std::sqrt(1 - std::pow(o.beta2, double(steps))) : 1);
  return stepped(c, o, {"m", "v"}, steps > 0 ? steps - 1 : kLate);
}
Tensors momentum(const Call& c) {
  if (c[1].item() > 0 && c.number("beta", 1) != 1) throw NotApplicable{"Momentum with dampening"};
  OptimConfig o;
  o.name = c.text("mode", "") == "nesterov" ? OptimizerKind::nesterov : OptimizerKind::momentum;
  o.momentum = c.number("alpha", 0);
  return stepped(c, o, {"momentum"}, 0);
}
}  // namespace

void add_training(OperatorTable& t) {
  t["Adagrad"] = adagrad;
  t["Adam"] = adam;
  t["Momentum"] = momentum;
}
}  // namespace reckon::onnx
