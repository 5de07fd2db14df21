// Plain attention in the decoder: the same numbers as the fused kernel, the same needed work, and n x n matrices in memory.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/philox.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/engine/meter.h"
#include "reckon/nn/decoder.h"
#include "tests/nn/small_models.h"

namespace reckon {
namespace {
constexpr int64_t kB = 2, kT = 41;

ModelConfig architecture(const std::string& name) { return test::architecture(name, 2); }

struct Result {
  double loss = 0;
  std::map<std::string, std::vector<double>> gradients;
  Flops flops;
  int64_t peak = 0;
};
Result step(const ModelConfig& c, bool plain, const RecomputePolicy& recompute = {}) {
  const Ref<Device> device = open_cpu(Mode::real);
  Decoder decoder(c);
  decoder.set_plain_attention(plain);
  decoder.parameters().materialize(*device, {DType::f64, true}, 5);
  decoder.parameters().zero_grad();
  const std::vector<int32_t> ids = test::some_tokens(kB * kT, c.vocab);
  const Tensor tokens = from_values<int32_t>(*device, {kB, kT}, ids);
  Result r;
  Meter meter;
  {
    const MeterScope scope(meter);
    const Tensor loss = decoder.loss(tokens, tokens, recompute);
    backward(loss);
    r.loss = loss.item();
  }
  r.flops = meter.total();
  r.peak = device->allocator().ledger().peak;
  for (const Parameter& p : decoder.parameters().all()) r.gradients[p.name] = p.value.grad().to_vector();
  return r;
}

class PlainAttention : public ::testing::TestWithParam<const char*> {};

TEST_P(PlainAttention, GivesTheNumbersOfTheFusedKernel) {
  const ModelConfig c = architecture(GetParam());
  const Result flash = step(c, false), plain = step(c, true);
  EXPECT_NEAR(plain.loss, flash.loss, 1e-12 * flash.loss);
  for (const auto& [name, want] : flash.gradients) {
    double most = 0, worst = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      most = std::max(most, std::abs(want[i]));
      worst = std::max(worst, std::abs(want[i] - plain.gradients.at(name)[i]));
    }
    EXPECT_GT(most, 0) << name;
    EXPECT_LE(worst, 1e-10 * most) << name;
  }
  EXPECT_EQ(plain.flops.model, flash.flops.model) << "a mask needs no products";
  EXPECT_GT(plain.flops.matmul, flash.flops.matmul);
  EXPECT_GT(plain.peak - flash.peak, c.layers * kB * c.heads * kT * (kT - 1) * 8) << "probabilities instead of a log-sum-exp a row";
}

TEST_P(PlainAttention, RecomputationChangesNoBit) {
  const ModelConfig c = architecture(GetParam());
  const Result kept = step(c, true);
  for (const BlockRecompute mode : {BlockRecompute::selective, BlockRecompute::full}) {
    const Result again = step(c, true, RecomputePolicy(2, {mode, 1}));
    EXPECT_EQ(again.loss, kept.loss);
    EXPECT_EQ(again.gradients, kept.gradients);
    EXPECT_EQ(again.flops.model, kept.flops.model);
  }
}
INSTANTIATE_TEST_SUITE_P(Models, PlainAttention, ::testing::Values("gpt2", "llama", "qwen", "mistral"));

TEST(PlainAttentionDecoder, SeesWholeSequencesOnly) {
  const Ref<Device> device = open_cpu(Mode::meta);
  Decoder decoder(architecture("llama"));
  decoder.set_plain_attention(true);
  decoder.parameters().materialize(*device, {DType::f32, true}, 5);
  const Tensor tokens = empty(*device, {{1, 20}, DType::i32});
  EXPECT_THROW(decoder.loss_in_chunks(tokens, tokens, 10), Error);
}
}  // namespace
}  // namespace reckon
