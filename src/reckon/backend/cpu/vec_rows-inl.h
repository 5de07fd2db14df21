// backend/cpu/vec_rows-inl: what softmax and cross entropy share: the maximum and the sum of exponentials of one row, in one pass.
#if defined(RECKON_BACKEND_CPU_VEC_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RECKON_BACKEND_CPU_VEC_ROWS_INL_H_
#undef RECKON_BACKEND_CPU_VEC_ROWS_INL_H_
#else
#define RECKON_BACKEND_CPU_VEC_ROWS_INL_H_
#endif

#include "reckon/backend/cpu/vec_held-inl.h"
#include "reckon/backend/cpu/vec_narrow-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {

/// Largest of n elements, -inf for none. A NaN may be lost here; the sum of exponentials keeps it.
template <class Source>
HWY_INLINE float max_of(Source x, int64_t n) {
  const int64_t N = lanes();
  V a = set(-__builtin_inff()), b = a, c = a, d = a;
  int64_t i = 0;
  for (; i + 4 * N <= n; i += 4 * N) {
    RECKON_COUNT_VECTOR(4 * N);
    a = hn::Max(a, x.load(Whole(), i));
    b = hn::Max(b, x.load(Whole(), i + N));
    c = hn::Max(c, x.load(Whole(), i + 2 * N));
    d = hn::Max(d, x.load(Whole(), i + 3 * N));
  }
  for_vectors(n - i, [&](int64_t j, auto part) RECKON_VEC {
    RECKON_COUNT_VECTOR(part.count());
    a = hn::Max(a, part.keep_or(x.load(part, i + j), a));
  });
  return max_lanes(hn::Max(hn::Max(a, b), hn::Max(c, d)));
}

/// sum = sum of exp(x - most); most is finite or +inf (0 stands for a row of nothing but -inf).
struct ExpSum {
  float most;
  double sum;
  double lse() const { return double(most) + __builtin_log(sum); }
};

/// Adds the elements [at, at + n) to `most` and `sum`, which start as -inf and 0. When a chunk raises the maximum, the sum so far is scaled
/// down. Meanwhile fetches what lies `distance` elements further on. kNarrow: a sum that only results of bfloat16 are made from.
template <bool kNarrow = false>
HWY_INLINE void add_exps(RowReader& x, int64_t at, int64_t n, int64_t distance, float& most, double& sum) {
  const float none = -__builtin_inff();
  const int64_t further = at + distance;
  for_chunks(n, [&](int64_t c, int64_t count) RECKON_VEC {
    const Ahead ahead = x.ahead(further + c);
    x.with(at + c, count, [&](auto xs) RECKON_VEC {
      const float chunk = max_of(xs, count), higher = chunk > most ? chunk : most;
      if (higher != most && most != none) sum *= __builtin_exp(double(most) - double(higher));
      most = higher;
      const V shift = set(most == none ? 0.0f : most);
      double more[1] = {0};
      add_sums<1>(count, more, [&](int64_t i, auto part, V* acc) RECKON_VEC {
        RECKON_COUNT_VECTOR(3 * part.count());  // subtract, exp, sum
        ahead(i);
        const V off = hn::Sub(xs.load(part, i), shift);
        constexpr bool kShort = kNarrow && std::is_same_v<decltype(xs), Halves>;
        acc[0] = hn::Add(acc[0], part.keep(kShort ? exp_narrow(off) : exp_of<Range::not_above>(off)));
      });
      sum += more[0];
    });
  });
}

/// Of the elements [at, at + n), a row that is followed by another; results have its type.
HWY_INLINE ExpSum log_sum_exp(RowReader& x, int64_t at, int64_t n) {
  float most = -__builtin_inff();
  double sum = 0;
  add_exps<true>(x, at, n, n, most, sum);
  return {most == -__builtin_inff() ? 0.0f : most, sum};
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
