// backend/cpu/order_scan: the smallest is the largest of the negated values, which negation keeps exact. Comparisons are counted by the
// callers: what a search needs, not what it takes.
#include "reckon/backend/cpu/order_scan.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/order_scan.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_held-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
int64_t first_extreme_of(DType dtype, bool largest, const void* x, int64_t n) {
  constexpr int64_t kBlock = 1024, kAhead = 2048;
  HWY_ALIGN float buffer[kBlock];
  const D d;
  const V sign = hn::BitCast(d, hn::Set(DU(), largest ? 0u : 0x80000000u));
  float best = -__builtin_inff();
  int64_t found = 0;
  for (int64_t c = 0; c < n; c += kBlock) {
    const int64_t count = n - c < kBlock ? n - c : kBlock;
    const float* xs = read_chunk(dtype, x, c, count, buffer);
    const Ahead ahead = ahead_of(dtype, x, c + kAhead);
    V most = set(-__builtin_inff());
    M bad = hn::Lt(zero(), zero());
    for_vectors(count, [&](int64_t i, auto part) RECKON_VEC {
      ahead(i);
      const V v = hn::Xor(part.load(xs + i), sign);
      bad = hn::Or(bad, hn::Ne(v, v));
      most = hn::Max(most, part.keep_or(v, most));
    });
    if (!hn::AllFalse(d, bad)) return -1;
    const float highest = max_lanes(most);
    if (!(highest > best)) continue;
    best = highest;
    const V wanted = set(highest);
    bool known = false;
    for_vectors(count, [&](int64_t i, auto part) RECKON_VEC {
      if (known) return;
      const V v = part.keep_or(hn::Xor(part.load(xs + i), sign), set(-__builtin_inff()));
      const int64_t at = int64_t(hn::FindFirstTrue(d, hn::Eq(v, wanted)));
      if (at < 0) return;
      known = true;
      found = c + i + at;
    });
  }
  return found;
}

int64_t next_beyond_of(DType dtype, bool larger, const void* x, int64_t from, int64_t n, float bound) {
  const D d;
  const V sign = hn::BitCast(d, hn::Set(DU(), larger ? 0u : 0x80000000u)), limit = hn::Xor(set(bound), sign);
  const int64_t N = lanes();
  const bool halves = dtype == DType::bf16;
  const float* floats = static_cast<const float*>(x);
  const uint16_t* bits = static_cast<const uint16_t*>(x);
  int64_t i = from;
  for (; i + N <= n; i += N) {
    const V v = hn::Xor(halves ? load_bf16(bits + i) : hn::LoadU(d, floats + i), sign);
    // Not at most: larger, or NaN.
    const M beyond = hn::Not(hn::Le(v, limit));
    if (!hn::AllFalse(d, beyond)) return i + int64_t(hn::FindFirstTrue(d, beyond));
  }
  for (; i < n; ++i) {
    float one;
    const float v = *read_chunk(dtype, x, i, 1, &one);
    if (!(larger ? v <= bound : v >= bound)) return i;
  }
  return n;
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reckon::cpu {
namespace {
HWY_EXPORT(first_extreme_of);
HWY_EXPORT(next_beyond_of);
}  // namespace

int64_t first_extreme(DType dtype, bool largest, const void* x, int64_t n) {
  return HWY_DYNAMIC_DISPATCH(first_extreme_of)(dtype, largest, x, n);
}
int64_t next_beyond(DType dtype, bool larger, const void* x, int64_t from, int64_t n, float bound) {
  return HWY_DYNAMIC_DISPATCH(next_beyond_of)(dtype, larger, x, from, n, bound);
}
}  // namespace reckon::cpu
#endif
