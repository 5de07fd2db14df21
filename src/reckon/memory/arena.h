// memory/arena: the plan that a run's allocations follow: what comes next, and at which offset. Made from a recorded trace.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "reckon/memory/allocator.h"

namespace reckon {

/// A stretch of the program that allocates and frees the same whenever it runs: a step, an evaluation of one micro-batch, a save.
struct SegmentPlan {
  std::string name;
  std::vector<AllocationEvent> events;  // serials count from the segment's first block
  std::vector<int64_t> offsets;         // of block n of the segment, from the start of its region
  std::vector<bool> kept;               // block n is left at the segment's end
  int64_t bytes = 0;                    // of the region
  int64_t lower_bound = 0;              // most bytes of the segment live at one moment
  int64_t left_bytes = 0;               // of the blocks that are left at its end

  /// Frees belong to this segment, and what is left at its end (`may_leave`) keeps its place: it lies in [0, left_bytes).
  /// Throws Error if the events free a block of another segment or leave one behind although they may not.
  static SegmentPlan make(std::string name, std::span<const AllocationEvent> events, bool may_leave);
};

/// Places for everything a program allocates. What the first segment leaves stays below; the other segments share the region above it.
struct ArenaPlan {
  std::vector<SegmentPlan> segments;  // the first may leave blocks
  int64_t persistent_bytes = 0;
  int64_t bytes = 0;        // of the whole arena
  int64_t lower_bound = 0;  // most live bytes of the recorded run

  const SegmentPlan* find(std::string_view name) const;
  /// Offset of the segment's region in the arena.
  int64_t base_of(const SegmentPlan& segment) const { return &segment == &segments[0] ? 0 : persistent_bytes; }
};

/// From a recorded run. Events outside of any segment, and a segment that differs from its first recording, are errors that name the
/// first difference.
ArenaPlan plan_arena(std::span<const AllocationEvent> events, std::span<const SegmentMark> marks);

/// "planned alloc #12 4096 B activation gelu (forward), got alloc #12 8192 B activation gelu (forward)"; "" if they agree.
std::string difference(const AllocationEvent& planned, const AllocationEvent& got);
}  // namespace reckon
