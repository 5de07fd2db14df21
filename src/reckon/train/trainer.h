// train/trainer: a whole run: data, steps, evaluation, checkpoints, metrics, interruption. The files of a run directory are written here.
#pragma once
#include "reckon/memory/arena.h"
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
  std::vector<CallRecord> calls;  // of the last step, or of the second if the run was interrupted
};

/// Runs config.train on `device`, a fresh one, inside `arena`, the plan of this very configuration (plan/run_plan). Refuses (exit 3) a plan
/// over the budget before it allocates; throws Error as the contract's exit codes say.
TrainOutcome train(const Config& config, Device& device, const RunReport& predicted, const ArenaPlan& arena, const TrainOptions& options);

/// memory.budget, or where there is none what the system has available.
int64_t budget_bytes(const Config& config);

/// Asks a running train() to save and stop after the current step. Safe in a signal handler.
void request_stop();
bool stop_requested();
}  // namespace reckon
