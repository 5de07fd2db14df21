// data.documents = separate: where documents end, what a step then sees, and what is refused.
#include "reckon/data/token_file.h"
#include "reckon/train/run_data.h"
#include "tests/train/config_check.h"
#include "tests/train/small_runs.h"

namespace small {
namespace {
TEST(Documents, EndWithTheirSeparator) {
  const std::vector<int32_t> tokens = {5, 9, 1, 2, 9, 9, 4, 9, 1, 1, 1, 9};
  std::vector<int32_t> first(12), positions(12);
  find_documents(tokens.data(), 2, 6, 9, first.data(), positions.data());
  EXPECT_EQ(first, (std::vector<int32_t>{0, 0, 2, 2, 2, 5, 0, 0, 2, 2, 2, 2}));
  EXPECT_EQ(positions, (std::vector<int32_t>{0, 1, 0, 1, 2, 0, 0, 1, 0, 1, 2, 3}));
  find_documents(tokens.data(), 2, 6, -1, first.data(), positions.data());
  EXPECT_EQ(first, std::vector<int32_t>(12, 0));
}

// Of few tokens, so that each occurs in every row.
Config joined_rows(const char* model, Overrides more = {}) {
  more.push_back("model.vocab=11");
  return config(model, more);
}
Config separate(const char* model, const Overrides& more = {}) {
  Config c = joined_rows(model, more);
  c.data.documents = DocumentUse::separate;
  return c;
}
TrainStep::Result first_step(const Config& c, int32_t separator) {
  const Ref<Device> device = open_cpu(Mode::real);
  TrainStep step(c, *device);
  return step.run(0, SyntheticBatches(c.model.vocab, 3, separator));
}

// A separator that does not occur leaves every row one document; one that does changes what is seen.
TEST(Documents, ChangeAStepOnlyWhereThereAreSeveral) {
  for (const char* model : {"gpt2", "llama", "qwen"})
    for (const char* chunk : {"0", "10"}) {
      const Overrides more = {text("train.sequence_chunk={}", chunk)};
      const TrainStep::Result joined = first_step(joined_rows(model, more), 7), none = first_step(separate(model, more), -1),
                              several = first_step(separate(model, more), 7);
      EXPECT_EQ(joined.loss, none.loss) << model;
      EXPECT_EQ(joined.grad_norm, none.grad_norm) << model;
      EXPECT_NE(joined.loss, several.loss) << model;
    }
}

TEST(Documents, ThreadsAndRecomputationChangeNoBit) {
  const Config c = separate("gpt2");
  const auto trained_in = [](const Config& config_) {
    const Ref<Device> device = open_cpu(Mode::real);
    TrainStep step(config_, *device);
    const SyntheticBatches batches(config_.model.vocab, 3, 7);
    for (int64_t i = 0; i < 3; ++i) step.run(i, batches);
    return state_of(step);
  };
  const State one = trained_in(c);
  for (const int threads : {1, 5}) {
    const Threads guard(threads);
    expect_same(one, trained_in(c));
  }
  for (const Recompute mode : {Recompute::selective, Recompute::full}) {
    Config again = c;
    again.train.recompute = mode;
    expect_same(one, trained_in(again));
  }
}

TEST(Documents, EvaluationSeparatesThem) {
  const auto loss = [](const Config& c) {
    const Ref<Device> device = open_cpu(Mode::real);
    TrainStep step(c, *device);
    return step.evaluate(SyntheticBatches(c.model.vocab, 3, 7), 4);
  };
  EXPECT_NE(loss(separate("llama")), loss(joined_rows("llama")));
}

std::string refusal_of(const Overrides& overrides) {
  return usage_error([&] { open_run_data(parse_config("", "test", overrides), testing::TempDir(), false); });
}
TEST(Documents, NeedASeparatorThatCanOccur) {
  const Folder folder;
  const std::string tokens = folder / "tokens.npy", plain = folder / "text.txt";
  TokenFileWriter writer(tokens, 11);
  writer.append(std::vector<int32_t>(500, 3));
  writer.finish();
  scratch::put(plain, std::string(3000, 'x'));
  expect_contains(refusal_of({"data.documents=separate"}), "synthetic tokens have no end-of-text token");
  expect_contains(refusal_of({"data.documents=separate", "data.path=" + tokens, "model.vocab=11"}),
                  "no tokenizer is known for this token file");
  expect_contains(refusal_of({"data.documents=separate", "data.path=" + plain}), "a text is tokenized without special tokens");
  expect_contains(refusal_of({"data.separator=256"}), "data.separator = 256 is no token of model.vocab = 256");
  expect_contains(refusal_of({"data.documents=separate", "model.preset=cruncher"}), "the cruncher has no documents");
  const Config c = parse_config("", "test", Overrides{"data.documents=separate", "data.separator=10", "data.path=" + plain});
  const RunData data = open_run_data(c, folder / "cache", false);
  EXPECT_EQ(data.train->separator(), 10);
  ASSERT_TRUE(data.validation);
  EXPECT_EQ(data.validation->separator(), 10);
}
}  // namespace
}  // namespace small
