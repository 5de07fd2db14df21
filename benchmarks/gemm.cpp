// Matrix multiplication: GFLOP/s of the products of a training step, engine by engine, interleaved; shares are of the best of the same
// dtype in the same run. Where oneDNN is refused, both columns are the packed engine. With one thread it takes CPU time instead of wall
// time, so that a busy machine disturbs less. Not part of the suite:
//   g++ -std=c++20 -O2 -fopenmp -Isrc benchmarks/gemm.cpp build/release/libreckon_engine.a -lfmt -ldnnl -lhwy -o gemm && ./gemm [rounds]
#include "reckon/backend/cpu/gemm.h"

#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "reckon/base/parallel.h"

using namespace reckon;
using namespace reckon::cpu;

struct Case {
  const char* name;
  GemmShape shape;
  double best[2] = {1e9, 1e9};  // seconds: packed, oneDNN
};

static GemmShape shape(int64_t m, int64_t n, int64_t k, DType ab, DType c, bool trans_a, bool trans_b, bool accumulate, bool bias) {
  return {m, n, k, ab, ab, c, trans_a, trans_b, accumulate, bias, c == DType::f64 ? DType::f64 : DType::f32};
}

static std::vector<Case> cases() {
  std::vector<Case> all;
  for (const DType t : {DType::f32, DType::bf16}) {
    const DType f32 = DType::f32;
    all.push_back({"forward [1024,768] x [3072,768]^T + bias", shape(1024, 3072, 768, t, t, false, true, false, true)});
    all.push_back({"forward [1024,3072] x [768,3072]^T + bias", shape(1024, 768, 3072, t, t, false, true, false, true)});
    all.push_back({"input gradient [1024,3072] x [3072,768]", shape(1024, 768, 3072, t, t, false, false, false, false)});
    all.push_back({"input gradient [1024,768] x [768,3072]", shape(1024, 3072, 768, t, t, false, false, false, false)});
    all.push_back({"weight gradient [1024,3072]^T x [1024,768]", shape(3072, 768, 1024, t, f32, true, false, true, false)});
    all.push_back({"weight gradient [1024,768]^T x [1024,768]", shape(768, 768, 1024, t, f32, true, false, true, false)});
    all.push_back({"head [1024,768] x [50304,768]^T", shape(1024, 50304, 768, t, t, false, true, false, false)});
    all.push_back({"head input gradient [1024,50304] x [50304,768]", shape(1024, 768, 50304, t, t, false, false, false, false)});
    all.push_back({"head weight gradient [1024,50304]^T x [1024,768]", shape(50304, 768, 1024, t, f32, true, false, true, false)});
    all.push_back({"small [2048,384] x [1152,384]^T", shape(2048, 1152, 384, t, t, false, true, false, false)});
    all.push_back({"short [256,768] x [3072,768]^T", shape(256, 3072, 768, t, t, false, true, false, false)});
    all.push_back({"decode 8 rows x [3072,768]^T", shape(8, 3072, 768, t, t, false, true, false, false)});
    all.push_back({"decode 1 row x [3072,768]^T", shape(1, 3072, 768, t, t, false, true, false, false)});
  }
  all.push_back({"f64 forward [1024,768] x [3072,768]^T", shape(1024, 3072, 768, DType::f64, DType::f64, false, true, false, false)});
  all.push_back({"f16 forward [1024,768] x [3072,768]^T", shape(1024, 3072, 768, DType::f16, DType::f16, false, true, false, false)});
  return all;
}

static char* memory(size_t bytes) {
  char* p = static_cast<char*>(std::aligned_alloc(size_t(2) << 20, bytes));
  madvise(p, bytes, MADV_HUGEPAGE);
  std::memset(p, 0x3C, bytes);  // 0x3C3C: small positive numbers in every dtype
  return p;
}

static double seconds_now(bool cpu) {
  timespec t;
  clock_gettime(cpu ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 8, lanes = thread_count();
  const size_t bytes = size_t(256) << 20;
  char *a = memory(bytes), *b = memory(bytes), *c = memory(bytes), *bias = memory(size_t(2) << 20), *workspace = memory(size_t(64) << 20);
  std::vector<Case> all = cases();
  for (int round = 0; round < rounds; ++round)
    for (Case& x : all)
      for (int engine = 0; engine < 2; ++engine) {
        const GemmShape& s = x.shape;
        const double flops = 2.0 * double(s.m) * double(s.n) * double(s.k);
        const int repeats = std::max(1, int(1e9 / flops));
        for (int i = -1; i < repeats; ++i) {
          const double start = seconds_now(lanes == 1);
          gemm(s, a, b, c, bias, workspace, lanes, engine ? GemmEngine::onednn : GemmEngine::packed);
          const double seconds = seconds_now(lanes == 1) - start;
          if (i >= 0) x.best[engine] = std::min(x.best[engine], seconds);
        }
      }
  std::printf("%d threads, best of %d rounds\n%-52s %18s %18s\n", lanes, rounds, "GFLOP/s (share of the best of this dtype)", "packed",
              "oneDNN");
  for (const Case& x : all) {
    double peak = 0;
    const auto speed = [](const Case& y, int engine) {
      return 2e-9 * double(y.shape.m) * double(y.shape.n) * double(y.shape.k) / y.best[engine];
    };
    for (const Case& y : all)
      if (y.shape.a == x.shape.a) peak = std::max({peak, speed(y, 0), speed(y, 1)});
    std::printf("%-4s %-47s", std::string(name_of(x.shape.a)).c_str(), x.name);
    for (int engine = 0; engine < 2; ++engine) std::printf(" %9.1f (%3.0f %%)", speed(x, engine), 100 * speed(x, engine) / peak);
    std::printf("\n");
  }
}
