// backend/cpu/unary_more: on vectors, but for float64 and integers. Polynomials are fits of least error on the ranges beside them; their
// relative error is below 2^-25 unless they say otherwise.
#include "reckon/backend/cpu/unary_more.h"

#include "reckon/backend/cpu/row_tasks.h"
#include "reckon/backend/cpu/stream.h"
#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/unary_more.cpp"
#include <hwy/foreach_target.h>

#include <cmath>

#include "reckon/backend/cpu/vec_dense-inl.h"
#include "reckon/backend/cpu/vec_narrow-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
// Beyond this the number of half turns has more bits than fit beside those of the parts of pi.
constexpr float kLongestAngle = 12000;

// sin(|x| + quarter * pi / 2) for |x| up to kLongestAngle; quarter is 0 or 1. kShort: a term less, 2^-19.
template <int kQuarter, bool kShort>
HWY_INLINE V turned_near(V a) {
  const DI di;
  // The nearest number of half turns, at the lower end of the bits of a number of this size.
  const V magic = set(0x1.8p23f), shifted = hn::Add(hn::MulAdd(a, set(0.318309886184f), set(0.5f * kQuarter)), magic);
  const V whole = hn::Sub(shifted, magic), n = kQuarter == 0 ? whole : hn::Sub(whole, set(0.5f));
#if HWY_TARGET == HWY_SCALAR
  // pi in three parts; the first two have 11 bits, so that their products are exact.
  const V r = hn::NegMulAdd(n, set(0x1.4442dp-23f), hn::NegMulAdd(n, set(0x1.fb4p-11f), hn::NegMulAdd(n, set(0x1.92p+1f), a)));
#else
  // pi in two parts: beyond the first quarter turn the first difference has so few bits that one rounding loses none.
  const V r = hn::NegMulAdd(n, set(-0x1.777a5cp-24f), hn::NegMulAdd(n, set(0x1.921fb6p+1f), a));
#endif
  const V z = hn::Mul(r, r);
  V s;
  if constexpr (kShort) {
    s = hn::MulAdd(hn::MulAdd(set(-0.00018542221f), z, set(0.0083142743f)), z, set(-0.16665854f));
  } else {
    s = hn::MulAdd(set(2.6057805e-06f), z, set(-0.00019809602f));
    s = hn::MulAdd(hn::MulAdd(s, z, set(0.0083330665f)), z, set(-0.1666666f));
  }
  const V sine = hn::MulAdd(hn::Mul(s, z), r, r);
  return hn::BitCast(D(), hn::Xor(hn::BitCast(di, sine), hn::ShiftLeft<31>(hn::BitCast(di, shifted))));  // an odd number turns back
}
// Where some |x| is beyond kLongestAngle, or NaN.
template <int kQuarter, bool kShort>
HWY_NOINLINE V turned_far(V x, M near) {
  HWY_ALIGN float lanes_of[hn::MaxLanes(D())];
  hn::Store(hn::Abs(x), D(), lanes_of);
  for (int64_t i = 0; i < lanes(); ++i)
    lanes_of[i] = float(kQuarter == 0 ? __builtin_sin(double(lanes_of[i])) : __builtin_cos(double(lanes_of[i])));
  return hn::IfThenElse(near, turned_near<kQuarter, kShort>(hn::IfThenElseZero(near, hn::Abs(x))), hn::Load(D(), lanes_of));
}
template <int kQuarter, bool kShort>
HWY_INLINE V turned(V x) {
  const V a = hn::Abs(x);
  const auto near = hn::Le(a, set(kLongestAngle));  // false for NaN
  const V value = HWY_LIKELY(hn::AllTrue(D(), near)) ? turned_near<kQuarter, kShort>(a) : turned_far<kQuarter, kShort>(x, near);
  return kQuarter == 0 ? hn::Xor(value, hn::And(x, set(-0.0f))) : value;  // odd, or even
}

HWY_INLINE V erf_vec(V x) {
  const V a = hn::Abs(x), z = hn::Mul(x, x);
  V p = hn::MulAdd(set(-9.66704647e-06f), z, set(0.0001126595963f));  // erf(x) / x - 1, |x| <= 1
  p = hn::MulAdd(p, z, set(-0.0008484080477f));
  p = hn::MulAdd(p, z, set(0.005221031811f));
  p = hn::MulAdd(p, z, set(-0.02686543073f));
  p = hn::MulAdd(p, z, set(0.112837825f));
  p = hn::MulAdd(p, z, set(-0.3761263847f));
  p = hn::MulAdd(p, z, set(0.128379167f));
  const V near = hn::MulAdd(x, p, x), b = hn::Min(a, set(4.0f));       // beyond 4 it is 1
  V q = hn::MulAdd(set(6.123974018e-08f), b, set(-2.980912441e-06f));  // -log(1 - erf), 0.95 to 4
  q = hn::MulAdd(q, b, set(5.88302179e-05f));
  q = hn::MulAdd(q, b, set(-0.0006656846968f));
  q = hn::MulAdd(q, b, set(0.004991385583f));
  q = hn::MulAdd(q, b, set(-0.0269248654f));
  q = hn::MulAdd(q, b, set(0.1107857177f));
  q = hn::MulAdd(q, b, set(0.6312126437f));
  q = hn::MulAdd(q, b, set(1.130533349f));
  q = hn::MulAdd(q, b, set(-0.0003829373517f));
  const V far = hn::CopySign(hn::Sub(set(1.0f), exp_vec(hn::Neg(q))), x);
  return hn::IfThenElse(is_number(x), hn::IfThenElse(hn::Lt(a, set(1.0f)), near, far), x);
}

// Where 1 + x is rounded the quotient makes up for it (Kahan's way).
HWY_INLINE V log1p_vec(V x) {
  const V u = hn::Add(set(1.0f), x), less_one = hn::Sub(u, set(1.0f));
  const V value = hn::Mul(log_vec(u), hn::Div(x, less_one));
  const auto same = hn::Or(hn::Eq(less_one, zero()), hn::Eq(x, set(__builtin_inff())));
  return hn::IfThenElse(same, x, value);
}
HWY_INLINE V expm1_vec(V x) {
  const V u = exp_vec(x), less_one = hn::Sub(u, set(1.0f));
  const V value = hn::Div(hn::Mul(less_one, x), log_vec(u));
  const auto flat = hn::Eq(less_one, set(-1.0f)), large = hn::Gt(x, set(40.0f));  // there e^x - 1 is -1, or e^x
  return hn::IfThenElse(hn::Eq(u, set(1.0f)), x, hn::IfThenElse(flat, set(-1.0f), hn::IfThenElse(large, less_one, value)));
}
HWY_INLINE V softplus_vec(V x) { return hn::Add(relu_vec(x), log1p_vec(exp_vec(hn::Neg(hn::Abs(x))))); }
HWY_INLINE V gelu_erf_vec(V x) { return hn::Mul(hn::Mul(set(0.5f), x), hn::Add(set(1.0f), erf_vec(hn::Mul(x, set(0.70710678119f))))); }
HWY_INLINE V floor_vec(V x) { return hn::Floor(x); }
HWY_INLINE V ceil_vec(V x) { return hn::Ceil(x); }
HWY_INLINE V round_vec(V x) { return hn::Round(x); }
HWY_INLINE V sign_vec(V x) {
  const V one = hn::CopySign(set(1.0f), x);
  return hn::IfThenElse(hn::Gt(hn::Abs(x), zero()), one, x);  // false for NaN and zeros
}

// f, or narrow if the result is rounded to bfloat16.
template <int kFlops, class F, class Narrow>
HWY_INLINE void map(DType dtype, const void* x, void* y, const ElementPart& part, F f, Narrow narrow) {
  with_type(dtype, [&](auto t) RECKON_VEC {
    using T = decltype(t);
    const T* from = static_cast<const T*>(x) + part.begin;
    T* to = static_cast<T*>(y) + part.begin;
    if constexpr (std::is_same_v<T, bfloat16>) {
      map1<kFlops>(from, to, part.end - part.begin, narrow, part.streams);
    } else {
      map1<kFlops>(from, to, part.end - part.begin, f, part.streams);
    }
  });
}
template <int kFlops, class F>
HWY_INLINE void map(DType dtype, const void* x, void* y, const ElementPart& part, F f) {
  map<kFlops>(dtype, x, y, part, f, f);
}

void function_part(Function f, DType dtype, const void* x, void* y, const ElementPart& part) {
  switch (f) {
    case Function::sin:
      return map<1>(
          dtype, x, y, part, [](V v) RECKON_VEC { return turned<0, false>(v); }, [](V v) RECKON_VEC { return turned<0, true>(v); });
    case Function::cos:
      return map<1>(
          dtype, x, y, part, [](V v) RECKON_VEC { return turned<1, false>(v); }, [](V v) RECKON_VEC { return turned<1, true>(v); });
    case Function::erf:
      return map<1>(
          dtype, x, y, part, [](V v) RECKON_VEC { return erf_vec(v); }, [](V v) RECKON_VEC { return erf_narrow(v); });
    case Function::floor:
      return map<1>(dtype, x, y, part, [](V v) RECKON_VEC { return floor_vec(v); });
    case Function::ceil:
      return map<1>(dtype, x, y, part, [](V v) RECKON_VEC { return ceil_vec(v); });
    case Function::round:
      return map<1>(dtype, x, y, part, [](V v) RECKON_VEC { return round_vec(v); });
    case Function::sign:
      return map<1>(dtype, x, y, part, [](V v) RECKON_VEC { return sign_vec(v); });
    case Function::log1p:
      return map<1>(dtype, x, y, part, [](V v) RECKON_VEC { return log1p_vec(v); });
    case Function::expm1:
      return map<1>(dtype, x, y, part, [](V v) RECKON_VEC { return expm1_vec(v); });
    case Function::softplus:
      return map<5>(dtype, x, y, part, [](V v) RECKON_VEC { return softplus_vec(v); });
    case Function::gelu_erf:
      return map<5>(dtype, x, y, part, [](V v) RECKON_VEC { return gelu_erf_vec(v); });
  }
}

void clamp_part(DType dtype, const void* x, float low, float high, void* y, const ElementPart& part) {
  const V least = set(low), most = set(high);
  map<2>(dtype, x, y, part,
         [&](V v) RECKON_VEC { return hn::IfThenElse(hn::Lt(v, least), least, hn::IfThenElse(hn::Gt(v, most), most, v)); });
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <limits>
#include <numbers>

#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(function_part);
HWY_EXPORT(clamp_part);

double softplus_f64(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }
double in_f64(Function f, double x) {
  switch (f) {
    case Function::sin:
      return std::sin(x);
    case Function::cos:
      return std::cos(x);
    case Function::erf:
      return std::erf(x);
    case Function::floor:
      return std::floor(x);
    case Function::ceil:
      return std::ceil(x);
    case Function::round:
      return std::nearbyint(x);
    case Function::sign:
      return x > 0 ? 1 : x < 0 ? -1 : x;
    case Function::log1p:
      return std::log1p(x);
    case Function::expm1:
      return std::expm1(x);
    case Function::softplus:
      return std::isnan(x) ? x : softplus_f64(x);
    case Function::gelu_erf:
      return 0.5 * x * (1 + std::erf(x * (std::numbers::sqrt2 / 2)));
  }
  return x;
}
constexpr int cost_of(Function f) { return f == Function::softplus || f == Function::gelu_erf ? 5 : 1; }

// A bound that T may not hold.
template <class T>
T bounded(double bound) {
  constexpr double kLeast = double(std::numeric_limits<T>::min());
  if (bound <= kLeast) return std::numeric_limits<T>::min();
  return bound >= -kLeast ? std::numeric_limits<T>::max() : T(bound);
}
template <class T>
void clamp_as(const void* x, T low, T high, void* y, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const T v = static_cast<const T*>(x)[i];
    RECKON_COUNT_VECTOR(2);
    static_cast<T*>(y)[i] = v < low ? low : v > high ? high : v;
  }
}
}  // namespace

void apply_function(Function f, DType dtype, const void* x, void* y, int64_t n) {
  RECKON_ASSERT(is_float(dtype));
  const ElementTasks tasks = element_tasks(n, 2 * size_of(dtype), x == y);
  parallel_range(n, tasks.elements_each, [&](int64_t begin, int64_t end) {
    if (dtype != DType::f64) {
      HWY_DYNAMIC_DISPATCH(function_part)(f, dtype, x, y, {begin, end, tasks.streams});
      if (tasks.streams) stream_fence();
      return;
    }
    for (int64_t i = begin; i < end; ++i) {
      RECKON_COUNT_VECTOR(cost_of(f));
      static_cast<double*>(y)[i] = in_f64(f, static_cast<const double*>(x)[i]);
    }
  });
}

void clamp(DType dtype, const void* x, double low, double high, void* y, int64_t n) {
  const ElementTasks tasks = element_tasks(n, 2 * size_of(dtype), x == y);
  parallel_range(n, tasks.elements_each, [&](int64_t begin, int64_t end) {
    switch (dtype) {
      case DType::f64:
        return clamp_as<double>(x, low, high, y, begin, end);
      case DType::i32:
        return clamp_as<int32_t>(x, bounded<int32_t>(std::ceil(low)), bounded<int32_t>(std::floor(high)), y, begin, end);
      case DType::i64:
        return clamp_as<int64_t>(x, bounded<int64_t>(std::ceil(low)), bounded<int64_t>(std::floor(high)), y, begin, end);
      default:
        HWY_DYNAMIC_DISPATCH(clamp_part)(dtype, x, float(low), float(high), y, {begin, end, tasks.streams});
        if (tasks.streams) stream_fence();
    }
  });
}
}  // namespace reckon::cpu
#endif
