// Page 7 of the tour, docs/tour/07-optimizers.md: rules of descent, what they remember, and how the learning rate moves.
#include "tour.h"

using namespace tour;

// AdaGrad with nothing but tensors, and in one pass over the parameters. Duchi et al. 2011.
void by_hand(Device& cpu) {
  Parameters parameters;
  Parameter& w = parameters.declare("w", {256, 256}, {Init::normal, 1}, true);
  parameters.materialize(cpu, {}, 1);
  Optimizer optimizer(cpu, parameters, {.name = OptimizerKind::adagrad, .lr = 0.1, .eps = 1e-8, .weight_decay = 0, .clip_norm = 0});
  const Tensor x = normal(cpu, {64, 256}, 1);
  backward(mean(square(linear(x, w.value))));

  const Tensor g = w.value.grad(), before = w.value.detached();
  SHOW(cpu, Tensor squares = zeros(cpu, g.spec()) + square(g));
  SHOW(cpu, Tensor stepped = before - 0.1 * g / (sqrt(squares) + 1e-8));
  SHOW(cpu, optimizer.step());
  check(relative_difference(w.value, stepped) < 1e-6, "the same step");
  check(relative_difference(optimizer.states()[0].of(w), squares) < 1e-6, "and the same state");
}

// The mean square error of a linear fit after 100 steps; the largest feature is eight times the smallest.
double fitted(Device& cpu, const OptimConfig& config) {
  const Tensor x = normal(cpu, {64, 8}, 1, 1, DType::f64) * arange(cpu, 8, DType::f64, 0.5, 0.5);
  const Tensor y = linear(x, normal(cpu, {1, 8}, 2, 1, DType::f64));
  Parameters parameters;
  const Parameter& w = parameters.declare("w", {1, 8}, {Init::normal, 1}, true);
  parameters.materialize(cpu, {.dtype = DType::f64}, 1);
  Optimizer optimizer(cpu, parameters, config);
  for (int step = 0; step < 100; ++step) {
    parameters.zero_grad();
    backward(mse_loss(linear(x, w.value), y));
    optimizer.step();
  }
  return mse_loss(linear(x, w.value), y).item();
}

// What a step does to a million float32 parameters, without them.
Cost step_cost(const OptimConfig& config) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  Parameters parameters;
  parameters.declare("w", {1000, 1000}, {Init::normal, 1}, true);
  parameters.materialize(*meta, {}, 1);
  parameters.mark_gradients_filled();
  Optimizer optimizer(*meta, parameters, config);
  return cost_of(*meta, [&] { optimizer.step(); });
}

void rules(Device& cpu) {
  using enum OptimizerKind;
  const std::pair<OptimizerKind, double> rules[] = {{sgd, 0.02},     {momentum, 0.01}, {nesterov, 0.01}, {adagrad, 0.5},
                                                    {rmsprop, 0.02}, {adam, 0.1},      {adamw, 0.1},     {lamb, 0.05}};
  const double start = fitted(cpu, {.name = sgd, .lr = 0});
  say("at the start{:28.3g}", start);
  for (const auto& [name, lr] : rules) {
    const OptimConfig config{.name = name, .lr = lr, .weight_decay = name == adamw ? 0.01 : 0, .clip_norm = 0};
    const double loss = fitted(cpu, config);
    const Cost cost = step_cost(config);
    say("{:10} lr {:<5} loss {:10.3g}   a parameter: {} B of state, {:2.0f} FLOPs, {} B moved", to_string(name), lr, loss,
        state_bytes(config), double(cost.flops.vector) / 1e6, cost.bytes_moved / 1'000'000);
    check(loss < 0.1 * start, "every rule comes down");
  }
}

void schedules(Device& cpu) {
  using enum ScheduleKind;
  say("{:14}{:>8}{:>8}{:>8}{:>8}{:>8}", "step", 0, 9, 50, 95, 99);
  for (const ScheduleKind kind : {constant, linear, cosine, wsd, inverse_sqrt}) {
    const OptimConfig config{.lr = 1, .schedule = kind, .warmup_steps = 10, .min_lr_ratio = 0.1, .decay_fraction = 0.2};
    const auto lr = [&](int64_t step) { return learning_rate(config, step, 100); };
    say("{:14}{:8.3f}{:8.3f}{:8.3f}{:8.3f}{:8.3f}", to_string(kind), lr(0), lr(9), lr(50), lr(95), lr(99));
    check(lr(0) == 0.1 && lr(9) == 1, "ten steps of warm-up");
  }
  SHOW(cpu, double halfway = learning_rate({.lr = 1, .warmup_steps = 10}, 50, 100));
  check(halfway > 0.6 && halfway < 0.7, "half a cosine");
  say("a batch 4 times as large: linear rule {}, square-root rule {}", batch_factor(LrScaling::linear, 4),
      batch_factor(LrScaling::sqrt, 4));
}

int main() { return run({by_hand, rules, schedules}); }
