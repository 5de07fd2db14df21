// backend/cpu/vec_math-inl: exp, log, tanh, sigmoid and gelu on float32 vectors, within about 2 units in the last place, for every input
// including subnormals, infinities and NaN. Constants are Chebyshev fits on the reduced ranges; their relative error is below 2^-25.
#if defined(RECKON_BACKEND_CPU_VEC_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RECKON_BACKEND_CPU_VEC_MATH_INL_H_
#undef RECKON_BACKEND_CPU_VEC_MATH_INL_H_
#else
#define RECKON_BACKEND_CPU_VEC_MATH_INL_H_
#endif

#include "reckon/backend/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {

/// p * 2^n for integral n in [-300, 300] and p near 1: in two steps, so that subnormal results round once and overflow becomes infinity.
HWY_INLINE V scale_by_power(V p, V n) {
#if HWY_TARGET == HWY_AVX3
  return V{_mm512_scalef_ps(p.raw, n.raw)};
#else
  const DI di;
  const auto whole = hn::ConvertTo(di, n);
  const auto half = hn::ShiftRight<1>(whole), rest = hn::Sub(whole, half);
  const auto bias = hn::Set(di, 127);
  const V a = hn::BitCast(D(), hn::ShiftLeft<23>(hn::Add(half, bias)));
  const V b = hn::BitCast(D(), hn::ShiftLeft<23>(hn::Add(rest, bias)));
  return hn::Mul(hn::Mul(p, a), b);
#endif
}

/// e^x. What the caller knows of x spares an instruction: that it is not below -100, or not above 80.
enum class Range : uint8_t { any, not_below, not_above };
template <Range kRange = Range::any>
HWY_INLINE V exp_of(V x) {
  // Beyond these the result is 0 or infinity anyway, and n stays within the range of scale_by_power. In this order of arguments, x86's
  // instructions let NaN through.
  const V raised = kRange == Range::not_below ? x : hn::Max(set(-110.0f), x);
  const V clamped = kRange == Range::not_above ? raised : hn::Min(set(90.0f), raised);
  const V n = hn::Round(hn::Mul(clamped, set(1.44269504089f)));
  // ln 2 in two parts; the first has few bits, so n * part is exact.
  const V r = hn::NegMulAdd(n, set(-2.12194440e-4f), hn::NegMulAdd(n, set(0.693359375f), clamped));
  V p = hn::MulAdd(set(0.001392625083f), r, set(0.008363232884f));
  p = hn::MulAdd(p, r, set(0.04166655421f));
  p = hn::MulAdd(p, r, set(0.1666657667f));
  p = hn::MulAdd(p, r, set(0.5f));
  p = hn::Add(hn::MulAdd(hn::Mul(r, r), p, r), set(1.0f));
#if HWY_TARGET == HWY_SCALAR
  return hn::IfThenElse(is_number(x), scale_by_power(p, n), x);
#else
  return scale_by_power(p, n);
#endif
}

HWY_INLINE V exp_vec(V x) { return exp_of<>(x); }

/// Natural logarithm: -inf at 0, NaN below.
HWY_INLINE V log_of_power(V m, V e) {  // log(2^e m), m in [sqrt(1/2), sqrt(2))
  // log(1 + f) = 2 atanh(s), s = f / (2 + f); f itself is kept exact and only the correction is rounded.
  const V f = hn::Sub(m, set(1.0f));
  const V s = hn::Div(f, hn::Add(set(2.0f), f)), z = hn::Mul(s, s);
  V tail = hn::MulAdd(set(0.2222222222f), z, set(0.2857142857f));
  tail = hn::MulAdd(tail, z, set(0.4f));
  tail = hn::Mul(hn::MulAdd(tail, z, set(0.6666666667f)), z);
  const V half_square = hn::Mul(hn::Mul(f, f), set(0.5f));
  const V low = hn::MulAdd(s, hn::Add(half_square, tail), hn::Mul(e, set(-2.12194440e-4f)));
  return hn::MulAdd(e, set(0.693359375f), hn::Sub(f, hn::Sub(half_square, low)));
}
HWY_INLINE V log_vec(V x) {
  const DI di;
  const auto whole_of = [&](auto bits) RECKON_VEC { return hn::ShiftRight<23>(hn::Sub(bits, hn::Set(di, 0x3F3504F3))); };
  const auto rest_of = [&](auto bits, auto exponent) RECKON_VEC { return hn::BitCast(D(), hn::Sub(bits, hn::ShiftLeft<23>(exponent))); };
  const auto given = hn::BitCast(di, x);
  // One comparison: the bits from 2^-126 to below infinity, moved to the lower end of the integers.
  const auto usual = hn::Lt(hn::Add(given, hn::Set(di, 0x7F800000)), hn::Set(di, -0x01000000));
  if (HWY_LIKELY(hn::AllTrue(di, usual))) {
    const auto exponent = whole_of(given);
    return log_of_power(rest_of(given, exponent), hn::ConvertTo(D(), exponent));
  }
  const auto tiny = hn::Lt(x, set(0x1p-126f));  // subnormals are scaled by 2^23 first
  const auto bits = hn::BitCast(di, hn::IfThenElse(tiny, hn::Mul(x, set(0x1p23f)), x)), exponent = whole_of(bits);
  const V e = hn::Sub(hn::ConvertTo(D(), exponent), hn::IfThenElseZero(tiny, set(23.0f)));
  const V result = log_of_power(rest_of(bits, exponent), e), infinity = set(__builtin_inff());
  const V defined = hn::IfThenElse(hn::Eq(x, infinity), x, result);
  const V at_zero = hn::IfThenElse(hn::Eq(x, zero()), hn::Neg(infinity), defined);
  return hn::IfThenElse(hn::Ge(x, zero()), at_zero, set(__builtin_nanf("")));
}

/// 1 / (1 + e^-x), and its complement 1 - that, both without cancellation.
HWY_INLINE void sigmoid_vec(V x, V& value, V& complement) {
  const V q = exp_of<Range::not_above>(hn::Neg(hn::Abs(x)));
  const V large = hn::Div(set(1.0f), hn::Add(set(1.0f), q)), small = hn::Mul(q, large);
  const auto negative = hn::Lt(x, zero());
  value = hn::IfThenElse(negative, small, large);
  complement = hn::IfThenElse(negative, large, small);
}
HWY_INLINE V sigmoid_vec(V x) { return hn::Div(set(1.0f), hn::Add(set(1.0f), exp_vec(hn::Neg(x)))); }

HWY_INLINE V tanh_vec(V x) {
  const V a = hn::Abs(x), z = hn::Mul(x, x);
  V p = hn::MulAdd(set(0.00229243294f), z, set(-0.008343670243f));
  p = hn::MulAdd(p, z, set(0.02176883458f));
  p = hn::MulAdd(p, z, set(-0.05395924924f));
  p = hn::MulAdd(p, z, set(0.1333330351f));
  p = hn::MulAdd(p, z, set(-0.3333333317f));
  const V near = hn::MulAdd(hn::Mul(z, x), p, x);
  // From 0.625 on, 1 - 2 / (e^2a + 1) loses no bits.
  const V far = hn::Sub(set(1.0f), hn::Div(set(2.0f), hn::Add(exp_of<Range::not_below>(hn::Add(a, a)), set(1.0f))));
  return hn::IfThenElse(hn::Lt(a, set(0.625f)), near, hn::CopySign(far, x));
}

/// `x` between -most and most, or NaN.
HWY_INLINE V within(V x, float most) {
#if HWY_TARGET == HWY_SCALAR
  return hn::IfThenElse(is_number(x), hn::Max(set(-most), hn::Min(set(most), x)), x);
#else
  return hn::Max(set(-most), hn::Min(set(most), x));  // in this order of arguments, x86's instructions let NaN through
#endif
}

/// GPT-2's gelu_new, 0.5 x (1 + tanh(u)) with u = sqrt(2/pi) (x + 0.044715 x^3), written as x * sigmoid(2u): no cancellation.
constexpr float kGeluScale = 1.5957691216f;  // 2 sqrt(2/pi)
constexpr float kGeluCube = 0.044715f;
HWY_INLINE V gelu_vec(V x) {
  const V minus_u = hn::Mul(x, hn::MulAdd(hn::Mul(x, x), set(-kGeluScale * kGeluCube), set(-kGeluScale)));
  return hn::Div(x, hn::Add(set(1.0f), exp_vec(minus_u)));
}
HWY_INLINE V gelu_slope_vec(V given) {
  const V x = within(given, 16.0f);  // beyond it is 0 or 1, and further on the cube is infinite
  const V square = hn::Mul(x, x);
  const V two_u = hn::Mul(hn::Mul(hn::MulAdd(square, set(kGeluCube), set(1.0f)), x), set(kGeluScale));
  const V slope = hn::Mul(hn::MulAdd(square, set(3 * kGeluCube), set(1.0f)), set(kGeluScale));
  V s, complement;
  sigmoid_vec(two_u, s, complement);
  return hn::MulAdd(hn::Mul(x, hn::Mul(s, complement)), slope, s);
}

HWY_INLINE V relu_vec(V x) { return hn::IfThenZeroElse(hn::Lt(x, zero()), x); }  // keeps NaN
HWY_INLINE V relu_slope_vec(V kept) { return hn::IfThenElseZero(hn::Gt(kept, zero()), set(1.0f)); }
/// Of the result.
HWY_INLINE V sigmoid_slope_vec(V y) { return hn::Mul(y, hn::Sub(set(1.0f), y)); }
HWY_INLINE V tanh_slope_vec(V y) { return hn::Mul(hn::Sub(set(1.0f), y), hn::Add(set(1.0f), y)); }
HWY_INLINE V sigmoid_plain_vec(V x) { return sigmoid_vec(x); }

/// The maximum or minimum `chosen` of two, or a NaN among them.
HWY_INLINE V with_nan(V a, V b, V chosen) { return hn::IfThenElse(is_number(a), hn::IfThenElse(is_number(b), chosen, b), a); }

/// x * sigmoid(x), and its slope.
HWY_INLINE V silu_vec(V x) { return hn::Div(x, hn::Add(set(1.0f), exp_vec(hn::Neg(x)))); }
HWY_INLINE V silu_slope_vec(V given) {
  const V x = within(given, 120.0f);  // beyond it is 0 or 1
  V s, complement;
  sigmoid_vec(x, s, complement);
  return hn::MulAdd(hn::Mul(x, s), complement, s);
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
