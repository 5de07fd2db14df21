// engine/compile: a planned step whose element-wise chains run fused. The step stays ordinary code; it is observed once for each
// combination of input shapes, without data.
#pragma once
#include "reckon/engine/fuser.h"
#include "reckon/engine/planned.h"

namespace reckon {

/// What one combination of input shapes takes, with fusion and without.
struct CompiledPlan {
  DryRun run;                      // what runs
  DryRun unfused;                  // the same step, each call by itself
  std::vector<FusedGroup> groups;  // in the order they run; empty: nothing is fused, and both are the same
};
/// One line a group (equal ones in one line), and a line for the whole step: operations, bytes saved, traffic before and after.
std::string to_string(const CompiledPlan& plan);

/// A step that runs inside its plan, with its element-wise calls in groups, each one pass over its data: the bits of the unfused step, less
/// memory and traffic. What only a group reads has no memory. The first call with new input shapes rehearses the step, as PlannedStep does,
/// and refuses it (exit 3) over the budget. A step that then makes other calls, or holds or reads what has no memory, is right all the
/// same: the call falls back to the unfused step, which runs beside the region and beyond the plan, and the first such call says so on
/// stderr. What a call returns is valid until the next one, before which the caller must let go of it.
class CompiledStep {
 public:
  template <class F>
  CompiledStep(Device& device, F step) : device_(device), body_(detail::step_body(std::move(step))) {}

  Tensors operator()(const Tensors& in);
  /// The plan for these inputs; made if it is new.
  const CompiledPlan& plan(const Tensors& in);
  /// Different input shapes, and types of Autocast around the call, met so far.
  size_t plans() const { return entries_.size(); }
  /// Bytes of the shared region.
  int64_t region_bytes() const { return region_bytes_; }
  /// Calls that left their plan, and what the last of them did otherwise.
  int64_t fallbacks() const { return fallbacks_; }
  const std::string& last_difference() const { return difference_; }

 private:
  struct Entry {
    std::vector<TensorSpec> signature;
    DType autocast;
    CompiledPlan plan;
    std::vector<Fuser::CallPlan> calls;
  };
  Entry& entry(const Tensors& in);
  void fall_back(std::string difference);

  Device& device_;
  Ref<detail::StepBody> body_;
  std::vector<std::unique_ptr<Entry>> entries_;
  int64_t region_bytes_ = 0;
  int64_t fallbacks_ = 0;
  std::string difference_;
};

/// compile(device, step): the step, to be called like itself.
template <class F>
CompiledStep compile(Device& device, F step) {
  return CompiledStep(device, std::move(step));
}
}  // namespace reckon
