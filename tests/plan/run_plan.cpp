// The recorded run explains its own peak: holders sum to it, parts follow each other, and the steady step repeats the first.
#include "reckon/plan/run_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "reckon/backend/cpu/device.h"

namespace reckon {
namespace {
RunPlan plan_of(std::vector<std::string> overrides) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  return plan_run(load_config("", overrides), *meta);
}

TEST(RunPlan, HoldersSumToThePeakAndToItsCategories) {
  for (const char* preset : {"tiny", "cruncher", "gpt2-124m", "qwen3-0.6b"}) {
    const RunPlan plan = plan_of({std::string("model.preset=") + preset});
    std::array<int64_t, kCategories> by_category{};
    for (const Holder& h : plan.at_peak) by_category[size_t(h.category)] += h.bytes;
    EXPECT_EQ(by_category, plan.predicted.memory->at_peak) << preset;
    EXPECT_EQ(std::accumulate(by_category.begin(), by_category.end(), int64_t(0)), plan.predicted.memory->peak) << preset;
    EXPECT_TRUE(
        std::is_sorted(plan.at_peak.begin(), plan.at_peak.end(), [](const Holder& a, const Holder& b) { return a.bytes > b.bytes; }));
  }
}

TEST(RunPlan, PartsFollowEachOtherAndTheSteadyStepRepeatsTheFirst) {
  const RunPlan plan = plan_of({"data.path=some.txt"});
  std::vector<std::string> names;
  size_t end = 0;
  int64_t peak = 0;
  for (const RunPart& part : plan.parts) {
    EXPECT_EQ(part.begin, end);
    end = part.end;
    peak = std::max(peak, part.peak_bytes);
    names.push_back(part.name);
  }
  EXPECT_EQ(end, plan.events.size());
  EXPECT_EQ(peak, plan.predicted.memory->peak);
  EXPECT_EQ(names, (std::vector<std::string>{"init", "first step", "steady step", "eval", "save"}));
  const RunPart &first = plan.parts[1], &steady = plan.parts[2];
  ASSERT_EQ(first.end - first.begin, steady.end - steady.begin);
  for (size_t i = 0; i < first.end - first.begin; ++i) {
    const AllocationEvent &a = plan.events[first.begin + i], &b = plan.events[steady.begin + i];
    ASSERT_TRUE(a.is_alloc == b.is_alloc && a.bytes == b.bytes && a.op == b.op && a.category == b.category) << i;
  }
}

TEST(RunPlan, WorkSumsToTheStep) {
  const RunPlan plan = plan_of({"train.recompute=full"});
  Flops sum;
  int64_t needed = 0;
  for (const MeterRow& row : plan.work) {
    sum += row.flops;
    if (!row.recomputed) needed += row.flops.model;
  }
  EXPECT_EQ(sum.matmul, plan.predicted.flops_per_step->matmul);
  EXPECT_EQ(sum.vector, plan.predicted.flops_per_step->vector);
  EXPECT_EQ(needed, plan.predicted.flops_per_step->model);
  EXPECT_GT(sum.model, needed);  // recomputation is work, but not the model's
  Flops of_calls;
  for (const CallRecord& call : plan.calls) of_calls += call.flops;
  EXPECT_EQ(of_calls, sum);
}
}  // namespace
}  // namespace reckon
