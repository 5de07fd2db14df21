// backend/cpu/vec_dense-inl: one loop over contiguous elements of f32, bf16 or f16: load, widen, operate, round, store. It knows no
// operation.
#if defined(RECKON_BACKEND_CPU_VEC_DENSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RECKON_BACKEND_CPU_VEC_DENSE_INL_H_
#undef RECKON_BACKEND_CPU_VEC_DENSE_INL_H_
#else
#define RECKON_BACKEND_CPU_VEC_DENSE_INL_H_
#endif

#include <type_traits>

#include "reckon/backend/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {

HWY_INLINE V load_vector(const float* p) { return hn::LoadU(D(), p); }
HWY_INLINE V load_vector(const bfloat16* p) { return load_bf16(reinterpret_cast<const uint16_t*>(p)); }
HWY_INLINE V load_vector(const float16* p) { return load_f16(reinterpret_cast<const uint16_t*>(p)); }
HWY_INLINE void store_vector(V v, float* p) { hn::StoreU(v, D(), p); }
HWY_INLINE void store_vector(V v, bfloat16* p) { store_bf16(v, reinterpret_cast<uint16_t*>(p)); }
HWY_INLINE void store_vector(V v, float16* p) { store_f16(v, reinterpret_cast<uint16_t*>(p)); }

/// The elements of two vectors, in any order that store_pair puts back: for operations on elements whose operands have one type.
template <class T>
HWY_INLINE void load_pair(const T* p, V& u, V& v) {
  u = load_vector(p);
  v = load_vector(p + lanes());
}
/// `past`: past the caches; p is then where a cache line starts, or where the last pair ended.
template <class T>
HWY_INLINE void store_pair(V u, V v, T* p, bool) {
  store_vector(u, p);
  store_vector(v, p + lanes());
}
HWY_INLINE void store_pair(V u, V v, float* p, bool past) {
  if (past) {
    hn::Stream(u, D(), p);
    hn::Stream(v, D(), p + lanes());
  } else {
    store_vector(u, p);
    store_vector(v, p + lanes());
  }
}
#if HWY_TARGET != HWY_SCALAR
// Even elements and odd ones: each is widened by one instruction, where it is.
HWY_INLINE void load_pair(const bfloat16* p, V& even, V& odd) {
  const DU du;
  const hn::Repartition<uint16_t, D> d16;
  const auto both = hn::BitCast(du, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p)));
  even = hn::BitCast(D(), hn::ShiftLeft<16>(both));
  odd = hn::BitCast(D(), hn::And(both, hn::Set(du, 0xFFFF0000u)));
}
// As store_bf16: the upper 16 bits go up by 1 if the lower ones are above one half, or are one half and the upper ones are odd.
HWY_INLINE void store_pair(V even, V odd, bfloat16* p, bool past) {
  const DU du;
  const hn::Repartition<uint16_t, D> d16;
  const auto e = hn::BitCast(du, even), o = hn::BitCast(du, odd), above = hn::Set(du, 0xFFFF0000u);
  auto upper = hn::BitCast(d16, hn::OrAnd(hn::ShiftRight<16>(e), o, above));
  if (HWY_LIKELY(hn::AllTrue(D(), hn::And(is_number(even), is_number(odd))))) {
    const auto lower = hn::BitCast(d16, hn::Or(hn::ShiftLeft<16>(o), hn::AndNot(above, e)));
    const auto order = hn::OrAnd(lower, upper, hn::Set(d16, uint16_t(1)));
    upper = hn::Sub(upper, hn::VecFromMask(d16, hn::Gt(order, hn::Set(d16, uint16_t(0x8000)))));
    auto* const to = reinterpret_cast<uint16_t*>(p);
    return past ? hn::Stream(upper, d16, to) : hn::StoreU(upper, d16, to);
  }
  HWY_ALIGN uint16_t evens[hn::MaxLanes(D())], odds[hn::MaxLanes(D())];
  store_bf16(even, evens);
  store_bf16(odd, odds);
  for (int64_t i = 0; i < lanes(); ++i) p[2 * i].bits = evens[i], p[2 * i + 1].bits = odds[i];
}
#endif

/// Two vectors side by side.
template <class T>
HWY_INLINE void store_ordered(V u, V v, T* p, bool past) {
#if HWY_TARGET != HWY_SCALAR
  if constexpr (std::is_same_v<T, bfloat16>) {
    const hn::Repartition<uint16_t, D> d16;
    auto* const to = reinterpret_cast<uint16_t*>(p);
    return past ? hn::Stream(round_pair(u, v), d16, to) : hn::StoreU(round_pair(u, v), d16, to);
  }
#endif
  store_pair(u, v, p, past);
}

/// The first n elements, less than a vector; the missing lanes load as 0 and are never stored.
template <class T>
HWY_INLINE V load_first(const T* p, int64_t n) {
  HWY_ALIGN T rest[hn::MaxLanes(D())] = {};
  std::memcpy(rest, p, size_t(n) * sizeof(T));
  return load_vector(rest);
}
template <class T>
HWY_INLINE void store_first(V v, T* p, int64_t n) {
  HWY_ALIGN T rest[hn::MaxLanes(D())];
  store_vector(v, rest);
  std::memcpy(p, rest, size_t(n) * sizeof(T));
}
HWY_INLINE V load_first(const float* p, int64_t n) { return hn::MaskedLoad(hn::FirstN(D(), size_t(n)), D(), p); }
HWY_INLINE void store_first(V v, float* p, int64_t n) { hn::BlendedStore(v, hn::FirstN(D(), size_t(n)), D(), p); }

/// Fetches what will be loaded kAhead bytes later; an address beyond the end is not touched.
constexpr int64_t kAhead = 2048;
template <class T>
HWY_INLINE void fetch_ahead(const T* p, int64_t n) {
  const char* from = reinterpret_cast<const char*>(p) + kAhead;
  for (int64_t line = 0; line < n * int64_t(sizeof(T)); line += 64) __builtin_prefetch(from + line);
}

/// Whether a result that should go past the caches can: whole lines of it are stored.
template <class T>
HWY_INLINE bool goes_past(const T* y, bool streams) {
  return streams && reinterpret_cast<uintptr_t>(y) % 64 == 0;
}

/// y[i] = f(x[i]). Two vectors are loaded before either is stored (y may be x), so that their chains
/// of arithmetic overlap. What streams is fenced by the caller.
template <int kFlops, class In, class Out, class F>
HWY_INLINE void map1(const In* x, Out* y, int64_t n, F f, bool streams = false) {
  const int64_t N = lanes();
  const bool past = goes_past(y, streams);
  int64_t i = 0;
  for (; i + 2 * N <= n; i += 2 * N) {
    RECKON_COUNT_VECTOR(kFlops * 2 * N);
    if (!past) fetch_ahead(x + i, 2 * N);  // one stream is read ahead by the processor
    V u, v;
    if constexpr (std::is_same_v<In, Out>) {
      load_pair(x + i, u, v);
      const V fu = f(u), fv = f(v);
      store_pair(fu, fv, y + i, past);
    } else {
      u = load_vector(x + i), v = load_vector(x + i + N);
      const V fu = f(u), fv = f(v);
      store_ordered(fu, fv, y + i, past);
    }
  }
  for (; i + N <= n; i += N) {
    RECKON_COUNT_VECTOR(kFlops * N);
    store_vector(f(load_vector(x + i)), y + i);
  }
  if (i == n) return;
  RECKON_COUNT_VECTOR(kFlops * (n - i));
  store_first(f(load_first(x + i, n - i)), y + i, n - i);
}

/// y[i] = f(a[i], b[i]); y may be a or b.
template <int kFlops, class T, class F>
HWY_INLINE void map2(const T* a, const T* b, T* y, int64_t n, F f, bool streams = false) {
  const int64_t N = lanes();
  const bool past = goes_past(y, streams);
  int64_t i = 0;
  for (; i + 2 * N <= n; i += 2 * N) {
    RECKON_COUNT_VECTOR(kFlops * 2 * N);
    fetch_ahead(a + i, 2 * N);
    fetch_ahead(b + i, 2 * N);
    V a0, a1, b0, b1;
    load_pair(a + i, a0, a1);
    load_pair(b + i, b0, b1);
    const V y0 = f(a0, b0), y1 = f(a1, b1);
    store_pair(y0, y1, y + i, past);
  }
  for (; i + N <= n; i += N) {
    RECKON_COUNT_VECTOR(kFlops * N);
    store_vector(f(load_vector(a + i), load_vector(b + i)), y + i);
  }
  if (i == n) return;
  RECKON_COUNT_VECTOR(kFlops * (n - i));
  store_first(f(load_first(a + i, n - i), load_first(b + i, n - i)), y + i, n - i);
}

/// f(T()) for the C++ type of f32, bf16 or f16.
template <class F>
HWY_INLINE void with_type(DType dtype, F f) {
  if (dtype == DType::f32) return f(float());
  if (dtype == DType::bf16) return f(bfloat16());
  f(float16());
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
