// engine/call: the only dispatcher: plan, account, allocate, launch, remember.
#pragma once
#include "reckon/engine/op.h"

namespace reckon {

/// Runs one operation on the device of its inputs. Throws Error (op, cause, inputs) before memory is taken if the plan refuses.
/// Inputs moved in may give their storage to output 0 (OpDef::reuse).
Tensors call(const OpDef& op, Tensors in, const Params& params = {});
/// The same for operations without inputs.
Tensors call_on(Device& device, const OpDef& op, Tensors in, const Params& params = {});

/// A list that moves what it is given (an initializer list would copy, and a copy prevents reuse).
template <class... T>
Tensors tensors(T&&... items) {
  Tensors list;
  list.reserve(sizeof...(items));
  (list.push_back(std::forward<T>(items)), ...);
  return list;
}

/// True if a graph is being recorded and one of the tensors takes part in it.
bool tracked(const Tensors& in);

namespace detail {
/// Runs a row into outputs that exist, as the device's fused_kernel(): its plan, meter, workspace and launch.
void run_into(const OpDef& op, const KernelRow& kernel, const Tensors& in, Tensors& out, const Params& params, Device& device);
}  // namespace detail

namespace op {
// The rows the engine itself calls; ops defines them.
extern const OpDef add;         // a, b -> a + b, broadcast
extern const OpDef contiguous;  // x -> row-major copy
extern const OpDef cast;        // x -> x in CastParams::to
extern const OpDef fill;        // -> FillParams
extern const OpDef accumulate;  // slot, g: slot = (AccumulateParams::keep ? slot : 0) + g, in the slot's dtype
}  // namespace op

struct CastParams {
  DType to;
};
struct FillParams {
  double value = 0;
  DType dtype = DType::f32;
  uint8_t rank = 0;
  int64_t extents[kMaxRank] = {};
  FillParams() = default;
  FillParams(const TensorSpec& spec, double v);
  TensorSpec spec() const;
};
struct AccumulateParams {
  bool keep;
};
}  // namespace reckon
