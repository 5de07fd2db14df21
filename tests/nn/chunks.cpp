// Sequences in chunks: the loss and the gradients of whole sequences, for every architecture, with ignored targets and any policy of
// recomputation, and exactly the model's work.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/parallel.h"
#include "reckon/base/philox.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/engine/meter.h"
#include "reckon/nn/decoder.h"
#include "tests/nn/small_models.h"

namespace reckon {
namespace {
constexpr int64_t kB = 2, kT = 41;

ModelConfig architecture(const std::string& name) { return test::architecture(name, 3); }

struct Gradients {
  double loss = 0;
  std::map<std::string, std::vector<double>> of;
  Flops flops;
};

// chunk 0: whole sequences.
Gradients gradients(const ModelConfig& c, DType dtype, int64_t chunk, bool fused = true, const RecomputePolicy& recompute = {}) {
  const Ref<Device> device = open_cpu(Mode::real);
  Decoder decoder(c);
  decoder.parameters().materialize(*device, {dtype, true}, 5);
  decoder.parameters().zero_grad();
  const std::vector<int32_t> ids = test::some_tokens(kB * kT, c.vocab);
  std::vector<int32_t> targets = test::some_tokens(kB * kT, c.vocab, 3);
  for (size_t i = 0; i < targets.size(); ++i)
    if (i % 7 == 3 || i < 12) targets[i] = kIgnoredTarget;
  const Tensor tokens = from_values<int32_t>(*device, {kB, kT}, ids), labels = from_values<int32_t>(*device, {kB, kT}, targets);
  const Tensor seed = full(*device, {Shape{}, statistics_dtype(dtype)}, 0.5);
  Gradients g;
  Meter meter;
  {
    const MeterScope scope(meter);
    if (chunk > 0) {
      g.loss = decoder.loss_and_backward_in_chunks(tokens, labels, seed, chunk, recompute, fused).item();
    } else if (fused) {
      g.loss = decoder.loss_and_backward(decoder.hidden(tokens), labels, seed).item();
    } else {
      const Tensor loss = decoder.loss(tokens, labels);
      backward(loss, seed);
      g.loss = loss.item();
    }
  }
  g.flops = meter.total();
  for (const Parameter& p : decoder.parameters().all()) g.of[p.name] = p.value.grad().to_vector();
  return g;
}

double max_abs(const std::vector<double>& x) {
  return std::accumulate(x.begin(), x.end(), 0.0, [](double most, double v) { return std::max(most, std::abs(v)); });
}

// `rounding`: of one sum over the tokens, relative to the largest gradient of the tensor.
void expect_close(const Gradients& ours, const Gradients& theirs, double rounding) {
  EXPECT_NEAR(ours.loss, theirs.loss, rounding * theirs.loss);
  ASSERT_EQ(ours.of.size(), theirs.of.size());
  for (const auto& [name, want] : theirs.of) {
    const std::vector<double>& got = ours.of.at(name);
    const double most = max_abs(want);
    ASSERT_GT(most, 0) << name;
    double worst = 0;
    for (size_t i = 0; i < want.size(); ++i) worst = std::max(worst, std::abs(want[i] - got[i]));
    EXPECT_LE(worst, rounding * most) << name;
  }
}

class Chunks : public ::testing::TestWithParam<const char*> {};

TEST_P(Chunks, DoublesAgreeToTenDigits) {
  const ModelConfig c = architecture(GetParam());
  for (const bool fused : {true, false}) {
    const Gradients whole = gradients(c, DType::f64, 0, fused);
    for (const int64_t chunk : {1, 8, 16, 40, 41, 100}) {
      SCOPED_TRACE(text("chunks of {}{}", chunk, fused ? "" : ", with logits"));
      expect_close(gradients(c, DType::f64, chunk, fused), whole, 1e-10);
    }
  }
}

// Sums over tokens are cut elsewhere, and what they add up is rounded where chunks end: some ten sums a layer that each walk randomly.
TEST_P(Chunks, FloatsAgreeWithinTheirRounding) {
  const ModelConfig c = architecture(GetParam());
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const double rounding = std::sqrt(10.0 * double(c.layers)) * (epsilon(dtype) + std::sqrt(double(kB * kT)) * epsilon(DType::f32));
    const Gradients whole = gradients(c, dtype, 0);
    for (const int64_t chunk : {5, 16}) expect_close(gradients(c, dtype, chunk), whole, rounding);
  }
}

// The model's work is that of whole sequences; the second forward pass of all chunks but the last counts as executed.
TEST_P(Chunks, NeededWorkIsThatOfWholeSequences) {
  const ModelConfig c = architecture(GetParam());
  const Gradients whole = gradients(c, DType::f64, 0), chunked = gradients(c, DType::f64, 16), one = gradients(c, DType::f64, 100);
  EXPECT_EQ(chunked.flops.model, whole.flops.model);
  EXPECT_GT(chunked.flops.matmul, whole.flops.matmul);
  EXPECT_EQ(one.flops.model, whole.flops.model);
  EXPECT_EQ(one.flops.matmul, whole.flops.matmul) << "a single chunk passes once";
}

TEST_P(Chunks, RecomputationChangesNoBit) {
  const ModelConfig c = architecture(GetParam());
  const Gradients kept = gradients(c, DType::f32, 16);
  for (const RecomputePolicy& policy :
       {RecomputePolicy(3, {BlockRecompute::selective, 1}), RecomputePolicy{{BlockRecompute::full, 1}, {BlockRecompute::selective, 2}},
        RecomputePolicy{{BlockRecompute::full, 2}, {BlockRecompute::none, 1}}, RecomputePolicy{{BlockRecompute::full, 3}}}) {
    const Gradients again = gradients(c, DType::f32, 16, true, policy);
    EXPECT_EQ(again.loss, kept.loss);
    EXPECT_EQ(again.of, kept.of);
    EXPECT_EQ(again.flops.model, kept.flops.model);
  }
}

// Where every block is run again on its own, blocks take turns. A table that is tied to the head gets its sums in another order.
TEST_P(Chunks, BlocksMayTakeTurns) {
  const ModelConfig c = architecture(GetParam());
  const RecomputePolicy turns(3, {BlockRecompute::full, 1});
  for (const bool fused : {true, false}) {
    const Gradients whole = gradients(c, DType::f64, 0, fused);
    for (const int64_t chunk : {1, 8, 16, 41}) {
      const Gradients chunked = gradients(c, DType::f64, chunk, fused, turns);
      expect_close(chunked, whole, 1e-10);
      EXPECT_EQ(chunked.flops.model, whole.flops.model);
      EXPECT_GT(chunked.flops.matmul, whole.flops.matmul);
    }
  }
  const Gradients f32 = gradients(c, DType::f32, 16), again = gradients(c, DType::f32, 16, true, turns);
  EXPECT_EQ(f32.loss, again.loss);
  for (const auto& [name, values] : f32.of)
    if (!c.tied_head || name != "embed.weight") {
      EXPECT_EQ(values, again.of.at(name)) << name;
    }
}

TEST_P(Chunks, ThreadsChangeNoBit) {
  const int before = thread_count();
  const ModelConfig c = architecture(GetParam());
  set_thread_count(1);
  const Gradients one = gradients(c, DType::f32, 10);
  for (const int threads : {2, 5}) {
    set_thread_count(threads);
    EXPECT_EQ(gradients(c, DType::f32, 10).of, one.of);
  }
  set_thread_count(before);
}
INSTANTIATE_TEST_SUITE_P(Models, Chunks, ::testing::Values("gpt2", "llama", "qwen", "mistral"));

TEST(ChunkedDecoder, EvaluationIsTheLossOfWholeSequences) {
  const ModelConfig c = architecture("qwen");
  const Ref<Device> device = open_cpu(Mode::real);
  Decoder decoder(c);
  decoder.parameters().materialize(*device, {DType::f64, true}, 5);
  std::vector<int32_t> ids(size_t(kB * kT));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = int32_t(i % 80);
  const NoGrad guard;
  const Tensor tokens = from_values<int32_t>(*device, {kB, kT}, ids);
  for (const int64_t chunk : {7, 41})
    for (const bool fused : {true, false})
      EXPECT_NEAR(decoder.loss_in_chunks(tokens, tokens, chunk, fused).item(), decoder.loss(tokens, tokens).item(), 1e-12);
  EXPECT_THROW(decoder.loss_in_chunks(tokens, tokens, 0), Error);
}

TEST(ChunkedDecoder, RefusesWhatThePositionTableCannotHold) {
  const ModelConfig c = architecture("gpt2");
  const Ref<Device> device = open_cpu(Mode::meta);
  Decoder decoder(c);
  decoder.parameters().materialize(*device, {DType::f32, true}, 5);
  const Tensor tokens = empty(*device, {{1, c.max_seq_len + 1}, DType::i32});
  EXPECT_THROW(decoder.loss_in_chunks(tokens, tokens, 10), Error);
}

// An operation that records its gradient without a place for those of the keys would lose them.
TEST(ChunkedDecoder, AttentionWithoutRoomForGradientsIsRefused) {
  const Ref<Device> device = open_cpu(Mode::real);
  Tensor qkv = zeros(*device, {{1, 4, 12}, DType::f32});
  qkv.set_requires_grad();
  const SequenceKeys keys{zeros(*device, {{1, 1, 8, 4}, DType::f32}), zeros(*device, {{1, 1, 8, 4}, DType::f32}), {}, {}};
  EXPECT_THROW(attention_chunk(qkv, keys, 0, 1, 1, 4), Error);
  EXPECT_THROW(attention_chunk(qkv.detached(), keys, 5, 1, 1, 4), Error);
  EXPECT_THROW(store_keys(qkv, keys, 0, 1, 1, 4), Error);
}
}  // namespace
}  // namespace reckon
