// The grid: configurations of every kind run for real and are compared with their plans. Not one number may differ by one.
#include <gtest/gtest.h>

#include <algorithm>

#include "reckon/base/text.h"
#include "tests/grid/exact.h"

namespace grid {
namespace {
constexpr size_t kSample = 65;

// Runs configurations [begin, end) and says for each that is not as planned what differs.
void expect_exact(size_t begin, size_t end) {
  const Workplace place;
  const std::vector<Configuration> all = configurations(end);
  double worst = 1;
  for (size_t i = begin; i < end; ++i) {
    const Configuration& c = all[i];
    SCOPED_TRACE(text("configuration {}: {}", i, c.line()));
    try {
      const Config config = c.config(place.folder(), place.tokens());
      const RunPlan plan = plan_of(c, config);
      for (const std::string& line : differences(plan, run(c, config))) ADD_FAILURE() << line;
      EXPECT_GE(plan.arena.bytes, plan.arena.lower_bound);
      EXPECT_EQ(plan.arena.lower_bound, plan.predicted.memory->peak);
      worst = std::max(worst, double(plan.arena.bytes) / double(plan.arena.lower_bound));
    } catch (const std::exception& error) {
      ADD_FAILURE() << "it threw: " << error.what();
    }
    place.clear();
  }
  std::printf("%zu configurations; the largest arena is %.4f times its peak\n", end - begin, worst);
}

TEST(Grid, EveryPairOfValuesOccurs) {
  EXPECT_EQ(missing_pairs(kWhole), std::vector<std::string>());
  EXPECT_FALSE(missing_pairs(kSample).empty()) << "so few rows cannot hold them all: the search finds nothing";
}

TEST(Grid, ASampleRunsExactlyAsPlanned) { expect_exact(0, kSample); }

// A comparison that finds nothing would pass everything.
TEST(Grid, EveryDifferenceIsSeen) {
  const Workplace place;
  const Configuration c = configurations(1)[0];
  const Config config = c.config(place.folder(), place.tokens());
  const RunPlan plan = plan_of(c, config);
  const Done done = run(c, config);
  ASSERT_EQ(differences(plan, done), std::vector<std::string>());
  const auto expect_seen = [&](const char* what, auto change) {
    RunPlan other = plan;
    change(other);
    const std::vector<std::string> lines = differences(other, done);
    EXPECT_TRUE(std::any_of(lines.begin(), lines.end(), [&](const std::string& l) { return l.starts_with(what); })) << what;
  };
  expect_seen("memory.peak_bytes: planned ", [](RunPlan& p) { p.predicted.memory->peak += 64; });
  expect_seen("memory.arena_bytes", [](RunPlan& p) { p.predicted.memory->extent -= 64; });
  expect_seen("memory.at_peak.gradient", [](RunPlan& p) { p.predicted.memory->at_peak[size_t(Category::gradient)] += 64; });
  expect_seen("memory.phases.backward", [](RunPlan& p) { p.predicted.memory->phase_peak[size_t(Phase::backward)] += 64; });
  expect_seen("memory.trace_hash", [](RunPlan& p) { p.predicted.trace_hash[0] ^= 1; });
  expect_seen("flops.matmul_per_step", [](RunPlan& p) { ++p.predicted.flops_per_step->matmul; });
  expect_seen("flops.vector_per_step", [](RunPlan& p) { ++p.predicted.flops_per_step->vector; });
  expect_seen("flops.model_per_step", [](RunPlan& p) { --p.predicted.flops_per_step->model; });
  expect_seen("arena", [](RunPlan& p) { p.arena.bytes += 64; });
  expect_seen("step event 3: planned ", [](RunPlan& p) { p.arena.segments[1].events[3].phase = Phase::save; });
  expect_seen("step: ", [](RunPlan& p) { p.arena.segments[1].events.pop_back(); });
}

TEST(WholeGrid, RunsExactlyAsPlanned) { expect_exact(0, kWhole); }

// An arena is hardly larger than the most bytes that are live at once, whatever the model.
TEST(Arena, OfEveryPresetIsWithinAPercentOfItsPeak) {
  double worst = 1;
  for (const std::string& name : model_preset_names())
    for (const char* precision : {"fp32", "bf16"})
      for (const char* recompute : {"none", "selective", "full", "sqrt"})
        for (const char* more : {"train.grad_accum=2", "train.seq_len=37", "optim.name=sgd"}) {
          const Configuration c{{"model.preset=" + name, text("train.precision={}", precision), text("train.recompute={}", recompute), more,
                                 "data.validation_fraction=0.1"},
                                {"cpu", 2}};
          const RunPlan plan = plan_of(c, c.config("/nowhere", name == "cruncher" ? "" : "any.npy"));
          const double ratio = double(plan.arena.bytes) / double(plan.arena.lower_bound);
          // tiny's head is about as large as a block: in bf16 these steps have several peaks of nearly the same bytes, and packing is hard.
          const bool hard = name == "tiny" && precision == std::string("bf16") && recompute != std::string("full");
          EXPECT_LE(ratio, hard ? 1.025 : 1.01) << c.line();
          worst = std::max(worst, ratio);
        }
  std::printf("the largest arena is %.5f times its peak\n", worst);
}
}  // namespace
}  // namespace grid
