// backend/cpu/fused_places: where each value of a fused group lives while the group runs. A pure function of the program: workspace is
// booked by it, too.
#pragma once
#include <array>

#include "reckon/engine/fused.h"

namespace reckon::cpu {
inline constexpr int kMaxFusedValues = FusedProgram::kMaxInputs + FusedProgram::kMaxCalls;

/// A value lies in the memory of an input or output, in a tile (its dtype, some KiB), or, if the group runs by blocks, in a register: one
/// block of floats. Tiles and registers are scratch, of each lane.
struct FusedPlaces {
  using Numbers = std::array<int, kMaxFusedValues>;
  Numbers tile;        // of each value; -1: none
  Numbers loaded_at;   // of an input with a tile: the call before which it is loaded; -1: once a task, for it never changes
  Numbers block;       // its register; -1: none
  Numbers widened_at;  // of an input with a register: the call before which it is widened
  bool by_blocks = false;
  bool streams = false;  // results go past the caches
  int tiles = 0, registers = 0;
  int64_t elements = 0;  // that are evaluated at once; those of a tile
  int64_t tile_bytes = 0;
  int64_t tiles_bytes = 0;  // of all tiles; never shrinks when an extent grows

  explicit FusedPlaces(const FusedProgram& program);
  int64_t lane_bytes() const;
  int64_t registers_at() const { return tiles_bytes; }

 private:
  void place_by_blocks(const FusedProgram& program);
  void place_by_tiles(const FusedProgram& program);
  void place_singles(const FusedProgram& program);
  void cut(const FusedProgram& program);
};

/// Elements in one task: more where results are streamed, so that each thread reads on in one place.
int64_t fused_grain(const FusedPlaces& places);
}  // namespace reckon::cpu
