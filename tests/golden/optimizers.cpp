// Twenty steps of some optimizers, and a hundred of all with weight decay and schedules, on given gradients against PyTorch's.
#include <cstdlib>
#include <sstream>

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

// ---- a hundred steps
constexpr int64_t kEvery = 10;  // steps between those that the file holds

Config settings_of_run(const File& file, const std::string& run) {
  std::vector<std::string> overrides = {"optim.clip_norm=0", "train.steps=100", "optim.warmup_steps=0"};
  std::istringstream words(file.setting(run));
  for (std::string word; words >> word;) overrides.push_back(word);
  return parse_config("", run, overrides);
}

void expect_run(const std::string& run, DType dtype, const OptimConfig& config) {
  const File file("optimizer_runs");
  const Ref<Device> device = open_cpu(Mode::real);
  Parameters parameters;
  const Shape shape = file.shape("init");
  Parameter& p = parameters.declare("p", shape, {Init::zeros}, true);
  parameters.materialize(*device, {dtype, true}, 1);
  store(p.value, file.values("init"));
  const Optimizer optimizer(*device, parameters, config);
  const Tensor slot = Parameters::view_of(parameters.buckets()[0].gradients, p), loss = full(*device, {Shape{}, dtype}, 1.0);
  const std::vector<double> init = file.values("init"), gradients = file.values("gradients"), trail = file.values(run);
  const int64_t n = shape.numel(), steps = file.shape("gradients")[0];
  ASSERT_EQ(steps, 100);
  ASSERT_EQ(trail.size(), size_t(steps / kEvery * n));
  for (int64_t step = 0; step < steps; ++step) {
    store(slot, std::vector<double>(gradients.begin() + step * n, gradients.begin() + (step + 1) * n));
    parameters.mark_gradients_filled();
    optimizer.write_scalars(step, steps);
    optimizer.step(loss);
    if ((step + 1) % kEvery) continue;
    const std::vector<double> ours = p.value.to_vector();
    for (int64_t i = 0; i < n; ++i) {
      const size_t at = size_t((step + 1) / kEvery - 1) * size_t(n) + size_t(i);
      double largest = std::abs(init[size_t(i)]);  // that the element has been
      for (int64_t k = i; k <= int64_t(at); k += n) largest = std::max(largest, std::abs(trail[size_t(k)]));
      // Each step rounds a weight once and its change a dozen times; the change is no larger than the weights get.
      ASSERT_NEAR(ours[size_t(i)], trail[at], 16 * double(step + 1) * epsilon(dtype) * largest) << run << " " << name_of(dtype) << " step " << step + 1 << " element " << i;
    }
  }
}

class Runs : public ::testing::TestWithParam<const char*> {};
TEST_P(Runs, a_hundred_steps) {
  for (const DType dtype : {DType::f64, DType::f32}) expect_run(GetParam(), dtype, settings_of_run(File("optimizer_runs"), GetParam()).optim);
}
INSTANTIATE_TEST_SUITE_P(Golden, Runs,
                         ::testing::Values("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "rmsprop_momentum", "rmsprop_centered",
                                           "rmsprop_centered_momentum", "adam", "adamw", "adamw_wsd", "adam_inverse_sqrt", "adam_warm_cosine"),
                         [](const auto& info) { return std::string(info.param); });

// Without momentum, shrinking a weight and adding its decay to the gradient are the same.
TEST(RunsOfSgd, need_no_coupling) {
  OptimConfig c = settings_of_run(File("optimizer_runs"), "sgd").optim;
  ASSERT_EQ(c.weight_decay_kind, DecayKind::coupled);
  c.weight_decay_kind = DecayKind::automatic;
  expect_run("sgd", DType::f64, c);
}
}  // namespace
}  // namespace golden
