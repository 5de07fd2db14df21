// backend/cpu/vec_random-inl: Philox words, uniforms and normals by the chunk. Lanes hold the blocks of base/philox.h, bit for bit.
#if defined(RECKON_BACKEND_CPU_VEC_RANDOM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RECKON_BACKEND_CPU_VEC_RANDOM_INL_H_
#undef RECKON_BACKEND_CPU_VEC_RANDOM_INL_H_
#else
#define RECKON_BACKEND_CPU_VEC_RANDOM_INL_H_
#endif

#include "reckon/backend/cpu/vec_math-inl.h"
#include "reckon/base/philox.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {

/// words[k][b] = word k of block (key, 0, first + b), for b < blocks; blocks is a multiple of 64-bit lanes (or any number without vectors).
HWY_INLINE void philox_blocks(uint64_t key, uint64_t first, int64_t blocks, int64_t width, uint32_t* words) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t b = 0; b < blocks; ++b) {
    const auto four = philox(key, 0, first + uint64_t(b));
    for (int64_t k = 0; k < 4; ++k) words[k * width + b] = four[size_t(k)];
  }
#else
  // Each 32-bit word sits in the low half of a 64-bit lane: MulEven multiplies those, and gives both halves of the product.
  const hn::ScalableTag<uint64_t> d;
  const hn::Repartition<uint32_t, decltype(d)> d32;
  const hn::Rebind<uint32_t, decltype(d)> half;
  const auto low = hn::Set(d, 0xFFFFFFFFull);
  const auto m0 = hn::BitCast(d32, hn::Set(d, 0xD2511F53ull)), m1 = hn::BitCast(d32, hn::Set(d, 0xCD9E8D57ull));
  for (int64_t b = 0; b < blocks; b += int64_t(hn::Lanes(d))) {
    const auto counter = hn::Iota(d, first + uint64_t(b));
    auto c0 = hn::And(counter, low), c1 = hn::ShiftRight<32>(counter), c2 = hn::Zero(d), c3 = c2;
    uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
    for (int round = 0; round < 10; ++round) {
      const auto p0 = hn::MulEven(hn::BitCast(d32, c0), m0), p1 = hn::MulEven(hn::BitCast(d32, c2), m1);
      c0 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p1), c1), hn::Set(d, uint64_t(k0)));
      c2 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p0), c3), hn::Set(d, uint64_t(k1)));
      c1 = hn::And(p1, low);
      c3 = hn::And(p0, low);
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    hn::StoreU(hn::TruncateTo(half, c0), half, words + b);
    hn::StoreU(hn::TruncateTo(half, c1), half, words + width + b);
    hn::StoreU(hn::TruncateTo(half, c2), half, words + 2 * width + b);
    hn::StoreU(hn::TruncateTo(half, c3), half, words + 3 * width + b);
  }
#endif
}

/// The top 24 bits of n words as floats: u * 2^24, exactly.
HWY_INLINE V top_bits(const uint32_t* words) {
  const DU du;
  return hn::ConvertTo(D(), hn::BitCast(DI(), hn::ShiftRight<8>(hn::LoadU(du, words))));
}

/// sin and cos of 2 pi t for t in [0, 1).
HWY_INLINE void turn_vec(V t, V& sine, V& cosine) {
  const DI di;
  // The nearest quarter turn, and what is left of it, exact: |r| <= 1/8.
  const V quarter = hn::Round(hn::Mul(t, set(4.0f))), r = hn::NegMulAdd(quarter, set(0.25f), t), z = hn::Mul(r, r);
  V s = hn::MulAdd(set(41.47283324f), z, set(-76.69786635f));
  s = hn::MulAdd(hn::MulAdd(hn::MulAdd(s, z, set(81.60520471f)), z, set(-41.34170215f)), z, set(6.283185307f));
  s = hn::Mul(s, r);
  V c = hn::MulAdd(set(59.22016896f), z, set(-85.44284467f));
  c = hn::MulAdd(hn::MulAdd(hn::MulAdd(c, z, set(64.93931614f)), z, set(-19.73920865f)), z, set(1.0f));
  const auto q = hn::ConvertTo(di, quarter);
  const auto odd = hn::RebindMask(D(), hn::Eq(hn::And(q, hn::Set(di, 1)), hn::Set(di, 1)));
  const auto flip_sine = hn::ShiftLeft<30>(hn::And(q, hn::Set(di, 2)));                             // quarters 2 and 3
  const auto flip_cosine = hn::ShiftLeft<30>(hn::And(hn::Add(q, hn::Set(di, 1)), hn::Set(di, 2)));  // quarters 1 and 2
  sine = hn::Xor(hn::IfThenElse(odd, c, s), hn::BitCast(D(), flip_sine));
  cosine = hn::Xor(hn::IfThenElse(odd, s, c), hn::BitCast(D(), flip_cosine));
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
