// A run of a bpe:300 model was overwritten by one on bytes and left its tokenizer.json behind: generation then read bytes as merged tokens.
// And a run continued with data.path naming another text trained a second tokenizer on it: the same ids, other words, no complaint.
#include <filesystem>

#include "reckon/train/saved_run.h"
#include "reckon/plan/run_plan.h"
#include "tests/train/small_runs.h"

namespace small {
namespace {
void write_text(const std::string& path, const char* words) {
  std::ofstream out(path, std::ios::binary);
  for (int i = 0; i < 900; ++i) out << words << i * i % 977 << "\n";
}
TrainOutcome go(const Config& c, const TrainOptions& options) {
  const Ref<Device> device = open_cpu(Mode::real), meta = open_cpu(Mode::meta);
  return plan_and_train(c, *device, *meta, options);
}
Config on_text(const std::string& run_dir, const std::string& path, const std::string& tokenizer) {
  return config("gpt2", {"model.vocab=300", "train.steps=3", "train.stop_after=2", "run.dir=" + run_dir, "data.path=" + path,
                         "data.tokenizer=" + tokenizer});
}

TEST(RunTokenizer, goes_with_the_run_that_is_overwritten) {
  const Folder folder;
  const std::string text = folder / "text.txt", run = folder / "run";
  write_text(text, "in the beginning ");
  go(on_text(run, text, "bpe:300"), {.quiet = true});
  EXPECT_TRUE(std::filesystem::exists(join_path(run, kRunTokenizer)));
  go(on_text(run, text, "bytes"), {.overwrite = true, .quiet = true});
  EXPECT_FALSE(std::filesystem::exists(join_path(run, kRunTokenizer)));
  const Ref<Device> device = open_cpu(Mode::real);
  EXPECT_EQ(load_model(run, {}, *device).tokenizer->kind(), "bytes");
}

TEST(RunTokenizer, stays_when_the_text_moves_and_refuses_another_text) {
  const Folder folder;
  const std::string text = folder / "text.txt", moved = folder / "moved.txt", other = folder / "other.txt", run = folder / "run";
  write_text(text, "in the beginning ");
  write_text(moved, "in the beginning ");
  write_text(other, "of quite another kind; ");
  go(on_text(run, text, "bpe:300"), {.quiet = true});
  const std::string before = get(join_path(run, kRunTokenizer));
  EXPECT_THROW(go(on_text(run, other, "bpe:300"), {.resume = true, .quiet = true}), Error);
  EXPECT_TRUE(get(join_path(run, kRunTokenizer)) == before);
  EXPECT_TRUE(go(on_text(run, moved, "bpe:300"), {.resume = true, .quiet = true}).checkpoint.ends_with("step-3"));
  EXPECT_TRUE(get(join_path(run, kRunTokenizer)) == before);
  EXPECT_EQ(load_config(join_path(run, "config.toml"), {}).data.tokenizer, "bpe:300");
}

// eval and generate with another model.layers called the checkpoint corrupt.
TEST(SavedRun, a_trained_model_cannot_be_changed) {
  const Folder folder;
  const std::string text = folder / "text.txt", run = folder / "run";
  write_text(text, "in the beginning ");
  go(on_text(run, text, "bytes"), {.quiet = true});
  const Ref<Device> device = open_cpu(Mode::real);
  for (const char* change : {"model.layers=1", "train.precision=bf16"}) {
    try {
      load_model(run, Overrides{change}, *device);
      ADD_FAILURE() << change;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Failure::usage) << error.what();
    }
  }
}

// The dry run had no save, so memory.phases.save was 0 in the prediction and the size of the model in the measurement.
TEST(DryRun, predicts_every_phase_of_a_run) {
  const Folder folder;
  const std::string text = folder / "text.txt";
  write_text(text, "in the beginning ");
  Config c = on_text(folder / "run", text, "bytes");
  c.train.stop_after = 0;  // a stopped run has no last evaluation
  const TrainOutcome o = go(c, {.quiet = true});
  EXPECT_EQ(o.predicted.memory->phase_peak, o.measured.memory->phase_peak);
  EXPECT_EQ(o.predicted.memory->peak, o.measured.memory->peak);
  EXPECT_GT(o.measured.memory->phase_peak[size_t(Phase::save)], 0);
}
}  // namespace
}  // namespace small
