// Every way in which a safetensors file can be wrong, one file each: all must end in one clear line and exit code 4.
#include <unistd.h>

#include "reckon/base/philox.h"
#include "reckon/io/safetensors.h"
#include "tests/io/files_scratch.h"

using namespace reckon;
using scratch::expect_error;
using scratch::Folder;
using scratch::get;
using scratch::put;

namespace {
std::string framed(const std::string& header, const std::string& data = "") {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":[" + shape + "],\"data_offsets\":[" + offsets + "]}";
}

class SafetensorsMalformed : public testing::Test {
 protected:
  void refused(const std::string& file, const std::string& part, Failure kind = Failure::corrupt) {
    put(folder_ / "f", file);
    expect_error(kind, part, [&] { SafetensorsFile opened(folder_ / "f"); });
    expect_error(kind, folder_ / "f", [&] { SafetensorsFile opened(folder_ / "f"); });
  }
  void accepted(const std::string& file) {
    put(folder_ / "f", file);
    EXPECT_NO_THROW(SafetensorsFile(folder_ / "f"));
  }
  Folder folder_;
};
}  // namespace

TEST_F(SafetensorsMalformed, HeaderLength) {
  refused("", "it has 0 bytes");
  refused("1234567", "it has 7 bytes");
  refused(std::string("\x03\0\0\0\0\0\0\0{}", 10), "header of 3 bytes does not fit in the file of 10 bytes");
  refused(std::string("\x01\xE1\xF5\x05\0\0\0\0{}", 10), "header length 100000001 is over the limit");
  refused(std::string("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}", 10), "header length 18446744073709551615 is over the limit");
  refused(std::string("\xF8\xFF\xFF\xFF\xFF\xFF\xFF\xFF{}", 10), "over the limit");  // 8 + N wraps to 0
  refused(std::string(8, '\0'), "does not begin with '{'");
  accepted(framed("{}"));
}

TEST_F(SafetensorsMalformed, HeaderIsNotTheJsonOfTheFormat) {
  refused(framed(" {}"), "does not begin with '{'");
  refused(framed("[]"), "does not begin with '{'");
  refused(framed("\xEF\xBB\xBF{}"), "does not begin with '{'");
  refused(framed("{"), "not valid JSON");
  refused(framed("{} x"), "not valid JSON at byte");
  refused(framed("{}{}"), "not valid JSON");
  refused(framed(std::string("{}\0 ", 4)), "at byte 10: a zero byte");
  refused(framed("{\"a\xFF\":{}}"), "invalid string: ill-formed UTF-8");
  refused(framed("{\"\\ud800\":{}}"), "not valid JSON");
  refused(framed("{\"a\":null}"), "tensor 'a': its entry must be an object");
  refused(framed("{\"a\":[]}"), "tensor 'a': its entry must be an object");
  refused(framed("{\"a\\n\\u001b[31m\":1}"), "tensor 'a\\n\\x1B[31m': its entry");
  refused(framed("{\"a\":{\"dtype\":\"U8\",}}"), "not valid JSON");
  refused(framed("{/**/}"), "not valid JSON");
  refused(framed("{\"a\":{\"shape\":[1e999]}}"), "is not valid JSON at byte 28: number overflow parsing '1e999'");
  accepted(framed("{}        "));
}

TEST_F(SafetensorsMalformed, Metadata) {
  refused(framed("{\"__metadata__\":1}"), "__metadata__ must be an object of strings");
  refused(framed("{\"__metadata__\":{\"a\":1}}"), "__metadata__ must be an object of strings");
  refused(framed("{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}"), "__metadata__ must be an object of strings");
  refused(framed("{\"__metadata__\":{\"a\":\"1\",\"a\":\"1\"}}"), "duplicate metadata key 'a'");
  refused(framed("{\"__metadata__\":{},\"__metadata__\":{}}"), "duplicate __metadata__");
  accepted(framed("{\"__metadata__\":{\"dtype\":\"x\"}}"));
}

TEST_F(SafetensorsMalformed, Fields) {
  refused(framed("{\"a\":{\"shape\":[],\"data_offsets\":[0,1]}}", "x"), "tensor 'a': has no dtype");
  refused(framed("{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", "x"), "tensor 'a': has no shape");
  refused(framed("{\"a\":{\"dtype\":\"U8\",\"shape\":[]}}", "x"), "tensor 'a': has no data_offsets");
  refused(framed("{\"a\":{}}"), "tensor 'a': has no dtype");
  refused(framed("{\"a\":{\"strides\":[1]}}"), "tensor 'a': unknown key 'strides'");
  refused(framed("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", "x"), "duplicate key 'dtype'");
  refused(framed("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"shape\":[1],\"data_offsets\":[0,1]}}", "x"), "duplicate key 'shape'");
  refused(framed("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"data_offsets\":[0,1]}}", "x"),
          "duplicate key 'data_offsets'");
  refused(framed("{" + entry("a", "U8", "1", "0,1") + "," + entry("a", "U8", "1", "1,2") + "}", "xx"), "duplicate tensor 'a'");
  refused(framed("{" + entry("a", "U8", "0", "0,0") + "," + entry("\\u0061", "U8", "0", "0,0") + "}"), "duplicate tensor 'a'");
}

TEST_F(SafetensorsMalformed, Dtype) {
  refused(framed("{" + entry("a", "F33", "1", "0,4") + "}", "1234"), "unknown dtype 'F33'");
  refused(framed("{" + entry("a", "f32", "1", "0,4") + "}", "1234"), "unknown dtype 'f32'");
  refused(framed("{" + entry("a", "", "1", "0,4") + "}", "1234"), "unknown dtype ''");
  refused(framed("{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", "1234"), "dtype must be a string");
  refused(framed("{\"a\":{\"dtype\":null}}"), "dtype must be a string");
}

TEST_F(SafetensorsMalformed, Shape) {
  const auto with = [](const std::string& shape, const std::string& offsets = "0,4") {
    return framed("{" + entry("a", "F32", shape, offsets) + "}", "1234");
  };
  accepted(with("1"));
  for (const char* extent : {"-1", "1.0", "1e0", "\"1\"", "null", "true", "[1]", "{}", "9223372036854775808", "18446744073709551616", "-0"})
    refused(with(extent), "every extent must be an integer from 0 to 2^63 - 1");
  refused(with("4294967296,4294967296"), "need more than 2^63 bits");
  refused(with("9223372036854775807"), "need more than 2^63 bits");
  refused(with("2305843009213693953"), "need more than 2^63 bits");  // times 32 wraps to 32: a lie of one element
  refused(with("4611686018427387904,4"), "need more than 2^63 bits");
  refused(with("0,4294967296,4294967296,4294967296", "0,0"), "need more than 2^63 bits");
  refused(with("2"), "F32[2] takes 8 bytes, but data_offsets [0, 4] hold 4");
  refused(framed("{" + entry("a", "F4", "3", "0,2") + "}", "12"), "3 elements of 4 bits do not fill whole bytes");
  refused(framed("{\"a\":{\"dtype\":\"U8\",\"shape\":4,\"data_offsets\":[0,4]}}", "1234"), "shape must be an array");
  refused(framed("{\"a\":{\"dtype\":\"U8\",\"shape\":{\"0\":4},\"data_offsets\":[0,4]}}", "1234"), "shape must be an array");
  accepted(with(""));
  accepted(framed("{" + entry("a", "F32", "0,1000000000000", "0,0") + "}"));
}

TEST_F(SafetensorsMalformed, Offsets) {
  const auto with = [](const std::string& offsets) { return framed("{" + entry("a", "U8", "4", offsets) + "}", "1234"); };
  accepted(with("0,4"));
  for (const char* offsets :
       {"0", "", "0,4,4", "0,-4", "0,4.0", "\"0\",4", "[0],4", "null,4", "0,18446744073709551615", "9223372036854775808,4"})
    refused(with(offsets), "data_offsets must be [begin, end]");
  refused(framed("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":{\"b\":0}}}", "1234"), "data_offsets must be [begin, end]");
  refused(with("4,0"), "data ends at 0, before it begins at 4");
  refused(with("0,3"), "U8[4] takes 4 bytes, but data_offsets [0, 3] hold 3");
  refused(with("1,5"), "tensor 'a' begins at data byte 1, but the header ends at 0: there is a hole");
  refused(with("9223372036854775803,9223372036854775807"), "there is a hole");
  refused(framed("{" + entry("a", "U8", "5", "0,5") + "}", "1234"),
          "describes 5 bytes of data, but the file holds 4: it has been cut short");
  refused(framed("{" + entry("a", "U8", "4", "0,4") + "}", "1234PK"), "describes 4 bytes of data, but the file holds 6");
  refused(framed("{}", "PK"), "describes 0 bytes of data, but the file holds 2");
  refused(framed("{" + entry("a", "U8", "4611686018427387904", "0,4611686018427387904") + "}", "1234"), "need more than 2^63 bits");
}

TEST_F(SafetensorsMalformed, TensorsMustTouchWithoutOverlap) {
  const std::string a = entry("a", "U8", "2", "0,2");
  accepted(framed("{" + entry("b", "U8", "2", "2,4") + "," + a + "}", "1234"));
  refused(framed("{" + a + "," + entry("b", "U8", "2", "1,3") + "}", "123"),
          "tensor 'b' begins at data byte 1, but tensor 'a' ends at 2: they overlap");
  refused(framed("{" + a + "," + entry("b", "U8", "2", "0,2") + "}", "12"), "they overlap");
  refused(framed("{" + a + "," + entry("b", "U8", "2", "3,5") + "}", "12345"), "there is a hole");
  refused(framed("{" + a + "," + entry("b", "U8", "0", "1,1") + "}", "12"), "they overlap");
  // Empty tensors may lie at any seam.
  accepted(framed(
      "{" + a + "," + entry("b", "U8", "0", "2,2") + "," + entry("c", "U8", "0", "0,0") + "," + entry("d", "U8", "1", "2,3") + "}", "123"));
}

// Each of these would take minutes or gigabytes if anything were quadratic or kept what it refuses.
TEST_F(SafetensorsMalformed, HostileHeadersEndQuickly) {
  std::string overlap = "{", many = "{", metadata = "{\"__metadata__\":{";
  for (int i = 0; i < 100'000; ++i) overlap += entry("t" + std::to_string(i), "U8", "160000", "0,160000") + ",";
  overlap.back() = '}';
  refused(framed(overlap, std::string(160'000, 'x')), "they overlap");
  for (int64_t i = 0; i <= kMaxSafetensorsTensors; ++i) {
    many += entry(std::to_string(i), "U8", "0", "0,0") + ",";
    metadata += "\"" + std::to_string(i) + "\":\"\",";
  }
  many.back() = '}';
  refused(framed(many), "more than 262144 tensors");
  metadata.back() = '}';
  refused(framed(metadata + "}"), "more than 262144 metadata values");
  std::string same = "{";
  for (int i = 0; i < 50'000; ++i) same += entry("same", "U8", "0", "0,0") + ",";
  same.back() = '}';
  refused(framed(same), "duplicate tensor 'same'");
  refused(framed("{\"a\":{\"shape\":" + std::string(5'000'000, '[')), "every extent must be");
  refused(framed("{\"a\":" + std::string(5'000'000, '[')), "its entry must be an object");
  std::string deep = "{";
  for (int i = 0; i < 500'000; ++i) deep += "\"a\":{";
  refused(framed(deep), "unknown key 'a'");
  std::string wide = "{\"a\":{\"shape\":[0";
  for (int i = 0; i < 2'000'000; ++i) wide += ",0";
  refused(framed(wide), "more than 8 axes", Failure::failed);
  refused(framed("{\"" + std::string(5'000'000, 'n')), "not valid JSON");
}

namespace {
// Random damage: bits, bytes of JSON's own alphabet, cuts, repeats; half of the time the header length is repaired so that parsing goes
// deep.
std::string damaged(std::string file, uint64_t round) {
  uint64_t counter = 0;
  const auto draw = [&](uint64_t below) { return philox(17, round, counter++)[0] % below; };
  static const std::string alphabet = std::string("{}[]\",:0123456789-+eE.\\u \xFF\x80tfn_") + '\0';
  const uint64_t header = file.size() < 8 ? 0 : uint8_t(file[0]) + 256 * uint8_t(file[1]);
  int64_t grown = 0;
  for (uint64_t times = 1 + draw(2); times > 0 && file.size() > 9; --times) {
    const size_t data = std::min<uint64_t>(8 + header, file.size() - 1),
                 at = draw(3) ? 8 + draw(data - 8 + 1) : data + draw(file.size() - data);
    const size_t length = 1 + draw(12), before = file.size();
    switch (draw(6)) {
      case 0:
        file[at] = char(file[at] ^ 1 << draw(8));
        break;
      case 1:
        file[at] = alphabet[draw(alphabet.size())];
        break;
      case 2:
        file.erase(at, length);
        break;
      case 3:
        file.insert(at, file.substr(at, length));
        break;
      case 4:
        file.insert(at, 1, alphabet[draw(alphabet.size())]);
        break;
      case 5:
        file.resize(at);
        break;
    }
    if (at < data) grown += int64_t(file.size()) - int64_t(before);
  }
  if (file.size() >= 8 && draw(2)) {
    const uint64_t length = uint64_t(std::max<int64_t>(0, int64_t(header) + grown));
    file.replace(0, 8, reinterpret_cast<const char*>(&length), 8);
  }
  return file;
}

// What holds for every file that opens, whatever was done to it.
void expect_consistent(const SafetensorsFile& file) {
  int64_t end = file.entries().empty() ? file.file().size() : file.entries()[0].offset;
  for (const SafetensorsEntry& entry : file.entries()) {
    EXPECT_EQ(entry.offset, end);
    end += entry.bytes;
    EXPECT_EQ(file.find(entry.name), &entry);
    std::string bytes(size_t(entry.bytes), '\0');
    file.read_bytes(entry, 0, std::as_writable_bytes(std::span(bytes)));
    if (entry.readable()) {
      EXPECT_EQ(entry.spec().bytes(), entry.bytes);
    }
  }
  EXPECT_EQ(end, file.file().size());
}
}  // namespace

TEST_F(SafetensorsMalformed, RandomDamageIsRefusedOrConsistent) {
  const std::string names[] = {"w", "b\n\"", "empty", "scalar"};
  const std::vector<double> data(16, 1.5);
  const TensorToWrite tensors[] = {{names[0], {{2, 3}, DType::f32}, data.data()},
                                   {names[1], {{5}, DType::bf16}, data.data()},
                                   {names[2], {{0, 4}, DType::f64}, data.data()},
                                   {names[3], {{}, DType::u8}, data.data()}};
  const MetadataItem metadata[] = {{"format", "pt"}};
  write_safetensors(folder_ / "good", tensors, metadata);
  const std::string good = get(folder_ / "good");
  int opened = 0, refusals = 0;
  for (uint64_t round = 0; round < 5000; ++round) {
    put(folder_ / "f", damaged(good, round));
    try {
      const SafetensorsFile file(folder_ / "f");
      expect_consistent(file);
      ++opened;
    } catch (const Error& error) {
      EXPECT_TRUE(error.kind() == Failure::corrupt || error.kind() == Failure::failed) << error.what();
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
      ++refusals;
    }
    if (testing::Test::HasFailure()) FAIL() << "round " << round;
  }
  // Both outcomes must have been met often, or the damage is of no use.
  EXPECT_GT(opened, 200);
  EXPECT_GT(refusals, 2000);
}

TEST_F(SafetensorsMalformed, EveryTruncationIsRefused) {
  const float data[3] = {1, 2, 3};
  const TensorToWrite tensors[] = {{"w", {{3}, DType::f32}, data}};
  write_safetensors(folder_ / "good", tensors);
  const std::string good = get(folder_ / "good");
  for (size_t size = 0; size < good.size(); ++size) refused(good.substr(0, size), "");
  accepted(good);
}

TEST_F(SafetensorsMalformed, TooManyAxesIsALimitOfOursAndSaysSo) {
  refused(framed("{" + entry("a", "U8", "1,1,1,1,1,1,1,1,1", "0,1") + "}", "x"), "tensor 'a' has more than 8 axes", Failure::failed);
  accepted(framed("{" + entry("a", "U8", "1,1,1,1,1,1,1,1", "0,1") + "}", "x"));
}
