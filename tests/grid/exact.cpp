#include "tests/grid/exact.h"

#include <stdlib.h>

#include <filesystem>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/parallel.h"
#include "reckon/base/philox.h"
#include "reckon/base/text.h"
#include "reckon/data/token_file.h"
#include "reckon/engine/context.h"

namespace grid {

Workplace::Workplace() {
  ::setenv("RECKON_CACHE", (folder_ / "cache").c_str(), 1);  // no machine profile, no tokens of other runs
  tokens_ = folder_ / "tokens.npy";
  std::vector<int32_t> ids;
  for (uint64_t i = 0; i < 2000; ++i) ids.push_back(int32_t(philox(5, 0, i)[0] % uint64_t(kTokenIds)));
  TokenFileWriter writer(tokens_, kTokenIds);
  writer.append(ids);
  writer.finish();
}
void Workplace::clear() const { std::filesystem::remove_all(folder_ / "run"); }

RunPlan plan_of(const Configuration& configuration, const Config& config) {
  const Ref<Device> meta = open_cpu(Mode::meta, configuration.profile);
  return plan_run(config, *meta, configuration.keeps_files);
}

Done run(const Configuration& configuration, const Config& config) {
  const Ref<Device> meta = open_cpu(Mode::meta, configuration.profile), device = open_cpu(Mode::real, configuration.profile);
  set_thread_count(configuration.threads);
  device->allocator().record_events(true);
  const TrainOutcome outcome = plan_and_train(config, *device, *meta, {.keep_files = configuration.keeps_files, .quiet = true});
  return {outcome.measured, device->allocator().events(), device->allocator().marks()};
}

namespace {
class Differences {
 public:
  template <class T>
  void compare(const std::string& what, const T& planned, const T& got) {
    if (!(planned == got)) lines_.push_back(text("{}: planned {}, got {}", what, planned, got));
  }
  void add(const std::string& line) { lines_.push_back(line); }
  std::vector<std::string> take() { return std::move(lines_); }

 private:
  std::vector<std::string> lines_;
};

void compare_memory(const Ledger& planned, const Ledger& got, Differences& d) {
  d.compare("memory.peak_bytes", planned.peak, got.peak);
  d.compare("memory.arena_bytes", planned.extent, got.extent);
  for (size_t i = 0; i < kCategories; ++i) d.compare(text("memory.at_peak.{}", name_of(Category(i))), planned.at_peak[i], got.at_peak[i]);
  for (size_t i = 0; i < kPhases; ++i) d.compare(text("memory.phases.{}", name_of(Phase(i))), planned.phase_peak[i], got.phase_peak[i]);
  int64_t sum = 0;
  for (const int64_t bytes : got.at_peak) sum += bytes;
  d.compare("sum of memory.at_peak", got.peak, sum);
}

// "" if the segment is the planned one, event for event.
std::string segment_difference(const SegmentPlan& plan, std::span<const AllocationEvent> events) {
  int64_t first = events.empty() ? 0 : events[0].serial;
  for (size_t i = 0; i < std::max(events.size(), plan.events.size()); ++i) {
    if (i >= events.size() || i >= plan.events.size())
      return text("{}: {} events, planned {}", plan.name, events.size(), plan.events.size());
    AllocationEvent got = events[i];
    got.serial -= first;
    const AllocationEvent& planned = plan.events[i];
    std::string differs = difference(planned, got);
    if (differs.empty() && (planned.phase != got.phase || planned.module != got.module))
      differs = text("planned {} in '{}', got {} in '{}'", to_string(planned), module_path(planned.module), to_string(got),
                     module_path(got.module));
    if (!differs.empty()) return text("{} event {}: {}", plan.name, i, differs);
  }
  return "";
}
}  // namespace

std::vector<std::string> differences(const RunPlan& plan, const Done& done) {
  Differences d;
  const RunReport &planned = plan.predicted, &got = done.report;
  if (!got.memory || !got.flops_per_step) return {"the run reports no memory or no work"};
  compare_memory(*planned.memory, *got.memory, d);
  d.compare("arena", plan.arena.bytes, got.memory->extent);
  d.compare("memory.trace_hash", planned.trace_hash, got.trace_hash);
  d.compare("flops.matmul_per_step", planned.flops_per_step->matmul, got.flops_per_step->matmul);
  d.compare("flops.vector_per_step", planned.flops_per_step->vector, got.flops_per_step->vector);
  d.compare("flops.model_per_step", planned.flops_per_step->model, got.flops_per_step->model);
  d.compare("model.parameters", *planned.parameters, got.parameters.value_or(-1));
  for (const SegmentPlan& s : plan.arena.segments) {
    bool ran = false;
    for (const SegmentMark& mark : done.marks) {
      if (mark.name != s.name) continue;
      ran = true;
      const std::string differs = segment_difference(s, std::span(done.events).subspan(mark.begin, mark.end - mark.begin));
      if (!differs.empty()) d.add(differs);
    }
    if (!ran) d.add(text("{} is planned and did not run", s.name));
  }
  return d.take();
}
}  // namespace grid
