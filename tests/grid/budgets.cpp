// Budgets: "fits" means that the run succeeds in so many bytes, and "does not fit" that it cannot start; the plan is the border, to the
// byte.
#include <gtest/gtest.h>

#include <filesystem>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/philox.h"
#include "reckon/base/text.h"
#include "tests/grid/exact.h"

namespace grid {
namespace {
// Budgets around a plan: at the border, just beside it, a block off, and anywhere from half to twice.
int64_t budget_near(int64_t arena, uint64_t row, uint64_t draw) {
  const auto words = philox(77, row, draw);
  switch (draw) {
    case 0:
      return arena;
    case 1:
      return arena - 1;
    case 2:
      return arena + (words[0] % 2 ? 1 : -1) * int64_t(1 + words[1] % 200);
    default:
      return arena / 2 + int64_t(uint64_t(words[0]) * uint64_t(arena) * 3 / 2 >> 32);
  }
}

// Through the front door, which explains a refusal at some length, or where the plan is adopted.
TrainOutcome run_within(const Configuration& c, const Config& config, Device& device, const RunPlan& plan, bool front_door) {
  const TrainOptions options{.keep_files = c.keeps_files, .quiet = true};
  if (front_door) return plan_and_train(config, device, *open_cpu(Mode::meta, c.profile), options);
  RunSetup setup(config, options);
  return train(setup, device, plan.predicted, plan.arena);
}

// One budget: the plan says whether it fits; the run must agree.
void expect_border(const Configuration& c, const Workplace& place, const RunPlan& plan, int64_t budget, bool front_door) {
  const int64_t arena = plan.arena.bytes;
  SCOPED_TRACE(text("{} memory.budget={} (the arena takes {})", c.line(), budget, arena));
  Config config = c.config(place.folder(), place.tokens());
  config.memory.budget_bytes = budget;
  const Ref<Device> device = open_cpu(Mode::real, c.profile);
  bool ran = false;
  testing::internal::CaptureStderr();
  try {
    EXPECT_LE(run_within(c, config, *device, plan, front_door).measured.memory->extent, budget);
    ran = true;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Failure::memory) << error.what();
    EXPECT_EQ(device->allocator().ledger().allocations, 0) << "refused before anything is allocated";
    EXPECT_EQ(device->allocator().ledger().extent, 0) << "and before the system is asked for memory";
    EXPECT_FALSE(std::filesystem::exists(config.run_dir)) << "and no file is left";
  }
  testing::internal::GetCapturedStderr();
  EXPECT_EQ(ran, budget >= arena) << (ran ? "it ran in less than its plan" : "it was refused although it fits");
  place.clear();
}

TEST(Budgets, ARunFitsIfAndOnlyIfItsArenaDoes) {
  const Workplace place;
  size_t row = 0, pairs = 0, fit = 0;
  for (const Configuration& c : configurations(56)) {
    const RunPlan plan = plan_of(c, c.config(place.folder(), place.tokens()));
    for (uint64_t draw = 0; draw < 4; ++draw, ++pairs) {
      const int64_t budget = budget_near(plan.arena.bytes, row, draw);
      fit += budget >= plan.arena.bytes;
      expect_border(c, place, plan, budget, budget >= plan.arena.bytes || row % 8 == draw);
    }
    ++row;
  }
  EXPECT_GE(pairs, 200u);
  EXPECT_GT(fit, pairs / 4);
  EXPECT_GT(pairs - fit, pairs / 4);
}
}  // namespace
}  // namespace grid
