// engine/planned: a step as ordinary code, run once without data to learn what it takes, then run inside exactly that. One plan for each
// combination of input shapes.
#pragma once
#include <memory>
#include <span>

#include "reckon/engine/meter.h"
#include "reckon/memory/arena.h"

namespace reckon {

/// What one run of a piece of code takes, found by running it without data.
struct DryRun {
  Ledger memory;                        // peaks include what was live before; live, allocations and extent are as before
  int64_t step_peak = 0;                // most bytes of the step's own blocks live at one moment
  std::vector<AllocationEvent> events;  // serials count from the step's first block
  std::vector<MeterRow> work;
  std::vector<CallRecord> calls;
  SegmentPlan placement;
  Flops flops;
};

namespace detail {
struct StepBody : RefCounted {
  virtual Tensors run(const Tensors& in) const = 0;
};
/// The step, whatever an Autocast scope around it has cast before.
Tensors run_apart(const StepBody& body, const Tensors& in);
DryRun dry_run(Device& device, const StepBody& body, const Tensors& in, std::string_view name);
/// Specs of the inputs; what a plan is found by.
std::vector<TensorSpec> signature_of(const Tensors& in);
/// Makes room for one more plan in the region that all plans of a step share: a plan that fits under an earlier one takes its offsets.
/// Throws Error (memory) if the region would be over the budget.
void share_region(Device& device, SegmentPlan& own, std::span<const SegmentPlan* const> earlier, int64_t& region_bytes);

template <class F>
Ref<StepBody> step_body(F step) {
  struct Closure final : StepBody {
    F function;
    explicit Closure(F f) : function(std::move(f)) {}
    Tensors run(const Tensors& in) const override { return function(in); }
  };
  return Ref<StepBody>(new Closure(std::move(step)));
}
}  // namespace detail

/// Runs `step(inputs) -> Tensors` on a device without data: a meta device, or a real one, whose tensors and gradients are as before
/// afterwards. The step must not branch on values and must leave nothing behind but what it returns (gradients want slots: see
/// nn/parameters). Throws Error naming the block that it leaves.
template <class F>
DryRun dry_run(Device& device, F step, const Tensors& in = {}) {
  return detail::dry_run(device, *detail::step_body(std::move(step)), in, "step");
}

/// A step that runs inside its plan. The first call with new input shapes rehearses it, refuses it (exit 3) if all blocks together exceed
/// the device's budget, and keeps the plan, one more for calls inside of Autocast; a call that then does anything else is an error naming
/// the operation and the first difference. The blocks of all shapes share one region, as large as the largest needs; shorter inputs fit
/// into the region of longer ones. What a call returns is valid until the next one, before which the caller must let go of it.
class PlannedStep {
 public:
  template <class F>
  PlannedStep(Device& device, F step) : device_(device), body_(detail::step_body(std::move(step))) {}

  Tensors operator()(const Tensors& in);
  /// The plan for these inputs; made if it is new.
  const DryRun& plan(const Tensors& in);
  /// Different input shapes, and types of Autocast around the call, met so far.
  size_t plans() const { return entries_.size(); }
  /// Bytes of the shared region.
  int64_t region_bytes() const { return region_bytes_; }

 private:
  struct Entry {
    std::vector<TensorSpec> signature;
    DType autocast;
    std::unique_ptr<DryRun> run;
  };
  Device& device_;
  Ref<detail::StepBody> body_;
  std::vector<Entry> entries_;
  int64_t region_bytes_ = 0;
};

/// planned(device, step): the step, to be called like itself.
template <class F>
PlannedStep planned(Device& device, F step) {
  return PlannedStep(device, std::move(step));
}
}  // namespace reckon
