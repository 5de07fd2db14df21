#include "reckon/io/checkpoint.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "reckon/io/checkpoint_state.h"
#include "tests/io/files_scratch.h"

using namespace reckon;
using scratch::expect_error;
using scratch::FileSizeLimit;
using scratch::Folder;
using scratch::get;
using scratch::put;

namespace {
CheckpointState state_of(int64_t step) { return {step, -7, step * 8, "0123abcd", {{"note", "caf\xC3\xA9"}, {"loss_scale", "0x1p+15"}}}; }

// A model and an optimizer whose values tell the step and the version.
std::string save(const std::string& run, int64_t step, int64_t keep = 0, float version = 0, int64_t elements = 4) {
  const std::vector<float> weights(size_t(elements), float(step) + version), moments(size_t(2 * elements), version);
  const TensorToWrite model[] = {{"w", {{elements}, DType::f32}, weights.data()}};
  const TensorToWrite optimizer[] = {{"m", {{2, elements}, DType::f32}, moments.data()}};
  CheckpointWriter writer(run, step);
  writer.add_safetensors(kModelFile, model);
  writer.add_safetensors(kOptimizerFile, optimizer);
  return writer.commit(state_of(step), keep);
}

float version_of(const std::string& path) {
  const CheckpointReader reader(path);
  float m[8];
  reader.open_safetensors(kOptimizerFile).read("m", {{2, 4}, DType::f32}, m);
  return m[0];
}

std::vector<int64_t> steps_in(const std::string& run) {
  std::vector<int64_t> steps;
  for (const CheckpointInfo& info : list_checkpoints(run)) steps.push_back(info.step);
  return steps;
}
using Steps = std::vector<int64_t>;
}  // namespace

TEST(Checkpoint, RoundTrip) {
  const Folder run;
  const std::string path = save(run.path(), 12);
  EXPECT_EQ(path, run / "checkpoints/step-12");
  EXPECT_EQ(list_directory(path), (std::vector<std::string>{"model.safetensors", "optimizer.safetensors", "state.json"}));
  const CheckpointReader reader(path + "/");
  CheckpointState expected = state_of(12);
  std::reverse(expected.extra.begin(), expected.extra.end());  // written sorted
  EXPECT_EQ(reader.state(), expected);
  EXPECT_EQ(reader.files(), (std::vector<std::string>{"model.safetensors", "optimizer.safetensors"}));
  EXPECT_TRUE(reader.has(kModelFile));
  EXPECT_FALSE(reader.has("other"));
  float w[4];
  reader.open_safetensors(kModelFile).read("w", {{4}, DType::f32}, w);
  EXPECT_EQ(w[3], 12.0f);
  expect_error(Failure::corrupt, "the checkpoint has no file tokenizer.json", [&] { reader.read_file("tokenizer.json", 100); });
}

TEST(Checkpoint, EqualContentGivesEqualBytes) {
  const Folder a, b;
  const std::string one = save(a.path(), 3), two = save(b.path(), 3);
  for (const std::string& name : list_directory(one)) EXPECT_EQ(get(join_path(one, name)), get(join_path(two, name))) << name;
}

TEST(Checkpoint, TheStateFileIsReadable) {
  const Folder run;
  CheckpointWriter writer(run.path(), 2);
  writer.add_file("notes.txt", "abc");
  const std::string path = writer.commit({2, 1, 16, "f00d", {}}, 0);
  const std::string above =
      "{\n  \"format\": \"reckon-checkpoint\",\n  \"version\": 1,\n  \"step\": 2,\n  \"seed\": 1,\n  \"data_position\": 16,\n"
      "  \"config_fingerprint\": \"f00d\",\n  \"extra\": {},\n  \"files\": {\n    \"notes.txt\": {\n      \"bytes\": 3,\n"
      "      \"xxh3_128\": \"06b05ab6733a618578af5f94892f3950\"\n    }\n  },\n  \"xxh3_128_of_the_above\": \"";
  EXPECT_EQ(get(join_path(path, "state.json")), above + hash_of(above) + "\"\n}\n");
  EXPECT_EQ(CheckpointReader(path).read_file("notes.txt", 3), "abc");
}

TEST(Checkpoint, ListsByStepAndIgnoresOtherNames) {
  const Folder run;
  EXPECT_EQ(latest_checkpoint(run.path()), "");
  for (int64_t step : {9, 10, 100, 0}) save(run.path(), step);
  for (const char* name : {"step-", "step--1", "step-07", "step-7x", "step-99999999999999999999", "other", ".tmp-step-11"})
    make_directories(run / "checkpoints/" + name);
  put(run / "checkpoints/step-500", "a file");
  EXPECT_EQ(steps_in(run.path()), (Steps{0, 9, 10, 100}));
  EXPECT_EQ(latest_checkpoint(run.path()), run / "checkpoints/step-100");
}

TEST(Checkpoint, KeepsTheNewest) {
  const Folder run;
  for (int64_t step = 1; step <= 4; ++step) save(run.path(), step, 2);
  EXPECT_EQ(steps_in(run.path()), (Steps{3, 4}));
  // One that was just written stays, even if later steps exist.
  save(run.path(), 2, 1);
  EXPECT_EQ(steps_in(run.path()), (Steps{2}));
  EXPECT_EQ(list_directory(run / "checkpoints"), std::vector<std::string>{"step-2"});
}

TEST(Checkpoint, WithoutCommitNothingRemains) {
  const Folder run;
  save(run.path(), 1);
  {
    CheckpointWriter writer(run.path(), 2);
    writer.add_file("f", "x");
    EXPECT_TRUE(path_exists(run / "checkpoints/.tmp-step-2/f"));
  }
  EXPECT_EQ(list_directory(run / "checkpoints"), std::vector<std::string>{"step-1"});
  CheckpointWriter writer(run.path(), 2);
  expect_error(Failure::failed, "begun for step 2 cannot be committed with the state of step 3", [&] { writer.commit(state_of(3), 0); });
  expect_error(Failure::failed, "is no name for a file", [&] { writer.add_file("../escape", "x"); });
  expect_error(Failure::failed, "is no name for a file", [&] { writer.add_file("state.json", "x"); });
  writer.commit(state_of(2), 0);
  expect_error(Failure::failed, "has been committed or given up", [&] { writer.add_file("f", "x"); });
}

TEST(Checkpoint, ReplacesAnExistingStep) {
  const Folder run;
  save(run.path(), 5, 2, 1);
  const CheckpointReader before(run / "checkpoints/step-5");
  save(run.path(), 5, 2, 2);
  EXPECT_EQ(version_of(run / "checkpoints/step-5"), 2);
  EXPECT_EQ(list_directory(run / "checkpoints"), std::vector<std::string>{"step-5"});
  // A reader goes on reading the files that it verified.
  float m[8];
  before.open_safetensors(kOptimizerFile).read("m", {{2, 4}, DType::f32}, m);
  EXPECT_EQ(m[0], 1);
}

TEST(Checkpoint, StoppedBetweenTheRenamesOfAReplacement) {
  const Folder run;
  save(run.path(), 5, 2, 1);
  rename_path(run / "checkpoints/step-5", run / "checkpoints/.old-step-5");
  EXPECT_EQ(steps_in(run.path()), (Steps{5}));
  EXPECT_EQ(version_of(latest_checkpoint(run.path())), 1);
  save(run.path(), 6, 0, 2);  // the next save gives it its name back
  EXPECT_EQ(list_directory(run / "checkpoints"), (std::vector<std::string>{"step-5", "step-6"}));
  EXPECT_EQ(version_of(run / "checkpoints/step-5"), 1);
}

TEST(Checkpoint, StoppedAfterTheRenamesOfAReplacement) {
  const Folder run;
  save(run.path(), 5, 2, 1);
  rename_path(run / "checkpoints/step-5", run / "checkpoints/.old-step-5");
  std::filesystem::create_directory(run / "checkpoints/.tmp-removed-step-4");
  std::filesystem::copy(run / "checkpoints/.old-step-5", run / "checkpoints/step-5");
  EXPECT_EQ(list_checkpoints(run.path()).size(), 1u);
  EXPECT_EQ(latest_checkpoint(run.path()), run / "checkpoints/step-5");
  save(run.path(), 6);
  EXPECT_EQ(list_directory(run / "checkpoints"), (std::vector<std::string>{"step-5", "step-6"}));
}

TEST(Checkpoint, AFullDiskAtAnyPointLeavesThePreviousOne) {
  const Folder run;
  save(run.path(), 1);
  CheckpointState large = state_of(2);
  large.extra.push_back({"large", std::string(30'000, 'x')});
  const std::vector<float> data(10'000, 1.0f);
  const TensorToWrite model[] = {{"w", {{1'000}, DType::f32}, data.data()}}, optimizer[] = {{"m", {{4'000}, DType::f32}, data.data()}};
  int saved = 0, refused = 0;
  // 4,072 bytes of model, 16,072 of optimizer, 30 KB of state: the limit stops each of them in turn.
  for (rlim_t bytes = 0; bytes <= 36'000; bytes += 1'000) {
    const FileSizeLimit limit(bytes);
    try {
      CheckpointWriter writer(run.path(), 2);
      writer.add_safetensors(kModelFile, model);
      writer.add_safetensors(kOptimizerFile, optimizer);
      writer.commit(large, 0);
      ++saved;
    } catch (const Error& error) {
      const std::string what = error.what(), file = bytes < 4'072    ? "model.safetensors"
                                                    : bytes < 16'072 ? "optimizer.safetensors"
                                                                     : "state.json";
      EXPECT_NE(what.find(file + ": File too large; it needs "), what.npos) << bytes << ": " << what;
      EXPECT_EQ(list_directory(run / "checkpoints"), std::vector<std::string>{"step-1"});
      EXPECT_EQ(version_of(latest_checkpoint(run.path())), 0);
      ++refused;
    }
  }
  EXPECT_GE(refused, 30);
  EXPECT_GE(saved, 4);
  EXPECT_EQ(CheckpointReader(latest_checkpoint(run.path())).state().step, 2);
}

TEST(Checkpoint, AFullDiskLeavesAReplacedStepAsItWas) {
  const Folder run;
  save(run.path(), 5, 0, 1);
  {
    const FileSizeLimit limit(1'000);
    expect_error(Failure::failed, "it needs", [&] { save(run.path(), 5, 0, 2, 10'000); });
  }
  EXPECT_EQ(list_directory(run / "checkpoints"), std::vector<std::string>{"step-5"});
  EXPECT_EQ(version_of(run / "checkpoints/step-5"), 1);
}

// A process that saves over and over, the same step and the next, is killed at many moments: what is listed must always load.
TEST(Checkpoint, KilledAtAnyMomentEveryListedCheckpointLoads) {
  const Folder run;
  save(run.path(), 0, 2);
  size_t leftovers = 0;
  for (int round = 0; round < 40 || (leftovers == 0 && round < 1'000); ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      for (int64_t i = 0;; ++i) save(run.path(), round / 4, 2, float(i));
    }
    ::usleep(useconds_t(700 * round % 9'000 + 300));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    const auto listed = list_checkpoints(run.path());
    ASSERT_GE(listed.size(), 1u);
    for (const CheckpointInfo& info : listed) EXPECT_EQ(CheckpointReader(info.path).state().step, info.step) << round;
    for (const std::string& name : list_directory(run / "checkpoints")) leftovers += name[0] == '.';
  }
  EXPECT_GT(leftovers, 0u);  // some round was cut in the middle of a save
  save(run.path(), 1000, 1);
  EXPECT_EQ(list_directory(run / "checkpoints"), std::vector<std::string>{"step-1000"});
}
