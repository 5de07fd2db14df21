// train/machine: what was measured on this machine, kept between runs: peaks, so that utilization is a share of something, and how long
// each operation takes, so that the time of a step can be predicted (plan/time_model). Knows how to keep it, not how to measure it.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "reckon/tensor/dtype.h"

namespace reckon {

/// Seconds of one kind of call, measured at the points of a grid: seconds[(i0 * size(axis 1) + i1) * size(axis 2) + ...]. Axes rise
/// strictly and are positive; seconds are positive and never fall along an axis.
struct TimeTable {
  std::string key;  // plan/time_model: operation and dtype, "linear bf16"
  std::vector<std::vector<double>> axes;
  std::vector<double> seconds;
  bool operator==(const TimeTable&) const = default;
};

struct MachineProfile {
  std::string cpu;  // model name, as the system gives it
  int lanes = 0;
  double f32_flops_per_second = 0;  // best matrix product
  double bf16_flops_per_second = 0;
  double copy_bytes_per_second = 0;  // read and written bytes of a large copy
  std::vector<TimeTable> tables;     // of every operation of a training step
  double call_factor = 1;            // a step's time is call_factor times the tables' sum,
  double call_overhead_seconds = 0;  // and this much for each call
  bool operator==(const MachineProfile&) const = default;
};

/// Where the profile is kept: $RECKON_CACHE, else $XDG_CACHE_HOME/reckon, else ~/.cache/reckon; "" if none of them is known.
std::string cache_directory();
std::string local_cpu_name();
/// The profile measured on this machine (`reckon bench device`), if there is one of this version and it names this CPU and this number of
/// lanes. A damaged one is none.
std::optional<MachineProfile> load_machine_profile(int lanes);
/// Throws Error if it cannot be written.
void save_machine_profile(const MachineProfile& profile);
/// The profile as JSON and back. Reading throws Error (corrupt) for anything that write cannot have written; source: what errors call it.
std::string write_machine_profile(const MachineProfile& profile);
MachineProfile read_machine_profile(std::string_view json, const std::string& source);
/// Peak for computing in this precision. float16 is multiplied in float32 (backend/cpu/gemm.h), so its peak is that of float32.
double peak_flops(const MachineProfile& profile, DType dtype);
}  // namespace reckon
