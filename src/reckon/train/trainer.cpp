#include "reckon/train/trainer.h"

#include <signal.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <numbers>

#include "reckon/base/parallel.h"
#include "reckon/base/program.h"
#include "reckon/base/text.h"
#include "reckon/engine/context.h"
#include "reckon/io/files_lock.h"
#include "reckon/train/machine.h"
#include "reckon/train/progress.h"
#include "reckon/train/run_data.h"
#include "reckon/train/saved_run.h"

namespace reckon {
namespace {
volatile sig_atomic_t stop_flag = 0;

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
constexpr int64_t kMaxMetrics = int64_t(1) << 32;  // bytes of metrics.jsonl

// ---- metrics.jsonl: one line a step. A resumed run drops the lines of steps that its checkpoint does not hold, and the evaluation of the
// last step, which every end of a run makes.
class Metrics {
 public:
  Metrics(const std::string& run_dir, int64_t steps_done, int64_t steps) : path_(join_path(run_dir, "metrics.jsonl")) {
    std::string kept;
    if (steps_done > 0 && path_exists(path_)) kept = first_lines(read_file(path_, kMaxMetrics), steps_done, steps);
    write_file(path_, kept);
    file_ = std::fopen(path_.c_str(), "ae");
    check(file_ != nullptr, "cannot write {}", path_);
  }
  ~Metrics() { std::fclose(file_); }
  void line(const std::string& json) {
    std::fputs((json + "\n").c_str(), file_);
    check(std::fflush(file_) == 0, "cannot write {}: is the disk full?", path_);
  }

 private:
  // The lines of steps 1 .. steps_done; a line cut off by a crash is dropped.
  std::string first_lines(const std::string& text, int64_t steps_done, int64_t steps) const {
    std::string kept;
    size_t start = 0;
    for (size_t end = text.find('\n'); end != std::string::npos; start = end + 1, end = text.find('\n', start)) {
      const std::string line = text.substr(start, end - start);
      const JsonDocument document(line, path_);
      const int64_t step = document.root().get("step").integer();
      const bool last_evaluation = step == steps && document.root().has("loss_validation");
      if (step <= steps_done && !last_evaluation) kept += line + "\n";
    }
    return kept;
  }
  std::string path_;
  std::FILE* file_;
};

// ---- one run
class Run {
 public:
  Run(const Config& config, Device& device, const TrainOptions& options) : config_(config), device_(device), options_(options) {}

  TrainOutcome execute(const RunReport& predicted) {
    outcome_.predicted = predicted;
    data_ = open_run_data(data_config(), options_.keep_files ? config_.run_dir : cache_directory());
    machine_ = load_machine_profile(device_.profile().lanes);
    TrainStep step(config_, device_);
    step_ = &step;
    int64_t done = options_.resume ? load_checkpoint(step, CheckpointReader(latest_checkpoint(config_.run_dir)), data_.fingerprint) : 0;
    if (options_.keep_files) begin_files(done);
    if (!options_.quiet) announce(done);
    loop(done);
    finish();
    return std::move(outcome_);
  }

 private:
  // A continued run keeps the tokenizer it was trained with: bpe:N on a text that was moved or changed would make another one.
  Config data_config() const {
    Config config = config_;
    const std::string saved = join_path(config_.run_dir, kRunTokenizer);
    if (options_.resume && config.data.tokenizer.starts_with("bpe:") && path_exists(saved)) config.data.tokenizer = saved;
    return config;
  }

  // The run can start: data and memory are there. Only now may an overwritten run go.
  void begin_files(int64_t done) {
    if (options_.overwrite) remove_tree(join_path(config_.run_dir, "checkpoints"));
    write_file(join_path(config_.run_dir, "config.toml"), to_toml(config_));
    const std::string tokenizer = join_path(config_.run_dir, kRunTokenizer);
    if (data_.tokenizer && data_.tokenizer->kind() != "bytes") {
      data_.tokenizer->save(tokenizer);
    } else {
      remove_tree(tokenizer);  // of an overwritten run
    }
    metrics_ = std::make_unique<Metrics>(config_.run_dir, done, config_.train.steps);
  }

  void announce(int64_t done) {
    progress_.note(text("{}, {} parameters, {} {} threads; {}", config_.model.preset, with_commas(step_->parameters().count()), config_.device, thread_count(), data_.description));
    if (done > 0) progress_.note(text("continuing after step {}", done));
    if (!machine_) progress_.note(text("no measured peak for this machine, so no MFU: run `{} bench device` once", program_name()));
  }

  void loop(int64_t done) {
    const int64_t last = config_.train.steps;
    saved_at_ = options_.resume ? done : -1;
    for (int64_t i = done; i < last; ++i) {
      one_step(i);
      const int64_t count = i + 1;
      const bool stop = stop_requested() || count == config_.train.stop_after;
      // Also at a stop, and only at these steps: the metrics of an interrupted run and its rest are those of a whole one.
      if (data_.validation && config_.eval.every > 0 && count % config_.eval.every == 0 && count < last) evaluate(count);
      if (config_.checkpoint.every > 0 && count % config_.checkpoint.every == 0) save(count);
      done_ = count;
      if (stop) {
        outcome_.interrupted = stop_requested() && count < last;
        break;
      }
    }
    done_ = std::max(done_, done);
  }

  void one_step(int64_t i) {
    const double start = now();
    Meter meter;
    // Two readings of the clock a call, in two steps of the run: one steady for sure, and the last as far as that is known.
    const bool recorded = outcome_.step_seconds.size() == 1 || i + 1 == config_.train.steps || i + 1 == config_.train.stop_after;
    meter.record_calls(recorded);
    TrainStep::Result result;
    {
      const MeterScope scope(meter);
      result = step_->run(i, *data_.train);
    }
    const double seconds = now() - start;
    if (!result.updated) diverged(i, result);
    timer_.add(seconds);
    outcome_.step_seconds.push_back(seconds);
    if (i == 0) outcome_.measured.trace_hash = device_.allocator().trace_hash();
    if (outcome_.step_seconds.size() == 1) outcome_.first_loss = result.loss;
    flops_ = meter.total();
    if (recorded) outcome_.calls = meter.calls();
    loss_ = result.loss;
    if (metrics_) metrics_->line(metrics_line(i + 1, result, seconds));
    if (options_.quiet) return;
    const double recent = timer_.recent();
    progress_.update({i + 1, config_.train.steps, result.loss, double(step_->tokens_per_step()) / recent, recent * double(config_.train.steps - i - 1),
                      utilization(double(flops_.model), recent).value_or(-1), device_.allocator().ledger().peak});
  }

  std::string metrics_line(int64_t count, const TrainStep::Result& result, double seconds) const {
    JsonWriter j;
    j.begin_object();
    j.key("step").integer(count);
    j.key("loss").number(result.loss);
    j.key("lr").number(learning_rate(config_.optim, count - 1, config_.train.steps));
    j.key("grad_norm").number(result.grad_norm);
    j.key("tokens").integer(count * step_->tokens_per_step());
    j.key("seconds").number(seconds);
    j.key("tokens_per_second").number(double(step_->tokens_per_step()) / seconds);
    j.end_object();
    return j.str();
  }

  // The update was skipped on the device. Save what there is, then find the first operation that made a NaN or infinity.
  [[noreturn]] void diverged(int64_t i, const TrainStep::Result& result) {
    const std::string saved = options_.keep_files && saved_at_ != i ? save_checkpoint(*step_, i, data_.fingerprint) : "";
    const std::string kept = saved.empty() ? "parameters are as they were before the step" : text("the state before it is saved in {}", saved);
    try {
      step_->find_nonfinite(i, *data_.train);
    } catch (const Error& error) {
      fail("step {} is not finite: {}; {}", i + 1, error.what(), kept);
    }
    fail("step {} has loss {} and gradient norm {}: every value is finite, but the sum of their squares is not; {}", i + 1, result.loss, result.grad_norm, kept);
  }

  void evaluate(int64_t count) {
    const double loss = step_->evaluate(*data_.validation, data_.validation_batches);
    outcome_.measured.loss_validation = loss;
    if (data_.validation_bytes_per_token > 0) outcome_.measured.bits_per_byte = loss / std::numbers::ln2 / data_.validation_bytes_per_token;
    if (!options_.quiet) progress_.note(text("step {}: validation loss {:.4f}", count, loss));
    if (!metrics_) return;
    JsonWriter j;
    j.begin_object();
    j.key("step").integer(count);
    j.key("loss_validation").number(loss);
    j.end_object();
    metrics_->line(j.str());
  }

  void save(int64_t count) {
    if (!options_.keep_files || saved_at_ == count) return;
    outcome_.checkpoint = save_checkpoint(*step_, count, data_.fingerprint);
    saved_at_ = count;
  }

  std::optional<double> utilization(double flops, double seconds) const {
    if (!machine_ || seconds <= 0) return {};
    return flops / seconds / peak_flops(*machine_, config_.train.precision == Precision::bf16 ? DType::bf16 : DType::f32);
  }

  void finish() {
    if (done_ > 0) save(done_);
    if (data_.validation && done_ == config_.train.steps) evaluate(done_);
    RunReport& m = outcome_.measured;
    m.parameters = step_->parameters().count();
    m.memory = device_.allocator().ledger();
    if (!outcome_.step_seconds.empty()) {
      const double seconds = timer_.median();
      m.flops_per_step = flops_;
      m.step_seconds = seconds;
      m.tokens_per_second = double(step_->tokens_per_step()) / seconds;
      m.mfu = utilization(double(flops_.model), seconds);
      m.hfu = utilization(double(flops_.matmul), seconds);
      m.loss_train = loss_;
    }
    outcome_.process.peak_rss_bytes = peak_resident_bytes();
    if (options_.keep_files) write_file(join_path(config_.run_dir, "summary.json"), summary_json(outcome_.predicted, m, outcome_.process));
  }

  const Config& config_;
  Device& device_;
  const TrainOptions& options_;
  TrainOutcome outcome_;
  RunData data_;
  std::optional<MachineProfile> machine_;
  TrainStep* step_ = nullptr;
  std::unique_ptr<Metrics> metrics_;
  Progress progress_;
  StepTimer timer_;
  Flops flops_;
  double loss_ = 0;
  int64_t done_ = 0, saved_at_ = -1;
};

void check_run_directory(const Config& config, const TrainOptions& options) {
  const std::string latest = latest_checkpoint(config.run_dir);
  if (options.resume) {
    check_as(Failure::usage, !latest.empty(), "run.dir {} holds no checkpoint to resume; start without --resume", config.run_dir);
    return;
  }
  if (latest.empty()) return;
  check_as(Failure::usage, options.overwrite, "run.dir {} already holds a run ({}); continue it with --resume, start over with --overwrite, or choose another run.dir",
           config.run_dir, latest);
}
}  // namespace

void request_stop() { stop_flag = 1; }
bool stop_requested() { return stop_flag != 0; }

TrainOutcome train(const Config& config, Device& device, const RunReport& predicted, const ArenaPlan& arena, const TrainOptions& options) {
  std::unique_ptr<DirectoryLock> lock;
  if (options.keep_files) {
    lock = std::make_unique<DirectoryLock>(config.run_dir);
    check_run_directory(config, options);
  }
  device.allocator().set_budget(budget_bytes(config));
  device.allocator().adopt(arena);
  Run run(config, device, options);
  return run.execute(predicted);
}

int64_t budget_bytes(const Config& config) { return config.memory.budget_bytes > 0 ? config.memory.budget_bytes : available_memory_bytes(); }
}  // namespace reckon
