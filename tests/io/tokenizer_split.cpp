// Splitting text into pieces: the patterns of the trade, invalid UTF-8, hostile patterns, and where a text may be cut.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "reckon/base/error.h"
#include "reckon/io/pretokenize.h"

using namespace reckon;

namespace {
using Pieces = std::vector<std::string>;

Pieces split(const SplitPattern& pattern, std::string_view text) {
  PieceScanner scanner(pattern);
  scanner.start(text);
  Pieces pieces;
  for (std::string_view piece; scanner.next(piece);) pieces.emplace_back(piece);
  return pieces;
}
Pieces split(const char* regex, std::string_view text) { return split(*SplitPattern::compile(regex, "test"), text); }

std::string error_of(std::string_view regex, std::string_view text) {
  try {
    split(*SplitPattern::compile(regex, "t.json"), text);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Failure::corrupt);
    return error.what();
  }
  return "";
}

// Text as tests want it: words, spaces, line ends, several scripts, broken UTF-8.
std::string random_text(std::mt19937& random, int parts) {
  static const char* const kParts[] = {"a",
                                       "word",
                                       " ",
                                       "  ",
                                       "\n",
                                       "\r\n",
                                       "\t",
                                       "'s",
                                       "'LL",
                                       "12345",
                                       "!",
                                       "...",
                                       "\xc3\xa9",
                                       "\xe4\xb8\xad\xe6\x96\x87",
                                       "\xe3\x80\x82",
                                       "\xef\xbc\x8c",
                                       "\xe3\x80\x80",
                                       "\xc2\xa0",
                                       "\xff",
                                       "\xe4\xb8",
                                       "\xf0\x9f\x98\x80",
                                       "\xcc\x81",
                                       "x y",
                                       " the",
                                       "\xed\xa0\x80",
                                       "_",
                                       "\xc2\x85",
                                       "\xe2\x80\x83"};
  std::string text;
  for (int i = 0; i < parts; ++i) text += random() % 9 == 0 ? std::string(1, char(random())) : kParts[random() % std::size(kParts)];
  return text;
}
}  // namespace

TEST(Split, KnownPatterns) {
  EXPECT_EQ(split(kGpt2Pattern, "Hello world's  12345 foo!!\n\n x"),
            (Pieces{"Hello", " world", "'s", " ", " 12345", " foo", "!!", "\n\n", " x"}));
  EXPECT_EQ(split(kLlama3Pattern, "Hello WORLD'S  12345 foo!!\n\n x"),
            (Pieces{"Hello", " WORLD", "'S", " ", " ", "123", "45", " foo", "!!\n\n", " x"}));
  EXPECT_EQ(split(kQwen2Pattern, " 12\r\n  y"), (Pieces{" ", "1", "2", "\r\n", " ", " y"}));
  EXPECT_EQ(split(kGpt2Pattern, "\xc3\xa9t\xc3\xa9 \xe4\xb8\xad\xe6\x96\x87"), (Pieces{"\xc3\xa9t\xc3\xa9", " \xe4\xb8\xad\xe6\x96\x87"}));
  EXPECT_EQ(split(kGpt2Pattern, ""), Pieces{});
  EXPECT_EQ(split("[0-9]+", "ab12cd"), (Pieces{"ab", "12", "cd"}));  // what lies between matches is a piece too
}

TEST(Split, InvalidBytesArePiecesOfTheirOwn) {
  EXPECT_EQ(split(kGpt2Pattern,
                  "ab\xff\xfe"
                  "cd \xe4\xb8"),
            (Pieces{"ab", "\xff", "\xfe", "cd", " ", "\xe4", "\xb8"}));
  EXPECT_EQ(split(kGpt2Pattern, "\xed\xa0\x80"), (Pieces{"\xed", "\xa0", "\x80"}));  // a surrogate
  EXPECT_EQ(split(kGpt2Pattern, "\xc0\x80"), (Pieces{"\xc0", "\x80"}));              // overlong
  EXPECT_EQ(split(kGpt2Pattern, "\xf4\x90\x80\x80").size(), 4u);                     // beyond U+10FFFF
  EXPECT_EQ(split(kGpt2Pattern, std::string_view("a\0b", 3)), (Pieces{"a", std::string(1, '\0'), "b"}));
}

TEST(Split, PiecesAreTheTextByteForByte) {
  std::mt19937 random(1);
  for (const char* regex : {kGpt2Pattern, kLlama3Pattern, kQwen2Pattern, "x+"}) {
    const Ref<SplitPattern> pattern = SplitPattern::compile(regex, "test");
    for (int round = 0; round < 200; ++round) {
      const std::string text = random_text(random, 60);
      std::string joined;
      for (const std::string& piece : split(*pattern, text)) joined += piece;
      ASSERT_EQ(joined, text);
    }
  }
}

TEST(Split, ValidPrefixAgreesWithTheDefinition) {
  std::mt19937 random(5);
  for (int round = 0; round < 2000; ++round) {
    const std::string text = random_text(random, 6);
    size_t valid = 0;
    while (const size_t n = utf8_character(std::string_view(text).substr(valid))) valid += n;
    ASSERT_EQ(utf8_valid_prefix(text), valid);
  }
  // Every code point, and nothing else, makes a character.
  size_t characters = 0;
  for (uint32_t c = 0x800; c < 0x10000; ++c) {
    const char bytes[] = {char(0xE0 | c >> 12), char(0x80 | (c >> 6 & 0x3F)), char(0x80 | (c & 0x3F))};
    const std::string_view s(bytes, 3);
    if (utf8_character(s) == 3) {
      ++characters;
      ASSERT_EQ(utf8_code_point(s, 3), c);
    }
  }
  EXPECT_EQ(characters, 0x10000u - 0x800 - 0x800);
}

TEST(Split, CutsAreSafeForEveryPatternThatAllowsThem) {
  std::mt19937 random(2);
  size_t cuts = 0;
  for (const char* regex : {kGpt2Pattern, kLlama3Pattern, kQwen2Pattern}) {
    const Ref<SplitPattern> pattern = SplitPattern::compile(regex, "test");
    EXPECT_TRUE(pattern->allows_cuts());
    for (int round = 0; round < 3000; ++round) {
      const std::string text = random_text(random, 12);
      const size_t cut = safe_cut(text);
      ASSERT_LT(cut, text.size());
      if (cut == 0) continue;
      ++cuts;
      // Also when more text follows than the cut was chosen from.
      const std::string more = text + random_text(random, 3);
      Pieces parts = split(*pattern, std::string_view(more).substr(0, cut));
      for (std::string& piece : split(*pattern, std::string_view(more).substr(cut))) parts.push_back(piece);
      ASSERT_EQ(parts, split(*pattern, more)) << testing::PrintToString(more) << " at " << cut;
    }
  }
  EXPECT_GT(cuts, 5000u);
  EXPECT_EQ(safe_cut("\xe4\xb8\xad\xe6\x96\x87\xe3\x80\x82\xe4\xb8\xad"), 6u);
  EXPECT_EQ(safe_cut(""), 0u);
  EXPECT_EQ(safe_cut("abc"), 0u);
  EXPECT_FALSE(SplitPattern::compile("a+", "test")->allows_cuts());
}

TEST(Split, HostilePatternsAreRefused) {
  EXPECT_NE(error_of("(a", "").find("t.json: the split pattern is not valid at character 2"), std::string::npos);
  EXPECT_NE(error_of("a*", "").find("matches the empty string"), std::string::npos);
  EXPECT_NE(error_of(std::string(20000, 'a'), "").find("over the limit"), std::string::npos);
  EXPECT_NE(error_of("\\Ca", ""), "");  // would split characters
  EXPECT_NE(error_of("a\\Kb(?=c)|x(?=\\K)y", "xy"), "");
  const std::string many(3000, 'a');
  EXPECT_NE(error_of("(a+)+$|(b)", many + "!").find("fails at byte 0"), std::string::npos);
  EXPECT_NE(error_of("(?:(?:a|b|ab)+)+c", std::string(100000, 'a') + "dc"), "");
  EXPECT_NE(error_of(std::string(100, '(') + "a" + std::string(100, ')'), ""), "");
}

TEST(Split, LongRunsAreLinear) {
  const Ref<SplitPattern> pattern = SplitPattern::compile(kLlama3Pattern, "test");
  for (const char* unit : {"a", " ", "\n", "!", "1", "\xe4\xb8\xad", "\xff"}) {
    std::string text;
    while (text.size() < (1 << 20)) text += unit;
    const size_t pieces = split(*pattern, text).size();
    EXPECT_EQ(pieces, unit[0] == '\xff' ? text.size() : unit[0] == '1' ? (text.size() + 2) / 3 : 1) << unit;
  }
}
