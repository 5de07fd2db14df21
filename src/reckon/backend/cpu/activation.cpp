// backend/cpu/activation: one read and one write of each element; the slopes are recomputed from what is kept.
#include "reckon/backend/cpu/activation.h"

#include "reckon/backend/cpu/row_tasks.h"
#include "reckon/backend/cpu/stream.h"
#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/activation.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_dense-inl.h"
#include "reckon/backend/cpu/vec_narrow-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
// FLOPs an element, as docs/flops.md has them.
constexpr int cost_of(Activation kind) {
  return kind == Activation::gelu ? 9 : kind == Activation::silu ? 5 : kind == Activation::sigmoid ? 4 : 1;
}
constexpr int back_cost_of(Activation kind) {
  return kind == Activation::gelu ? 19 : kind == Activation::silu ? 9 : kind == Activation::relu ? 1 : 3;
}

// F, or Narrow if the result is rounded to bfloat16.
template <V (*F)(V), V (*Narrow)(V), int kFlops>
void map(DType dtype, const void* x, void* y, const ElementPart& part) {
  with_type(dtype, [&](auto t) RECKON_VEC {
    using T = decltype(t);
    map1<kFlops>(
        static_cast<const T*>(x) + part.begin, static_cast<T*>(y) + part.begin, part.end - part.begin,
        [](V v) RECKON_VEC { return std::is_same_v<T, bfloat16> ? Narrow(v) : F(v); }, part.streams);
  });
}

template <V (*Slope)(V), V (*Narrow)(V), int kFlops>
void map_back(DType dtype, const void* dy, const void* kept, void* dx, const ElementPart& part) {
  with_type(dtype, [&](auto t) RECKON_VEC {
    using T = decltype(t);
    map2<kFlops>(
        static_cast<const T*>(dy) + part.begin, static_cast<const T*>(kept) + part.begin, static_cast<T*>(dx) + part.begin,
        part.end - part.begin, [](V grad, V v) RECKON_VEC { return hn::Mul(grad, std::is_same_v<T, bfloat16> ? Narrow(v) : Slope(v)); },
        part.streams);
  });
}

void activation_part(Activation kind, DType dtype, const void* x, void* y, const ElementPart& part) {
  switch (kind) {
    case Activation::gelu:
      return map<gelu_vec, gelu_narrow, cost_of(Activation::gelu)>(dtype, x, y, part);
    case Activation::relu:
      return map<relu_vec, relu_vec, cost_of(Activation::relu)>(dtype, x, y, part);
    case Activation::silu:
      return map<silu_vec, silu_narrow, cost_of(Activation::silu)>(dtype, x, y, part);
    case Activation::sigmoid:
      return map<sigmoid_plain_vec, sigmoid_narrow, cost_of(Activation::sigmoid)>(dtype, x, y, part);
    case Activation::tanh:
      return map<tanh_vec, tanh_narrow, cost_of(Activation::tanh)>(dtype, x, y, part);
  }
}

void activation_back_part(Activation kind, DType dtype, const void* dy, const void* kept, void* dx, const ElementPart& part) {
  switch (kind) {
    case Activation::gelu:
      return map_back<gelu_slope_vec, gelu_slope_narrow, back_cost_of(Activation::gelu)>(dtype, dy, kept, dx, part);
    case Activation::relu:
      return map_back<relu_slope_vec, relu_slope_vec, back_cost_of(Activation::relu)>(dtype, dy, kept, dx, part);
    case Activation::silu:
      return map_back<silu_slope_vec, silu_slope_narrow, back_cost_of(Activation::silu)>(dtype, dy, kept, dx, part);
    case Activation::sigmoid:
      return map_back<sigmoid_slope_vec, sigmoid_slope_vec, back_cost_of(Activation::sigmoid)>(dtype, dy, kept, dx, part);
    case Activation::tanh:
      return map_back<tanh_slope_vec, tanh_slope_vec, back_cost_of(Activation::tanh)>(dtype, dy, kept, dx, part);
  }
}

void swiglu_rows(bool streams, DType dtype, const void* x, void* y, int64_t width, int64_t begin, int64_t end) {
  with_type(dtype, [&](auto t) RECKON_VEC {
    using T = decltype(t);
    for (int64_t row = begin; row < end; ++row) {
      const T *gate = static_cast<const T*>(x) + row * 2 * width, *up = gate + width;
      // Fetching ahead of `up` reaches the next gate, ahead of the gate only this `up`.
      for (int64_t at = 0; at < kAhead && at < width * int64_t(sizeof(T)); at += 64)
        __builtin_prefetch(reinterpret_cast<const char*>(up + 2 * width) + at);
      map2<6>(
          gate, up, static_cast<T*>(y) + row * width, width,
          [](V g, V u) RECKON_VEC { return hn::Mul(std::is_same_v<T, bfloat16> ? silu_narrow(g) : silu_vec(g), u); }, streams);
    }
  });
  if (streams) stream_fence();
}

void swiglu_back_rows(DType dtype, const void* dy, const void* x, void* dx, int64_t width, int64_t begin, int64_t end) {
  Reader gates(dtype, x), ups(dtype, x), grads(dtype, dy);
  Writer dgates(dtype, dx), dups(dtype, dx);
  for (int64_t row = begin; row < end; ++row) {
    for_chunks(width, [&](int64_t c, int64_t n) RECKON_VEC {
      const int64_t at_gate = row * 2 * width + c, at_up = at_gate + width;
      const float *gate = gates.at(at_gate, n), *up = ups.at(at_up, n), *dys = grads.at(row * width + c, n);
      float *dgate = dgates.at(at_gate), *dup = dups.at(at_up);
      for_vectors(n, [&](int64_t i, auto part) RECKON_VEC {
        RECKON_COUNT_VECTOR(14 * part.count());
        const V g = part.load(gate + i), grad = part.load(dys + i), u = part.load(up + i);
        V s, complement;
        sigmoid_vec(g, s, complement);
        const V silu = hn::Mul(g, s);
        part.store(hn::Mul(grad, silu), dup + i);
        part.store(hn::Mul(hn::Mul(grad, u), hn::MulAdd(silu, complement, s)), dgate + i);
      });
      dgates.done(at_gate, n);
      dups.done(at_up, n);
    });
  }
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <cmath>

#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(activation_part);
HWY_EXPORT(activation_back_part);
HWY_EXPORT(swiglu_rows);
HWY_EXPORT(swiglu_back_rows);

double sigmoid_f64(double x) {
  const double q = std::exp(-std::abs(x));
  return (x < 0 ? q : 1) / (1 + q);
}
constexpr double kTwiceRootTwoByPi = 1.59576912160573071176;

double value_f64(Activation kind, double x) {
  switch (kind) {
    case Activation::gelu:
      return x * sigmoid_f64(kTwiceRootTwoByPi * (x + 0.044715 * x * x * x));
    case Activation::relu:
      return x < 0 ? 0 : x;
    case Activation::silu:
      return x * sigmoid_f64(x);
    case Activation::sigmoid:
      return sigmoid_f64(x);
    case Activation::tanh:
      return std::tanh(x);
  }
  return 0;
}

double slope_f64(Activation kind, double kept) {
  switch (kind) {
    case Activation::gelu: {
      const double u = kTwiceRootTwoByPi * (kept + 0.044715 * kept * kept * kept), s = sigmoid_f64(u);
      return s + kept * s * sigmoid_f64(-u) * kTwiceRootTwoByPi * (1 + 3 * 0.044715 * kept * kept);
    }
    case Activation::relu:
      return kept > 0 ? 1 : 0;
    case Activation::silu:
      return sigmoid_f64(kept) * (1 + kept * sigmoid_f64(-kept));
    case Activation::sigmoid:
      return kept * (1 - kept);
    case Activation::tanh:
      return (1 - kept) * (1 + kept);
  }
  return 0;
}

void swiglu_row_f64(const double* x, double* y, int64_t width) {
  for (int64_t j = 0; j < width; ++j) {
    RECKON_COUNT_VECTOR(6);
    y[j] = value_f64(Activation::silu, x[j]) * x[width + j];
  }
}

void swiglu_back_row_f64(const double* dy, const double* x, double* dx, int64_t width) {
  for (int64_t j = 0; j < width; ++j) {
    RECKON_COUNT_VECTOR(14);
    const double gate = x[j], up = x[width + j];
    dx[j] = dy[j] * up * slope_f64(Activation::silu, gate);
    dx[width + j] = dy[j] * value_f64(Activation::silu, gate);
  }
}
}  // namespace

void activation(Activation kind, DType dtype, const void* x, void* y, int64_t n) {
  RECKON_ASSERT(is_float(dtype));
  const ElementTasks tasks = element_tasks(n, 2 * size_of(dtype), x == y);
  parallel_range(n, tasks.elements_each, [&](int64_t begin, int64_t end) {
    if (dtype != DType::f64) {
      HWY_DYNAMIC_DISPATCH(activation_part)(kind, dtype, x, y, {begin, end, tasks.streams});
      if (tasks.streams) stream_fence();
      return;
    }
    for (int64_t i = begin; i < end; ++i) {
      RECKON_COUNT_VECTOR(HWY_STATIC_DISPATCH(cost_of)(kind));
      static_cast<double*>(y)[i] = value_f64(kind, static_cast<const double*>(x)[i]);
    }
  });
}

void activation_back(Activation kind, DType dtype, const void* dy, const void* kept, void* dx, int64_t n) {
  RECKON_ASSERT(is_float(dtype));
  const ElementTasks tasks = element_tasks(n, 3 * size_of(dtype), dx == dy || dx == kept);
  parallel_range(n, tasks.elements_each, [&](int64_t begin, int64_t end) {
    if (dtype != DType::f64) {
      HWY_DYNAMIC_DISPATCH(activation_back_part)(kind, dtype, dy, kept, dx, {begin, end, tasks.streams});
      if (tasks.streams) stream_fence();
      return;
    }
    for (int64_t i = begin; i < end; ++i) {
      RECKON_COUNT_VECTOR(HWY_STATIC_DISPATCH(back_cost_of)(kind));
      static_cast<double*>(dx)[i] = static_cast<const double*>(dy)[i] * slope_f64(kind, static_cast<const double*>(kept)[i]);
    }
  });
}

void swiglu(DType dtype, const void* x, void* y, int64_t rows, int64_t width) {
  RECKON_ASSERT(is_float(dtype));
  const RowTasks tasks = row_tasks(rows, width * 3 * size_of(dtype), width * size_of(dtype));
  parallel_range(rows, tasks.rows_each, [&](int64_t begin, int64_t end) {
    if (dtype != DType::f64) return HWY_DYNAMIC_DISPATCH(swiglu_rows)(tasks.streams, dtype, x, y, width, begin, end);
    for (int64_t row = begin; row < end; ++row) {
      swiglu_row_f64(static_cast<const double*>(x) + row * 2 * width, static_cast<double*>(y) + row * width, width);
    }
  });
}

void swiglu_back(DType dtype, const void* dy, const void* x, void* dx, int64_t rows, int64_t width) {
  RECKON_ASSERT(is_float(dtype));
  parallel_range(rows, rows_per_task(width * 5 * size_of(dtype)), [&](int64_t begin, int64_t end) {
    if (dtype != DType::f64) return HWY_DYNAMIC_DISPATCH(swiglu_back_rows)(dtype, dy, x, dx, width, begin, end);
    for (int64_t row = begin; row < end; ++row) {
      swiglu_back_row_f64(static_cast<const double*>(dy) + row * width, static_cast<const double*>(x) + row * 2 * width,
                          static_cast<double*>(dx) + row * 2 * width, width);
    }
  });
}
}  // namespace reckon::cpu
#endif
