// backend/cpu/norm: one task normalizes whole rows; a row is read from memory once and its further passes hit the caches, while the next
// row is on its way. Backward takes a few rows together and cuts the rows into the fixed slices of rows.h and keeps one partial dw and db
// per slice.
#include "reckon/backend/cpu/norm.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/norm.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_held-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
// The next row, of which each pass over this one fetches a share, so that memory is never idle: of 2^shift elements one.
struct NextRow {
  Ahead x, residual;
  bool two;  // there is a residual
  HWY_INLINE void fetch(int64_t i, int shift) const {
    x(i >> shift);
    if (two) residual(i >> shift);
  }
  HWY_INLINE NextRow after(int64_t n) const { return {x.from(n), residual.from(n), two}; }
};

// Mean (0 for rms) and r of the row that starts at `at`.
HWY_INLINE void row_statistics(const NormForward& a, RowReader& x, int64_t at, NextRow& next, float* mean, float* r) {
  double sum[1] = {0}, square[1] = {0};
  const bool layer = a.kind == Norm::layer;
  const int shift = a.residual || layer ? 2 : 1;
  if (layer) {
    for_chunks(a.cols, [&](int64_t c, int64_t n) RECKON_VEC {
      x.with(at + c, n, [&](auto xs) RECKON_VEC {
        add_sums<1>(n, sum, [&](int64_t i, auto part, V* acc) RECKON_VEC {
          RECKON_COUNT_VECTOR(part.count());
          next.fetch(c + i, shift);
          acc[0] = hn::Add(acc[0], xs.load(part, i));
        });
      });
    });
  }
  if (layer) next = next.after(a.cols >> shift);
  *mean = float(sum[0] / double(a.cols));
  const V center = set(*mean);
  for_chunks(a.cols, [&](int64_t c, int64_t n) RECKON_VEC {
    x.with(at + c, n, [&](auto xs) RECKON_VEC {
      add_sums<1>(n, square, [&](int64_t i, auto part, V* acc) RECKON_VEC {
        RECKON_COUNT_VECTOR((layer ? 3 : 2) * part.count());
        next.fetch(c + i, shift);
        const V off = part.keep(hn::Sub(xs.load(part, i), center));
        acc[0] = hn::MulAdd(off, off, acc[0]);
      });
    });
  });
  next = next.after(a.cols >> shift);
  *r = float(1.0 / __builtin_sqrt(square[0] / double(a.cols) + a.eps));
}

// sum = x + y, rounded, for the row that starts at `at` in all three. `held` keeps it, if it fits.
HWY_INLINE void add_row(RowReader* terms, RowReader& held, RowWriter& sum, int64_t at, int64_t cols, NextRow& next) {
  const bool fits = cols <= kHeld;
  float* const row = fits ? held.hold(at, cols) : held.hold(at, 0);
  for_stores(cols, [&](int64_t c, int64_t n) RECKON_VEC {
    float* sums = fits ? row + c : row;
    with_both(terms[0], at + c, terms[1], at + c, n, [&](auto xs, auto ys) RECKON_VEC {
      for_vectors(n, [&](int64_t i, auto part) RECKON_VEC {
        RECKON_COUNT_VECTOR(part.count());
        next.fetch(c + i, 2);
        part.store(hn::Add(xs.load(part, i), ys.load(part, i)), sums + i);
      });
    });
    sum.put(at + c, n, sums);
  });
  next = next.after(cols >> 2);
}

struct NormReaders {
  RowReader terms[2], x, w, b;
};
// The row's last pass.
HWY_INLINE void write_norm(const NormForward& a, NormReaders& in, RowWriter& y, int64_t at, int64_t to, const NextRow& next, float mean,
                           float r) {
  const V center = set(mean), scale = set(r);
  const int shift = a.residual && a.kind == Norm::layer ? 2 : 1;
  for_chunks(a.cols, [&](int64_t c, int64_t n) RECKON_VEC {
    const float* ws = a.w ? in.w.at(c, n) : nullptr;
    const float* bs = a.b ? in.b.at(c, n) : nullptr;
    in.x.with(at + c, n, [&](auto xs) RECKON_VEC {
      y.write(to + c, n, [&](int64_t i, auto part) RECKON_VEC {
        RECKON_COUNT_VECTOR((1 + (a.kind == Norm::layer) + (ws != nullptr) + (bs != nullptr)) * part.count());
        next.fetch(c + i, shift);
        V v = hn::Mul(hn::Sub(xs.load(part, i), center), scale);
        if (ws) v = hn::Mul(v, part.load(ws + i));
        if (bs) v = hn::Add(v, part.load(bs + i));
        return v;
      });
    });
  });
}

void norm_rows(const NormForward& a, bool streams, int64_t begin, int64_t end) {
  NormReaders in{{{a.dtype, a.x}, {a.dtype, a.residual}}, {a.dtype, a.residual ? a.sum : a.x}, {a.w_dtype, a.w}, {a.w_dtype, a.b}};
  RowWriter sum(a.dtype, a.sum, streams && a.cols <= kHeld), y(a.dtype, a.y, streams);
  if (a.w) in.w.row(0, a.cols);
  if (a.b) in.b.row(0, a.cols);
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = a.x_rows.at(row), after = a.x_rows.at(row + 1);
    NextRow next{in.terms[0].ahead(after), in.terms[1].ahead(after), a.residual != nullptr};
    float mean, r;
    if (a.residual) {
      add_row(in.terms, in.x, sum, at, a.cols, next);
    } else {
      in.x.row_of_passes(at, a.cols);
    }
    row_statistics(a, in.x, at, next, &mean, &r);
    if (a.mean) static_cast<float*>(a.mean)[row] = mean;
    if (a.r) static_cast<float*>(a.r)[row] = r;
    write_norm(a, in, y, at, a.y_rows.at(row), next, mean, r);
  }
  if (streams) stream_fence();
}

// FLOPs an element of the first pass of backward: what the wanted gradients need of xhat, g = dy * w, its sums, dw and db.
[[maybe_unused]] HWY_INLINE int sums_cost(const NormBackward& a) {
  const int layer = a.kind == Norm::layer;
  return (a.dx || a.dw ? 1 + layer : 0) + (a.dx ? (a.w ? 1 : 0) + layer + 2 : 0) + (a.dw ? 2 : 0) + (a.db ? 1 : 0);
}

struct BackReaders {
  RowReader dy, x, w, dsum;
};
// Rows whose gradients are summed into dw and db together, a chunk of columns after the other, while that chunk is near.
constexpr int64_t kTogether = 4;
struct BackRow {
  int64_t dy, x, dx;        // where they start
  int64_t next_dy, next_x;  // those of the next group
  float mean, r;
  double sums[2] = {0, 0};  // of g = dy * w, and of g * xhat
};
HWY_INLINE BackRow back_row(const NormBackward& a, int64_t row, int64_t together) {
  return {a.dy_rows.at(row),
          a.x_rows.at(row),
          a.dx_rows.at(row),
          a.dy_rows.at(row + together),
          a.x_rows.at(row + together),
          a.kind == Norm::layer ? static_cast<const float*>(a.mean)[row] : 0.0f,
          static_cast<const float*>(a.r)[row]};
}

// Of columns [c, c + n); dw and db [n] gather the slice's, or are null.
HWY_INLINE void add_back_sums(const NormBackward& a, BackReaders& in, BackRow& row, int64_t c, int64_t n, float* dw, float* db) {
  const V center = set(row.mean), scale = set(row.r), one = set(1.0f);
  const float* ws = a.w ? in.w.at(c, n) : nullptr;
  const Ahead ahead = in.dy.ahead(row.next_dy + c);
  with_both(in.dy, row.dy + c, in.x, row.x + c, n, [&](auto dys, auto xs) RECKON_VEC {
    add_sums<2>(n, row.sums, [&](int64_t i, auto part, V* acc) RECKON_VEC {
      RECKON_COUNT_VECTOR(sums_cost(a) * part.count());
      ahead(i);
      const V dy = dys.load(part, i), xhat = hn::Mul(hn::Sub(xs.load(part, i), center), scale);
      const V g = hn::Mul(dy, ws ? part.load(ws + i) : one);
      acc[0] = hn::Add(acc[0], g);
      acc[1] = hn::MulAdd(g, xhat, acc[1]);
      if (dw) part.store(hn::MulAdd(dy, xhat, part.load(dw + i)), dw + i);
      if (db) part.store(hn::Add(dy, part.load(db + i)), db + i);
    });
  });
}

HWY_INLINE void write_back_row(const NormBackward& a, BackReaders& in, const BackRow& row, RowWriter& dx) {
  const V center = set(row.mean), scale = set(row.r), one = set(1.0f);
  const V mean_g = set(a.kind == Norm::layer ? float(row.sums[0] / double(a.cols)) : 0.0f),
          mean_gx = set(float(row.sums[1] / double(a.cols)));
  for_chunks(a.cols, [&](int64_t c, int64_t n) RECKON_VEC {
    const float *ws = a.w ? in.w.at(c, n) : nullptr, *more = a.dsum ? in.dsum.at(row.dx + c, n) : nullptr;
    const Ahead ahead = in.x.ahead(row.next_x + c);
    with_both(in.dy, row.dy + c, in.x, row.x + c, n, [&](auto dys, auto xs) RECKON_VEC {
      dx.write(row.dx + c, n, [&](int64_t i, auto part) RECKON_VEC {
        // xhat and g were counted with the sums
        RECKON_COUNT_VECTOR(((a.kind == Norm::layer ? 4 : 3) + (more != nullptr)) * part.count());
        ahead(i);
        const V xhat = hn::Mul(hn::Sub(xs.load(part, i), center), scale);
        const V g = hn::Mul(dys.load(part, i), ws ? part.load(ws + i) : one);
        const V value = hn::Mul(scale, hn::Sub(g, hn::MulAdd(xhat, mean_gx, mean_g)));
        return more ? hn::Add(round_to(a.dtype, value), part.load(more + i)) : value;
      });
    });
  });
}

void norm_back_rows(const NormBackward& a, bool streams, int64_t begin, int64_t end, float* pdw, float* pdb) {
  BackReaders in{{a.dtype, a.dy}, {a.dtype, a.x}, {a.w_dtype, a.w}, {a.dtype, a.dsum}};
  RowWriter dx(a.dtype, a.dx, streams);
  if (a.w) in.w.row(0, a.cols);
  constexpr int64_t kNearBytes = 256 << 10;  // of the second cache: what the sums have read is read again
  const int64_t row_bytes = a.cols * (a.dtype == DType::f32 ? 8 : 4) + 1, fitting = kNearBytes / row_bytes;
  // A reader converts one row of float16.
  const int64_t together = a.dtype == DType::f16 || fitting < 1 ? 1 : fitting < kTogether ? fitting : kTogether;
  for (int64_t first = begin; first < end; first += together) {
    const int64_t count = end - first < together ? end - first : together;
    BackRow rows[kTogether];
    for (int64_t k = 0; k < count; ++k) rows[k] = back_row(a, first + k, together);
    in.dy.row_of_passes(rows[0].dy, a.cols);
    in.x.row_of_passes(rows[0].x, a.cols);
    for_chunks(a.cols, [&](int64_t c, int64_t n) RECKON_VEC {
      for (int64_t k = 0; k < count; ++k) add_back_sums(a, in, rows[k], c, n, a.dw ? pdw + c : nullptr, a.db ? pdb + c : nullptr);
    });
    for (int64_t k = 0; a.dx && k < count; ++k) write_back_row(a, in, rows[k], dx);
  }
  if (streams) stream_fence();
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>

#include "reckon/backend/cpu/row_tasks.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"
#include "reckon/tensor/shape.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(norm_rows);
HWY_EXPORT(norm_back_rows);

void norm_row_f64(const NormForward& a, int64_t row) {
  const double *x = static_cast<const double*>(a.x) + a.x_rows.at(row), *w = static_cast<const double*>(a.w),
               *b = static_cast<const double*>(a.b);
  double* y = static_cast<double*>(a.y) + a.y_rows.at(row);
  if (a.residual) {
    double* sum = static_cast<double*>(a.sum) + a.x_rows.at(row);
    for (int64_t c = 0; c < a.cols; ++c) {
      RECKON_COUNT_VECTOR(1);
      sum[c] = x[c] + static_cast<const double*>(a.residual)[a.x_rows.at(row) + c];
    }
    x = sum;
  }
  double mean = 0, square = 0;
  if (a.kind == Norm::layer) {
    for (int64_t c = 0; c < a.cols; ++c) {
      RECKON_COUNT_VECTOR(1);
      mean += x[c];
    }
    mean /= double(a.cols);
  }
  for (int64_t c = 0; c < a.cols; ++c) {
    RECKON_COUNT_VECTOR(a.kind == Norm::layer ? 3 : 2);
    square += (x[c] - mean) * (x[c] - mean);
  }
  const double r = 1 / std::sqrt(square / double(a.cols) + a.eps);
  if (a.mean) static_cast<double*>(a.mean)[row] = mean;
  if (a.r) static_cast<double*>(a.r)[row] = r;
  for (int64_t c = 0; c < a.cols; ++c) {
    RECKON_COUNT_VECTOR(1 + (a.kind == Norm::layer) + (w != nullptr) + (b != nullptr));
    y[c] = (x[c] - mean) * r * (w ? w[c] : 1) + (b ? b[c] : 0);
  }
}

void norm_back_row_f64(const NormBackward& a, int64_t row, double* dw, double* db) {
  const double *dy = static_cast<const double*>(a.dy) + a.dy_rows.at(row), *x = static_cast<const double*>(a.x) + a.x_rows.at(row);
  const double* w = static_cast<const double*>(a.w);
  const double mean = a.kind == Norm::layer ? static_cast<const double*>(a.mean)[row] : 0, r = static_cast<const double*>(a.r)[row];
  double sum_g = 0, sum_gx = 0;
  for (int64_t c = 0; c < a.cols; ++c) {
    RECKON_COUNT_VECTOR(HWY_STATIC_DISPATCH(sums_cost)(a));
    const double xhat = (x[c] - mean) * r, g = dy[c] * (w ? w[c] : 1);
    sum_g += g;
    sum_gx += g * xhat;
    if (a.dw) dw[c] += dy[c] * xhat;
    if (a.db) db[c] += dy[c];
  }
  if (!a.dx) return;
  double* dx = static_cast<double*>(a.dx) + a.dx_rows.at(row);
  const double mean_g = a.kind == Norm::layer ? sum_g / double(a.cols) : 0, mean_gx = sum_gx / double(a.cols);
  for (int64_t c = 0; c < a.cols; ++c) {
    RECKON_COUNT_VECTOR(a.kind == Norm::layer ? 4 : 3);
    dx[c] = r * (dy[c] * (w ? w[c] : 1) - mean_g - (x[c] - mean) * r * mean_gx);
  }
  for (int64_t c = 0; a.dsum && c < a.cols; ++c) {
    RECKON_COUNT_VECTOR(1);
    dx[c] += static_cast<const double*>(a.dsum)[a.dx_rows.at(row) + c];
  }
}
}  // namespace

void norm_forward(const NormForward& a) {
  RECKON_ASSERT(is_float(a.dtype) && ((a.dtype == DType::f64) == (a.w_dtype == DType::f64) || (!a.w && !a.b)));
  RECKON_ASSERT(!a.residual == !a.sum);
  const int64_t row_bytes = a.cols * size_of(a.dtype);
  const RowTasks tasks = row_tasks(a.rows, row_bytes * 2, row_bytes);
  parallel_range(a.rows, tasks.rows_each, [&](int64_t begin, int64_t end) {
    if (a.dtype != DType::f64) return HWY_DYNAMIC_DISPATCH(norm_rows)(a, tasks.streams, begin, end);
    for (int64_t row = begin; row < end; ++row) norm_row_f64(a, row);
  });
}

int64_t norm_backward_workspace(DType dtype, int64_t rows, int64_t cols) {
  return checked_product({2, slice_bound(rows), cols, size_of(statistics_dtype(dtype))});
}

void norm_backward(const NormBackward& a) {
  RECKON_ASSERT(is_float(a.dtype) && ((a.dtype == DType::f64) == (a.w_dtype == DType::f64) || !a.w));
  const bool wide = a.dtype == DType::f64, sums = a.dw || a.db;
  const int64_t bytes = size_of(statistics_dtype(a.dtype));
  const Slices slices = slices_of(a.rows);
  const bool streams = row_tasks(a.rows, 3 * a.cols * size_of(a.dtype), a.cols * size_of(a.dtype)).streams;
  // Partial sums of slice s: dw at [2 s], db at [2 s + 1], each [cols].
  char* partial = static_cast<char*>(a.workspace);
  RECKON_ASSERT(!sums || partial || slices.count == 0 || a.cols == 0);
  parallel_for(slices.count, [&](int64_t s) {
    const int64_t begin = s * slices.rows_each, end = begin + slices.rows_each < a.rows ? begin + slices.rows_each : a.rows;
    char *dw = sums ? partial + 2 * s * a.cols * bytes : nullptr, *db = sums ? dw + a.cols * bytes : nullptr;
    if (sums) std::memset(dw, 0, size_t(2 * a.cols * bytes));
    if (!wide)
      return HWY_DYNAMIC_DISPATCH(norm_back_rows)(a, streams, begin, end, reinterpret_cast<float*>(dw), reinterpret_cast<float*>(db));
    for (int64_t row = begin; row < end; ++row) norm_back_row_f64(a, row, reinterpret_cast<double*>(dw), reinterpret_cast<double*>(db));
  });
  if (a.dw) sum_slices(partial, wide, slices.count, 2 * a.cols, a.cols, a.dw, a.dw_dtype, a.accumulate);
  if (a.db)
    sum_slices(partial + (slices.count ? a.cols * bytes : 0), wide, slices.count, 2 * a.cols, a.cols, a.db, a.dw_dtype, a.accumulate);
}
}  // namespace reckon::cpu
#endif
