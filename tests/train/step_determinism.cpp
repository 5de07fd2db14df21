// The same seed gives the same bytes: at any number of threads, with and without recomputation, and however a batch is cut, up to rounding.
#include <cmath>

#include "tests/train/small_runs.h"
#include "tests/support/gradient_watcher.h"

namespace small {
namespace {
constexpr int64_t kSteps = 4;

struct Case {
  const char* model;
  const char* precision;
  const char* optimizer = "adamw";
  bool master = true;
  const char* dropout = "0";
};
class Determinism : public ::testing::TestWithParam<Case> {
 protected:
  Config make(Overrides more = {}) const {
    more.push_back(text("train.precision={}", GetParam().precision));
    more.push_back(text("optim.name={}", GetParam().optimizer));
    more.push_back(text("train.master_weights={}", GetParam().master));
    if (GetParam().model != std::string_view("cruncher")) more.push_back(text("model.dropout={}", GetParam().dropout));
    return config(GetParam().model, more);
  }
};

TEST_P(Determinism, any_number_of_threads) {
  State one;
  for (const int threads : {1, 2, 5}) {
    const Threads guard(threads);
    const State now = trained(make(), kSteps).state;
    if (threads == 1) one = now;
    SCOPED_TRACE(text("{} threads", threads));
    expect_same(one, now);
  }
}

// Lanes are how many threads may hold scratch: more of them must not change a bit either.
TEST_P(Determinism, any_number_of_lanes) {
  const Threads guard(5);
  expect_same(trained(make(), kSteps, {"cpu", 2}).state, trained(make(), kSteps, {"cpu", 5}).state);
}

TEST_P(Determinism, recomputation) {
  const Trained kept = trained(make(), kSteps), again = trained(make({"train.recompute=full"}), kSteps);
  expect_same(kept.state, again.state);
  EXPECT_EQ(kept.losses, again.losses);
  EXPECT_EQ(kept.norms, again.norms);
}

TEST_P(Determinism, same_seed_same_bytes_other_seed_others) {
  const Trained a = trained(make(), kSteps), b = trained(make(), kSteps), other = trained(make({"seed=2"}), kSteps);
  expect_same(a.state, b.state);
  EXPECT_FALSE(a.state.at("values 0") == other.state.at("values 0"));
  EXPECT_NE(a.losses, other.losses);
}

INSTANTIATE_TEST_SUITE_P(Models, Determinism,
                         ::testing::Values(Case{"gpt2", "fp32"}, Case{"gpt2", "bf16"}, Case{"gpt2", "fp16"}, Case{"llama", "fp32"}, Case{"llama", "bf16"}, Case{"qwen", "fp32"},
                                           Case{"cruncher", "fp32"}, Case{"gpt2", "fp32", "adamw8bit"}, Case{"qwen", "fp16", "adamw8bit"}, Case{"llama", "bf16", "adamw8bit", false}, Case{"gpt2", "bf16", "adamw", false},
                                           Case{"gpt2", "fp8"}, Case{"llama", "fp8", "adamw8bit", false}, Case{"cruncher", "fp8"}, Case{"gpt2", "fp32", "lamb"},
                                           Case{"llama", "bf16", "lamb", false}, Case{"qwen", "fp16", "rmsprop"},
                                           Case{"gpt2", "fp32", "adamw", true, "0.2"}, Case{"llama", "bf16", "adamw", true, "0.1"}, Case{"qwen", "fp16", "adamw", true, "0.3"}, Case{"gpt2", "fp8", "adamw", true, "0.1"}),
                         [](const auto& info) {
                           return std::string(info.param.model) + "_" + info.param.precision + "_" + info.param.optimizer + (info.param.master ? "" : "_rounded") +
                                  (info.param.dropout == std::string_view("0") ? "" : "_dropout");
                         });

// The gradients of a deep model lie in many pieces, each a run of its own for the optimizer.
TEST(DeepModels, train_a_step) {
  for (const char* optimizer : {"adamw", "adamw8bit"}) {
    const Config c = config("gpt2", {"model.layers=70", "model.d_model=32", "model.d_ff=128", "model.heads=2", "model.head_dim=16", "train.micro_batch=1",
                                     text("optim.name={}", optimizer)});
    const Ref<Device> device = open_cpu(Mode::real);
    TrainStep step(c, *device);
    const TrainStep::Result result = step.run(0, SyntheticBatches(c.model.vocab, 3));
    EXPECT_TRUE(result.updated);
    EXPECT_GT(result.grad_norm, 0);
  }
}

// Accumulated micro-batches draw the same samples as one large batch, and each counts 1/k.
class Accumulation : public ::testing::TestWithParam<const char*> {};
TEST_P(Accumulation, equals_the_large_batch) {
  const auto gradients = [](const Config& c) {
    const Ref<Device> device = open_cpu(Mode::real);
    TrainStep step(c, *device);
    std::vector<std::vector<double>> all(1);
    const test::WatchGradients watcher(step, [&](const Parameters& parameters) {
      for (const Parameter& p : parameters.all()) all.push_back(p.value.grad().to_vector());
    });
    const TrainStep::Result result = step.run(0, SyntheticBatches(c.model.vocab, 3));
    all[0] = {result.loss, result.grad_norm};
    return all;
  };
  const int64_t tokens = 6 * 37;
  const auto whole = gradients(config(GetParam(), {"train.micro_batch=6"}));
  for (const int k : {2, 3, 6}) {
    const auto parts = gradients(config(GetParam(), {text("train.micro_batch={}", 6 / k), text("train.grad_accum={}", k)}));
    ASSERT_EQ(whole.size(), parts.size());
    for (size_t i = 0; i < whole.size(); ++i) {
      double most = 0, worst = 0;
      for (size_t j = 0; j < whole[i].size(); ++j) {
        most = std::max(most, std::abs(whole[i][j]));
        worst = std::max(worst, std::abs(whole[i][j] - parts[i][j]));
      }
      // A gradient is a sum over the tokens of rounded terms, in another order; their errors walk randomly.
      EXPECT_LE(worst, epsilon(DType::f32) * std::sqrt(double(tokens)) * most) << "tensor " << i << " in " << k << " parts";
      EXPECT_GT(most, 0) << "tensor " << i;
    }
  }
}
INSTANTIATE_TEST_SUITE_P(Models, Accumulation, ::testing::Values("gpt2", "llama", "qwen"));

TEST(Step, learns_a_batch_by_heart) {
  for (const char* precision : {"fp32", "bf16", "fp16", "fp8"})
    for (const char* model : {"gpt2", "llama"}) {
      const char* optimizer = model == std::string_view("gpt2") ? "adamw" : "adamw8bit";
      const Config c = config(model, {text("train.precision={}", precision), text("optim.name={}", optimizer), "train.steps=30", "optim.schedule=constant"});
      struct OneBatch final : BatchSource {
        explicit OneBatch(int64_t vocab) : source(vocab, 3) {}
        void fill(int64_t, int64_t count, int64_t seq_len, int32_t* inputs, int32_t* targets) const override { source.fill(0, count, seq_len, inputs, targets); }
        SyntheticBatches source;
      };
      const OneBatch batch(c.model.vocab);
      const Ref<Device> device = open_cpu(Mode::real);
      TrainStep step(c, *device);
      double first = 0, last = 0;
      for (int64_t i = 0; i < 30; ++i) (i == 0 ? first : last) = step.run(i, batch).loss;
      EXPECT_NEAR(first, std::log(double(c.model.vocab)), 1.0) << "an untrained model knows nothing";
      EXPECT_LT(last, first / 2) << model << " " << precision;
    }
}

// Evaluation draws from sample 0 on, changes nothing and is the mean over its batches.
TEST(Step, evaluation_is_a_mean_and_changes_nothing) {
  const Config c = config("gpt2");
  const Ref<Device> device = open_cpu(Mode::real);
  TrainStep step(c, *device);
  const SyntheticBatches batches(c.model.vocab, 5);
  const State before = state_of(step);
  struct Later final : BatchSource {
    Later(const BatchSource& s, int64_t f) : source(s), first(f) {}
    void fill(int64_t at, int64_t count, int64_t seq_len, int32_t* inputs, int32_t* targets) const override { source.fill(first + at, count, seq_len, inputs, targets); }
    const BatchSource& source;
    int64_t first;
  };
  const int64_t B = c.train.micro_batch;
  const double both = step.evaluate(batches, 2 * B), one = step.evaluate(batches, B), two = step.evaluate(Later(batches, B), B);
  EXPECT_DOUBLE_EQ(both, (one + two) / 2);
  EXPECT_NE(one, two);
  expect_same(before, state_of(step));
}

TEST(SyntheticBatches, targets_are_the_next_tokens_and_samples_are_fixed) {
  const SyntheticBatches batches(50, 9);
  std::vector<int32_t> in(4 * 7), target(4 * 7), later_in(7), later_target(7);
  batches.fill(10, 4, 7, in.data(), target.data());
  for (int row = 0; row < 4; ++row)
    for (int t = 0; t < 6; ++t) EXPECT_EQ(target[size_t(row * 7 + t)], in[size_t(row * 7 + t + 1)]);
  batches.fill(12, 1, 7, later_in.data(), later_target.data());
  for (int t = 0; t < 7; ++t) EXPECT_EQ(later_in[size_t(t)], in[size_t(2 * 7 + t)]);
  for (const int32_t id : in) EXPECT_TRUE(id >= 0 && id < 50);
}
}  // namespace
}  // namespace small
