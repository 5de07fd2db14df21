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

// One budget: the plan says whether it fits; the run must agree.
void expect_border(const Configuration& c, const Workplace& place, int64_t arena, int64_t budget) {
  SCOPED_TRACE(text("{} memory.budget={} (the arena takes {})", c.line(), budget, arena));
  Config config = c.config(place.folder(), place.tokens());
  config.memory.budget_bytes = budget;
  const Ref<Device> meta = open_cpu(Mode::meta, c.profile), device = open_cpu(Mode::real, c.profile);
  bool ran = false;
  try {
    const TrainOutcome outcome = plan_and_train(config, *device, *meta, {.keep_files = c.keeps_files, .quiet = true});
    EXPECT_LE(outcome.measured.memory->extent, budget);
    ran = true;
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Failure::memory) << error.what();
    EXPECT_EQ(device->allocator().ledger().allocations, 0) << "refused before anything is allocated";
    EXPECT_EQ(device->allocator().ledger().extent, 0) << "and before the system is asked for memory";
    EXPECT_FALSE(std::filesystem::exists(config.run_dir)) << "and before a file is written";
  }
  EXPECT_EQ(ran, budget >= arena) << (ran ? "it ran in less than its plan" : "it was refused although it fits");
  place.clear();
}

TEST(Budgets, ARunFitsIfAndOnlyIfItsArenaDoes) {
  const Workplace place;
  size_t row = 0, pairs = 0, fit = 0;
  for (const Configuration& c : configurations(56)) {
    const int64_t arena = plan_of(c, c.config(place.folder(), place.tokens())).arena.bytes;
    for (uint64_t draw = 0; draw < 4; ++draw, ++pairs) {
      const int64_t budget = budget_near(arena, row, draw);
      fit += budget >= arena;
      expect_border(c, place, arena, budget);
    }
    ++row;
  }
  EXPECT_GE(pairs, 200u);
  EXPECT_GT(fit, pairs / 4);
  EXPECT_GT(pairs - fit, pairs / 4);
}

// Whoever hands train() a plan that is over the budget is refused there.
TEST(Budgets, ThePlanIsCheckedAgainWhereItIsAdopted) {
  const Workplace place;
  const Configuration c = configurations(1)[0];
  Config config = c.config(place.folder(), place.tokens());
  const RunPlan plan = plan_of(c, config);
  config.memory.budget_bytes = plan.arena.bytes - 1;
  const Ref<Device> device = open_cpu(Mode::real, c.profile);
  try {
    RunSetup setup(config, {.keep_files = false, .quiet = true});
    train(setup, *device, plan.predicted, plan.arena);
    ADD_FAILURE() << "it ran";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Failure::memory) << error.what();
  }
  EXPECT_EQ(device->allocator().ledger().allocations, 0);
}
}  // namespace
}  // namespace grid
