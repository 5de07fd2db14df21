// memory/placement: where blocks of known sizes and lifetimes go, so that all of them fit into few bytes. Arithmetic; it knows no
// allocator.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace reckon {

/// A block that is live from event `begin` up to but not including event `end`.
struct Lifetime {
  int64_t bytes = 0;
  int64_t begin = 0, end = 0;
  int64_t fixed_offset = -1;  // where the block must lie; -1: anywhere
};

struct Placement {
  std::vector<int64_t> offsets;  // one a block, a multiple of kBlockAlignment if all sizes are
  int64_t bytes = 0;             // highest end of a block
  int64_t lower_bound = 0;       // most bytes live at one moment: no placement needs less
};

/// Blocks that are live at the same moment do not overlap (unless their fixed offsets do). First fit in several orders, largest first to
/// begin with; the smallest result is taken, the first that reaches the lower bound ends the search. If all stay a thousandth above it
/// and blocks are few, what sticks out is placed first, a few times over. Deterministic; about n log n for steps
/// of models.
Placement place_blocks(std::span<const Lifetime> blocks);
}  // namespace reckon
