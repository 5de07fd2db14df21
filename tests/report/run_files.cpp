// Files of a run are read as they are found: cut off, without a number, damaged, or not there at all.
#include "reckon/report/run_files.h"

#include <gtest/gtest.h>

#include <cmath>

#include "reckon/base/error.h"
#include "reckon/train/report.h"

namespace reckon {
namespace {
TEST(RunFiles, MetricsOfStepsAndEvaluations) {
  const Metrics m = parse_metrics(
      "{\"step\":1,\"loss\":5.5,\"seconds\":0.5,\"tokens_per_second\":2048}\n{\"step\":2,\"loss\":null,\"seconds\":0.25,\"tokens_per_"
      "second\":4096}\n"
      "{\"step\":2,\"loss_validation\":5.25}\n{\"step\":3,\"lo",
      "metrics.jsonl");
  ASSERT_EQ(m.steps.size(), 2u);
  EXPECT_EQ(m.steps[0].loss, 5.5);
  EXPECT_TRUE(std::isnan(m.steps[1].loss));
  EXPECT_EQ(m.steps[1].tokens_per_second, 4096);
  ASSERT_EQ(m.evaluations.size(), 1u);
  EXPECT_EQ(m.evaluations[0].loss, 5.25);
  EXPECT_TRUE(parse_metrics("", "metrics.jsonl").steps.empty());
}

TEST(RunFiles, DamageIsNamedWithItsLine) {
  try {
    parse_metrics("{\"step\":1,\"loss\":1}\nnonsense\n", "metrics.jsonl");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Failure::corrupt);
    EXPECT_NE(std::string(error.what()).find("metrics.jsonl line 2"), std::string::npos) << error.what();
  }
  EXPECT_THROW(parse_metrics("{\"step\":-1}\n", "m"), Error);
  EXPECT_THROW(parse_metrics("{\"loss\":1}\n", "m"), Error);
  EXPECT_THROW(parse_summary("{}", "s"), Error);
  EXPECT_THROW(parse_summary("{\"predicted\":{},\"measured\":{},\"process\":{\"peak_rss_bytes\":-1}}", "s"), Error);
}

TEST(RunFiles, SummaryHasEveryLeafOfTheSchema) {
  RunReport predicted, measured;
  predicted.memory = measured.memory = Ledger{.peak = 640, .extent = 704};
  predicted.trace_hash = "0123456789abcdef";
  measured.step_seconds = 0.5;
  const Summary s = parse_summary(summary_json(predicted, measured, {.peak_rss_bytes = 1000}), "summary.json");
  const SummaryRow* peak = s.find("memory.peak_bytes");
  ASSERT_TRUE(peak);
  EXPECT_EQ(peak->predicted.integer, 640);
  EXPECT_EQ(peak->predicted, peak->measured);
  EXPECT_EQ(s.find("memory.trace_hash")->predicted.word, "0123456789abcdef");
  EXPECT_EQ(s.find("memory.trace_hash")->measured.kind, SummaryValue::Kind::absent);
  EXPECT_EQ(s.find("step_seconds")->predicted.number(), std::nullopt);
  EXPECT_EQ(s.find("step_seconds")->measured.number(), 0.5);
  EXPECT_EQ(s.find("memory.at_peak.cache")->measured.integer, 0);
  EXPECT_EQ(s.peak_rss_bytes, 1000);
  EXPECT_EQ(s.find("nothing"), nullptr);
}

TEST(RunFiles, AFolderWithoutThemIsAnEmptyRun) {
  const RunFiles files = read_run_files(testing::TempDir() + "no-such-run");
  EXPECT_TRUE(files.metrics.steps.empty());
  EXPECT_FALSE(files.summary);
}
}  // namespace
}  // namespace reckon
