// report/timeline: live bytes by category over the events of a plan, thinned to what a chart can show. Knows no drawing.
#pragma once
#include <array>
#include <span>

#include "reckon/plan/run_plan.h"

namespace reckon {

using CategoryBytes = std::array<int64_t, kCategories>;

/// What lives after `event` events (0: before the first).
struct TimelineSample {
  size_t event = 0;
  Phase phase = Phase::init;  // of the event just done; before the first, of the first
  CategoryBytes live{};
  int64_t total() const;
};

/// Live bytes over events [begin, end). Samples are in order, hold until the next one, and always include the first moment, the last one,
/// and the first maximum; of every stretch of events that is thinned out they keep the lowest and the highest moment exactly.
struct Timeline {
  size_t begin = 0, end = 0;
  std::vector<TimelineSample> samples;
  size_t peak = 0;         // index of the first maximum in samples
  CategoryBytes lowest{};  // least live bytes of each category at any moment, thinned out or not
  const TimelineSample& at_peak() const { return samples[peak]; }
};

/// At most about 4 * `buckets` samples. Throws Error if [begin, end) is not within the events.
Timeline make_timeline(std::span<const AllocationEvent> events, size_t begin, size_t end, size_t buckets);

/// A block that is live at some sample, with what it is called: an index into names.
struct LiveBlock {
  uint32_t name;
  int64_t bytes;
  uint32_t first, last;  // samples at which it lives, inclusive
};
struct BlockName {
  Category category;
  uint32_t module;
  const char* op;
};
struct LiveBlocks {
  std::vector<BlockName> names;
  std::vector<LiveBlock> blocks;  // in the order of allocation; those that agree in name, life and size are one, with their sum
  bool complete = true;           // false: blocks that matter least were left out
};
/// Who lives at each sample of a timeline. With more than `limit` blocks those with the most bytes times samples are kept.
LiveBlocks live_blocks(std::span<const AllocationEvent> events, const Timeline& timeline, size_t limit);
}  // namespace reckon
