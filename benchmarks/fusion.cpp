// benchmarks/fusion: chains of element-wise calls, compiled and eager, against a copy of the same bytes in the same run. Every round times
// each once, in alternation, so that noise falls on all alike; medians and the best round are printed. The copy is the best of three:
// memcpy, memcpy in parallel, and parallel stores past the caches. Build and run:
//   g++ -std=c++20 -O2 -fopenmp -Isrc benchmarks/fusion.cpp build/release/libreckon_engine.a -ldnnl -lhwy -lfmt -o build/bench_fusion &&
//   build/bench_fusion
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "reckon/backend/cpu/device.h"
#include "reckon/backend/cpu/stream.h"
#include "reckon/base/parallel.h"
#include "reckon/engine/compile.h"
#include "reckon/engine/context.h"
#include "reckon/ops/ops.h"

using namespace reckon;

namespace {
struct Timed {
  std::string name;
  std::function<void()> run;
  std::vector<double> seconds = {};
  double best() const { return *std::min_element(seconds.begin(), seconds.end()); }
  double median() const {
    std::vector<double> sorted = seconds;
    std::nth_element(sorted.begin(), sorted.begin() + long(sorted.size() / 2), sorted.end());
    return sorted[sorted.size() / 2];
  }
};

Tensors five_cheap(const Tensors& in) { return {relu(mul(affine(square(affine(in[0], 0.5, 1)), 0.25, -1), in[0]))}; }
Tensors five_with_tanh(const Tensors& in) { return {mul(affine(tanh(affine(square(in[0]), 0.5)), 0.5, 0.5), in[0])}; }
Tensors five_and_sum(const Tensors& in) { return {sum(square(affine(mul(affine(in[0], 0.5, 1), in[0]), 2)))}; }

template <class Copy>
void in_parallel(int64_t bytes, Copy copy) {
  parallel_range(bytes, 256 << 10, [&](int64_t begin, int64_t end) { copy(begin, end - begin); });
}

void measure(int64_t count, DType dtype, int rounds) {
  const Ref<Device> device = open_cpu(Mode::real);
  const NoGrad guard;
  const Tensor x = empty(*device, {{count}, dtype}), y = empty(*device, {{count}, dtype});
  fill_normal_(x, 1);
  fill_normal_(y, 2);
  const int64_t bytes = x.spec().bytes();
  char *from = static_cast<char*>(x.raw()), *to = static_cast<char*>(y.raw());
  CompiledStep cheap = compile(*device, five_cheap), with_tanh = compile(*device, five_with_tanh), and_sum = compile(*device, five_and_sum);
  std::vector<Timed> all;
  all.push_back({"memcpy", [=] { std::memcpy(to, from, size_t(bytes)); }});
  all.push_back(
      {"memcpy, parallel", [=] { in_parallel(bytes, [=](int64_t at, int64_t n) { std::memcpy(to + at, from + at, size_t(n)); }); }});
  all.push_back({"streaming copy, parallel", [=] {
                   in_parallel(bytes, [=](int64_t at, int64_t n) {
                     cpu::stream_run(from + at, to + at, n);
                     cpu::stream_fence();
                   });
                 }});
  const size_t copies = all.size();
  all.push_back({"affine square affine mul relu, eager", [=] { five_cheap({x}); }});
  all.push_back({"affine square affine mul relu, fused", [=, &cheap] { cheap({x}); }});
  all.push_back({"square affine tanh affine mul, eager", [=] { five_with_tanh({x}); }});
  all.push_back({"square affine tanh affine mul, fused", [=, &with_tanh] { with_tanh({x}); }});
  all.push_back({"affine mul affine square sum, eager", [=] { five_and_sum({x}); }});
  all.push_back({"affine mul affine square sum, fused", [=, &and_sum] { and_sum({x}); }});
  for (int round = -1; round < rounds; ++round)  // the first one touches memory
    for (Timed& t : all) {
      const auto start = std::chrono::steady_clock::now();
      t.run();
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      if (round >= 0) t.seconds.push_back(seconds);
    }
  double best = 1e30, median = 1e30;
  for (size_t i = 0; i < copies; ++i) best = std::min(best, all[i].best()), median = std::min(median, all[i].median());
  std::printf("\n%lld M elements of %s, %.0f MB in and out each\n%-40s %10s %10s %8s %8s\n", static_cast<long long>(count >> 20),
              std::string(name_of(dtype)).c_str(), double(bytes) / 1e6, "", "best ms", "median ms", "x copy", "median");
  for (const Timed& t : all)
    std::printf("%-40s %10.2f %10.2f %8.2f %8.2f\n", t.name.c_str(), t.best() * 1e3, t.median() * 1e3, t.best() / best,
                t.median() / median);
  std::printf("%s", to_string(cheap.plan({x})).c_str());
}
}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 15;
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const int64_t count : {int64_t(16) << 20, int64_t(64) << 20}) measure(count, dtype, rounds);
}
