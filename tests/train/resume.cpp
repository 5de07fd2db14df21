// A run that is stopped and continued ends with the same bytes as one that was not: parameters, optimizer state, checkpoint files, metrics.
#include <random>
#include <set>

#include "reckon/base/text.h"
#include "reckon/io/json.h"
#include "reckon/train/saved_run.h"
#include "reckon/plan/run_plan.h"
#include "tests/train/small_runs.h"

namespace small {
namespace {
constexpr int64_t kSteps = 9;

TrainOutcome go(Config c, const std::string& run_dir, int64_t stop_after = 0, const TrainOptions& options = {}) {
  c.run_dir = run_dir;
  c.train.stop_after = stop_after;
  TrainOptions quiet = options;
  quiet.quiet = true;
  const Ref<Device> device = open_cpu(Mode::real), meta = open_cpu(Mode::meta);
  return plan_and_train(c, *device, *meta, quiet);
}
TrainOutcome resume(const Config& c, const std::string& run_dir, int64_t stop_after = 0) { return go(c, run_dir, stop_after, {.resume = true}); }

Config nine_steps(const std::string& model, Overrides more = {}) {
  more.insert(more.end(), {text("train.steps={}", kSteps), "train.micro_batch=2", "train.grad_accum=2", "checkpoint.keep=0"});
  return config(model, more);
}

void expect_same_files(const std::string& a, const std::string& b) {
  for (const std::string_view name : {kModelFile, kOptimizerFile, kStateFile})
    EXPECT_TRUE(get(join_path(a, name)) == get(join_path(b, name))) << name << " of " << a << " and " << b;
}

// step -> the values of its metrics lines that time does not change; an evaluation is listed under -step.
std::map<int64_t, std::string> steps_of(const std::string& metrics) {
  std::map<int64_t, std::string> steps;
  size_t start = 0;
  for (size_t end = metrics.find('\n'); end != std::string::npos; start = end + 1, end = metrics.find('\n', start)) {
    const JsonDocument line(metrics.substr(start, end - start), "metrics.jsonl");
    const Json root = line.root();
    const bool evaluation = root.has("loss_validation");
    const int64_t step = root.get("step").integer() * (evaluation ? -1 : 1);
    EXPECT_EQ(steps.count(step), 0u) << "step " << step << " is there twice";
    if (evaluation) {
      steps[step] = text("loss_validation {}", root.get("loss_validation").number());
      continue;
    }
    const Json norm = root.get("grad_norm");  // null where float16 overflows
    steps[step] = text("loss {} lr {} grad_norm {} tokens {}", root.get("loss").number(), root.get("lr").number(), norm.is_null() ? -1 : norm.number(),
                       root.get("tokens").integer());
    EXPECT_GT(root.get("seconds").number(), 0);
    EXPECT_GT(root.get("tokens_per_second").number(), 0);
  }
  EXPECT_EQ(start, metrics.size()) << "the last line must end";
  return steps;
}

struct Case {
  const char* model;
  const char* precision;
  const char* optimizer;
};
class Resume : public ::testing::TestWithParam<Case> {
 protected:
  Config make() const { return nine_steps(GetParam().model, {text("train.precision={}", GetParam().precision), text("optim.name={}", GetParam().optimizer)}); }
};

TEST_P(Resume, at_random_steps_gives_the_same_bytes) {
  const Folder folder;
  const Config c = make();
  const std::string straight = go(c, folder / "straight").checkpoint;
  EXPECT_TRUE(straight.ends_with(text("step-{}", kSteps))) << straight;
  std::mt19937 random(20240607);
  for (int trial = 0; trial < 2; ++trial) {
    const int64_t first = std::uniform_int_distribution<int64_t>(1, kSteps - 2)(random), second = std::uniform_int_distribution<int64_t>(first + 1, kSteps - 1)(random);
    SCOPED_TRACE(text("stopped after {} and {}", first, second));
    const std::string run = folder / text("run{}", trial);
    const TrainOutcome stopped = go(c, run, first);
    EXPECT_TRUE(stopped.checkpoint.ends_with(text("step-{}", first))) << stopped.checkpoint;
    EXPECT_FALSE(stopped.interrupted) << "train.stop_after exits 0";
    resume(c, run, second);
    expect_same_files(straight, resume(c, run).checkpoint);
    const auto expected = steps_of(get(folder / "straight/metrics.jsonl"));
    EXPECT_EQ(int64_t(expected.size()), kSteps);
    EXPECT_EQ(steps_of(get(run + "/metrics.jsonl")), expected);
  }
}
INSTANTIATE_TEST_SUITE_P(Models, Resume,
                         ::testing::Values(Case{"gpt2", "fp32", "adamw"}, Case{"gpt2", "bf16", "adamw"}, Case{"llama", "bf16", "momentum"}, Case{"qwen", "fp32", "adagrad"},
                                           Case{"cruncher", "fp32", "sgd"}, Case{"gpt2", "fp16", "adamw"}, Case{"cruncher", "fp16", "momentum"},
                                           Case{"gpt2", "fp32", "adamw8bit"}, Case{"llama", "bf16", "adamw8bit"}, Case{"qwen", "fp16", "adamw8bit"},
                                           Case{"gpt2", "fp8", "adamw"}, Case{"llama", "fp8", "adamw8bit"}, Case{"cruncher", "fp8", "sgd"},
                                           Case{"qwen", "fp32", "nesterov"}, Case{"llama", "fp16", "rmsprop"}, Case{"gpt2", "bf16", "adam"},
                                           Case{"gpt2", "bf16", "lamb"}, Case{"llama", "fp16", "lamb"}, Case{"qwen", "fp32", "lamb"}),
                         [](const auto& info) { return std::string(info.param.model) + "_" + info.param.precision + "_" + info.param.optimizer; });

// Every state, groups and a schedule that ends elsewhere than the run stops.
TEST(Resume, continues_states_groups_and_schedules) {
  const Folder folder;
  for (const char* schedule : {"wsd", "linear", "inverse_sqrt"}) {
    const Config c = nine_steps("gpt2", {"train.precision=bf16", "optim.name=rmsprop", "optim.centered=true", "optim.rmsprop_momentum=0.8",
                                         text("optim.schedule={}", schedule), "optim.groups=embed.*,lr=0.5;blocks.1.*,weight_decay=0,lr=2"});
    const std::string straight = go(c, folder / text("straight-{}", schedule)).checkpoint, run = folder / schedule;
    go(c, run, 4);
    expect_same_files(straight, resume(c, run).checkpoint);
  }
}

// The loss scale is part of the state: it halves and doubles on both sides of a stop.
TEST(Resume, continues_the_loss_scale) {
  const Folder folder;
  const Config c = nine_steps("gpt2", {"train.precision=fp16", "train.loss_scale_start=16777216", "train.loss_scale_interval=2"});
  const std::string straight = go(c, folder / "straight").checkpoint;
  std::set<double> scales;
  const std::string metrics = get(folder / "straight/metrics.jsonl");
  for (size_t at = 0; (at = metrics.find("\"loss_scale\":", at)) != std::string::npos; ++at) scales.insert(std::stod(metrics.substr(at + 13)));
  EXPECT_GE(scales.size(), 3u) << "a test of a scale that does not move";
  EXPECT_TRUE(scales.contains(16777216));
  for (int64_t stop = 1; stop < kSteps; ++stop) {
    const std::string run = folder / text("run{}", stop);
    go(c, run, stop);
    expect_same_files(straight, resume(c, run).checkpoint);
  }
}

// Stochastic rounding draws by the number of the step, so a continued run draws on.
TEST(Resume, continues_the_draws_of_stochastic_rounding) {
  const Folder folder;
  for (const char* optimizer : {"adamw", "adamw8bit"}) {
    const Config c = nine_steps("gpt2", {"train.precision=bf16", "train.master_weights=false", text("optim.name={}", optimizer)});
    const std::string straight = go(c, folder / text("straight-{}", optimizer)).checkpoint, run = folder / optimizer;
    go(c, run, 4);
    expect_same_files(straight, resume(c, run).checkpoint);
  }
}

// Masks are drawn by the numbers of step and sample, so a continued run drops the same elements.
TEST(Resume, continues_the_draws_of_dropout) {
  const Folder folder;
  for (const char* recompute : {"none", "selective"}) {
    const Config c = nine_steps("gpt2", {"model.dropout=0.2", text("train.recompute={}", recompute)});
    const std::string straight = go(c, folder / text("straight-{}", recompute)).checkpoint, run = folder / recompute;
    go(c, run, 4);
    expect_same_files(straight, resume(c, run).checkpoint);
  }
}

// With data on disk: the position in it continues too, in both orders.
TEST(ResumeData, text_continues_where_it_stopped) {
  const Folder folder;
  const std::string path = folder / "text.txt";
  {
    std::ofstream out(path, std::ios::binary);
    for (int i = 0; i < 800; ++i) out << "line " << i * i % 977 << " of the text, and some more\n";
  }
  for (const char* order : {"random", "sequential"}) {
    const Config c = nine_steps("gpt2", {"model.vocab=256", "data.path=" + path, text("data.order={}", order), "eval.every=2", "eval.batches=2"});
    const std::string run = folder / order, whole = folder / text("{}-whole", order);
    go(c, run, 4);  // stops at a step that is evaluated
    resume(c, run, 7);
    expect_same_files(go(c, whole).checkpoint, resume(c, run).checkpoint);
    resume(c, run);  // there is nothing left to do
    const auto expected = steps_of(get(whole + "/metrics.jsonl"));
    EXPECT_EQ(expected.size(), size_t(kSteps + 5)) << "evaluations at 2, 4, 6, 8 and 9";
    EXPECT_EQ(steps_of(get(run + "/metrics.jsonl")), expected);
  }
}

// What is evaluated and saved on the way changes nothing.
TEST(Resume, evaluation_and_checkpoints_on_the_way_change_nothing) {
  const Folder folder;
  const Config plain = nine_steps("llama");
  Config busy = plain;
  busy.checkpoint.every = 2;
  const std::string a = go(plain, folder / "plain").checkpoint, b = go(busy, folder / "busy").checkpoint;
  for (const std::string_view name : {kModelFile, kOptimizerFile}) EXPECT_TRUE(get(join_path(a, name)) == get(join_path(b, name))) << name;
  std::vector<int64_t> steps;
  for (const CheckpointInfo& info : list_checkpoints(folder / "busy")) steps.push_back(info.step);
  EXPECT_EQ(steps, (std::vector<int64_t>{2, 4, 6, 8, 9}));
}

// The newest checkpoint is older than the last line of metrics: a run that was killed. Lines of steps that are done again go away.
TEST(Resume, after_a_kill_the_metrics_have_each_step_once) {
  const Folder folder;
  Config c = nine_steps("gpt2");
  c.checkpoint.every = 3;
  go(c, folder / "run", 5);
  std::filesystem::remove_all(folder / "run/checkpoints/step-5");
  {
    std::ofstream out(folder / "run/metrics.jsonl", std::ios::app);
    out << "{\"step\": 6, \"loss\": 1.";  // cut off in the middle of a line
  }
  resume(c, folder / "run");
  const std::string straight = go(c, folder / "straight").checkpoint;
  expect_same_files(straight, latest_checkpoint(folder / "run"));
  EXPECT_EQ(steps_of(get(folder / "run/metrics.jsonl")), steps_of(get(folder / "straight/metrics.jsonl")));
}

// Whatever a crash or an editor left in the metrics, the run goes on; only what cannot be read is gone.
TEST(Resume, unreadable_lines_of_metrics_are_dropped) {
  const Folder folder;
  const Config c = nine_steps("gpt2");
  go(c, folder / "straight");
  go(c, folder / "stopped", 5);
  const auto expected = steps_of(get(folder / "straight/metrics.jsonl"));
  const std::string metrics = get(folder / "stopped/metrics.jsonl");
  std::vector<std::string> lines;
  for (size_t start = 0, end; (end = metrics.find('\n', start)) != std::string::npos; start = end + 1) lines.push_back(metrics.substr(start, end - start));
  ASSERT_EQ(lines.size(), 5u);
  const std::vector<std::string> garbage = {"garbage",        "",      "{",          "[]",           "5",       "{\"loss\": 1}", "{\"step\": \"2\"}",
                                            "{\"step\": 0}",  "{\"step\": -3, \"loss\": 1}",     std::string(100, '\0'), "\xff\xfe\r", lines[1].substr(0, 30), lines[1] + lines[1]};
  int at = 0;
  for (const std::string& bad : garbage) {
    SCOPED_TRACE(printable_line(bad));
    const std::string run = folder / text("run{}", at++);
    std::filesystem::copy(folder / "stopped", run, std::filesystem::copy_options::recursive);
    write_file(run + "/metrics.jsonl", lines[0] + "\n" + bad + "\n" + lines[2] + "\n" + lines[3] + "\n" + lines[4]);  // no line break at the end
    resume(c, run);
    auto without = expected;
    without.erase(2);
    EXPECT_EQ(steps_of(get(run + "/metrics.jsonl")), without);
  }
}

template <class Body>
std::string refusal(Failure kind, Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was refused";
  return "";
}

TEST(Resume, a_used_folder_is_refused_and_keeps_what_it_holds) {
  const Folder folder;
  const Config c = nine_steps("gpt2");
  const std::string saved = go(c, folder / "run", 4).checkpoint;
  const std::string model = get(join_path(saved, kModelFile)), metrics = get(folder / "run/metrics.jsonl"), toml = get(folder / "run/config.toml");
  Config other = c;
  other.seed = 77;
  const std::string message = refusal(Failure::usage, [&] { go(other, folder / "run"); });
  EXPECT_NE(message.find("--resume"), std::string::npos) << message;
  EXPECT_NE(message.find("--overwrite"), std::string::npos) << message;
  EXPECT_TRUE(get(join_path(saved, kModelFile)) == model);
  EXPECT_EQ(get(folder / "run/metrics.jsonl"), metrics);
  EXPECT_EQ(get(folder / "run/config.toml"), toml);

  go(other, folder / "run", 2, {.overwrite = true});
  std::vector<int64_t> steps;
  for (const CheckpointInfo& info : list_checkpoints(folder / "run")) steps.push_back(info.step);
  EXPECT_EQ(steps, std::vector<int64_t>{2});
  EXPECT_EQ(steps_of(get(folder / "run/metrics.jsonl")).size(), 2u);
}

// Whoever starts over with a path that is wrong must still have the run that was there.
TEST(Resume, an_overwrite_that_cannot_start_loses_nothing) {
  const Folder folder;
  Config c = nine_steps("gpt2", {"model.vocab=256"});
  const std::string saved = go(c, folder / "run", 4).checkpoint, model = get(join_path(saved, kModelFile)), metrics = get(folder / "run/metrics.jsonl");
  c.data.path = folder / "missing.txt";
  refusal(Failure::usage, [&] { go(c, folder / "run", 0, {.overwrite = true}); });
  EXPECT_TRUE(get(join_path(saved, kModelFile)) == model);
  EXPECT_EQ(get(folder / "run/metrics.jsonl"), metrics);
}

TEST(Resume, what_makes_another_run_is_refused) {
  const Folder folder;
  const Config c = nine_steps("gpt2");
  const std::string saved = go(c, folder / "run", 4).checkpoint;
  const std::string metrics = get(folder / "run/metrics.jsonl"), toml = get(folder / "run/config.toml");
  const std::vector<void (*)(Config&)> changes = {
      [](Config& x) { x.model.layers = 3; },         [](Config& x) { x.model.init_std = 0.2; },
      [](Config& x) { x.optim.lr = 0.02; },          [](Config& x) { x.optim.name = OptimizerKind::sgd; },
      [](Config& x) { x.optim.beta2 = 0.999; },      [](Config& x) { x.optim.weight_decay = 0; },
      [](Config& x) { x.train.micro_batch = 3; },    [](Config& x) { x.train.grad_accum = 1; },
      [](Config& x) { x.train.precision = Precision::bf16; }, [](Config& x) { x.seed = 2; },
      [](Config& x) { x.train.seq_len = 36; },       [](Config& x) { x.train.steps = 12; },  // the cosine depends on it
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    Config changed = c;
    changes[i](changed);
    const std::string message = refusal(Failure::usage, [&] { resume(changed, folder / "run"); });
    EXPECT_NE(message.find("another configuration"), std::string::npos) << "change " << i << ": " << message;
    EXPECT_EQ(get(folder / "run/metrics.jsonl"), metrics);
    EXPECT_EQ(get(folder / "run/config.toml"), toml);
  }
  Config fine = c;
  fine.eval.batches = 3;
  fine.checkpoint.every = 2;
  fine.memory.budget_bytes = int64_t(1) << 30;
  fine.train.recompute = Recompute::selective;
  EXPECT_TRUE(resume(fine, folder / "run").checkpoint.ends_with(text("step-{}", kSteps)));
}

// The list of keys that differ was empty: nothing differed but what a configuration is made of.
TEST(Resume, of_another_versions_checkpoint_says_so) {
  const Folder folder;
  const Config c = nine_steps("gpt2");
  const CheckpointReader saved(go(c, folder / "run", 4).checkpoint);
  CheckpointState state = saved.state();
  state.step = 5;
  state.config_fingerprint = hash_of("the keys of another version");
  CheckpointWriter writer(folder / "run", 5);
  writer.commit(state, 0);
  const std::string message = refusal(Failure::usage, [&] { resume(c, folder / "run"); });
  EXPECT_NE(message.find("was made by another version of this program: the keys of a configuration changed since"), std::string::npos)
      << message;
}

TEST(Resume, a_constant_schedule_can_be_prolonged) {
  const Folder folder;
  Config c = nine_steps("gpt2", {"optim.schedule=constant"});
  Config shorter = c;
  shorter.train.steps = 5;
  go(shorter, folder / "run");
  const std::string a = resume(c, folder / "run").checkpoint, b = go(c, folder / "straight").checkpoint;
  for (const std::string_view name : {kModelFile, kOptimizerFile}) EXPECT_TRUE(get(join_path(a, name)) == get(join_path(b, name))) << name;
}

TEST(Resume, of_nothing_is_refused) {
  const Folder folder;
  const std::string message = refusal(Failure::usage, [&] { resume(nine_steps("gpt2"), folder / "run"); });
  EXPECT_NE(message.find("no checkpoint"), std::string::npos) << message;
}

// A finished run has nothing to do, and stays as it is.
TEST(Resume, of_a_finished_run_changes_nothing) {
  const Folder folder;
  const Config c = nine_steps("gpt2");
  const std::string saved = go(c, folder / "run").checkpoint, model = get(join_path(saved, kModelFile));
  const std::string metrics = get(folder / "run/metrics.jsonl");
  resume(c, folder / "run");
  EXPECT_EQ(latest_checkpoint(folder / "run"), saved);
  EXPECT_TRUE(get(join_path(saved, kModelFile)) == model);
  EXPECT_EQ(steps_of(get(folder / "run/metrics.jsonl")), steps_of(metrics));
}

TEST(Resume, a_step_that_does_not_fit_the_budget_is_refused_before_it_starts) {
  const Folder folder;
  Config c = nine_steps("gpt2");
  const Ref<Device> meta = open_cpu(Mode::meta);
  const int64_t needed = plan_run(c, *meta).arena.bytes;
  c.memory.budget_bytes = needed - 1;
  const std::string message = refusal(Failure::memory, [&] { go(c, folder / "run"); });
  EXPECT_NE(message.find("memory.budget"), std::string::npos) << message;
  EXPECT_FALSE(std::filesystem::exists(folder / "run/checkpoints"));
  c.memory.budget_bytes = needed;  // exactly what the plan says
  const TrainOutcome outcome = go(c, folder / "run");
  EXPECT_EQ(outcome.measured.memory->extent, needed);
}
}  // namespace
}  // namespace small
