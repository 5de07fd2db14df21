// plan/auto_recompute: which blocks to recompute, and how, so that a run fits its budget in the least time. Blocks are alike: what a mode
// keeps, needs and costs is read off one dry run of each, and every composition follows from that.
#pragma once
#include <array>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "reckon/nn/decoder.h"
#include "reckon/train/config.h"

namespace reckon {

struct RunPlan;  // plan/run_plan.h

/// One block in one mode.
struct BlockCost {
  BlockRecompute mode = BlockRecompute::none;
  int64_t kept_bytes = 0;  // from its forward pass to its backward pass
  // Most live bytes of the whole run while it works, forward or backward, if the blocks before it kept nothing and those after it had no
  // gradients yet.
  int64_t peak_bytes = 0;
  double cost = 0;         // of a step, beyond that of mode none: seconds, or recomputed FLOPs
};

/// A run as a function of its blocks' modes.
struct BlockModel {
  int64_t layers = 0;
  int64_t other_bytes = 0;       // most live bytes before and behind the blocks: whatever they keep is not there
  int64_t gradient_bytes = 0;    // of a block's parameters, there from its backward pass on; 0 if they were there before
  int64_t head_bytes = 0;        // most live bytes between their forward and backward pass, if they kept nothing
  std::vector<BlockCost> modes;  // three
};

/// Most live bytes of the run, one mode a block from the first on; indices of model.modes. While block i works those before it hold what
/// they keep, in both passes, and those after it, in the backward pass, their gradients: what the last blocks keep is there for the shortest
/// time.
int64_t peak_bytes(const BlockModel& model, std::span<const size_t> blocks);
double cost_of(const BlockModel& model, std::span<const size_t> blocks);

/// So many blocks of each mode, in best_order().
struct Composition {
  std::array<int64_t, 3> counts{};  // as model.modes
  int64_t peak_bytes = 0;
  double cost = 0;
};
/// Indices of the modes, those of the first blocks first, such that no other order of the same blocks has a lower peak: modes that keep less
/// than their gradients take, by rising peak_bytes; then the others, by falling peak_bytes - kept_bytes (if two neighbours stand the other
/// way round, exchanging them raises no peak).
std::vector<size_t> best_order(const BlockModel& model);
/// The composition's modes, one a block from the first on.
std::vector<size_t> blocks_of(const BlockModel& model, const Composition& composition);
/// Those whose live bytes stay within the budget, cheapest first, then smallest: no policy of these modes that fits costs less than the
/// first.
std::vector<Composition> compositions_within(const BlockModel& model, int64_t budget);
/// All of them, smallest first.
std::vector<Composition> compositions_by_size(const BlockModel& model);

/// Read off dry runs: all blocks in mode none, selective and full.
BlockModel block_model(const Config& config, const Device& meta, bool saves, bool evaluates);

/// What auto chose, and how good it is.
struct AutoRecompute {
  std::string blocks;  // as train.recompute_blocks
  int64_t budget_bytes = 0, arena_bytes = 0;
  bool in_seconds = false;  // cost in predicted seconds of a step; else in recomputed FLOPs: this machine was not measured
  double cost = 0;          // beyond a step without recomputation
  double bound = 0;         // no policy of these modes with so few live bytes costs less
  double base = 0;          // seconds or FLOPs of a step without recomputation
  bool fits() const { return arena_bytes <= budget_bytes; }
  /// Share by which the step is more than at the bound; 0: nothing better exists.
  double gap() const { return base + bound > 0 ? (cost - bound) / (base + bound) : 0; }
};
std::string to_string(const AutoRecompute& choice);

/// True if train.recompute=auto is still to be chosen.
bool is_open_auto(const Config& config);
/// The plan of the cheapest policy that fits memory.budget, or else available memory: dry-run as it is. If none fits, the smallest plan.
/// Throws Error (usage) above 1024 layers.
RunPlan plan_auto_recompute(const Config& config, const Device& meta, bool saves, bool evaluates);
}  // namespace reckon
