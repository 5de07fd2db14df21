// backend/cpu/vec_float8-inl: vectors of 8-bit floats to and from float32, compiled once per instruction set. Include it after
// foreach_target.h. It rounds as the scalar types of tensor/dtype.h do, and knows no scales.
#if defined(RECKON_BACKEND_CPU_VEC_FLOAT8_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RECKON_BACKEND_CPU_VEC_FLOAT8_INL_H_
#undef RECKON_BACKEND_CPU_VEC_FLOAT8_INL_H_
#else
#define RECKON_BACKEND_CPU_VEC_FLOAT8_INL_H_
#endif

#include "reckon/backend/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
using D8 = hn::Rebind<uint8_t, D>;

#if HWY_TARGET == HWY_SCALAR
template <const Float8Format& F>
HWY_INLINE V load_f8(const uint8_t* p) {
  std::conditional_t<F.dropped == kE5m2.dropped, float8_e5m2, float8_e4m3fn> value;
  value.bits = *p;
  return set(float(value));
}
template <const Float8Format& F>
HWY_INLINE void store_f8(V v, uint8_t* p) {
  *p = encode_float8(F, hn::GetLane(v));
}
#else
template <const Float8Format& F>
HWY_INLINE V load_f8(const uint8_t* p) {
  const auto codes = hn::LoadU(D8(), p);
  if constexpr (F.dropped == kE5m2.dropped) {  // the upper half of a float16
    const hn::Rebind<hwy::float16_t, D> d16;
    return hn::PromoteTo(D(), hn::BitCast(d16, hn::ShiftLeft<8>(hn::PromoteTo(D16(), codes))));
  } else {
    const DU du;
    const auto u = hn::PromoteTo(du, codes), magnitude = hn::And(u, hn::Set(du, 0x7Fu));
    const auto normal = hn::Add(hn::ShiftLeft<20>(magnitude), hn::Set(du, F.rebias));
    const auto subnormal = hn::BitCast(du, hn::Mul(hn::ConvertTo(D(), hn::BitCast(DI(), magnitude)), set(0x1p-9f)));
    const auto is_small = hn::RebindMask(du, hn::Lt(hn::BitCast(DI(), magnitude), hn::Set(DI(), 8)));
    const auto is_nan = hn::Eq(magnitude, hn::Set(du, 0x7Fu));
    const auto bits = hn::IfThenElse(is_nan, hn::Set(du, 0x7FC00000u), hn::IfThenElse(is_small, subnormal, normal));
    return hn::BitCast(D(), hn::Or(bits, hn::ShiftLeft<24>(hn::And(u, hn::Set(du, 0x80u)))));
  }
}

/// Overflow and NaN as the scalar types have them.
template <const Float8Format& F>
HWY_INLINE void store_f8(V v, uint8_t* p) {
  const DU du;
  const DI di;
  const auto u = hn::BitCast(du, v), magnitude = hn::And(u, hn::Set(du, 0x7FFFFFFFu));
  const auto order = hn::BitCast(di, magnitude);  // not negative: compares as signed
  const auto odd = hn::And(hn::ShiftRight<F.dropped>(magnitude), hn::Set(du, 1u));
  const auto half = hn::Set(du, (1u << (F.dropped - 1)) - 1u - F.rebias);
  const auto normal = hn::ShiftRight<F.dropped>(hn::Add(hn::Add(magnitude, half), odd));
  const auto aligned = hn::Add(hn::BitCast(D(), magnitude), hn::BitCast(D(), hn::Set(du, F.aligned)));
  const auto subnormal = hn::Sub(hn::BitCast(du, aligned), hn::Set(du, F.aligned));
  const auto below = [&](uint32_t limit) RECKON_VEC { return hn::RebindMask(du, hn::Lt(order, hn::Set(di, int32_t(limit)))); };
  const auto above = [&](uint32_t limit) RECKON_VEC { return hn::RebindMask(du, hn::Gt(order, hn::Set(di, int32_t(limit)))); };
  auto code = hn::IfThenElse(below(F.smallest_normal), subnormal, normal);
  code = hn::IfThenElse(above(F.last), hn::Set(du, F.overflow), code);
  code = hn::IfThenElse(above(0x7F800000u), hn::Set(du, Float8Format::kNan), code);
  code = hn::Or(code, hn::And(hn::ShiftRight<24>(u), hn::Set(du, 0x80u)));
  hn::StoreU(hn::TruncateTo(D8(), code), D8(), p);
}
#endif

template <const Float8Format& F>
HWY_INLINE void widen_f8(const uint8_t* from, int64_t n, float* to) {
  const int64_t N = lanes();
  int64_t i = 0;
  for (; i + N <= n; i += N) hn::StoreU(load_f8<F>(from + i), D(), to + i);
  if (i == n) return;
  HWY_ALIGN uint8_t rest[hn::MaxLanes(D())] = {};
  std::memcpy(rest, from + i, size_t(n - i));
  hn::BlendedStore(load_f8<F>(rest), hn::FirstN(D(), size_t(n - i)), D(), to + i);
}

template <const Float8Format& F>
HWY_INLINE void narrow_f8(const float* from, int64_t n, uint8_t* to) {
  const int64_t N = lanes();
  int64_t i = 0;
  for (; i + N <= n; i += N) store_f8<F>(hn::LoadU(D(), from + i), to + i);
  if (i == n) return;
  HWY_ALIGN uint8_t rest[hn::MaxLanes(D())];
  store_f8<F>(hn::MaskedLoad(hn::FirstN(D(), size_t(n - i)), D(), from + i), rest);
  std::memcpy(to + i, rest, size_t(n - i));
}

/// read_chunk and write_chunk of vec-inl.h, for 8-bit floats too.
HWY_INLINE const float* read_any_chunk(DType dtype, const void* data, int64_t at, int64_t n, float* buffer) {
  if (!is_float8(dtype)) return read_chunk(dtype, data, at, n, buffer);
  const uint8_t* from = static_cast<const uint8_t*>(data) + at;
  dtype == DType::f8e5m2 ? widen_f8<kE5m2>(from, n, buffer) : widen_f8<kE4m3fn>(from, n, buffer);
  return buffer;
}
HWY_INLINE void write_any_chunk(DType dtype, void* data, int64_t at, int64_t n, const float* buffer) {
  if (!is_float8(dtype)) return write_chunk(dtype, data, at, n, buffer);
  uint8_t* to = static_cast<uint8_t*>(data) + at;
  dtype == DType::f8e5m2 ? narrow_f8<kE5m2>(buffer, n, to) : narrow_f8<kE4m3fn>(buffer, n, to);
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
