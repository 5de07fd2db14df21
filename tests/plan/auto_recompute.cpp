// The choice of what to recompute: the model of blocks is the dry run's to the byte, the choice is that of exhaustive search, and no budget
// is exceeded.
#include "reckon/plan/auto_recompute.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/philox.h"
#include "reckon/engine/context.h"
#include "reckon/plan/remedies.h"
#include "reckon/train/recompute.h"

namespace reckon {
namespace {
using testing::HasSubstr;
using Overrides = std::vector<std::string>;

Overrides architecture(const std::string& name, int layers) {
  Overrides o = {
      text("model.layers={}", layers), "model.d_model=32", "model.heads=4", "model.head_dim=8", "model.vocab=64", "model.d_ff=96",
      "train.micro_batch=4",           "train.seq_len=48"};
  if (name == "gpt2") return o;
  const Overrides llama = {"model.norm=rms_norm",  "model.position=rope",   "model.mlp=swiglu",     "model.kv_heads=2",
                           "model.qkv_bias=false", "model.proj_bias=false", "model.mlp_bias=false", "model.tied_head=false"};
  o.insert(o.end(), llama.begin(), llama.end());
  if (name == "qwen") o.insert(o.end(), {"model.qk_norm=true", "train.precision=bf16", "train.grad_accum=3"});
  return o;
}
Config config_of(const Overrides& base, const Overrides& more = {}) {
  Overrides all = base;
  all.insert(all.end(), more.begin(), more.end());
  return load_config("", all);
}
RunPlan plan_of(const Config& config) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  return plan_run(config, *meta);
}
BlockModel model_of(const Config& config) { return block_model(config, *open_cpu(Mode::meta), true, false); }

// Every assignment of modes to blocks, as a number in base three.
std::vector<size_t> assignment(int64_t layers, size_t number) {
  std::vector<size_t> blocks;
  for (int64_t i = 0; i < layers; ++i, number /= 3) blocks.push_back(number % 3);
  return blocks;
}
std::string list_of(const BlockModel& model, std::span<const size_t> blocks) {
  RecomputePolicy policy;
  for (const size_t b : blocks) policy.push_back({model.modes[b].mode, 1});
  return to_string(policy);
}

struct Planned {
  int64_t peak, arena;
  double cost;  // recomputed FLOPs
};
Planned planned(const Config& base, const std::string& list) {
  Config config = base;
  config.train.recompute = Recompute::none;
  config.train.recompute_blocks = list;
  const RunPlan plan = plan_of(config);
  double cost = 0;
  for (const MeterRow& row : plan.work)
    if (row.recomputed) cost += double(row.flops.matmul) + double(row.flops.vector);
  return {plan.predicted.memory->peak, plan.arena.bytes, cost};
}

class AutoRecomputeModels : public ::testing::TestWithParam<const char*> {};

// All 81 policies of four blocks, dry-run one by one: bytes and FLOPs of the model are theirs.
TEST_P(AutoRecomputeModels, TheBlocksAddUpToTheDryRun) {
  const Config config = config_of(architecture(GetParam(), 4));
  const BlockModel model = model_of(config);
  const bool in_flops = !plan_of(config).predicted.step_seconds;
  for (size_t number = 0; number < 81; ++number) {
    const std::vector<size_t> blocks = assignment(4, number);
    SCOPED_TRACE(list_of(model, blocks));
    const Planned is = planned(config, list_of(model, blocks));
    EXPECT_EQ(peak_bytes(model, blocks), is.peak);
    if (in_flops) {
      EXPECT_DOUBLE_EQ(cost_of(model, blocks), is.cost);
    }
  }
}

// Against all policies of four blocks as they are planned, arena and all, at every budget where the answer may change.
TEST_P(AutoRecomputeModels, TheChoiceIsThatOfExhaustiveSearch) {
  const Config config = config_of(architecture(GetParam(), 4), {"train.recompute=auto"});
  const BlockModel model = model_of(config);
  std::vector<Planned> all;
  for (size_t number = 0; number < 81; ++number) all.push_back(planned(config, list_of(model, assignment(4, number))));
  std::vector<int64_t> budgets;
  for (const Planned& p : all) budgets.insert(budgets.end(), {p.arena - 1, p.arena});
  std::sort(budgets.begin(), budgets.end());
  budgets.erase(std::unique(budgets.begin(), budgets.end()), budgets.end());
  const int64_t least =
      std::min_element(all.begin(), all.end(), [](const Planned& a, const Planned& b) { return a.arena < b.arena; })->arena;
  for (const int64_t budget : budgets) {
    SCOPED_TRACE(budget);
    Config with = config;
    with.memory.budget_bytes = budget;
    const RunPlan plan = plan_of(with);
    ASSERT_TRUE(plan.recompute);
    EXPECT_EQ(plan.recompute->fits(), budget >= least);
    if (budget < least) {
      EXPECT_EQ(plan.arena.bytes, least) << "the smallest is shown";
      continue;
    }
    size_t best = all.size();
    for (size_t i = 0; i < all.size(); ++i) {
      const double cost = cost_of(model, assignment(4, i));
      if (all[i].arena <= budget && (best == all.size() || cost < cost_of(model, assignment(4, best)))) best = i;
    }
    EXPECT_LE(plan.arena.bytes, budget);
    EXPECT_DOUBLE_EQ(plan.recompute->cost, cost_of(model, assignment(4, best)));
    EXPECT_GE(plan.recompute->cost, plan.recompute->bound);
  }
}
INSTANTIATE_TEST_SUITE_P(All, AutoRecomputeModels, ::testing::Values("gpt2", "llama", "qwen"));

// The least cost of any assignment whose live bytes fit; -1 if none does. All 3^layers of them.
double exhaustive(const BlockModel& model, int64_t budget, std::vector<size_t>& blocks) {
  double best = -1;
  if (int64_t(blocks.size()) == model.layers) {
    const double cost = cost_of(model, blocks);
    return peak_bytes(model, blocks) <= budget ? cost : -1;
  }
  for (size_t mode = 0; mode < 3; ++mode) {
    blocks.push_back(mode);
    const double cost = exhaustive(model, budget, blocks);
    if (cost >= 0 && (best < 0 || cost < best)) best = cost;
    blocks.pop_back();
  }
  return best;
}

BlockModel random_model(uint64_t key, int64_t layers) {
  const auto draw = [&](uint64_t i, int64_t most) { return int64_t(philox(key, layers, i)[0] % uint64_t(most)); };
  BlockModel model;
  model.layers = layers;
  model.other_bytes = 100 + draw(0, 200);
  model.head_bytes = 100 + draw(1, 300);
  for (uint64_t m = 0; m < 3; ++m)
    model.modes.push_back({BlockRecompute(m), draw(10 + m, 60), 100 + draw(20 + m, 250), m == 0 ? 0.0 : double(1 + draw(30 + m, 50))});
  return model;
}

// Any model, also such where recomputing needs more than keeping: in the best order no composition needs more than in another.
TEST(AutoRecompute, EqualsExhaustiveSearchOverTheCompositions) {
  int decided = 0;
  for (int64_t layers : {1, 2, 3, 5, 7, 8}) {
    for (uint64_t key = 0; key < 12; ++key) {
      const BlockModel model = random_model(key, layers);
      const std::vector<Composition> by_size = compositions_by_size(model);
      ASSERT_EQ(int64_t(by_size.size()), (layers + 1) * (layers + 2) / 2);
      for (int step = 0; step <= 8; ++step) {
        const int64_t low = by_size.front().peak_bytes - 1, high = by_size.back().peak_bytes;
        const int64_t budget = low + (high - low) * step / 8;
        std::vector<size_t> blocks;
        const double best = exhaustive(model, budget, blocks);
        const std::vector<Composition> within = compositions_within(model, budget);
        EXPECT_EQ(within.empty(), best < 0);
        if (within.empty()) continue;
        EXPECT_DOUBLE_EQ(within[0].cost, best);
        EXPECT_LE(within[0].peak_bytes, budget);
        EXPECT_EQ(peak_bytes(model, blocks_of(model, within[0])), within[0].peak_bytes);
        ++decided;
      }
    }
  }
  EXPECT_GT(decided, 300);
}

TEST(AutoRecompute, EqualsExhaustiveSearchForTwelveBlocks) {
  const Config config = config_of(architecture("gpt2", 12));
  const BlockModel model = model_of(config);
  const std::vector<Composition> by_size = compositions_by_size(model);
  for (const double share : {0.1, 0.45, 0.8}) {
    const int64_t low = by_size.front().peak_bytes, high = by_size.back().peak_bytes;
    const int64_t budget = low + int64_t(double(high - low) * share);
    std::vector<size_t> blocks;
    EXPECT_DOUBLE_EQ(compositions_within(model, budget)[0].cost, exhaustive(model, budget, blocks));
  }
}

TEST(AutoRecompute, CostIsMonotoneInTheBudgetAndNothingExceedsIt) {
  for (const char* name : {"gpt2", "qwen"}) {
    Config config = config_of(architecture(name, 6), {"train.recompute=auto"});
    const int64_t least = planned(config, "full:6").arena, most = planned(config, "none:6").arena;
    double before = -1;
    for (int step = 12; step >= 0; --step) {
      config.memory.budget_bytes = least + (most - least) * step / 12 + int64_t(philox(1, 2, uint64_t(step))[0] % 64);
      const RunPlan plan = plan_of(config);
      EXPECT_LE(plan.arena.bytes, config.memory.budget_bytes);
      EXPECT_GE(plan.recompute->cost, before);
      EXPECT_GE(plan.recompute->gap(), 0);
      before = plan.recompute->cost;
      EXPECT_EQ(plan.config.train.recompute_blocks == "none:6", step == 12);
    }
  }
}

// What the plan records is a policy of its own: planned again by that name it is the same.
TEST(AutoRecompute, TheChoiceIsRecordedAndRepeats) {
  Config config = config_of(architecture("llama", 5), {"train.recompute=auto"});
  config.memory.budget_bytes = (planned(config, "full:5").arena + planned(config, "none:5").arena) / 2;
  const RunPlan plan = plan_of(config);
  EXPECT_EQ(plan.config.train.recompute, Recompute::automatic);
  EXPECT_THAT(plan.config.train.recompute_blocks, HasSubstr("selective:"));
  const RunPlan again = plan_of(parse_config(to_toml(plan.config), "saved", {}));
  EXPECT_EQ(again.predicted.trace_hash, plan.predicted.trace_hash);
  EXPECT_FALSE(again.recompute) << "nothing was left to choose";
  EXPECT_THAT(to_string(*plan.recompute),
              AllOf(HasSubstr(plan.config.train.recompute_blocks), HasSubstr("% above the least of any policy")));
}

TEST(AutoRecompute, ABudgetBelowTheSmallestPlanSaysWhatTheSmallestIs) {
  Config config = config_of(architecture("gpt2", 4), {"train.recompute=auto"});
  config.memory.budget_bytes = 1;
  const int64_t least = plan_of(config).arena.bytes;
  EXPECT_LE(least, planned(config, "full:4").arena);
  config.memory.budget_bytes = least - 1;
  const RunPlan plan = plan_of(config);
  try {
    check_fits(plan, *open_cpu(Mode::meta), config.memory.budget_bytes);
    FAIL() << "it does not fit";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 3);
    EXPECT_THAT(error.what(), HasSubstr(text("the smallest plan of train.recompute=auto ({}) needs", plan.config.train.recompute_blocks)));
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
  }
  config.memory.budget_bytes = least;
  EXPECT_EQ(plan_of(config).arena.bytes, least);
  check_fits(plan_of(config), *open_cpu(Mode::meta), least);
}

TEST(AutoRecompute, SelectiveLetsGoOfWhatItRecomputes) {
  for (const char* name : {"gpt2", "llama", "qwen"}) {
    SCOPED_TRACE(name);
    Config config = config_of(architecture(name, 4), {"train.micro_batch=16"});
    const RunPlan none = plan_of(config);
    config.train.recompute = Recompute::selective;
    const RunPlan selective = plan_of(config);
    // Blocks at the peak, by operation: of every block in the one, of at most one block in the other.
    const auto blocks = [](const RunPlan& plan, std::string_view op) {
      int64_t count = 0;
      for (const Holder& h : plan.at_peak)
        if (op == h.op && h.category == Category::activation && module_path(h.module).starts_with("blocks.")) count += h.blocks;
      return count;
    };
    const bool gelu = config.model.mlp == MlpKind::gelu;
    for (const char* op : {gelu ? "gelu" : "swiglu", "linear", "attention"}) {
      const bool remade = op == std::string_view("gelu") || op == std::string_view("swiglu");
      EXPECT_GE(blocks(none, op), 3) << op;
      if (remade) {
        EXPECT_LE(blocks(selective, op), 1) << op;
      } else {
        EXPECT_GE(blocks(selective, op), 3) << op;
      }
    }
    // A block's share: both norms, the activation, and behind QK-norm a second copy of q, k and v.
    const ModelConfig& m = config.model;
    const int64_t tokens = config.train.micro_batch * config.train.seq_len, element = config.train.precision == Precision::bf16 ? 2 : 4;
    const int64_t saved = tokens * element * (2 * m.d_model + m.d_ff + (m.qk_norm ? (m.heads + 2 * m.kv_heads) * m.head_dim : 0));
    const BlockModel model = model_of(config);
    EXPECT_EQ(model.modes[0].kept_bytes - model.modes[1].kept_bytes, saved);
    EXPECT_EQ(selective.predicted.flops_per_step->matmul, none.predicted.flops_per_step->matmul);
    EXPECT_EQ(selective.predicted.flops_per_step->model, none.predicted.flops_per_step->model);
    EXPECT_GT(selective.predicted.flops_per_step->vector, none.predicted.flops_per_step->vector);
  }
}

TEST(AutoRecompute, PlansTheLargestPresetInAFewSeconds) {
  const auto start = std::chrono::steady_clock::now();
  const RunPlan plan = plan_of(config_of({"model.preset=llama-3-70b", "train.precision=bf16", "train.seq_len=8192", "train.micro_batch=1",
                                          "train.recompute=auto", "memory.budget=1200GiB"}));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("%s, planned in %.2f s\n", to_string(*plan.recompute).c_str(), seconds);
  EXPECT_TRUE(plan.recompute->fits());
  EXPECT_LT(seconds, 60) << "a machine under load; alone it takes a few";
}
}  // namespace
}  // namespace reckon
