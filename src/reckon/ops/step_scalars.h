// ops/step_scalars: the places of a small tensor that a step reads instead of parameters, so that a recorded step can be replayed.
#pragma once

namespace reckon {

/// Layout of the f64 array of everything that changes from one step to the next. The host writes the first group before a step, the second
/// once; op::clip changes the second and writes the third.
enum StepScalar : int {
  kLearningRate,
  kBeta1,           // adam, adamw, lamb; the momentum of momentum, nesterov and rmsprop
  kBeta2,           // adam, adamw, lamb; the alpha of rmsprop
  kBiasFactor1,     // 1 - beta1^t
  kBiasFactor2,     // 1 - beta2^t
  kEpsilon,         // all but sgd, momentum and nesterov
  kMaxNorm,         // 0: no clipping
  kGrowthInterval,  // good steps after which the loss scale doubles; 0: it stays as it is
  kNoiseHigh,       // the upper and the lower 32 bits of the key that stochastic rounding draws with in this step
  kNoiseLow,

  kLossScale,  // stored gradient = true gradient * this; a bad step halves it, if there is an interval
  kGoodSteps,  // in a row, since the scale changed

  kGradNorm,   // norm of the true gradient
  kClip,       // factor on the stored gradient: min(1, max_norm / (norm + 1e-6)) / loss scale
  kOk,         // 1 if norm and loss are finite, else 0: the step is skipped and every byte but the loss scale stays as it was
  kUsedScale,  // the loss scale that this step's gradients were made with
  kStepScalars
};
inline constexpr int kHostScalars = kLossScale;    // so many are written before every step
inline constexpr int kScaleScalars = 2;            // kLossScale and kGoodSteps: what a checkpoint keeps
inline constexpr double kSmallestLossScale = 1.0;  // where halving ends: what is not finite then is not the scale's fault
}  // namespace reckon
