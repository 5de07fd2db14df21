// cli/bench_device: reckon bench device [--json]
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/text.h"
#include "reckon/cli/command.h"
#include "reckon/engine/context.h"
#include "reckon/ops/ops.h"
#include "reckon/plan/calibration.h"

namespace reckon {
namespace {
constexpr int kRounds = 12;            // of a peak
constexpr int kCalibrationRounds = 3;  // of everything else

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

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

void print_profile(const MachineProfile& p) {
  std::printf("%s, %d lanes\n", p.cpu.c_str(), p.lanes);
  std::printf("matrix product  float32   %8.1f GFLOP/s\n", p.f32_flops_per_second * 1e-9);
  std::printf("matrix product  bfloat16  %8.1f GFLOP/s\n", p.bf16_flops_per_second * 1e-9);
  std::printf("copy                      %8.1f GB/s\n", p.copy_bytes_per_second * 1e-9);
  std::printf("times of %zu kinds of calls, and %.1f us between two\n", p.tables.size(), p.call_overhead_seconds * 1e6);
}
}  // namespace

int run_bench_device(const CommandLine& line) {
  check_as(Failure::usage, line.words.empty(), "bench device measures the machine: it takes no '{}' and no keys",
           line.words.empty() ? "" : printable_line(line.words[0]));
  const Ref<Device> device = open_cpu(Mode::real);
  MachineProfile p;
  p.cpu = local_cpu_name();
  p.lanes = device->profile().lanes;
  {
    const NoGrad guard;
    p.f32_flops_per_second = matmul_rate(*device, DType::f32);
    p.bf16_flops_per_second = matmul_rate(*device, DType::bf16);
    p.copy_bytes_per_second = copy_rate(*device);
  }
  {
    Calibration calibration(*device);
    for (int round = 0; round < kCalibrationRounds; ++round) calibration.round();
    calibration.finish(p);
  }
  // Peaks: other programs can only make a measurement worse, so the best so far is this machine's. Times are those of now.
  if (const std::optional<MachineProfile> before = load_machine_profile(p.lanes)) {
    p.f32_flops_per_second = std::max(p.f32_flops_per_second, before->f32_flops_per_second);
    p.bf16_flops_per_second = std::max(p.bf16_flops_per_second, before->bf16_flops_per_second);
    p.copy_bytes_per_second = std::max(p.copy_bytes_per_second, before->copy_bytes_per_second);
  }
  if (line.json) {
    std::fputs(write_machine_profile(p).c_str(), stdout);
  } else {
    print_profile(p);
  }
  // After the figures are out: they are worth having even where nothing can be kept.
  save_machine_profile(p);
  if (!line.json)
    std::printf("kept in %s/cpu.json; MFU is measured against it and times are predicted from it\n", cache_directory().c_str());
  return 0;
}
}  // namespace reckon
