// backend/cpu/gemm: which engine multiplies, how a product is cut into tasks, and the scratch they share.
//
// Measured on two Zen 5 cores, shares of the best product: float32 forward 96-97 % oneDNN, 85-91 % packed (in a 124M step 466 against 424
// GFLOP/s); input gradients 88-95 % packed, 86 % oneDNN; a head of 50,304 columns equal forward, and 83 % packed against 72 % backward.
// bfloat16 96-100 % oneDNN, but packed wins weight gradients, which oneDNN wants transposed first, and very long depths.
#include "reckon/backend/cpu/gemm.h"

#include <algorithm>

#include "reckon/backend/cpu/gemm_onednn.h"
#include "reckon/backend/cpu/gemm_packed.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
constexpr int64_t kRows = 512;    // of a block for oneDNN: measured best, together with the full width
constexpr int64_t kDepth = 1024;  // of a transposed block of A, which shall still be near when it is multiplied

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

void check_shape(const GemmShape& s, int lanes) {
  check(s.m >= 0 && s.n >= 0 && s.k >= 0, "matrix multiplication: negative extent in [{}, {}] x [{}, {}]", s.m, s.k, s.k, s.n);
  const bool half = s.a == DType::bf16 || s.a == DType::f16;
  const bool supported = s.a == s.b && (half || s.a == DType::f32 || s.a == DType::f64) && (s.c == s.a || (half && s.c == DType::f32));
  check(supported, "matrix multiplication: {} x {} -> {} is not supported; cast the inputs to one float type and ask for it or f32", s.a,
        s.b, s.c);
  check(!s.bias || s.bias_dtype == s.c || (s.bias_dtype == DType::f32 && s.c != DType::f64),
        "matrix multiplication: a {} bias cannot be added to {}; cast it to {}", s.bias_dtype, s.c, s.c);
  check(lanes >= 1, "matrix multiplication: {} lanes; it needs at least 1", lanes);
}

// oneDNN refuses a transposed A: we transpose it, by 16-bit elements and in passes over k, which a transposed B would not allow.
bool onednn_takes(const GemmShape& s) {
  if (s.m == 0 || s.n == 0 || s.k == 0) return false;
  return s.trans_a ? s.a == DType::bf16 && !s.trans_b : s.a == DType::bf16 || s.a == DType::f32;
}
bool wants_onednn(const GemmShape& s, GemmEngine engine) {
  constexpr int64_t kThinRows = 8;      // too few to cut: the packed engine cuts columns
  constexpr int64_t kLongDepth = 8192;  // oneDNN walks all of k at once
  constexpr int64_t kWideRows = 16384;  // of a head: no gain, and the packed engine cuts columns too
  if (engine != GemmEngine::best) return engine == GemmEngine::onednn;
  if (s.m <= kThinRows) return false;
  if (s.a == DType::f32) return s.trans_b && !s.trans_a && s.n < kWideRows;
  if (s.a != DType::bf16) return false;
  return onednn_has_matrix_registers() || (!s.trans_a && s.k < kLongDepth);
}

// Depth of one pass over a transposed A. A 16-bit C cannot hold partial sums, so it takes all of k at once.
int64_t pass_depth(const GemmShape& s) { return s.trans_a && s.c == DType::f32 ? std::min(s.k, kDepth) : s.k; }

// An even number of equal blocks keeps two lanes level; multiples of 16 rows fill oneDNN's tiles.
int64_t block_rows(const GemmShape& s) {
  if (s.m < 32) return s.m;
  return std::min(s.m, round_up(ceil_div(s.m, 2 * ceil_div(s.m, 2 * kRows)), 16));
}

struct Operands {
  const char *a, *b;
  char* c;
  const void* bias;
};

// How one product runs in oneDNN: equal blocks of rows, the last one shorter, each in one or more passes over k.
struct OnednnPlan {
  int64_t rows, blocks, depth, passes;
  Ref<const OnednnBlock> block[2][3];  // [full, last block] x [first, middle, last pass]
  bool admitted = false;
};

OnednnPlan plan_onednn(const GemmShape& s) {
  OnednnPlan plan{};
  if (!onednn_takes(s)) return plan;
  plan.rows = block_rows(s);
  plan.blocks = ceil_div(s.m, plan.rows);
  plan.depth = pass_depth(s);
  plan.passes = ceil_div(s.k, plan.depth);
  for (int last_rows = 0; last_rows < 2; ++last_rows)
    for (int pass = 0; pass < 3; ++pass) {
      if (pass < 2 && pass >= plan.passes - 1) continue;
      OnednnSpec spec{plan.rows, s.n,         plan.depth, s.a, s.c, s.trans_b, s.accumulate || pass == 1 || (pass == 2 && plan.passes > 1),
                      false,     s.bias_dtype};
      if (last_rows) spec.m = s.m - (plan.blocks - 1) * plan.rows;
      if (pass == 2) spec.k = s.k - (plan.passes - 1) * plan.depth, spec.bias = s.bias;
      if (!(plan.block[last_rows][pass] = onednn_block(spec))) return plan;
    }
  plan.admitted = true;
  return plan;
}

struct Scratch {
  char* lane;        // kLaneBytes
  char* transposed;  // a block of A, row-major
};

void run_onednn_block(const GemmShape& s, const OnednnPlan& plan, int64_t block, const Operands& x, const Scratch& scratch) {
  const int64_t bytes = size_of(s.a), row = block * plan.rows, rows = std::min(plan.rows, s.m - row);
  char* const c = x.c + row * s.n * size_of(s.c);
  for (int64_t pass = 0; pass < plan.passes; ++pass) {
    const bool last = pass + 1 == plan.passes;
    const int64_t k = pass * plan.depth, depth = std::min(plan.depth, s.k - k);
    const char* a = x.a + row * s.k * bytes;
    if (s.trans_a) {
      transpose_16(x.a + (k * s.m + row) * bytes, s.m, depth, rows, scratch.transposed);
      a = scratch.transposed;
    }
    // Only a transposed A takes more than one pass, and then B is not transposed: its rows from k on are dense.
    plan.block[block + 1 == plan.blocks][last ? 2 : pass == 0 ? 0 : 1]->run(a, x.b + k * s.n * bytes, c, x.bias, scratch.lane);
  }
}

void run_packed_tile(const GemmShape& s, const TileCut& cut, int64_t tile, const Operands& x, void* scratch) {
  const int64_t row_tiles = ceil_div(s.m, cut.rows), row = tile % row_tiles * cut.rows, col = tile / row_tiles * cut.cols;
  const int64_t bytes = size_of(s.a), a_row = s.trans_a ? 1 : s.k, b_col = s.trans_b ? s.k : 1;
  PackedProduct p{std::min(cut.rows, s.m - row), std::min(cut.cols, s.n - col), s.k};
  p.a = {x.a + row * a_row * bytes, s.a, a_row, s.trans_a ? s.m : 1};
  p.b = {x.b + col * b_col * bytes, s.b, s.trans_b ? 1 : s.n, b_col};
  p.c = x.c + (row * s.n + col) * size_of(s.c);
  p.c_dtype = s.c;
  p.ldc = s.n;
  p.accumulate = s.accumulate;
  p.bias = s.bias ? static_cast<const char*>(x.bias) + col * size_of(s.bias_dtype) : nullptr;
  p.bias_dtype = s.bias_dtype;
  multiply_packed(p, scratch);
}
}  // namespace

int64_t gemm_workspace(const GemmShape& s, int lanes) {
  check_shape(s, lanes);
  int64_t bytes = lanes * kLaneBytes;
  if (s.trans_a && onednn_takes(s)) {
    // min(lanes, blocks) blocks of rows: at most 512 each, and together little more than m
    const int64_t rows = std::min(lanes * kRows, s.m + s.m / 32 + 32);
    bytes += round_up(rows * pass_depth(s) * size_of(s.a), 64);
  }
  return bytes;
}

void gemm_batched(const GemmShape& s, int64_t batch, const void* a, int64_t stride_a, const void* b, int64_t stride_b, void* c,
                  int64_t stride_c, const void* bias, void* workspace, int lanes, GemmEngine engine) {
  check_shape(s, lanes);
  if (batch == 0 || s.m == 0 || s.n == 0) return;
  char* const scratch = static_cast<char*>(workspace);
  const auto operands = [&](int64_t i) {
    return Operands{static_cast<const char*>(a) + i * stride_a * size_of(s.a), static_cast<const char*>(b) + i * stride_b * size_of(s.b),
                    static_cast<char*>(c) + i * stride_c * size_of(s.c), bias};
  };
  if (wants_onednn(s, engine)) {
    const OnednnPlan plan = plan_onednn(s);
    const int64_t slot = plan.rows * plan.depth * size_of(s.a);
    const auto run = [&](int64_t task, int lane) {
      const Scratch own{scratch + lane * kLaneBytes, scratch + lanes * kLaneBytes + lane * slot};
      run_onednn_block(s, plan, task % plan.blocks, operands(task / plan.blocks), own);
    };
    if (plan.admitted) return parallel_for(batch * plan.blocks, run, lanes);
  }
  const TileCut cut = packed_cut(s.m, s.n, s.k, s.a, s.c, batch, lanes);
  const int64_t tiles = ceil_div(s.m, cut.rows) * ceil_div(s.n, cut.cols);
  const auto run = [&](int64_t task, int lane) {
    run_packed_tile(s, cut, task % tiles, operands(task / tiles), scratch + lane * kLaneBytes);
  };
  parallel_for(batch * tiles, run, lanes);
}

void gemm(const GemmShape& s, const void* a, const void* b, void* c, const void* bias, void* workspace, int lanes, GemmEngine engine) {
  gemm_batched(s, 1, a, 0, b, 0, c, 0, bias, workspace, lanes, engine);
}
}  // namespace reckon::cpu
