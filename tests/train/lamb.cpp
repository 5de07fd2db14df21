// LAMB against a reference in double, written from Algorithm 2 of You et al. 2020, arXiv:1904.00962, over parameters in two buckets.
#include <cmath>

#include "tests/train/small_runs.h"

namespace small {
namespace {
struct Layer {
  std::string name;
  Shape shape;
  double std;  // of its initial values; 0: zeros, whose trust ratio is 1 in the first step
};
const std::vector<Layer> kLayers = {
    {"a.weight", {13, 11}, 0.5}, {"a.bias", {13}, 0}, {"b.weight", {700, 31}, 2}, {"b.bias", {5}, 1}, {"c.weight", {1, 3}, 1e-3}};

// One layer of the paper's algorithm.
struct Reference {
  std::vector<double> x, m, v;
  bool decay;
  void step(const std::vector<double>& g, int64_t t, double rate, const OptimConfig& c) {
    const double lambda = decay ? c.weight_decay : 0;
    std::vector<double> update(x.size());
    double x_squares = 0, update_squares = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      m[i] = c.beta1 * m[i] + (1 - c.beta1) * g[i];
      v[i] = c.beta2 * v[i] + (1 - c.beta2) * g[i] * g[i];
      const double m_hat = m[i] / (1 - std::pow(c.beta1, double(t))), v_hat = v[i] / (1 - std::pow(c.beta2, double(t)));
      update[i] = m_hat / (std::sqrt(v_hat) + c.eps) + lambda * x[i];
      x_squares += x[i] * x[i];
      update_squares += update[i] * update[i];
    }
    const double phi = std::min(std::max(std::sqrt(x_squares), c.phi_low), c.phi_high);
    const double ratio = x_squares > 0 && update_squares > 0 ? phi / std::sqrt(update_squares) : 1;
    for (size_t i = 0; i < x.size(); ++i) x[i] -= rate * ratio * update[i];
  }
};

OptimConfig lamb() {
  OptimConfig c = plain(OptimizerKind::lamb);
  c.lr = 0.02;
  c.beta2 = 0.999;
  c.eps = 1e-6;
  c.weight_decay = 0.01;
  return c;
}

void expect_reference(const OptimConfig& c, DType dtype, double tolerance) {
  constexpr int64_t kSteps = 100;
  const Ref<Device> device = open_cpu(Mode::real);
  Parameters parameters;
  for (const Layer& l : kLayers)
    parameters.declare(l.name, l.shape, {l.std > 0 ? Init::normal : Init::zeros, l.std, 1}, l.shape.rank() > 1);
  parameters.materialize(*device, {dtype, true}, 3);
  Optimizer optimizer(*device, parameters, c);
  std::vector<Reference> layers;
  for (const Parameter& p : parameters.all())
    layers.push_back(
        {p.value.to_vector(), std::vector<double>(size_t(p.shape.numel())), std::vector<double>(size_t(p.shape.numel())), p.decay});
  for (int64_t t = 1; t <= kSteps; ++t) {
    for (size_t k = 0; k < layers.size(); ++k) {
      const Parameter& p = parameters.all()[k];
      const Tensor g = Parameters::view_of(parameters.buckets()[size_t(p.bucket)].gradients, p);
      fill_normal_(g, uint64_t(t) * 100 + k, 0.1, std::pow(10.0, double(k) - 2));
      layers[k].step(g.to_vector(), t, learning_rate(c, t - 1, kSteps), c);
    }
    parameters.mark_gradients_filled();
    optimizer.write_scalars(t - 1, kSteps);
    optimizer.step(full(*device, {Shape{}, dtype}, 1));
    for (size_t k = 0; k < layers.size(); ++k) {
      const std::vector<double> ours = parameters.all()[k].value.to_vector();
      double largest = 0, off = 0;
      for (size_t i = 0; i < ours.size(); ++i)
        largest = std::max(largest, std::abs(layers[k].x[i])), off = std::max(off, std::abs(ours[i] - layers[k].x[i]));
      ASSERT_LE(off, tolerance * largest) << parameters.all()[k].name << " after step " << t;
    }
  }
}

// Each step rounds a few times, relative to the largest weight: errors add up over a hundred steps at worst.
constexpr double kRoundings = 16 * 100;
TEST(Lamb, is_the_algorithm_of_the_paper) { expect_reference(lamb(), DType::f64, kRoundings * epsilon(DType::f64)); }
TEST(Lamb, is_the_algorithm_of_the_paper_in_float) { expect_reference(lamb(), DType::f32, kRoundings * epsilon(DType::f32)); }

TEST(Lamb, follows_schedules_and_bounds_of_the_norm) {
  OptimConfig c = lamb();
  c.schedule = ScheduleKind::wsd;
  c.warmup_steps = 10;
  c.phi_low = 0.5;
  c.phi_high = 3;
  expect_reference(c, DType::f64, kRoundings * epsilon(DType::f64));
}

// The step of a layer has the norm lr * phi(|x|), whatever its gradient's size: what LAMB is for.
TEST(Lamb, steps_are_as_long_as_the_weights_say) {
  OptimConfig c = lamb();
  c.weight_decay = 0;
  c.phi_high = 1e9;
  for (const double size : {1e-3, 1.0, 1e3}) {
    const Ref<Device> device = open_cpu(Mode::real);
    Parameters parameters;
    Parameter& p = parameters.declare("w", {100, 100}, {Init::normal, 1, 1}, true);
    parameters.materialize(*device, {DType::f64, true}, 3);
    Optimizer optimizer(*device, parameters, c);
    const std::vector<double> before = p.value.to_vector();
    fill_normal_(Parameters::view_of(parameters.buckets()[0].gradients, p), 1, 0, size);
    parameters.mark_gradients_filled();
    optimizer.step();
    double moved = 0, norm = 0;
    const std::vector<double> after = p.value.to_vector();
    for (size_t i = 0; i < after.size(); ++i) moved += (after[i] - before[i]) * (after[i] - before[i]), norm += before[i] * before[i];
    EXPECT_NEAR(std::sqrt(moved), c.lr * std::sqrt(norm), 1e-12 * std::sqrt(norm)) << size;
  }
}
}  // namespace
}  // namespace small
