// The progress line, and the run report in the contract's schema.
#include "reckon/train/progress.h"

#include <gtest/gtest.h>

#include "reckon/io/json.h"
#include "reckon/train/report.h"

using namespace reckon;

namespace {
TEST(Progress, line_says_step_loss_speed_memory_and_time_left) {
  ProgressState s;
  s.step = 12, s.steps = 200, s.loss = 3.2141, s.tokens_per_second = 1234.4, s.seconds_left = 65, s.memory_bytes = 312 << 20;
  EXPECT_EQ(progress_line(s), "step 12/200  loss 3.2141  1,234 tok/s  312.00 MiB  ETA 1m 05s");
  s.mfu = 0.714, s.recent_steps = 12;
  EXPECT_EQ(progress_line(s), "step 12/200  loss 3.2141  1,234 tok/s (last 12)  MFU 71 %  312.00 MiB  ETA 1m 05s");
}

TEST(StepTimer, median_leaves_the_first_step_out_and_recent_looks_at_twenty) {
  StepTimer timer;
  EXPECT_EQ(timer.median(), 0);
  EXPECT_EQ(timer.recent(), 0);
  timer.add(100);
  EXPECT_EQ(timer.median(), 100);
  EXPECT_EQ(timer.recent_steps(), 1);
  for (const double seconds : {1.0, 3.0, 2.0}) timer.add(seconds);
  EXPECT_EQ(timer.median(), 2);
  for (int i = 0; i < 20; ++i) timer.add(5);
  EXPECT_EQ(timer.recent(), 5);
  EXPECT_EQ(timer.recent_steps(), 20);
}

// Every key of the contract, in each of the two documents.
void expect_schema(const Json& report, bool filled) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> tables = {
      {"model", {"parameters"}},
      {"memory", {"peak_bytes", "arena_bytes", "at_peak", "phases", "trace_hash"}},
      {"flops", {"matmul_per_step", "vector_per_step", "model_per_step", "hardware_per_step"}},
      {"comm", {"bytes_per_step"}},
      {"loss", {"train", "validation", "bits_per_byte"}}};
  for (const auto& [table, keys] : tables)
    for (const std::string& key : keys) EXPECT_TRUE(report.get(table).has(key)) << table << "." << key;
  for (const char* key : {"step_seconds", "tokens_per_second", "mfu", "hfu"}) EXPECT_TRUE(report.has(key)) << key;
  int64_t sum = 0;
  for (int i = 0; i < kCategories; ++i) {
    const Json bytes = report.get("memory").get("at_peak").get(name_of(Category(i)));
    EXPECT_EQ(bytes.is_null(), !filled);
    if (filled) sum += bytes.integer();
  }
  for (int i = 0; i < kPhases; ++i) EXPECT_EQ(report.get("memory").get("phases").get(name_of(Phase(i))).is_null(), !filled);
  if (filled) { EXPECT_EQ(sum, report.get("memory").get("peak_bytes").integer()); }
}

TEST(Report, has_every_key_whether_it_is_known_or_not) {
  RunReport known;
  known.parameters = 36;
  Ledger ledger;
  ledger.peak = 640;
  ledger.extent = 704;
  ledger.at_peak[size_t(Category::parameter)] = 512;
  ledger.at_peak[size_t(Category::data)] = 128;
  known.memory = ledger;
  known.trace_hash = "0123456789abcdef";
  known.flops_per_step = Flops{400, 50, 368};
  known.loss_train = 2.5;
  const JsonDocument document(summary_json(known, RunReport(), {.peak_rss_bytes = 4096}), "summary.json");
  const Json root = document.root();
  expect_schema(root.get("predicted"), true);
  expect_schema(root.get("measured"), false);
  EXPECT_EQ(root.get("predicted").get("flops").get("model_per_step").integer(), 368);
  EXPECT_EQ(root.get("predicted").get("flops").get("matmul_per_step").integer(), 400);
  EXPECT_EQ(root.get("predicted").get("flops").get("vector_per_step").integer(), 50);
  EXPECT_EQ(root.get("predicted").get("memory").get("arena_bytes").integer(), 704);
  EXPECT_EQ(root.get("predicted").get("memory").get("trace_hash").string(), "0123456789abcdef");
  EXPECT_EQ(root.get("predicted").get("loss").get("train").number(), 2.5);
  EXPECT_TRUE(root.get("measured").get("memory").get("trace_hash").is_null());
  EXPECT_EQ(root.get("process").get("peak_rss_bytes").integer(), 4096);
  EXPECT_TRUE(root.get("process").get("predicted_rss_bytes").is_null());
}

TEST(Report, knows_this_process_and_machine) {
  EXPECT_GT(peak_resident_bytes(), 1 << 20);
  EXPECT_GT(available_memory_bytes(), 1 << 20);
}
}  // namespace
