// backend/cpu/softmax: one pass for the maximum, one for the exponentials and their sum, which meanwhile fetches the next row, one for the
// output. Softmax keeps the exponentials of a row that fits on the stack.
#include "reckon/backend/cpu/softmax.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/softmax.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_rows-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
// Softmax of the row that starts at `at`; its exponentials are kept in exps, and the next row is fetched by both later passes. Of what is
// rounded to bfloat16 they are those of vec_narrow.
template <class Source>
HWY_INLINE void softmax_row(Source xs, const Ahead& ahead, RowWriter& out, int64_t at, int64_t cols, float* exps) {
  constexpr bool kNarrow = std::is_same_v<Source, Halves>;
  const float found = max_of(xs, cols);
  const V most = set(found == -__builtin_inff() ? 0.0f : found);
  double sum[1] = {0};
  for_chunks(cols, [&](int64_t c, int64_t n) RECKON_VEC {
    add_sums<1>(n, sum, [&](int64_t i, auto part, V* acc) RECKON_VEC {
      RECKON_COUNT_VECTOR(3 * part.count());  // subtract, exp, sum
      ahead((c + i) / 2);
      const V off = hn::Sub(xs.load(part, c + i), most);
      const V e = kNarrow ? exp_narrow(off) : exp_of<Range::not_above>(off);
      part.store(e, exps + c + i);
      acc[0] = hn::Add(acc[0], part.keep(e));
    });
  });
  const V rest = set(float(1.0 / sum[0]));
  out.write(at, cols, [&](int64_t i, auto part) RECKON_VEC {
    RECKON_COUNT_VECTOR(part.count());
    ahead(cols / 2 + i / 2);
    return hn::Mul(part.load(exps + i), rest);
  });
}

void softmax_rows(bool log, bool streams, DType dtype, const void* x, void* y, int64_t cols, int64_t begin, int64_t end) {
  RowReader in(dtype, x);
  RowWriter out(dtype, y, streams);
  HWY_ALIGN float exps[kHeld];
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = row * cols;
    in.row_of_passes(at, cols);
    if (!log && cols <= kHeld) {
      const Ahead ahead = in.ahead(at + cols);
      in.with(at, cols, [&](auto xs) RECKON_VEC { softmax_row(xs, ahead, out, at, cols, exps); });
      continue;
    }
    const ExpSum s = log_sum_exp(in, at, cols);
    // Subtracting the maximum is exact where it matters; the logarithm of the sum follows as a small, separate term.
    const V most = set(s.most), rest = set(float(log ? __builtin_log(s.sum) : 1.0 / s.sum));
    for_chunks(cols, [&](int64_t c, int64_t n) RECKON_VEC {
      in.with(at + c, n, [&](auto xs) RECKON_VEC {
        out.write(at + c, n, [&](int64_t i, auto part) RECKON_VEC {
          RECKON_COUNT_VECTOR(part.count());  // divide, or subtract the logarithm: the exponential was counted with the sum
          const V off = hn::Sub(xs.load(part, i), most);
          if (log) return hn::Sub(off, rest);
          constexpr bool kNarrow = std::is_same_v<decltype(xs), Halves>;
          return hn::Mul(kNarrow ? exp_narrow(off) : exp_of<Range::not_above>(off), rest);
        });
      });
    });
  }
  if (streams) stream_fence();
}

void softmax_back_rows(bool log, bool streams, DType dtype, const void* dy, const void* y, void* dx, int64_t cols, int64_t begin,
                       int64_t end) {
  RowReader grad(dtype, dy), kept(dtype, y);
  RowWriter out(dtype, dx, streams);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = row * cols, next = at + cols;
    double sum[1] = {0};
    grad.row_of_passes(at, cols);
    kept.row_of_passes(at, cols);
    for_chunks(cols, [&](int64_t c, int64_t n) RECKON_VEC {
      const Ahead ahead = grad.ahead(next + c);
      with_both(grad, at + c, kept, at + c, n, [&](auto dys, auto ys) RECKON_VEC {
        add_sums<1>(n, sum, [&](int64_t i, auto part, V* acc) RECKON_VEC {
          RECKON_COUNT_VECTOR((log ? 1 : 2) * part.count());
          ahead(i);
          const V d = dys.load(part, i);
          acc[0] = log ? hn::Add(acc[0], d) : hn::MulAdd(d, ys.load(part, i), acc[0]);
        });
      });
    });
    const V total = set(float(sum[0]));
    for_chunks(cols, [&](int64_t c, int64_t n) RECKON_VEC {
      const Ahead ahead = kept.ahead(next + c);
      with_both(grad, at + c, kept, at + c, n, [&](auto dys, auto ys) RECKON_VEC {
        out.write(at + c, n, [&](int64_t i, auto part) RECKON_VEC {
          RECKON_COUNT_VECTOR((log ? 3 : 2) * part.count());
          ahead(i);
          const V d = dys.load(part, i), v = ys.load(part, i);
          return log ? hn::NegMulAdd(exp_vec(v), total, d) : hn::Mul(v, hn::Sub(d, total));
        });
      });
    });
  }
  if (streams) stream_fence();
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>
#include <limits>

#include "reckon/backend/cpu/row_tasks.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(softmax_rows);
HWY_EXPORT(softmax_back_rows);

void softmax_row_f64(bool log, const double* x, double* y, int64_t cols) {
  double most = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int64_t j = 0; j < cols; ++j) {
    RECKON_COUNT_VECTOR(1);
    most = std::fmax(most, x[j]);
  }
  if (std::isinf(most) && most < 0) most = 0;
  for (int64_t j = 0; j < cols; ++j) {
    RECKON_COUNT_VECTOR(3);
    sum += std::exp(x[j] - most);
  }
  for (int64_t j = 0; j < cols; ++j) {
    RECKON_COUNT_VECTOR(1);
    y[j] = log ? x[j] - most - std::log(sum) : std::exp(x[j] - most) / sum;
  }
}

void softmax_back_row_f64(bool log, const double* dy, const double* y, double* dx, int64_t cols) {
  double sum = 0;
  for (int64_t j = 0; j < cols; ++j) {
    RECKON_COUNT_VECTOR(log ? 1 : 2);
    sum += log ? dy[j] : dy[j] * y[j];
  }
  for (int64_t j = 0; j < cols; ++j) {
    RECKON_COUNT_VECTOR(log ? 3 : 2);
    dx[j] = log ? dy[j] - std::exp(y[j]) * sum : y[j] * (dy[j] - sum);
  }
}
}  // namespace

void softmax(bool log, DType dtype, const void* x, void* y, int64_t rows, int64_t cols) {
  RECKON_ASSERT(is_float(dtype));
  const RowTasks tasks = row_tasks(rows, cols * size_of(dtype) * 2, cols * size_of(dtype));
  parallel_range(rows, tasks.rows_each, [&](int64_t begin, int64_t end) {
    if (dtype != DType::f64) return HWY_DYNAMIC_DISPATCH(softmax_rows)(log, tasks.streams, dtype, x, y, cols, begin, end);
    for (int64_t row = begin; row < end; ++row)
      softmax_row_f64(log, static_cast<const double*>(x) + row * cols, static_cast<double*>(y) + row * cols, cols);
  });
}

void softmax_back(bool log, DType dtype, const void* dy, const void* y, void* dx, int64_t rows, int64_t cols) {
  RECKON_ASSERT(is_float(dtype));
  const RowTasks tasks = row_tasks(rows, cols * size_of(dtype) * 3, cols * size_of(dtype));
  parallel_range(rows, tasks.rows_each, [&](int64_t begin, int64_t end) {
    if (dtype != DType::f64) return HWY_DYNAMIC_DISPATCH(softmax_back_rows)(log, tasks.streams, dtype, dy, y, dx, cols, begin, end);
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * cols;
      softmax_back_row_f64(log, static_cast<const double*>(dy) + at, static_cast<const double*>(y) + at, static_cast<double*>(dx) + at,
                           cols);
    }
  });
}
}  // namespace reckon::cpu
#endif
