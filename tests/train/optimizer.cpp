// The optimizer's own promises: split bf16 storage is the float32 optimizer, decay reaches matrices only, a schedule is what its keys say.
#include <cmath>
#include <numbers>

#include "reckon/engine/backward.h"
#include "reckon/ops/step_scalars.h"
#include "tests/train/small_runs.h"

namespace small {
namespace {
class EveryOptimizer : public ::testing::TestWithParam<OptimizerKind> {};
INSTANTIATE_TEST_SUITE_P(Kinds, EveryOptimizer,
                         ::testing::Values(OptimizerKind::sgd, OptimizerKind::momentum, OptimizerKind::nesterov, OptimizerKind::adagrad, OptimizerKind::rmsprop,
                                           OptimizerKind::adam, OptimizerKind::adamw, OptimizerKind::lamb),
                         [](const auto& info) { return to_string(info.param); });
// Those whose decay is not a term of what moves the weights.
class DecoupledOptimizer : public EveryOptimizer {};
INSTANTIATE_TEST_SUITE_P(Kinds, DecoupledOptimizer,
                         ::testing::Values(OptimizerKind::sgd, OptimizerKind::momentum, OptimizerKind::nesterov, OptimizerKind::adagrad, OptimizerKind::rmsprop,
                                           OptimizerKind::adamw),
                         [](const auto& info) { return to_string(info.param); });
// Those that can add decay to the gradient.
class CoupledOptimizer : public EveryOptimizer {};
INSTANTIATE_TEST_SUITE_P(Kinds, CoupledOptimizer,
                         ::testing::Values(OptimizerKind::sgd, OptimizerKind::momentum, OptimizerKind::nesterov, OptimizerKind::adagrad, OptimizerKind::rmsprop,
                                           OptimizerKind::adam),
                         [](const auto& info) { return to_string(info.param); });

// A matrix and a bias with values and gradients from the same keys, whatever the storage.
struct Pair {
  Pair(DType dtype, const OptimConfig& config) : device(open_cpu(Mode::real)) {
    parameters.declare("w", {37, 29}, {Init::normal, 0.5, 1}, true);
    parameters.declare("b", {53}, {Init::normal, 0.5, 1}, false);
    parameters.materialize(*device, {dtype, true}, 11);
    optimizer = std::make_unique<Optimizer>(*device, parameters, config);
  }
  void step(int64_t i, double gradient_std = 1) {
    for (size_t b = 0; b < parameters.buckets().size(); ++b) fill_normal_(parameters.buckets()[b].gradients, mix_of(i, b), 0, gradient_std);
    parameters.mark_gradients_filled();
    optimizer->write_scalars(i, 20);
    optimizer->step(full(*device, {Shape{}, DType::f32}, 1));
  }
  static uint64_t mix_of(int64_t i, size_t bucket) { return uint64_t(i) * 1000 + bucket; }
  // The float32 master weights of a bucket, joined if they are split.
  std::string masters(size_t b) {
    Bucket& bucket = parameters.buckets()[b];
    if (!bucket.residual.defined()) return bytes_of(bucket.values);
    const Tensor joined = empty(*device, {{bucket.numel}, DType::f32});
    join_master_(joined, bucket.values, bucket.residual);
    return bytes_of(joined);
  }
  Ref<Device> device;
  Parameters parameters;
  std::unique_ptr<Optimizer> optimizer;
};

TEST_P(EveryOptimizer, split_bf16_storage_holds_the_exact_float32_weights) {
  Pair narrow(DType::bf16, plain(GetParam())), wide(DType::f32, plain(GetParam()));
  ASSERT_EQ(narrow.parameters.buckets().size(), 2u);
  for (int64_t i = 0; i < 20; ++i) {
    for (size_t b = 0; b < 2; ++b) ASSERT_TRUE(narrow.masters(b) == wide.masters(b)) << "before step " << i << ", bucket " << b;
    narrow.step(i);
    wide.step(i);
  }
  // What the model computes with is the nearest bf16 to the master weight.
  for (size_t b = 0; b < 2; ++b) {
    const std::vector<double> low = narrow.parameters.buckets()[b].values.to_vector(), high = wide.parameters.buckets()[b].values.to_vector();
    for (size_t i = 0; i < low.size(); ++i) ASSERT_LE(std::abs(low[i] - high[i]), epsilon(DType::bf16) / 2 * std::abs(high[i])) << i;
  }
}

TEST_P(DecoupledOptimizer, decays_matrices_and_nothing_else) {
  OptimConfig with = plain(GetParam());
  with.weight_decay = 0.25;
  OptimConfig without = with;
  without.weight_decay = 0;
  Pair decayed(DType::f64, with), kept(DType::f64, without);
  const std::vector<double> start = kept.parameters.buckets()[0].values.to_vector();
  for (Pair* pair : {&decayed, &kept}) {
    for (Bucket& bucket : pair->parameters.buckets()) fill_normal_(bucket.gradients, 5);
    pair->parameters.mark_gradients_filled();
    pair->optimizer->write_scalars(0, 20);
    pair->optimizer->step(full(*pair->device, {Shape{}, DType::f64}, 1));
  }
  ASSERT_TRUE(decayed.parameters.buckets()[0].decay);
  EXPECT_TRUE(bytes_of(decayed.parameters.buckets()[1].values) == bytes_of(kept.parameters.buckets()[1].values));
  const std::vector<double> a = decayed.parameters.buckets()[0].values.to_vector(), b = kept.parameters.buckets()[0].values.to_vector();
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(b[i] - a[i], with.lr * with.weight_decay * start[i], 8 * epsilon(DType::f64)) << i;
}

// Decay is of the weight, not of the gradient: the optimizer's state does not see it.
TEST_P(DecoupledOptimizer, decay_is_decoupled) {
  OptimConfig with = plain(GetParam()), without = with;
  with.weight_decay = 0.25;
  without.weight_decay = 0;
  Pair decayed(DType::f32, with), kept(DType::f32, without);
  for (int64_t i = 0; i < 3; ++i) decayed.step(i), kept.step(i);
  for (size_t s = 0; s < kept.optimizer->states().size(); ++s)
    EXPECT_TRUE(bytes_of(decayed.optimizer->states()[s].buckets[0]) == bytes_of(kept.optimizer->states()[s].buckets[0]));
}

// In float64, where nothing is fused: the same bits as with a gradient that holds the decay. Biases have none.
TEST_P(CoupledOptimizer, decay_is_a_term_of_the_gradient) {
  OptimConfig with = plain(GetParam()), without = with;
  with.weight_decay = 0.25;
  without.weight_decay = 0;
  if (GetParam() != OptimizerKind::adam) with.weight_decay_kind = DecayKind::coupled;
  Pair decayed(DType::f64, with), added(DType::f64, without);
  for (int64_t i = 0; i < 3; ++i) {
    decayed.step(i);
    for (size_t b = 0; b < 2; ++b) {
      Bucket& bucket = added.parameters.buckets()[b];
      fill_normal_(bucket.gradients, Pair::mix_of(i, b), 0, 1);
      std::vector<double> g = bucket.gradients.to_vector();
      const std::vector<double> p = bucket.values.to_vector();
      for (size_t k = 0; k < g.size() && bucket.decay; ++k) g[k] += with.weight_decay * p[k];
      bucket.gradients.write(g.data(), int64_t(g.size() * sizeof(double)));
    }
    added.parameters.mark_gradients_filled();
    added.optimizer->write_scalars(i, 20);
    added.optimizer->step(full(*added.device, {Shape{}, DType::f32}, 1));
  }
  for (size_t b = 0; b < 2; ++b) EXPECT_TRUE(decayed.masters(b) == added.masters(b)) << b;
}

// The padding between parameters is in every bucket that a checkpoint, a hash or a shard may see.
TEST_P(EveryOptimizer, padding_stays_zero) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Pair pair(dtype, plain(GetParam()));
    ASSERT_LT(pair.parameters.count(), pair.parameters.buckets()[0].numel + pair.parameters.buckets()[1].numel);
    for (int64_t i = 0; i < 3; ++i) {
      for (const Parameter& p : pair.parameters.all()) fill_normal_(Parameters::view_of(pair.parameters.buckets()[size_t(p.bucket)].gradients, p), uint64_t(i));
      pair.parameters.mark_gradients_filled();
      pair.optimizer->write_scalars(i, 20);
      pair.optimizer->step(full(*pair.device, {Shape{}, DType::f32}, 1));
    }
    for (const Parameter& p : pair.parameters.all()) {
      const Bucket& bucket = pair.parameters.buckets()[size_t(p.bucket)];
      Tensors planes = {bucket.values};
      for (const Optimizer::State& s : pair.optimizer->states()) planes.push_back(s.buckets[size_t(p.bucket)]);
      for (const Tensor& plane : planes) {
        const std::vector<double> values = plane.to_vector();
        for (size_t i = size_t(p.offset + p.shape.numel()); i < values.size(); ++i) ASSERT_EQ(values[i], 0) << p.name << " at " << i;
      }
    }
  }
}

// A parameter that got no gradient since zero_grad() is not stepped, as in PyTorch where its grad is None: no decay, no change of state,
// no part in the norm. Its slot still holds the gradient of an earlier step, which was taken for a new one.
class Partly {
 public:
  Partly(DType dtype, const OptimConfig& config, Mode mode = Mode::real) : device(open_cpu(mode)) {
    for (const char* name : {"a", "b", "c", "d"}) {
      parameters.declare(text("{}.weight", name), {5, 7}, {Init::normal, 0.5, 1}, true);
      parameters.declare(text("{}.bias", name), {5}, {Init::normal, 0.5, 1}, false);
    }
    parameters.materialize(*device, {dtype, true}, 11);
    optimizer = std::make_unique<Optimizer>(*device, parameters, config);
  }
  // A loss of these modules alone, and a step.
  void step(int64_t i, const std::string& modules) {
    parameters.zero_grad();
    Tensor loss = zeros(*device, {Shape{}, DType::f32});
    for (const char module : modules) {
      const Tensor x = full(*device, {{3, 7}, parameters.dtype()}, 0.5 + double(i));
      const Tensor y = linear(x, parameters.find(text("{}.weight", std::string(1, module)))->value, parameters.find(text("{}.bias", std::string(1, module)))->value);
      const Tensor term = cast(mean(square(y)), DType::f32);
      backward(term);
      loss = add(loss, term.detached());
    }
    optimizer->write_scalars(i, 20);
    optimizer->step(loss);
  }
  // Every plane of a parameter.
  std::string bytes(const std::string& name) {
    const Parameter& p = *parameters.find(name);
    Bucket& bucket = parameters.buckets()[size_t(p.bucket)];
    std::string all = bytes_of(p.value);
    if (bucket.residual.defined()) all += bytes_of(Parameters::view_of(bucket.residual, p));
    for (const Optimizer::State& s : optimizer->states()) all += bytes_of(Parameters::view_of(s.buckets[size_t(p.bucket)], p));
    return all;
  }
  std::map<std::string, std::string> bytes() {
    std::map<std::string, std::string> all;
    for (const Parameter& p : parameters.all()) all[p.name] = bytes(p.name);
    return all;
  }
  Ref<Device> device;
  Parameters parameters;
  std::unique_ptr<Optimizer> optimizer;
};

TEST_P(EveryOptimizer, skips_parameters_without_a_gradient) {
  OptimConfig config = plain(GetParam());
  config.weight_decay = 0.25;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Partly partly(dtype, config);
    partly.step(0, "abcd");
    auto before = partly.bytes();
    for (const std::string modules : {"b", "ad", "bc", "abcd", "", "c"}) {
      SCOPED_TRACE(text("{} in {}", modules, dtype));
      partly.step(1, modules);
      const auto after = partly.bytes();
      for (const auto& [name, planes] : after) EXPECT_EQ(planes != before[name], modules.find(name[0]) != modules.npos) << name;
      before = after;
    }
  }
}

// What is stepped is stepped as if the others were not there.
TEST_P(EveryOptimizer, steps_the_others_as_if_alone) {
  OptimConfig config = plain(GetParam());
  config.weight_decay = 0.25;
  config.clip_norm = 0.1;  // so that the norm matters
  Partly stale(DType::f32, config), fresh(DType::f32, config);
  stale.step(0, "abcd"), fresh.step(0, "abcd");
  for (const Parameter& p : stale.parameters.all()) fill_normal_(Parameters::view_of(stale.parameters.buckets()[size_t(p.bucket)].gradients, p), 5, 0, 1000);
  stale.step(1, "bd"), fresh.step(1, "bd");
  EXPECT_EQ(stale.bytes(), fresh.bytes());
  EXPECT_EQ(stale.optimizer->outcome().grad_norm, fresh.optimizer->outcome().grad_norm);
  double squares = 0;
  for (const char* name : {"b.weight", "b.bias", "d.weight", "d.bias"})
    for (const double g : stale.parameters.find(name)->value.grad().to_vector()) squares += g * g;
  EXPECT_NEAR(stale.optimizer->outcome().grad_norm, std::sqrt(squares), 1e-12 * std::sqrt(squares));
}

TEST(Optimizer, of_no_gradients_does_nothing) {
  Partly partly(DType::f32, plain(OptimizerKind::adamw));
  const auto before = partly.bytes();
  partly.step(0, "");
  EXPECT_EQ(partly.bytes(), before);
  EXPECT_EQ(partly.optimizer->outcome().grad_norm, 0);
  EXPECT_TRUE(partly.optimizer->outcome().updated);
}

TEST(Optimizer, a_frozen_parameter_is_not_decayed) {
  OptimConfig config = plain(OptimizerKind::sgd);
  config.weight_decay = 0.25;
  Partly partly(DType::f32, config);
  partly.parameters.find("b.weight")->value.set_requires_grad(false);
  const std::string before = partly.bytes("b.weight");
  partly.step(0, "abcd");
  EXPECT_TRUE(partly.bytes("b.weight") == before);
}

// Which parameters have a gradient is known to the host, so meta makes the same calls.
TEST(Optimizer, of_some_gradients_is_the_same_on_meta) {
  std::string hashes[2];
  for (const Mode mode : {Mode::real, Mode::meta}) {
    Partly partly(DType::bf16, plain(OptimizerKind::adamw), mode);
    for (const char* modules : {"abcd", "bd", "", "ac"}) partly.step(0, modules);
    hashes[mode == Mode::meta] = partly.device->allocator().trace_hash();
  }
  EXPECT_EQ(hashes[0], hashes[1]);
}

// Clipping scales the whole gradient, over all buckets, as torch.nn.utils.clip_grad_norm_ does.
TEST(Clipping, scales_by_the_global_norm) {
  OptimConfig clipped = plain(OptimizerKind::sgd);
  clipped.weight_decay = 0;
  OptimConfig free = clipped;
  clipped.clip_norm = 0.5;
  Pair a(DType::f32, clipped), b(DType::f32, free);
  const std::vector<double> start = b.parameters.buckets()[0].values.to_vector();
  a.step(0);
  b.step(0);
  double squares = 0;
  for (const Bucket& bucket : b.parameters.buckets())
    for (const double g : bucket.gradients.to_vector()) squares += g * g;
  const double norm = std::sqrt(squares), factor = clipped.clip_norm / (norm + 1e-6);
  EXPECT_NEAR(a.optimizer->outcome().grad_norm, norm, 1e-12 * norm);
  EXPECT_EQ(a.optimizer->outcome().grad_norm, b.optimizer->outcome().grad_norm) << "the norm is the one before clipping";
  const std::vector<double> after_a = a.parameters.buckets()[0].values.to_vector(), after_b = b.parameters.buckets()[0].values.to_vector();
  for (size_t i = 0; i < start.size(); ++i) ASSERT_NEAR(after_a[i] - start[i], factor * (after_b[i] - start[i]), 2 * epsilon(DType::f32) * (1 + std::abs(start[i]))) << i;

  OptimConfig loose = clipped;
  loose.clip_norm = 2 * norm;
  Pair c(DType::f32, loose);
  c.step(0);
  EXPECT_TRUE(bytes_of(c.parameters.buckets()[0].values) == bytes_of(b.parameters.buckets()[0].values)) << "a gradient below the limit stays as it is";
}

// Every course is the warm-up, then what its formula says, and never outside of [floor, lr].
TEST(Schedule, linear_goes_straight_to_the_floor) {
  OptimConfig c;
  c.lr = 0.4;
  c.warmup_steps = 4;
  c.min_lr_ratio = 0.25;
  c.schedule = ScheduleKind::linear;
  for (int64_t step = 0; step < 4; ++step) EXPECT_DOUBLE_EQ(learning_rate(c, step, 104), 0.4 * double(step + 1) / 4);
  for (int64_t step = 4; step <= 104; ++step) EXPECT_NEAR(learning_rate(c, step, 104), 0.4 * (1 - 0.75 * double(step - 4) / 100), 1e-15) << step;
  EXPECT_NEAR(learning_rate(c, 1000, 104), 0.1, 1e-15);
}

TEST(Schedule, wsd_is_stable_until_its_last_part) {
  OptimConfig c;
  c.lr = 0.4;
  c.warmup_steps = 10;
  c.min_lr_ratio = 0;
  c.decay_fraction = 0.2;
  c.schedule = ScheduleKind::wsd;
  EXPECT_DOUBLE_EQ(learning_rate(c, 4, 100), 0.2);
  for (int64_t step = 10; step <= 80; ++step) EXPECT_EQ(learning_rate(c, step, 100), 0.4) << step;
  for (int64_t step = 81; step <= 100; ++step) EXPECT_NEAR(learning_rate(c, step, 100), 0.4 * double(100 - step) / 20, 1e-15) << step;
  c.decay_fraction = 0;
  EXPECT_EQ(learning_rate(c, 99, 100), 0.4);
  c.decay_fraction = 1;  // all of it that the warm-up leaves
  EXPECT_EQ(learning_rate(c, 10, 100), 0.4);
  for (int64_t step = 11; step <= 100; ++step) EXPECT_LT(learning_rate(c, step, 100), learning_rate(c, step - 1, 100)) << step;
}

// The decay began with the end of the warm-up and was as long as without one: the run ended above its floor.
TEST(Schedule, wsd_reaches_its_floor_after_a_long_warm_up) {
  OptimConfig c;
  c.lr = 0.4;
  c.warmup_steps = 80;
  c.min_lr_ratio = 0.25;
  c.decay_fraction = 0.5;
  c.schedule = ScheduleKind::wsd;
  for (int64_t step = 80; step <= 100; ++step)
    EXPECT_NEAR(learning_rate(c, step, 100), 0.4 * (1 - 0.75 * double(step - 80) / 20), 1e-15) << step;
  for (const int64_t warmup : {99, 100, 200}) {
    c.warmup_steps = warmup;
    EXPECT_NEAR(learning_rate(c, std::max<int64_t>(warmup, 100), 100), 0.1, 1e-15) << warmup;
  }
}

TEST(Schedule, inverse_sqrt_needs_no_end) {
  OptimConfig c;
  c.lr = 0.4;
  c.warmup_steps = 25;
  c.min_lr_ratio = 0.1;
  c.schedule = ScheduleKind::inverse_sqrt;
  EXPECT_EQ(learning_rate(c, 24, 100), 0.4);
  EXPECT_DOUBLE_EQ(learning_rate(c, 99, 100), 0.2);
  EXPECT_EQ(learning_rate(c, 99, 100), learning_rate(c, 99, 5000));
  EXPECT_DOUBLE_EQ(learning_rate(c, 1'000'000, 5000), 0.04);
  c.warmup_steps = 0;
  EXPECT_DOUBLE_EQ(learning_rate(c, 3, 100), 0.2);
}

TEST(Schedule, every_course_stays_between_floor_and_peak) {
  for (const std::string_view name : words_of(ScheduleKind()))
    for (const int64_t warmup : {0, 1, 7, 50})
      for (const int64_t total : {1, 2, 10, 40})
        for (const double fraction : {0.0, 0.01, 0.5, 1.0}) {
          const Config config = parse_config("", "test",
                                             Overrides{text("optim.schedule={}", name), text("optim.warmup_steps={}", warmup),
                                                       text("optim.decay_fraction={}", fraction), "optim.lr=0.5", "optim.min_lr_ratio=0.2"});
          for (int64_t step = 0; step < total + 3; ++step) {
            const double rate = learning_rate(config.optim, step, total);
            ASSERT_LE(rate, 0.5) << name << " " << warmup << " " << total << " " << step;
            ASSERT_GE(rate, step < warmup ? 0.5 * double(step + 1) / double(warmup) * (1 - 1e-15) : 0.5 * 0.2 * (1 - 1e-15)) << name;
            if (step >= std::max<int64_t>(warmup, 1)) {
              ASSERT_LE(rate, learning_rate(config.optim, std::max<int64_t>(step - 1, warmup), total)) << name;
            }
          }
        }
}

TEST(BatchScaling, follows_the_rules) {
  EXPECT_EQ(batch_factor(LrScaling::none, 16), 1);
  EXPECT_EQ(batch_factor(LrScaling::linear, 16), 16);
  EXPECT_EQ(batch_factor(LrScaling::sqrt, 16), 4);
  EXPECT_THROW(batch_factor(LrScaling::sqrt, 0), Error);
  OptimConfig c;
  c.beta1 = 0.9, c.beta2 = 0.99, c.eps = 1e-8, c.lr = 1e-3;
  const OptimConfig scaled = square_root_scaled(c, 4);
  EXPECT_DOUBLE_EQ(scaled.lr, 2e-3);
  EXPECT_DOUBLE_EQ(scaled.beta1, 0.6);
  EXPECT_DOUBLE_EQ(scaled.beta2, 0.96);
  EXPECT_DOUBLE_EQ(scaled.eps, 0.5e-8);
  EXPECT_THROW(square_root_scaled(c, 11), Error) << "1 - 11 * 0.1 is below 0";
  c.name = OptimizerKind::rmsprop, c.alpha = 0.99;
  EXPECT_DOUBLE_EQ(square_root_scaled(c, 11).alpha, 0.89);
}

// The learning rate of a run is that of its batch; the optimizer and the metrics have it.
TEST(BatchScaling, reaches_the_optimizer) {
  const Overrides keys = {"optim.lr_scaling=sqrt", "optim.base_batch_tokens=111", "optim.schedule=constant", "optim.warmup_steps=0", "train.grad_accum=4"};
  const Config c = config("gpt2", keys);  // 3 x 37 tokens, four times
  EXPECT_DOUBLE_EQ(effective_optim(c).lr, 0.02);
  EXPECT_EQ(scaling_text(c), "learning rate 0.02 at its peak: optim.lr = 0.01 x 2 (sqrt: 444 tokens a step, optim.base_batch_tokens = 111)");
  EXPECT_EQ(scaling_text(config("gpt2")), "");
  Config by_hand = c;
  by_hand.optim.lr = 0.02;
  by_hand.optim.lr_scaling = LrScaling::none;
  expect_same(trained(c, 2).state, trained(by_hand, 2).state);
}

TEST(Schedule, warms_up_then_follows_a_cosine_to_the_floor) {
  OptimConfig c;
  c.lr = 0.4;
  c.warmup_steps = 4;
  c.min_lr_ratio = 0.25;
  c.schedule = ScheduleKind::cosine;
  const int64_t total = 104;
  for (int64_t step = 0; step < 4; ++step) EXPECT_DOUBLE_EQ(learning_rate(c, step, total), 0.4 * double(step + 1) / 4);
  EXPECT_DOUBLE_EQ(learning_rate(c, 4, total), 0.4);
  EXPECT_NEAR(learning_rate(c, 54, total), 0.4 * (0.25 + 0.75 / 2), 1e-15) << "half-way";
  EXPECT_NEAR(learning_rate(c, 29, total), 0.4 * (0.25 + 0.75 * 0.5 * (1 + std::cos(std::numbers::pi / 4))), 1e-15);
  EXPECT_NEAR(learning_rate(c, total, total), 0.1, 1e-15);
  for (int64_t step = 4; step < total; ++step) EXPECT_GT(learning_rate(c, step, total), learning_rate(c, step + 1, total)) << step;
}

TEST(Schedule, constant_and_edges) {
  OptimConfig c;
  c.lr = 0.5;
  c.warmup_steps = 0;
  c.schedule = ScheduleKind::constant;
  EXPECT_EQ(learning_rate(c, 0, 10), 0.5);
  EXPECT_EQ(learning_rate(c, 1000, 10), 0.5);
  c.schedule = ScheduleKind::cosine;
  EXPECT_EQ(learning_rate(c, 0, 1), 0.5);
  c.warmup_steps = 20;  // longer than the run: it ends within the warm-up
  EXPECT_DOUBLE_EQ(learning_rate(c, 9, 10), 0.25);
  for (int64_t step = 0; step < 40; ++step) EXPECT_TRUE(std::isfinite(learning_rate(c, step, 10))) << step;
}

TEST(Scalars, hold_what_changes_between_steps) {
  OptimConfig c = plain(OptimizerKind::adamw);
  c.beta1 = 0.8;
  c.beta2 = 0.9;
  Pair pair(DType::f32, c);
  pair.optimizer->write_scalars(2, 20);
  const std::vector<double> s = pair.optimizer->scalars().to_vector();
  ASSERT_EQ(s.size(), size_t(kStepScalars));
  EXPECT_EQ(s[kLearningRate], 0.01);
  EXPECT_DOUBLE_EQ(s[kBiasFactor1], 1 - 0.8 * 0.8 * 0.8);
  EXPECT_DOUBLE_EQ(s[kBiasFactor2], 1 - 0.9 * 0.9 * 0.9);
  EXPECT_EQ(s[kEpsilon], c.eps);
}
}  // namespace
}  // namespace small
