// The FLOP conventions against numbers worked out by hand: GPT-2 124M at T 1024, and a model with an untied head.
#include "reckon/plan/conventions.h"

#include <gtest/gtest.h>

#include "reckon/backend/cpu/device.h"

namespace reckon {
namespace {
const FlopConvention& named(const std::vector<FlopConvention>& rows, std::string_view name) {
  for (const FlopConvention& row : rows)
    if (row.name == name) return row;
  throw Error("no convention of that name");
}
RunPlan plan_of(std::vector<std::string> keys) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  return plan_run(load_config("", keys), *meta, false);
}

// N = 124,439,808: 50,257 x 768 tokens, 1,024 x 768 positions, 12 layers of 7,087,872, and the last norm. Attention over all pairs: 12 L d
// T.
TEST(Conventions, OfGpt2AreThoseWorkedOutByHand) {
  const RunPlan plan = plan_of({"model.preset=gpt2-124m", "train.micro_batch=2", "train.seq_len=1024"});
  const std::vector<FlopConvention> rows = flop_conventions(plan);
  EXPECT_EQ(named(rows, "6n").flops_per_token, 746'638'848);          // 6 x 124,439,808
  EXPECT_EQ(named(rows, "kaplan").flops_per_token, 510'336'000);      // 6 x 85,056,000
  EXPECT_EQ(named(rows, "palm").flops_per_token, 859'885'056);        // + 12 x 12 x 768 x 1024 = 113,246,208
  EXPECT_EQ(named(rows, "nanogpt").flops_per_token, 855'166'464);     // - 6 x 786,432
  EXPECT_EQ(named(rows, "llm.c").flops_per_token, 803'261'952);       // 6 N + 56,623,104
  EXPECT_EQ(named(rows, "torchtitan").flops_per_token, 855'166'464);  // tied: only the positions are left out
  // Matrices of the blocks and the head, 84,934,656 + 38,597,376 = 123,532,032, six times; causal pairs: 6 L d (T + 1) = 56,678,400.
  EXPECT_EQ(named(rows, "exact").flops_per_token, 797'870'592);
  for (const FlopConvention& row : rows) {
    EXPECT_EQ(row.flops_per_step, row.flops_per_token * 2048) << row.name;
    EXPECT_DOUBLE_EQ(row.ratio, row.flops_per_token / 797'870'592.0) << row.name;
  }
}

TEST(Conventions, OfAnUntiedHeadLeaveItsTableToTorchtitan) {
  const RunPlan plan = plan_of({"model.preset=llama-3-8b", "train.micro_batch=1", "train.seq_len=8192"});
  const std::vector<FlopConvention> rows = flop_conventions(plan);
  const double N = 8'030'261'248, table = 128256.0 * 4096, attention = 12.0 * 32 * 4096 * 8192;
  EXPECT_EQ(named(rows, "6n").flops_per_token, 6 * N);
  EXPECT_EQ(named(rows, "kaplan").flops_per_token, 6 * (N - 2 * table));
  EXPECT_EQ(named(rows, "palm").flops_per_token, 6 * N + attention);
  EXPECT_EQ(named(rows, "nanogpt").flops_per_token, 6 * N + attention);
  EXPECT_EQ(named(rows, "torchtitan").flops_per_token, 6 * (N - table) + attention);
  // Norm weights (65 x 4096) make no product; causal pairs are half of all, and the diagonal.
  EXPECT_EQ(named(rows, "exact").flops_per_token, 6 * (N - table - 65 * 4096) + 6.0 * 32 * 4096 * 8193);
}

// A head width of its own: attention counts heads x head_dim where the formula says H Q, and d where it says C or n_embd.
TEST(Conventions, TakeTheHeadWidthOrTheModelWidthAsTheyAreWritten) {
  const RunPlan plan = plan_of({"model.preset=qwen3-0.6b", "train.micro_batch=1", "train.seq_len=512"});
  const std::vector<FlopConvention> rows = flop_conventions(plan);
  const double N = double(*plan.predicted.parameters);
  EXPECT_EQ(named(rows, "palm").flops_per_token, 6 * N + 12.0 * 28 * 16 * 128 * 512);
  EXPECT_EQ(named(rows, "nanogpt").flops_per_token, 6 * N + 12.0 * 28 * 1024 * 512);
  EXPECT_EQ(named(rows, "llm.c").flops_per_token, 6 * N + 6.0 * 28 * 1024 * 512);
}

TEST(Conventions, OfTheCruncherHaveNoAttention) {
  const RunPlan plan = plan_of({"model.preset=cruncher", "model.d_model=4", "model.layers=2", "train.micro_batch=2", "optim.name=adagrad"});
  const std::vector<FlopConvention> rows = flop_conventions(plan);
  EXPECT_EQ(named(rows, "6n").flops_per_step, 432);
  EXPECT_EQ(named(rows, "palm").flops_per_step, 432);
  EXPECT_EQ(named(rows, "exact").flops_per_step, 368);
}

TEST(Conventions, ClaimAUtilizationOrRefuse) {
  const FlopConvention c{"6n", "", "", 1e9, 312e12, 1};
  EXPECT_DOUBLE_EQ(claimed_mfu(c, 2, 312e12), 0.5);
  EXPECT_THROW(claimed_mfu(c, 0, 312e12), Error);
  EXPECT_THROW(claimed_mfu(c, 1, -1), Error);
}

TEST(Conventions, EachNamesItsSource) {
  for (const FlopConvention& row : flop_conventions(ConventionSizes{}, 1, 1)) {
    EXPECT_GT(std::string_view(row.source).size(), 20u) << row.name;
    EXPECT_GT(std::string_view(row.formula).size(), 2u) << row.name;
  }
}
}  // namespace
}  // namespace reckon
