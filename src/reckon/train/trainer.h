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
  std::string note;         // what people should know when it begins; "" if nothing
  std::optional<ProcessMemory> runtime;  // what the process takes beside its arena, as probed; without it nothing is predicted of it
};

struct TrainOutcome {
  Config config;  // with what train.recompute=auto chose
  RunReport predicted, measured;
  ProcessReport process;
  bool interrupted = false;
  bool was_complete = false;  // resumed with all its steps done: summary.json stays as the run that did them wrote it
  std::string checkpoint;   // the last one saved
  double first_loss = 0;
  std::vector<double> step_seconds;
  std::string note;         // of the options: a quiet run has not told it
  std::vector<CallRecord> calls;  // of the last step, or of the second if the run was interrupted
};

/// A run that has its folder (locked), its data and, if it continues, its checkpoint; and no memory of the device yet. What a run that ends
/// before its steps has put into its folder goes again.
class RunSetup {
 public:
  /// Throws Error as the contract's exit codes say.
  RunSetup(const Config& config, const TrainOptions& options);
  ~RunSetup();
  RunSetup(const RunSetup&) = delete;
  /// Whether the run comes to an evaluation, which depends on how many tokens are held out: its plan must know.
  bool evaluates() const;
  /// What train.recompute=auto chose, as train.recompute_blocks.
  void choose(const std::string& recompute_blocks);
  struct State;
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

/// Runs the setup's configuration on `device`, a fresh one, inside `arena`, its plan (plan/run_plan). Refuses (exit 3) a plan over the budget
/// before it allocates. After request_stop(), a run that writes files and has begun its steps saves and stops after the current one; before
/// that, and without files, it ends at once by Error (interrupted).
TrainOutcome train(RunSetup& setup, Device& device, const RunReport& predicted, const ArenaPlan& arena);

/// memory.budget, or where there is none what the system has available.
int64_t budget_bytes(const Config& config);
}  // namespace reckon
