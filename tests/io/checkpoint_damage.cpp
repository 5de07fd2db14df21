// A damaged checkpoint must never load: every byte of every file, every length, every missing file.
#include "reckon/io/checkpoint.h"
#include "reckon/io/checkpoint_state.h"
#include "tests/io/files_scratch.h"

using namespace reckon;
using scratch::expect_error;
using scratch::Folder;
using scratch::get;
using scratch::put;

namespace {
const char* const kFiles[] = {"model.safetensors", "optimizer.safetensors", "state.json"};

std::string save(const std::string& run, int64_t step) {
  const float w[2] = {float(step), 1};
  const TensorToWrite model[] = {{"w", {{2}, DType::f32}, w}}, optimizer[] = {{"m", {{1}, DType::f32}, w}};
  CheckpointWriter writer(run, step);
  writer.add_safetensors(kModelFile, model);
  writer.add_safetensors(kOptimizerFile, optimizer);
  return writer.commit({step, 1, step, "f00d", {}}, 0);
}

// With an older one that is intact, the way out is named.
void expect_refused(const std::string& path, const std::string& file, const std::string& older) {
  expect_error(Failure::corrupt, join_path(path, file) + ": ", [&] { CheckpointReader reader(path); });
  expect_error(Failure::corrupt, "; " + older + " is intact: remove " + path + " to use that",
               [&] { CheckpointReader reader(path); });
}
}  // namespace

TEST(CheckpointDamage, EveryFlippedBitIsFound) {
  const Folder run;
  const std::string older = save(run.path(), 1), path = save(run.path(), 2);
  for (const char* file : kFiles) {
    const std::string whole = join_path(path, file), good = get(whole);
    for (size_t at = 0; at < good.size(); ++at) {
      std::string bad = good;
      bad[at] = char(bad[at] ^ 1 << at % 8);
      put(whole, bad);
      expect_refused(path, file, older);
      if (testing::Test::HasFailure()) FAIL() << file << " byte " << at;
    }
    put(whole, good);
  }
  EXPECT_EQ(CheckpointReader(path).state().step, 2);
}

TEST(CheckpointDamage, EveryLengthButTheRightOneIsFound) {
  const Folder run;
  const std::string older = save(run.path(), 1), path = save(run.path(), 2);
  for (const char* file : kFiles) {
    const std::string whole = join_path(path, file), good = get(whole);
    for (size_t size = 0; size < good.size(); ++size) {
      put(whole, good.substr(0, size));
      expect_refused(path, file, older);
      if (testing::Test::HasFailure()) FAIL() << file << " cut to " << size;
    }
    for (const char* tail : {" ", "\n", "}"}) {
      put(whole, good + tail);
      expect_refused(path, file, older);
    }
    put(whole, good);
  }
}

TEST(CheckpointDamage, AMissingFileIsFound) {
  for (const char* file : kFiles) {
    const Folder run;
    const std::string older = save(run.path(), 1), path = save(run.path(), 2);
    remove_tree(join_path(path, file));
    expect_refused(path, file, older);
    make_directories(join_path(path, file));
    expect_error(Failure::corrupt, std::string(file) + " is a directory", [&] { CheckpointReader reader(path); });
  }
  const Folder run;
  expect_error(Failure::usage, "there is no checkpoint folder", [&] { CheckpointReader reader(run / "checkpoints/step-1"); });
}

// Generation must work from a checkpoint whose optimizer file is gone, and still find damage in what it reads.
TEST(CheckpointDamage, OneFileCanBeReadWithoutTheOthers) {
  const Folder run;
  save(run.path(), 1);
  const std::string path = save(run.path(), 2), model = join_path(path, kModelFile);
  remove_tree(join_path(path, kOptimizerFile));
  {
    const CheckpointReader reader(path, kModelFile);
    EXPECT_EQ(reader.files(), std::vector<std::string>{std::string(kModelFile)});
    EXPECT_EQ(reader.open_safetensors(kModelFile).entries().size(), 1u);
    expect_error(Failure::corrupt, "has no file optimizer.safetensors", [&] { reader.open_safetensors(kOptimizerFile); });
  }
  const std::string good = get(model);
  put(model, good.substr(0, good.size() - 1));
  expect_error(Failure::corrupt, "model.safetensors: is damaged", [&] { CheckpointReader reader(path, kModelFile); });
  put(model, good);
  put(join_path(path, kStateFile), "{}");
  expect_error(Failure::corrupt, "state.json: is damaged", [&] { CheckpointReader reader(path, kModelFile); });
}

TEST(CheckpointDamage, TheWayOutSkipsOthersThatAreDamagedToo) {
  const Folder run;
  const std::string first = save(run.path(), 1), second = save(run.path(), 2), third = save(run.path(), 3);
  put(join_path(second, kFiles[0]), "x");
  put(join_path(third, kFiles[1]), "x");
  expect_refused(third, kFiles[1], first);
  put(join_path(first, kFiles[2]), "x");
  expect_error(Failure::corrupt, "no other checkpoint beside it is intact", [&] { CheckpointReader reader(third); });
}

// Files of one checkpoint in another: each is whole, together they are not what was saved.
TEST(CheckpointDamage, MixedCheckpointsAreFound) {
  const Folder run;
  const std::string first = save(run.path(), 1), second = save(run.path(), 2);
  put(join_path(second, kFiles[0]), get(join_path(first, kFiles[0])));
  expect_refused(second, kFiles[0], first);
}

namespace {
// A state whose own hash is right, so that only its content is wrong.
std::string sealed(const std::string& fields) {
  const std::string above = "{\n  " + fields + ",\n  \"xxh3_128_of_the_above\": \"";
  return above + hash_of(above) + "\"\n}\n";
}
const std::string kGood =
    "\"format\": \"reckon-checkpoint\", \"version\": 1, \"step\": 1, \"seed\": 1, \"data_position\": 0, \"config_fingerprint\": \"\", "
    "\"extra\": {}, "
    "\"files\": {}";

std::string with(const std::string& from, const std::string& to) {
  std::string fields = kGood;
  fields.replace(fields.find(from), from.size(), to);
  return sealed(fields);
}
}  // namespace

TEST(CheckpointDamage, AForgedStateIsStillChecked) {
  const auto refused = [](const std::string& text, const std::string& part, Failure kind = Failure::corrupt) {
    expect_error(kind, part, [&] { detail::parse_state(text, "state.json"); });
  };
  EXPECT_EQ(detail::parse_state(sealed(kGood), "state.json").state.step, 1);
  refused(with("\"step\": 1", "\"step\": -1"), "step is -1");
  refused(with("\"step\": 1", "\"step\": 1.0"), "step must be an integer");
  refused(with("\"step\": 1", "\"step\": 9223372036854775808"), "step is 9223372036854775808");
  refused(with("\"seed\": 1, ", ""), "has no key 'seed'");
  refused(with("\"seed\": 1", "\"seed\": 1, \"seed\": 2"), "duplicate JSON key 'seed'");
  refused(with("reckon-checkpoint", "other"), "format is not that of a checkpoint");
  refused(with("\"version\": 1", "\"version\": 2"), "has version 2, but this Reckon reads up to 1", Failure::failed);
  refused(with("\"files\": {}", "\"files\": 7"), "files must be an array or an object");
  refused(with("\"extra\": {}", "\"extra\": {\"a\": 1}"), "extra.a must be a string");
  for (const char* name : {"../x", "/etc/passwd", "a/b", ".hidden", "..", "", "state.json", "a\\u0000b", "a\\nb"})
    refused(with("\"files\": {}", text("\"files\": {{\"{}\": {{\"bytes\": 1, \"xxh3_128\": \"\"}}}}", name)),
            "is no name for a file of a checkpoint");
  refused(sealed(std::string(100, '[')), "not valid JSON");
  refused(with("\"extra\": {}", "\"extra\": {\"a\": [[[[[]]]]]}"), "nested deeper than 4");
}
