// tokenizer.json: what we write, what others write, and everything that must be refused with one clear line.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>

#include "reckon/base/error.h"
#include "reckon/base/text.h"
#include "reckon/io/tokenizer.h"
#include "reckon/io/tokenizer_content.h"

using namespace reckon;

namespace {
std::string in_quotes(std::string_view s) {
  std::string out = "\"";
  for (char c : s) out += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
  return out + "\"";
}

// A tokenizer.json whose every part a test can replace.
struct File {
  std::map<std::string, int> extra = {{"ab", 256},
                                      {"\xc4\xa0"
                                       "ab",
                                       257}};  // (space)ab
  bool drop_byte = false;
  std::string merges = R"(["a b", "\u0120 ab"])";
  std::string added =
      R"([{"id":258,"content":"<|end|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}])";
  std::string normalizer = "null";
  std::string pre = R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true})";
  std::string decoder = R"({"type":"ByteLevel"})";
  std::string model_extra = "";
  std::string version = R"("1.0")";
  std::string vocab_extra = "";

  std::string vocab() const {
    std::string out = "{";
    for (int byte = 0; byte < 256; ++byte) {
      const char c = char(byte);
      if (!(drop_byte && byte == 0xF5)) out += in_quotes(byte_level_spelling({&c, 1})) + ":" + std::to_string(byte) + ",";
    }
    for (const auto& [token, id] : extra) out += in_quotes(token) + ":" + std::to_string(id) + ",";
    out += vocab_extra;
    if (out.back() == ',') out.pop_back();
    return out + "}";
  }
  std::string json() const {
    return "{\"version\":" + version + ",\"truncation\":null,\"padding\":null,\"added_tokens\":" + added + ",\"normalizer\":" + normalizer +
           ",\"pre_tokenizer\":" + pre + ",\"post_processor\":{\"type\":\"TemplateProcessing\"},\"decoder\":" + decoder +
           ",\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null," + model_extra + "\"vocab\":" + vocab() +
           ",\"merges\":" + merges + "}}";
  }
  Ref<Tokenizer> load() const { return Tokenizer::from_json(json(), "t.json"); }
  std::string refusal() const {
    try {
      load();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Failure::corrupt);
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      return error.what();
    }
    return "";
  }
};

std::string with_split(std::string_view regex, std::string_view split_extra = R"("behavior":"Isolated","invert":false)",
                       bool use_regex = false) {
  return R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":)" + in_quotes(regex) + "}," + std::string(split_extra) +
         R"(},{"type":"ByteLevel","add_prefix_space":false,"use_regex":)" + (use_regex ? "true" : "false") + "}]}";
}
std::string error_of_encode(const Ref<Tokenizer>& tokenizer, std::string_view text) {
  try {
    tokenizer->encode(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}
using Ids = std::vector<int32_t>;
}  // namespace

TEST(TokenizerFile, AlphabetIsGpt2s) {
  EXPECT_EQ(byte_level_character('!'), uint32_t('!'));
  EXPECT_EQ(byte_level_character(0), 0x100u);
  EXPECT_EQ(byte_level_character(' '), 0x120u);
  EXPECT_EQ(byte_level_character('\n'), 0x10Au);
  EXPECT_EQ(byte_level_character(0x7F), 0x121u);
  EXPECT_EQ(byte_level_character(0xAD), 0x143u);
  EXPECT_EQ(byte_level_character(0xFF), 0xFFu);
  std::string all, back;
  for (int byte = 0; byte < 256; ++byte) all += char(byte);
  EXPECT_TRUE(byte_level_bytes(byte_level_spelling(all), back));
  EXPECT_EQ(back, all);
  for (const char* none : {" ", "\n", "\xc4\xa0 ", "\xe4\xb8\xad", "\xc5\x84", "\xff"}) EXPECT_FALSE(byte_level_bytes(none, back)) << none;
}

TEST(TokenizerFile, ReadsBothSpellingsOfMerges) {
  File file;
  const Ref<Tokenizer> old_style = file.load();
  EXPECT_EQ(old_style->vocab_size(), 259u);
  EXPECT_EQ(old_style->encode("ab ab b"), (Ids{256, 257, 32, 98}));
  EXPECT_EQ(old_style->token(257), " ab");
  EXPECT_EQ(old_style->encode("ab<|end|>", Specials::as_token), (Ids{256, 258}));
  EXPECT_EQ(old_style->decode(Ids{256, 258, 257}), "ab<|end|> ab");
  file.merges = R"([["a","b"],["\u0120","ab"]])";
  EXPECT_EQ(file.load()->fingerprint(), old_style->fingerprint());
  EXPECT_EQ(file.load()->to_json(), file.json());  // verbatim, with the post-processor we do not apply
  file.merges = R"([["a","b"]])";
  EXPECT_NE(file.load()->fingerprint(), old_style->fingerprint());
}

TEST(TokenizerFile, OursReadsBackTheSame) {
  const std::string text =
      "It was the best of times, it was the worst of times \xc3\xa9\xff\n\n  \"quoted\" \\ back 123 was was times times";
  const std::vector<std::string> specials = {"<|end|>", "<|\"x\"|>"};
  const Ref<Tokenizer> ours = Tokenizer::train(text, 290, specials);
  const Ref<Tokenizer> again = Tokenizer::from_json(ours->to_json(), "again");
  EXPECT_EQ(again->fingerprint(), ours->fingerprint());
  EXPECT_EQ(again->encode(text), ours->encode(text));
  EXPECT_EQ(again->special_id("<|\"x\"|>"), ours->special_id("<|\"x\"|>"));
  const Ref<Tokenizer> bytes = Tokenizer::from_json(Tokenizer::bytes()->to_json(), "bytes");
  EXPECT_EQ(bytes->kind(), "bytes");
  EXPECT_EQ(bytes->fingerprint(), Tokenizer::bytes()->fingerprint());
  EXPECT_NE(ours->fingerprint(), bytes->fingerprint());
  EXPECT_EQ(ours->fingerprint().size(), 32u);
}

TEST(TokenizerFile, TakesTheSplitPatternFromTheFile) {
  File file;
  file.pre = with_split(kLlama3Pattern);
  EXPECT_EQ(file.load()->encode("ab!ab"), (Ids{256, '!', 256}));  // "!ab" is one piece, and has no merge at its front
  file.pre = with_split("b");
  EXPECT_EQ(file.load()->encode("abab"), (Ids{97, 98, 97, 98}));
  EXPECT_EQ(file.load()->safe_cut("ab ab"), 0u);
  file.pre = with_split("a{2,3}");
  EXPECT_EQ(file.load()->encode("ab"), (Ids{256}));
  file.pre = with_split("(a+)+$|(b)");
  EXPECT_NE(error_of_encode(file.load(), std::string(3000, 'a') + "!").find("t.json: the split pattern"), std::string::npos);
}

TEST(TokenizerFile, WholePiecesComeFirstWithIgnoreMerges) {
  File file;
  file.merges = "[]";
  file.pre = with_split(kLlama3Pattern);
  EXPECT_EQ(file.load()->encode("ab ab abb"), (Ids{97, 98, 32, 97, 98, 32, 97, 98, 98}));
  file.model_extra = "\"ignore_merges\":true,";
  EXPECT_EQ(file.load()->encode("ab ab abb"), (Ids{256, 257, 32, 97, 98, 98}));
}

TEST(TokenizerFile, RanksNeedNotFollowIds) {
  File file;
  file.extra = {{"ab", 256}, {"bc", 257}, {"abc", 258}};
  file.added = "[]";
  file.merges = R"(["b c","a b","a bc"])";
  EXPECT_EQ(file.load()->encode("abc ab"), (Ids{258, 32, 256}));
  file.merges = R"(["a b","b c","a bc"])";
  EXPECT_EQ(file.load()->encode("abc bc"), (Ids{256, 99, 32, 257}));
  // A later merge may make a pair of a lower rank: (ab, c) waits for (a, b), of a higher rank.
  file.merges = R"(["ab c","b c","a b"])";
  EXPECT_EQ(file.load()->encode("abc"), (Ids{97, 257}));
}

TEST(TokenizerFile, AddedTokensThatAreNotSpecialAreText) {
  File file;
  file.added =
      R"([{"id":258,"content":"<tool>","special":false,"normalized":false},{"id":259,"content":"<tool>ab","special":true},{"id":260,"content":"a b"}])";
  const Ref<Tokenizer> tokenizer = file.load();
  EXPECT_EQ(tokenizer->encode("x<tool>ab"), (Ids{'x', 258, 256}));
  EXPECT_EQ(tokenizer->encode("a b", Specials::as_text), (Ids{260}));
  // Tokens that look at raw text go before those that ask for normalized text, even where those are longer.
  EXPECT_EQ(tokenizer->encode("x<tool>ab", Specials::as_token), (Ids{'x', 258, 256}));
  EXPECT_EQ(tokenizer->safe_cut("xx a bbbbbbbbbbbbbbbbbb"), 2u);  // the space in "a b" is inside a token
}

TEST(TokenizerFile, TextThatNfcWouldChangeIsRefused) {
  File file;
  file.normalizer = R"({"type":"NFC"})";
  file.pre = with_split(kQwen2Pattern);
  const Ref<Tokenizer> qwen = file.load();
  for (const char* fine :
       {"ab", "\xc3\xa9", "\xe4\xb8\xad\xe6\x96\x87\xe3\x80\x82", "\xd0\x96", "\xf0\x9f\x98\x80", "\xe2\x80\x9c", "\xff\xfe"})
    EXPECT_EQ(qwen->decode(qwen->encode(fine)), fine);
  EXPECT_NE(error_of_encode(qwen, "abe\xcc\x81").find("character at byte 3 (code point 769)"), std::string::npos);
  EXPECT_NE(error_of_encode(qwen, "\xe2\x84\xab"), "");  // the angstrom sign becomes a letter
  EXPECT_NE(error_of_encode(qwen, "\xef\xa4\x80"), "");  // a compatibility ideograph
}

TEST(TokenizerFile, AMissingByteIsRefusedWhenItIsNeeded) {
  File file;
  file.drop_byte = true;
  file.extra = {{"ab", 245}};
  file.added = "[]";
  file.merges = R"(["a b"])";
  const Ref<Tokenizer> tokenizer = file.load();
  EXPECT_EQ(tokenizer->encode("ab"), (Ids{245}));
  EXPECT_NE(error_of_encode(tokenizer, "\xf5").find("no token for byte 245"), std::string::npos);
  EXPECT_NE(error_of_encode(tokenizer,
                            "\xff"
                            "a\xf5"),
            "");
}

TEST(TokenizerFile, MalformedFilesAreOneClearLine) {
  const auto expect = [](void (*change)(File&), const char* says) {
    File file;
    change(file);
    EXPECT_NE(file.refusal().find(says), std::string::npos) << file.refusal() << " / " << says;
    EXPECT_EQ(file.refusal().find("t.json: "), 0u);
  };
  EXPECT_EQ(File().refusal(), "");
  expect([](File& f) { f.extra["c"] = 300; }, "duplicate JSON key 'c'");
  expect([](File& f) { f.extra["abab"] = 256; }, "is id 256, which another token has too");
  expect([](File& f) { f.extra["abab"] = 300; }, "is id 300, but 260 tokens have ids below 260 only");
  expect([](File& f) { f.extra["abab"] = -1; }, "must not be negative");
  expect([](File& f) { f.extra["abab"] = 1 << 24; }, "over the limit of 16777215");
  expect([](File& f) { f.vocab_extra = "\"abab\":2.5"; }, "model.vocab.abab must be an integer");
  expect([](File& f) { f.vocab_extra = "\"abab\":99999999999999999999"; }, "must be an integer");
  expect([](File& f) { f.vocab_extra = "\"\":259"; }, "byte-level alphabet");
  expect([](File& f) { f.vocab_extra = "\"a b\":259"; }, "byte-level alphabet");
  expect([](File& f) { f.merges = R"(["a b","a x"])"; }, "merges[1] names 'ax', which is not in model.vocab");
  expect([](File& f) { f.merges = R"(["a zebra"])"; }, "names 'zebra'");
  expect([](File& f) { f.merges = R"(["a b","a b"])"; }, "merges[1] repeats an earlier merge");
  expect([](File& f) { f.merges = R"(["ab"])"; }, "two tokens with a space between");
  expect([](File& f) { f.merges = R"(["a b c"])"; }, "two tokens with a space between");
  expect([](File& f) { f.merges = R"([["a"]])"; }, "must hold two tokens");
  expect([](File& f) { f.merges = R"([["a",1]])"; }, "merges[0][1] must be a string, but is an integer");
  expect([](File& f) { f.merges = "[1]"; }, "must be a string");
  expect([](File& f) { f.merges = "{}"; }, "must be an array");
  expect([](File& f) { f.merges = "null"; }, "must be an array");
  expect([](File& f) { f.added = R"([{"id":258,"content":"<a>"},{"id":258,"content":"<b>"}])"; }, "gives id 258 to two tokens");
  expect([](File& f) { f.added = R"([{"id":258,"content":"<a>"},{"id":259,"content":"<a>"}])"; }, "the token '<a>' twice");
  expect([](File& f) { f.added = R"([{"id":256,"content":"<a>"}])"; }, "share the id 256");
  expect([](File& f) { f.added = R"([{"id":258,"content":"ab"}])"; }, "gives 'ab' the id 258, model.vocab the id 256");
  expect([](File& f) { f.added = R"([{"id":260,"content":"<a>"}])"; }, "is id 260");
  expect([](File& f) { f.added = R"([{"id":259,"content":"<a>"}])"; }, "is id 259");
  expect([](File& f) { f.added = R"([{"id":258,"content":""}])"; }, "needs content");
  expect([](File& f) { f.added = R"([{"id":258,"content":"<a>","lstrip":true}])"; }, "lstrip");
  expect([](File& f) { f.added = R"([{"id":"258","content":"<a>"}])"; }, "added_tokens[0].id must be an integer");
  expect([](File& f) { f.added = R"([{"id":258}])"; }, "has no key 'content'");
  expect([](File& f) { f.normalizer = R"({"type":"Lowercase"})"; }, "normalizer cannot be used");
  expect([](File& f) { f.pre = "null"; }, "pre_tokenizer cannot be used");
  expect([](File& f) { f.pre = R"({"type":"Whitespace"})"; }, "only byte-level BPE is known");
  expect([](File& f) { f.pre = R"({"type":"ByteLevel","add_prefix_space":true})"; }, "add_prefix_space must be false");
  expect([](File& f) { f.pre = R"({"type":"ByteLevel"})"; }, "add_prefix_space must be false");
  expect([](File& f) { f.pre = R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":false})"; }, "use_regex must be true");
  expect([](File& f) { f.pre = with_split("a", R"("behavior":"Removed","invert":true)"); }, "behavior must be Isolated");
  expect([](File& f) { f.pre = with_split("a", R"("behavior":"Isolated")", true); }, "use_regex must be false");
  expect([](File& f) { f.pre = with_split("(a"); }, "the split pattern is not valid");
  expect(
      [](File& f) { f.pre = R"({"type":"Sequence","pretokenizers":[{"type":"Digits"},{"type":"ByteLevel","add_prefix_space":false}]})"; },
      "are ByteLevel, and Split");
  expect([](File& f) { f.pre = R"({"type":"Sequence","pretokenizers":[]})"; }, "it must be [ByteLevel] or [Split, ByteLevel]");
  expect([](File& f) { f.decoder = R"({"type":"Metaspace"})"; }, "decoder");
  expect([](File& f) { f.version = R"("2.0")"; }, "only '1.0' is known");
  expect([](File& f) { f.model_extra = "\"byte_fallback\":true,"; }, "byte_fallback");
  expect([](File& f) { f.model_extra = "\"continuing_subword_prefix\":\"##\","; }, "continuing_subword_prefix");
  EXPECT_THROW(Tokenizer::from_json("[]", "t"), Error);
  EXPECT_THROW(Tokenizer::from_json("{}", "t"), Error);
  EXPECT_THROW(Tokenizer::from_json("", "t"), Error);
  EXPECT_THROW(Tokenizer::load("/nonexistent/tokenizer.json"), Error);
}

TEST(TokenizerFile, DamagedFilesNeverGetThrough) {
  // Any one byte changed or the tail cut off: an error, or a tokenizer that still round-trips; never a crash.
  const std::string json = File().json();
  std::mt19937 random(9);
  for (int round = 0; round < 400; ++round) {
    std::string bad = json;
    if (round % 4 == 0) {
      bad.resize(random() % json.size());
    } else {
      bad[random() % json.size()] = char(random());
    }
    try {
      const Ref<Tokenizer> tokenizer = Tokenizer::from_json(bad, "bad.json");
      EXPECT_EQ(tokenizer->decode(tokenizer->encode("ab ab, c!")), "ab ab, c!");
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
  }
}
