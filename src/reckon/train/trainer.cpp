#include "reckon/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <numbers>

#include "reckon/base/parallel.h"
#include "reckon/base/program.h"
#include "reckon/base/stop.h"
#include "reckon/base/text.h"
#include "reckon/engine/context.h"
#include "reckon/io/files_lock.h"
#include "reckon/train/machine.h"
#include "reckon/train/progress.h"
#include "reckon/train/run_data.h"
#include "reckon/train/saved_run.h"

namespace reckon {
namespace {
double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
constexpr int64_t kMaxMetrics = int64_t(1) << 32;  // bytes of metrics.jsonl

// ---- metrics.jsonl: one line a step. A resumed run drops the lines of steps that its checkpoint does not hold, the evaluation of the
// last step, which every end of a run makes, and what cannot be read: metrics are no reason not to go on.
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
  /// Lines of the run before that could not be read and are gone.
  int64_t unreadable() const { return unreadable_; }
  const std::string& path() const { return path_; }
  void line(const std::string& json) {
    std::fputs((json + "\n").c_str(), file_);
    check(std::fflush(file_) == 0, "cannot write {}: is the disk full?", path_);
  }

 private:
  // The lines of steps 1 .. steps_done. The last one may lack its line break.
  std::string first_lines(const std::string& text, int64_t steps_done, int64_t steps) {
    std::string kept;
    for (size_t start = 0, end; start < text.size(); start = end + 1) {
      end = std::min(text.find('\n', start), text.size());
      const std::string line = text.substr(start, end - start);
      try {
        const JsonDocument document(line, path_);
        const int64_t step = document.root().get("step").integer(1);
        const bool last_evaluation = step == steps && document.root().has("loss_validation");
        if (step <= steps_done && !last_evaluation) kept += line + "\n";
      } catch (const Error&) {
        ++unreadable_;
      }
    }
    return kept;
  }
  std::string path_;
  std::FILE* file_;
  int64_t unreadable_ = 0;
};

// ---- what a run that comes to nothing leaves: nothing. Unless keep() is called, what has been put into the folder since goes again.
class NewFiles {
 public:
  explicit NewFiles(const std::string& folder) : folder_(folder), before_(list_directory(folder)) {}
  ~NewFiles() {
    if (kept_) return;
    try {
      for (const std::string& name : list_directory(folder_))
        if (!std::binary_search(before_.begin(), before_.end(), name)) remove_tree(join_path(folder_, name));
    } catch (const Error& error) {
      std::fprintf(stderr, "reckon: %s\n", error.what());
    }
  }
  NewFiles(const NewFiles&) = delete;
  void keep() { kept_ = true; }

 private:
  std::string folder_;
  std::vector<std::string> before_;  // sorted
  bool kept_ = false;
};

// A continued run keeps the tokenizer it was trained with: bpe:N on a text that was moved or changed would make another one.
Config data_config(const Config& config, const TrainOptions& options) {
  Config of_data = config;
  const std::string saved = join_path(config.run_dir, kRunTokenizer);
  if (options.resume && config.data.tokenizer.starts_with("bpe:") && path_exists(saved)) of_data.data.tokenizer = saved;
  return of_data;
}

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

struct RunSetup::State {
  Config config;
  const TrainOptions options;
  std::unique_ptr<DirectoryLock> lock;
  std::unique_ptr<NewFiles> new_files;     // null if nothing is written
  RunData data;
  std::optional<CheckpointReader> saved;   // of a run that continues
  int64_t steps_done() const { return saved ? saved->state().step : 0; }
};

RunSetup::RunSetup(const Config& config, const TrainOptions& options) : state_(new State{config, options, {}, {}, {}, {}}) {
  State& s = *state_;
  if (options.keep_files) {
    s.lock = std::make_unique<DirectoryLock>(config.run_dir);
    s.new_files = std::make_unique<NewFiles>(config.run_dir);
    check_run_directory(config, options);
  }
  s.data = open_run_data(data_config(config, options), options.keep_files ? config.run_dir : cache_directory());
  if (options.resume) s.saved.emplace(latest_checkpoint(config.run_dir));
}
RunSetup::~RunSetup() = default;

void RunSetup::choose(const std::string& recompute_blocks) { state_->config.train.recompute_blocks = recompute_blocks; }

// If nobody interrupts it.
bool RunSetup::evaluates() const {
  const State& s = *state_;
  const TrainConfig& t = s.config.train;
  const int64_t done = s.steps_done(), every = s.config.eval.every;
  if (!s.data.validation || done > t.steps) return false;
  const int64_t end = t.stop_after > done ? std::min(t.stop_after, t.steps) : t.steps;
  return end == t.steps || (every > 0 && end / every > done / every);
}

namespace {
// ---- one run
class Run {
 public:
  Run(RunSetup::State& setup, Device& device) : setup_(setup), config_(setup.config), device_(device), options_(setup.options), data_(setup.data) {}

  TrainOutcome execute(const RunReport& predicted, const ArenaPlan& arena) {
    outcome_.config = config_;
    outcome_.predicted = predicted;
    outcome_.note = options_.note;
    predict_process(arena.bytes);
    machine_ = load_machine_profile(device_.profile().lanes);
    TrainStep step(config_, device_);
    step_ = &step;
    if (setup_.saved) load_checkpoint(step, *setup_.saved, data_.fingerprint);
    stop_point();
    const int64_t done = setup_.steps_done();
    if (options_.keep_files) begin_files(done);
    if (!options_.quiet) announce(done);
    return_free_heap();  // what reading the text and planning took: the steps bring the peak
    loop(done);
    finish();
    return std::move(outcome_);
  }

 private:
  // The run can start: data and memory are there. Only now may an overwritten run go, and from now on an interruption saves.
  void begin_files(int64_t done) {
    keep_working_.emplace();
    setup_.new_files->keep();
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
    progress_.note(text("{}, {}, {} {}; {}", config_.model.preset, counted(step_->parameters().count(), "parameter"), config_.device, counted(thread_count(), "thread"), data_.description));
    if (config_.train.precision == Precision::fp8)
      progress_.note("train.precision=fp8 is emulated: the CPU multiplies the same 8-bit values as bfloat16, which saves memory and costs time");
    if (!data_.note.empty()) progress_.note(data_.note);
    if (!options_.note.empty()) progress_.note(options_.note);
    if (config_.train.recompute == Recompute::automatic && !config_.train.recompute_blocks.empty())
      progress_.note(text("train.recompute=auto: {}", config_.train.recompute_blocks));
    if (const std::string scaling = scaling_text(config_); !scaling.empty()) progress_.note(scaling);
    if (done > 0) progress_.note(text("continuing after step {}", done));
    if (metrics_ && metrics_->unreadable() > 0)
      progress_.note(text("{}: {} unreadable line{} left out", metrics_->path(), metrics_->unreadable(), metrics_->unreadable() == 1 ? " is" : "s are"));
  }

  void loop(int64_t done) {
    const int64_t last = config_.train.steps;
    saved_at_ = options_.resume ? done : -1;
    for (int64_t i = done; i < last; ++i) {
      one_step(i);
      const int64_t count = i + 1;
      stop_point();
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
    // A smaller scale mends gradients; a loss that is not finite comes from the forward pass, which has no scale.
    if (!result.updated && !(result.rescaled && std::isfinite(result.loss))) diverged(i, result);
    if (!result.updated && !options_.quiet)
      progress_.note(text("step {}: gradients overflow float16 with a loss scale of {}: the step is skipped, and the scale halved", i + 1, result.loss_scale));
    timer_.add(seconds);
    outcome_.step_seconds.push_back(seconds);
    if (i == 0) outcome_.measured.trace_hash = device_.allocator().trace_hash();
    if (outcome_.step_seconds.size() == 1) outcome_.first_loss = result.loss;
    flops_ = meter.total();
    if (recorded) outcome_.calls = meter.calls();
    loss_ = result.loss;
    if (metrics_) metrics_->line(metrics_line(i + 1, result, seconds));
    if (outcome_.step_seconds.size() <= 2) sample_process();
    if (options_.quiet) return;
    const double recent = timer_.recent();
    progress_.update({i + 1, config_.train.steps, result.loss, double(step_->tokens_per_step()) / recent, recent * double(config_.train.steps - i - 1),
                      timer_.recent_steps(), utilization(double(flops_.model), recent).value_or(-1), device_.allocator().ledger().peak});
  }

  std::string metrics_line(int64_t count, const TrainStep::Result& result, double seconds) const {
    JsonWriter j;
    j.begin_object();
    j.key("step").integer(count);
    j.key("loss").number(result.loss);
    j.key("lr").number(learning_rate(effective_optim(config_), count - 1, config_.train.steps));
    j.key("grad_norm").number(result.grad_norm);
    if (config_.train.precision == Precision::fp16) j.key("loss_scale").number(result.loss_scale);
    j.key("tokens").integer(count * step_->tokens_per_step());
    j.key("seconds").number(seconds);
    j.key("tokens_per_second").number(double(step_->tokens_per_step()) / seconds);
    j.end_object();
    return j.str();
  }

  // The update was skipped on the device. Save what there is, then find the first operation that made a NaN or infinity.
  [[noreturn]] void diverged(int64_t i, const TrainStep::Result& result) {
    const std::string saved = options_.keep_files && saved_at_ != i ? save_checkpoint(*step_, i, data_.fingerprint) : "";
    std::string kept = saved.empty() ? "parameters are as they were before the step" : text("the state before it is saved in {}", saved);
    if (config_.train.precision == Precision::fp16 && config_.train.loss_scale > 0 && std::isfinite(result.loss))
      kept += text("; train.loss_scale = {} may be too large: lower it, or leave it dynamic", config_.train.loss_scale);
    try {
      step_->find_nonfinite(i, *data_.train);
    } catch (const Error& error) {
      fail("step {} is not finite: {}; {}", i + 1, error.what(), kept);
    }
    fail("step {} has loss {} and gradient norm {}: every value is finite, but the sum of their squares is not; {}", i + 1, result.loss, result.grad_norm, kept);
  }

  void evaluate(int64_t count) {
    const double loss = step_->evaluate(*data_.validation, data_.validation_windows);
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

  // The arena as planned, the runtime as probed, and the buffers whose sizes this run determines.
  void predict_process(int64_t arena_bytes) {
    if (!options_.runtime) return;
    constexpr int64_t kPage = 4096;
    const int64_t tensors = config_.model.cruncher ? 0 : document_bounds(config_) == DocumentBounds::none ? 2 : 4;
    const int64_t staged = tensors * config_.train.micro_batch * config_.train.seq_len * int64_t(sizeof(int32_t));
    ProcessMemory memory = *options_.runtime;
    memory[MemoryClass::arena] = (arena_bytes + kPage - 1) / kPage * kPage;
    memory[MemoryClass::heap] += staged + (options_.keep_files ? kSafetensorsPiece : 0) + (data_.tokenizer ? data_.tokenizer->memory_bytes() : 0);
    outcome_.process.predicted_rss_bytes = memory.total();
    outcome_.process.predicted = std::move(memory);
  }

  // Keeps the moment when most was resident.
  void sample_process() {
    std::optional<ProcessMemory>& most = outcome_.process.measured;
    try {
      ProcessMemory now = measure_process(&device_);
      if (!most || now.total() > most->total()) most = std::move(now);
    } catch (const Error& error) {
      if (!options_.quiet && outcome_.step_seconds.size() == 1) progress_.note(text("the process's memory is not measured: {}", error.what()));
    }
  }

  std::optional<double> utilization(double flops, double seconds) const {
    if (!machine_ || seconds <= 0) return {};
    return flops / seconds / peak_flops(*machine_, dtype_of(config_.train.precision));
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
    if (!options_.quiet && m.hfu.value_or(0) > 1)
      progress_.note(text("more than 100 % of the measured peak: it was measured while the machine was busy; measure it again: {} bench device", program_name()));
    sample_process();
    outcome_.process.peak_rss_bytes = peak_resident_bytes();
    const std::string summary = join_path(config_.run_dir, "summary.json");
    outcome_.was_complete = outcome_.step_seconds.empty() && path_exists(summary);
    if (options_.keep_files && !outcome_.was_complete) write_file(summary, summary_json(outcome_.predicted, m, outcome_.process));
  }

  RunSetup::State& setup_;
  const Config& config_;
  Device& device_;
  const TrainOptions& options_;
  std::optional<KeepWorking> keep_working_;
  TrainOutcome outcome_;
  RunData& data_;
  std::optional<MachineProfile> machine_;
  TrainStep* step_ = nullptr;
  std::unique_ptr<Metrics> metrics_;
  Progress progress_;
  StepTimer timer_;
  Flops flops_;
  double loss_ = 0;
  int64_t done_ = 0, saved_at_ = -1;
};

}  // namespace

TrainOutcome train(RunSetup& setup, Device& device, const RunReport& predicted, const ArenaPlan& arena) {
  device.allocator().set_budget(budget_bytes(setup.state().config));
  device.allocator().adopt(arena);
  return Run(setup.state(), device).execute(predicted, arena);
}

int64_t budget_bytes(const Config& config) { return config.memory.budget_bytes > 0 ? config.memory.budget_bytes : available_memory_bytes(); }
}  // namespace reckon
