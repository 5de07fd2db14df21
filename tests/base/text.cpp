#include "reckon/base/text.h"

#include <gtest/gtest.h>

#include <vector>

#include "reckon/base/error.h"

using namespace reckon;

TEST(Text, HumanNumbers) {
  EXPECT_EQ(human_bytes(512), "512 B");
  EXPECT_EQ(human_bytes(1536), "1.50 KiB");
  EXPECT_EQ(human_bytes(int64_t(3) << 30), "3.00 GiB");
  EXPECT_EQ(with_commas(0), "0");
  EXPECT_EQ(with_commas(-1234567), "-1,234,567");
  EXPECT_EQ(with_commas(-123), "-123");
  EXPECT_EQ(counted(0, "token"), "0 tokens");
  EXPECT_EQ(counted(1, "token"), "1 token");
  EXPECT_EQ(counted(1234, "token"), "1,234 tokens");
  EXPECT_EQ(human_seconds(65), "1m 05s");
  EXPECT_EQ(human_seconds(3725), "1h 02m");
}

TEST(Text, SuggestsOnlyNearWords) {
  const std::vector<std::string> keys = {"train.steps", "train.seq_len", "optim.lr"};
  EXPECT_EQ(nearest_word("train.step", keys), "train.steps");
  EXPECT_EQ(nearest_word("tarin.steps", keys), "train.steps");
  EXPECT_EQ(nearest_word("zebra", keys), "");
  EXPECT_EQ(did_you_mean("optim.rl", keys), ", did you mean 'optim.lr'?");
}

TEST(Text, PrintsHostileBytesAsOneLine) {
  EXPECT_EQ(printable_line("a\nb\x1b[31m\xff\xc3\xa9"), "a\\nb\\x1B[31m\\xFF\xc3\xa9");
  EXPECT_EQ(printable_line("\xed\xa0\x80"), "\\xED\\xA0\\x80");
}

TEST(Error, CarriesItsExitCode) {
  try {
    fail_as(Failure::corrupt, "file {} ends at byte {}", std::string("x"), 7);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "file x ends at byte 7");
    EXPECT_EQ(error.exit_code(), 4);
  }
}
