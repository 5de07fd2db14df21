// cli/train: reckon train [CONFIG.toml] [key=value ...] [--resume] [--overwrite] [--json]
#include <cstdio>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/program.h"
#include "reckon/base/stop.h"
#include "reckon/base/text.h"
#include "reckon/cli/command.h"
#include "reckon/cli/process_probe.h"
#include "reckon/io/files.h"
#include "reckon/plan/auto_recompute.h"
#include "reckon/plan/time_model.h"
#include "reckon/report/actual_table.h"
#include "reckon/report/report.h"
#include "reckon/train/trainer.h"

namespace reckon {
namespace {
// With --resume and no file named, the configuration is the one that the run was started with.
Config resumed_config(const CommandLine& line) {
  if (!line.resume) return line.config();
  const std::string run_dir = line.run_named().run_dir, saved = join_path(run_dir, "config.toml");
  if (!line.config_path.empty()) {
    Config config = line.config();
    // What auto chose for the run stays, unless somebody says otherwise.
    if (is_open_auto(config) && !line.overrides_key("train.recompute_blocks") && path_exists(saved)) {
      const Config before = load_config(saved, {});
      if (before.train.recompute == Recompute::automatic && before.model.layers == config.model.layers)
        config.train.recompute_blocks = before.train.recompute_blocks;
    }
    return config;
  }
  check_as(Failure::usage, path_exists(saved), "run.dir {} holds no run to resume (no config.toml)", run_dir);
  Config config = load_config(saved, line.overrides);
  config.run_dir = run_dir;
  return config;
}

std::string losses(const TrainOutcome& o) {
  const RunReport& m = o.measured;
  std::string line;
  if (m.loss_train) line = text("loss {:.4f} -> {:.4f}", o.first_loss, *m.loss_train);
  if (m.loss_validation) line += text("{}validation {:.4f}", line.empty() ? "" : ", ", *m.loss_validation);
  if (m.bits_per_byte) line += text(" ({:.3f} bits per byte)", *m.bits_per_byte);
  return line;
}

void print_outcome(const Config& config, const TrainOutcome& o) {
  const RunReport& m = o.measured;
  if (o.was_complete) std::printf("nothing was left to do: the run has all its %s\n", counted(config.train.steps, "step").c_str());
  if (!losses(o).empty()) std::printf("%s\n", losses(o).c_str());
  if (o.was_complete) return;
  if (m.tokens_per_second) {
    std::printf("%s tokens/s (median of %s)", with_commas(int64_t(*m.tokens_per_second)).c_str(),
                counted(int64_t(o.step_seconds.size()), "step").c_str());
    if (m.mfu) std::printf(", MFU %.0f %%", *m.mfu * 100);
    std::printf("; ");
    if (const std::string times = compare_times(o.predicted, m); !times.empty()) std::printf("%s; ", times.c_str());
  }
  std::printf("memory: predicted %s, measured %s; process %s\n", human_bytes(o.predicted.memory->peak).c_str(),
              human_bytes(m.memory->peak).c_str(), human_bytes(*o.process.peak_rss_bytes).c_str());
  if (!o.checkpoint.empty()) std::printf("saved %s\n", o.checkpoint.c_str());
  if (o.interrupted)
    std::printf("interrupted; continue with: %s train %s --resume\n", program_name().c_str(),
                shell_word("run.dir=" + config.run_dir).c_str());
}

std::string summary_of(const Config& config, const TrainOutcome& o) {
  constexpr int64_t kMaxSummary = 1 << 20;
  if (o.was_complete) return read_file(join_path(config.run_dir, "summary.json"), kMaxSummary);
  return summary_json(o.predicted, o.measured, o.process);
}
// The device's memory is gone when this returns: what the report takes is not added to it.
TrainOutcome train_on_device(const Config& config, const CommandLine& line) {
  const Ref<Device> device = open_cpu(Mode::real), meta = open_cpu(Mode::meta);
  return plan_and_train(config, *device, *meta, {.resume = line.resume, .overwrite = line.overwrite, .runtime = probe_runtime(config)});
}
}  // namespace

int run_train(const CommandLine& line) {
  line.no_words();
  check_as(Failure::usage, !(line.resume && line.overwrite), "--resume and --overwrite exclude each other");
  const Config config = resumed_config(line);
  const TrainOutcome outcome = train_on_device(config, line);
  const KeepWorking keep_working;  // whoever asked the run to stop gets its report
  write_run_report(outcome.config, *open_cpu(Mode::meta), outcome.calls);
  if (line.json) {
    std::fputs(summary_of(config, outcome).c_str(), stdout);
  } else {
    if (!outcome.was_complete) std::fputs(planned_and_actual(outcome.predicted, outcome.measured, outcome.process).c_str(), stderr);
    print_outcome(config, outcome);
  }
  return outcome.interrupted ? int(Failure::interrupted) : 0;
}
}  // namespace reckon
