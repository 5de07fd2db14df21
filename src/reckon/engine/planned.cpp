#include "reckon/engine/planned.h"

#include <algorithm>
#include <set>

#include "reckon/base/text.h"
#include "reckon/engine/autocast.h"

namespace reckon {
namespace {
// While it lives the device has no data. Gradients and their slots are put back before the allocator is.
class Rehearsal {
 public:
  explicit Rehearsal(Device& device) : device_(device) {
    device_.allocator().begin_rehearsal();
    device_.set_gradient_journal(&journal_);
  }
  // After an exception: the books are put back, what is left behind is not another error.
  ~Rehearsal() {
    try {
      if (open_) end();
    } catch (const Error&) {
    }
  }
  Rehearsal(const Rehearsal&) = delete;
  Rehearsal& operator=(const Rehearsal&) = delete;
  void end() {
    open_ = false;
    device_.set_gradient_journal(nullptr);
    journal_.undo();
    device_.allocator().end_rehearsal();
  }

 private:
  Device& device_;
  GradientJournal journal_;
  bool open_ = true;
};

// What the step returns may live on; everything else must be gone.
void check_left(std::span<const AllocationEvent> events, int64_t first, const Tensors& out) {
  std::set<int64_t> live;
  for (const AllocationEvent& e : events) e.is_alloc ? void(live.insert(e.serial)) : void(live.erase(e.serial));
  for (const Tensor& t : out)
    if (t.defined()) live.erase(t.storage().block().serial - first);
  if (live.empty()) return;
  const auto left =
      std::find_if(events.begin(), events.end(), [&](const AllocationEvent& e) { return e.is_alloc && e.serial == *live.begin(); });
  fail("the step leaves {} {} of {} behind: what outlives a step is made before it (a gradient has a slot), or returned by it",
       human_bytes(left->bytes), name_of(left->category), left->op);
}

// True if `longer` has room for every block of `plan`, in the same sequence: then its offsets serve both.
bool fits_under(const SegmentPlan& plan, const SegmentPlan& longer) {
  return std::equal(plan.events.begin(), plan.events.end(), longer.events.begin(), longer.events.end(),
                    [](const AllocationEvent& a, const AllocationEvent& b) {
                      return a.is_alloc == b.is_alloc && a.serial == b.serial && a.bytes <= b.bytes;
                    });
}
}  // namespace

Tensors detail::run_apart(const StepBody& body, const Tensors& in) {
  const OwnCasts casts;
  return body.run(in);
}

DryRun detail::dry_run(Device& device, const StepBody& body, const Tensors& in, std::string_view name) {
  DryRun run;
  Allocator& allocator = device.allocator();
  Meter meter;
  meter.record_calls(true);
  Rehearsal rehearsal(device);
  const int64_t first = allocator.ledger().allocations;  // serials count allocations
  {
    const MeterScope scope(meter);
    const Tensors out = run_apart(body, in);
    run.events = allocator.events();
    run.memory = allocator.ledger();
    for (AllocationEvent& e : run.events) e.serial -= first;
    check_left(run.events, first, out);
  }
  rehearsal.end();
  run.work = meter.rows();
  run.calls = meter.calls();
  run.flops = meter.total();
  run.placement = SegmentPlan::make(std::string(name), run.events, true);
  run.step_peak = run.placement.lower_bound;
  return run;
}

std::vector<TensorSpec> detail::signature_of(const Tensors& in) {
  std::vector<TensorSpec> signature;
  for (const Tensor& t : in) signature.push_back(t.defined() ? t.spec() : TensorSpec{});
  return signature;
}

void detail::share_region(Device& device, SegmentPlan& own, std::span<const SegmentPlan* const> earlier, int64_t& region_bytes) {
  for (const SegmentPlan* longer : earlier) {
    if (own.bytes <= region_bytes) break;
    if (!fits_under(own, *longer)) continue;
    own.offsets = longer->offsets;
    own.bytes = longer->bytes;
  }
  device.allocator().reserve_region(own.bytes);
  region_bytes = std::max(region_bytes, own.bytes);
}

const DryRun& PlannedStep::plan(const Tensors& in) {
  const std::vector<TensorSpec> signature = detail::signature_of(in);
  for (const Entry& e : entries_)
    if (e.signature == signature && e.autocast == context().autocast) return *e.run;
  auto run = std::make_unique<DryRun>(detail::dry_run(device_, *body_, in, "step"));
  std::vector<const SegmentPlan*> earlier;
  for (const Entry& e : entries_) earlier.push_back(&e.run->placement);
  detail::share_region(device_, run->placement, earlier, region_bytes_);
  return *entries_.emplace_back(Entry{signature, context().autocast, std::move(run)}).run;
}

Tensors PlannedStep::operator()(const Tensors& in) {
  const DryRun& run = plan(in);
  Allocator& allocator = device_.allocator();
  allocator.begin_segment(run.placement);
  try {
    Tensors out = detail::run_apart(*body_, in);
    allocator.end_segment();
    return out;
  } catch (...) {
    allocator.abandon_segment();
    throw;
  }
}
}  // namespace reckon
