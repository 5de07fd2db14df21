// Tokenizers as their users see them: exact round trips of any bytes, the same ids however the text is cut or spread over threads.
#include "reckon/io/tokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "reckon/base/error.h"
#include "reckon/base/parallel.h"
#include "reckon/io/files.h"
#include "tests/folder.h"

using namespace reckon;

namespace {
std::string random_bytes(std::mt19937& random, size_t size) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = char(random());
  return bytes;
}

// Words from a small vocabulary, so that there is something to learn.
std::string random_prose(std::mt19937& random, size_t size) {
  static const char* const kWords[] = {"the",  "of",   "king", "kingdom", "shall", "and", "Lord's", "1611", "\xc3\xa9t\xc3\xa9",
                                       "unto", "thou", "shalt"};
  std::string text;
  while (text.size() < size) {
    for (unsigned i = random() % 9; i > 0; --i) text += std::string(kWords[random() % std::size(kWords)]) + " ";
    text += random() % 3 ? ", " : ".\n\n";
    if (random() % 50 == 0) text += char(random());
  }
  return text;
}

struct Threads {
  explicit Threads(int n) : before(thread_count()) { set_thread_count(n); }
  ~Threads() { set_thread_count(before); }
  int before;
};

std::string usage_error(const std::string& spec, const std::string& text_path = "") {
  try {
    open_tokenizer(spec, text_path, "");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Failure::usage) << error.what();
    return error.what();
  }
  return "";
}
}  // namespace

TEST(Tokenizer, BytesAreTheirOwnIds) {
  const Ref<Tokenizer> bytes = Tokenizer::bytes();
  EXPECT_EQ(bytes->kind(), "bytes");
  EXPECT_EQ(bytes->vocab_size(), 256u);
  EXPECT_EQ(bytes->encode(std::string_view("a\0\xff", 3)), (std::vector<int32_t>{97, 0, 255}));
  EXPECT_EQ(bytes->safe_cut("abc"), 3u);
  EXPECT_EQ(bytes->decoded_bytes(bytes->encode("hello")), 5);
}

TEST(Tokenizer, AnyBytesRoundTrip) {
  std::mt19937 random(11);
  const Ref<Tokenizer> bpe = Tokenizer::train(random_prose(random, 20000) + random_bytes(random, 2000), 700);
  EXPECT_GT(bpe->vocab_size(), 290u);
  for (const Ref<Tokenizer>& tokenizer : {bpe, Tokenizer::bytes()}) {
    EXPECT_EQ(tokenizer->decode(tokenizer->encode("")), "");
    for (int round = 0; round < 300; ++round) {
      const std::string text = round % 2 ? random_bytes(random, random() % 400) : random_prose(random, random() % 400);
      const std::vector<int32_t> ids = tokenizer->encode(text);
      ASSERT_EQ(tokenizer->decode(ids), text);
      ASSERT_EQ(tokenizer->decoded_bytes(ids), int64_t(text.size()));
    }
  }
  EXPECT_THROW(bpe->decode(std::vector<int32_t>{-1}), Error);
  EXPECT_THROW(bpe->decode(std::vector<int32_t>{int32_t(bpe->vocab_size())}), Error);
}

TEST(Tokenizer, ThreadsAndCutsDoNotChangeIds) {
  std::mt19937 random(12);
  const std::string text = random_prose(random, 3 << 20) + std::string(600000, 'z') + random_prose(random, 1 << 20);
  const Ref<Tokenizer> bpe = Tokenizer::train(std::string_view(text).substr(0, 100000), 500);
  // Short texts are encoded by one scanner: stitched at safe cuts they are the reference.
  std::vector<int32_t> stitched;
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t cut = rest.size() > 300000 ? bpe->safe_cut(rest.substr(0, 300000)) : rest.size();
    const std::vector<int32_t> part = bpe->encode(rest.substr(0, cut ? cut : rest.size()));
    stitched.insert(stitched.end(), part.begin(), part.end());
    rest.remove_prefix(cut ? cut : rest.size());
  }
  std::string fingerprint;
  for (int threads : {1, 2, 5}) {
    Threads scope(threads);
    EXPECT_EQ(bpe->encode(text), stitched) << threads << " threads";
    const std::string now = Tokenizer::train(text, 400)->fingerprint();
    EXPECT_EQ(now, fingerprint.empty() ? now : fingerprint);
    fingerprint = now;
  }
  EXPECT_EQ(bpe->decode(stitched), text);
}

TEST(Tokenizer, TrainingFromAFileIsTheSame) {
  const scratch::Folder folder;
  std::mt19937 random(13);
  const std::string text = random_prose(random, 9 << 20);  // more than one window of the reader
  write_file(folder.path() + "/t.txt", text);
  const std::string expected = Tokenizer::train(text, 300)->fingerprint();
  EXPECT_EQ(Tokenizer::train_file(folder.path() + "/t.txt", 300)->fingerprint(), expected);

  const std::string cache = folder.path() + "/cache/deep";
  EXPECT_EQ(open_tokenizer("bpe:300", folder.path() + "/t.txt", cache)->fingerprint(), expected);
  const std::vector<std::string> kept = list_directory(cache);
  ASSERT_EQ(kept.size(), 1u);
  EXPECT_EQ(open_tokenizer("bpe:300", folder.path() + "/t.txt", cache)->fingerprint(), expected);
  write_file(cache + "/" + kept[0], "{");  // a damaged cache is made again
  EXPECT_EQ(open_tokenizer("bpe:300", folder.path() + "/t.txt", cache)->fingerprint(), expected);
  EXPECT_EQ(open_tokenizer(cache + "/" + kept[0], "", "")->fingerprint(), expected);
  write_file(folder.path() + "/t.txt", text + "more");
  open_tokenizer("bpe:300", folder.path() + "/t.txt", cache);
  EXPECT_EQ(list_directory(cache).size(), 2u);  // another text, another tokenizer
}

TEST(Tokenizer, SpecialTokensAreTextUnlessAskedFor) {
  std::mt19937 random(14);
  const std::vector<std::string> specials = {"<|end|>", "<|end|>more"};
  const Ref<Tokenizer> bpe = Tokenizer::train(random_prose(random, 5000), 320, specials);
  EXPECT_EQ(bpe->special_id("<|end|>"), int32_t(bpe->vocab_size()) - 2);
  EXPECT_EQ(bpe->special_id("<|none|>"), -1);
  const std::string text = "the<|end|>more <|end|> king";
  const int32_t end = bpe->special_id("<|end|>"), more = bpe->special_id("<|end|>more");
  for (int32_t id : bpe->encode(text)) EXPECT_TRUE(id != end && id != more);
  std::vector<int32_t> expected = bpe->encode("the");
  expected.push_back(more);  // the longest that fits
  for (int32_t id : bpe->encode(" ")) expected.push_back(id);
  expected.push_back(end);
  for (int32_t id : bpe->encode(" king")) expected.push_back(id);
  EXPECT_EQ(bpe->encode(text, Specials::as_token), expected);
  EXPECT_EQ(bpe->decode(expected), text);
  // Not where a special token of 11 bytes may still become complete.
  EXPECT_EQ(bpe->safe_cut("ab <|end|> the kingdom"), 10u);
  EXPECT_EQ(bpe->safe_cut("ab <|end|> the king"), 2u);
  const std::vector<std::string> taken = {"a"}, twice = {"<x>", "<x>"};
  EXPECT_THROW(Tokenizer::train("aa", 300, taken), Error);
  EXPECT_THROW(Tokenizer::train("aa", 300, twice), Error);
  EXPECT_THROW(Tokenizer::train("aa", 257, specials), Error);
}

TEST(Tokenizer, StreamsWholeCharacters) {
  const Ref<Tokenizer> bytes = Tokenizer::bytes();
  const std::string text = "a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x98\x80z";
  StreamDecoder decoder(bytes);
  std::vector<std::string> shown;
  for (int32_t id : bytes->encode(text)) shown.push_back(decoder.push(id));
  EXPECT_EQ(shown, (std::vector<std::string>{"a", "", "\xc3\xa9", "", "", "\xe4\xb8\xad", "", "", "", "\xf0\x9f\x98\x80", "z"}));
  EXPECT_EQ(decoder.finish(), "");
  // What can no longer become a character shows at once.
  const auto show = [&](std::string_view bad) {
    std::string all;
    for (int32_t id : bytes->encode(bad)) all += decoder.push(id);
    return all;
  };
  EXPECT_EQ(show("\xff"), "\xEF\xBF\xBD");
  EXPECT_EQ(show("\xed\xa0"), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(show("\xf0\x9f"
                 "b"),
            "\xEF\xBF\xBD\xEF\xBF\xBD"
            "b");
  EXPECT_EQ(show("\xf0\x90"), "");
  EXPECT_EQ(decoder.finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(decoder.finish(), "");
}

TEST(Tokenizer, NamesThatAreNotTokenizers) {
  EXPECT_NE(usage_error("bpe:4096").find("there is none"), std::string::npos);
  for (const char* spec : {"bpe:", "bpe:x", "bpe:-1", "bpe:300x", "bpe:99999999999999999999"})
    EXPECT_NE(usage_error(spec, "t.txt").find("bpe:4096"), std::string::npos) << spec;
  EXPECT_NE(usage_error("bpe:255", "t.txt").find("at least 256"), std::string::npos);
  EXPECT_NE(usage_error("byte").find("neither bytes, nor bpe:N"), std::string::npos);
  EXPECT_NE(usage_error("").find("neither"), std::string::npos);
  EXPECT_NE(usage_error("bpe:300", "/nonexistent/t.txt").find("/nonexistent/t.txt"), std::string::npos);
}
