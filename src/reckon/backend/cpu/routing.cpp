// backend/cpu/routing: rows of experts are far apart and as long as the model is wide, so each is one task's run of vectors.
#include "reckon/backend/cpu/routing.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/routing.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
// y[to, to + cols) = weight * x[from, from + cols).
void scale_row(const Exchange& a, int64_t from, int64_t to, float weight) {
  HWY_ALIGN float in[kChunk], out[kChunk];
  const V w = set(weight);
  for_chunks(a.cols, [&](int64_t c, int64_t n) RECKON_VEC {
    const float* xs = read_chunk(a.dtype, a.x, from + c, n, in);
    float* ys = write_place(a.dtype, a.y, to + c, out);
    for_vectors(n, [&](int64_t i, auto part) RECKON_VEC {
      RECKON_COUNT_VECTOR(part.count());
      part.store(hn::Mul(part.load(xs + i), w), ys + i);
    });
    write_chunk(a.dtype, a.y, to + c, n, out);
  });
}

// y[to, to + cols) = sum of weights[j] * x[from[j], ...), j < k; from[j] < 0 is left out. weights null: 1.
void add_rows(const Exchange& a, const int64_t* from, const float* weights, int64_t to) {
  HWY_ALIGN float in[kChunk], sum[kChunk];
  for_chunks(a.cols, [&](int64_t c, int64_t n) RECKON_VEC {
    for_vectors(n, [&](int64_t i, auto part) RECKON_VEC { part.store(zero(), sum + i); });
    for (int64_t j = 0; j < a.k; ++j) {
      if (from[j] < 0) continue;
      const float* xs = read_chunk(a.dtype, a.x, from[j] + c, n, in);
      const V w = set(weights ? weights[j] : 1.0f);
      for_vectors(n, [&](int64_t i, auto part) RECKON_VEC {
        RECKON_COUNT_VECTOR((weights ? 2 : 1) * part.count());
        part.store(hn::MulAdd(part.load(xs + i), w, part.load(sum + i)), sum + i);
      });
    }
    float* ys = write_place(a.dtype, a.y, to + c, sum);
    if (ys != sum) std::memcpy(ys, sum, size_t(n) * sizeof(float));
    write_chunk(a.dtype, a.y, to + c, n, sum);
  });
}

// Sum over c of x[at, c] * other[from, c).
double dot_row(const Exchange& a, const void* other, int64_t at, int64_t from) {
  HWY_ALIGN float first[kChunk], second[kChunk];
  double total = 0;
  for_chunks(a.cols, [&](int64_t c, int64_t n) RECKON_VEC {
    const float *xs = read_chunk(a.dtype, a.x, at + c, n, first), *ys = read_chunk(a.dtype, other, from + c, n, second);
    add_sums<1>(n, &total, [&](int64_t i, auto part, V* acc) RECKON_VEC {
      RECKON_COUNT_VECTOR(2 * part.count());
      acc[0] = hn::MulAdd(part.load(xs + i), part.load(ys + i), acc[0]);
    });
  });
  return total;
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <limits>

#include "reckon/backend/cpu/convert.h"
#include "reckon/backend/cpu/rows.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(scale_row);
HWY_EXPORT(add_rows);
HWY_EXPORT(dot_row);

void choose(const Route& a, int64_t token) {
  int32_t* chosen = a.chosen + token * a.k;
  for (int64_t j = 0; j < a.k; ++j) {
    int32_t best = -1;
    double most = 0;
    for (int64_t e = 0; e < a.experts; ++e) {
      RECKON_COUNT_VECTOR(1);
      if (std::find(chosen, chosen + j, int32_t(e)) != chosen + j) continue;
      const double p = load_float(a.dtype, a.probabilities, token * a.experts + e);
      // A NaN that came first gives way to any number.
      if (best < 0 || p > most || (most != most && p == p)) best = int32_t(e), most = p;
    }
    chosen[j] = best;
  }
}

// In order, on one thread: who finds room depends on everybody before.
void give_places(const Route& a) {
  std::fill(a.rows, a.rows + a.experts * a.capacity, -1);
  std::fill(a.load, a.load + a.experts, 0);
  *a.dropped = 0;
  for (int64_t j = 0; j < a.k; ++j)
    for (int64_t token = 0; token < a.tokens; ++token) {
      const int64_t choice = token * a.k + j, expert = a.chosen[choice], place = a.load[expert]++;
      const bool fits = place < a.capacity;
      a.slots[choice] = fits ? int32_t(expert * a.capacity + place) : -1;
      if (fits) a.rows[expert * a.capacity + place] = int32_t(choice);
      *a.dropped += !fits;
    }
}

void zero_row(const Exchange& a, int64_t to) {
  std::memset(static_cast<std::byte*>(a.y) + to * size_of(a.dtype), 0, size_t(a.cols * size_of(a.dtype)));
}

void dispatch_one(const Exchange& a, int64_t place) {
  const int64_t choice = a.rows[place], to = place * a.cols;
  if (choice < 0 || choice >= a.tokens * a.k) return zero_row(a, to);
  const int64_t from = choice / a.k * a.cols, bytes = size_of(a.dtype);
  if (!a.weights) {
    std::memcpy(static_cast<std::byte*>(a.y) + to * bytes, static_cast<const std::byte*>(a.x) + from * bytes, size_t(a.cols * bytes));
    return;
  }
  const double weight = load_float(a.dtype, a.weights, choice);
  if (a.dtype != DType::f64) return HWY_DYNAMIC_DISPATCH(scale_row)(a, from, to, float(weight));
  for (int64_t c = 0; c < a.cols; ++c) {
    RECKON_COUNT_VECTOR(1);
    static_cast<double*>(a.y)[to + c] = weight * static_cast<const double*>(a.x)[from + c];
  }
}

// Where the row of a choice begins; -1: nowhere.
int64_t row_of(const Exchange& a, int64_t choice) {
  const int64_t slot = a.slots[choice];
  return slot >= 0 && slot < a.places ? slot * a.cols : -1;
}

void combine_f64(const Exchange& a, int64_t token) {
  double* y = static_cast<double*>(a.y) + token * a.cols;
  std::fill(y, y + a.cols, 0.0);
  for (int64_t j = 0; j < a.k; ++j) {
    const int64_t choice = token * a.k + j, from = row_of(a, choice);
    if (from < 0) continue;
    const double weight = a.weights ? static_cast<const double*>(a.weights)[choice] : 1;
    for (int64_t c = 0; c < a.cols; ++c) {
      RECKON_COUNT_VECTOR(a.weights ? 2 : 1);
      y[c] += weight * static_cast<const double*>(a.x)[from + c];
    }
  }
}
void combine_one(const Exchange& a, int64_t token) {
  if (a.dtype == DType::f64) return combine_f64(a, token);
  int64_t from[kMostChoices];
  float weights[kMostChoices];
  for (int64_t j = 0; j < a.k; ++j) {
    from[j] = row_of(a, token * a.k + j);
    if (a.weights) weights[j] = float(load_float(a.dtype, a.weights, token * a.k + j));
  }
  HWY_DYNAMIC_DISPATCH(add_rows)(a, from, a.weights ? weights : nullptr, token * a.cols);
}

double dot_one(const Exchange& a, const void* other, int64_t token, int64_t from) {
  if (a.dtype != DType::f64) return HWY_DYNAMIC_DISPATCH(dot_row)(a, other, token * a.cols, from);
  double sum = 0;
  for (int64_t c = 0; c < a.cols; ++c) {
    RECKON_COUNT_VECTOR(2);
    sum += static_cast<const double*>(a.x)[token * a.cols + c] * static_cast<const double*>(other)[from + c];
  }
  return sum;
}
}  // namespace

void route(const Route& a) {
  RECKON_ASSERT(is_float(a.dtype) && a.k <= a.experts);
  parallel_range(a.tokens, rows_per_task(a.k * a.experts * 16), [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) choose(a, token);
  });
  give_places(a);
}

void pick(DType dtype, const void* x, const int32_t* ids, void* y, int64_t tokens, int64_t experts, int64_t k) {
  parallel_range(tokens * k, kTaskElements, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const bool known = ids[i] >= 0 && ids[i] < experts;
      store_float(dtype, y, i, known ? load_float(dtype, x, i / k * experts + ids[i]) : std::numeric_limits<double>::quiet_NaN());
    }
  });
}

void pick_back(DType dtype, const void* dy, const int32_t* ids, void* dx, int64_t tokens, int64_t experts, int64_t k) {
  fill_zero(dx, tokens * experts * size_of(dtype));
  parallel_range(tokens, rows_per_task(k * 16), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * k; i < end * k; ++i) {
      if (ids[i] < 0 || ids[i] >= experts) continue;
      RECKON_COUNT_VECTOR(1);
      const int64_t at = i / k * experts + ids[i];
      store_float(dtype, dx, at, load_float(dtype, dx, at) + load_float(dtype, dy, i));
    }
  });
}

void dispatch_rows(const Exchange& a) {
  RECKON_ASSERT(is_float(a.dtype));
  parallel_range(a.places, rows_per_task(2 * a.cols * size_of(a.dtype)), [&](int64_t begin, int64_t end) {
    for (int64_t place = begin; place < end; ++place) dispatch_one(a, place);
  });
}

void combine_rows(const Exchange& a) {
  RECKON_ASSERT(is_float(a.dtype) && a.k <= kMostChoices);
  parallel_range(a.tokens, rows_per_task((a.k + 1) * a.cols * size_of(a.dtype)), [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) combine_one(a, token);
  });
}

void dot_rows(const Exchange& a, const void* other) {
  RECKON_ASSERT(is_float(a.dtype));
  parallel_range(a.tokens, rows_per_task((a.k + 1) * a.cols * size_of(a.dtype)), [&](int64_t begin, int64_t end) {
    for (int64_t choice = begin * a.k; choice < end * a.k; ++choice) {
      const int64_t from = row_of(a, choice);
      store_float(a.dtype, a.y, choice, from < 0 ? 0 : dot_one(a, other, choice / a.k, from));
    }
  });
}
}  // namespace reckon::cpu
#endif
