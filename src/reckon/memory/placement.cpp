#include "reckon/memory/placement.h"

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <numeric>

#include "reckon/base/error.h"

namespace reckon {
namespace {
// Where no order comes near the bound: how often the blocks that stick out of it are placed before all others. With many blocks a round
// takes long and gains little.
constexpr int kRepairs = 12;
constexpr size_t kMaxRepaired = 2000;

bool occupies(const Lifetime& b) { return b.bytes > 0 && b.begin < b.end; }

struct Peak {
  int64_t bytes = 0, time = 0;
};
Peak most_live(std::span<const Lifetime> blocks) {
  std::map<int64_t, int64_t> change;
  for (const Lifetime& b : blocks)
    if (occupies(b)) change[b.begin] += b.bytes, change[b.end] -= b.bytes;
  Peak most;
  int64_t live = 0;
  for (const auto& [time, bytes] : change)
    if ((live += bytes) > most.bytes) most = {live, time};
  return most;
}

// Blocks that have a place, by length of life in powers of two: those that meet an interval lie in a short range of begins.
class Placed {
 public:
  void add(const Lifetime& life, int64_t offset) {
    const int length = std::bit_width(uint64_t(life.end - life.begin));
    by_length_[size_t(length)].emplace(life.begin, Range{life.end, offset, offset + life.bytes});
  }
  // Byte ranges that are taken at some moment of this life, by offset.
  void taken_during(const Lifetime& life, std::vector<std::pair<int64_t, int64_t>>& ranges) const {
    ranges.clear();
    for (size_t length = 0; length < by_length_.size(); ++length) {
      const auto& level = by_length_[length];
      if (level.empty()) continue;
      const int64_t longest = length >= 62 ? INT64_MAX / 2 : int64_t(1) << length;
      for (auto at = level.upper_bound(life.begin - longest); at != level.end() && at->first < life.end; ++at)
        if (at->second.end > life.begin) ranges.emplace_back(at->second.from, at->second.to);
    }
    std::sort(ranges.begin(), ranges.end());
  }

 private:
  struct Range {
    int64_t end, from, to;
  };
  std::array<std::multimap<int64_t, Range>, 65> by_length_;
};

Placement first_fit(std::span<const Lifetime> blocks, const std::vector<size_t>& order) {
  Placement result;
  result.offsets.resize(blocks.size());
  Placed placed;
  const auto place = [&](size_t i, int64_t at) {
    result.offsets[i] = at;
    result.bytes = std::max(result.bytes, at + blocks[i].bytes);
    placed.add(blocks[i], at);
  };
  for (size_t i = 0; i < blocks.size(); ++i)
    if (occupies(blocks[i]) && blocks[i].fixed_offset >= 0) place(i, blocks[i].fixed_offset);
  std::vector<std::pair<int64_t, int64_t>> taken;
  for (const size_t i : order) {
    const Lifetime& b = blocks[i];
    if (!occupies(b) || b.fixed_offset >= 0) continue;
    placed.taken_during(b, taken);
    int64_t at = 0;
    for (const auto& [from, to] : taken) {
      if (from - at >= b.bytes) break;
      at = std::max(at, to);
    }
    place(i, at);
  }
  return result;
}
}  // namespace

Placement place_blocks(std::span<const Lifetime> blocks) {
  const Peak peak = most_live(blocks);
  const int64_t bound = peak.bytes;
  const auto life = [&](size_t i) { return blocks[i].end - blocks[i].begin; };
  const auto by_size = [&](size_t a, size_t b) { return blocks[a].bytes > blocks[b].bytes; };
  const auto by_area = [&](size_t a, size_t b) {
    return double(blocks[a].bytes) * double(life(a)) > double(blocks[b].bytes) * double(life(b));
  };
  const auto by_life = [&](size_t a, size_t b) { return life(a) > life(b); };
  // What is live at the peak must lie without a gap; it goes first, in the order in which it goes away, so that what is freed together lies
  // together.
  const auto at_peak = [&](size_t i) { return blocks[i].begin <= peak.time && peak.time < blocks[i].end; };
  const auto by_peak_end = [&](size_t a, size_t b) {
    if (at_peak(a) != at_peak(b)) return at_peak(a);
    return at_peak(a) ? blocks[a].end > blocks[b].end : by_size(a, b);
  };
  const auto by_peak_begin = [&](size_t a, size_t b) {
    if (at_peak(a) != at_peak(b)) return at_peak(a);
    return at_peak(a) ? blocks[a].begin < blocks[b].begin : by_size(a, b);
  };
  const auto by_begin = [&](size_t a, size_t b) { return blocks[a].begin < blocks[b].begin; };
  const auto by_end = [&](size_t a, size_t b) { return blocks[a].end > blocks[b].end; };
  Placement best;
  int repairs = 0;
  const auto attempt = [&](auto before) {
    if (!best.offsets.empty() && best.bytes == bound) return;
    std::vector<size_t> order(blocks.size());
    std::iota(order.begin(), order.end(), size_t(0));
    std::stable_sort(order.begin(), order.end(), before);  // ties by age
    Placement found = first_fit(blocks, order);
    if (best.offsets.empty() || found.bytes < best.bytes) best = found;
    for (int round = 0; round < repairs && best.bytes > bound; ++round) {
      std::stable_partition(order.begin(), order.end(), [&](size_t i) { return found.offsets[i] + blocks[i].bytes > bound; });
      found = first_fit(blocks, order);
      if (found.bytes < best.bytes) best = found;
    }
  };
  attempt(by_size);
  attempt(by_area);
  attempt(by_begin);
  attempt(by_life);
  if (best.bytes - bound > bound / 1000 && blocks.size() <= kMaxRepaired) {
    repairs = kRepairs;
    attempt(by_size);
    attempt(by_area);
    attempt(by_begin);
    attempt(by_end);
    attempt(by_life);
    attempt(by_peak_end);
    attempt(by_peak_begin);
  }
  best.lower_bound = bound;
  return best;
}
}  // namespace reckon
