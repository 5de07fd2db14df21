// cli/bench: reckon bench train [keys] [--profile] [--json] | reckon bench device [--json]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/parallel.h"
#include "reckon/base/text.h"
#include "reckon/cli/command.h"
#include "reckon/engine/context.h"
#include "reckon/io/files.h"
#include "reckon/plan/run_plan.h"
#include "reckon/train/machine.h"

namespace reckon {
namespace {
double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// ---- bench device
constexpr int kRounds = 12;

// Best of several: other programs on the machine can only slow a run down.
template <class Work>
double best_seconds(Work work) {
  work();  // first touch, and the library's own first time
  double best = 1e300;
  for (int round = 0; round < kRounds; ++round) {
    const double start = now();
    work();
    best = std::min(best, now() - start);
  }
  return best;
}

double matmul_rate(Device& device, DType dtype) {
  const int64_t m = 1024, n = 3072, k = 768;  // a layer of a small transformer
  const Tensor x = ones(device, {{m, k}, dtype}), w = ones(device, {{n, k}, dtype});
  return 2.0 * double(m) * double(n) * double(k) / best_seconds([&] { linear(x, w); });
}

double copy_rate(Device& device) {
  const int64_t count = int64_t(64) << 20;  // elements; beyond every cache
  const Tensor x = ones(device, {{count}, DType::f32}), slot = ones(device, {{count}, DType::f32});
  const double seconds = best_seconds([&] { call(op::accumulate, {slot, x}, AccumulateParams{false}); });
  return 2.0 * double(count) * 4 / seconds;
}

void print_peaks(const MachineProfile& p) {
  std::printf("%s, %d lanes\n", p.cpu.c_str(), p.lanes);
  std::printf("matrix product  float32   %8.1f GFLOP/s\n", p.f32_flops_per_second * 1e-9);
  std::printf("matrix product  bfloat16  %8.1f GFLOP/s\n", p.bf16_flops_per_second * 1e-9);
  std::printf("copy                      %8.1f GB/s\n", p.copy_bytes_per_second * 1e-9);
}
}  // namespace

int run_bench_device(const CommandLine& line) {
  check_as(Failure::usage, line.words.empty(), "bench device measures the machine: it takes no '{}' and no keys",
           line.words.empty() ? "" : printable_line(line.words[0]));
  const Ref<Device> device = open_cpu(Mode::real);
  const NoGrad guard;
  MachineProfile p;
  p.cpu = local_cpu_name();
  p.lanes = device->profile().lanes;
  p.f32_flops_per_second = matmul_rate(*device, DType::f32);
  p.bf16_flops_per_second = matmul_rate(*device, DType::bf16);
  p.copy_bytes_per_second = copy_rate(*device);
  // Other programs can only make a measurement worse, so the best so far is this machine's.
  if (const std::optional<MachineProfile> before = load_machine_profile(p.lanes)) {
    p.f32_flops_per_second = std::max(p.f32_flops_per_second, before->f32_flops_per_second);
    p.bf16_flops_per_second = std::max(p.bf16_flops_per_second, before->bf16_flops_per_second);
    p.copy_bytes_per_second = std::max(p.copy_bytes_per_second, before->copy_bytes_per_second);
  }
  if (line.json) {
    JsonWriter j(true);
    j.begin_object();
    j.key("cpu").string(p.cpu);
    j.key("lanes").integer(p.lanes);
    j.key("f32_flops_per_second").number(p.f32_flops_per_second);
    j.key("bf16_flops_per_second").number(p.bf16_flops_per_second);
    j.key("copy_bytes_per_second").number(p.copy_bytes_per_second);
    j.end_object();
    std::fputs((j.str() + "\n").c_str(), stdout);
  } else {
    print_peaks(p);
  }
  // After the figures are out: they are worth having even where nothing can be kept.
  save_machine_profile(p);
  if (!line.json) std::printf("kept in %s/cpu.json; MFU is measured against it\n", cache_directory().c_str());
  return 0;
}

namespace {
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
    print_profile(config, *device);
    return 0;
  }
  const TrainOutcome o = plan_and_train(config, *device, *meta, {.keep_files = false, .quiet = line.json});
  if (line.json) {
    std::fputs(summary_json(o.predicted, o.measured, o.process).c_str(), stdout);
    return 0;
  }
  const RunReport& m = o.measured;
  const bool short_step = *m.step_seconds < 0.1;
  std::printf("%s: %s tokens/s, %.3f %s a step (median of %s)", config.model.preset.c_str(),
              with_commas(int64_t(*m.tokens_per_second)).c_str(), *m.step_seconds * (short_step ? 1e3 : 1), short_step ? "ms" : "s",
              counted(int64_t(o.step_seconds.size()), "step").c_str());
  if (m.mfu) std::printf(", MFU %.1f %%", *m.mfu * 100);
  std::printf("\nmemory: predicted %s, measured %s; process %s\n", human_bytes(o.predicted.memory->peak).c_str(),
              human_bytes(m.memory->peak).c_str(), human_bytes(*o.process.peak_rss_bytes).c_str());
  return 0;
}
}  // namespace reckon
