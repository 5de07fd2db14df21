// train/step: one optimizer step and one evaluation of a model, as ordinary code on tensors: the same on meta, where no data exists.
#pragma once
#include <memory>

#include "reckon/engine/meter.h"
#include "reckon/nn/decoder.h"
#include "reckon/train/batch.h"
#include "reckon/train/optimizer.h"

namespace reckon {

/// Mean loss (nats per token) of samples 0 .. windows - 1 of a source, in micro-batches, without gradients (phase eval): every sample
/// counts once. train: its fused_loss and sequence_chunk. NaN on meta.
double mean_loss(const Decoder& decoder, TokenBatch& batch, const BatchSource& source, int64_t windows, const TrainConfig& train);

/// Model, parameters, gradients, optimizer state and batch tensors of one run: everything that lives from the first step to the last.
class TrainStep {
 public:
  /// Allocates and initializes all of it (phase init).
  TrainStep(const Config& config, Device& device);
  TrainStep(const TrainStep&) = delete;

  struct Result {
    double loss = 0;        // mean over the step's micro-batches, nats; NaN on meta
    double grad_norm = 0;   // before clipping
    bool updated = true;    // false: loss or gradient norm was not finite and every parameter is as it was
    double loss_scale = 1;  // that the gradients were made with
    bool rescaled = false;  // not updated, and the loss scale fell: the next step may do better
  };
  /// Called at the end of each step, before they are let go, with gradients as the update read them.
  class GradientWatcher {
   public:
    virtual ~GradientWatcher() = default;
    virtual void on_gradients(const Parameters& parameters) = 0;
  };
  GradientWatcher* watcher = nullptr;
  /// Optimizer step `step` (0-based): micro-batches step * grad_accum ..., then one update.
  Result run(int64_t step, const BatchSource& source);
  /// Runs the same step with a finite check after every operation; throws Error naming the first operation and layer that gave a NaN or
  /// infinity. Parameters are not changed. Returns if every single value was finite.
  void find_nonfinite(int64_t step, const BatchSource& source);
  /// Mean loss of samples 0 .. windows - 1 of a source, see mean_loss(). Not for the cruncher, which has none.
  double evaluate(const BatchSource& source, int64_t windows);

  const Config& config() const { return config_; }
  Device& device() { return device_; }
  Parameters& parameters() { return decoder_ ? decoder_->parameters() : cruncher_->parameters(); }
  const Decoder* decoder() const { return decoder_.get(); }
  Optimizer& optimizer() { return *optimizer_; }
  /// Of the layers that multiply in float8; empty but for train.precision=fp8.
  const Float8States& float8_states() const { return decoder_ ? decoder_->float8_states() : cruncher_->float8_states(); }
  int64_t tokens_per_step() const;

 private:
  void allocate();
  void load_batch(int64_t first, const BatchSource& source);
  Tensor loss_seed(const TensorSpec& loss) const;
  Tensor micro_batch();
  Tensor accumulate_gradients(int64_t step, const BatchSource& source);
  void step_float8_scales() const;

  const Config config_;
  Device& device_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<Cruncher> cruncher_;
  std::unique_ptr<Optimizer> optimizer_;
  TokenBatch batch_;
  Tensor inputs_, targets_;  // cruncher: [B, D] and [B, 1] in place of tokens
  Tensor draws_;             // of model.dropout, if there is one
};
}  // namespace reckon
