// docs/long_sequences.md against the plans: the tables of worked cases are what plans say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/text.h"
#include "reckon/io/files.h"
#include "reckon/plan/run_plan.h"

namespace reckon::docs {
namespace {
using Keys = std::vector<std::string>;
constexpr int64_t kMaxDocument = 1 << 20;  // bytes

std::string document() { return read_file("docs/long_sequences.md", kMaxDocument); }

RunPlan plan_of(Keys keys, const Keys& more) {
  keys.insert(keys.end(), more.begin(), more.end());
  // The profile that all machines have in these tables: sizes depend on its lanes, work on its vectors.
  const Ref<Device> meta = open_cpu(Mode::meta, {"cpu", 2, 16});
  return plan_run(load_config("", keys), *meta);
}
std::string joined(const Keys& keys) {
  std::string line;
  for (const std::string& key : keys) line += (line.empty() ? "`" : " `") + key + "`";
  return line;
}

TEST(LongSequences, ChunksFitWhereNothingElseDoes) {
  const int64_t budget = int64_t(32) << 30;
  const Keys base = {"model.preset=llama-3.2-1b", "train.micro_batch=1", "train.seq_len=131072", "train.precision=bf16"};
  const std::string page = document();
  double whole = 0;
  bool any_whole_fits = false, any_chunk_fits = false;
  for (const Keys& more : {Keys{"train.recompute=none"},
                           {"train.recompute=selective"},
                           {"train.recompute=full"},
                           {"train.sequence_chunk=8192"},
                           {"train.sequence_chunk=2048"},
                           {"train.sequence_chunk=8192", "train.recompute=full"},
                           {"train.sequence_chunk=2048", "train.recompute=full"}}) {
    const RunPlan plan = plan_of(base, more);
    const double flops = double(plan.predicted.flops_per_step->matmul);
    if (whole == 0) whole = flops;
    const bool fits = plan.arena.bytes <= budget;
    (is_chunked(plan.config.train) ? any_chunk_fits : any_whole_fits) |= fits;
    const std::string row =
        text("| {} | {} | {:.2f} | {} |\n", joined(more), human_bytes(plan.arena.bytes), flops / whole, fits ? "yes" : "no");
    EXPECT_THAT(page, testing::HasSubstr(row));
  }
  EXPECT_FALSE(any_whole_fits) << "the case shows nothing";
  EXPECT_TRUE(any_chunk_fits);
}

TEST(LongSequences, PlainAttentionGrowsWithTheSquare) {
  const std::string page = document();
  int64_t before = 0;
  for (const int64_t T : {512, 1024, 2048, 4096}) {
    const Keys base = {"model.preset=gpt2-124m", "model.max_seq_len=4096", "train.micro_batch=1"};
    const std::string length = text("train.seq_len={}", T);
    const RunPlan flash = plan_of(base, {length}), plain = plan_of(base, {length, "train.attention=plain"});
    EXPECT_EQ(flash.predicted.flops_per_step->model, plain.predicted.flops_per_step->model);
    EXPECT_THAT(page, testing::HasSubstr(
                          text("| `{}` | {} | {} | {:.2f} |\n", length, human_bytes(flash.arena.bytes), human_bytes(plain.arena.bytes),
                               double(plain.predicted.flops_per_step->matmul) / double(flash.predicted.flops_per_step->matmul))));
    const int64_t more = plain.arena.bytes - flash.arena.bytes;
    EXPECT_GT(more, 11 * 12 * T * T * 4) << "every block but the one that works keeps its probabilities";
    if (before > 0) {
      EXPECT_NEAR(double(more) / double(before), 4, 0.3) << T;
    }
    before = more;
  }
}
}  // namespace
}  // namespace reckon::docs
