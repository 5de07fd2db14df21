// backend/cpu/device: opens the CPU, for real or as meta. Only programs and tests include it.
#pragma once
#include "reckon/tensor/device.h"

namespace reckon {

/// The profile of this machine: one lane a core, at least two.
DeviceProfile local_cpu_profile();
/// A CPU device with its own memory. On meta nothing is reserved and no kernel runs; plans and traces are the same.
/// `guard` helps to find kernels that touch what is not theirs, at a price in speed.
Ref<Device> open_cpu(Mode mode, const DeviceProfile& profile = local_cpu_profile(), Guard guard = Guard::none);
}  // namespace reckon
