// The trace is valid JSON in the order of time, its slices nest, and its counters are the ledger's numbers.
#include "reckon/report/trace.h"

#include <map>

#include "reckon/engine/context.h"
#include "reckon/io/json.h"
#include "reckon/train/step.h"
#include "tests/report/support.h"

namespace reckon {
namespace {
// Live bytes by category after every event of the step, as the trace should count them.
std::vector<std::pair<std::string, int64_t>> expected_counters(const RunPlan& plan) {
  const RunPart& step = part_of(plan, "steady step");
  std::map<std::string, int64_t> live;
  int64_t total = 0;
  std::vector<std::pair<std::string, int64_t>> counters;
  for (size_t i = 0; i < step.end; ++i) {
    const AllocationEvent& e = plan.events[i];
    const std::string name(name_of(e.category));
    live[name] += change(e);
    total += change(e);
    if (i >= step.begin) {
      counters.emplace_back(name, live[name]);
      counters.emplace_back("live", total);
    }
  }
  return counters;
}

void check_trace(const RunPlan& plan, const std::string& json, std::string_view timing) {
  const JsonDocument document(json, "trace.json");
  EXPECT_EQ(document.root().get("otherData").get("timing").string(), timing);
  double now = 0;
  std::vector<std::pair<std::string, int64_t>> counters;
  std::vector<double> open;  // ends of the slices around
  size_t operations = 0;
  int64_t peak = 0;
  for (const Json e : document.root().get("traceEvents")) {
    const double at = e.get("ts").number();
    ASSERT_GE(at, now);
    now = at;
    const std::string_view kind = e.get("ph").string();
    if (kind == "C") {
      counters.emplace_back(std::string(e.get("name").string()), e.get("args").get("bytes").integer());
      if (e.get("name").string() == "live") peak = std::max(peak, counters.back().second);
    } else if (kind == "X") {
      const double end = at + e.get("dur").number();
      while (!open.empty() && open.back() <= at + 1e-3) open.pop_back();
      ASSERT_TRUE(open.empty() || end <= open.back() + 1e-3) << "slices must nest";
      open.push_back(end);
      operations += e.get("cat").string() == "op";
    }
  }
  EXPECT_EQ(operations, plan.calls.size());
  EXPECT_EQ(peak, part_of(plan, "steady step").peak_bytes);
  const size_t initial = kCategories + 1;
  const auto expected = expected_counters(plan);
  ASSERT_EQ(counters.size(), initial + expected.size());
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), counters.begin() + initial));
}

TEST(Trace, CountersAreTheLedgerAndTimeNeverGoesBack) {
  for (const std::vector<std::string>& keys : {std::vector<std::string>{"model.preset=tiny"},
                                               {"model.preset=cruncher"},
                                               {"model.preset=gpt2-124m", "train.recompute=full", "train.grad_accum=2"}}) {
    const RunPlan plan = plan_of(keys);
    check_trace(plan, trace_json(plan, order_of_calls(plan.calls.size())), "order");
    std::vector<double> seconds;
    for (size_t i = 0; i < plan.calls.size(); ++i) seconds.push_back(i % 5 == 0 ? 0 : 1e-4 / double(1 + i % 13));  // sums that round
    check_trace(plan, trace_json(plan, predicted_times(seconds)), "predicted");
  }
}

TEST(Trace, OfARealStepHasItsTimesAndGivesThemBack) {
  const Config config = load_config("", std::vector<std::string>{"model.preset=tiny", "model.layers=1"});
  const RunPlan plan = plan_of({"model.preset=tiny", "model.layers=1"});
  const Ref<Device> device = open_cpu(Mode::real);
  TrainStep step(config, *device);
  const SyntheticBatches batches(config.model.vocab, 1);
  step.run(0, batches);
  Meter meter;
  meter.record_calls(true);
  {
    const MeterScope scope(meter);
    step.run(1, batches);
  }
  const std::optional<CallTimes> times = measured_times(plan, meter.calls());
  ASSERT_TRUE(times);
  EXPECT_EQ(times->timing, Timing::measured);
  const std::string json = trace_json(plan, *times);
  check_trace(plan, json, "measured");

  const std::optional<CallTimes> read = times_in_trace(json, "trace.json", plan);
  ASSERT_TRUE(read);
  ASSERT_EQ(read->seconds.size(), times->seconds.size());
  for (size_t i = 0; i < read->seconds.size(); ++i) {
    EXPECT_NEAR(read->seconds[i], times->seconds[i], 1e-12);
    EXPECT_NEAR(read->start[i], times->start[i], 1e-12);
  }
  EXPECT_EQ(trace_json(plan, *read).size(), json.size());
  EXPECT_FALSE(times_in_trace(json, "trace.json", plan_of({"model.preset=tiny"}))) << "another plan's times";
  EXPECT_FALSE(measured_times(plan_of({"model.preset=tiny"}), meter.calls()));
  EXPECT_FALSE(measured_times(plan, {}));
  EXPECT_FALSE(times_in_trace(trace_json(plan, order_of_calls(plan.calls.size())), "trace.json", plan)) << "nothing was measured";
}

TEST(Trace, RefusesSpansThatOverlapAndFilesThatAreNoTraces) {
  const std::vector<TraceSpan> spans = {{.op = "a", .start_us = 0, .duration_us = 10}, {.op = "b", .start_us = 5, .duration_us = 1}};
  EXPECT_THROW(trace_json({.spans = spans}), Error);
  const RunPlan plan = plan_of({"model.preset=cruncher"});
  EXPECT_THROW(trace_json(plan, order_of_calls(plan.calls.size() + 1)), Error);
  for (const char* bad : {"", "{}", "[]", "{\"otherData\":{\"timing\":\"measured\"},\"traceEvents\":3}"})
    EXPECT_THROW(times_in_trace(bad, "trace.json", plan), Error) << bad;
}

TEST(Trace, NamesFromOutsideStayText) {
  const std::vector<TraceSpan> spans = {{.op = "a\"b\\", .module = "x\n\xFF</script>.y", .duration_us = 1}};
  const std::string json = trace_json({.title = "\"\x01\xC0", .spans = spans});
  const JsonDocument document(json, "trace.json");
  std::vector<std::string> names;
  for (const Json e : document.root().get("traceEvents"))
    if (e.get("ph").string() == "X") names.emplace_back(e.get("name").string());
  EXPECT_EQ(names, (std::vector<std::string>{"forward", "x\n\uFFFD</script>", "y", "a\"b\\"}));
}

TEST(Trace, OfNothingIsATrace) {
  const std::string json = trace_json(TraceInput{});
  EXPECT_EQ(JsonDocument(json, "trace.json").root().get("traceEvents").size(), 2u + kCategories + 1u);
}
}  // namespace
}  // namespace reckon
