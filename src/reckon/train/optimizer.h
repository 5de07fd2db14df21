// train/optimizer: one fused pass per bucket, and the learning rate of each step.
#pragma once
#include "reckon/nn/parameters.h"
#include "reckon/train/config.h"

namespace reckon {

/// Learning rate of optimizer step `step` (0-based) of `total`: linear warm-up, then constant or cosine down to min_lr_ratio * lr.
double learning_rate(const OptimConfig& config, int64_t step, int64_t total);

/// SGD, momentum, AdaGrad or AdamW over flat buckets, with decoupled weight decay on matrices and embeddings. A parameter whose gradient is
/// empty (nothing came since zero_grad()) is not stepped: value, state and the norm are as if it were not there, as in PyTorch for grad None.
class Optimizer {
 public:
  /// State is one tensor per bucket and kind, zero at the start: none for sgd, "momentum", "sum_of_squares" (adagrad), "m" and "v" (adamw).
  struct State {
    std::string name;
    std::vector<Tensor> buckets;
  };
  Optimizer(Device& device, Parameters& parameters, const OptimConfig& config);

  /// Fills the host copy of step_scalars for this step: everything a step changes.
  void write_scalars(int64_t step, int64_t total_steps) const;
  /// Gradient norm and ok flag, then the update: one call a bucket, or one for each run of parameters that have a gradient. Skipped on the
  /// device if loss or norm is not finite.
  void step(const Tensor& loss) const;
  /// What clip wrote at the last step: zeros on meta.
  struct Outcome {
    double grad_norm = 0;
    bool updated = true;
  };
  Outcome outcome() const;

  std::vector<State>& states() { return states_; }
  const Tensor& scalars() const { return scalars_; }

 private:
  Parameters& parameters_;
  const OptimConfig config_;
  Tensor scalars_;  // f64 [kStepScalars]
  std::vector<State> states_;
};
}  // namespace reckon
