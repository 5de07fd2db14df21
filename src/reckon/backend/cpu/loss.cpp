// backend/cpu/loss: forward reads each logit once: chunk by chunk with a running maximum. Backward is element-wise given lse, so its tasks
// are cut across columns too, and few rows of a large vocabulary still spread over threads.
#include "reckon/backend/cpu/loss.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/loss.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
// Log-sum-exp of rows [begin, end).
void lse_rows(const CrossEntropy& a, int64_t begin, int64_t end) {
  Reader x(a.dtype, a.logits);
  for (int64_t row = begin; row < end; ++row) static_cast<float*>(a.lse)[row] = float(log_sum_exp(x, row * a.classes, a.classes).lse());
}

// Elements [from, to) of one row: (p - onehot) * factor with p = exp(x - lse).
void softmax_back_part(const CrossEntropyBack& a, int64_t row, int64_t from, int64_t to, float factor) {
  Reader x(a.dtype, a.logits);
  Writer dx(a.dtype, a.dlogits);
  const V lse = set(static_cast<const float*>(a.lse)[row]), scale = set(factor);
  const int64_t start = row * a.classes, hit = int64_t(a.targets[row]);
  for_chunks(to - from, [&](int64_t chunk, int64_t n) RECKON_VEC {
    const int64_t c = from + chunk;
    const float* xs = x.at(start + c, n);
    float* dxs = dx.at(start + c);
    for_vectors(n, [&](int64_t i, auto part) RECKON_VEC {
      RECKON_COUNT_VECTOR(4 * part.count());  // the target's subtraction follows
      part.store(hn::Mul(exp_vec(hn::Sub(part.load(xs + i), lse)), scale), dxs + i);
    });
    if (hit >= c && hit < c + n) dxs[hit - c] -= factor;
    dx.done(start + c, n);
  });
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>
#include <limits>

#include "reckon/backend/cpu/rows.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(lse_rows);
HWY_EXPORT(softmax_back_part);

void lse_rows_f64(const CrossEntropy& a, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const double* x = static_cast<const double*>(a.logits) + row * a.classes;
    double most = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t j = 0; j < a.classes; ++j) {
      RECKON_COUNT_VECTOR(1);
      most = std::fmax(most, x[j]);
    }
    const double shift = std::isinf(most) && most < 0 ? 0 : most;
    for (int64_t j = 0; j < a.classes; ++j) {
      RECKON_COUNT_VECTOR(3);
      sum += std::exp(x[j] - shift);
    }
    static_cast<double*>(a.lse)[row] = shift + std::log(sum);
  }
}

void softmax_back_part_f64(const CrossEntropyBack& a, int64_t row, int64_t from, int64_t to, double factor) {
  const double* x = static_cast<const double*>(a.logits) + row * a.classes;
  double* dx = static_cast<double*>(a.dlogits) + row * a.classes;
  const double lse = static_cast<const double*>(a.lse)[row];
  for (int64_t j = from; j < to; ++j) {
    RECKON_COUNT_VECTOR(4);
    dx[j] = (std::exp(x[j] - lse) - (j == a.targets[row])) * factor;
  }
}

double row_loss(const CrossEntropy& a, DType stat, int64_t row) {
  const int32_t target = a.targets[row];
  if (target == kIgnoreIndex) return 0;
  if (target < 0 || target >= a.classes) return std::numeric_limits<double>::quiet_NaN();
  return load_float(stat, a.lse, row) - load_float(a.dtype, a.logits, row * a.classes + target);
}
}  // namespace

void cross_entropy(const CrossEntropy& a) {
  RECKON_ASSERT(is_float(a.dtype));
  const DType stat = statistics_dtype(a.dtype);
  parallel_range(a.rows, rows_per_task(a.classes * size_of(a.dtype)), [&](int64_t begin, int64_t end) {
    if (a.dtype == DType::f64) {
      lse_rows_f64(a, begin, end);
    } else {
      HWY_DYNAMIC_DISPATCH(lse_rows)(a, begin, end);
    }
    for (int64_t row = begin; row < end; ++row) store_float(stat, a.loss, row, row_loss(a, stat, row));
  });
  if (!a.mean && !a.count) return;
  double sum = 0;
  int64_t count = 0;
  for (int64_t row = 0; row < a.rows; ++row) {
    if (a.targets[row] == kIgnoreIndex) continue;
    sum += load_float(stat, a.loss, row);
    ++count;
  }
  if (a.mean) store_float(stat, a.mean, 0, sum / double(count));
  if (a.count) store_float(stat, a.count, 0, double(count));
}

void cross_entropy_back(const CrossEntropyBack& a) {
  RECKON_ASSERT(is_float(a.dtype));
  const DType stat = statistics_dtype(a.dtype);
  const double mean_factor = a.per_row ? 0 : load_float(stat, a.scale, 0) / load_float(stat, a.count, 0);
  const auto part = [&](int64_t row, int64_t from, int64_t to) {
    const int32_t target = a.targets[row];
    char* place = static_cast<char*>(a.dlogits) + (row * a.classes + from) * size_of(a.dtype);
    if (target == kIgnoreIndex) return void(std::memset(place, 0, size_t((to - from) * size_of(a.dtype))));
    const bool valid = target >= 0 && target < a.classes;
    const double factor = !valid ? std::numeric_limits<double>::quiet_NaN() : a.per_row ? load_float(stat, a.scale, row) : mean_factor;
    if (a.dtype == DType::f64) return softmax_back_part_f64(a, row, from, to, factor);
    HWY_DYNAMIC_DISPATCH(softmax_back_part)(a, row, from, to, float(factor));
  };
  const int64_t rows_each = rows_per_task(a.classes * size_of(a.dtype)), columns = kTaskBytes / size_of(a.dtype);
  if (rows_each > 1) {
    parallel_range(a.rows, rows_each, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) part(row, 0, a.classes);
    });
    return;
  }
  const int64_t parts = (a.classes + columns - 1) / columns;
  parallel_for(a.rows * parts, [&](int64_t task) {
    const int64_t from = task % parts * columns;
    part(task / parts, from, from + columns < a.classes ? from + columns : a.classes);
  });
}
}  // namespace reckon::cpu
#endif
