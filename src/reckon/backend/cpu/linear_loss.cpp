// backend/cpu/linear_loss: how the logits are cut into tiles, and what is done with each. Tiles are dense, and so are the rows of x, w, dx
// and dw that they meet: each product is one call of gemm.
#include "reckon/backend/cpu/linear_loss.h"

#include <algorithm>
#include <utility>

#include "reckon/backend/cpu/convert.h"
#include "reckon/backend/cpu/gemm.h"
#include "reckon/backend/cpu/rows.h"
#include "reckon/base/error.h"
#include "reckon/tensor/shape.h"

namespace reckon::cpu {
namespace {
int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
int64_t aligned(int64_t bytes) { return round_up(bytes, 64); }

// Tiles of equal height, in whole blocks of 16 rows; `most` is a multiple of 16.
int64_t equal_rows(int64_t rows, int64_t most) { return rows <= most ? rows : round_up(ceil_div(rows, ceil_div(rows, most)), 16); }

// The three products of a tile of m rows and n columns.
GemmShape logits_shape(DType t, int64_t m, int64_t n, int64_t width) {
  return {.m = m, .n = n, .k = width, .a = t, .b = t, .c = t, .trans_b = true};
}
GemmShape dx_shape(DType t, DType c, int64_t m, int64_t n, int64_t width, bool add) {
  return {.m = m, .n = width, .k = n, .a = t, .b = t, .c = c, .accumulate = add};
}
GemmShape dw_shape(DType t, DType c, int64_t m, int64_t n, int64_t width, bool add) {
  return {.m = n, .n = width, .k = m, .a = t, .b = t, .c = c, .trans_a = true, .accumulate = add};
}
int64_t products_workspace(DType t, DType dw, int64_t m, int64_t n, int64_t width, int lanes) {
  int64_t bytes = gemm_workspace(logits_shape(t, m, n, width), lanes);
  for (const bool add : {false, true}) {
    bytes = std::max(bytes, gemm_workspace(dx_shape(t, t, m, n, width, add), lanes));
    bytes = std::max(bytes, gemm_workspace(dx_shape(t, statistics_dtype(t), m, n, width, add), lanes));
    bytes = std::max(bytes, gemm_workspace(dw_shape(t, dw, m, n, width, add), lanes));
  }
  return aligned(bytes);
}

// dx is summed over tiles of columns: 16-bit dx in float32 beside it, rounded once.
bool sums_dx_apart(DType dtype, int64_t classes) { return classes > kTileColumns && size_of(dtype) == 2; }

// Takes pieces of the workspace one after another.
class Pieces {
 public:
  explicit Pieces(const LinearLoss& head) : at_(static_cast<std::byte*>(head.workspace)) {}
  void* take(int64_t bytes) { return std::exchange(at_, at_ + aligned(bytes)); }

 private:
  std::byte* at_;
};

const void* at(const void* data, DType dtype, int64_t element) { return static_cast<const std::byte*>(data) + element * size_of(dtype); }
void* at(void* data, DType dtype, int64_t element) { return data ? static_cast<std::byte*>(data) + element * size_of(dtype) : nullptr; }

// A tile of the logits in work: rows [row, row + rows) and columns [first, first + cols).
struct Work {
  const LinearLoss& head;
  void* gemm_scratch;
  LogitTile tile;
  int64_t row = 0;

  void place(int64_t r, int64_t rows, int64_t first, int64_t cols) {
    row = r;
    tile.rows = rows, tile.first = first, tile.cols = cols;
    tile.targets = head.targets + row;
  }
  void make_logits() const {
    gemm(logits_shape(head.dtype, tile.rows, tile.cols, head.width), at(head.x, head.dtype, row * head.width),
         at(head.w, head.dtype, tile.first * head.width), tile.logits, nullptr, gemm_scratch, head.lanes);
  }
  // The tile holds the gradient of the logits.
  void add_to_dw(const HeadGradients& g) const {
    const GemmShape shape = dw_shape(head.dtype, g.dw_dtype, tile.rows, tile.cols, head.width, g.accumulate_dw || row > 0);
    gemm(shape, tile.logits, at(head.x, head.dtype, row * head.width), at(g.dw, g.dw_dtype, tile.first * head.width), nullptr, gemm_scratch,
         head.lanes);
  }
  void add_to_dx(void* dx, DType dtype) const {
    gemm(dx_shape(head.dtype, dtype, tile.rows, tile.cols, head.width, tile.first > 0), tile.logits,
         at(head.w, head.dtype, tile.first * head.width), dx, nullptr, gemm_scratch, head.lanes);
  }
};
Work work_of(const LinearLoss& head, void* gemm_scratch, void* tile) {
  return {head, gemm_scratch, {.dtype = head.dtype, .classes = head.classes, .logits = tile, .terms = head.terms}};
}

// Without rows there is no tile to overwrite dw; a product without depth does it.
void clear_untouched(const LinearLoss& head, void* gemm_scratch, const HeadGradients& g) {
  if (head.rows > 0 || !g.dw || g.accumulate_dw) return;
  gemm(dw_shape(head.dtype, g.dw_dtype, 0, head.classes, head.width, false), head.w, head.w, g.dw, nullptr, gemm_scratch, head.lanes);
}

RowScale scale_of(const LinearLoss& head, const LinearLossScale& s, double count) {
  return s.per_row ? RowScale{0, s.scale} : RowScale{load_float(statistics_dtype(head.dtype), s.scale, 0) / count, nullptr};
}
RowScale from_row(const RowScale& scale, DType stat, int64_t row) {
  return {scale.shared, scale.each_row ? at(scale.each_row, stat, row) : nullptr};
}

void write_totals(const LinearLossForward& out, DType stat, double sum, double count) {
  if (out.mean) store_float(stat, out.mean, 0, sum / count);
  if (out.sum) store_float(stat, out.sum, 0, sum);
  if (out.count) store_float(stat, out.count, 0, count);
}
}  // namespace

int64_t linear_loss_workspace(DType dtype, int64_t rows, int64_t width, int64_t classes, int lanes) {
  const int64_t m = std::min(rows, kTileRows), n = std::min(classes, kTileColumns);
  const int64_t product = aligned(gemm_workspace(logits_shape(dtype, m, n, width), lanes));
  return product + aligned(m * n * size_of(dtype)) + aligned(m * int64_t(sizeof(RowSums))) + aligned(m * 8);
}

void linear_loss(const LinearLoss& head, const LinearLossForward& out) {
  const DType stat = statistics_dtype(head.dtype);
  const int64_t m = equal_rows(head.rows, kTileRows), n = std::min(head.classes, kTileColumns);
  Pieces pieces(head);
  void* const product = pieces.take(gemm_workspace(logits_shape(head.dtype, m, n, head.width), head.lanes));
  Work work = work_of(head, product, pieces.take(m * n * size_of(head.dtype)));
  RowSums* const sums = static_cast<RowSums*>(pieces.take(m * int64_t(sizeof(RowSums))));
  void* const losses = pieces.take(m * 8);
  double sum = 0;
  for (int64_t row = 0; row < head.rows; row += m) {
    for (int64_t first = 0; first < head.classes; first += n) {
      work.place(row, std::min(m, head.rows - row), first, std::min(n, head.classes - first));
      work.make_logits();
      add_logits(work.tile, sums);
    }
    finish_losses(work.tile, sums, out.losses ? at(out.losses, stat, row) : losses, at(out.lse, stat, row), sum);
  }
  write_totals(out, stat, sum, double(count_targets(head.targets, head.rows, head.terms)));
}

int64_t linear_loss_back_workspace(DType dtype, int64_t rows, int64_t width, int64_t classes, DType dw_dtype, int lanes) {
  const int64_t m = std::min(rows, kTileRows), n = std::min(classes, kTileColumns);
  const int64_t dx_sums = sums_dx_apart(dtype, classes) ? checked_multiply(m, 4 * width) : 0;
  return products_workspace(dtype, dw_dtype, m, n, width, lanes) + aligned(m * n * size_of(dtype)) + aligned(dx_sums);
}

void linear_loss_back(const LinearLoss& head, const LinearLossScale& scale, const void* lse, const HeadGradients& g) {
  const DType stat = statistics_dtype(head.dtype);
  const int64_t m = equal_rows(head.rows, kTileRows), n = std::min(head.classes, kTileColumns);
  const bool apart = g.dx && sums_dx_apart(head.dtype, head.classes);
  Pieces pieces(head);
  void* const products = pieces.take(products_workspace(head.dtype, g.dw_dtype, m, n, head.width, head.lanes));
  Work work = work_of(head, products, pieces.take(m * n * size_of(head.dtype)));
  void* const dx_sums = apart ? pieces.take(m * head.width * 4) : nullptr;
  const RowScale shared = scale_of(head, scale, scale.count ? load_float(stat, scale.count, 0) : 1);
  for (int64_t row = 0; row < head.rows; row += m) {
    void* const dx = at(g.dx, head.dtype, row * head.width);
    const int64_t rows = std::min(m, head.rows - row);
    for (int64_t first = 0; first < head.classes; first += n) {
      work.place(row, rows, first, std::min(n, head.classes - first));
      work.make_logits();
      logits_to_gradient(work.tile, at(lse, stat, row), from_row(shared, stat, row));
      if (g.dw) work.add_to_dw(g);
      if (g.dx) work.add_to_dx(apart ? dx_sums : dx, apart ? DType::f32 : head.dtype);
    }
    if (apart) convert(DType::f32, dx_sums, head.dtype, dx, rows * head.width);
  }
  clear_untouched(head, products, g);
}

int64_t linear_loss_step_rows(DType dtype, int64_t rows, int64_t classes) {
  const int64_t fit = kStepTileBytes / (std::max<int64_t>(classes, 1) * size_of(dtype)) / 16 * 16;
  return equal_rows(rows, std::clamp(fit, kLeastStepRows, kMostStepRows));
}

int64_t linear_loss_step_workspace(DType dtype, int64_t rows, int64_t width, int64_t classes, DType dw_dtype, int lanes) {
  // A wider tile has fewer rows; what is granted is a bound that only grows.
  const int64_t m = std::min(rows, kMostStepRows);
  const int64_t row = checked_multiply(classes, size_of(dtype));
  const int64_t tile = std::min(checked_multiply(m, row), std::max(kStepTileBytes, checked_multiply(kLeastStepRows, row)));
  return products_workspace(dtype, dw_dtype, m, classes, width, lanes) + aligned(tile) + aligned(m * 8);
}

void linear_loss_step(const LinearLoss& head, const LinearLossForward& out, const LinearLossScale& scale, const HeadGradients& g) {
  const DType stat = statistics_dtype(head.dtype);
  const int64_t m = linear_loss_step_rows(head.dtype, head.rows, head.classes);
  Pieces pieces(head);
  void* const products = pieces.take(products_workspace(head.dtype, g.dw_dtype, m, head.classes, head.width, head.lanes));
  Work work = work_of(head, products, pieces.take(m * head.classes * size_of(head.dtype)));
  void* const losses = pieces.take(m * 8);
  const double count = double(count_targets(head.targets, head.rows, head.terms));
  const RowScale shared = scale_of(head, scale, out.mean ? count : 1);
  double sum = 0;
  for (int64_t row = 0; row < head.rows; row += m) {
    work.place(row, std::min(m, head.rows - row), 0, head.classes);
    void* const these = out.losses ? at(out.losses, stat, row) : losses;
    work.make_logits();
    logits_to_loss_and_gradient(work.tile, these, from_row(shared, stat, row));
    for (int64_t i = 0; i < work.tile.rows; ++i)
      if (work.tile.targets[i] != head.terms.ignore_index) sum += load_float(stat, these, i);
    if (g.dw) work.add_to_dw(g);
    if (g.dx) work.add_to_dx(at(g.dx, head.dtype, row * head.width), head.dtype);
  }
  clear_untouched(head, products, g);
  write_totals(out, stat, sum, count);
}
}  // namespace reckon::cpu
