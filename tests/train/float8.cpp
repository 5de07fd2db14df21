// Training with train.precision=fp8: it follows float32, its scales follow what was seen, and its activations take fewer bytes than bf16's.
#include <cmath>

#include "reckon/engine/context.h"
#include "tests/train/small_runs.h"

namespace small {
namespace {
constexpr int64_t kWindow = 3;

struct OneBatch final : BatchSource {
  explicit OneBatch(int64_t vocab) : source(vocab, 3) {}
  void fill(int64_t, int64_t count, int64_t seq_len, int32_t* inputs, int32_t* targets) const override {
    source.fill(0, count, seq_len, inputs, targets);
  }
  SyntheticBatches source;
};

std::vector<double> curve(const char* model, const char* precision, int64_t steps) {
  const Config c =
      config(model, {text("train.precision={}", precision), text("train.steps={}", steps), "optim.schedule=constant", "optim.lr=0.003"});
  const Ref<Device> device = open_cpu(Mode::real);
  TrainStep step(c, *device);
  const OneBatch batch(c.model.vocab);
  std::vector<double> losses;
  for (int64_t i = 0; i < steps; ++i) losses.push_back(step.run(i, batch).loss);
  return losses;
}

// Two bits of fraction in every gradient and three in every weight and input: the curve stays within 3 % of the first loss.
TEST(Float8, follows_float32) {
  for (const char* model : {"gpt2", "llama", "qwen"}) {
    const std::vector<double> wide = curve(model, "fp32", 30), half = curve(model, "bf16", 30), narrow = curve(model, "fp8", 30);
    double worst = 0, worst_half = 0;
    for (size_t i = 0; i < wide.size(); ++i) {
      worst = std::max(worst, std::abs(narrow[i] - wide[i]));
      worst_half = std::max(worst_half, std::abs(half[i] - wide[i]));
    }
    std::printf("%s: loss %.4f to %.4f; fp8 is off by %.4f at most, bf16 by %.4f\n", model, wide.front(), wide.back(), worst, worst_half);
    EXPECT_LT(wide.back(), wide.front() / 2) << "a curve that does not fall says nothing";
    EXPECT_LT(worst, 0.03 * wide.front()) << model;
  }
}

Config windowed(const char* model, const Overrides& more = {}) {
  Overrides o = {"train.precision=fp8", text("train.fp8_amax_history={}", kWindow)};
  o.insert(o.end(), more.begin(), more.end());
  return config(model, o);
}

TEST(Float8, every_linear_layer_of_a_block_has_scales_that_follow_its_history) {
  const Config c = windowed("llama", {"train.grad_accum=2"});
  const Ref<Device> device = open_cpu(Mode::real);
  TrainStep step(c, *device);
  ASSERT_EQ(step.float8_states().size(), 8u);
  EXPECT_EQ(step.float8_states()[0].name, "blocks.0.attn.qkv");
  EXPECT_EQ(step.float8_states()[7].name, "blocks.1.mlp.down");
  const SyntheticBatches batches(c.model.vocab, 3);
  for (int64_t i = 0; i < kWindow + 2; ++i) {
    std::vector<std::vector<double>> before;
    for (const NamedFloat8State& layer : step.float8_states()) before.push_back(layer.state.history.to_vector());
    ASSERT_TRUE(step.run(i, batches).updated);
    for (size_t l = 0; l < before.size(); ++l) {
      const Float8State& s = step.float8_states()[l].state;
      const std::vector<double> now = s.history.to_vector(), scales = s.scales.to_vector();
      for (int t = 0; t < kFloat8Tensors; ++t) {
        EXPECT_GT(now[size_t(t * kWindow)], 0);
        double most = 0;
        for (int64_t k = 0; k < kWindow; ++k) {
          most = std::max(most, now[size_t(t * kWindow + k)]);
          if (k > 0) {
            EXPECT_EQ(now[size_t(t * kWindow + k)], before[l][size_t(t * kWindow + k - 1)]);
          }
        }
        const double largest = t == kFloat8Gradient ? 57344 : 448;
        EXPECT_LE(most * scales[size_t(t)], largest);
        EXPECT_GT(most * scales[size_t(t)] * 2, largest);
      }
      EXPECT_EQ(s.amax.to_vector(), std::vector<double>(kFloat8Tensors));
    }
  }
}

// What is evaluated are the weights, in bf16, as who loads them later computes.
TEST(Float8, evaluates_in_bf16) {
  const auto evaluated = [](const char* precision) {
    const Config c = config("gpt2", {text("train.precision={}", precision)});
    const Ref<Device> device = open_cpu(Mode::real);
    TrainStep step(c, *device);
    return step.evaluate(SyntheticBatches(c.model.vocab, 5), 4);
  };
  EXPECT_EQ(evaluated("fp8"), evaluated("bf16"));
}

TEST(Float8, a_step_that_is_skipped_leaves_scales_and_histories) {
  const Config c = windowed("gpt2");
  const Ref<Device> device = open_cpu(Mode::real);
  TrainStep step(c, *device);
  const SyntheticBatches batches(c.model.vocab, 3);
  ASSERT_TRUE(step.run(0, batches).updated);
  const Tensor& bias = step.parameters().find("norm.bias")->value;
  std::string bytes = bytes_of(bias);
  bytes[1] = char(0x7F), bytes[0] = char(0xC0);
  bias.write(bytes.data(), int64_t(bytes.size()));
  const State before = state_of(step);
  EXPECT_FALSE(step.run(1, batches).updated);
  expect_same(before, state_of(step));
}

// What lives between forward and backward, and what lives always: which bytes shrink and which grow.
TEST(Float8, activations_take_fewer_bytes_than_those_of_bf16) {
  const ModelConfig model = parse_config("", "test", std::vector<std::string>{"model.preset=gpt2-124m"}).model;
  const int64_t B = 4, T = 256, tokens = B * T, width = 768, layers = 12;
  const auto live = [&](bool float8, BlockRecompute mode) {
    const Ref<Device> meta = open_cpu(Mode::meta);
    Decoder decoder(model);
    decoder.parameters().materialize(*meta, {.dtype = DType::bf16}, 1);
    if (float8) decoder.use_float8(*meta, 16);
    const PhaseScope phase(*meta, Phase::forward);
    const Tensor hidden = decoder.hidden(zeros(*meta, {{B, T}, DType::i32}), RecomputePolicy(size_t(layers), {mode, 1}));
    return meta->allocator().ledger().live_by_category;
  };
  const size_t activation = size_t(Category::activation), optimizer = size_t(Category::optimizer);
  // Of each block two norms' outputs [T, C] and the activation's [T, 4 C] are a byte an element instead of two; each layer has statistics.
  const auto half = live(false, BlockRecompute::none), narrow = live(true, BlockRecompute::none);
  EXPECT_EQ(half[activation] - narrow[activation], layers * (6 * tokens * width - 4 * 64));
  EXPECT_EQ(narrow[optimizer] - half[optimizer], layers * 4 * (64 + 64 + 192)) << "scales, largest magnitudes, 16 steps of history";
  for (const Category same : {Category::parameter, Category::gradient, Category::master})
    EXPECT_EQ(narrow[size_t(same)], half[size_t(same)]) << name_of(same);
  EXPECT_EQ(live(true, BlockRecompute::selective)[activation], live(false, BlockRecompute::selective)[activation] + layers * 4 * 64)
      << "nothing is kept that can be computed again";
  EXPECT_EQ(live(true, BlockRecompute::full)[activation], live(false, BlockRecompute::full)[activation]);
}
}  // namespace
}  // namespace small
