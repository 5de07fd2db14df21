// train/saved_run: a training step's tensors to and from a checkpoint, and a trained model from a run directory.
#pragma once
#include <memory>

#include "reckon/io/checkpoint.h"
#include "reckon/io/tokenizer.h"
#include "reckon/train/step.h"

namespace reckon {

/// In the run directory: the tokenizer that the model was trained with; absent for bytes.
inline constexpr std::string_view kRunTokenizer = "tokenizer.json";

/// Everything in the configuration that a continued run must share with its beginning, as a hash. Steps, evaluation, checkpoints, the run
/// directory, the memory budget and recomputation may change.
std::string continuation_fingerprint(const Config& config);

/// Saves model, optimizer state and position after `steps_done` steps (phase save); returns the checkpoint's path. `data` is the
/// fingerprint of what the steps drew from, "" for synthetic tokens. Throws Error on a full disk; the checkpoints that exist stay.
std::string save_checkpoint(TrainStep& step, int64_t steps_done, const std::string& data = "");
/// Puts a verified checkpoint's tensors into a fresh step; returns the steps done. Throws Error (usage) if configuration or data are others.
int64_t load_checkpoint(TrainStep& step, const CheckpointReader& reader, const std::string& data = "");

/// A model for evaluation and generation: no gradients, no optimizer.
struct LoadedModel {
  Config config;
  std::unique_ptr<Decoder> decoder;
  Ref<Tokenizer> tokenizer;
  int64_t steps = 0;
  std::string checkpoint;  // its path
};
/// From the newest checkpoint of run_dir, with the configuration saved there and `overrides` of keys that do not change the model.
LoadedModel load_model(const std::string& run_dir, std::span<const std::string> overrides, Device& device);
}  // namespace reckon
