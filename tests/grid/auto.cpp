// train.recompute=auto under random budgets, run for real: what was chosen fits, the run is its plan in every number, and what is refused
// does not fit by any composition.
#include <gtest/gtest.h>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/philox.h"
#include "reckon/base/text.h"
#include "tests/grid/exact.h"

namespace grid {
namespace {
Configuration with(Configuration c, const std::vector<std::string>& more) {
  std::erase_if(c.overrides, [](const std::string& o) {
    return o.starts_with("train.recompute") || o.starts_with("train.sequence_chunk") || o.starts_with("model.layers");
  });
  c.overrides.insert(c.overrides.end(), more.begin(), more.end());
  return c;
}

TEST(Auto, NoBudgetIsExceededAndEveryRunIsItsPlan) {
  const Workplace place;
  size_t row = 0, ran = 0, refused = 0, mixed = 0;
  for (const Configuration& drawn : configurations(24)) {
    ++row;
    if (drawn.overrides[0] == "model.preset=cruncher" || drawn.config(place.folder(), place.tokens()).model.cruncher) continue;
    const std::string layers = text("model.layers={}", 2 + row % 4);
    const Configuration none = with(drawn, {layers}), full = with(drawn, {layers, "train.recompute=full"}),
                        open = with(drawn, {layers, "train.recompute=auto"});
    const int64_t most = plan_of(none, none.config(place.folder(), place.tokens())).arena.bytes;
    const int64_t least = plan_of(full, full.config(place.folder(), place.tokens())).arena.bytes;
    const int64_t budget = least + int64_t(double(most - least) * (1.5 * double(philox(3, row, 0)[0]) / 0x1p32 - 0.3));
    Config config = open.config(place.folder(), place.tokens());
    config.memory.budget_bytes = budget;
    SCOPED_TRACE(text("{} memory.budget={} ({} to {})", open.line(), budget, least, most));
    const RunPlan plan = plan_of(open, config);
    if (!plan.recompute->fits()) {
      EXPECT_LT(budget, least);
      EXPECT_GT(plan.arena.bytes, budget);
      ++refused;
      continue;
    }
    EXPECT_LE(plan.arena.bytes, budget);
    EXPECT_FALSE(plan.recompute->in_seconds) << "no machine was measured in this folder";
    EXPECT_NE(to_string(*plan.recompute).find("FLOPs stand for time"), std::string::npos);
    mixed += plan.config.train.recompute_blocks.find(',') != std::string::npos;
    const Done done = run(open, config);
    EXPECT_LE(done.report.memory->extent, budget);
    for (const std::string& line : differences(plan, done)) ADD_FAILURE() << line;
    place.clear();
    ++ran;
  }
  EXPECT_GT(ran, 10u);
  EXPECT_GT(refused, 0u);
  EXPECT_GT(mixed, 4u);
}
}  // namespace
}  // namespace grid
