// Every remedy that is named was planned and fits; the largest that fits is the largest; what does not fit is explained.
#include "reckon/plan/remedies.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "reckon/backend/cpu/device.h"
#include "reckon/plan/why.h"

namespace reckon {
namespace {
using testing::HasSubstr;

std::vector<std::string> with(std::vector<std::string> base, const std::vector<std::string>& more) {
  base.insert(base.end(), more.begin(), more.end());
  return base;
}
RunPlan plan_of(const std::vector<std::string>& overrides) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  return plan_run(load_config("", overrides), *meta);
}

TEST(Remedies, EachFitsAsPlannedAndKeepsTheTokensOfAStep) {
  const std::vector<std::string> base = {"model.preset=tiny", "train.micro_batch=24", "train.seq_len=128"};
  const Ref<Device> meta = open_cpu(Mode::meta);
  const RunPlan today = plan_of(base);
  int found = 0;
  for (const double share : {0.95, 0.7, 0.5, 0.3, 0.2}) {
    const int64_t budget = int64_t(double(today.arena.bytes) * share);
    for (const Remedy& r : find_remedies(today.config, *meta, budget)) {
      const RunPlan plan = plan_of(with(base, r.changes));
      EXPECT_EQ(plan.arena.bytes, r.arena_bytes) << share;
      EXPECT_LE(plan.arena.bytes, budget);
      EXPECT_EQ(plan.predicted.flops_per_step->matmul, r.hardware_flops);
      if (r.reach != Reach::sequence) {
        EXPECT_EQ(plan.config.train.micro_batch * plan.config.train.grad_accum, 24);
      }
      if (r.reach == Reach::schedule) {
        EXPECT_EQ(plan.config.optim.name, today.config.optim.name);
      }
      ++found;
    }
  }
  EXPECT_GT(found, 8);
}

// What the search leaves out without a dry run must never be what fits.
TEST(Remedies, FindWhatBarelyFits) {
  const std::vector<std::string> base = {"model.preset=tiny", "train.micro_batch=4", "train.seq_len=1", "model.vocab=50000"};
  const Ref<Device> meta = open_cpu(Mode::meta);
  for (const char* name : {"sgd", "momentum", "adagrad", "adamw", "adamw8bit", "rmsprop", "lamb"})
    for (const char* precision : {"fp32", "bf16", "fp16", "fp8"}) {
      const std::vector<std::string> kind = with(base, {text("optim.name={}", name), text("train.precision={}", precision)});
      const int64_t least =
          plan_of(with(kind, {"train.micro_batch=1", "train.grad_accum=4", "train.recompute=full", "train.fused_loss=true"})).arena.bytes;
      EXPECT_FALSE(find_remedies(load_config("", kind), *meta, least).empty()) << name << " " << precision;
    }
}

TEST(Remedies, TheCheapestComesFirst) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  const RunPlan today = plan_of({"train.micro_batch=32"});
  const std::vector<Remedy> remedies = find_remedies(today.config, *meta, today.arena.bytes - 1);
  ASSERT_FALSE(remedies.empty());
  EXPECT_EQ(remedies[0].changes, (std::vector<std::string>{"train.micro_batch=16", "train.grad_accum=2"}));
  for (size_t i = 1; i < remedies.size(); ++i) EXPECT_GE(remedies[i].reach, remedies[i - 1].reach);
}

// Where the optimizer's state is what does not fit, states of 8 bits are named, and planned; not to who has none to shrink.
TEST(Remedies, ShrinkTheStatesOfAdamW) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  const std::vector<std::string> base = {"model.preset=gpt2-124m", "train.micro_batch=1", "train.seq_len=64", "train.recompute=full"};
  const auto names_states = [&](const std::vector<std::string>& overrides, double share) {
    const RunPlan today = plan_of(overrides);
    const std::vector<Remedy> remedies = find_remedies(today.config, *meta, int64_t(double(today.arena.bytes) * share));
    return std::any_of(remedies.begin(), remedies.end(),
                       [](const Remedy& r) { return r.changes == std::vector<std::string>{"optim.name=adamw8bit"} && r.reach == Reach::precision; });
  };
  EXPECT_TRUE(names_states(base, 0.75));
  EXPECT_TRUE(names_states(with(base, {"train.precision=bf16"}), 0.75));
  EXPECT_FALSE(names_states(with(base, {"optim.name=momentum"}), 0.75));
}

// Other optimizers are named only where they keep less.
TEST(Remedies, OtherOptimizersKeepLess) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  const std::vector<std::string> base = {"model.preset=gpt2-124m", "train.micro_batch=1", "train.seq_len=64", "train.recompute=full", "train.precision=bf16"};
  const auto named = [&](const std::string& optimizer, double share) {
    const RunPlan today = plan_of(with(base, {optimizer}));
    std::vector<std::string> names;
    for (const Remedy& r : find_remedies(today.config, *meta, int64_t(double(today.arena.bytes) * share)))
      for (const std::string& change : r.changes)
        if (change.starts_with("optim.name=")) names.push_back(change);
    return names;
  };
  EXPECT_THAT(named("optim.name=adam", 0.8), testing::Contains("optim.name=adagrad"));
  EXPECT_THAT(named("optim.name=lamb", 0.8), testing::Contains("optim.name=adagrad"));
  for (const char* name : {"optim.name=momentum", "optim.name=nesterov", "optim.name=adagrad", "optim.name=rmsprop"})
    EXPECT_EQ(named(name, 0.8), std::vector<std::string>{"optim.name=sgd"}) << name;
}

TEST(Remedies, ARefusalNamesTheBlockTheHoldersAndTheWayOut) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  const RunPlan plan = plan_of({"train.micro_batch=32"});
  const std::string why = explain_refusal(plan, plan.arena.bytes / 2);
  EXPECT_THAT(why, HasSubstr("the first block beyond"));
  EXPECT_THAT(why, HasSubstr("forward pass"));
  EXPECT_THAT(why, HasSubstr("at the peak of"));
  EXPECT_THAT(why, HasSubstr("largest:"));
  try {
    check_fits(plan, *meta, plan.arena.bytes - 1);
    FAIL() << "it does not fit";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 3);
    EXPECT_THAT(error.what(), HasSubstr("the cheapest change that fits: train.micro_batch=16 train.grad_accum=2"));
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    EXPECT_THAT(error.details(), HasSubstr("the first block beyond"));
    EXPECT_THAT(error.details(), HasSubstr("also fits: "));
  }
  check_fits(plan, *meta, plan.arena.bytes);
  try {
    check_fits(plan, *meta, 1000);
    FAIL() << "nothing fits into 1000 bytes";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("the parameters alone are more"));
  }
}

TEST(Fit, FindsTheLargestMicroBatchAndSequence) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  for (const char* preset : {"tiny", "smollm2-135m"}) {
    const std::vector<std::string> base = {std::string("model.preset=") + preset, "model.layers=2", "model.vocab=512"};
    const int64_t budget = plan_of(with(base, {"train.micro_batch=11", "train.seq_len=64"})).arena.bytes + 1000;
    Config config = load_config("", with(base, {"train.seq_len=64"}));
    const Fit batch = find_fit(config, *meta, budget, FitGoal::micro_batch);
    EXPECT_LE(batch.plan.arena.bytes, budget);
    EXPECT_GE(batch.plan.config.train.micro_batch, 11);
    const std::string next = "train.micro_batch=" + std::to_string(batch.plan.config.train.micro_batch + 1);
    EXPECT_GT(plan_of(with(base, {"train.seq_len=64", next})).arena.bytes, budget);
    config = load_config("", with(base, {"train.micro_batch=11", "train.seq_len=8"}));
    const Fit length = find_fit(config, *meta, budget, FitGoal::seq_len);
    EXPECT_GE(length.plan.config.train.seq_len, 64);
    EXPECT_LE(length.plan.arena.bytes, budget);
    if (config.model.position == PositionKind::rope || length.plan.config.train.seq_len < config.model.max_seq_len) {
      const std::string longer = "train.seq_len=" + std::to_string(length.plan.config.train.seq_len + 1);
      EXPECT_GT(plan_of(with(base, {"train.micro_batch=11", longer})).arena.bytes, budget);
    }
  }
}

TEST(Why, TermsSumToTheirNumber) {
  const RunPlan plan = plan_of({"train.recompute=full"});
  int64_t all = 0;
  for (int c = 0; c < kCategories; ++c) {
    const Explanation e = explain(plan, name_of(Category(c)));
    int64_t sum = 0;
    for (const ByteTerm& t : e.bytes) sum += t.bytes();
    EXPECT_EQ(sum, e.total_bytes);
    EXPECT_EQ(sum, plan.predicted.memory->at_peak[size_t(c)]) << name_of(Category(c));
    all += sum;
  }
  EXPECT_EQ(all, plan.predicted.memory->peak);
  const Explanation gelu = explain(plan, "gelu");
  ASSERT_FALSE(gelu.flops.empty());
  Flops sum;
  for (const FlopTerm& t : gelu.flops) sum.vector += t.calls * t.each.vector;
  int64_t metered = 0;
  for (const MeterRow& row : plan.work)
    if (std::string_view(row.op) == "gelu") metered += row.flops.vector;
  EXPECT_EQ(sum.vector, metered);
  EXPECT_GT(explain(plan, "blocks").total_flops.matmul, explain(plan, "blocks.0").total_flops.matmul);
  EXPECT_THROW(explain(plan, "geluu"), Error);
}

TEST(Why, KnowsTheShapesOfActivations) {
  const Explanation e = explain(plan_of({}), "activation");
  int64_t with_shape = 0;
  for (const ByteTerm& t : e.bytes) with_shape += t.shape.empty() ? 0 : t.bytes();
  EXPECT_GT(double(with_shape), 0.9 * double(e.total_bytes));
}
}  // namespace
}  // namespace reckon
