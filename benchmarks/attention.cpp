// benchmarks/attention: speed of causal attention against a loop of independent multiply-adds, timed in turns with it in the same run.
// FLOPs are the exact causal count: no masked pair is counted. Not part of the suite. Build, after the library, with
//   g++ -std=c++20 -O2 -Isrc -I. benchmarks/attention.cpp build/release/libreckon_engine.a -lfmt -lhwy -fopenmp -o attention
// and run: attention [B T H KV D dtype]. The default is B4 T256 and B1 T2048 with 12 heads of 64, float32.
#include "reckon/backend/cpu/attention.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "reckon/backend/cpu/vec_targets.h"
#include "reckon/base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "benchmarks/attention.cpp"
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace bench::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
/// Runs `steps` rounds of 12 independent multiply-adds and returns the FLOPs done.
double multiply_adds(int64_t steps, float* sink) {
  const hn::CappedTag<float, 16> d;
  const auto factor = hn::Set(d, 0.999f), term = hn::Set(d, 0.001f);
  // Different starts: equal chains would be merged.
  auto a = hn::Iota(d, 0), b = hn::Iota(d, 1), c = hn::Iota(d, 2), e = hn::Iota(d, 3), f = hn::Iota(d, 4), g = hn::Iota(d, 5);
  auto h = hn::Iota(d, 6), i = hn::Iota(d, 7), j = hn::Iota(d, 8), k = hn::Iota(d, 9), l = hn::Iota(d, 10), m = hn::Iota(d, 11);
  for (int64_t step = 0; step < steps; ++step) {
    a = hn::MulAdd(a, factor, term), b = hn::MulAdd(b, factor, term), c = hn::MulAdd(c, factor, term), e = hn::MulAdd(e, factor, term);
    f = hn::MulAdd(f, factor, term), g = hn::MulAdd(g, factor, term), h = hn::MulAdd(h, factor, term), i = hn::MulAdd(i, factor, term);
    j = hn::MulAdd(j, factor, term), k = hn::MulAdd(k, factor, term), l = hn::MulAdd(l, factor, term), m = hn::MulAdd(m, factor, term);
  }
  const auto sum = hn::Add(hn::Add(hn::Add(a, b), hn::Add(c, e)), hn::Add(hn::Add(f, g), hn::Add(h, i)));
  *sink = hn::GetLane(hn::SumOfLanes(d, hn::Add(sum, hn::Add(hn::Add(j, k), hn::Add(l, m)))));
  return double(steps) * 12 * 2 * double(hn::Lanes(d));
}
}  // namespace bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace bench {
HWY_EXPORT(multiply_adds);

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// GFLOP/s of one spell of multiply-adds on all threads.
double peak() {
  const int threads = reckon::thread_count();
  std::vector<float> sinks(size_t(threads) * 16);
  std::vector<double> flops(static_cast<size_t>(threads));
  const double start = seconds();
  reckon::parallel_for(threads,
                       [&](int64_t t) { flops[size_t(t)] = HWY_DYNAMIC_DISPATCH(multiply_adds)(4'000'000, &sinks[size_t(t) * 16]); });
  double total = 0;
  for (double f : flops) total += f;
  return total / (seconds() - start) * 1e-9;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Zeroed memory on large pages where there are any, as the engine's arena has it.
struct Pages {
  size_t size;
  char* data;
  explicit Pages(size_t bytes) : size(bytes) {
    constexpr size_t kLarge = size_t(2) << 20;
    const size_t whole = (bytes + kLarge) / kLarge * kLarge;
    data = static_cast<char*>(std::aligned_alloc(kLarge, whole));
    madvise(data, whole, MADV_HUGEPAGE);  // a wish: refused, it costs nothing but speed
    std::memset(data, 0, whole);
  }
  Pages(const Pages&) = delete;
  ~Pages() { std::free(data); }
};

void measure(const reckon::cpu::AttentionShape& s) {
  using namespace reckon;
  const int lanes = thread_count();
  const size_t element = size_t(size_of(s.dtype)), rows = size_t(s.batch * s.tokens);
  const size_t width = size_t((s.heads + 2 * s.kv_heads) * s.head_dim), out_width = size_t(s.heads * s.head_dim);
  const Pages qkv(rows * width * element), dqkv(qkv.size), out(rows * out_width * element), dout(out.size), lse(rows * size_t(s.heads) * 8);
  const Pages workspace(size_t(std::max(cpu::attention_workspace(s, lanes), cpu::attention_back_workspace(s, lanes))));
  auto fill = [&](const Pages& bytes) {
    for (size_t i = 0; i < bytes.size / element; ++i) {
      const float x = float(i * 2654435761u % 1024) / 512 - 1;
      if (s.dtype == DType::f32) reinterpret_cast<float*>(bytes.data)[i] = x;
      if (s.dtype == DType::f64) reinterpret_cast<double*>(bytes.data)[i] = x;
      if (s.dtype == DType::bf16) reinterpret_cast<uint16_t*>(bytes.data)[i] = bfloat16(x).bits;
      if (s.dtype == DType::f16) reinterpret_cast<uint16_t*>(bytes.data)[i] = float16(x).bits;
    }
  };
  fill(qkv), fill(dout);
  const double pairs = double(s.batch * s.heads) * double(s.tokens) * double(s.tokens + 1) / 2;
  const double forward_flops = 2 * 2 * pairs * double(s.head_dim), both_flops = 3.5 * forward_flops;
  std::vector<double> peaks, forwards, boths;
  for (int round = 0; round < 15; ++round) {
    peaks.push_back(peak());
    const int repeats = 1 + int(2e9 / both_flops);
    double start = seconds();
    for (int i = 0; i < repeats; ++i) cpu::attention_forward(s, qkv.data, out.data, lse.data, workspace.data, lanes);
    forwards.push_back(forward_flops * repeats / (seconds() - start) * 1e-9);
    start = seconds();
    for (int i = 0; i < repeats; ++i) {
      cpu::attention_forward(s, qkv.data, out.data, lse.data, workspace.data, lanes);
      cpu::attention_backward(s, dout.data, qkv.data, out.data, lse.data, dqkv.data, workspace.data, lanes);
    }
    boths.push_back(both_flops * repeats / (seconds() - start) * 1e-9);
  }
  std::vector<double> forward_share, both_share;
  for (size_t i = 0; i < peaks.size(); ++i) forward_share.push_back(forwards[i] / peaks[i]), both_share.push_back(boths[i] / peaks[i]);
  std::printf(
      "B%-2ld T%-5ld H%-2ld KV%-2ld D%-3ld %-4s %d threads  peak %6.1f  forward %6.1f GFLOP/s (%3.0f %%)  forward+backward %6.1f (%3.0f "
      "%%)\n",
      long(s.batch), long(s.tokens), long(s.heads), long(s.kv_heads), long(s.head_dim), std::string(name_of(s.dtype)).c_str(), lanes,
      median(peaks), median(forwards), 100 * median(forward_share), median(boths), 100 * median(both_share));
}
}  // namespace bench

int main(int count, char** values) {
  using reckon::cpu::AttentionShape;
  if (count == 7) {
    AttentionShape s{std::atol(values[1]), std::atol(values[2]), std::atol(values[3]), std::atol(values[4]), std::atol(values[5])};
    for (auto dtype : {reckon::DType::f32, reckon::DType::f64, reckon::DType::bf16, reckon::DType::f16}) {
      if (name_of(dtype) == std::string_view(values[6])) s.dtype = dtype;
    }
    bench::measure(s);
    return 0;
  }
  bench::measure({4, 256, 12, 12, 64});
  bench::measure({1, 2048, 12, 12, 64});
}
#endif
