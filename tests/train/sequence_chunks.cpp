// Training in chunks: the step of whole sequences within rounding, in less memory, and what does not go together is refused.
#include <cmath>

#include "reckon/plan/remedies.h"
#include "tests/support/gradient_watcher.h"
#include "tests/train/config_check.h"
#include "tests/train/small_runs.h"

namespace small {
namespace {
Config in_chunks(Config c, int64_t chunk) {
  c.train.sequence_chunk = chunk;
  return c;
}

struct Step {
  TrainStep::Result result;
  std::map<std::string, std::vector<double>> gradients;
};
Step run_step(const Config& c) {
  const Ref<Device> device = open_cpu(Mode::real);
  TrainStep step(c, *device);
  Step s;
  const test::WatchGradients watcher(step, [&](const Parameters& parameters) {
    for (const Parameter& p : parameters.all()) s.gradients[p.name] = p.value.grad().to_vector();
  });
  s.result = step.run(0, SyntheticBatches(c.model.vocab, 3));
  return s;
}

// Each chunk's activations are those of the whole sequence but for the cut of products, so gradients differ by how their sums over tokens
// are cut, and in 16 bits by the roundings of what passes down the layers, some ten a layer.
TEST(SequenceChunks, AStepIsThatOfWholeSequences) {
  for (const char* model : {"gpt2", "llama", "qwen"})
    for (const char* precision : {"fp32", "bf16", "fp16"})
      for (const char* fused : {"true", "false"}) {
        SCOPED_TRACE(text("{} {} {}", model, precision, fused));
        const Config c = config(model, {text("train.precision={}", precision), text("train.fused_loss={}", fused), "train.grad_accum=2"});
        const bool takes_turns = fused == std::string("true") && model != std::string("llama");
        Config cut = in_chunks(c, 8);
        if (takes_turns) cut.train.recompute = Recompute::full;
        const Step whole = run_step(c), chunked = run_step(cut);
        const DType dtype = dtype_of(c.train.precision);
        const double tokens = double(c.train.micro_batch * c.train.seq_len * 2);
        const double rounding = std::sqrt(10.0 * double(c.model.layers)) * (epsilon(dtype) + std::sqrt(tokens) * epsilon(DType::f32));
        EXPECT_NEAR(chunked.result.loss, whole.result.loss, rounding * whole.result.loss);
        for (const auto& [name, theirs] : whole.gradients) {
          const std::vector<double>& ours = chunked.gradients.at(name);
          double most = 0, worst = 0;
          for (size_t i = 0; i < ours.size(); ++i) {
            most = std::max(most, std::abs(theirs[i]));
            worst = std::max(worst, std::abs(ours[i] - theirs[i]));
          }
          EXPECT_GT(most, 0) << name;
          EXPECT_LE(worst, rounding * most) << name;
        }
      }
}

TEST(SequenceChunks, OneChunkIsTheWholeStep) {
  const Config c = config("llama");
  for (const int64_t chunk : {c.train.seq_len, c.train.seq_len + 1}) {
    const Trained whole = trained(c, 3), one = trained(in_chunks(c, chunk), 3);
    expect_same(whole.state, one.state);
    EXPECT_EQ(whole.losses, one.losses);
  }
}

TEST(SequenceChunks, ThreadsLanesAndRecomputationChangeNoBit) {
  for (const char* precision : {"fp32", "bf16"}) {
    const Config c = in_chunks(config("qwen", {text("train.precision={}", precision)}), 10);
    const Trained one = trained(c, 3);
    for (const int threads : {1, 5}) {
      const Threads guard(threads);
      expect_same(one.state, trained(c, 3).state);
      expect_same(one.state, trained(c, 3, {"cpu", 5}).state);
    }
    for (const Recompute mode : {Recompute::selective, Recompute::sqrt}) {
      Config again = c;
      again.train.recompute = mode;
      expect_same(one.state, trained(again, 3).state);
    }
  }
}

// Places that are written piece by piece hold numbers from the start.
TEST(SequenceChunks, HaveNoNumberThatIsNotFinite) {
  for (const Recompute mode : {Recompute::none, Recompute::full}) {
    Config c = in_chunks(config("qwen"), 10);
    c.train.recompute = mode;
    const Ref<Device> device = open_cpu(Mode::real);
    TrainStep step(c, *device);
    EXPECT_NO_THROW(step.find_nonfinite(0, SyntheticBatches(c.model.vocab, 3)));
  }
}

TEST(SequenceChunks, EvaluationCountsEveryTokenOnce) {
  const Config c = config("llama");
  double loss[2];
  for (const int64_t chunk : {0, 10}) {
    const Ref<Device> device = open_cpu(Mode::real);
    TrainStep step(in_chunks(c, chunk), *device);
    loss[chunk > 0] = step.evaluate(SyntheticBatches(c.model.vocab, 5), 4);  // the second micro-batch is not full
  }
  EXPECT_NEAR(loss[0], loss[1], std::sqrt(4 * 37.0) * epsilon(DType::f32) * loss[0]);
}

RunPlan plan_of(const Config& c) { return plan_run(c, *open_cpu(Mode::meta), false); }

// Activations of a chunk instead of the sequence's; keys, values and their gradients of it all.
TEST(SequenceChunks, MemoryIsThatOfAChunkAndTheKeys) {
  const Config c = config("llama", {"train.micro_batch=1", "train.seq_len=4096", "optim.name=sgd"});
  const RunPlan whole = plan_of(c), chunked = plan_of(in_chunks(c, 256));
  const ModelConfig& m = c.model;
  const int64_t keys = 2 * m.layers * m.kv_heads * 4096 * (m.head_dim + 32) * 4;  // K, V and the padded sums of their gradients
  EXPECT_EQ(whole.predicted.flops_per_step->model, chunked.predicted.flops_per_step->model);
  const int64_t activations = whole.predicted.memory->at_peak[size_t(Category::activation)];
  const int64_t rest = whole.predicted.memory->peak - activations;
  EXPECT_LT(chunked.predicted.memory->peak, rest + keys + activations / 12);
}

TEST(SequenceChunks, AreProposedWhereNothingElseKeepsTheTraining) {
  const Config c = parse_config("", "test",
                                std::vector<std::string>{"model.preset=smollm2-135m", "model.layers=4", "model.vocab=512",
                                                         "train.micro_batch=1", "train.seq_len=8192"});
  Config full = c;
  full.train.recompute = Recompute::full;
  const int64_t budget = plan_of(full).arena.bytes - 1;
  const Ref<Device> meta = open_cpu(Mode::meta);
  const std::vector<Remedy> remedies = find_remedies(c, *meta, budget, false);
  ASSERT_FALSE(remedies.empty());
  EXPECT_EQ(remedies[0].reach, Reach::schedule);
  ASSERT_EQ(remedies[0].changes.size(), 1u);
  EXPECT_TRUE(remedies[0].changes[0].starts_with("train.sequence_chunk=")) << remedies[0].changes[0];
  Config chosen = c;
  chosen.train.sequence_chunk = std::stoll(remedies[0].changes[0].substr(remedies[0].changes[0].find('=') + 1));
  EXPECT_LE(plan_of(chosen).arena.bytes, budget);
  EXPECT_EQ(plan_of(chosen).arena.bytes, remedies[0].arena_bytes);
  EXPECT_GT(plan_of(in_chunks(c, 2 * chosen.train.sequence_chunk)).arena.bytes, budget) << "a larger one fits, too";
}

std::string refusal_of(const Overrides& overrides) {
  return usage_error([&] { parse_config("", "test", overrides); });
}
TEST(SequenceChunks, WhatDoesNotGoTogetherIsRefused) {
  expect_contains(refusal_of({"train.sequence_chunk=16", "train.recompute=auto"}),
                  "train.sequence_chunk = 16 and train.recompute = auto exclude each other");
  expect_contains(refusal_of({"train.sequence_chunk=16", "train.attention=plain"}),
                  "train.sequence_chunk = 16 and train.attention = plain exclude each other");
  expect_contains(refusal_of({"train.attention=plain", "model.preset=cruncher"}), "the cruncher has no attention");
  expect_contains(refusal_of({"train.sequence_chunk=16", "train.precision=fp8"}),
                  "train.sequence_chunk = 16 and train.precision = fp8 exclude each other");
  expect_contains(refusal_of({"train.sequence_chunk=16", "model.preset=cruncher"}), "the cruncher has no sequences to cut");
  expect_contains(refusal_of({"train.sequence_chunk=1", "train.seq_len=8192", "model.position=rope"}), "into more than 4096 chunks");
  expect_contains(refusal_of({"train.sequence_chunk=-1"}), "train.sequence_chunk expects");
  EXPECT_EQ(refusal_of({"train.sequence_chunk=2", "train.seq_len=8192", "model.position=rope"}), "");
}
}  // namespace
}  // namespace small
