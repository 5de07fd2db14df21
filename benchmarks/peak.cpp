// benchmarks/peak: the arithmetic peak of this machine: independent multiply-adds in registers on every core, nothing else. Prints one JSON
// line in FLOP/s: {"fp32": ..., "bf16": ...}, null where the processor has no such instruction. Knows nothing of the engine.
#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

namespace {
using Clock = std::chrono::steady_clock;
// Independent sums: more than latency (5) times units (2), and no more than there are registers (32 of AVX-512, 16 of AVX2).
constexpr int kChains512 = 24, kChains256 = 12;
constexpr long kRounds = 2'000'000;  // a few hundredths of a second

// Each runs kRounds times kChains multiply-add instructions and returns their FLOPs. The sums are the witness that they ran.
__attribute__((target("avx512f"))) double fp32_avx512(float* witness) {
  __m512 sum[kChains512], a = _mm512_set1_ps(1e-9f), b = _mm512_set1_ps(0.5f);
  for (auto& s : sum) s = _mm512_set1_ps(1.0f);
  for (long i = 0; i < kRounds; ++i) {
#pragma GCC unroll 32
    for (auto& s : sum) s = _mm512_fmadd_ps(a, b, s);
    asm volatile("" : "+v"(a), "+v"(b));
  }
  for (auto& s : sum) *witness += _mm512_cvtss_f32(s);
  return 2.0 * 16 * kChains512 * kRounds;
}
__attribute__((target("avx2,fma"))) double fp32_avx2(float* witness) {
  __m256 sum[kChains256], a = _mm256_set1_ps(1e-9f), b = _mm256_set1_ps(0.5f);
  for (auto& s : sum) s = _mm256_set1_ps(1.0f);
  for (long i = 0; i < kRounds; ++i) {
#pragma GCC unroll 32
    for (auto& s : sum) s = _mm256_fmadd_ps(a, b, s);
    asm volatile("" : "+x"(a), "+x"(b));
  }
  for (auto& s : sum) *witness += _mm256_cvtss_f32(s);
  return 2.0 * 8 * kChains256 * kRounds;
}
__attribute__((target("avx512f,avx512bf16"))) double bf16_avx512(float* witness) {
  __m512 sum[kChains512];
  __m512i bits = _mm512_set1_epi16(0x3000);  // a tiny bfloat16
  for (auto& s : sum) s = _mm512_set1_ps(1.0f);
  for (long i = 0; i < kRounds; ++i) {
    const __m512bh a = (__m512bh)bits;
#pragma GCC unroll 32
    for (auto& s : sum) s = _mm512_dpbf16_ps(s, a, a);
    asm volatile("" : "+v"(bits));
  }
  for (auto& s : sum) *witness += _mm512_cvtss_f32(s);
  return 4.0 * 16 * kChains512 * kRounds;
}

// Best of `attempts` runs on all cores at once: others may be using them, and nothing runs faster than the peak.
double flops_per_second(double (*kernel)(float*), int threads, int attempts) {
  double best = 0;
  for (int attempt = 0; attempt < attempts; ++attempt) {
    std::vector<std::thread> workers;
    std::vector<float> witness(size_t(threads) * 64);
    std::vector<double> flops(static_cast<size_t>(threads));
    std::atomic<int> waiting{threads};
    Clock::time_point start;
    for (int t = 0; t < threads; ++t) {
      workers.emplace_back([&, t] {
        if (waiting.fetch_sub(1) == 1) start = Clock::now();
        while (waiting.load() > 0) {
        }
        flops[size_t(t)] = kernel(&witness[size_t(t) * 64]);
      });
    }
    for (auto& worker : workers) worker.join();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    double total = 0;
    for (double f : flops) total += f;
    best = std::max(best, total / seconds);
  }
  return best;
}

void print(const char* name, double (*kernel)(float*), int threads, const char* end) {
  if (kernel) {
    std::printf("\"%s\": %.4g%s", name, flops_per_second(kernel, threads, 10), end);
  } else {
    std::printf("\"%s\": null%s", name, end);
  }
}
}  // namespace

int main() {
  __builtin_cpu_init();
  cpu_set_t cores;
  const int threads = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
  double (*fp32)(float*) = __builtin_cpu_supports("avx512f")                                 ? fp32_avx512
                           : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? fp32_avx2
                                                                                             : nullptr;
  double (*bf16)(float*) = __builtin_cpu_supports("avx512bf16") ? bf16_avx512 : nullptr;
  std::printf("{");
  print("fp32", fp32, threads, ", ");
  print("bf16", bf16, threads, "}\n");
}
