// JSON as headers and tokenizer files use it: what is refused, and how the refusal reads.
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "reckon/io/json.h"

using namespace reckon;

namespace {
std::string refusal(std::string_view text, const JsonLimits& limits = {}) {
  try {
    JsonDocument document(text, "f.json", limits);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Failure::corrupt);
    return error.what();
  }
  return "";
}
template <class Body>
std::string error_of(Body body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Failure::corrupt);
    return error.what();
  }
  return "";
}
bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }
}  // namespace

TEST(Json, ReadsValuesExactly) {
  JsonDocument d(R"({"a":[1,-2,18446744073709551615,1.5,true,null,"x\u00e9\ud83d\ude00\u0000y"],"o":{"k":{}} , "e":[]})", "f.json");
  const Json a = d.root().get("a");
  EXPECT_EQ(a.size(), 7u);
  EXPECT_EQ(a.at(0).integer(), 1);
  EXPECT_EQ(a.at(1).integer(), -2);
  EXPECT_EQ(a.at(2).unsigned_integer(), UINT64_MAX);
  EXPECT_EQ(a.at(3).number(), 1.5);
  EXPECT_TRUE(a.at(4).boolean());
  EXPECT_TRUE(a.at(5).is_null());
  EXPECT_EQ(a.at(6).string(), std::string_view("x\xc3\xa9\xf0\x9f\x98\x80\0y", 9));
  EXPECT_TRUE(d.root().get("o").get("k").is_object());
  EXPECT_FALSE(d.root().has("zebra"));
  std::string keys;
  for (Json child : d.root()) keys += std::string(child.key()) + ",";
  EXPECT_EQ(keys, "a,o,e,");
  EXPECT_EQ(a.at(6).path(), "a[6]");
  EXPECT_EQ(d.root().get("o").get("k").path(), "o.k");
}

TEST(Json, NumbersNeverChangeType) {
  JsonDocument d(R"({"n":[-1, 1.5, 1.0, 18446744073709551616, 9223372036854775808, 1e3]})", "f.json");
  const Json n = d.root().get("n");
  EXPECT_EQ(error_of([&] { n.at(0).unsigned_integer(); }), "f.json: n[0] is -1, but must not be negative (byte 9)");
  EXPECT_TRUE(contains(error_of([&] { n.at(0).integer(0); }), "n[0] is -1, outside [0, "));
  EXPECT_TRUE(contains(error_of([&] { n.at(1).integer(); }), "must be an integer, but is a number with a fraction or exponent"));
  for (size_t i : {2u, 3u, 5u}) EXPECT_NE(error_of([&] { n.at(i).unsigned_integer(); }), "") << i;
  EXPECT_TRUE(contains(error_of([&] { n.at(4).integer(); }), "n[4] is 9223372036854775808, outside"));
  EXPECT_EQ(n.at(4).unsigned_integer(), uint64_t(1) << 63);
  EXPECT_NE(error_of([&] { n.at(6); }), "");
  EXPECT_NE(error_of([&] { n.get("k"); }), "");
  EXPECT_TRUE(contains(error_of([&] { d.root().get("k"); }), "the document has no key 'k'"));
  EXPECT_TRUE(contains(error_of([&] { n.string(); }), "must be a string, but is an array"));
}

TEST(Json, RefusesWhatIsNotOneDocument) {
  for (const char* bad : {"", " ", "{", "[1,]", "{\"a\":1,}", "nul", "[1] 2", "\"\x01\"", "\"\xff\"", "\"\\ud800\"", "1e999", "{\"a\" 1}",
                          "'a'", "[01]", "[NaN]", "// c\n1"})
    EXPECT_TRUE(contains(refusal(bad), "f.json: not valid JSON at byte")) << bad << " -> " << refusal(bad);
  EXPECT_FALSE(contains(refusal("[1,\n2,]"), "\n"));
  EXPECT_EQ(refusal("[1] "), "");
}

TEST(Json, RefusesDuplicateKeysAtAnyLevel) {
  EXPECT_TRUE(contains(refusal(R"({"a":1,"b":2,"a":3})"), "duplicate JSON key 'a'"));
  EXPECT_TRUE(contains(refusal(R"([{"x":{"a":1,"\u0061":3}}])"), "duplicate JSON key 'a'"));
  EXPECT_EQ(refusal(R"({"a":{"a":1},"b":[{"a":1},{"a":2}]})"), "");
}

TEST(Json, RefusesDeepAndLongDocuments) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(refusal(nested(64)), "");
  EXPECT_TRUE(contains(refusal(nested(65)), "nested deeper than 64 levels at byte 65"));
  EXPECT_TRUE(contains(refusal(nested(5000000)), "nested deeper"));
  EXPECT_TRUE(contains(refusal("[1,2,3]", {.max_bytes = 6}), "over the limit"));
}

TEST(Json, WriterIsDeterministicAndReadsBack) {
  JsonWriter w;
  w.begin_object().key("z").integer(-3).key("a").begin_array().number(0.1).number(1).number(1e300).number(NAN).unsigned_integer(UINT64_MAX);
  w.boolean(false).null().begin_object().end_object().end_array().key("s\"\n").string("\xc3\xa9\x01\\").end_object();
  EXPECT_EQ(w.str(), "{\"z\":-3,\"a\":[0.1,1.0,1e+300,null,18446744073709551615,false,null,{}],\"s\\\"\\n\":\"\xc3\xa9\\u0001\\\\\"}");
  JsonDocument d(w.str(), "w");
  EXPECT_EQ(d.root().get("s\"\n").string(), "\xc3\xa9\x01\\");
  EXPECT_EQ(d.root().get("a").at(0).number(), 0.1);
  JsonWriter pretty(true);
  pretty.begin_object().key("a").begin_array().integer(1).integer(2).end_array().key("b").begin_array().end_array().end_object();
  EXPECT_EQ(pretty.str(), "{\n  \"a\": [\n    1,\n    2\n  ],\n  \"b\": []\n}");
  EXPECT_THROW(JsonWriter().string("\xff"), Error);
}
