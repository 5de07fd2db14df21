// train/optimizer: one fused pass per bucket, and the learning rate of each step.
#pragma once
#include "reckon/nn/parameters.h"
#include "reckon/train/config.h"

namespace reckon {

/// Learning rate of optimizer step `step` (0-based) of `total`: linear warm-up, then constant or cosine down to min_lr_ratio * lr.
double learning_rate(const OptimConfig& config, int64_t step, int64_t total);

/// What the loss is multiplied by before backward, so that small gradients stay above the smallest float16. It is unscaled with clipping.
struct LossScaling {
  double start = 1;
  int64_t growth_interval = 0;  // good steps after which it doubles, a bad one halves it; 0: it stays
};
/// None but for fp16.
LossScaling loss_scaling(const TrainConfig& config);

/// With optim.name=adamw8bit, parameters of so many elements or more have 8-bit states; smaller ones would hardly save anything.
inline constexpr int64_t kSmallest8bit = 4096;
/// How parameters that this optimizer steps are to be stored (StorageOptions::quantized_from).
int64_t quantized_from(OptimizerKind kind);

/// SGD, momentum, AdaGrad or AdamW over flat buckets, with decoupled weight decay on matrices and embeddings. A parameter whose gradient is
/// empty (nothing came since zero_grad()) is not stepped: value, state and the norm are as if it were not there, as in PyTorch for grad None.
class Optimizer {
 public:
  /// State is one tensor per bucket and kind, zero at the start: none for sgd, "momentum", "sum_of_squares" (adagrad), "m" and "v" (adamw,
  /// adamw8bit). In quantized buckets these are u8, followed by "m_scale" and "v_scale", f32 for each kStateBlock elements; other buckets
  /// have no such tensors.
  struct State {
    std::string name;
    std::vector<Tensor> buckets;
    /// The part that belongs to a parameter, in its shape; scales have one axis. Undefined if its bucket has none.
    Tensor of(const Parameter& parameter) const;
  };
  /// seed: of stochastic rounding, for bf16 parameters without master weights.
  Optimizer(Device& device, Parameters& parameters, const OptimConfig& config, const LossScaling& scaling = {}, uint64_t seed = 0);

  /// Fills the host copy of step_scalars for this step: everything a step changes.
  void write_scalars(int64_t step, int64_t total_steps) const;
  /// Gradient norm, ok flag and the next loss scale, then the update: one call a bucket, or one for each run of parameters that have a
  /// gradient. Skipped on the device if loss or norm is not finite.
  void step(const Tensor& loss) const;
  /// What clip wrote at the last step: zeros on meta.
  struct Outcome {
    double grad_norm = 0;
    bool updated = true;
    double loss_scale = 1;  // that the gradients were made with
    bool rescaled = false;  // not updated, and the next step has a smaller loss scale
  };
  Outcome outcome() const;

  std::vector<State>& states() { return states_; }
  const Tensor& scalars() const { return scalars_; }
  /// f64 []: what the next step's loss is to be multiplied by.
  Tensor loss_scale() const;
  /// f64 [kScaleScalars]: the loss scale and its count of good steps, as a checkpoint keeps them.
  Tensor scale_state() const;

 private:
  Parameters& parameters_;
  const OptimConfig config_;
  const LossScaling scaling_;
  const uint64_t seed_;
  Tensor scalars_;  // f64 [kStepScalars]
  std::vector<State> states_;
};
}  // namespace reckon
