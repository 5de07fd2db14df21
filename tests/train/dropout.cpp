// model.dropout: the masks of a step depend on seed, step and sample, not on how the step is cut; evaluation has none.
#include <cmath>

#include "reckon/engine/context.h"
#include "tests/support/gradient_watcher.h"
#include "tests/train/small_runs.h"

namespace small {
namespace {
struct Step {
  double loss = 0;
  std::map<std::string, std::vector<double>> gradients;
};
// Step `number` on the batches of step 0.
struct FirstBatch final : BatchSource {
  FirstBatch(int64_t vocab, int64_t samples) : source(vocab, 3), each(samples) {}
  void fill(int64_t first, int64_t count, int64_t seq_len, int32_t* inputs, int32_t* targets) const override {
    source.fill(first % each, count, seq_len, inputs, targets);
  }
  SyntheticBatches source;
  int64_t each;
};
Step run_step(const Config& c, int64_t number = 0) {
  const Ref<Device> device = open_cpu(Mode::real);
  TrainStep step(c, *device);
  Step s;
  const test::WatchGradients watcher(step, [&](const Parameters& parameters) {
    for (const Parameter& p : parameters.all()) s.gradients[p.name] = p.value.grad().to_vector();
  });
  s.loss = step.run(number, FirstBatch(c.model.vocab, c.train.micro_batch * c.train.grad_accum)).loss;
  return s;
}

// share: of the largest gradient, that rounding may change.
void expect_close(const Step& a, const Step& b, double share) {
  EXPECT_NEAR(a.loss, b.loss, share * std::abs(a.loss));
  for (const auto& [name, theirs] : a.gradients) {
    const std::vector<double>& ours = b.gradients.at(name);
    double most = 0, worst = 0;
    for (size_t i = 0; i < ours.size(); ++i) {
      most = std::max(most, std::abs(theirs[i]));
      worst = std::max(worst, std::abs(ours[i] - theirs[i]));
    }
    EXPECT_GT(most, 0) << name;
    EXPECT_LE(worst, share * most) << name;
  }
}

constexpr const char* kDropout = "model.dropout=0.3";

TEST(Dropout, OfMicroBatchesIsThatOfTheWholeBatch) {
  for (const char* model : {"gpt2", "llama"}) {
    const Step whole = run_step(config(model, {kDropout, "train.micro_batch=6"}));
    for (const int parts : {2, 3, 6}) {
      SCOPED_TRACE(text("{} in {} parts", model, parts));
      const Step cut = run_step(config(model, {kDropout, text("train.micro_batch={}", 6 / parts), text("train.grad_accum={}", parts)}));
      // Sums over the tokens in another order, whose errors walk randomly.
      expect_close(whole, cut, epsilon(DType::f32) * std::sqrt(6.0 * 37));
    }
  }
}

TEST(Dropout, OfChunksIsThatOfWholeSequences) {
  for (const char* model : {"gpt2", "llama"})
    for (const char* more : {"train.recompute=none", "train.recompute=full", "train.fused_loss=false"}) {
      SCOPED_TRACE(text("{} {}", model, more));
      const Step whole = run_step(config(model, {kDropout, more})),
                 cut = run_step(config(model, {kDropout, more, "train.sequence_chunk=10"}));
      // As tests/train/sequence_chunks.cpp: some ten roundings a layer, and sums over tokens that are cut elsewhere.
      expect_close(whole, cut, std::sqrt(10.0 * 2) * (1 + std::sqrt(3.0 * 37)) * epsilon(DType::f32));
    }
}

TEST(Dropout, DrawsAnewInEachStepAndForEachSeed) {
  const Config c = config("gpt2", {kDropout});
  const double first = run_step(c).loss, again = run_step(c).loss, second = run_step(c, 1).loss;
  EXPECT_EQ(first, again);
  EXPECT_NE(first, second) << "another step of the same batch has another mask";
  const Config none = config("gpt2");
  EXPECT_EQ(run_step(none).loss, run_step(none, 1).loss) << "a test whose batches differ";
  EXPECT_NE(run_step(none).loss, first);
}

TEST(Dropout, IsNotForEvaluation) {
  const auto evaluated = [](const Config& c, int64_t steps) {
    const Ref<Device> device = open_cpu(Mode::real);
    TrainStep step(c, *device);
    const SyntheticBatches batches(c.model.vocab, 5);
    std::vector<double> losses = {step.evaluate(batches, 7)};
    for (int64_t i = 0; i < steps; ++i) losses.push_back(step.run(i, batches).loss);
    return losses;
  };
  for (const char* more : {"train.sequence_chunk=0", "train.sequence_chunk=10"}) {
    const std::vector<double> with = evaluated(config("gpt2", {kDropout, more}), 1), without = evaluated(config("gpt2", {more}), 1);
    EXPECT_EQ(with[0], without[0]);
    EXPECT_NE(with[1], without[1]) << "training after an evaluation drops again";
  }
}

// Nothing is kept for a mask: the activations between forward and backward are as many bytes as without.
TEST(Dropout, KeepsNoMask) {
  const auto activations = [](const Config& c) {
    const Ref<Device> meta = open_cpu(Mode::meta);
    TrainStep step(c, *meta);
    step.run(0, SyntheticBatches(c.model.vocab, 3));
    return meta->allocator().ledger().at_peak[size_t(Category::activation)];
  };
  for (const char* model : {"gpt2", "llama"}) EXPECT_EQ(activations(config(model, {kDropout})), activations(config(model)));
}

TEST(Dropout, RefusesWhatItCannotBe) {
  for (const char* p : {"1", "-0.1", "nan", "2"})
    EXPECT_THROW(parse_config("", "test", Overrides{text("model.dropout={}", p)}), Error) << p;
  try {
    parse_config("", "test", Overrides{"model.preset=cruncher", "model.dropout=0.1"});
    ADD_FAILURE() << "the cruncher drops nothing";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Failure::usage);
    EXPECT_NE(std::string(error.what()).find("model.dropout = 0.1: the cruncher"), std::string::npos) << error.what();
  }
}
}  // namespace
}  // namespace small
