// plan/remedies: what to change when a run does not fit, and the largest that does. Every answer was planned before it is given.
#pragma once
#include <optional>

#include "reckon/plan/run_plan.h"

namespace reckon {

/// How far a change reaches, cheapest first.
enum class Reach : uint8_t {
  schedule,   // the same numbers in another order: smaller micro-batches, more of them; recomputation
  precision,  // the same training in another number format
  optimizer,  // other updates
  sequence,   // other samples
};
std::string_view name_of(Reach reach);

/// A configuration that fits, as changes of one that does not.
struct Remedy {
  std::vector<std::string> changes;  // "train.micro_batch=4"
  Reach reach = Reach::schedule;
  int64_t arena_bytes = 0;
  int64_t hardware_flops = 0;  // of one optimizer step
  std::optional<double> step_seconds;
};

/// The cheapest of each kind that fits, cheapest first: by reach, then by time or, where none is known, by FLOPs. The tokens of an
/// optimizer step stay what they are, but for Reach::sequence. `meta` opens the devices that the plans are made on. Empty if nothing fits.
std::vector<Remedy> find_remedies(const Config& config, const Device& meta, int64_t budget, bool saves = true);

/// Why the plan does not fit: the first block beyond the budget, who holds most at the peak; lines without a final newline.
std::string explain_refusal(const RunPlan& plan, int64_t budget);
/// Throws Error (memory), one line that names the cheapest remedy, if the plan needs more than the budget; explain_refusal and the other
/// remedies are its details.
void check_fits(const RunPlan& plan, const Device& meta, int64_t budget, bool saves = true);

/// What is to be made as large as possible.
enum class FitGoal : uint8_t { micro_batch, seq_len, fastest };
/// "micro_batch", "seq_len", "fastest"; throws Error (usage) for others.
FitGoal fit_goal(std::string_view word);

struct Fit {
  std::vector<std::string> changes;
  RunPlan plan;
};
/// The largest value that fits into the budget, or the configuration with most tokens per second among micro-batches and recomputation.
/// Throws Error (memory) if not even the smallest fits, and (usage) if `fastest` is asked of a machine without a measured profile.
Fit find_fit(const Config& config, const Device& meta, int64_t budget, FitGoal goal);
}  // namespace reckon
