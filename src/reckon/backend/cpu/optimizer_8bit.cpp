// backend/cpu/optimizer_8bit: one block at a time, so that what lies between restoring and quantizing its states stays in the first cache.
#include "reckon/backend/cpu/optimizer_8bit.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/optimizer_8bit.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/dynamic_map.h"
#include "reckon/backend/cpu/optimizer_rules-inl.h"
#include "reckon/ops/state_blocks.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
using D8 = hn::Rebind<uint8_t, D>;
using VI = hn::Vec<DI>;

constexpr DynamicMap kSigned = dynamic_map(true), kUnsigned = dynamic_map(false);
constexpr int kSignBit = 128;
constexpr int kCost = 25;  // FLOPs a parameter, as docs/flops.md has them

#if HWY_TARGET == HWY_AVX3
HWY_INLINE V look_up(const float* table, __m512i at) { return V{_mm512_permutexvar_ps(at, _mm512_loadu_ps(table))}; }
// ---- codes to values in [0, 1]; a magnitude of 0 gives 0.
HWY_INLINE V value_of(const DynamicMap& map, VI magnitude) {
  const V middle = hn::Add(hn::ConvertTo(D(), magnitude), set(0.5f));
  const __m512i exponent = hn::ShiftRight<23>(hn::BitCast(DI(), middle)).raw;
  return hn::MulAdd(look_up(map.slope_by_exponent, exponent), middle, look_up(map.base_by_exponent, exponent));
}
HWY_INLINE V restore_signed(const uint8_t* codes) {
  const DI di;
  const VI code = hn::PromoteTo(di, hn::LoadU(D8(), codes)), sign = hn::And(hn::ShiftLeft<24>(code), hn::Set(di, INT32_MIN));
  const V value = value_of(kSigned, hn::And(code, hn::Set(di, kSignBit - 1)));
  const V with_sign = hn::BitCast(D(), hn::Or(hn::BitCast(di, value), sign));
  return hn::IfThenElse(hn::RebindMask(D(), hn::Eq(code, hn::Set(di, kSignBit))), set(1.0f), with_sign);
}
HWY_INLINE V restore_unsigned(const uint8_t* codes) { return value_of(kUnsigned, hn::PromoteTo(DI(), hn::LoadU(D8(), codes))); }

// ---- values in [0, 1] to the nearest magnitude; above the largest there is only 1, which is the caller's.
HWY_INLINE VI magnitude_of(const DynamicMap& map, V x) {
  const DI di;
  const VI exponent = hn::Max(hn::BitCast(di, hn::ShiftRight<23>(hn::BitCast(DU(), x))), hn::Set(di, 96));
  const __m512i low = _mm512_permutex2var_epi32(_mm512_loadu_si512(map.place), exponent.raw, _mm512_loadu_si512(map.place + 16));
  const V next{_mm512_permutex2var_ps(_mm512_loadu_ps(map.next), exponent.raw, _mm512_loadu_ps(map.next + 16))};
  const __m512i p = _mm512_mask_add_epi32(low, _mm512_cmp_ps_mask(x.raw, next.raw, _CMP_GT_OQ), low, _mm512_set1_epi32(1));
  // The part of the decade that x lies in is the one whose middle is nearest.
  const V c = hn::MulAdd(x, look_up(map.inverse, p), look_up(map.shift, p));
  const V inside = hn::Max(hn::Min(c, look_up(map.highest, p)), look_up(map.lowest, p));
  return hn::ConvertTo(di, hn::IfThenElseZero(hn::Gt(x, set(map.enter[0])), inside));
}
#else
// table[at] for places below 8.
HWY_INLINE V look_up(const float* table, VI at) {
  if constexpr (hn::MaxLanes(D()) >= 8) {
    return hn::TableLookupLanes(hn::LoadU(D(), table), hn::IndicesFromVec(D(), at));
  } else {
    return hn::GatherIndex(D(), table, at);
  }
}

// ---- codes to values in [0, 1]; a magnitude of 0 gives anything that is signed, 1 or less.
HWY_INLINE V value_of(const DynamicMap& map, VI magnitude) {
  const DI di;
  const V c = hn::ConvertTo(D(), magnitude);
  const VI p = hn::Max(hn::Sub(hn::ShiftRight<23>(hn::BitCast(di, c)), hn::Set(di, 127)), hn::Zero(di));
  return hn::MulAdd(look_up(map.slope, p), hn::Add(c, set(0.5f)), look_up(map.base, p));
}
HWY_INLINE V restore_signed(const uint8_t* codes) {
  const DI di;
  const VI code = hn::PromoteTo(di, hn::LoadU(D8(), codes)), c = hn::And(code, hn::Set(di, kSignBit - 1)),
           sign = hn::ShiftLeft<24>(hn::And(code, hn::Set(di, kSignBit)));
  const V value = hn::BitCast(D(), hn::Or(hn::BitCast(di, value_of(kSigned, c)), sign));
  const V rest = hn::IfThenElseZero(hn::RebindMask(D(), hn::Eq(code, hn::Set(di, kSignBit))), set(1.0f));
  return hn::IfThenElse(hn::RebindMask(D(), hn::Eq(c, hn::Zero(di))), rest, value);
}
HWY_INLINE V restore_unsigned(const uint8_t* codes) {
  const DI di;
  const VI code = hn::PromoteTo(di, hn::LoadU(D8(), codes));
  return hn::IfThenZeroElse(hn::RebindMask(D(), hn::Eq(code, hn::Zero(di))), value_of(kUnsigned, code));
}

// ---- values in [0, 1] to the nearest magnitude; above the largest there is only 1, which is the caller's.
HWY_INLINE VI magnitude_of(const DynamicMap& map, V x) {
  const DI di;
  VI places = hn::Zero(di);
  for (const float enter : map.enter) places = hn::Sub(places, hn::VecFromMask(di, hn::RebindMask(di, hn::Gt(x, set(enter)))));
  const VI p = hn::Max(hn::Add(places, hn::Set(di, map.first - 1)), hn::Set(di, map.first));
  // The part of the decade that x lies in is the one whose middle is nearest.
  const V lowest = hn::BitCast(D(), hn::ShiftLeft<23>(hn::Add(p, hn::Set(di, 127))));  // 2^p
  const V highest = hn::Sub(hn::Add(lowest, lowest), set(1.0f));
  const V c = hn::MulAdd(x, look_up(map.inverse, p), look_up(map.shift, p));
  const VI magnitude = hn::ConvertTo(di, hn::Max(hn::Min(c, highest), lowest));
  return hn::IfThenZeroElse(hn::Eq(places, hn::Zero(di)), magnitude);
}
#endif
HWY_INLINE void store_codes(VI codes, uint8_t* to) { hn::StoreU(hn::TruncateTo(D8(), hn::BitCast(DU(), codes)), D8(), to); }

HWY_INLINE void quantize_signed(V x, uint8_t* codes) {
  const DI di;
  const VI c = magnitude_of(kSigned, hn::Abs(x));
  const VI sign = hn::And(hn::BitCast(di, hn::ShiftRight<24>(hn::BitCast(DU(), x))), hn::Set(di, kSignBit));
  const VI code = hn::IfThenZeroElse(hn::Eq(c, hn::Zero(di)), hn::Or(c, sign));
  store_codes(hn::IfThenElse(hn::RebindMask(di, hn::Gt(x, set(kSigned.one))), hn::Set(di, kSignBit), code), codes);
}
HWY_INLINE void quantize_unsigned(V x, uint8_t* codes) {
  const DI di;
  // What is not 0 is at least the smallest value.
  const VI least = hn::IfThenElseZero(hn::RebindMask(di, hn::Gt(x, zero())), hn::Set(di, 1 << kUnsigned.first));
  const VI code = hn::Max(magnitude_of(kUnsigned, x), least);
  store_codes(hn::IfThenElse(hn::RebindMask(di, hn::Gt(x, set(kUnsigned.one))), hn::Set(di, 1), code), codes);
}

// What values are divided by to lie in [-1, 1], and its inverse. Blocks without an ordinary float become 0.
struct Scale {
  float value = 0, inverse = 0;
  explicit Scale(V maxima) {
    const float largest = max_lanes(maxima);
    if (largest < 0x1p-126f) return;
    value = largest;
    inverse = 1 / largest;
  }
};

template <Weights kind>
void step_block(const Factors& f, const WeightArrays& weights, const float* g, const States8bit& s, int64_t block) {
  HWY_ALIGN float m_new[kStateBlock], v_new[kStateBlock];
  const V m_scale = set(s.m_scale[block]), v_scale = set(s.v_scale[block]);
  const int64_t at = block * kStateBlock, N = lanes();
  V m_max = zero(), v_max = zero();
  for (int64_t i = 0; i < kStateBlock; i += N) {
    RECKON_COUNT_VECTOR((kCost + f.coupled + rounding_cost<kind>()) * N);
    Moments now{hn::Mul(restore_signed(s.m + at + i), m_scale), hn::Mul(restore_unsigned(s.v + at + i), v_scale), zero()};
    store_weights<kind>(update<Optimizer::adamw>(f, load_weights<kind>(weights, at + i), hn::LoadU(D(), g + at + i), now), weights, at + i);
    hn::Store(now.m, D(), m_new + i);
    hn::Store(now.v, D(), v_new + i);
    m_max = hn::Max(m_max, hn::Abs(now.m));
    v_max = hn::Max(v_max, now.v);
  }
  const Scale m_now(m_max), v_now(v_max);
  s.m_scale[block] = m_now.value;
  s.v_scale[block] = v_now.value;
  for (int64_t i = 0; i < kStateBlock; i += N) {
    quantize_signed(hn::Mul(hn::Load(D(), m_new + i), set(m_now.inverse)), s.m + at + i);
    quantize_unsigned(hn::Mul(hn::Load(D(), v_new + i), set(v_now.inverse)), s.v + at + i);
  }
}

template <Weights kind>
void step_blocks(const OptimizerStep& a, const States8bit& s, int64_t begin, int64_t end) {
  static_assert(kStateBlock == kNoiseBlock);
  const Factors f = factors(a);
  for (int64_t block = begin; block < end; ++block)
    for_noise<kind>(a, block * kStateBlock, (block + 1) * kStateBlock, [&](const WeightArrays& weights, int64_t, int64_t) RECKON_VEC {
      step_block<kind>(f, weights, static_cast<const float*>(a.g), s, block);
    });
}

void adamw8bit_blocks(const OptimizerStep& a, const States8bit& s, int64_t begin, int64_t end) {
  switch (weights_of(a)) {
    case Weights::single:
      return step_blocks<Weights::single>(a, s, begin, end);
    case Weights::planes:
      return step_blocks<Weights::planes>(a, s, begin, end);
    case Weights::copied:
      return step_blocks<Weights::copied>(a, s, begin, end);
    case Weights::rounded:
      return step_blocks<Weights::rounded>(a, s, begin, end);
  }
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "reckon/backend/cpu/rows.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(adamw8bit_blocks);
}  // namespace

void adamw8bit_step(const OptimizerStep& a, const States8bit& s) {
  RECKON_ASSERT(a.dtype != DType::f64 && a.n % kStateBlock == 0 && a.first % kStateBlock == 0);
  if (a.scalars[kOk] == 0) return;
  parallel_range(a.n / kStateBlock, kTaskElements / kStateBlock, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(adamw8bit_blocks)(a, s, begin, end);
  });
}
}  // namespace reckon::cpu
#endif
