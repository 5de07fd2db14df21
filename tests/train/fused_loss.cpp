// Steps whose head and loss are one operation, against steps with logits: the same loss, gradients and work, in the planned smaller memory.
#include <cmath>

#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/plan/run_plan.h"
#include "tests/train/small_runs.h"
#include "tests/support/gradient_watcher.h"

namespace small {
namespace {
struct Step {
  TrainStep::Result result;
  std::map<std::string, std::vector<double>> gradients;
  Flops flops;
};
Step run_step(const Config& c, Mode mode = Mode::real, const char* frozen = nullptr) {
  const Ref<Device> device = open_cpu(mode);
  TrainStep step(c, *device);
  if (frozen) step.parameters().find(frozen)->value.set_requires_grad(false);
  Meter meter;
  Step s;
  const test::WatchGradients watcher(step, [&](const Parameters& parameters) {
    for (const Parameter& p : parameters.all())
      if (mode == Mode::real && p.value.grad().defined()) s.gradients[p.name] = p.value.grad().to_vector();
  });
  {
    const MeterScope scope(meter);
    s.result = step.run(0, SyntheticBatches(c.model.vocab, 3));
  }
  s.flops = meter.total();
  return s;
}
Config variant(Config c, bool fused) {
  c.train.fused_loss = fused;
  return c;
}
double max_abs(const std::vector<double>& v) {
  double most = 0;
  for (const double x : v) most = std::max(most, std::abs(x));
  return most;
}

// The logits are the same bits; the head's gradient is summed over tiles of tokens instead of all at once, in float32.
void expect_equal_but_for_the_order(const Step& fused, const Step& plain, int64_t tokens) {
  EXPECT_EQ(fused.result.loss, plain.result.loss);
  EXPECT_EQ(fused.flops, plain.flops);
  ASSERT_EQ(fused.gradients.size(), plain.gradients.size());
  for (const auto& [name, theirs] : plain.gradients) {
    const std::vector<double>& ours = fused.gradients.at(name);
    const double most = max_abs(theirs), allowed = epsilon(DType::f32) * std::sqrt(double(tokens)) * most;
    ASSERT_GT(most, 0) << name;
    double worst = 0;
    for (size_t i = 0; i < ours.size(); ++i) worst = std::max(worst, std::abs(ours[i] - theirs[i]));
    EXPECT_LE(worst, allowed) << name;
  }
}

TEST(FusedLoss, GradientsAreThoseOfTheUnfusedStep) {
  for (const char* model : {"gpt2", "llama", "qwen"})  // tied, untied, tied
    for (const char* precision : {"fp32", "bf16"})
      for (const Overrides& more : {Overrides{"train.grad_accum=3"}, {"train.recompute=full", "train.micro_batch=16"}}) {  // one tile, two
        SCOPED_TRACE(text("{} {} {}", model, precision, more[0]));
        Config c = config(model, more);
        c.train.precision = precision == std::string("bf16") ? Precision::bf16 : Precision::fp32;
        const int64_t tokens = c.train.micro_batch * c.train.grad_accum * c.train.seq_len;
        expect_equal_but_for_the_order(run_step(variant(c, true)), run_step(variant(c, false)), tokens);
      }
}

TEST(FusedLoss, WholeRunsAgree) {
  for (const char* model : {"gpt2", "llama"}) {
    const Config c = config(model);
    const Trained fused = trained(variant(c, true), 8), plain = trained(variant(c, false), 8);
    EXPECT_EQ(fused.losses[0], plain.losses[0]);
    // Adam divides a gradient by its size: what rounding changed in it moves weights by up to as much of the learning rate.
    for (size_t i = 0; i < 8; ++i) EXPECT_NEAR(fused.losses[i], plain.losses[i], 1e-4 * plain.losses[i]);
  }
}

TEST(FusedLoss, AFrozenHeadIsNotDifferentiated) {
  const Config c = config("llama");
  const Step fused = run_step(variant(c, true), Mode::real, "head.weight"), plain = run_step(variant(c, false), Mode::real, "head.weight");
  EXPECT_FALSE(fused.gradients.contains("head.weight") && max_abs(fused.gradients.at("head.weight")) > 0);
  EXPECT_EQ(fused.flops, plain.flops);
  const int64_t product = 2 * c.train.micro_batch * c.train.seq_len * c.model.vocab * c.model.d_model;
  EXPECT_EQ(run_step(variant(c, true)).flops.model - fused.flops.model, product);
  EXPECT_EQ(fused.gradients.at("blocks.0.attn.proj.weight"), plain.gradients.at("blocks.0.attn.proj.weight"));
}

// Evaluation has no logits either, and the same loss.
TEST(FusedLoss, EvaluationAgreesInEveryBit) {
  for (const char* precision : {"fp32", "bf16"}) {
    const Config c = config("gpt2", {text("train.precision={}", precision), "train.micro_batch=16"});
    double loss[2];
    int64_t peak[2];
    for (const bool fused : {false, true}) {
      const Ref<Device> device = open_cpu(Mode::real);
      TrainStep step(variant(c, fused), *device);
      loss[fused] = step.evaluate(SyntheticBatches(c.model.vocab, 5), 33);
      peak[fused] = device->allocator().ledger().phase_peak[size_t(Phase::eval)];
    }
    EXPECT_EQ(loss[0], loss[1]);
    EXPECT_LE(peak[1], peak[0]);
  }
}

struct Memory {
  RunPlan plan;
  Ledger run;
};
Memory memory_of(const Config& c) {
  const Ref<Device> meta = open_cpu(Mode::meta), device = open_cpu(Mode::real);
  Memory m{plan_run(c, *meta, false), {}};
  TrainStep step(c, *device);
  const SyntheticBatches batches(c.model.vocab, 0);
  for (const int64_t i : {0, 1}) step.run(i, batches);
  m.run = device->allocator().ledger();
  return m;
}

// What is saved is the logits less the tile, predicted and measured, wherever the peak is at the loss.
TEST(FusedLoss, SavesTheLogitsAsPlanned) {
  for (const char* precision : {"fp32", "bf16"})
    for (const char* sizes : {"model.vocab=131", "model.vocab=4000"}) {
      SCOPED_TRACE(text("{} {}", precision, sizes));
      // Little else: a wide vocabulary over one narrow layer, so that the loss is where the peak is.
      const Config c = config("gpt2", {text("train.precision={}", precision), sizes, "model.layers=1", "train.micro_batch=32",
                                       "train.seq_len=64", "optim.name=sgd"});
      const Memory fused = memory_of(variant(c, true)), plain = memory_of(variant(c, false));
      for (const Memory* m : {&fused, &plain}) {
        EXPECT_EQ(m->plan.predicted.memory->peak, m->run.peak);
        EXPECT_EQ(m->plan.predicted.memory->at_peak, m->run.at_peak);
        EXPECT_EQ(m->plan.predicted.memory->phase_peak, m->run.phase_peak);
      }
      const int64_t element = precision == std::string("bf16") ? 2 : 4, tokens = 32 * 64, logits = tokens * c.model.vocab * element,
                    tile = logits / 4;
      const auto backward_peak = [](const Memory& m) { return m.run.phase_peak[size_t(Phase::backward)]; };
      const int64_t saved = backward_peak(plain) - backward_peak(fused);
      if (c.model.vocab == 4000) {
        // 2048 tokens are four tiles of 512; kernels' own scratch is at most a few hundred KiB apart.
        EXPECT_GE(saved, logits - tile - (1 << 20));
        EXPECT_LE(saved, logits);
        EXPECT_GE(plain.run.at_peak[size_t(Category::activation)] - fused.run.at_peak[size_t(Category::activation)], logits);
      } else {
        EXPECT_GE(saved, 0);
      }
    }
}

// Where the head has the peak, less memory by plan; and exactly the model's work.
TEST(FusedLoss, PlansOfLargerModelsShrink) {
  for (const std::vector<std::string>& keys : {std::vector<std::string>{"model.preset=tiny", "model.vocab=8192", "train.micro_batch=64"},
                                               {"model.preset=tiny", "model.layers=6", "model.d_model=384", "model.heads=6",
                                                "model.vocab=8192", "model.max_seq_len=256", "train.micro_batch=8", "train.seq_len=256"},
                                               {"model.preset=gpt2-124m", "train.micro_batch=4", "train.seq_len=256"}})
    for (const char* precision : {"fp32", "bf16"}) {
      std::vector<std::string> all = keys;
      all.push_back(text("train.precision={}", precision));
      const Config c = parse_config("", "test", all);
      const Ref<Device> a = open_cpu(Mode::meta), b = open_cpu(Mode::meta);
      const RunPlan fused = plan_run(variant(c, true), *a, false), plain = plan_run(variant(c, false), *b, false);
      EXPECT_LT(fused.arena.bytes, plain.arena.bytes) << c.model.preset << " " << precision;
      EXPECT_EQ(*fused.predicted.flops_per_step, *plain.predicted.flops_per_step);
    }
}
}  // namespace
}  // namespace small
