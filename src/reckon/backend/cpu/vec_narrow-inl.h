// backend/cpu/vec_narrow-inl: functions whose results are rounded to bfloat16, for which float32 of full accuracy would be wasted. A result
// is within 0.51 units of the last place of bfloat16, or within 1e-36 where e^-x, of which it is a quotient, is beyond float32; slopes,
// which cross zero, within that or 2^-16. They take every float32. Constants are fits of least relative error, at most 2^-17.
#if defined(RECKON_BACKEND_CPU_VEC_NARROW_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RECKON_BACKEND_CPU_VEC_NARROW_INL_H_
#undef RECKON_BACKEND_CPU_VEC_NARROW_INL_H_
#else
#define RECKON_BACKEND_CPU_VEC_NARROW_INL_H_
#endif

#include "reckon/backend/cpu/vec_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
#if HWY_TARGET == HWY_AVX3
/// 2^t; exactly 1 at 0. Infinities and NaN need no care: the instructions know them.
HWY_INLINE V exp2_narrow(V t) {
  const V r{_mm512_reduce_ps(t.raw, 0x09)};  // t - floor(t), in [0, 1)
  V p = hn::MulAdd(set(0.013426688f), r, set(0.05224247f));
  p = hn::MulAdd(p, r, set(0.24128021f));
  p = hn::MulAdd(p, r, set(0.69304484f));
  p = hn::MulAdd(p, r, set(1.0f));
  return V{_mm512_scalef_ps(p.raw, t.raw)};  // p * 2^floor(t)
}

HWY_INLINE V log_narrow(V x) {
  const V m{_mm512_getmant_ps(x.raw, _MM_MANT_NORM_p75_1p5, _MM_MANT_SIGN_nan)}, f = hn::Sub(m, set(1.0f));  // m in [3/4, 3/2)
  const V floor_of_log{_mm512_getexp_ps(x.raw)};
  const V e = hn::IfThenElse(hn::Lt(m, set(1.0f)), hn::Add(floor_of_log, set(1.0f)), floor_of_log);
  V p = hn::MulAdd(set(-0.1055298f), f, set(0.20457807f));  // log(1 + f) / f
  p = hn::MulAdd(p, f, set(-0.25613385f));
  p = hn::MulAdd(p, f, set(0.33357534f));
  p = hn::MulAdd(p, f, set(-0.4998776f));
  p = hn::MulAdd(p, f, set(0.99999744f));
  return hn::MulAdd(e, set(0.69314718056f), hn::Mul(p, f));
}
#else
HWY_INLINE V exp2_narrow(V t) { return exp_vec(hn::Mul(t, set(0.69314718056f))); }
HWY_INLINE V log_narrow(V x) { return log_vec(x); }
#endif

constexpr float kLog2E = 1.44269504089f;
HWY_INLINE V exp_narrow(V x) { return exp2_narrow(hn::Mul(x, set(kLog2E))); }
HWY_INLINE V sigmoid_narrow(V x) { return hn::Div(set(1.0f), hn::Add(set(1.0f), exp2_narrow(hn::Mul(x, set(-kLog2E))))); }
/// x / (1 + e^-x)
HWY_INLINE V silu_narrow(V x) { return hn::Div(x, hn::Add(set(1.0f), exp2_narrow(hn::Mul(x, set(-kLog2E))))); }
// log2(e) times minus the argument of gelu's gate.
HWY_INLINE V gelu_power(V x, V square) {
  return hn::Mul(x, hn::MulAdd(square, set(-kGeluScale * kGeluCube * kLog2E), set(-kGeluScale * kLog2E)));
}
HWY_INLINE V gelu_narrow(V x) { return hn::Div(x, hn::Add(set(1.0f), exp2_narrow(gelu_power(x, hn::Mul(x, x))))); }
/// s + x s (1 - s) u', of s = sigmoid(u), power = -u log2(e).
HWY_INLINE V slope_of_gate(V x, V power, V u_slope) {
  const V s = hn::Div(set(1.0f), hn::Add(set(1.0f), exp2_narrow(power)));
  return hn::MulAdd(hn::Mul(x, u_slope), hn::NegMulAdd(s, s, s), s);
}
HWY_INLINE V silu_slope_narrow(V x) {
  const V a = within(x, 120.0f);  // beyond it is 0 or 1
  return slope_of_gate(a, hn::Mul(a, set(-kLog2E)), set(1.0f));
}
HWY_INLINE V gelu_slope_narrow(V x) {
  const V a = within(x, 16.0f), square = hn::Mul(a, a);  // so too
  return slope_of_gate(a, gelu_power(a, square), hn::MulAdd(square, set(3 * kGeluCube * kGeluScale), set(kGeluScale)));
}

HWY_INLINE V tanh_narrow(V x) {
  const V a = within(x, 4.2f), z = hn::Mul(a, a);  // beyond it is 1
  const V p = hn::MulAdd(hn::MulAdd(set(0.0017321064f), z, set(0.11788382f)), z, set(0.99999946f));
  V q = hn::MulAdd(set(7.135357e-05f), z, set(0.018810593f));
  q = hn::MulAdd(hn::MulAdd(q, z, set(0.45121217f)), z, set(1.0f));
  return hn::Div(hn::Mul(a, p), q);
}
HWY_INLINE V erf_narrow(V x) {
  const V a = within(x, 2.75f), z = hn::Mul(a, a);
  V p = hn::MulAdd(set(0.00073171372f), z, set(0.042876434f));
  p = hn::MulAdd(hn::MulAdd(p, z, set(0.15381832f)), z, set(1.1283805f));
  V q = hn::MulAdd(set(0.009166047f), z, set(0.094433352f));
  q = hn::MulAdd(hn::MulAdd(q, z, set(0.46968246f)), z, set(1.0f));
  return hn::Div(hn::Mul(a, p), q);
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
