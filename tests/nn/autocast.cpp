// Models of modules inside Autocast: all layers fit together, gradients are float32 and near those of float32, and meta makes the same
// trace.
#include "reckon/engine/autocast.h"

#include <gtest/gtest.h>

#include <cmath>

#include "reckon/backend/cpu/device.h"
#include "reckon/engine/backward.h"
#include "reckon/nn/decoder.h"
#include "reckon/nn/layers.h"
#include "reckon/nn/moe.h"
#include "tests/nn/small_models.h"

namespace reckon {
namespace {

struct Model : nn::Module {
  using Module::Module;
  nn::Embedding embed{*this, "embed", 32, 24};
  nn::RmsNorm norm1{*this, "norm1", 24}, norm2{*this, "norm2", 24};
  nn::SelfAttention attn{*this, "attn", 24, {.heads = 3, .rope_theta = 1e4}};
  nn::FeedForward mlp{*this, "mlp", 24, 40, MlpKind::swiglu};
  nn::MoE experts{*this, "experts", 24, 32, {.experts = 4, .top_k = 2}};
  nn::TiedLinear head{*this, "head", embed.weight};

  Tensor loss(const Tensor& tokens, const Tensor& targets) const {
    Tensor x = embed(tokens);
    x = add(x, attn(norm1(x)));
    x = add(x, mlp(norm2(x)));
    const nn::MoE::Result r = experts(x);
    return add(cross_entropy(head(add(x, r.y)), targets), affine(r.balance_loss, 0.01));
  }
};

struct Outcome {
  double loss = 0;
  std::vector<std::vector<double>> gradients;
  std::string hash;
};
Outcome run(Mode mode, bool is_autocast, DType low = DType::bf16) {
  const Ref<Device> device = open_cpu(mode);
  Outcome outcome;
  {
    Parameters parameters;
    Model model(parameters);
    model.materialize(*device, {}, 5);
    const std::vector<int32_t> ids{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4};
    const std::vector<int32_t> next{1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4, 3};
    const Tensor tokens = from_values<int32_t>(*device, {2, 12}, ids), targets = from_values<int32_t>(*device, {2, 12}, next);
    Tensor loss;
    {
      const Autocast scope(low, is_autocast);
      loss = model.loss(tokens, targets);
    }
    EXPECT_EQ(loss.dtype(), DType::f32);
    backward(loss);
    if (mode == Mode::real) {
      outcome.loss = loss.item();
      for (const Parameter& p : parameters.all()) {
        EXPECT_EQ(p.value.grad().dtype(), DType::f32) << p.name;
        outcome.gradients.push_back(p.value.grad().to_vector());
      }
    }
  }
  EXPECT_EQ(device->allocator().ledger().live, 0);
  outcome.hash = device->allocator().trace_hash();
  return outcome;
}

TEST(AutocastModules, AModelOfEveryLayerRuns) {
  const Outcome wide = run(Mode::real, false), low = run(Mode::real, true);
  EXPECT_NE(low.loss, wide.loss);
  // A loss of float32 logits, each of which has passed some ten roundings to bfloat16 in a row.
  EXPECT_NEAR(low.loss, wide.loss, 10 * epsilon(DType::bf16) * wide.loss);
  EXPECT_EQ(low.hash, run(Mode::meta, true).hash);
  EXPECT_EQ(run(Mode::real, true, DType::f16).hash, run(Mode::meta, true, DType::f16).hash);
}

// ---- decoders
Outcome run_decoder(Mode mode, const ModelConfig& config, bool is_autocast, bool is_fused, const RecomputePolicy& recompute = {}) {
  const Ref<Device> device = open_cpu(mode);
  Outcome outcome;
  {
    Decoder decoder(config);
    decoder.parameters().materialize(*device, {}, 5);
    const Tensor tokens = from_values<int32_t>(*device, {2, 24}, test::some_tokens(48, config.vocab)),
                 targets = from_values<int32_t>(*device, {2, 24}, test::some_tokens(48, config.vocab, 3));
    Tensor loss;
    {
      const Autocast scope(DType::bf16, is_autocast);
      loss = decoder.loss(tokens, targets, recompute, is_fused);
    }
    EXPECT_EQ(loss.dtype(), DType::f32);
    backward(loss);
    if (mode == Mode::real) {
      outcome.loss = loss.item();
      for (const Parameter& p : decoder.parameters().all()) outcome.gradients.push_back(p.value.grad().to_vector());
    }
  }
  EXPECT_EQ(device->allocator().ledger().live, 0);
  outcome.hash = device->allocator().trace_hash();
  return outcome;
}

TEST(AutocastModules, DecodersRunAsTheyAre) {
  for (const char* name : {"gpt2", "llama", "qwen", "mistral"}) {
    const ModelConfig config = test::architecture(name, 2);
    for (const bool is_fused : {false, true}) {
      const Outcome wide = run_decoder(Mode::real, config, false, is_fused), low = run_decoder(Mode::real, config, true, is_fused);
      EXPECT_NE(low.loss, wide.loss) << name;
      // Two blocks of some six roundings in a row, and the head's.
      EXPECT_NEAR(low.loss, wide.loss, 14 * 0.5 * epsilon(DType::bf16) * wide.loss) << name;
      EXPECT_EQ(low.hash, run_decoder(Mode::meta, config, true, is_fused).hash) << name;
      for (const BlockRecompute block : {BlockRecompute::selective, BlockRecompute::full}) {
        const RecomputePolicy policy(2, {block, 1});
        const Outcome again = run_decoder(Mode::real, config, true, is_fused, policy);
        EXPECT_EQ(again.loss, low.loss) << name;
        EXPECT_EQ(again.gradients, low.gradients) << name;
        EXPECT_EQ(again.hash, run_decoder(Mode::meta, config, true, is_fused, policy).hash) << name;
      }
    }
  }
}
}  // namespace
}  // namespace reckon
