// Head and loss without the logits against the operations that they replace, forward and backward, at many sizes: in each round every
// program takes its turn, and ratios are formed within a round; their median is printed. `step` is what the trainer runs, `op` the
// operation that makes the logits twice, `forward` its first half against the first half of the pair. Below 1 is faster than the pair.
// Build and run:
//   g++ -std=c++20 -O2 -fopenmp -Isrc benchmarks/linear_loss.cpp build/release/libreckon_engine.a -lfmt -ldnnl -lhwy -o
//   build/bench_linear_loss build/bench_linear_loss [rounds] [rows width classes]
#include "reckon/backend/cpu/linear_loss.h"

#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "reckon/backend/cpu/gemm.h"
#include "reckon/backend/cpu/random.h"
#include "reckon/base/parallel.h"

using namespace reckon;
using namespace reckon::cpu;

namespace {
struct Size {
  int64_t rows, width, classes;
};

// Touched once, so that no page fault falls into a measurement.
void* memory(int64_t bytes) {
  const size_t whole = (size_t(bytes) + (size_t(2) << 20)) >> 21 << 21;
  void* p = std::aligned_alloc(size_t(2) << 20, whole);
  madvise(p, whole, MADV_HUGEPAGE);
  std::fill_n(static_cast<char*>(p), whole, char(0));
  return p;
}

// With one thread it is CPU time, so that a busy machine disturbs less.
double now() {
  timespec t;
  clock_gettime(thread_count() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}
double seconds_of(const std::function<void()>& run, int repeats) {
  const double start = now();
  for (int i = 0; i < repeats; ++i) run();
  return (now() - start) / repeats;
}

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + long(v.size() / 2), v.end());
  return v[v.size() / 2];
}

struct Bench {
  DType dtype;
  Size s;
  int lanes = thread_count();
  void *x, *w, *dx, *dw, *logits, *lse, *scalars, *scratch;
  std::vector<int32_t> targets;

  Bench(DType t, const Size& size) : dtype(t), s(size) {
    const int64_t e = size_of(t);
    x = memory(s.rows * s.width * e), w = memory(s.classes * s.width * e), dx = memory(s.rows * s.width * e);
    dw = memory(s.classes * s.width * 4), logits = memory(s.rows * s.classes * e), lse = memory(s.rows * 8), scalars = memory(64);
    scratch = memory(std::max({gemm_workspace(forward(), lanes), gemm_workspace(back_x(), lanes), gemm_workspace(back_w(), lanes),
                               linear_loss_workspace(t, s.rows, s.width, s.classes, lanes),
                               linear_loss_back_workspace(t, s.rows, s.width, s.classes, DType::f32, lanes),
                               linear_loss_step_workspace(t, s.rows, s.width, s.classes, DType::f32, lanes)}));
    fill_normal(t, x, s.rows * s.width, 1, 0, 0, 1);
    fill_normal(t, w, s.classes * s.width, 2, 0, 0, 0.05);
    static_cast<float*>(scalars)[0] = 1;
    for (int64_t i = 0; i < s.rows; ++i) targets.push_back(int32_t(i * 7919 % s.classes));
  }
  ~Bench() {
    for (void* p : {x, w, dx, dw, logits, lse, scalars, scratch}) std::free(p);
  }
  Bench(const Bench&) = delete;

  GemmShape forward() const { return {.m = s.rows, .n = s.classes, .k = s.width, .a = dtype, .b = dtype, .c = dtype, .trans_b = true}; }
  GemmShape back_x() const { return {.m = s.rows, .n = s.width, .k = s.classes, .a = dtype, .b = dtype, .c = dtype}; }
  GemmShape back_w() const {
    return {.m = s.classes, .n = s.width, .k = s.rows, .a = dtype, .b = dtype, .c = DType::f32, .trans_a = true, .accumulate = true};
  }
  void* scalar(int i) const { return static_cast<float*>(scalars) + i; }
  LinearLoss head() const { return {dtype, s.rows, s.width, s.classes, x, w, targets.data(), {}, scratch, lanes}; }
  HeadGradients gradients() const { return {dx, dw, DType::f32, true}; }

  void pair_forward() const {
    gemm(forward(), x, w, logits, nullptr, scratch, lanes);
    CrossEntropy f{.dtype = dtype, .rows = s.rows, .classes = s.classes, .logits = logits, .targets = targets.data()};
    f.loss = scratch, f.lse = lse, f.mean = scalar(1), f.count = scalar(2);
    cross_entropy(f);
  }
  void pair() const {
    pair_forward();
    CrossEntropyBack b{.dtype = dtype, .rows = s.rows, .classes = s.classes, .logits = logits, .targets = targets.data()};
    b.lse = lse, b.scale = scalar(0), b.count = scalar(2), b.dlogits = logits;
    cross_entropy_back(b);
    gemm(back_w(), logits, x, dw, nullptr, scratch, lanes);
    gemm(back_x(), logits, w, dx, nullptr, scratch, lanes);
  }
  void step() const { linear_loss_step(head(), {.mean = scalar(1)}, {scalar(0)}, gradients()); }
  void op_forward() const { linear_loss(head(), {.lse = lse, .mean = scalar(1), .count = scalar(2)}); }
  void op() const {
    op_forward();
    linear_loss_back(head(), {scalar(0), scalar(2)}, lse, gradients());
  }
};

void measure(DType dtype, const Size& s, int rounds) {
  const Bench b(dtype, s);
  const double flops = 6.0 * double(s.rows) * double(s.width) * double(s.classes);
  const int repeats = std::max(1, int(2e9 / flops));
  std::vector<double> pair, step, op, forward;
  for (int round = -1; round < rounds; ++round) {
    const double p = seconds_of([&] { b.pair(); }, repeats), t = seconds_of([&] { b.step(); }, repeats),
                 o = seconds_of([&] { b.op(); }, repeats), f = seconds_of([&] { b.pair_forward(); }, repeats),
                 g = seconds_of([&] { b.op_forward(); }, repeats);
    if (round < 0) continue;  // warms up
    pair.push_back(p), step.push_back(t / p), op.push_back(o / p), forward.push_back(g / f);
  }
  std::printf(
      "%-5s %5ld x %5ld x %6ld  pair %9.2f ms %6.0f GFLOP/s   step %.3f   op %.3f   forward %.3f   logits %6.1f MB, tile %5.1f MB\n",
      std::string(name_of(dtype)).c_str(), long(s.rows), long(s.width), long(s.classes), 1e3 * median(pair), 1e-9 * flops / median(pair),
      median(step), median(op), median(forward), 1e-6 * double(s.rows * s.classes * size_of(dtype)),
      1e-6 * double(linear_loss_step_rows(dtype, s.rows, s.classes) * s.classes * size_of(dtype)));
  std::fflush(stdout);
}
}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 7;
  std::vector<Size> sizes;
  if (argc > 4) {
    sizes.push_back({std::atol(argv[2]), std::atol(argv[3]), std::atol(argv[4])});
  } else {
    for (const int64_t classes : {256, 4096, 50304})
      for (const int64_t width : {128, 384, 768, 1024})
        for (const int64_t rows : {256, 1024, 4096}) sizes.push_back({rows, width, classes});
  }
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Size& s : sizes) measure(dtype, s, rounds);
}
