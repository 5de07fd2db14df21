// backend/cpu/vec-inl: float32 vectors over Highway, compiled once per instruction set. Include it after foreach_target.h. Knows chunks
// of contiguous elements of any float type but float64 (which has plain loops beside each kernel), and no operation.
#if defined(RECKON_BACKEND_CPU_VEC_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RECKON_BACKEND_CPU_VEC_INL_H_
#undef RECKON_BACKEND_CPU_VEC_INL_H_
#else
#define RECKON_BACKEND_CPU_VEC_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>
#include <cstring>

#include "reckon/backend/cpu/count.h"
#include "reckon/tensor/dtype.h"

// For every lambda that touches vectors: its instruction set, and no call in the inner loop.
#ifndef RECKON_VEC
#define RECKON_VEC HWY_ATTR __attribute__((always_inline))
#endif

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using D = hn::ScalableTag<float>;
using DI = hn::RebindToSigned<D>;
using DU = hn::RebindToUnsigned<D>;
using D16 = hn::Rebind<uint16_t, D>;
using V = hn::Vec<D>;
using M = hn::Mask<D>;

/// Elements that one stack buffer holds: four of them fit in a 32 KiB L1 cache.
constexpr int64_t kChunk = 2048;

HWY_INLINE int64_t lanes() { return int64_t(hn::Lanes(D())); }
HWY_INLINE V set(float value) { return hn::Set(D(), value); }
HWY_INLINE V zero() { return hn::Zero(D()); }
/// False for NaN. A comparison: IsNaN is an instruction of half the speed on AVX-512.
HWY_INLINE M is_number(V v) { return hn::Eq(v, v); }
HWY_INLINE float sum_lanes(V v) { return hn::GetLane(hn::SumOfLanes(D(), v)); }
HWY_INLINE float max_lanes(V v) { return hn::GetLane(hn::MaxOfLanes(D(), v)); }

/// How a body sees a whole vector, or the last, partial one, whose missing lanes load as 0 and are never stored.
struct Whole {
  HWY_INLINE V load(const float* p) const { return hn::LoadU(D(), p); }
  HWY_INLINE void store(V v, float* p) const { hn::StoreU(v, D(), p); }
  HWY_INLINE V keep(V v) const { return v; }
  HWY_INLINE V keep_or(V v, V) const { return v; }
  HWY_INLINE int64_t count() const { return lanes(); }
};
struct Tail {
  M mask;
  HWY_INLINE V load(const float* p) const { return hn::MaskedLoad(mask, D(), p); }
  HWY_INLINE void store(V v, float* p) const { hn::BlendedStore(v, mask, D(), p); }
  HWY_INLINE V keep(V v) const { return hn::IfThenElseZero(mask, v); }
  HWY_INLINE V keep_or(V v, V other) const { return hn::IfThenElse(mask, v, other); }
  HWY_INLINE int64_t count() const { return int64_t(hn::CountTrue(D(), mask)); }
};

/// body(i, part) for the vectors that cover [0, n).
template <class Body>
HWY_INLINE void for_vectors(int64_t n, Body body) {
  const int64_t N = lanes();
  int64_t i = 0;
  for (; i + N <= n; i += N) body(i, Whole());
  if (i < n) body(i, Tail{hn::FirstN(D(), size_t(n - i))});
}

/// sums[k] += what body(i, part, acc) added to acc[k] over [0, n). Independent accumulators hide the latency of the adds.
/// A body must add zero in the missing lanes of a Tail.
template <int K, class Body>
HWY_INLINE void add_sums(int64_t n, double* sums, Body body) {
  const int64_t N = lanes();
  V a[K], b[K], c[K], d[K];
  for (int k = 0; k < K; ++k) a[k] = b[k] = c[k] = d[k] = zero();
  int64_t i = 0;
  for (; i + 4 * N <= n; i += 4 * N) {
    body(i, Whole(), a);
    body(i + N, Whole(), b);
    body(i + 2 * N, Whole(), c);
    body(i + 3 * N, Whole(), d);
  }
  for (; i + N <= n; i += N) body(i, Whole(), a);
  if (i < n) body(i, Tail{hn::FirstN(D(), size_t(n - i))}, b);
  for (int k = 0; k < K; ++k) sums[k] += double(sum_lanes(hn::Add(hn::Add(a[k], b[k]), hn::Add(c[k], d[k]))));
}

// ---- 16-bit floats

HWY_INLINE V load_bf16(const uint16_t* p) { return hn::BitCast(D(), hn::ShiftLeft<16>(hn::PromoteTo(DU(), hn::LoadU(D16(), p)))); }

/// Rounded to nearest even in the upper 16 bits; NaN stays NaN. The lower bits are left over.
HWY_INLINE hn::Vec<DU> rounded_bits(V v) {
  const DU du;
  const auto bits = hn::BitCast(du, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(du, 0x7FFFu)));
  const auto quiet = hn::Or(bits, hn::Set(du, 0x400000u));
  return hn::IfThenElse(hn::RebindMask(du, is_number(v)), rounded, quiet);
}
HWY_INLINE void store_bf16(V v, uint16_t* p) { hn::StoreU(hn::TruncateTo(D16(), hn::ShiftRight<16>(rounded_bits(v))), D16(), p); }

#if HWY_TARGET != HWY_SCALAR
/// Two vectors rounded as by store_bf16, side by side: the upper 16 bits go up by 1 if the lower ones are above one half, or are one half
/// and the upper ones are odd.
HWY_INLINE hn::Vec<hn::Repartition<uint16_t, D>> round_pair(V low, V high) {
  const hn::Repartition<uint16_t, D> d16;
  const auto keep_nan = [](V v) RECKON_VEC {  // quiet, with nothing to round
    const auto bits = hn::And(hn::Or(hn::BitCast(DU(), v), hn::Set(DU(), 0x400000u)), hn::Set(DU(), 0xFFFF0000u));
    return hn::IfThenElse(is_number(v), v, hn::BitCast(D(), bits));
  };
  if (HWY_UNLIKELY(!hn::AllTrue(D(), hn::And(is_number(low), is_number(high))))) low = keep_nan(low), high = keep_nan(high);
  const auto l = hn::BitCast(d16, low), h = hn::BitCast(d16, high);
  const auto upper = hn::ConcatOdd(d16, h, l), lower = hn::ConcatEven(d16, h, l);
  const auto order = hn::OrAnd(lower, upper, hn::Set(d16, uint16_t(1)));
  return hn::Sub(upper, hn::VecFromMask(d16, hn::Gt(order, hn::Set(d16, uint16_t(0x8000)))));
}
#endif

#if HWY_TARGET == HWY_SCALAR
HWY_INLINE V load_f16(const uint16_t* p) {
  float16 h;
  h.bits = *p;
  return set(float(h));
}
HWY_INLINE void store_f16(V v, uint16_t* p) { *p = float16(hn::GetLane(v)).bits; }
#else
HWY_INLINE V load_f16(const uint16_t* p) {
  const hn::Rebind<hwy::float16_t, D> d16;
  return hn::PromoteTo(D(), hn::BitCast(d16, hn::LoadU(D16(), p)));
}
HWY_INLINE void store_f16(V v, uint16_t* p) {
  const hn::Rebind<hwy::float16_t, D> d16;
  hn::StoreU(hn::BitCast(D16(), hn::DemoteTo(d16, v)), D16(), p);
}
#endif

/// What storing and loading make of a value.
HWY_INLINE V round_to_bf16(V v) { return hn::BitCast(D(), hn::And(rounded_bits(v), hn::Set(DU(), 0xFFFF0000u))); }
HWY_INLINE V round_to_f16(V v) {
  HWY_ALIGN uint16_t half[hn::MaxLanes(D())];
  store_f16(v, half);
  return load_f16(half);
}
HWY_INLINE V round_to(DType dtype, V v) { return dtype == DType::f32 ? v : dtype == DType::bf16 ? round_to_bf16(v) : round_to_f16(v); }

template <V (*Load)(const uint16_t*)>
HWY_INLINE void widen(const uint16_t* from, int64_t n, float* to) {
  const int64_t N = lanes();
  int64_t i = 0;
  for (; i + N <= n; i += N) hn::StoreU(Load(from + i), D(), to + i);
  if (i == n) return;
  HWY_ALIGN uint16_t rest[hn::MaxLanes(D())] = {};
  std::memcpy(rest, from + i, size_t(n - i) * 2);
  hn::BlendedStore(Load(rest), hn::FirstN(D(), size_t(n - i)), D(), to + i);
}

template <void (*Store)(V, uint16_t*)>
HWY_INLINE void narrow(const float* from, int64_t n, uint16_t* to) {
  const int64_t N = lanes();
  int64_t i = 0;
  for (; i + N <= n; i += N) Store(hn::LoadU(D(), from + i), to + i);
  if (i == n) return;
  HWY_ALIGN uint16_t rest[hn::MaxLanes(D())];
  Store(hn::MaskedLoad(hn::FirstN(D(), size_t(n - i)), D(), from + i), rest);
  std::memcpy(to + i, rest, size_t(n - i) * 2);
}

/// Elements [at, at + n) of an f32, bf16 or f16 array as floats, n <= kChunk; converted into the buffer unless they are f32 already.
HWY_INLINE const float* read_chunk(DType dtype, const void* data, int64_t at, int64_t n, float* buffer) {
  if (dtype == DType::f32) return static_cast<const float*>(data) + at;
  const uint16_t* from = static_cast<const uint16_t*>(data) + at;
  if (dtype == DType::bf16) {
    widen<load_bf16>(from, n, buffer);
  } else {
    widen<load_f16>(from, n, buffer);
  }
  return buffer;
}

/// Rounds n floats into elements [at, at + n) of a bf16 or f16 array; for f32 they are there already (see write_place).
HWY_INLINE void write_chunk(DType dtype, void* data, int64_t at, int64_t n, const float* buffer) {
  if (dtype == DType::f32) return;
  uint16_t* to = static_cast<uint16_t*>(data) + at;
  if (dtype == DType::bf16) {
    narrow<store_bf16>(buffer, n, to);
  } else {
    narrow<store_f16>(buffer, n, to);
  }
}

/// Where a kernel should write elements [at, ...) as floats: in place for f32, else the buffer.
HWY_INLINE float* write_place(DType dtype, void* data, int64_t at, float* buffer) {
  return dtype == DType::f32 ? static_cast<float*>(data) + at : buffer;
}

/// A float input of any type but f64, read by chunks. Remembers its last chunk, so that passes over a short row convert it once.
struct Reader {
  DType dtype;
  const void* data;
  int64_t begin = -1, count = 0;
  HWY_ALIGN float buffer[kChunk];

  Reader(DType type, const void* p) : dtype(type), data(p) {}
  HWY_INLINE const float* at(int64_t i, int64_t n) {
    if (dtype == DType::f32) return static_cast<const float*>(data) + i;
    if (begin != i || count != n) {
      read_chunk(dtype, data, i, n, buffer);
      begin = i, count = n;
    }
    return buffer;
  }
};

/// A float output of any type but f64, written by chunks: fill at(i), then done(i, n).
struct Writer {
  DType dtype;
  void* data;
  HWY_ALIGN float buffer[kChunk];

  Writer(DType type, void* p) : dtype(type), data(p) {}
  HWY_INLINE float* at(int64_t i) { return write_place(dtype, data, i, buffer); }
  HWY_INLINE void done(int64_t i, int64_t n) { write_chunk(dtype, data, i, n, buffer); }
};

/// body(c, n) for the chunks of [0, count).
template <class Body>
HWY_INLINE void for_chunks(int64_t count, Body body) {
  for (int64_t c = 0; c < count; c += kChunk) body(c, count - c < kChunk ? count - c : kChunk);
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
