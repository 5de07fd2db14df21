// train/machine: this machine's measured peaks, kept between runs, so that utilization is a share of something that was measured.
#pragma once
#include <optional>
#include <string>

#include "reckon/tensor/dtype.h"

namespace reckon {

struct MachineProfile {
  std::string cpu;  // model name, as the system gives it
  int lanes = 0;
  double f32_flops_per_second = 0;  // best matrix product
  double bf16_flops_per_second = 0;
  double copy_bytes_per_second = 0;  // read and written bytes of a large copy
};

/// Where the profile is kept: $RECKON_CACHE, else $XDG_CACHE_HOME/reckon, else ~/.cache/reckon; "" if none of them is known.
std::string cache_directory();
std::string local_cpu_name();
/// The profile measured on this machine (`reckon bench device`), if there is one and it names this CPU and this number of lanes.
std::optional<MachineProfile> load_machine_profile(int lanes);
/// Throws Error if it cannot be written.
void save_machine_profile(const MachineProfile& profile);
/// Peak for computing in this precision.
double peak_flops(const MachineProfile& profile, DType dtype);
}  // namespace reckon
