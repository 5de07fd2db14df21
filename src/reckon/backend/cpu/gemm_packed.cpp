// backend/cpu/gemm_packed: how the packed engine walks a product: blocks of depth, blocks of rows, panels of columns, register tiles.
#include "reckon/backend/cpu/gemm_packed.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "reckon/backend/cpu/count.h"
#include "reckon/backend/cpu/gemm.h"
#include "reckon/base/error.h"

namespace reckon::cpu {
namespace {
constexpr int64_t kStagedColumns = 480;      // columns of a tile of float32 sums for 16-bit C
constexpr int64_t kBlockBytes = 264 * 1024;  // of packed A: it stays in half of the second-level cache while all panels of B pass by
constexpr int64_t kTileBytes = 2048;         // one register tile, at C's edge

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

bool staged(const PackedKernel& kernel, DType c) { return size_of(c) < kernel.accumulator; }
// Blocks of equal rows, as few as fit.
int64_t block_rows(const PackedKernel& kernel, int64_t m, DType c) {
  const int64_t most = kBlockBytes / (kernel.max_k * kernel.bytes) / (staged(kernel, c) ? 2 : 1);
  return round_up(ceil_div(m, ceil_div(m, most)), kernel.mr);
}

// Equal depths, so that none is too short to pay for its pass over C.
int64_t block_depth(const PackedKernel& kernel, int64_t k) { return round_up(ceil_div(k, ceil_div(k, kernel.max_k)), 4); }

const char* element(const Matrix& x, int64_t row, int64_t col) {
  return static_cast<const char*>(x.data) + (row * x.row_stride + col * x.col_stride) * size_of(x.dtype);
}

float read_bias(const void* bias, DType dtype, int64_t j) {
  if (dtype == DType::bf16) return float(static_cast<const bfloat16*>(bias)[j]);
  if (dtype == DType::f16) return float(static_cast<const float16*>(bias)[j]);
  return static_cast<const float*>(bias)[j];
}

// One block of rows of C in work: its packed A, one panel of B, and where its sums go.
struct Block {
  const PackedKernel& kernel;
  const PackedProduct& p;
  char *a, *b;  // packed
  char* sums;   // C itself, or the staging tile
  int64_t ld;   // of sums, in accumulators
  int64_t row, rows;
};

void pack_rows(const Block& block, int64_t k, int64_t depth) {
  const PackedKernel& kernel = block.kernel;
  const Matrix& a = block.p.a;
  for (int64_t i = 0; i < block.rows; i += kernel.mr)
    kernel.pack_a(element(a, block.row + i, k), a.dtype, a.row_stride, a.col_stride, std::min<int64_t>(kernel.mr, block.rows - i), depth,
                  block.a + i * round_up(depth, 2) * kernel.bytes);
}

// Columns [col, col + cols) of B, rows [k, k + depth).
struct Panel {
  int64_t k, depth, col, cols;
};

// Part `part` of `parts` of a panel, asked for while the panel before it is multiplied.
void prefetch(const Matrix& b, const Panel& panel, int64_t part, int64_t parts) {
  const bool along_k = b.row_stride == 1;
  const int64_t lines = along_k ? panel.cols : panel.depth, bytes = (along_k ? panel.depth : panel.cols) * size_of(b.dtype);
  for (int64_t line = lines * part / parts; line < lines * (part + 1) / parts; ++line) {
    const char* p = along_k ? element(b, panel.k, panel.col + line) : element(b, panel.k + line, panel.col);
    for (int64_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(p + byte);
  }
}

// Multiplies the packed panel into columns [at, at + panel.cols) of the sums; `next` is the panel to come, perhaps empty.
void multiply_panel(const Block& block, const Panel& panel, const Panel& next, int64_t at, bool add) {
  const PackedKernel& kernel = block.kernel;
  const int64_t bytes = kernel.accumulator, depth = panel.depth, parts = ceil_div(block.rows, kernel.mr);
  const size_t row_bytes = size_t(panel.cols * bytes);
  alignas(64) char tile[kTileBytes];
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t i = part * kernel.mr, rows = std::min<int64_t>(kernel.mr, block.rows - i);
    const char* a = block.a + i * round_up(depth, 2) * kernel.bytes;
    char* to = block.sums + (i * block.ld + at) * bytes;
    prefetch(block.p.b, next, part, parts);
    RECKON_COUNT_MATMUL(2 * rows * panel.cols * depth);
    if (rows == kernel.mr && panel.cols % kernel.lanes == 0) {
      kernel.multiply(depth, panel.cols, a, block.b, to, block.ld, add);
      continue;
    }
    const int64_t tile_row = kernel.nr * bytes, to_row = block.ld * bytes;
    for (int64_t r = 0; add && r < rows; ++r) std::memcpy(tile + r * tile_row, to + r * to_row, row_bytes);
    kernel.multiply(depth, panel.cols, a, block.b, tile, kernel.nr, add);
    for (int64_t r = 0; r < rows; ++r) std::memcpy(to + r * to_row, tile + r * tile_row, row_bytes);
  }
}

// Adds bias and rounds: columns [col, col + cols) of C, whose sums start at column `at` of block.sums.
void finish_panel(const Block& block, int64_t col, int64_t at, int64_t cols) {
  const PackedProduct& p = block.p;
  const bool round = staged(block.kernel, p.c_dtype);
  if (!round && !p.bias) return;
  if (p.bias) RECKON_COUNT_VECTOR(block.rows * cols);
  char* c = static_cast<char*>(p.c) + (block.row * p.ldc + col) * size_of(p.c_dtype);
  if (p.c_dtype == DType::f64) {
    const double* bias = static_cast<const double*>(p.bias) + col;
    for (int64_t i = 0; i < block.rows; ++i)
      for (int64_t j = 0; j < cols; ++j) reinterpret_cast<double*>(c)[i * p.ldc + j] += bias[j];
    return;
  }
  float bias[64];
  if (p.bias)
    for (int64_t j = 0; j < cols; ++j) bias[j] = read_bias(p.bias, p.bias_dtype, col + j);
  const float* sums = reinterpret_cast<const float*>(block.sums) + at;
  finish_block(block.rows, cols, sums, block.ld, c, p.c_dtype, p.ldc, round && p.accumulate, p.bias ? bias : nullptr);
}

void multiply_block(const Block& block, int64_t col, int64_t cols) {
  const PackedKernel& kernel = block.kernel;
  const PackedProduct& p = block.p;
  const bool round = staged(kernel, p.c_dtype);
  const int64_t depth = block_depth(kernel, p.k);
  for (int64_t k = 0; k < p.k; k += depth) {
    const int64_t kc = std::min(depth, p.k - k);
    const bool add = k > 0 || (p.accumulate && !round);
    pack_rows(block, k, kc);
    for (int64_t j = 0; j < cols; j += kernel.nr) {
      const Panel panel{k, kc, col + j, std::min<int64_t>(kernel.nr, cols - j)};
      const Panel next{k, kc, panel.col + panel.cols, std::min<int64_t>(kernel.nr, cols - j - panel.cols)};
      const int64_t at = round ? j : panel.col;
      kernel.pack_b(element(p.b, k, panel.col), p.b.dtype, p.b.col_stride, p.b.row_stride, panel.cols, kc, block.b);
      multiply_panel(block, panel, next, at, add);
      if (k + kc == p.k) finish_panel(block, panel.col, at, panel.cols);
    }
  }
}

// k = 0: nothing is multiplied, but C is still cleared, kept or given its bias.
void finish_empty(const PackedProduct& p) {
  for (int64_t i = 0; i < p.m; ++i)
    for (int64_t j = 0; j < p.n; ++j) {
      const int64_t at = i * p.ldc + j;
      if (p.bias) RECKON_COUNT_VECTOR(1);
      if (p.c_dtype == DType::f64) {
        double& c = static_cast<double*>(p.c)[at];
        c = (p.accumulate ? c : 0) + (p.bias ? static_cast<const double*>(p.bias)[j] : 0);
        continue;
      }
      const float x = (p.accumulate ? read_bias(p.c, p.c_dtype, at) : 0) + (p.bias ? read_bias(p.bias, p.bias_dtype, j) : 0);
      if (p.c_dtype == DType::bf16)
        static_cast<bfloat16*>(p.c)[at] = bfloat16(x);
      else if (p.c_dtype == DType::f16)
        static_cast<float16*>(p.c)[at] = float16(x);
      else
        static_cast<float*>(p.c)[at] = x;
    }
}
}  // namespace

const PackedKernel& packed_kernel(DType ab) {
  if (ab == DType::bf16 && packed_kernel_bf16()) return *packed_kernel_bf16();
  return ab == DType::f64 ? packed_kernel_f64() : packed_kernel_f32();
}

TileCut packed_cut(int64_t m, int64_t n, int64_t k, DType ab, DType c, int64_t batch, int64_t lanes) {
  constexpr double kWorthATask = 1e6;  // multiply-adds; far above the cost of handing out a task
  // What it takes to pack an element, in multiply-adds, and what lanes of unequal speed lose, in shares of a lane's task.
  constexpr double kPackA = 30, kPackB = 15, kUneven = 0.04;
  const PackedKernel& kernel = packed_kernel(ab);
  const int64_t worth = std::max<int64_t>(1, int64_t(double(m) * double(n) * double(k) / kWorthATask));
  const int64_t least = ceil_div(m, block_rows(kernel, m, c)), most = std::max(least, ceil_div(m, 8 * kernel.mr));
  int64_t best_strips = 1, best_blocks = least;
  double best = HUGE_VAL;
  for (int64_t strips = 1; strips <= std::clamp<int64_t>(n / (4 * kernel.nr), 1, 4 * lanes); ++strips) {
    for (const int64_t rounds : {0, 1, 2}) {
      const int64_t blocks = std::clamp(ceil_div(rounds * lanes, strips * batch), least, most), tiles = strips * blocks;
      if (tiles > 1 && tiles > worth && tiles > least) continue;
      // Each strip of columns packs A again, each block of rows packs B again.
      const double pack = kPackA * double(strips) / double(n) + kPackB * double(blocks) / double(m);
      const double share = double(lanes) / double(tiles * batch);
      const double cost = (1 + pack) * share * double(ceil_div(tiles * batch, lanes)) + kUneven * share;
      if (cost < best) best = cost, best_strips = strips, best_blocks = blocks;
    }
  }
  return {round_up(ceil_div(m, best_blocks), kernel.mr), round_up(ceil_div(n, best_strips), kernel.nr)};
}

void multiply_packed(const PackedProduct& p, void* scratch) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0) return finish_empty(p);
  const PackedKernel& kernel = packed_kernel(p.a.dtype);
  const bool round = staged(kernel, p.c_dtype);
  const int64_t mc = block_rows(kernel, p.m, p.c_dtype), nc = round ? kStagedColumns / kernel.nr * kernel.nr : p.n;
  char* const base = static_cast<char*>(scratch);
  char* const b = base + mc * kernel.max_k * kernel.bytes;
  char* const sums = b + int64_t(kernel.nr) * kernel.max_k * kernel.bytes;
  RECKON_ASSERT(sums + (round ? mc * nc * kernel.accumulator : 0) <= base + kLaneBytes);
  for (int64_t col = 0; col < p.n; col += nc)
    for (int64_t row = 0; row < p.m; row += mc) {
      Block block{kernel, p, base, b, sums, nc, row, std::min(mc, p.m - row)};
      if (!round) {
        block.sums = static_cast<char*>(p.c) + row * p.ldc * kernel.accumulator;
        block.ld = p.ldc;
      }
      multiply_block(block, col, std::min(nc, p.n - col));
    }
}

void gemm_tile_f32(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, bool trans_b, float* c,
                   int64_t ldc, bool accumulate, void* scratch) {
  constexpr int64_t kWidestPanel = 24 * 1024;
  static_assert(kGemmTileScratch == kBlockBytes + kWidestPanel && kGemmTileScratch <= kLaneBytes);
  const Matrix b_view{b, DType::f32, trans_b ? 1 : ldb, trans_b ? ldb : 1};
  multiply_packed({m, n, k, {a, DType::f32, lda, 1}, b_view, c, DType::f32, ldc, accumulate, nullptr, DType::f32}, scratch);
}
}  // namespace reckon::cpu
