// backend/cpu/optimizer: every array is read and written once, by the rules of optimizer_rules-inl.h, with states in float32.
#include "reckon/backend/cpu/optimizer.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/optimizer.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/optimizer_rules-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
// FLOPs a parameter, as docs/flops.md has them.
[[maybe_unused]] constexpr int cost_of(Optimizer kind) {
  switch (kind) {
    case Optimizer::sgd:
      return 4;
    case Optimizer::momentum:
      return 6;
    case Optimizer::nesterov:
    case Optimizer::adagrad:
      return 8;
    case Optimizer::adamw:
      return 16;
    default:
      return 11 + 6 * is_centered(kind) + 2 * has_velocity(kind);
  }
}

/// The arrays of one step from some element on; those that the optimizer does not have stay null.
struct Arrays {
  WeightArrays weights;
  const float* g = nullptr;
  float *m = nullptr, *v = nullptr, *mean = nullptr;
};

// One whole vector.
template <Optimizer kind, Weights weights>
HWY_INLINE void step_vector(const Factors& f, const Arrays& a, int64_t i) {
  constexpr bool has_m = kind == Optimizer::adamw || has_velocity(kind),
                 has_v = kind == Optimizer::adamw || kind == Optimizer::adagrad || is_rmsprop(kind);
  const D d;
  Moments s{zero(), zero(), zero()};
  if constexpr (has_m) s.m = hn::LoadU(d, a.m + i);
  if constexpr (has_v) s.v = hn::LoadU(d, a.v + i);
  if constexpr (is_centered(kind)) s.mean = hn::LoadU(d, a.mean + i);
  store_weights<weights>(update<kind>(f, load_weights<weights>(a.weights, i), hn::LoadU(d, a.g + i), s), a.weights, i);
  if constexpr (has_m) hn::StoreU(s.m, d, a.m + i);
  if constexpr (has_v) hn::StoreU(s.v, d, a.v + i);
  if constexpr (is_centered(kind)) hn::StoreU(s.mean, d, a.mean + i);
}

// The last, partial vector: copied into whole ones and back.
template <Optimizer kind, Weights weights>
void step_rest(const Factors& f, const Arrays& a, int64_t i, int64_t n) {
  constexpr int64_t kMax = hn::MaxLanes(D());
  HWY_ALIGN float p[kMax] = {}, g[kMax] = {}, m[kMax] = {}, v[kMax] = {}, mean[kMax] = {};
  HWY_ALIGN uint16_t high[kMax] = {}, low[kMax] = {}, noise[kMax] = {};
  const WeightArrays& w = a.weights;
  const auto copy = [n](void* to, const void* from, size_t bytes) { std::memcpy(to, from, size_t(n) * bytes); };
  if (w.p) copy(p, w.p + i, 4);
  if (w.high) copy(high, w.high + i, 2);
  if (w.low) copy(low, w.low + i, 2);
  if (w.noise) copy(noise, w.noise + (i - w.noise_begin), 2);
  copy(g, a.g + i, 4);
  if (a.m) copy(m, a.m + i, 4);
  if (a.v) copy(v, a.v + i, 4);
  if (a.mean) copy(mean, a.mean + i, 4);
  step_vector<kind, weights>(f, {{p, high, low, noise, 0}, g, m, v, mean}, 0);
  if (w.p) copy(w.p + i, p, 4);
  if (w.high) copy(w.high + i, high, 2);
  if (w.low) copy(w.low + i, low, 2);
  if (a.m) copy(a.m + i, m, 4);
  if (a.v) copy(a.v + i, v, 4);
  if (a.mean) copy(a.mean + i, mean, 4);
}

template <Optimizer kind, Weights weights>
void step_part(const OptimizerStep& a, int64_t begin, int64_t end) {
  const Factors f = factors(a);
  const int64_t N = lanes();
  for_noise<weights>(a, begin, end, [&](const WeightArrays& w, int64_t from, int64_t to) RECKON_VEC {
    const Arrays arrays{w, static_cast<const float*>(a.g), static_cast<float*>(a.m), static_cast<float*>(a.v), static_cast<float*>(a.mean)};
    RECKON_COUNT_VECTOR((cost_of(kind) + a.coupled + rounding_cost<weights>()) * (to - from));
    int64_t i = from;
    for (; i + N <= to; i += N) step_vector<kind, weights>(f, arrays, i);
    if (i < to) step_rest<kind, weights>(f, arrays, i, to - i);
  });
}

template <Optimizer kind>
void step_part(const OptimizerStep& a, int64_t begin, int64_t end) {
  switch (weights_of(a)) {
    case Weights::single:
      return step_part<kind, Weights::single>(a, begin, end);
    case Weights::planes:
      return step_part<kind, Weights::planes>(a, begin, end);
    case Weights::copied:
      return step_part<kind, Weights::copied>(a, begin, end);
    case Weights::rounded:
      return step_part<kind, Weights::rounded>(a, begin, end);
  }
}

void optimizer_part(const OptimizerStep& a, int64_t begin, int64_t end) {
  switch (a.kind) {
    case Optimizer::adamw:
      return step_part<Optimizer::adamw>(a, begin, end);
    case Optimizer::sgd:
      return step_part<Optimizer::sgd>(a, begin, end);
    case Optimizer::momentum:
      return step_part<Optimizer::momentum>(a, begin, end);
    case Optimizer::adagrad:
      return step_part<Optimizer::adagrad>(a, begin, end);
    case Optimizer::nesterov:
      return step_part<Optimizer::nesterov>(a, begin, end);
    case Optimizer::rmsprop:
      return step_part<Optimizer::rmsprop>(a, begin, end);
    case Optimizer::rmsprop_momentum:
      return step_part<Optimizer::rmsprop_momentum>(a, begin, end);
    case Optimizer::rmsprop_centered:
      return step_part<Optimizer::rmsprop_centered>(a, begin, end);
    case Optimizer::rmsprop_centered_momentum:
      return step_part<Optimizer::rmsprop_centered_momentum>(a, begin, end);
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

// What is divided by, after the step of v and mean.
double rmsprop_root(const OptimizerStep& a, int64_t i, double g) {
  const double beta2 = a.scalars[kBeta2];
  double &v = static_cast<double*>(a.v)[i], variance = v = beta2 * v + (1 - beta2) * g * g;
  if (a.mean) {
    double& mean = static_cast<double*>(a.mean)[i];
    mean = beta2 * mean + (1 - beta2) * g;
    variance = std::max(variance - mean * mean, 0.0);
  }
  return std::sqrt(variance) + a.scalars[kEpsilon];
}

void optimizer_part_f64(const OptimizerStep& a, int64_t begin, int64_t end) {
  const double* s = a.scalars;
  const double lr = s[kLearningRate] * a.lr_scale, beta1 = s[kBeta1], beta2 = s[kBeta2], eps = s[kEpsilon];
  double *p = static_cast<double*>(a.p), *m = static_cast<double*>(a.m), *v = static_cast<double*>(a.v);
  for (int64_t i = begin; i < end; ++i) {
    RECKON_COUNT_VECTOR(HWY_STATIC_DISPATCH(cost_of)(a.kind) + a.coupled);
    double g = static_cast<const double*>(a.g)[i] * s[kClip], weight = p[i];
    if (a.coupled) {
      g += a.weight_decay * weight;
    } else {
      weight *= 1 - lr * a.weight_decay;
    }
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
      case Optimizer::nesterov:
        m[i] = beta1 * m[i] + g;
        weight -= lr * (g + beta1 * m[i]);
        break;
      case Optimizer::adagrad:
        v[i] += g * g;
        weight -= lr * g / (std::sqrt(v[i]) + eps);
        break;
      case Optimizer::rmsprop:
      case Optimizer::rmsprop_centered:
        weight -= lr * g / rmsprop_root(a, i, g);
        break;
      case Optimizer::rmsprop_momentum:
      case Optimizer::rmsprop_centered_momentum:
        m[i] = beta1 * m[i] + g / rmsprop_root(a, i, g);
        weight -= lr * m[i];
        break;
    }
    p[i] = weight;
  }
}
}  // namespace

void optimizer_step(const OptimizerStep& a) {
  RECKON_ASSERT(is_float(a.dtype) && (a.dtype != DType::f16 || a.master || a.n == 0));
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
  const double scale = scalars[kLossScale], norm = std::sqrt(sum) / scale, limit = scalars[kMaxNorm];
  const bool ok = std::isfinite(norm) && (!loss || std::isfinite(load_float(loss_dtype, loss, 0)));
  scalars[kGradNorm] = norm;
  scalars[kClip] = (limit == 0 ? 1.0 : std::min(1.0, limit / (norm + 1e-6))) / scale;
  scalars[kOk] = ok;
  scalars[kUsedScale] = scale;
  if (scalars[kGrowthInterval] == 0) return;
  scalars[kGoodSteps] = ok ? scalars[kGoodSteps] + 1 : 0;
  if (!ok) scalars[kLossScale] = std::max(kSmallestLossScale, scale / 2);
  if (scalars[kGoodSteps] < scalars[kGrowthInterval]) return;
  scalars[kLossScale] = scale * 2;
  scalars[kGoodSteps] = 0;
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
