// backend/cpu/optimizer_rules-inl: what a step does to one vector of weights, and where float32 weights come from: an array, two 16-bit
// planes, or the master of a float16 copy. It knows neither how states are stored nor how work is cut.
#if defined(RECKON_BACKEND_CPU_OPTIMIZER_RULES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RECKON_BACKEND_CPU_OPTIMIZER_RULES_INL_H_
#undef RECKON_BACKEND_CPU_OPTIMIZER_RULES_INL_H_
#else
#define RECKON_BACKEND_CPU_OPTIMIZER_RULES_INL_H_
#endif

#include "reckon/backend/cpu/optimizer.h"
#include "reckon/backend/cpu/vec-inl.h"
#include "reckon/backend/cpu/vec_random-inl.h"

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

/// Where the float32 weights of a step are: in one array, in two planes, in an array beside their float16 copy, or nowhere but in bfloat16.
enum class Weights : uint8_t { single, planes, copied, rounded };
inline Weights weights_of(const OptimizerStep& a) {
  if (a.dtype == DType::bf16) return a.residual ? Weights::planes : Weights::rounded;
  return a.dtype == DType::f16 ? Weights::copied : Weights::single;
}

struct WeightArrays {
  float* p = nullptr;                        // single, copied
  uint16_t *high = nullptr, *low = nullptr;  // planes; copied: high is the float16 copy; rounded: high alone
  const uint16_t* noise = nullptr;           // rounded: what is added to the bits of element i is noise[i - noise_begin]
  int64_t noise_begin = 0;
};
HWY_INLINE WeightArrays weight_arrays(const OptimizerStep& a) {
  if (a.dtype == DType::bf16) return {nullptr, static_cast<uint16_t*>(a.p), a.residual};
  if (a.dtype == DType::f16) return {a.master, static_cast<uint16_t*>(a.p), nullptr};
  return {static_cast<float*>(a.p)};
}

/// The noise of a block of weights that are rounded stochastically.
struct Noise {
  HWY_ALIGN uint16_t bits[kNoiseBlock];
  /// Draws for block number `block` of the bucket.
  HWY_INLINE void draw(const OptimizerStep& a, int64_t block) {
    constexpr int64_t kBlocks = kNoiseBlock / 8;
    HWY_ALIGN uint32_t words[kNoiseBlock / 2];
    const uint64_t key = mix_key(uint64_t(a.scalars[kNoiseHigh]) << 32 | uint64_t(a.scalars[kNoiseLow]), a.bucket);
    philox_blocks(key, uint64_t(block * kBlocks), kBlocks, kBlocks, words);
    std::memcpy(bits, words, sizeof bits);
  }
};
/// FLOPs a parameter: half of a random word, and an addition.
template <Weights kind>
constexpr int rounding_cost() {
  return kind == Weights::rounded ? 6 : 0;
}

/// step(weights, begin, end) for parts of [begin, end) that draw from one block of noise; once for all of it if nothing is drawn.
template <Weights kind, class Step>
HWY_INLINE void for_noise(const OptimizerStep& a, int64_t begin, int64_t end, Step step) {
  WeightArrays weights = weight_arrays(a);
  if constexpr (kind != Weights::rounded) {
    step(weights, begin, end);
  } else {
    Noise noise;
    while (begin < end) {
      const int64_t block = (a.first + begin) / kNoiseBlock, next = (block + 1) * kNoiseBlock - a.first, stop = next < end ? next : end;
      noise.draw(a, block);
      weights.noise = noise.bits;
      weights.noise_begin = block * kNoiseBlock - a.first;
      step(weights, begin, stop);
      begin = stop;
    }
  }
}

template <Weights kind>
HWY_INLINE V load_weights(const WeightArrays& a, int64_t i) {
  if constexpr (kind == Weights::planes) {
    return load_master(a.high + i, a.low + i);
  } else if constexpr (kind == Weights::rounded) {
    return load_bf16(a.high + i);
  } else {
    return hn::LoadU(D(), a.p + i);
  }
}
template <Weights kind>
HWY_INLINE void store_weights(V p, const WeightArrays& a, int64_t i) {
  if constexpr (kind == Weights::planes) {
    store_master(p, a.high + i, a.low + i);
  } else if constexpr (kind == Weights::rounded) {
    const auto noise = hn::PromoteTo(DU(), hn::LoadU(D16(), a.noise + (i - a.noise_begin)));
    hn::StoreU(hn::TruncateTo(D16(), hn::ShiftRight<16>(hn::Add(hn::BitCast(DU(), p), noise))), D16(), a.high + i);
  } else {
    hn::StoreU(p, D(), a.p + i);
    if constexpr (kind == Weights::copied) store_f16(p, a.high + i);
  }
}

struct Factors {
  V clip, decay, lr, beta1, rest1, beta2, rest2, step, root, eps;
  V l2;  // coupled: weight decay in place of `decay`
  bool coupled;
};
HWY_INLINE Factors factors(const OptimizerStep& a) {
  const double* s = a.scalars;
  const double lr = s[kLearningRate] * a.lr_scale;
  return {set(float(s[kClip])),      set(float(1 - lr * a.weight_decay)), set(float(lr)),
          set(float(s[kBeta1])),     set(float(1 - s[kBeta1])),           set(float(s[kBeta2])),
          set(float(1 - s[kBeta2])), set(float(lr / s[kBiasFactor1])),    set(float(1 / __builtin_sqrt(s[kBiasFactor2]))),
          set(float(s[kEpsilon])),   set(float(a.weight_decay)),          a.coupled};
}

/// The three states of a rule; it does not touch those that it does not have.
struct Moments {
  V m, v, mean;
};
constexpr bool is_rmsprop(Optimizer k) { return k >= Optimizer::rmsprop; }
constexpr bool is_centered(Optimizer k) { return k == Optimizer::rmsprop_centered || k == Optimizer::rmsprop_centered_momentum; }
constexpr bool has_velocity(Optimizer k) {
  return k == Optimizer::momentum || k == Optimizer::nesterov || k == Optimizer::rmsprop_momentum ||
         k == Optimizer::rmsprop_centered_momentum;
}

template <Optimizer kind>
HWY_INLINE V update_rmsprop(const Factors& f, V p, V g, Moments& s) {
  s.v = hn::MulAdd(f.beta2, s.v, hn::Mul(hn::Mul(f.rest2, g), g));
  V square = s.v;
  if constexpr (is_centered(kind)) {
    s.mean = hn::MulAdd(f.beta2, s.mean, hn::Mul(f.rest2, g));
    square = hn::Max(hn::NegMulAdd(s.mean, s.mean, square), zero());  // rounding may take a variance below 0
  }
  const V root = hn::Add(hn::Sqrt(square), f.eps);
  if constexpr (has_velocity(kind)) {
    s.m = hn::MulAdd(f.beta1, s.m, hn::Div(g, root));
    return hn::NegMulAdd(f.lr, s.m, p);
  } else {
    return hn::Sub(p, hn::Div(hn::Mul(f.lr, g), root));
  }
}

template <Optimizer kind>
HWY_INLINE V update(const Factors& f, V p, V g, Moments& s) {
  V &m = s.m, &v = s.v;
  g = hn::Mul(g, f.clip);
  if (f.coupled) {
    g = hn::MulAdd(f.l2, p, g);
  } else {
    p = hn::Mul(p, f.decay);
  }
  if constexpr (is_rmsprop(kind)) {
    return update_rmsprop<kind>(f, p, g, s);
  } else if constexpr (kind == Optimizer::adamw) {
    m = hn::MulAdd(f.beta1, m, hn::Mul(f.rest1, g));
    v = hn::MulAdd(f.beta2, v, hn::Mul(hn::Mul(f.rest2, g), g));
    return hn::Sub(p, hn::Div(hn::Mul(f.step, m), hn::MulAdd(hn::Sqrt(v), f.root, f.eps)));
  } else if constexpr (kind == Optimizer::sgd) {
    return hn::NegMulAdd(f.lr, g, p);
  } else if constexpr (kind == Optimizer::momentum) {
    m = hn::MulAdd(f.beta1, m, g);
    return hn::NegMulAdd(f.lr, m, p);
  } else if constexpr (kind == Optimizer::nesterov) {
    m = hn::MulAdd(f.beta1, m, g);
    return hn::NegMulAdd(f.lr, hn::MulAdd(f.beta1, m, g), p);
  } else {
    v = hn::MulAdd(g, g, v);
    return hn::Sub(p, hn::Div(hn::Mul(f.lr, g), hn::Add(hn::Sqrt(v), f.eps)));
  }
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
