// backend/cpu/optimizer_lamb: both passes go over slices of a parameter tensor; the second makes the update again from the moments, which
// moves fewer bytes than keeping it.
#include "reckon/backend/cpu/optimizer_lamb.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/optimizer_lamb.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/optimizer_rules-inl.h"
#include "reckon/ops/state_blocks.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
static_assert(kPlaceAlignment % hn::MaxLanes(D()) == 0, "slices are whole vectors");
constexpr int kMomentsCost = 19, kStepCost = 9;  // FLOPs a parameter, as docs/flops.md has them

// What the weights move along, but for the sign: the same bits in both passes.
HWY_INLINE V direction(const Factors& f, V unbias, V p, V m, V v) {
  return hn::MulAdd(f.l2, p, hn::Div(hn::Mul(unbias, m), hn::MulAdd(hn::Sqrt(v), f.root, f.eps)));
}
HWY_INLINE V unbias_of(const OptimizerStep& a) { return set(float(1 / a.scalars[kBiasFactor1])); }

// The sum of the squares of floats, in double, without a way through memory.
struct Squares {
  using DD = hn::ScalableTag<double>;
  hn::Vec<DD> low, high;
  HWY_INLINE void add(V x) {
#if HWY_TARGET == HWY_SCALAR
    const auto wide = hn::PromoteTo(DD(), x);
    low = hn::MulAdd(wide, wide, low);
#else
    const hn::Half<D> half;
    const auto a = hn::PromoteTo(DD(), hn::LowerHalf(half, x)), b = hn::PromoteTo(DD(), hn::UpperHalf(half, x));
    low = hn::MulAdd(a, a, low);
    high = hn::MulAdd(b, b, high);
#endif
  }
  HWY_INLINE double sum() const { return hn::GetLane(hn::SumOfLanes(DD(), hn::Add(low, high))); }
};

template <Weights kind>
void moments_part(const OptimizerStep& a, int64_t begin, int64_t end, double* sums) {
  const Factors f = factors(a);
  const V unbias = unbias_of(a);
  const WeightArrays weights = weight_arrays(a);
  const float* g = static_cast<const float*>(a.g);
  float *m = static_cast<float*>(a.m), *v = static_cast<float*>(a.v);
  const int64_t N = lanes();
  RECKON_COUNT_VECTOR(kMomentsCost * (end - begin));
  const auto none = hn::Zero(Squares::DD());
  Squares p_squares{none, none}, u_squares{none, none};
  for (int64_t i = begin; i < end; i += N) {
    const V p = load_weights<kind>(weights, i), gradient = hn::Mul(hn::LoadU(D(), g + i), f.clip);
    const V m_new = hn::MulAdd(f.beta1, hn::LoadU(D(), m + i), hn::Mul(f.rest1, gradient));
    const V v_new = hn::MulAdd(f.beta2, hn::LoadU(D(), v + i), hn::Mul(hn::Mul(f.rest2, gradient), gradient));
    hn::StoreU(m_new, D(), m + i);
    hn::StoreU(v_new, D(), v + i);
    p_squares.add(p);
    u_squares.add(direction(f, unbias, p, m_new, v_new));
  }
  sums[0] = p_squares.sum();  // once: the sums of other slices are in the same line of the cache
  sums[1] = u_squares.sum();
}

template <Weights kind>
void weights_part(const OptimizerStep& a, int64_t begin, int64_t end, double ratio) {
  const Factors f = factors(a);
  const V unbias = unbias_of(a), rate = set(float(a.scalars[kLearningRate] * a.lr_scale * ratio));
  const float *m = static_cast<const float*>(a.m), *v = static_cast<const float*>(a.v);
  const int64_t N = lanes();
  for_noise<kind>(a, begin, end, [&](const WeightArrays& weights, int64_t from, int64_t to) RECKON_VEC {
    RECKON_COUNT_VECTOR((kStepCost + rounding_cost<kind>()) * (to - from));
    for (int64_t i = from; i < to; i += N) {
      const V p = load_weights<kind>(weights, i), u = direction(f, unbias, p, hn::LoadU(D(), m + i), hn::LoadU(D(), v + i));
      store_weights<kind>(hn::NegMulAdd(rate, u, p), weights, i);
    }
  });
}

void lamb_moments_part(const OptimizerStep& a, int64_t begin, int64_t end, double* sums) {
  switch (weights_of(a)) {
    case Weights::single:
      return moments_part<Weights::single>(a, begin, end, sums);
    case Weights::planes:
      return moments_part<Weights::planes>(a, begin, end, sums);
    case Weights::copied:
      return moments_part<Weights::copied>(a, begin, end, sums);
    case Weights::rounded:
      return moments_part<Weights::rounded>(a, begin, end, sums);
  }
}

void lamb_weights_part(const OptimizerStep& a, int64_t begin, int64_t end, double ratio) {
  switch (weights_of(a)) {
    case Weights::single:
      return weights_part<Weights::single>(a, begin, end, ratio);
    case Weights::planes:
      return weights_part<Weights::planes>(a, begin, end, ratio);
    case Weights::copied:
      return weights_part<Weights::copied>(a, begin, end, ratio);
    case Weights::rounded:
      return weights_part<Weights::rounded>(a, begin, end, ratio);
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
HWY_EXPORT(lamb_moments_part);
HWY_EXPORT(lamb_weights_part);

double direction_f64(const OptimizerStep& a, int64_t i, double p) {
  const double* s = a.scalars;
  const double m = static_cast<const double*>(a.m)[i], v = static_cast<const double*>(a.v)[i];
  return (m / s[kBiasFactor1]) / (std::sqrt(v / s[kBiasFactor2]) + s[kEpsilon]) + a.weight_decay * p;
}
void lamb_moments_part_f64(const OptimizerStep& a, int64_t begin, int64_t end, double* sums) {
  const double *s = a.scalars, *p = static_cast<const double*>(a.p);
  double *m = static_cast<double*>(a.m), *v = static_cast<double*>(a.v);
  sums[0] = sums[1] = 0;
  for (int64_t i = begin; i < end; ++i) {
    RECKON_COUNT_VECTOR(HWY_STATIC_DISPATCH(kMomentsCost));
    const double g = static_cast<const double*>(a.g)[i] * s[kClip];
    m[i] = s[kBeta1] * m[i] + (1 - s[kBeta1]) * g;
    v[i] = s[kBeta2] * v[i] + (1 - s[kBeta2]) * g * g;
    const double u = direction_f64(a, i, p[i]);
    sums[0] += p[i] * p[i];
    sums[1] += u * u;
  }
}
void lamb_weights_part_f64(const OptimizerStep& a, int64_t begin, int64_t end, double ratio) {
  double* p = static_cast<double*>(a.p);
  for (int64_t i = begin; i < end; ++i) {
    RECKON_COUNT_VECTOR(HWY_STATIC_DISPATCH(kStepCost));
    p[i] -= a.scalars[kLearningRate] * a.lr_scale * ratio * direction_f64(a, i, p[i]);
  }
}

// Slices of kTaskElements that begin with each parameter, numbered through. A parameter may have fewer than it has numbers, so that the
// first number of each is known without those before it.
class ParameterSlices {
 public:
  explicit ParameterSlices(const LambStep& l) : l_(l) {
    RECKON_ASSERT(l.step.n == (l.parameters > 0 ? l.places[l.parameters] - l.places[0] : 0));
  }
  static int64_t count(int64_t n, int64_t parameters) { return n / kTaskElements + parameters; }
  int64_t first(int64_t parameter) const { return (l_.places[parameter] - l_.places[0]) / kTaskElements + parameter; }
  int64_t of(int64_t parameter) const { return (l_.places[parameter + 1] - l_.places[parameter] + kTaskElements - 1) / kTaskElements; }
  /// body(parameter, slice, begin, end), elements of the run.
  template <class Body>
  void for_each(Body body) const {
    parallel_for(count(l_.step.n, l_.parameters), [&](int64_t slice) {
      int64_t low = 0, high = l_.parameters;  // the last parameter whose first slice is not behind this one
      while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        (first(middle) <= slice ? low : high) = middle;
      }
      const int64_t begin = l_.places[low] - l_.places[0] + (slice - first(low)) * kTaskElements, end = l_.places[low + 1] - l_.places[0];
      if (begin < end) body(low, slice, begin, std::min(begin + kTaskElements, end));
    });
  }

 private:
  const LambStep& l_;
};

double trust_ratio(const LambStep& l, double p_squares, double u_squares) {
  RECKON_COUNT_VECTOR(5);
  const double phi = std::min(std::max(std::sqrt(p_squares), l.phi_low), l.phi_high), norm = std::sqrt(u_squares);
  return p_squares > 0 && norm > 0 ? phi / norm : 1;  // before it is clamped: phi_low does not make a norm of 0 another one
}
}  // namespace

int64_t lamb_workspace(int64_t n, int64_t parameters) { return ParameterSlices::count(n, parameters) * 2 * int64_t(sizeof(double)); }

void lamb_moments(const LambStep& l, void* workspace) {
  const OptimizerStep& a = l.step;
  if (a.scalars[kOk] == 0) {
    std::fill(l.ratios, l.ratios + l.parameters, 1.0);
    return;
  }
  const ParameterSlices slices(l);
  double* sums = static_cast<double*>(workspace);  // [slices, 2]
  slices.for_each([&](int64_t, int64_t slice, int64_t begin, int64_t end) {
    if (a.dtype == DType::f64) return lamb_moments_part_f64(a, begin, end, sums + 2 * slice);
    HWY_DYNAMIC_DISPATCH(lamb_moments_part)(a, begin, end, sums + 2 * slice);
  });
  for (int64_t i = 0; i < l.parameters; ++i) {
    double p = 0, u = 0;
    for (int64_t s = slices.first(i); s < slices.first(i) + slices.of(i); ++s) p += sums[2 * s], u += sums[2 * s + 1];
    l.ratios[i] = trust_ratio(l, p, u);
  }
}

void lamb_step(const LambStep& l) {
  const OptimizerStep& a = l.step;
  if (a.scalars[kOk] == 0) return;
  ParameterSlices(l).for_each([&](int64_t parameter, int64_t, int64_t begin, int64_t end) {
    if (a.dtype == DType::f64) return lamb_weights_part_f64(a, begin, end, l.ratios[parameter]);
    HWY_DYNAMIC_DISPATCH(lamb_weights_part)(a, begin, end, l.ratios[parameter]);
  });
}
}  // namespace reckon::cpu
#endif
