// cli/bench: reckon bench train [keys] [--profile] [--json]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/text.h"
#include "reckon/cli/command.h"
#include "reckon/cli/process_probe.h"
#include "reckon/engine/context.h"
#include "reckon/io/files.h"
#include "reckon/plan/time_model.h"
#include "reckon/report/actual_table.h"
#include "reckon/train/machine.h"

namespace reckon {
namespace {
double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// ---- bench train --profile: one step, timed operation by operation
struct ProfileRow {
  int64_t calls = 0;
  double seconds = 0;
  int64_t flops = 0, bytes = 0;
};

void print_profile(const Config& config, Device& device) {
  TrainStep step(config, device);
  const SyntheticBatches batches(config.model.vocab, uint64_t(config.seed));
  step.run(0, batches);
  Meter meter;
  meter.timing = true;
  const double start = now();
  {
    const MeterScope scope(meter);
    step.run(1, batches);
  }
  const double total = now() - start;
  std::map<std::string, ProfileRow> by_op;
  double inside = 0;
  for (const MeterRow& row : meter.rows()) {
    ProfileRow& p = by_op[row.op];
    p.calls += row.calls;
    p.seconds += row.seconds;
    p.flops += row.flops.matmul + row.flops.vector;
    p.bytes += row.bytes;
    inside += row.seconds;
  }
  std::vector<std::pair<std::string, ProfileRow>> rows(by_op.begin(), by_op.end());
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  std::printf("%-20s %7s %10s %7s %10s %9s\n", "operation", "calls", "ms", "share", "GFLOP/s", "GB/s");
  for (const auto& [op, p] : rows) {
    if (p.seconds <= 0) continue;
    std::printf("%-20s %7lld %10.2f %6.1f%% %10.1f %9.1f\n", op.c_str(), static_cast<long long>(p.calls), p.seconds * 1e3,
                100 * p.seconds / total, double(p.flops) * 1e-9 / p.seconds, double(p.bytes) * 1e-9 / p.seconds);
  }
  std::printf("%-20s %7s %10.2f %6.1f%%\n", "between operations", "", (total - inside) * 1e3, 100 * (total - inside) / total);
  std::printf("%-20s %7s %10.2f\n", "step", "", total * 1e3);
}

}  // namespace

int run_bench_train(const CommandLine& line) {
  line.no_words();
  Config config = line.config();
  // A configuration for training may be benched as it is; whoever thinks that its data matters is told.
  if (!config.data.path.empty()) std::fputs("bench train runs on synthetic tokens: data.path is not read\n", stderr);
  config.data.path.clear();
  if (!line.overrides_key("train.steps") && line.config_path.empty()) config.train.steps = 10;
  const Ref<Device> device = open_cpu(Mode::real), meta = open_cpu(Mode::meta);
  if (line.profile) {
    check_as(Failure::usage, !line.json, "--profile prints a table; leave --json out");
    if (is_open_auto(config)) config = plan_run(config, *meta).config;
    print_profile(config, *device);
    return 0;
  }
  const TrainOutcome o = plan_and_train(config, *device, *meta, {.keep_files = false, .quiet = line.json, .runtime = probe_runtime(config)});
  if (line.json) {
    if (!o.note.empty()) std::fprintf(stderr, "%s\n", o.note.c_str());
    std::fputs(summary_json(o.predicted, o.measured, o.process).c_str(), stdout);
    return 0;
  }
  std::fputs(planned_and_actual(o.predicted, o.measured, o.process).c_str(), stderr);
  const RunReport& m = o.measured;
  const bool short_step = *m.step_seconds < 0.1;
  std::printf("%s: %s tokens/s, %.3f %s a step (median of %s)", config.model.preset.c_str(),
              with_commas(int64_t(*m.tokens_per_second)).c_str(), *m.step_seconds * (short_step ? 1e3 : 1), short_step ? "ms" : "s",
              counted(int64_t(o.step_seconds.size()), "step").c_str());
  if (m.mfu) std::printf(", MFU %.1f %%", *m.mfu * 100);
  if (const std::string times = compare_times(o.predicted, m); !times.empty()) std::printf("\n%s", times.c_str());
  std::printf("\nmemory: predicted %s, measured %s; process %s\n", human_bytes(o.predicted.memory->peak).c_str(),
              human_bytes(m.memory->peak).c_str(), human_bytes(*o.process.peak_rss_bytes).c_str());
  return 0;
}
}  // namespace reckon
