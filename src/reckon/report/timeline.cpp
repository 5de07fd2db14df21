#include "reckon/report/timeline.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <string_view>
#include <tuple>
#include <unordered_map>

namespace reckon {
namespace {
void apply(const AllocationEvent& e, CategoryBytes& live) { live[size_t(e.category)] += e.is_alloc ? e.bytes : -e.bytes; }

int64_t sum(const CategoryBytes& bytes) { return std::accumulate(bytes.begin(), bytes.end(), int64_t(0)); }

// The moments of a stretch that are kept: its lowest, its highest and its last.
struct Extremes {
  TimelineSample low, high, last;
  bool empty = true;
  void add(const TimelineSample& s) {
    if (empty || s.total() < low.total()) low = s;
    if (empty || s.total() > high.total()) high = s;
    last = s;
    empty = false;
  }
  void flush(std::vector<TimelineSample>& samples) {
    if (empty) return;
    const TimelineSample &a = low.event < high.event ? low : high, &b = low.event < high.event ? high : low;
    for (const TimelineSample& s : {a, b, last})
      if (samples.back().event < s.event) samples.push_back(s);
    empty = true;
  }
};
}  // namespace

int64_t TimelineSample::total() const { return sum(live); }

Timeline make_timeline(std::span<const AllocationEvent> events, size_t begin, size_t end, size_t buckets) {
  check(begin <= end && end <= events.size() && buckets > 0, "events {} to {} of {} cannot be drawn", begin, end, events.size());
  Timeline line{.begin = begin, .end = end};
  TimelineSample now{.event = begin};
  for (size_t i = 0; i < begin; ++i) apply(events[i], now.live);
  if (begin < end) now.phase = events[begin].phase;
  line.samples.push_back(now);
  line.lowest = now.live;
  const size_t stretch = std::max<size_t>(1, (end - begin + buckets - 1) / buckets);
  Extremes kept;
  for (size_t i = begin; i < end; ++i) {
    apply(events[i], now.live);
    now.event = i + 1;
    now.phase = events[i].phase;
    for (size_t c = 0; c < size_t(kCategories); ++c) line.lowest[c] = std::min(line.lowest[c], now.live[c]);
    kept.add(now);
    // A change of phase ends a stretch, so that bands and curve agree.
    if ((i + 1 - begin) % stretch == 0 || i + 1 == end || events[i + 1].phase != now.phase) kept.flush(line.samples);
  }
  const auto less = [](const TimelineSample& a, const TimelineSample& b) { return a.total() < b.total(); };
  line.peak = size_t(std::max_element(line.samples.begin(), line.samples.end(), less) - line.samples.begin());
  return line;
}

LiveBlocks live_blocks(std::span<const AllocationEvent> events, const Timeline& timeline, size_t limit) {
  LiveBlocks result;
  std::map<std::tuple<Category, uint32_t, std::string_view>, uint32_t> names;
  std::unordered_map<int64_t, size_t> open;                         // serial -> index in result.blocks
  std::map<std::tuple<uint32_t, uint32_t, uint32_t>, size_t> same;  // (name, first, last) -> index in merged
  const auto first_at = [&](size_t event) {                         // the first sample with at least so many events done
    const auto found = std::lower_bound(timeline.samples.begin(), timeline.samples.end(), event,
                                        [](const TimelineSample& s, size_t value) { return s.event < value; });
    return uint32_t(found - timeline.samples.begin());
  };
  const uint32_t none = uint32_t(timeline.samples.size());
  std::vector<LiveBlock> all;
  for (size_t i = 0; i < timeline.end; ++i) {
    const AllocationEvent& e = events[i];
    if (e.is_alloc) {
      const auto [name, is_new] = names.emplace(std::tuple(e.category, e.module, std::string_view(e.op)), uint32_t(result.names.size()));
      if (is_new) result.names.push_back({e.category, e.module, e.op});
      open.emplace(e.serial, all.size());
      all.push_back({name->second, e.bytes, first_at(i + 1), none});
    } else if (const auto at = open.find(e.serial); at != open.end()) {
      all[at->second].last = first_at(i + 1);  // one past the last, for now
      open.erase(at);
    }
  }
  for (const LiveBlock& b : all) {
    if (b.first >= b.last || b.bytes == 0) continue;
    const auto [at, is_new] = same.emplace(std::tuple(b.name, b.first, b.last), result.blocks.size());
    if (is_new) {
      result.blocks.push_back({b.name, b.bytes, b.first, b.last - 1});
    } else {
      result.blocks[at->second].bytes += b.bytes;
    }
  }
  if (result.blocks.size() <= limit) return result;
  const auto weight = [](const LiveBlock& b) { return double(b.bytes) * (b.last - b.first + 1); };
  std::vector<double> weights;
  for (const LiveBlock& b : result.blocks) weights.push_back(weight(b));
  std::nth_element(weights.begin(), weights.begin() + long(limit), weights.end(), std::greater<>());
  // Of equal weights the earlier ones stay.
  size_t above =
      size_t(std::count_if(result.blocks.begin(), result.blocks.end(), [&](const LiveBlock& b) { return weight(b) > weights[limit]; }));
  std::erase_if(result.blocks,
                [&](const LiveBlock& b) { return weight(b) < weights[limit] || (weight(b) == weights[limit] && above++ >= limit); });
  result.complete = false;
  return result;
}
}  // namespace reckon
