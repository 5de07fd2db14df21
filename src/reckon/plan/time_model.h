// plan/time_model: how long a planned step takes. Every call of the dry run is looked up in tables measured on this machine; nothing is
// guessed: a call without a table leaves the time unknown. For machines known by their data sheet there is a bound instead.
#pragma once
#include <optional>

#include "reckon/plan/device_profiles.h"
#include "reckon/plan/run_plan.h"
#include "reckon/train/machine.h"

namespace reckon {

/// Which table a call is looked up in, and where: matrix products, and a head with its loss, by (rows, out, in), attention by (groups of a
/// key head, query heads a key head, tokens, head width), everything else by bytes moved.
struct TimeKey {
  std::string table;
  std::vector<double> at;
};
TimeKey time_key(const CallRecord& call);

/// Piecewise linear in the logarithms of extents and seconds: exact at the table's points, monotone. Beyond the largest point time grows as
/// the work does; below the smallest it stays. `at` has one value an axis.
double interpolate(const TimeTable& table, std::span<const double> at);

/// What a window and a chunk leave of the work of whole sequences, by which attention's tables are measured; 1 for other calls.
double share_of_pairs(const CallRecord& call);

/// Seconds of the call's kernel on the machine of the profile; none if the profile has no table for it.
std::optional<double> predict_seconds(const CallRecord& call, const MachineProfile& profile);

/// One call of the step. compute_bound: its FLOPs take longer than its bytes at the machine's peaks.
struct CallTime {
  double start = 0;  // from the start of the step, seconds
  double seconds = 0;
  double flops_per_byte = 0;  // arithmetic intensity, of all FLOPs
  bool compute_bound = false;
};

struct TimeTotal {
  std::string name;  // of the operation, phase or module
  int64_t calls = 0;
  double seconds = 0;
  Flops flops;
  int64_t bytes = 0;
};

struct StepTime {
  std::optional<double> seconds;                      // of one optimizer step: calls and between; none if a call has no table
  std::string unknown;                                // the table that is missing, "rope bf16"; "" if none is
  bool is_bound = false;                              // from a data sheet: no step is faster; not a prediction
  double between_seconds = 0;                         // between the calls: planning, allocation, launches
  std::vector<CallTime> calls;                        // as in RunPlan::calls
  std::vector<TimeTotal> by_op, by_phase, by_module;  // longest first
};

/// What the step takes on the machine of the profile.
StepTime predict_step(const RunPlan& plan, const MachineProfile& profile);

/// No step is faster than this on the device, by its data sheet: each call at its peak or its bandwidth, whichever takes longer, and
/// nothing between them. Throws Error (usage) if the data sheet has no peak for the precision.
StepTime bound_step(const RunPlan& plan, const HardwareProfile& device);

/// Fills step_seconds, tokens_per_second, mfu and hfu of plan.predicted; clears them if the profile or one of its tables is missing.
/// Returns what to tell the user then, one line, else "".
std::string predict_time(RunPlan& plan, const std::optional<MachineProfile>& profile);

/// "step predicted 0.0213 s, measured 0.0220 s (-3.2 %)"; "" if one of them is unknown.
std::string compare_times(const RunReport& predicted, const RunReport& measured);
}  // namespace reckon
