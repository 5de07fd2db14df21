// train/optimizer: one fused pass per bucket, by the trainer or by a loop of one's own. Knows no model and no file.
#pragma once
#include "reckon/nn/parameters.h"
#include "reckon/train/config.h"
#include "reckon/train/parameter_groups.h"
#include "reckon/train/schedule.h"

namespace reckon {
struct OptimizerParams;

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
/// Bytes of state for each parameter that is not float64; float32 ones, but for the large parameters of adamw8bit.
double state_bytes(const OptimConfig& config);

/// Any rule of OptimizerKind over flat buckets, with weight decay on matrices and embeddings. A parameter whose gradient is empty (nothing
/// came since zero_grad()) is not stepped: value, state and the norm are as if it were not there, as in PyTorch for grad None.
///
/// A loop of one's own, where optim.schedule plays no part unless the loop asks it (learning_rate in train/schedule.h), and nothing scales
/// the rate by optim.lr_scaling unless it does (batch_factor there):
///   Optimizer optimizer(device, parameters, {.name = OptimizerKind::adamw, .lr = 3e-4, .clip_norm = 1});
///   for (...) { parameters.zero_grad(); backward(loss_of(batch)); optimizer.step(); }
class Optimizer {
 public:
  /// State is one tensor per bucket and kind, zero at the start: none for sgd, "momentum" (momentum, nesterov), "sum_of_squares" (adagrad),
  /// "mean_square" and, if centered, "mean" and, if it has momentum, "velocity" (rmsprop), "m" and "v" (adam, adamw, lamb, adamw8bit). In
  /// quantized buckets these are u8, followed by "m_scale" and "v_scale", f32 for each kStateBlock elements; other buckets have no such
  /// tensors.
  struct State {
    std::string name;
    std::vector<Tensor> buckets;
    /// The part that belongs to a parameter, in its shape; scales have one axis. Undefined if its bucket has none.
    Tensor of(const Parameter& parameter) const;
  };
  /// seed: of stochastic rounding, for bf16 parameters without master weights. Throws Error (usage) as validate(config) does, and if a
  /// group of config.groups matches no parameter, or none that is left over by those before it.
  Optimizer(Device& device, Parameters& parameters, const OptimConfig& config, const LossScaling& scaling = {}, uint64_t seed = 0);

  /// One update with the gradients that are there: learning rate lr(), bias corrections of step number steps(), clipped to clip_norm; then
  /// counts the step. Skipped on the device, and counted, if the gradient norm is not finite: see outcome(). May stand in a planned or
  /// compiled step: what a real device rehearses is not counted.
  void step();
  double lr() const { return lr_; }
  /// Of the next step() and those after it; config.lr before the first call.
  void set_lr(double lr);
  int64_t steps() const { return steps_; }
  /// Parameters by name with factors on learning rate and weight decay; the first group that matches counts. A run of neighbours of one
  /// group is one call. Throws Error (usage) if a group matches no parameter, or none that is left over by the groups before it.
  void set_groups(std::vector<ParameterGroup> groups);

  /// By name, sorted.
  using StateDict = std::vector<std::pair<std::string, Tensor>>;
  /// What step() goes on from but for the learning rate, lr(), which a loop sets itself: "m.blocks.0.attn.qkv.weight" in the parameter's
  /// shape, "residual." and "master." of 16-bit parameters, "step" f64 [], "loss_scale" f64 [kScaleScalars] if there is one. Views: the
  /// next step changes them, but for "step".
  StateDict state_dict() const;
  /// Copies such a dictionary's tensors into the state. Throws Error, before anything is changed, for names that are missing, unknown or
  /// there twice, for other shapes or dtypes, for tensors without data, and for a "step" that is no whole number from 0 to 2^53. To be
  /// loaded after the model: nn::Module::load_state_dict() rounds values and writes the "residual." and "master." planes anew.
  void load_state_dict(const StateDict& dict);

  // ---- For the trainer, which numbers the steps and has a loss.
  /// Fills the host copy of step_scalars for this step: everything a step changes.
  void write_scalars(int64_t step, int64_t total_steps) const;
  /// Gradient norm, ok flag and the next loss scale, then the update: one call a bucket, or one for each run of parameters that have a
  /// gradient; lamb makes two. Skipped on the device if loss or norm is not finite.
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
  /// What a checkpoint keeps of each parameter besides its values, in the order of parameters.
  StateDict planes() const;
  const Tensor& scalars() const { return scalars_; }
  /// f64 []: what the next step's loss is to be multiplied by.
  Tensor loss_scale() const;
  /// f64 [kScaleScalars]: the loss scale and its count of good steps, as a checkpoint keeps them.
  Tensor scale_state() const;

 private:
  // A parameter's place in its bucket.
  struct Place {
    int64_t begin, end;
    int group;
  };
  using Run = Parameters::GradientRun;
  void write(double lr, int64_t step) const;
  std::vector<Run> parts_of(const Run& run) const;
  void step_part(const Run& part) const;
  void step_lamb(const Run& part, const OptimizerParams& params) const;
  OptimizerParams params_of(const Run& part) const;
  size_t place_of(const Run& part) const;

  Parameters& parameters_;
  const OptimConfig config_;
  const LossScaling scaling_;
  const uint64_t seed_;
  const bool on_meta_;  // where no step ever has data; Device::is_meta() holds in rehearsals too
  double lr_;
  int64_t steps_ = 0;
  std::vector<ParameterGroup> groups_;
  std::vector<std::vector<Place>> places_;  // of each bucket's parameters, in order
  Tensor scalars_;                          // f64 [kStepScalars]
  std::vector<Tensor> starts_;              // lamb: i64 [parameters + 1] of each bucket, where they begin and the last ends
  std::vector<State> states_;
};
}  // namespace reckon
