// backend/cpu/device: opens the CPU, for real or as meta. Only programs and tests include it.
#pragma once
#include "reckon/tensor/device.h"

namespace reckon {

/// The profile of this machine: one lane a core, at least two.
DeviceProfile local_cpu_profile();
/// A CPU device with its own memory. On meta nothing is reserved and no kernel runs; plans and traces are the same.
Ref<Device> open_cpu(Mode mode, const DeviceProfile& profile = local_cpu_profile());
}  // namespace reckon
