// backend/cpu/loss: forward reads each logit once: chunk by chunk with a running maximum. Backward is element-wise given lse, so its tasks
// are cut across columns too, and few rows of a large vocabulary still spread over threads.
#include "reckon/backend/cpu/loss.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/loss.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_rows-inl.h"

#ifndef RECKON_BACKEND_CPU_LOSS_ROW_PART_
#define RECKON_BACKEND_CPU_LOSS_ROW_PART_
namespace reckon::cpu {
// Elements [at, at + cols) of a matrix: columns of one row, on their way from logits to gradient:
// to = exp(from - lse) * weight - shift, less `peak` at column `hit`, which may lie outside.
struct RowPart {
  DType dtype;
  const void* from;
  void* to;
  int64_t at, cols, hit;
  double lse, weight, shift, peak;
  int cost;              // FLOPs an element, for counting
  bool streams = false;  // past the caches
};
}  // namespace reckon::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
static_assert(kLogitColumns % kChunk == 0, "sums over tiles would be cut elsewhere than sums over a row");

void add_row(DType dtype, const void* logits, int64_t at, int64_t cols, bool with_total, RowSums& sums) {
  RowReader x(dtype, logits);
  float most = float(sums.most);
  add_exps(x, at, cols, kChunk, most, sums.exps);
  sums.most = double(most);
  if (!with_total) return;
  for_chunks(cols, [&](int64_t c, int64_t n) RECKON_VEC {
    x.with(at + c, n, [&](auto xs) RECKON_VEC {
      add_sums<1>(n, &sums.total, [&](int64_t i, auto part, V* acc) RECKON_VEC {
        RECKON_COUNT_VECTOR(part.count());
        acc[0] = hn::Add(acc[0], xs.load(part, i));
      });
    });
  });
}

void gradient_part(const RowPart& a) {
  RowReader x(a.dtype, a.from);
  RowWriter dx(a.dtype, a.to, a.streams);
  const V lse = set(float(a.lse)), weight = set(float(a.weight)), shift = set(float(a.shift));
  for_stores(a.cols, [&](int64_t c, int64_t n) RECKON_VEC {
    float* dxs = dx.at(a.at + c);
    const Ahead ahead = x.ahead(a.at + c + kChunk);
    x.with(a.at + c, n, [&](auto xs) RECKON_VEC {
      for_vectors(n, [&](int64_t i, auto part) RECKON_VEC {
        RECKON_COUNT_VECTOR(a.cost * part.count());  // the target's subtraction follows
        ahead(i);
        part.store(hn::Sub(hn::Mul(exp_vec(hn::Sub(xs.load(part, i), lse)), weight), shift), dxs + i);
      });
    });
    if (a.hit >= c && a.hit < c + n) dxs[a.hit - c] -= float(a.peak);
    dx.done(a.at + c, n);
  });
  if (a.streams) stream_fence();
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <cmath>
#include <limits>

#include "reckon/backend/cpu/row_tasks.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(add_row);
HWY_EXPORT(gradient_part);
constexpr double kInfinity = std::numeric_limits<double>::infinity(), kNaN = std::numeric_limits<double>::quiet_NaN();

void add_row_f64(const double* x, int64_t cols, bool with_total, RowSums& sums) {
  for (int64_t c = 0; c < cols; c += kLogitColumns) {
    const int64_t end = std::min(cols, c + kLogitColumns);
    double most = sums.most;
    for (int64_t j = c; j < end; ++j) {
      RECKON_COUNT_VECTOR(1);
      most = std::fmax(most, x[j]);
    }
    if (most != sums.most && sums.most != -kInfinity) sums.exps *= std::exp(sums.most - most);
    sums.most = most;
    const double shift = most == -kInfinity ? 0 : most;
    for (int64_t j = c; j < end; ++j) {
      RECKON_COUNT_VECTOR(3);
      sums.exps += std::exp(x[j] - shift);
    }
    for (int64_t j = c; with_total && j < end; ++j) {
      RECKON_COUNT_VECTOR(1);
      sums.total += x[j];
    }
  }
}

void gradient_part_f64(const RowPart& a) {
  const double* x = static_cast<const double*>(a.from) + a.at;
  double* dx = static_cast<double*>(a.to) + a.at;
  for (int64_t j = 0; j < a.cols; ++j) {
    RECKON_COUNT_VECTOR(a.cost);
    dx[j] = std::exp(x[j] - a.lse) * a.weight - a.shift - (j == a.hit ? a.peak : 0);
  }
}

bool in_classes(int32_t target, int64_t classes) { return target >= 0 && target < classes; }

// One row of a tile.
void add_tile_row(const LogitTile& t, int64_t row, RowSums& sums) {
  if (t.first == 0) sums = {-kInfinity, 0, 0, kNaN};
  const bool with_total = t.terms.label_smoothing > 0;
  if (t.dtype == DType::f64) {
    add_row_f64(static_cast<const double*>(t.logits) + row * t.cols, t.cols, with_total, sums);
  } else {
    HWY_DYNAMIC_DISPATCH(add_row)(t.dtype, t.logits, row * t.cols, t.cols, with_total, sums);
  }
  const int64_t column = int64_t(t.targets[row]) - t.first;
  if (column >= 0 && column < t.cols && t.targets[row] != t.terms.ignore_index)
    sums.target = load_float(t.dtype, t.logits, row * t.cols + column);
}

struct RowLoss {
  double loss, lse;
};
RowLoss row_loss(const LogitTile& t, int64_t row, const RowSums& sums) {
  double lse = (sums.most == -kInfinity ? 0 : sums.most) + std::log(sums.exps);
  if (t.dtype != DType::f64) lse = double(float(lse));  // as backward will read it
  if (t.targets[row] == t.terms.ignore_index) return {0, lse};
  const double s = t.terms.label_smoothing;
  double loss = s > 0 ? lse - (1 - s) * sums.target - s * (sums.total / double(t.classes)) : lse - sums.target;
  if (t.terms.z_loss != 0) loss += t.terms.z_loss * lse * lse;
  return {loss, lse};
}

// What the columns of a row become, given the factor of its loss. Invalid targets give NaN everywhere.
RowPart part_of(DType dtype, const LossTerms& terms, int64_t classes, int32_t target, double lse, double factor) {
  if (!in_classes(target, classes)) factor = kNaN;
  const double s = terms.label_smoothing, z = terms.z_loss;
  RowPart part{.dtype = dtype, .lse = lse, .weight = factor, .shift = 0, .peak = factor, .cost = 4};
  if (z != 0) part.weight = factor * (1 + 2 * z * lse), ++part.cost;
  if (s > 0) part.shift = factor * s / double(classes), part.peak = factor * (1 - s), ++part.cost;
  return part;
}

void to_gradient(const RowPart& part) {
  if (part.dtype == DType::f64) return gradient_part_f64(part);
  HWY_DYNAMIC_DISPATCH(gradient_part)(part);
}

double factor_of(const RowScale& scale, DType stat, int64_t row) {
  return scale.each_row ? load_float(stat, scale.each_row, row) : scale.shared;
}

void tile_row_to_gradient(const LogitTile& t, int64_t row, double lse, const RowScale& scale) {
  const int64_t at = row * t.cols;
  if (t.targets[row] == t.terms.ignore_index)
    return void(std::memset(static_cast<char*>(t.logits) + at * size_of(t.dtype), 0, size_t(t.cols * size_of(t.dtype))));
  RowPart part = part_of(t.dtype, t.terms, t.classes, t.targets[row], lse, factor_of(scale, statistics_dtype(t.dtype), row));
  part.from = part.to = t.logits;
  part.at = at;
  part.cols = t.cols;
  part.hit = int64_t(t.targets[row]) - t.first;
  to_gradient(part);
}

template <class Body>
void for_rows(const LogitTile& t, Body body) {
  parallel_range(t.rows, row_tasks(t.rows, t.cols * size_of(t.dtype), 0).rows_each, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}
}  // namespace

int64_t count_targets(const int32_t* targets, int64_t rows, const LossTerms& terms) {
  return rows - std::count(targets, targets + rows, terms.ignore_index);
}

void add_logits(const LogitTile& t, RowSums* sums) {
  for_rows(t, [&](int64_t row) { add_tile_row(t, row, sums[row]); });
}

void finish_losses(const LogitTile& t, const RowSums* sums, void* loss, void* lse, double& sum) {
  const DType stat = statistics_dtype(t.dtype);
  for (int64_t row = 0; row < t.rows; ++row) {
    const RowLoss r = row_loss(t, row, sums[row]);
    store_float(stat, lse, row, r.lse);
    store_float(stat, loss, row, r.loss);
    if (t.targets[row] != t.terms.ignore_index) sum += load_float(stat, loss, row);
  }
}

void logits_to_gradient(const LogitTile& t, const void* lse, const RowScale& scale) {
  const DType stat = statistics_dtype(t.dtype);
  for_rows(t, [&](int64_t row) { tile_row_to_gradient(t, row, load_float(stat, lse, row), scale); });
}

void logits_to_loss_and_gradient(const LogitTile& t, void* loss, const RowScale& scale) {
  const DType stat = statistics_dtype(t.dtype);
  // A few rows at a time, while they are near: one row's gradient alone would wait for its own logarithm.
  constexpr int64_t kMostRows = 16, kNearBytes = 128 << 10;
  const int64_t row_bytes = std::max<int64_t>(t.cols * size_of(t.dtype), 1),
                together = std::clamp<int64_t>(kNearBytes / row_bytes, 1, kMostRows);
  parallel_range(t.rows, rows_per_task(row_bytes), [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += together) {
      const int64_t last = std::min(end, first + together);
      double lse[kMostRows];
      for (int64_t row = first; row < last; ++row) {
        RowSums sums;
        add_tile_row(t, row, sums);
        const RowLoss r = row_loss(t, row, sums);
        store_float(stat, loss, row, r.loss);
        lse[row - first] = r.lse;
      }
      for (int64_t row = first; row < last; ++row) tile_row_to_gradient(t, row, lse[row - first], scale);
    }
  });
}

void cross_entropy(const CrossEntropy& a) {
  RECKON_ASSERT(is_float(a.dtype));
  const DType stat = statistics_dtype(a.dtype);
  const LogitTile all{a.dtype, a.rows, a.classes, 0, a.classes, const_cast<void*>(a.logits), a.targets, a.terms};
  for_rows(all, [&](int64_t row) {
    RowSums sums;
    add_tile_row(all, row, sums);
    const RowLoss r = row_loss(all, row, sums);
    store_float(stat, a.lse, row, r.lse);
    store_float(stat, a.loss, row, r.loss);
  });
  if (!a.mean && !a.sum && !a.count) return;
  double sum = 0;
  for (int64_t row = 0; row < a.rows; ++row)
    if (a.targets[row] != a.terms.ignore_index) sum += load_float(stat, a.loss, row);
  const double count = double(count_targets(a.targets, a.rows, a.terms));
  if (a.mean) store_float(stat, a.mean, 0, sum / count);
  if (a.sum) store_float(stat, a.sum, 0, sum);
  if (a.count) store_float(stat, a.count, 0, count);
}

void cross_entropy_back(const CrossEntropyBack& a) {
  RECKON_ASSERT(is_float(a.dtype));
  const DType stat = statistics_dtype(a.dtype);
  const RowScale scale{a.per_row ? 0 : load_float(stat, a.scale, 0) / (a.count ? load_float(stat, a.count, 0) : 1),
                       a.per_row ? a.scale : nullptr};
  const RowTasks tasks = row_tasks(a.rows, 2 * a.classes * size_of(a.dtype), a.classes * size_of(a.dtype));
  const auto columns = [&](int64_t row, int64_t from, int64_t to) {
    const int64_t at = row * a.classes + from;
    if (a.targets[row] == a.terms.ignore_index)
      return void(std::memset(static_cast<char*>(a.dlogits) + at * size_of(a.dtype), 0, size_t((to - from) * size_of(a.dtype))));
    RowPart part = part_of(a.dtype, a.terms, a.classes, a.targets[row], load_float(stat, a.lse, row), factor_of(scale, stat, row));
    part.from = a.logits;
    part.to = a.dlogits;
    part.at = at;
    part.cols = to - from;
    part.hit = int64_t(a.targets[row]) - from;
    part.streams = tasks.streams;
    to_gradient(part);
  };
  const int64_t rows_each = tasks.rows_each, columns_each = kTaskBytes / size_of(a.dtype);
  if (rows_each > 1) {
    parallel_range(a.rows, rows_each, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) columns(row, 0, a.classes);
    });
    return;
  }
  const int64_t parts = (a.classes + columns_each - 1) / columns_each;
  parallel_for(a.rows * parts, [&](int64_t task) {
    const int64_t from = task % parts * columns_each;
    columns(task / parts, from, std::min(a.classes, from + columns_each));
  });
}
}  // namespace reckon::cpu
#endif
