// backend/cpu/rows_elementwise: the float types but float64, on vectors. Every run of a walk is cut into parts of a stack buffer; an
// operand that is not contiguous float32 is gathered or converted there first, so that each operation is written once.
#include "reckon/backend/cpu/rows_elementwise.h"

#include "reckon/backend/cpu/row_tasks.h"
#include "reckon/backend/cpu/rows_plain.h"
#include "reckon/backend/cpu/stream.h"
#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/rows_elementwise.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_dense-inl.h"
#include "reckon/backend/cpu/vec_gather-inl.h"
#include "reckon/backend/cpu/vec_narrow-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
const void* element(DType dtype, const void* data, int64_t at) {
  return static_cast<const char*>(data) + at * (dtype == DType::f32 ? 4 : 2);
}
void* element(DType dtype, void* data, int64_t at) { return static_cast<char*>(data) + at * (dtype == DType::f32 ? 4 : 2); }
// Where to compute n floats that belong at `at`, and their way there.
float* place(DType dtype, void* data, int64_t at, int64_t stride, float* buffer) {
  return stride == 1 ? write_place(dtype, data, at, buffer) : buffer;
}
void scatter(DType dtype, void* data, int64_t at, int64_t stride, int64_t n, const float* buffer) {
  if (stride == 1) return write_chunk(dtype, data, at, n, buffer);
  if (dtype == DType::f32) {
    float* to = static_cast<float*>(data) + at;
    for (int64_t i = 0; i < n; ++i) to[i * stride] = buffer[i];
    return;
  }
  uint16_t halves[kPart];
  write_chunk(dtype, halves, 0, n, buffer);
  uint16_t* to = static_cast<uint16_t*>(data) + at;
  for (int64_t i = 0; i < n; ++i) to[i * stride] = halves[i];
}

// kNarrow: results are rounded to bfloat16, here or by the caller.
template <class T, bool kNarrow = std::is_same_v<T, bfloat16>>
void unary_as(Unary op, const T* x, T* y, int64_t n, bool streams = false) {
  switch (op) {
    case Unary::neg:
      return map1<1>(
          x, y, n, [](V v) RECKON_VEC { return hn::Neg(v); }, streams);
    case Unary::exp:
      return map1<1>(
          x, y, n, [](V v) RECKON_VEC { return kNarrow ? exp_narrow(v) : exp_vec(v); }, streams);
    case Unary::log:
      return map1<1>(
          x, y, n, [](V v) RECKON_VEC { return kNarrow ? log_narrow(v) : log_vec(v); }, streams);
    case Unary::sqrt:
      return map1<1>(
          x, y, n, [](V v) RECKON_VEC { return hn::Sqrt(v); }, streams);
    case Unary::rsqrt:
      return map1<1>(
          x, y, n, [](V v) RECKON_VEC { return hn::Div(set(1.0f), hn::Sqrt(v)); }, streams);
    case Unary::square:
      return map1<1>(
          x, y, n, [](V v) RECKON_VEC { return hn::Mul(v, v); }, streams);
    case Unary::reciprocal:
      return map1<1>(
          x, y, n, [](V v) RECKON_VEC { return hn::Div(set(1.0f), v); }, streams);
    case Unary::abs:
      return map1<1>(
          x, y, n, [](V v) RECKON_VEC { return hn::Abs(v); }, streams);
  }
}

// Where vectors have no instruction: in the C library, or in double.
bool is_scalar(Binary op) { return op == Binary::pow || op == Binary::floor_divide || op == Binary::remainder; }
void binary_scalar(Binary op, const float* a, const float* b, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    RECKON_COUNT_VECTOR(1);
    y[i] = op == Binary::pow            ? __builtin_powf(a[i], b[i])
           : op == Binary::floor_divide ? float(floor_divide_of(double(a[i]), double(b[i])))
                                        : float(remainder_of(double(a[i]), double(b[i])));
  }
}
// Of float32 vector by vector, as fused groups do: of two NaN the compiler's order of operands decides which comes through.
template <class T, class F>
HWY_INLINE void apply2(const T* a, const T* b, T* y, int64_t n, F f, bool streams) {
  if constexpr (sizeof(T) == 4) {
    const bool past = goes_past(y, streams);
    for_vectors(n, [&](int64_t i, auto part) RECKON_VEC {
      RECKON_COUNT_VECTOR(part.count());
      const V value = f(part.load(a + i), part.load(b + i));
      if constexpr (std::is_same_v<decltype(part), Whole>) {
        if (past) return hn::Stream(value, D(), y + i);
      }
      part.store(value, y + i);
    });
  } else {
    map2<1>(a, b, y, n, f, streams);
  }
}
template <class T>
void binary_as(Binary op, const T* a, const T* b, T* y, int64_t n, bool streams = false) {
  switch (op) {
    case Binary::add:
      return apply2(
          a, b, y, n, [](V u, V v) RECKON_VEC { return hn::Add(u, v); }, streams);
    case Binary::sub:
      return apply2(
          a, b, y, n, [](V u, V v) RECKON_VEC { return hn::Sub(u, v); }, streams);
    case Binary::mul:
      return apply2(
          a, b, y, n, [](V u, V v) RECKON_VEC { return hn::Mul(u, v); }, streams);
    case Binary::div:
      return apply2(
          a, b, y, n, [](V u, V v) RECKON_VEC { return hn::Div(u, v); }, streams);
    case Binary::max:
      return apply2(
          a, b, y, n, [](V u, V v) RECKON_VEC { return with_nan(u, v, hn::Max(u, v)); }, streams);
    case Binary::min:
      return apply2(
          a, b, y, n, [](V u, V v) RECKON_VEC { return with_nan(u, v, hn::Min(u, v)); }, streams);
    default:
      if constexpr (sizeof(T) == 4) binary_scalar(op, a, b, y, n);
  }
}

// Contiguous elements.
void unary_dense(Unary op, DType dtype, const void* x, void* y, int64_t n, bool streams) {
  with_type(dtype, [&](auto t) RECKON_VEC { unary_as(op, static_cast<const decltype(t)*>(x), static_cast<decltype(t)*>(y), n, streams); });
}
void binary_dense(Binary op, DType dtype, const void* a, const void* b, void* out, int64_t n, bool streams) {
  if (!is_scalar(op) || dtype == DType::f32) {
    return with_type(dtype, [&](auto t) RECKON_VEC {
      using T = decltype(t);
      binary_as(op, static_cast<const T*>(a), static_cast<const T*>(b), static_cast<T*>(out), n, streams);
    });
  }
  HWY_ALIGN float as[kPart], bs[kPart], outs[kPart];
  for (int64_t i = 0; i < n; i += kPart) {
    const int64_t count = n - i < kPart ? n - i : kPart;
    binary_scalar(op, read_chunk(dtype, a, i, count, as), read_chunk(dtype, b, i, count, bs), outs, count);
    write_chunk(dtype, out, i, count, outs);
  }
}

void unary_part(Unary op, DType dtype, const Loop& loop, const void* x, void* y, const ElementPart& part) {
  HWY_ALIGN float xs[kPart], ys[kPart];
  const int64_t sx = loop.inner_stride(1), sy = loop.inner_stride(0);
  walk(loop, part.begin, part.end, [&](int64_t n, const int64_t* at) HWY_ATTR {
    if (sx == 1 && sy == 1) return unary_dense(op, dtype, element(dtype, x, at[1]), element(dtype, y, at[0]), n, part.streams);
    for (int64_t i = 0; i < n; i += kPart) {
      const int64_t count = n - i < kPart ? n - i : kPart, to = at[0] + i * sy;
      const float* from = gather(dtype, x, at[1] + i * sx, sx, count, xs);
      float* const results = place(dtype, y, to, sy, ys);
      dtype == DType::bf16 ? unary_as<float, true>(op, from, results, count) : unary_as<float>(op, from, results, count);
      scatter(dtype, y, to, sy, count, ys);
    }
  });
}

void binary_part(Binary op, DType dtype, const Loop& loop, const void* a, const void* b, void* out, const ElementPart& part) {
  HWY_ALIGN float as[kPart], bs[kPart], outs[kPart];
  const int64_t so = loop.inner_stride(0), sa = loop.inner_stride(1), sb = loop.inner_stride(2);
  walk(loop, part.begin, part.end, [&](int64_t n, const int64_t* at) HWY_ATTR {
    if (so == 1 && sa == 1 && sb == 1)
      return binary_dense(op, dtype, element(dtype, a, at[1]), element(dtype, b, at[2]), element(dtype, out, at[0]), n, part.streams);
    for (int64_t i = 0; i < n; i += kPart) {
      const int64_t count = n - i < kPart ? n - i : kPart, to = at[0] + i * so;
      const float *av = gather(dtype, a, at[1] + i * sa, sa, count, as), *bv = gather(dtype, b, at[2] + i * sb, sb, count, bs);
      binary_as<float>(op, av, bv, place(dtype, out, to, so, outs), count);
      scatter(dtype, out, to, so, count, outs);
    }
  });
}

void affine_part(DType dtype, float alpha, float beta, const void* x, void* y, const ElementPart& part) {
  const V va = set(alpha), vb = set(beta);
  with_type(dtype, [&](auto t) RECKON_VEC {
    using T = decltype(t);
    map1<2>(
        static_cast<const T*>(x) + part.begin, static_cast<T*>(y) + part.begin, part.end - part.begin,
        [&](V v) RECKON_VEC { return hn::MulAdd(va, v, vb); }, part.streams);
  });
}

void axpby_part(DType x_dtype, float alpha, const void* x, DType y_dtype, float beta, const void* y, void* out, int64_t begin,
                int64_t end) {
  HWY_ALIGN float xs[kChunk], ys[kChunk], outs[kChunk];
  const V va = set(alpha), vb = set(beta);
  for_chunks(end - begin, [&](int64_t c, int64_t n) RECKON_VEC {
    const int64_t at = begin + c;
    const float *u = read_chunk(x_dtype, x, at, n, xs), *v = read_chunk(y_dtype, y, at, n, ys);
    float* place = write_place(y_dtype, out, at, outs);
    for_vectors(n, [&](int64_t i, auto part) RECKON_VEC {
      RECKON_COUNT_VECTOR(part.count());
      part.store(hn::MulAdd(va, part.load(u + i), hn::Mul(vb, part.load(v + i))), place + i);
    });
    write_chunk(y_dtype, out, at, n, outs);
  });
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(unary_part);
HWY_EXPORT(binary_part);
HWY_EXPORT(unary_dense);
HWY_EXPORT(binary_dense);
HWY_EXPORT(affine_part);
HWY_EXPORT(axpby_part);

bool is_vector_type(DType dtype) { return is_float(dtype) && dtype != DType::f64; }
}  // namespace

void unary(Unary op, DType dtype, const Shape& shape, Strided x, void* y, const int64_t* y_strides) {
  const int64_t* strides[] = {y_strides, x.strides};
  const Loop loop = make_loop(shape, 2, strides);
  const ElementTasks tasks = element_tasks(loop.total, 2 * size_of(dtype), x.data == y || loop.inner() * size_of(dtype) < kLeastRun);
  parallel_range(loop.total, tasks.elements_each, [&](int64_t begin, int64_t end) {
    if (!is_vector_type(dtype)) return unary_plain(op, dtype, loop, x.data, y, begin, end);
    HWY_DYNAMIC_DISPATCH(unary_part)(op, dtype, loop, x.data, y, {begin, end, tasks.streams});
    if (tasks.streams) stream_fence();
  });
}

void binary(Binary op, DType dtype, const Shape& shape, Strided a, Strided b, void* out, const int64_t* out_strides) {
  const int64_t* strides[] = {out_strides, a.strides, b.strides};
  const Loop loop = make_loop(shape, 3, strides);
  const bool near = a.data == out || b.data == out || loop.inner() * size_of(dtype) < kLeastRun;
  const ElementTasks tasks = element_tasks(loop.total, 3 * size_of(dtype), near);
  parallel_range(loop.total, tasks.elements_each, [&](int64_t begin, int64_t end) {
    if (!is_vector_type(dtype)) return binary_plain(op, dtype, loop, a.data, b.data, out, begin, end);
    HWY_DYNAMIC_DISPATCH(binary_part)(op, dtype, loop, a.data, b.data, out, {begin, end, tasks.streams});
    if (tasks.streams) stream_fence();
  });
}

void unary_run(Unary op, DType dtype, const void* x, void* y, int64_t n) {
  if (!is_vector_type(dtype)) return unary_plain(op, dtype, dense_loop(2, n), x, y, 0, n);
  HWY_DYNAMIC_DISPATCH(unary_dense)(op, dtype, x, y, n, false);
}

void binary_run(Binary op, DType dtype, const void* a, const void* b, void* out, int64_t n) {
  if (!is_vector_type(dtype)) return binary_plain(op, dtype, dense_loop(3, n), a, b, out, 0, n);
  HWY_DYNAMIC_DISPATCH(binary_dense)(op, dtype, a, b, out, n, false);
}

void affine(DType dtype, const void* x, double alpha, double beta, void* y, int64_t n) {
  const ElementTasks tasks = element_tasks(n, 2 * size_of(dtype), x == y);
  parallel_range(n, tasks.elements_each, [&](int64_t begin, int64_t end) {
    if (is_vector_type(dtype)) {
      HWY_DYNAMIC_DISPATCH(affine_part)(dtype, float(alpha), float(beta), x, y, {begin, end, tasks.streams});
      if (tasks.streams) stream_fence();
      return;
    }
    if (dtype != DType::f64) return affine_whole(dtype, x, int64_t(alpha), int64_t(beta), y, begin, end);
    for (int64_t i = begin; i < end; ++i) {
      RECKON_COUNT_VECTOR(2);
      static_cast<double*>(y)[i] = alpha * static_cast<const double*>(x)[i] + beta;
    }
  });
}

void axpby(DType x_dtype, double alpha, const void* x, DType y_dtype, double beta, const void* y, void* out, int64_t n) {
  RECKON_ASSERT(is_float(x_dtype) && is_float(y_dtype) && (x_dtype == DType::f64) == (y_dtype == DType::f64));
  parallel_range(n, kTaskElements, [&](int64_t begin, int64_t end) {
    if (y_dtype != DType::f64) return HWY_DYNAMIC_DISPATCH(axpby_part)(x_dtype, float(alpha), x, y_dtype, float(beta), y, out, begin, end);
    const double *xs = static_cast<const double*>(x), *ys = static_cast<const double*>(y);
    for (int64_t i = begin; i < end; ++i) {
      RECKON_COUNT_VECTOR(1);  // both factors are 1: a sum
      static_cast<double*>(out)[i] = alpha * xs[i] + beta * ys[i];
    }
  });
}
}  // namespace reckon::cpu
#endif
