// Twenty steps of each optimizer on given gradients against PyTorch's.
#include <cstdlib>

#include "reckon/backend/cpu/device.h"
#include "reckon/train/optimizer.h"
#include "tests/golden/golden.h"

namespace golden {
namespace {
OptimConfig settings(const File& file, OptimizerKind kind) {
  const auto number = [&](const char* key) { return std::strtod(file.setting(to_string(kind) + "." + key).c_str(), nullptr); };
  OptimConfig c;
  c.name = kind;
  c.lr = number("lr");
  c.schedule = ScheduleKind::constant;
  c.warmup_steps = 0;
  c.weight_decay = 0;
  c.clip_norm = 0;
  if (kind == OptimizerKind::momentum) c.momentum = number("momentum");
  if (kind == OptimizerKind::adagrad || kind == OptimizerKind::adamw) c.eps = number("eps");
  if (kind == OptimizerKind::adamw) c.beta1 = number("beta1"), c.beta2 = number("beta2");
  return c;
}

void expect_trail(OptimizerKind kind, DType dtype, double share) {
  const File file("optimizers");
  const OptimConfig config = settings(file, kind);
  const Ref<Device> device = open_cpu(Mode::real);
  Parameters parameters;
  const Shape shape = file.shape("init");
  Parameter& p = parameters.declare("p", shape, {Init::zeros}, false);
  parameters.materialize(*device, {dtype, true}, 1);
  store(p.value, file.values("init"));
  const Optimizer optimizer(*device, parameters, config);
  const Tensor slot = Parameters::view_of(parameters.buckets()[0].gradients, p), loss = full(*device, {Shape{}, dtype}, 1.0);
  const std::vector<double> gradients = file.values("gradients"), trail = file.values(to_string(kind));
  const int64_t n = shape.numel(), steps = file.shape("gradients")[0];
  ASSERT_EQ(steps, 20);
  for (int64_t step = 0; step < steps; ++step) {
    const auto row = [&](const std::vector<double>& all) { return std::vector<double>(all.begin() + step * n, all.begin() + (step + 1) * n); };
    store(slot, row(gradients));
    parameters.mark_gradients_filled();
    optimizer.write_scalars(step, steps);
    optimizer.step(loss);
    expect_close(p.value.to_vector(), row(trail), share, text("{} step {}", kind, step + 1));
  }
}

class Optimizers : public ::testing::TestWithParam<OptimizerKind> {};
TEST_P(Optimizers, twenty_steps_in_double) { expect_trail(GetParam(), DType::f64, 1e-9); }
// Each step rounds the parameter once and the change a few times; the rounding of twenty steps walks randomly.
TEST_P(Optimizers, twenty_steps_in_float) { expect_trail(GetParam(), DType::f32, 4 * epsilon(DType::f32) * std::sqrt(20.0)); }

INSTANTIATE_TEST_SUITE_P(Golden, Optimizers, ::testing::Values(OptimizerKind::sgd, OptimizerKind::momentum, OptimizerKind::adagrad, OptimizerKind::adamw),
                         [](const auto& info) { return to_string(info.param); });
}  // namespace
}  // namespace golden
