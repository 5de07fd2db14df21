// backend/cpu/optimizer: every array is read and written once. One update rule per optimizer, on vectors; where the weight comes from (a
// float32, or two 16-bit planes) is the caller of the rule's business.
#include "reckon/backend/cpu/optimizer.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/optimizer.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
// Master weights of a bf16 bucket. The inverse of rounding half away: take back the carry that the lower half gave.
HWY_INLINE V load_master(const uint16_t* high, const uint16_t* low) {
  const DU du;
  const auto h = hn::PromoteTo(du, hn::LoadU(D16(), high)), l = hn::PromoteTo(du, hn::LoadU(D16(), low));
  return hn::BitCast(D(), hn::Or(hn::ShiftLeft<16>(hn::Sub(h, hn::ShiftRight<15>(l))), l));
}
HWY_INLINE void store_master(V master, uint16_t* high, uint16_t* low) {
  const DU du;
  const auto bits = hn::BitCast(du, master);
  hn::StoreU(hn::TruncateTo(D16(), hn::ShiftRight<16>(hn::Add(bits, hn::Set(du, 0x8000u)))), D16(), high);
  hn::StoreU(hn::TruncateTo(D16(), bits), D16(), low);
}

// FLOPs a parameter, as docs/flops.md has them.
[[maybe_unused]] constexpr int cost_of(Optimizer kind) {
  return kind == Optimizer::adamw ? 16 : kind == Optimizer::adagrad ? 8 : kind == Optimizer::momentum ? 6 : 4;
}

struct Factors {
  V clip, decay, lr, beta1, rest1, beta2, rest2, step, root, eps;
};
HWY_INLINE Factors factors(const OptimizerStep& a) {
  const double* s = a.scalars;
  return {set(float(s[kClip])),
          set(float(1 - s[kLearningRate] * a.weight_decay)),
          set(float(s[kLearningRate])),
          set(float(s[kBeta1])),
          set(float(1 - s[kBeta1])),
          set(float(s[kBeta2])),
          set(float(1 - s[kBeta2])),
          set(float(s[kLearningRate] / s[kBiasFactor1])),
          set(float(1 / __builtin_sqrt(s[kBiasFactor2]))),
          set(float(s[kEpsilon]))};
}

template <Optimizer kind>
HWY_INLINE V update(const Factors& f, V p, V g, V& m, V& v) {
  g = hn::Mul(g, f.clip);
  p = hn::Mul(p, f.decay);
  if constexpr (kind == Optimizer::adamw) {
    m = hn::MulAdd(f.beta1, m, hn::Mul(f.rest1, g));
    v = hn::MulAdd(f.beta2, v, hn::Mul(hn::Mul(f.rest2, g), g));
    return hn::Sub(p, hn::Div(hn::Mul(f.step, m), hn::MulAdd(hn::Sqrt(v), f.root, f.eps)));
  } else if constexpr (kind == Optimizer::sgd) {
    return hn::NegMulAdd(f.lr, g, p);
  } else if constexpr (kind == Optimizer::momentum) {
    m = hn::MulAdd(f.beta1, m, g);
    return hn::NegMulAdd(f.lr, m, p);
  } else {
    v = hn::MulAdd(g, g, v);
    return hn::Sub(p, hn::Div(hn::Mul(f.lr, g), hn::Add(hn::Sqrt(v), f.eps)));
  }
}

/// The arrays of one step from some element on; those that the optimizer does not have stay null.
struct Arrays {
  float* p = nullptr;                        // f32 parameters, or
  uint16_t *high = nullptr, *low = nullptr;  // the planes of bf16 parameters
  const float* g = nullptr;
  float *m = nullptr, *v = nullptr;
};

// One whole vector.
template <Optimizer kind, bool halves>
HWY_INLINE void step_vector(const Factors& f, const Arrays& a, int64_t i) {
  constexpr bool has_m = kind == Optimizer::adamw || kind == Optimizer::momentum,
                 has_v = kind == Optimizer::adamw || kind == Optimizer::adagrad;
  const D d;
  V m = zero(), v = zero(), p;
  if constexpr (has_m) m = hn::LoadU(d, a.m + i);
  if constexpr (has_v) v = hn::LoadU(d, a.v + i);
  if constexpr (halves) {
    p = load_master(a.high + i, a.low + i);
  } else {
    p = hn::LoadU(d, a.p + i);
  }
  p = update<kind>(f, p, hn::LoadU(d, a.g + i), m, v);
  if constexpr (halves) {
    store_master(p, a.high + i, a.low + i);
  } else {
    hn::StoreU(p, d, a.p + i);
  }
  if constexpr (has_m) hn::StoreU(m, d, a.m + i);
  if constexpr (has_v) hn::StoreU(v, d, a.v + i);
}

// The last, partial vector: copied into whole ones and back.
template <Optimizer kind, bool halves>
void step_rest(const Factors& f, const Arrays& a, int64_t i, int64_t n) {
  constexpr int64_t kMax = hn::MaxLanes(D());
  HWY_ALIGN float p[kMax] = {}, g[kMax] = {}, m[kMax] = {}, v[kMax] = {};
  HWY_ALIGN uint16_t high[kMax] = {}, low[kMax] = {};
  const auto copy = [n](void* to, const void* from, size_t bytes) { std::memcpy(to, from, size_t(n) * bytes); };
  if (a.p) copy(p, a.p + i, 4);
  if (a.high) copy(high, a.high + i, 2), copy(low, a.low + i, 2);
  copy(g, a.g + i, 4);
  if (a.m) copy(m, a.m + i, 4);
  if (a.v) copy(v, a.v + i, 4);
  step_vector<kind, halves>(f, {p, high, low, g, m, v}, 0);
  if (a.p) copy(a.p + i, p, 4);
  if (a.high) copy(a.high + i, high, 2), copy(a.low + i, low, 2);
  if (a.m) copy(a.m + i, m, 4);
  if (a.v) copy(a.v + i, v, 4);
}

template <Optimizer kind, bool halves>
void step_part(const OptimizerStep& a, int64_t begin, int64_t end) {
  const Factors f = factors(a);
  Arrays arrays{.g = static_cast<const float*>(a.g), .m = static_cast<float*>(a.m), .v = static_cast<float*>(a.v)};
  if (halves) {
    arrays.high = static_cast<uint16_t*>(a.p), arrays.low = a.residual;
  } else {
    arrays.p = static_cast<float*>(a.p);
  }
  const int64_t N = lanes();
  int64_t i = begin;
  for (; i + N <= end; i += N) {
    RECKON_COUNT_VECTOR(cost_of(kind) * N);
    step_vector<kind, halves>(f, arrays, i);
  }
  if (i == end) return;
  RECKON_COUNT_VECTOR(cost_of(kind) * (end - i));
  step_rest<kind, halves>(f, arrays, i, end - i);
}

void optimizer_part(const OptimizerStep& a, int64_t begin, int64_t end) {
  const bool halves = a.dtype == DType::bf16;
  const auto run = [&]<Optimizer kind>() { halves ? step_part<kind, true>(a, begin, end) : step_part<kind, false>(a, begin, end); };
  switch (a.kind) {
    case Optimizer::adamw:
      return run.operator()<Optimizer::adamw>();
    case Optimizer::sgd:
      return run.operator()<Optimizer::sgd>();
    case Optimizer::momentum:
      return run.operator()<Optimizer::momentum>();
    case Optimizer::adagrad:
      return run.operator()<Optimizer::adagrad>();
  }
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <cmath>

#include "reckon/backend/cpu/rows.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(optimizer_part);

void optimizer_part_f64(const OptimizerStep& a, int64_t begin, int64_t end) {
  const double* s = a.scalars;
  const double lr = s[kLearningRate], beta1 = s[kBeta1], beta2 = s[kBeta2], eps = s[kEpsilon];
  double *p = static_cast<double*>(a.p), *m = static_cast<double*>(a.m), *v = static_cast<double*>(a.v);
  for (int64_t i = begin; i < end; ++i) {
    RECKON_COUNT_VECTOR(HWY_STATIC_DISPATCH(cost_of)(a.kind));
    const double g = static_cast<const double*>(a.g)[i] * s[kClip];
    double weight = p[i] * (1 - lr * a.weight_decay);
    switch (a.kind) {
      case Optimizer::adamw:
        m[i] = beta1 * m[i] + (1 - beta1) * g;
        v[i] = beta2 * v[i] + (1 - beta2) * g * g;
        weight -= lr * (m[i] / s[kBiasFactor1]) / (std::sqrt(v[i] / s[kBiasFactor2]) + eps);
        break;
      case Optimizer::sgd:
        weight -= lr * g;
        break;
      case Optimizer::momentum:
        m[i] = beta1 * m[i] + g;
        weight -= lr * m[i];
        break;
      case Optimizer::adagrad:
        v[i] += g * g;
        weight -= lr * g / (std::sqrt(v[i]) + eps);
        break;
    }
    p[i] = weight;
  }
}
}  // namespace

void optimizer_step(const OptimizerStep& a) {
  RECKON_ASSERT(a.dtype == DType::f32 || a.dtype == DType::f64 || (a.dtype == DType::bf16 && (a.residual || a.n == 0)));
  if (a.scalars[kOk] == 0) return;
  parallel_range(a.n, kTaskElements, [&](int64_t begin, int64_t end) {
    if (a.dtype == DType::f64) return optimizer_part_f64(a, begin, end);
    HWY_DYNAMIC_DISPATCH(optimizer_part)(a, begin, end);
  });
}

void clip_coefficient(const double* squares, int64_t count, DType loss_dtype, const void* loss, double* scalars) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    RECKON_COUNT_VECTOR(1);
    sum += squares[i];
  }
  RECKON_COUNT_VECTOR(2);  // root and ratio
  const double norm = std::sqrt(sum) * std::abs(scalars[kGradScale]), limit = scalars[kMaxNorm];
  scalars[kGradNorm] = norm;
  scalars[kClip] = (limit == 0 ? 1.0 : std::min(1.0, limit / (norm + 1e-6))) * scalars[kGradScale];
  scalars[kOk] = std::isfinite(norm) && (!loss || std::isfinite(load_float(loss_dtype, loss, 0)));
}

void split_master(const float* master, void* p, uint16_t* residual, int64_t n) {
  parallel_range(n, kTaskElements, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const uint32_t bits = std::bit_cast<uint32_t>(master[i]);
      static_cast<uint16_t*>(p)[i] = uint16_t((bits + 0x8000u) >> 16);
      residual[i] = uint16_t(bits);
    }
  });
}

void join_master(const void* p, const uint16_t* residual, float* master, int64_t n) {
  parallel_range(n, kTaskElements, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const uint32_t high = uint32_t(static_cast<const uint16_t*>(p)[i]) - (residual[i] >> 15);
      master[i] = std::bit_cast<float>(high << 16 | residual[i]);
    }
  });
}
}  // namespace reckon::cpu
#endif
