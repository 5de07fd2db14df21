#include "reckon/engine/compile.h"

#include <algorithm>
#include <cstdio>

#include "reckon/base/text.h"

namespace reckon {
namespace {
// The step with its calls going through a fuser.
struct FusedBody final : detail::StepBody {
  FusedBody(const detail::StepBody& body, Fuser& fuser) : step(body), through(fuser) {}
  Tensors run(const Tensors& in) const override {
    const FuserScope scope(through);
    Tensors out = step.run(in);
    through.finish();
    return out;
  }
  const detail::StepBody& step;
  Fuser& through;
};

// Most scratch of a group: tiles, which no unfused step has.
int64_t most_workspace(const DryRun& run) {
  int64_t most = 0;
  for (const CallRecord& c : run.calls)
    if (std::string_view(c.op->name) == "fused") most = std::max(most, c.workspace);
  return most;
}

std::string names_of(const FusedGroup& group) {
  std::string names;
  for (const OpDef* op : group.ops) names += (names.empty() ? "" : " ") + std::string(op->name);
  return names;
}
}  // namespace

CompiledStep::Entry& CompiledStep::entry(const Tensors& in) {
  const std::vector<TensorSpec> signature = detail::signature_of(in);
  for (const auto& e : entries_)
    if (e->signature == signature && e->autocast == context().autocast) return *e;
  auto made = std::make_unique<Entry>(Entry{signature, context().autocast, {}, {}});
  CompiledPlan& plan = made->plan;
  plan.unfused = detail::dry_run(device_, *body_, in, "step");
  if (device_.fused_kernel()) {
    Fuser observer(device_);
    detail::dry_run(device_, FusedBody(*body_, observer), in, "step");
    made->calls = observer.calls();
    plan.groups = observer.groups();
  }
  if (!plan.groups.empty()) {
    Fuser fuser(device_, made->calls);
    plan.run = detail::dry_run(device_, FusedBody(*body_, fuser), in, "step");
    // Inputs wait for their group: where that costs more memory than the group saves, the step stays as it is.
    if (!fuser.difference().empty() || plan.run.placement.bytes - most_workspace(plan.run) > plan.unfused.placement.bytes)
      plan.groups.clear();
  }
  if (plan.groups.empty()) plan.run = plan.unfused;
  std::vector<const SegmentPlan*> earlier;
  for (const auto& e : entries_) earlier.push_back(&e->plan.run.placement);
  detail::share_region(device_, plan.run.placement, earlier, region_bytes_);
  return *entries_.emplace_back(std::move(made));
}

const CompiledPlan& CompiledStep::plan(const Tensors& in) { return entry(in).plan; }

Tensors CompiledStep::operator()(const Tensors& in) {
  const Entry& e = entry(in);
  Allocator& allocator = device_.allocator();
  Fuser fuser(device_, e.calls);
  const FusedBody fused(*body_, fuser);
  const detail::StepBody& body = e.plan.groups.empty() ? *body_ : static_cast<const detail::StepBody&>(fused);
  allocator.begin_segment(e.plan.run.placement, true);
  try {
    Tensors out = detail::run_apart(body, in);
    const std::string left = allocator.close_segment();
    if (!fuser.difference().empty() || !left.empty()) fall_back(!fuser.difference().empty() ? fuser.difference() : left);
    return out;
  } catch (...) {
    allocator.abandon_segment();
    throw;
  }
}

void CompiledStep::fall_back(std::string difference) {
  if (fallbacks_++ == 0)
    std::fprintf(
        stderr,
        "compile: the step is not the one that was recorded for these shapes: %s; it went on unfused, outside of its plan (said once; "
        "fallbacks() counts)\n",
        difference.c_str());
  difference_ = std::move(difference);
}

std::string to_string(const CompiledPlan& plan) {
  std::string report;
  int64_t before = 0, after = 0;
  for (size_t i = 0; i < plan.groups.size(); ++i) {
    const FusedGroup& g = plan.groups[i];
    before += g.traffic_before;
    after += g.traffic_after;
    const auto equals = [&](const FusedGroup& o) { return o.ops == g.ops && o.shape == g.shape && o.traffic_after == g.traffic_after; };
    if (std::any_of(plan.groups.begin(), plan.groups.begin() + long(i), equals)) continue;
    const int64_t times = std::count_if(plan.groups.begin(), plan.groups.end(), equals);
    report +=
        text("{}{}: {} calls over {}, traffic {} -> {}, {} of results without memory\n", times > 1 ? text("{} x ", times) : "", names_of(g),
             g.ops.size(), g.shape, human_bytes(g.traffic_before), human_bytes(g.traffic_after), human_bytes(g.unstored));
  }
  if (plan.groups.empty()) return "nothing is fused\n";
  return report + text("{} groups: traffic {} -> {}, peak of the step {} -> {}\n", plan.groups.size(), human_bytes(before),
                       human_bytes(after), human_bytes(plan.unfused.step_peak), human_bytes(plan.run.step_peak));
}
}  // namespace reckon
