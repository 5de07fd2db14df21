// Evaluation: every held-out window counts once, whatever the micro-batch; and the dry run knows whether there will be one.
#include <cmath>
#include <set>

#include "reckon/io/files.h"
#include "reckon/train/run_data.h"
#include "reckon/plan/run_plan.h"
#include "tests/train/small_runs.h"

namespace small {
namespace {
// Notes which samples are asked for.
class Witness final : public BatchSource {
 public:
  explicit Witness(int64_t vocab) : source_(vocab, 5) {}
  void fill(int64_t first, int64_t count, int64_t seq_len, int32_t* inputs, int32_t* targets) const override {
    for (int64_t i = first; i < first + count; ++i) EXPECT_TRUE(seen_.insert(i).second) << "sample " << i << " a second time";
    source_.fill(first, count, seq_len, inputs, targets);
  }
  mutable std::set<int64_t> seen_;

 private:
  SyntheticBatches source_;
};

double loss_of(int64_t windows, int64_t micro_batch, const Overrides& more = {}) {
  Overrides o = more;
  o.push_back(text("train.micro_batch={}", micro_batch));
  const Config c = config("gpt2", o);
  const Ref<Device> device = open_cpu(Mode::real);
  TrainStep step(c, *device);
  const Witness source(c.model.vocab);
  const double loss = step.evaluate(source, windows);
  EXPECT_EQ(int64_t(source.seen_.size()), windows);
  EXPECT_EQ(*source.seen_.rbegin(), windows - 1);
  return loss;
}

// The last micro-batch began again with the first windows, and these counted twice.
TEST(Evaluation, counts_each_window_once) {
  for (const char* precision : {"fp32", "bf16", "fp8"})
    for (const int64_t windows : {1, 2, 7, 9}) {
      const Overrides o = {text("train.precision={}", precision), "train.seq_len=11"};
      double sum = 0;
      {
        const Ref<Device> device = open_cpu(Mode::real);
        Overrides alone = o;
        alone.push_back("train.micro_batch=1");
        const Config c = config("gpt2", alone);
        TrainStep step(c, *device);
        struct Shifted final : BatchSource {
          Shifted(const SyntheticBatches& s, int64_t f) : source(s), from(f) {}
          void fill(int64_t first, int64_t count, int64_t seq_len, int32_t* inputs, int32_t* targets) const override {
            source.fill(from + first, count, seq_len, inputs, targets);
          }
          const SyntheticBatches& source;
          int64_t from;
        };
        const SyntheticBatches source(c.model.vocab, 5);
        for (int64_t i = 0; i < windows; ++i) sum += step.evaluate(Shifted(source, i), 1);
      }
      // Rows are independent and go through the same kernels: only means of different lengths round differently.
      const double mean = sum / double(windows), tolerance = 4 * epsilon(DType::f32) * mean;
      for (const int64_t micro_batch : {1, 2, 3, 7, 8, 20})
        EXPECT_NEAR(loss_of(windows, micro_batch, o), mean, tolerance) << precision << " " << windows << " windows in " << micro_batch;
    }
}

// A micro-batch that is not full has the shapes of one that is: the plan holds for both.
TEST(Evaluation, a_short_micro_batch_makes_the_same_trace) {
  const Config c = config("llama");
  const auto trace = [&](Mode mode, int64_t windows) {
    const Ref<Device> device = open_cpu(mode);
    TrainStep step(c, *device);
    step.evaluate(SyntheticBatches(c.model.vocab, 5), windows);
    return device->allocator().trace_hash();
  };
  ASSERT_EQ(c.train.micro_batch, 3);
  EXPECT_EQ(trace(Mode::real, 3), trace(Mode::meta, 1));
  EXPECT_EQ(trace(Mode::real, 2), trace(Mode::meta, 3));
  EXPECT_EQ(trace(Mode::real, 5), trace(Mode::meta, 6));
  EXPECT_NE(trace(Mode::meta, 3), trace(Mode::meta, 4));
}

class EvaluatedRun : public ::testing::Test {
 protected:
  // A text of which the tail holds `windows` windows of 16 bytes and their last target.
  Config run(int64_t windows, const Overrides& more = {}) {
    const int64_t held = windows > 0 ? windows * 16 + 1 : 16, whole = 10 * held;
    std::string letters;
    for (int64_t i = 0; i < whole; ++i) letters += char('a' + i * i % 23);
    const std::string path = folder_ / text("text{}.txt", windows);
    write_file(path, letters);
    Overrides o = {"model.layers=1", "model.vocab=256",   "train.seq_len=16",
                   "train.steps=4",  "data.path=" + path, "data.validation_fraction=0.1"};
    o.insert(o.end(), more.begin(), more.end());
    Config c = config("gpt2", o);
    c.run_dir = folder_ / text("run{}", runs_++);
    return c;
  }
  TrainOutcome go(const Config& c, bool resume = false) {
    const Ref<Device> device = open_cpu(Mode::real), meta = open_cpu(Mode::meta);
    const TrainOutcome o = plan_and_train(c, *device, *meta, {.resume = resume, .quiet = true});
    EXPECT_EQ(o.predicted.memory->phase_peak, o.measured.memory->phase_peak);
    EXPECT_EQ(o.predicted.memory->peak, o.measured.memory->peak);
    EXPECT_EQ(o.predicted.memory->extent, o.measured.memory->extent);
    EXPECT_EQ(o.predicted.memory->at_peak, o.measured.memory->at_peak);
    EXPECT_EQ(o.measured.loss_validation.has_value(), evaluates(o)) << "a phase without its result";
    return o;
  }
  static bool evaluates(const TrainOutcome& o) { return o.measured.memory->phase_peak[size_t(Phase::eval)] > 0; }

  Folder folder_;
  int runs_ = 0;
};

TEST_F(EvaluatedRun, the_windows_of_the_tail_count_once) {
  for (const int64_t windows : {1, 4, 7}) {
    const Config c = run(windows);
    const RunData data = open_run_data(c, c.run_dir);
    EXPECT_EQ(data.validation_windows, windows);
    EXPECT_TRUE(evaluates(go(c)));
  }
  // eval.batches are micro-batches, here of 3 windows.
  Config c = run(7, {"eval.batches=2"});
  EXPECT_EQ(open_run_data(c, c.run_dir).validation_windows, 6);
  c.eval.batches = 1 << 20;
  EXPECT_EQ(open_run_data(c, c.run_dir).validation_windows, 7);
}

// With a tail that is too short for one window nothing is evaluated; the dry run had promised it.
TEST_F(EvaluatedRun, a_tail_without_a_window_is_no_evaluation) {
  EXPECT_FALSE(evaluates(go(run(0))));
  EXPECT_FALSE(evaluates(go(run(0, {"eval.every=1"}))));
  EXPECT_FALSE(evaluates(go(run(3, {"data.validation_fraction=0"}))));
}

TEST_F(EvaluatedRun, a_run_that_stops_before_its_evaluation_makes_none) {
  Config c = run(3, {"train.stop_after=2"});
  EXPECT_FALSE(evaluates(go(c)));
  c.train.stop_after = 3;
  EXPECT_FALSE(evaluates(go(c, true)));
  c.train.stop_after = 4;
  EXPECT_TRUE(evaluates(go(c, true)));
  EXPECT_TRUE(evaluates(go(run(3, {"train.stop_after=2", "eval.every=2"})))) << "also where it stops";
  EXPECT_TRUE(evaluates(go(run(3, {"train.stop_after=3", "eval.every=2"}))));
  c = run(3, {"train.stop_after=2", "eval.every=3"});
  EXPECT_FALSE(evaluates(go(c)));
  c.train.stop_after = 3;
  EXPECT_TRUE(evaluates(go(c, true)));
}

// The plan is refused before the text is read if even the steps do not fit, and after it if the evaluation does not.
TEST_F(EvaluatedRun, the_budget_covers_it) {
  Config c = run(3);
  const int64_t needed = go(c).predicted.memory->extent;
  c = run(3, {text("memory.budget={}", needed)});
  go(c);
  c = run(3, {text("memory.budget={}", needed - 1)});
  EXPECT_THROW(go(c), Error);
}
}  // namespace
}  // namespace small
