// backend/cpu/fused: a group of element-wise calls (engine/fused.h) in one pass, tile by tile: every call of the group on one tile, then
// the next tile. It has no arithmetic of its own.
#pragma once
#include "reckon/engine/fused.h"

namespace reckon::cpu {
/// Inputs and outputs once each, in tiles that stay in the L1 cache. Work is cut by size alone; sums are cut and added as reduce() does.
/// Large results go past the caches.
void run_fused(const KernelArgs& k);
/// Workspace: tiles for each lane, and the partial sums.
void book_fused(Plan& p);
}  // namespace reckon::cpu
