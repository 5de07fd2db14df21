// Models of modules inside Autocast: all layers fit together, gradients are float32 and near those of float32, and meta makes the same
// trace.
#include "reckon/engine/autocast.h"

#include <gtest/gtest.h>

#include <cmath>

#include "reckon/backend/cpu/device.h"
#include "reckon/engine/backward.h"
#include "reckon/nn/layers.h"
#include "reckon/nn/moe.h"

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
}  // namespace
}  // namespace reckon
