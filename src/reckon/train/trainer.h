// train/trainer: a whole run: data, steps, evaluation, checkpoints, metrics, interruption. The files of a run directory are written here.
#pragma once
#include "reckon/train/report.h"
#include "reckon/train/step.h"

namespace reckon {

struct TrainOptions {
  bool resume = false;      // continue in run.dir
  bool overwrite = false;   // start over although run.dir holds a run
  bool keep_files = true;   // false: nothing is written (bench)
  bool quiet = false;       // no progress
};

struct TrainOutcome {
  RunReport predicted, measured;
  ProcessReport process;
  bool interrupted = false;
  std::string checkpoint;   // the last one saved
  double first_loss = 0;
  std::vector<double> step_seconds;
};

/// Runs config.train on `device`; `meta` is the same device without data: the plan is made there first and refused (exit 3) if it does not
/// fit in memory.budget. After request_stop(), a run that writes files and has begun its steps saves and stops after the current one; before
/// that, and without files, it ends at once by Error (interrupted). Whatever ends it before its steps, its folder is left as it was. Throws
/// Error as the contract's exit codes say.
TrainOutcome train(const Config& config, Device& device, Device& meta, const TrainOptions& options);

/// What the dry run of `config` says: memory of init, two steps, an evaluation and (`saves`) a checkpoint; FLOPs of a step.
RunReport predict(const Config& config, Device& meta, bool saves = true);
}  // namespace reckon
