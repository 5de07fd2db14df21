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
/// fit in memory.budget. Throws Error as the contract's exit codes say.
TrainOutcome train(const Config& config, Device& device, Device& meta, const TrainOptions& options);

/// The dry run of a configuration: init, two steps and (`saves`) a checkpoint on meta, and an evaluation once it is known that there will
/// be one, which depends on how many tokens are held out.
class DryRun {
 public:
  DryRun(const Config& config, Device& meta, bool saves = true);
  void evaluate();
  /// Memory of all so far, FLOPs of a step.
  RunReport report();

 private:
  TrainStep step_;
  RunReport report_;
};
/// What the dry run says of a run that evaluates nothing.
RunReport predict(const Config& config, Device& meta);

/// Asks a running train() to save and stop after the current step. Safe in a signal handler.
void request_stop();
bool stop_requested();
}  // namespace reckon
