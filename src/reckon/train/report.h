// train/report: what a run knows of itself, predicted or measured, in the schema that `plan --json` and summary.json share.
#pragma once
#include <optional>

#include "reckon/engine/meter.h"
#include "reckon/io/json.h"
#include "reckon/train/process_memory.h"

namespace reckon {

/// One document of the schema. Absent values are written as null. Per step: one optimizer step over all its micro-batches.
struct RunReport {
  std::optional<int64_t> parameters;
  std::optional<Ledger> memory;
  std::string trace_hash;  // of everything up to the end of the first optimizer step; "" if none
  std::optional<Flops> flops_per_step;
  std::optional<double> step_seconds, tokens_per_second, mfu, hfu;
  std::optional<double> loss_train, loss_validation, bits_per_byte;
};
void write_report(JsonWriter& json, const RunReport& report);

/// The process, which is more than the ledger: resident bytes, and whose they are.
struct ProcessReport {
  std::optional<int64_t> predicted_rss_bytes, peak_rss_bytes;
  std::optional<ProcessMemory> predicted, measured;  // measured at the end of that step, or of the run, where most was resident
};
/// {"predicted": ..., "measured": ..., "process": ...}, indented, with a final newline.
std::string summary_json(const RunReport& predicted, const RunReport& measured, const ProcessReport& process);

/// Memory that new allocations can use without swapping, bytes: the system's estimate, cut to this process's cgroup limit.
int64_t available_memory_bytes();
/// What a cgroup (v2, its directory) still grants, counting the page cache as free; -1 if it has no limit.
int64_t cgroup_available_bytes(const std::string& directory);

/// Mean and rate over the last steps; robust against a slow first one.
class StepTimer {
 public:
  void add(double seconds) { seconds_.push_back(seconds); }
  /// Median of all steps but the first (if there are more); 0 before the first.
  double median() const;
  /// Mean of the last up to 20 steps; 0 before the first.
  double recent() const;
  /// How many steps that is.
  int64_t recent_steps() const;

 private:
  std::vector<double> seconds_;
};
}  // namespace reckon
