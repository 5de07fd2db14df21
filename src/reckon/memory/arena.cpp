#include "reckon/memory/arena.h"

#include <algorithm>

#include "reckon/base/error.h"
#include "reckon/base/text.h"
#include "reckon/memory/placement.h"

namespace reckon {

std::string difference(const AllocationEvent& planned, const AllocationEvent& got) {
  const bool same = planned.is_alloc == got.is_alloc && planned.serial == got.serial && planned.bytes == got.bytes &&
                    planned.category == got.category && std::string_view(planned.op) == got.op;
  return same ? "" : text("planned {}, got {}", to_string(planned), to_string(got));
}

SegmentPlan SegmentPlan::make(std::string name, std::span<const AllocationEvent> recorded, bool may_leave) {
  SegmentPlan plan;
  plan.name = std::move(name);
  plan.events.assign(recorded.begin(), recorded.end());
  int64_t first = -1;
  for (const AllocationEvent& e : recorded)
    if (e.is_alloc && first < 0) first = e.serial;
  const int64_t never = int64_t(recorded.size()) + 1;
  std::vector<Lifetime> lives;
  for (size_t i = 0; i < plan.events.size(); ++i) {
    AllocationEvent& e = plan.events[i];
    e.serial -= first;
    if (e.is_alloc) {
      RECKON_ASSERT(e.serial == int64_t(lives.size()));
      lives.push_back({e.bytes, int64_t(i), never});
      continue;
    }
    check(first >= 0 && e.serial >= 0, "{} frees a block that it did not make: {} of {}", plan.name, human_bytes(e.bytes), e.op);
    lives[size_t(e.serial)].end = int64_t(i);
  }
  // What stays lies at the bottom, in order of age: what passes before the last of it is made may lie where that will be.
  plan.kept.resize(lives.size());
  for (size_t n = 0; n < lives.size(); ++n) {
    if (lives[n].end != never) continue;
    check(may_leave, "{} leaves {} behind: what a repeated segment makes must be gone at its end", plan.name, human_bytes(lives[n].bytes));
    plan.kept[n] = true;
    lives[n].fixed_offset = plan.left_bytes;
    plan.left_bytes += lives[n].bytes;
  }
  Placement placed = place_blocks(lives);
  plan.offsets = std::move(placed.offsets);
  plan.bytes = placed.bytes;
  plan.lower_bound = placed.lower_bound;
  return plan;
}

const SegmentPlan* ArenaPlan::find(std::string_view name) const {
  const auto found = std::find_if(segments.begin(), segments.end(), [&](const SegmentPlan& s) { return s.name == name; });
  return found == segments.end() ? nullptr : &*found;
}

namespace {
void check_repeats(const SegmentPlan& plan, std::span<const AllocationEvent> events) {
  int64_t first = -1;
  for (size_t i = 0; i < std::max(events.size(), plan.events.size()); ++i) {
    check(i < events.size() && i < plan.events.size(), "{} does not repeat itself: it has {} events, then {}", plan.name,
          plan.events.size(), events.size());
    AllocationEvent e = events[i];
    if (first < 0) first = e.serial;
    e.serial -= first;
    const std::string differs = difference(plan.events[i], e);
    check(differs.empty(), "{} does not repeat itself: event {} was {}", plan.name, i, differs);
  }
}

// Nothing happened between two segments.
void check_planned(std::span<const AllocationEvent> events, size_t end, size_t begin) {
  if (end != begin) fail("an allocation outside of every segment cannot be planned: {}", to_string(events[end]));
}
}  // namespace

ArenaPlan plan_arena(std::span<const AllocationEvent> events, std::span<const SegmentMark> marks) {
  ArenaPlan arena;
  size_t at = 0;
  for (const SegmentMark& mark : marks) {
    check_planned(events, at, mark.begin);
    at = mark.end;
    const auto part = events.subspan(mark.begin, mark.end - mark.begin);
    if (const SegmentPlan* known = arena.find(mark.name)) {
      check_repeats(*known, part);
    } else {
      arena.segments.push_back(SegmentPlan::make(mark.name, part, arena.segments.empty()));
    }
  }
  check_planned(events, at, events.size());
  check(!arena.segments.empty(), "nothing was recorded");
  arena.persistent_bytes = arena.segments[0].left_bytes;
  for (const SegmentPlan& s : arena.segments) arena.bytes = std::max(arena.bytes, arena.base_of(s) + s.bytes);
  int64_t live = 0;
  for (const AllocationEvent& e : events) arena.lower_bound = std::max(arena.lower_bound, live += e.is_alloc ? e.bytes : -e.bytes);
  return arena;
}
}  // namespace reckon
