// train/recompute: a policy of recomputation as a configuration writes it, and as the decoder takes it.
#pragma once
#include "reckon/nn/decoder.h"
#include "reckon/train/config.h"

namespace reckon {

/// Throws Error (usage) if train.recompute_blocks is not a list of none, selective, full or segment, each with ":COUNT" or alone for one
/// block, separated by commas or spaces, that sums to model.layers; or if train.recompute says something else for all blocks.
void check_recompute(const Config& config);

/// The policy of a valid configuration. Throws Error if it is auto and nothing was chosen yet (plan/auto_recompute). Empty for the
/// cruncher.
RecomputePolicy recompute_policy(const Config& config);

/// As train.recompute_blocks writes it, equal neighbours counted together: "full:3,selective:1,none:8".
std::string to_string(const RecomputePolicy& policy);
/// For people: "none", "selective", "full:3,none:9", "auto (full:3,none:9)".
std::string recompute_text(const TrainConfig& train);
/// True if backward may compute anything again.
bool recomputes(const TrainConfig& train);
}  // namespace reckon
