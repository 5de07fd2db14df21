// Names of runs, paths and modules come from outside: whatever they hold stays text.
#include "reckon/report/markup.h"

#include <gtest/gtest.h>

#include "reckon/io/json.h"

namespace reckon {
namespace {
TEST(Markup, EscapesEverythingThatMarksUp) {
  EXPECT_EQ(escaped("<script>alert('x') & \"y\"</script>"), "&lt;script&gt;alert(&#39;x&#39;) &amp; &quot;y&quot;&lt;/script&gt;");
  EXPECT_EQ(escaped("blocks.3.attn, größer, 模型, 🙂"), "blocks.3.attn, größer, 模型, 🙂");
  EXPECT_EQ(escaped(std::string_view("a\0b\x1b[31m\x7f\r\n\t", 12)), "a\uFFFDb\uFFFD[31m\uFFFD\uFFFD\n\t");
}

TEST(Markup, ReplacesWhatIsNotUtf8) {
  const std::string bad = "\uFFFD";
  EXPECT_EQ(valid_utf8("\x80"), bad);                                // a continuation alone
  EXPECT_EQ(valid_utf8("\xC0\xAF"), bad + bad);                      // overlong
  EXPECT_EQ(valid_utf8("\xE0\x80\x80"), bad + bad + bad);            // overlong
  EXPECT_EQ(valid_utf8("\xED\xA0\x80"), bad + bad + bad);            // a surrogate
  EXPECT_EQ(valid_utf8("\xF4\x90\x80\x80"), bad + bad + bad + bad);  // above U+10FFFF
  EXPECT_EQ(valid_utf8("a\xE2\x82"), "a" + bad + bad);               // cut off
  EXPECT_EQ(valid_utf8("\xF0\x9F\x99\x82\xED\x9F\xBF"), "\xF0\x9F\x99\x82\xED\x9F\xBF");
  EXPECT_EQ(escaped("x\xFF<"), "x" + bad + "&lt;");
}

TEST(Markup, JsonInAScriptCannotEndIt) {
  const std::string json = "{\"name\":\"</script><!-- & \u2028\u2029 ü\"}";
  const std::string safe = script_safe(json);
  EXPECT_EQ(safe.find_first_of("<>&"), std::string::npos);
  EXPECT_EQ(safe.find("\u2028"), std::string::npos);
  const JsonDocument before(json, "before"), after(safe, "after");
  EXPECT_EQ(before.root().get("name").string(), after.root().get("name").string());
}

TEST(Markup, NumbersAsPeopleReadThem) {
  EXPECT_EQ(short_number(0), "0");
  EXPECT_EQ(short_number(0.125), "0.125");
  EXPECT_EQ(short_number(123456), "123,456");
  EXPECT_EQ(short_number(1234567), "1.23 M");
  EXPECT_EQ(short_number(999.6e9), "1.00 T");
  EXPECT_EQ(short_number(1.5e30), "1500000000000 E");
  EXPECT_EQ(short_number(0.0 / 0.0), "–");
  EXPECT_EQ(percent(0.12345), "12.3 %");
  EXPECT_EQ(percent(0.0001), "< 0.1 %");
  EXPECT_EQ(percent(0), "0.0 %");
  EXPECT_EQ(short_seconds(0.01234), "12.3 ms");
  EXPECT_EQ(short_seconds(3725), "1h 02m");
  EXPECT_EQ(fixed2(12.0), "12");
  EXPECT_EQ(fixed2(-0.001), "0");
  EXPECT_EQ(fixed2(3.14159), "3.14");
}

TEST(Markup, TicksAreRoundAndFew) {
  for (const bool binary : {false, true})
    for (double span = binary ? 64 : 1e-9; span < 1e15; span *= 1.7) {
      const double step = tick_step(span, 4, binary);
      EXPECT_GE(span / step, 1) << span;
      EXPECT_LE(span / step, 5) << span;
    }
  EXPECT_EQ(tick_step(100, 4, false), 25);
  EXPECT_EQ(tick_step(1024.0 * 1024 * 800, 4, true), 1024.0 * 1024 * 200);
  EXPECT_EQ(tick_step(0, 4, false), 1);
}
}  // namespace
}  // namespace reckon
