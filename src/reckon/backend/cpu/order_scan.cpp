// backend/cpu/order_scan: the smallest is the largest of the negated values, which negation keeps exact. Comparisons are counted by the
// callers: what a search needs, not what it takes.
#include "reckon/backend/cpu/order_scan.h"

#include <cmath>
#include <type_traits>

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/order_scan.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_dense-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
// Reading alone, a core waits for more lines than it foresees.
constexpr int64_t kFarAhead = 8192;
HWY_INLINE void fetch_far_ahead(const void* p, int64_t bytes) {
  for (int64_t line = 0; line < bytes; line += 64) __builtin_prefetch(static_cast<const char*>(p) + kFarAhead + line, 0, 2);
}

// Values as they are compared.
HWY_INLINE V sign_of(bool larger) { return hn::BitCast(D(), hn::Set(DU(), larger ? 0u : 0x80000000u)); }
template <class T>
HWY_INLINE V load_compared(const T* p, V sign) {
  return hn::Xor(load_vector(p), sign);
}
// Four vectors of them.
struct Four {
  V a, b, c, d;
  HWY_INLINE V most() const { return hn::Max(hn::Max(a, b), hn::Max(c, d)); }
  HWY_INLINE M all_numbers() const { return hn::And(hn::And(is_number(a), is_number(b)), hn::And(is_number(c), is_number(d))); }
};
template <class T>
HWY_INLINE Four load_four(const T* p, V sign) {
  const int64_t N = lanes();
  return {load_compared(p, sign), load_compared(p + N, sign), load_compared(p + 2 * N, sign), load_compared(p + 3 * N, sign)};
}

// The largest of n values, and whether all are numbers.
struct Largest {
  float value;
  bool numbers;
};
template <class T>
HWY_INLINE Largest largest_of(const T* x, int64_t n, V sign) {
  const int64_t N = lanes();
  const V least = set(-__builtin_inff());
  Four most{least, least, least, least};
  M numbers = is_number(least);
  int64_t i = 0;
  for (; i + 4 * N <= n; i += 4 * N) {
    fetch_far_ahead(x + i, 4 * N * int64_t(sizeof(T)));
    const Four v = load_four(x + i, sign);
    most.a = hn::Max(most.a, v.a), most.b = hn::Max(most.b, v.b), most.c = hn::Max(most.c, v.c), most.d = hn::Max(most.d, v.d);
    numbers = hn::And(numbers, v.all_numbers());
  }
  for (; i < n; i += N) {
    const int64_t count = n - i < N ? n - i : N;
    const V loaded = count == N ? load_compared(x + i, sign) : hn::Xor(load_first(x + i, count), sign);
    const V v = hn::IfThenElse(hn::FirstN(D(), size_t(count)), loaded, least);
    most.a = hn::Max(most.a, v);
    numbers = hn::And(numbers, is_number(v));
  }
  return {max_lanes(most.most()), hn::AllTrue(D(), numbers)};
}

// The first position of a value that is among n.
template <class T>
HWY_INLINE int64_t position_of(const T* x, int64_t n, float value, V sign) {
  const D d;
  const int64_t N = lanes();
  const V wanted = set(value);
  int64_t i = 0;
  for (; i + 4 * N <= n; i += 4 * N) {
    const Four v = load_four(x + i, sign);
    const M a = hn::Eq(v.a, wanted), b = hn::Eq(v.b, wanted), c = hn::Eq(v.c, wanted), e = hn::Eq(v.d, wanted);
    if (!hn::AllFalse(d, hn::Or(hn::Or(a, b), hn::Or(c, e)))) break;
  }
  for (; i + N <= n; i += N)
    if (const int64_t at = int64_t(hn::FindFirstTrue(d, hn::Eq(load_compared(x + i, sign), wanted))); at >= 0) return i + at;
  const V last = hn::Xor(load_first(x + i, n - i), sign);
  return i + int64_t(hn::FindFirstTrue(d, hn::Eq(last, wanted)));
}

template <class T>
HWY_INLINE int64_t first_extreme_as(const T* x, int64_t n, V sign) {
  constexpr int64_t kBlock = 1024;
  float best = -__builtin_inff();
  int64_t found = 0;  // where the block of the best begins
  for (int64_t c = 0; c < n; c += kBlock) {
    const Largest block = largest_of(x + c, n - c < kBlock ? n - c : kBlock, sign);
    if (!block.numbers) return -1;
    if (block.value > best) best = block.value, found = c;
  }
  return found + position_of(x + found, n - found < kBlock ? n - found : kBlock, best, sign);
}
int64_t first_extreme_of(DType dtype, bool largest, const void* x, int64_t n) {
  const V sign = sign_of(largest);
  if (dtype == DType::f32) return first_extreme_as(static_cast<const float*>(x), n, sign);
  if (dtype == DType::bf16) return first_extreme_as(static_cast<const bfloat16*>(x), n, sign);
  return first_extreme_as(static_cast<const float16*>(x), n, sign);
}

template <class T>
HWY_INLINE int64_t next_beyond_as(const T* x, bool larger, int64_t from, int64_t n, float bound) {
  const D d;
  const V sign = sign_of(larger), limit = hn::Xor(set(bound), sign);
  const int64_t N = lanes();
  int64_t i = from;
  for (; i + 4 * N <= n; i += 4 * N) {
    fetch_far_ahead(x + i, 4 * N * int64_t(sizeof(T)));
    const Four v = load_four(x + i, sign);
    const M below = hn::And(hn::And(hn::Le(v.a, limit), hn::Le(v.b, limit)), hn::And(hn::Le(v.c, limit), hn::Le(v.d, limit)));
    if (!hn::AllTrue(d, below)) break;
  }
  for (; i + N <= n; i += N) {
    // Not at most: larger, or NaN.
    const M beyond = hn::Not(hn::Le(load_compared(x + i, sign), limit));
    if (!hn::AllFalse(d, beyond)) return i + int64_t(hn::FindFirstTrue(d, beyond));
  }
  for (; i < n; ++i)
    if (const float v = float(x[i]); !(larger ? v <= bound : v >= bound)) return i;
  return n;
}
int64_t next_beyond_of(DType dtype, bool larger, const void* x, int64_t from, int64_t n, float bound) {
  if (dtype == DType::f32) return next_beyond_as(static_cast<const float*>(x), larger, from, n, bound);
  if (dtype == DType::bf16) return next_beyond_as(static_cast<const bfloat16*>(x), larger, from, n, bound);
  return next_beyond_as(static_cast<const float16*>(x), larger, from, n, bound);
}

// The positions of the lanes of a mask.
HWY_INLINE int64_t store_positions(M mask, int64_t first, int32_t* positions) {
  using Bits = std::conditional_t<hn::MaxLanes(D()) == 16, uint16_t, uint8_t>;
  static_assert(hn::MaxLanes(D()) <= 16);
  uint8_t bytes[8] = {};
  hn::StoreMaskBits(D(), mask, bytes);
  Bits some;
  std::memcpy(&some, bytes, sizeof some);
  int64_t count = 0;
  for (uint32_t rest = some; rest != 0; rest &= rest - 1) positions[count++] = int32_t(first + __builtin_ctz(rest));
  return count;
}

template <class T>
HWY_INLINE Candidates candidates_as(const T* x, bool largest, int64_t n, int64_t k, int32_t* positions) {
  constexpr int64_t kFirst = 8192;  // values: twice through the L1 cache, or the L2
  const D d;
  const V sign = sign_of(largest), least = set(-__builtin_inff());
  const int64_t N = lanes(), step = 4 * N, count = (n < kFirst ? n : kFirst) / step * step;
  if (k > step || count < 4 * step) return {};
  // The largest of each lane of four vectors are different elements: k of them reach the k-th largest.
  Four most{least, least, least, least};
  M numbers = is_number(least);
  for (int64_t i = 0; i < count; i += step) {
    fetch_far_ahead(x + i, step * int64_t(sizeof(T)));
    const Four v = load_four(x + i, sign);
    most.a = hn::Max(most.a, v.a), most.b = hn::Max(most.b, v.b), most.c = hn::Max(most.c, v.c), most.d = hn::Max(most.d, v.d);
    numbers = hn::And(numbers, v.all_numbers());
  }
  if (!hn::AllTrue(d, numbers)) return {};
  V bound = least;
  for (int64_t left = k; left > 0;) {
    bound = hn::MaxOfLanes(d, most.most());
    const M a = hn::Eq(most.a, bound), b = hn::Eq(most.b, bound), c = hn::Eq(most.c, bound), e = hn::Eq(most.d, bound);
    left -= int64_t(hn::CountTrue(d, a) + hn::CountTrue(d, b) + hn::CountTrue(d, c) + hn::CountTrue(d, e));
    most = {hn::IfThenElse(a, least, most.a), hn::IfThenElse(b, least, most.b), hn::IfThenElse(c, least, most.c),
            hn::IfThenElse(e, least, most.d)};
  }
  int64_t found = 0;
  bool strict = false;
  const char* const next_line = reinterpret_cast<const char*>(x + n);
  for (int64_t i = 0; i < count; i += step) {
    for (int64_t at = 0; at < step * int64_t(sizeof(T)); at += 64) __builtin_prefetch(next_line + i * int64_t(sizeof(T)) + at, 0, 2);
    const Four v = load_four(x + i, sign);
    const M a = hn::Ge(v.a, bound), b = hn::Ge(v.b, bound), c = hn::Ge(v.c, bound), e = hn::Ge(v.d, bound);
    if (HWY_LIKELY(hn::AllFalse(d, hn::Or(hn::Or(a, b), hn::Or(c, e))))) continue;
    if (found + step > kMostCandidates) return {found, i};
    found += store_positions(a, i, positions + found);
    found += store_positions(b, i + N, positions + found);
    found += store_positions(c, i + 2 * N, positions + found);
    found += store_positions(e, i + 3 * N, positions + found);
    if (found >= k && !strict) {  // from here on one that equals the bound comes after k others
      strict = true;
      bound = set(std::nextafter(hn::GetLane(bound), __builtin_inff()));
    }
  }
  return {found, count};
}
Candidates candidates_of(DType dtype, bool largest, const void* x, int64_t n, int64_t k, int32_t* positions) {
  if (dtype == DType::f32) return candidates_as(static_cast<const float*>(x), largest, n, k, positions);
  if (dtype == DType::bf16) return candidates_as(static_cast<const bfloat16*>(x), largest, n, k, positions);
  return candidates_as(static_cast<const float16*>(x), largest, n, k, positions);
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reckon::cpu {
namespace {
HWY_EXPORT(first_extreme_of);
HWY_EXPORT(next_beyond_of);
HWY_EXPORT(candidates_of);
}  // namespace

int64_t first_extreme(DType dtype, bool largest, const void* x, int64_t n) {
  return HWY_DYNAMIC_DISPATCH(first_extreme_of)(dtype, largest, x, n);
}
int64_t next_beyond(DType dtype, bool larger, const void* x, int64_t from, int64_t n, float bound) {
  return HWY_DYNAMIC_DISPATCH(next_beyond_of)(dtype, larger, x, from, n, bound);
}
Candidates candidates(DType dtype, bool largest, const void* x, int64_t n, int64_t k, int32_t* positions) {
  return HWY_DYNAMIC_DISPATCH(candidates_of)(dtype, largest, x, n, k, positions);
}
}  // namespace reckon::cpu
#endif
