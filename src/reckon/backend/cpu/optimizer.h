// backend/cpu/optimizer: one update step over a flat bucket of parameters. What changes from step to step is read from an array of scalars,
// so that a recorded step can be replayed.
#pragma once
#include <cstdint>

#include "reckon/ops/step_scalars.h"
#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// rmsprop is four rules: what is divided by is a mean square or, if centered, a variance, and the quotient may go into a velocity.
enum class Optimizer : uint8_t {
  adamw,
  sgd,
  momentum,
  adagrad,
  nesterov,
  rmsprop,
  rmsprop_momentum,
  rmsprop_centered,
  rmsprop_centered_momentum
};

/// Weights of a bucket that draw their rounding from consecutive Philox blocks, 8 from each. No bit depends on which of them a call steps.
inline constexpr int64_t kNoiseBlock = 256;

/// With g = stored gradient * clip, lr = learning rate * lr_scale, and first p *= 1 - lr * weight_decay (decoupled) or, if coupled,
/// g += weight_decay * p:
///   adamw:    m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, p -= lr (m / bias1) / (sqrt(v / bias2) + eps)
///   sgd:      p -= lr g
///   momentum: m = beta1 m + g, p -= lr m
///   nesterov: m = beta1 m + g, p -= lr (g + beta1 m)
///   adagrad:  v += g^2, p -= lr g / (sqrt(v) + eps)
///   rmsprop:  v = beta2 v + (1 - beta2) g^2, p -= lr g / (sqrt(v) + eps)
///     centered: mean = beta2 mean + (1 - beta2) g, and max(v - mean^2, 0) in place of v below the root
///     momentum: m = beta1 m + g / (...), p -= lr m
/// Loshchilov & Hutter 2019, arXiv:1711.05101; otherwise as in PyTorch, whose Adam is the coupled adamw.
///
/// p is f32, f64, or a 16-bit working copy of float32 master weights, whose update is the float32 one, bit for bit. Together with a
/// residual plane a bf16 p is the master: p the upper half of its bits rounded half away ((bits + 0x8000) >> 16), the residual the lower
/// half. A float16 has other exponents, so an f16 p is the master's rounding, to nearest even, and the master has an array of its own.
/// A bf16 p without a residual plane is all there is of the weight: the updated float32 is rounded stochastically, up with the probability
/// of the bits that are cut off, so that updates below a rounding's half are not lost. Its draws are keyed by the step's noise key, bucket
/// and place in the bucket alone (Philox, 16 bits a weight). Gradients and states are f32 (f64 for f64 parameters).
struct OptimizerStep {
  Optimizer kind = Optimizer::adamw;
  DType dtype = DType::f32;  // of p: f32, f64, bf16 or f16
  int64_t n = 0;
  void* p = nullptr;             // [n]
  uint16_t* residual = nullptr;  // [n], bf16 only
  float* master = nullptr;       // [n], f16 only
  const void* g = nullptr;       // [n]
  void* m = nullptr;             // [n], adamw, and what has momentum
  void* v = nullptr;             // [n], adamw, adagrad and rmsprop
  void* mean = nullptr;          // [n], centered rmsprop
  double weight_decay = 0;
  double lr_scale = 1;
  bool coupled = false;
  int64_t first = 0;                // place of element 0 in its bucket, a multiple of 32
  uint64_t bucket = 0;              // part of the key
  const double* scalars = nullptr;  // [kStepScalars]
};
void optimizer_step(const OptimizerStep& args);

/// norm = sqrt(sum of squares[0..count)) / loss scale; writes kGradNorm, kClip, kOk and kUsedScale. loss is a float [1]; null: taken as
/// finite. With a growth interval the scale then follows the step: it halves, down to kSmallestLossScale, if norm or loss is not finite,
/// and doubles after so many good steps. Micikevicius et al. 2018, arXiv:1710.03740.
void clip_coefficient(const double* squares, int64_t count, DType loss_dtype, const void* loss, double* scalars);

/// Splits float32 weights into the two planes of a bf16 bucket, and joins them again, exactly.
void split_master(const float* master, void* p, uint16_t* residual, int64_t n);
void join_master(const void* p, const uint16_t* residual, float* master, int64_t n);
}  // namespace reckon::cpu
