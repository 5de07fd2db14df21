// cli/op_cases_judge: what is derived from a case: values against the reference, gradients against differences, meta against real, and the
// same bits on any number of threads. Every function returns what went wrong first, or "".
#pragma once
#include "reckon/cli/op_cases.h"

namespace reckon {

/// A real and a meta device that see the same calls, so that their traces can be compared at any time.
struct DevicePair {
  Ref<Device> real, meta;
};

/// Values against the reference evaluated on the inputs as they were rounded to `dtype`. The tolerance is the one the reference computed.
std::string judge_values(const OpCase& c, Device& device, DType dtype);

/// Gradients of sum(result * cotangent) in float64 against central differences of fourth order, for every floating-point input:
/// error <= 1e-6 of the largest. All elements of small inputs; of large ones some, and a random direction through all.
/// "" too for cases without a gradient.
std::string judge_gradients(const OpCase& c, Device& device);

/// Gradients in a narrower type against those in float64 of the same rounded inputs, up to the rounding of a few operations.
std::string judge_narrow_gradients(const OpCase& c, Device& device, DType dtype);

/// The gradient that a leaf accumulates in a slot over two passes, and after it was emptied, is the one that it gets without.
std::string judge_slots(const OpCase& c, Device& device);

/// Gradients of gradients of small inputs against differences of gradients, which run the fused rules.
std::string judge_second_order(const OpCase& c, Device& device);

/// Trace hash, ledger, FLOPs, bytes and results' shapes of the forward and backward pass on meta and on the real device.
std::string judge_meta(const OpCase& c, const DevicePair& devices, DType dtype);

/// A hash of the bytes of results and gradients, to be compared between numbers of threads.
uint64_t bits_of(const OpCase& c, Device& device, DType dtype);

/// Names of the rows that the case runs, forward and backward.
std::vector<std::string> rows_of(const OpCase& c, Device& meta);
}  // namespace reckon
