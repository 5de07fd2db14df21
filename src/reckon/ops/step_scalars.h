// ops/step_scalars: the places of a small tensor that a step reads instead of parameters, so that a recorded step can be replayed.
#pragma once

namespace reckon {

/// Layout of the f64 array of everything that changes from one step to the next. The host writes the first group before a step; op::clip writes
/// the second.
enum StepScalar : int {
  kLearningRate,
  kBeta1,        // adamw; the momentum of `momentum`
  kBeta2,        // adamw
  kBiasFactor1,  // 1 - beta1^t
  kBiasFactor2,  // 1 - beta2^t
  kEpsilon,      // adamw, adagrad
  kMaxNorm,      // 0: no clipping
  kGradScale,    // true gradient = stored gradient * this: 1 / loss scale, or 1
  kGradNorm,     // out: norm of the true gradient
  kClip,         // out: factor on the stored gradient: min(1, max_norm / (norm + 1e-6)) * grad_scale
  kOk,           // out: 1 if norm and loss are finite, else 0: the step is skipped and every byte stays as it was
  kStepScalars
};
}  // namespace reckon
