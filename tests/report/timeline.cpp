// The curve is the ledger: stacks sum to the live bytes after every event, and thinning loses no extreme.
#include "reckon/report/timeline.h"

#include <numeric>

#include "reckon/engine/context.h"
#include "tests/report/support.h"

namespace reckon {
namespace {
std::vector<int64_t> live_after(std::span<const AllocationEvent> events) {
  std::vector<int64_t> live = {0};
  for (const AllocationEvent& e : events) live.push_back(live.back() + change(e));
  return live;
}

// A million events with spikes in odd places.
std::vector<AllocationEvent> many_events() {
  std::vector<AllocationEvent> events;
  int64_t serial = 0;
  for (int64_t i = 0; i < 500'000; ++i) {
    const int64_t bytes = 64 * (1 + (i * 7919) % 1000) * (i == 123'457 ? 1000 : 1);
    const Category category = Category(i % kCategories);
    events.push_back({true, category, Phase::forward, 0, "op", serial, bytes});
    events.push_back({false, category, Phase::backward, 0, "op", serial++, bytes});
  }
  return events;
}

TEST(Timeline, StacksSumToTheLiveBytesAfterEveryEvent) {
  for (const char* preset : {"tiny", "cruncher", "qwen3-0.6b"}) {
    const std::string data = std::string_view(preset) == "cruncher" ? "data.path=" : "data.path=some.txt";  // it reads none
    const RunPlan plan = plan_of({std::string("model.preset=") + preset, data});
    const std::vector<int64_t> live = live_after(plan.events);
    const Timeline line = make_timeline(plan.events, 0, plan.events.size(), plan.events.size());
    ASSERT_EQ(line.samples.size(), plan.events.size() + 1);
    for (const TimelineSample& s : line.samples) ASSERT_EQ(s.total(), live[s.event]) << s.event;
    EXPECT_EQ(line.at_peak().total(), plan.predicted.memory->peak);
    EXPECT_EQ(line.at_peak().live, plan.predicted.memory->at_peak);
  }
}

TEST(Timeline, ThinningKeepsTheExtremesOfEveryStretch) {
  const std::vector<AllocationEvent> events = many_events();
  const std::vector<int64_t> live = live_after(events);
  for (const size_t buckets : {1u, 7u, 360u}) {
    const Timeline line = make_timeline(events, 10, events.size() - 3, buckets);
    EXPECT_EQ(line.samples.front().event, 10u);
    EXPECT_EQ(line.samples.back().event, events.size() - 3);
    EXPECT_EQ(line.at_peak().total(), *std::max_element(live.begin() + 10, live.end() - 3));
    for (size_t i = 0; i < line.samples.size(); ++i) {
      EXPECT_EQ(line.samples[i].total(), live[line.samples[i].event]);
      EXPECT_TRUE(i == 0 || line.samples[i - 1].event < line.samples[i].event);
    }
  }
}

TEST(Timeline, ThinningBoundsTheNumberOfSamples) {
  std::vector<AllocationEvent> events = many_events();
  for (AllocationEvent& e : events) e.phase = Phase::forward;
  const Timeline line = make_timeline(events, 0, events.size(), 360);
  EXPECT_LE(line.samples.size(), 4u * 360u);
  const std::vector<int64_t> live = live_after(events);
  // What is between two samples lies between the extremes of the samples around it.
  for (size_t i = 0; i + 1 < line.samples.size(); ++i) {
    const size_t from = line.samples[i].event, to = line.samples[i + 1].event;
    const size_t before = i >= 3 ? i - 3 : 0, after = std::min(i + 4, line.samples.size() - 1);
    int64_t highest = 0;
    for (size_t k = before; k <= after; ++k) highest = std::max(highest, line.samples[k].total());
    for (size_t e = from; e < to; ++e) ASSERT_LE(live[e], highest) << e;
  }
}

TEST(Timeline, OfNothingIsOneMoment) {
  const Timeline line = make_timeline({}, 0, 0, 10);
  ASSERT_EQ(line.samples.size(), 1u);
  EXPECT_EQ(line.at_peak().total(), 0);
  EXPECT_TRUE(live_blocks({}, line, 10).blocks.empty());
  EXPECT_THROW(make_timeline({}, 0, 1, 10), Error);
}

TEST(Timeline, LowestIsWhatIsAlwaysThere) {
  const RunPlan plan = plan_of({"model.preset=tiny"});
  const RunPart& step = part_of(plan, "steady step");
  const Timeline line = make_timeline(plan.events, step.begin, step.end, 5);
  EXPECT_EQ(std::accumulate(line.lowest.begin(), line.lowest.end(), int64_t(0)), plan.parts[0].peak_bytes);
}

int64_t sum_at(const LiveBlocks& live, size_t sample) {
  int64_t sum = 0;
  for (const LiveBlock& b : live.blocks)
    if (b.first <= sample && sample <= b.last) sum += b.bytes;
  return sum;
}

TEST(Timeline, BlocksThatLiveAtASampleSumToIt) {
  for (const std::vector<std::string>& keys :
       {std::vector<std::string>{"model.preset=tiny"}, {"model.preset=gpt2-124m", "train.recompute=full", "train.grad_accum=3"}}) {
    const RunPlan plan = plan_of(keys);
    const RunPart& step = part_of(plan, "steady step");
    const Timeline line = make_timeline(plan.events, step.begin, step.end, 100);
    const LiveBlocks live = live_blocks(plan.events, line, 1'000'000);
    EXPECT_TRUE(live.complete);
    for (size_t i = 0; i < line.samples.size(); ++i) ASSERT_EQ(sum_at(live, i), line.samples[i].total()) << i;
  }
}

TEST(Timeline, TooManyBlocksLeaveOutTheSmallest) {
  const RunPlan plan = plan_of({"model.preset=tiny"});
  const RunPart& step = part_of(plan, "steady step");
  const Timeline line = make_timeline(plan.events, step.begin, step.end, 100);
  for (const size_t limit : {0u, 1u, 5u, 20u}) {
    const LiveBlocks live = live_blocks(plan.events, line, limit);
    EXPECT_FALSE(live.complete);
    EXPECT_EQ(live.blocks.size(), limit);
    for (size_t i = 0; i < line.samples.size(); ++i) EXPECT_LE(sum_at(live, i), line.samples[i].total());
  }
  const LiveBlocks few = live_blocks(plan.events, line, 5);
  for (const LiveBlock& b : few.blocks) EXPECT_GT(b.bytes, 1 << 20);
}
}  // namespace
}  // namespace reckon
