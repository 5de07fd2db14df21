#include "reckon/plan/run_plan.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "reckon/engine/context.h"
#include "reckon/plan/remedies.h"
#include "reckon/plan/time_model.h"
#include "reckon/train/saved_run.h"

namespace reckon {
namespace {
// Live bytes after each event; a running sum over the trace.
int64_t change(const AllocationEvent& e) { return e.is_alloc ? e.bytes : -e.bytes; }

// Each segment of the recorded run is a part of it.
std::vector<RunPart> parts_of(std::span<const AllocationEvent> events, std::span<const SegmentMark> marks) {
  std::vector<RunPart> parts;
  int64_t live = 0, steps = 0;
  for (const SegmentMark& mark : marks) {
    const std::string name = mark.name != "step" ? mark.name : steps++ == 0 ? "first step" : "steady step";
    RunPart& part = parts.emplace_back(RunPart{name, mark.begin, mark.end, live});
    for (size_t i = part.begin; i < part.end; ++i) part.peak_bytes = std::max(part.peak_bytes, live += change(events[i]));
  }
  return parts;
}
}  // namespace

std::vector<size_t> blocks_at_peak(std::span<const AllocationEvent> events) {
  int64_t live = 0, peak = 0;
  size_t at = 0;
  for (size_t i = 0; i < events.size(); ++i) {
    live += change(events[i]);
    if (live > peak) peak = live, at = i + 1;
  }
  std::map<int64_t, size_t> blocks;  // by serial: in the order of allocation
  for (size_t i = 0; i < at; ++i) {
    if (events[i].is_alloc) {
      blocks.emplace(events[i].serial, i);
    } else {
      blocks.erase(events[i].serial);
    }
  }
  std::vector<size_t> indices;
  for (const auto& [serial, i] : blocks) indices.push_back(i);
  return indices;
}

std::vector<Holder> holders_at_peak(std::span<const AllocationEvent> events) {
  std::vector<Holder> holders;
  std::map<std::tuple<Category, uint32_t, std::string_view>, size_t> index;
  for (const size_t i : blocks_at_peak(events)) {
    const AllocationEvent& e = events[i];
    const auto [found, is_new] = index.emplace(std::tuple(e.category, e.module, std::string_view(e.op)), holders.size());
    if (is_new) holders.push_back({e.category, e.module, e.op});
    holders[found->second].bytes += e.bytes;
    ++holders[found->second].blocks;
  }
  std::stable_sort(holders.begin(), holders.end(), [](const Holder& a, const Holder& b) { return a.bytes > b.bytes; });
  return holders;
}

// A run with text evaluates, unless it turns out to be too short.
RunPlan plan_run(const Config& config, Device& meta, bool saves) {
  return plan_run(config, meta, saves, !config.model.cruncher && !config.data.path.empty() && config.data.validation_fraction > 0);
}

RunPlan plan_run(const Config& config, Device& meta, bool saves, bool evaluates) {
  check(meta.is_meta(), "a run is planned on meta: open the device with Mode::meta");
  Allocator& allocator = meta.allocator();
  check(allocator.ledger().allocations == 0, "a run is planned on a fresh device");
  if (is_open_auto(config)) return plan_auto_recompute(config, meta, saves, evaluates);
  RunPlan plan;
  plan.config = config;
  allocator.record_events(true);
  TrainStep step(config, meta);
  const SyntheticBatches none(config.model.vocab, 0);
  step.run(0, none);
  plan.predicted.trace_hash = allocator.trace_hash();
  Meter meter;
  {
    const MeterScope scope(meter);
    meter.record_calls(true);
    step.run(1, none);
  }
  if (evaluates) step.evaluate(none, 1);
  if (saves) save_checkpoint(step, 2);
  plan.predicted.parameters = step.parameters().count();
  plan.predicted.memory = allocator.ledger();
  plan.predicted.flops_per_step = meter.total();
  plan.work = meter.rows();
  plan.calls = meter.calls();
  plan.events = allocator.events();
  plan.arena = plan_arena(plan.events, allocator.marks());
  plan.predicted.memory->extent = plan.arena.bytes;
  plan.at_peak = holders_at_peak(plan.events);
  plan.parts = parts_of(plan.events, allocator.marks());
  plan.note = predict_time(plan, load_machine_profile(meta.profile().lanes));
  return plan;
}

namespace {
// What a run keeps of its plan and of its calls: the arena's plan here and in the allocator, the calls of a step here and in the meter.
int64_t record_bytes(const RunPlan& plan) {
  size_t arena = 0, calls = 0;
  for (const SegmentPlan& s : plan.arena.segments) arena += s.events.size() * sizeof(AllocationEvent) + s.offsets.size() * sizeof(int64_t);
  for (const CallRecord& c : plan.calls) calls += sizeof c + (c.in.size() + c.out.size()) * sizeof(TensorSpec);
  return int64_t(2 * (arena + calls));
}
}  // namespace

TrainOutcome plan_and_train(const Config& config, Device& device, Device& meta, const TrainOptions& options) {
  const int64_t budget = budget_bytes(config);
  // On a device that goes away with its records: a run is long, and only reports need them.
  const auto fitting_plan = [&](bool evaluates) {
    RunPlan plan = plan_run(config, *meta.open_meta(), options.keep_files, evaluates);
    check_fits(plan, meta, budget, options.keep_files);
    return plan;
  };
  // Before a text is read and a tokenizer trained, without the evaluation that may not come.
  RunPlan plan = fitting_plan(false);
  TrainOptions with_records = options;
  if (with_records.runtime) (*with_records.runtime)[MemoryClass::heap] += record_bytes(plan);
  with_records.note = plan.note;
  RunSetup setup(plan.config, with_records);
  if (setup.evaluates()) {
    plan = fitting_plan(true);
    setup.choose(plan.config.train.recompute_blocks);
  }
  const RunReport predicted = std::move(plan.predicted);
  const ArenaPlan arena = std::move(plan.arena);
  plan = {};
  return train(setup, device, predicted, arena);
}
}  // namespace reckon
