// Data sets: texts are tokenized once, split exactly, and every mistake is one clear line.
#include "reckon/data/dataset.h"

#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "reckon/data/tokenize.h"
#include "tests/data/scratch.h"

using namespace reckon;

namespace {
std::vector<int32_t> all(const Dataset& dataset, DataSplit split) {
  std::vector<int32_t> ids(size_t(dataset.tokens(split)));
  dataset.read(split, 0, ids);
  return ids;
}
std::string prose(size_t size) {
  std::string text;
  for (int i = 0; text.size() < size; ++i)
    text += i % 7 ? "the king shall " : "come unto \xc3\xa9t\xc3\xa9, \xff 16" + std::to_string(i % 100) + ".\n";
  return text;
}
int64_t resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmRSS:")) return std::stoll(line.substr(6)) * 1024;
  return -1;
}
}  // namespace

TEST(Dataset, SplitsTheTailOffATextOfBytes) {
  Scratch s;
  const std::string text = std::string("ab\xff\0cdefghijklmnopq", 19) + "r";
  const Ref<Dataset> data =
      Dataset::open({.path = s.file("t.txt", text), .cache_dir = s.path + "/cache", .validation_fraction = 0.25, .model_vocab = 300});
  EXPECT_EQ(data->tokens(DataSplit::train), 15);
  EXPECT_EQ(data->tokens(DataSplit::validation), 5);
  EXPECT_EQ(data->vocab(), 256);
  EXPECT_EQ(data->tokenizer()->decode(all(*data, DataSplit::train)) + data->tokenizer()->decode(all(*data, DataSplit::validation)), text);
  EXPECT_EQ(data->text_bytes(DataSplit::validation), 5);
  std::vector<int32_t> two(2);
  EXPECT_TRUE(contains(error_of(Failure::failed, [&] { data->read(DataSplit::train, 14, two); }), "outside the training split of 15"));
  EXPECT_NE(error_of(Failure::failed, [&] { data->read(DataSplit::validation, 4, two); }), "");
}

TEST(Dataset, TokenizesATextOnceAndExactly) {
  Scratch s;
  const std::string text = prose(20 << 20);  // several windows of the reader
  const std::string cache = s.path + "/a/cache";
  const DatasetOptions options{.path = s.file("t.txt", text), .tokenizer = "bpe:300", .cache_dir = cache, .validation_fraction = 0.1};
  const Ref<Dataset> data = Dataset::open(options);
  ASSERT_EQ(list_directory(cache).size(), 2u);  // the tokenizer and the tokens
  std::vector<int32_t> ids = all(*data, DataSplit::train);
  const std::vector<int32_t> tail = all(*data, DataSplit::validation);
  EXPECT_EQ(data->text_bytes(DataSplit::validation), data->tokenizer()->decoded_bytes(tail));
  EXPECT_EQ(data->text_bytes(DataSplit::validation) + data->text_bytes(DataSplit::train), int64_t(text.size()));
  ids.insert(ids.end(), tail.begin(), tail.end());
  EXPECT_EQ(ids, data->tokenizer()->encode(text));

  // The second time nothing is written; a damaged cache is made again; other texts get other names.
  const auto names = list_directory(cache);
  const std::string tokens = cache + "/" + (names[0].starts_with("tokens-") ? names[0] : names[1]);
  const std::string before = hash_of_file(tokens);
  static int64_t calls = 0;
  DatasetOptions watched = options;
  watched.progress = [](int64_t, int64_t) { ++calls; };
  Dataset::open(watched);
  EXPECT_EQ(calls, 0);
  write_file(tokens, read_file(tokens, 1 << 30).substr(0, 1000));
  Dataset::open(watched);
  EXPECT_GT(calls, 1);
  EXPECT_EQ(hash_of_file(tokens), before);
  write_file(options.path, text + "x");
  EXPECT_EQ(Dataset::open(options)->text_bytes(DataSplit::train) + Dataset::open(options)->text_bytes(DataSplit::validation),
            int64_t(text.size()) + 1);
  EXPECT_EQ(list_directory(cache).size(), 4u);
}

TEST(Dataset, ATextWithoutPlacesToCutIsTokenizedWhole) {
  Scratch s;
  const std::string text = std::string(9 << 20, 'x') + " the end " + std::string(9 << 20, '\n');  // longer than the reader's windows
  const std::string path = s.file("t.txt", text);
  const Ref<Tokenizer> bpe = Tokenizer::train("xx xxxx the end", 270);
  const TokenizedText tokenized = tokenize_text(*bpe, path, nullptr);
  EXPECT_EQ(tokenized.bytes, int64_t(text.size()));
  EXPECT_EQ(tokenized.text_hash, hash_of(text));
  EXPECT_EQ(tokenized.tokens, int64_t(bpe->encode(text).size()));
}

TEST(Dataset, MemoryDoesNotFollowTheText) {
  Scratch s;
  const std::string path = s.path + "/t.txt";
  {
    const std::string part = prose(1 << 20);
    FileWriter writer(path, FileWriter::Place::direct);
    for (int i = 0; i < 200; ++i) writer.write(part);
    writer.finish();
  }
  ::malloc_trim(0);  // what earlier tests freed must not hide what this one takes
  const int64_t before = resident_bytes();
  static int64_t highest = 0;
  const Ref<Dataset> data = Dataset::open(
      {.path = path, .cache_dir = s.path, .progress = [](int64_t, int64_t) { highest = std::max(highest, resident_bytes()); }});
  EXPECT_GE(data->tokens(DataSplit::train), 190 << 20);
  ASSERT_GT(highest, 0);
  EXPECT_LT(highest - before, int64_t(100) << 20);  // windows of 8 MiB and their ids (4 bytes each), not 200 MiB and theirs
}

TEST(Dataset, TokenFilesKnowTheirTokenizerOnlyIfToldOrBytes) {
  Scratch s;
  const std::string path = s.file("t.bin", std::string("a\0b\0c\0d\0", 8));
  EXPECT_FALSE(Dataset::open({.path = path, .model_vocab = 50257})->tokenizer());
  EXPECT_EQ(Dataset::open({.path = path, .model_vocab = 50257})->text_bytes(DataSplit::train), -1);
  EXPECT_EQ(Dataset::open({.path = path, .model_vocab = 256})->tokenizer()->kind(), "bytes");
  const Ref<Tokenizer> bpe = Tokenizer::train("aaab abab", 260);
  bpe->save(s.path + "/tok.json");
  const Ref<Dataset> data = Dataset::open({.path = path, .tokenizer = s.path + "/tok.json", .model_vocab = 50257});
  EXPECT_EQ(data->tokenizer()->fingerprint(), bpe->fingerprint());
  EXPECT_EQ(data->vocab(), int64_t(bpe->vocab_size()));
  EXPECT_TRUE(
      contains(error_of(Failure::usage, [&] { Dataset::open({.path = path, .tokenizer = "bpe:300"}); }), "holds token ids already"));
  EXPECT_TRUE(contains(error_of(Failure::usage, [&] { Dataset::open({.path = s.file("u.bin", "\x01\x02"), .model_vocab = 100}); }),
                       "token 0 is id 513, outside the vocabulary of 100"));
  EXPECT_EQ(list_directory(s.path).size(), 3u);  // nothing is cached for token files
}

TEST(Dataset, MistakesAreOneClearLine) {
  Scratch s;
  const std::string one = s.file("one.txt", "a");
  EXPECT_TRUE(contains(error_of(Failure::usage, [&] { Dataset::open({.path = s.path + "/none.txt", .cache_dir = s.path}); }), "none.txt"));
  EXPECT_TRUE(contains(error_of(Failure::usage, [&] { Dataset::open({.path = s.path, .cache_dir = s.path}); }), s.path));
  EXPECT_TRUE(contains(error_of(Failure::usage, [&] { Dataset::open({.path = s.file("e.txt", ""), .cache_dir = s.path}); }),
                       "e.txt is empty: a text of at least"));
  EXPECT_TRUE(contains(error_of(Failure::usage, [&] { Dataset::open({.path = one, .cache_dir = s.path, .validation_fraction = 1.0}); }),
                       "outside [0, 1)"));
  EXPECT_TRUE(contains(error_of(Failure::usage, [&] { Dataset::open({.path = one, .cache_dir = s.path, .model_vocab = 100}); }),
                       "model.vocab = 100 is smaller than the 256 tokens of data.tokenizer=bytes: set model.vocab=256"));
  EXPECT_TRUE(contains(error_of(Failure::failed, [&] { Dataset::open({.path = one, .cache_dir = one + "/x"}); }), "one.txt/x"));
  const Ref<Dataset> data = Dataset::open({.path = one, .cache_dir = s.path, .validation_fraction = 0});
  const std::string error = error_of(Failure::usage, [&] { data->check_fits(DataSplit::train, 128); });
  EXPECT_TRUE(contains(error, "1 token for training, but train.seq_len = 128 needs at least 129 (seq_len + 1)")) << error;
  EXPECT_TRUE(contains(error_of(Failure::usage, [&] { data->check_fits(DataSplit::validation, 1); }), "a larger data.validation_fraction"));
}

TEST(Dataset, SyntheticTokensArePureFunctions) {
  const Ref<Dataset> data = Dataset::synthetic(1000, 50000, 0.1, 7);
  EXPECT_EQ(data->tokens(DataSplit::validation), 5000);
  const std::vector<int32_t> ids = all(*data, DataSplit::train);
  std::vector<int32_t> part(100);
  data->read(DataSplit::train, 12345, part);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), ids.begin() + 12345));
  double sum = 0;
  for (int32_t id : ids) {
    ASSERT_TRUE(id >= 0 && id < 1000);
    sum += id;
  }
  EXPECT_NEAR(sum / double(ids.size()), 499.5, 5 * 1000 / std::sqrt(12.0 * double(ids.size())));  // five standard deviations
  EXPECT_NE(all(*Dataset::synthetic(1000, 50000, 0.1, 8), DataSplit::train), ids);
}
