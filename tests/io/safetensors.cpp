#include "reckon/io/safetensors.h"

#include <unistd.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "tests/io/files_scratch.h"

using namespace reckon;
using scratch::expect_error;
using scratch::FileSizeLimit;
using scratch::Folder;
using scratch::get;
using scratch::put;

namespace {
constexpr DType kAll[kDTypes] = {DType::f32, DType::f64, DType::bf16, DType::f16, DType::i32, DType::i64, DType::u8, DType::boolean, DType::f8e4m3fn, DType::f8e5m2};

// Every bit pattern matters, NaN payloads included; only bools are limited to 0 and 1.
std::string pattern(const TensorSpec& spec, unsigned seed) {
  std::string bytes(size_t(spec.bytes()), '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = char((i + seed) * 2654435761u >> 11 & (spec.dtype == DType::boolean ? 1 : 255));
  return bytes;
}

std::string read_all(const SafetensorsFile& file, const SafetensorsEntry& entry) {
  std::string bytes(size_t(entry.bytes), '\0');
  file.read_bytes(entry, 0, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}
}  // namespace

// The whole file, written out by hand from the format's documentation.
TEST(Safetensors, BytesOfASmallFile) {
  const Folder folder;
  const uint8_t a[3] = {7, 8, 9};
  const float b[2] = {1.0f, -2.0f};
  const int64_t s = 258;
  const TensorToWrite tensors[] = {{"ab", {{3}, DType::u8}, a}, {"b", {{2}, DType::f32}, b}, {"s", {{}, DType::i64}, &s}};
  const MetadataItem metadata[] = {{"format", "pt"}};
  const FileDigest digest = write_safetensors(folder / "f", tensors, metadata);
  const std::string header =
      "{\"__metadata__\":{\"format\":\"pt\"},"
      "\"s\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
      "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,16]},"
      "\"ab\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[16,19]}}";
  ASSERT_EQ(header.size(), 193u);
  const std::string expected = std::string("\xC8\0\0\0\0\0\0\0", 8) + header + "       " +  // 193 padded to 200
                               std::string("\x02\x01\0\0\0\0\0\0", 8) +                     // s
                               std::string("\0\0\x80\x3F\0\0\0\xC0", 8) +                   // b
                               std::string("\x07\x08\x09", 3);                              // ab
  EXPECT_EQ(get(folder / "f"), expected);
  EXPECT_EQ(digest, (FileDigest{int64_t(expected.size()), hash_of(expected)}));
}

TEST(Safetensors, AnEmptyFileIsAnEmptyObjectPadded) {
  const Folder folder;
  write_safetensors(folder / "f", {});
  EXPECT_EQ(get(folder / "f"), std::string("\x08\0\0\0\0\0\0\0{}      ", 16));
  EXPECT_EQ(SafetensorsFile(folder / "f").entries().size(), 0u);
}

TEST(Safetensors, RoundTripOfEveryTypeAndShape) {
  const Folder folder;
  const Shape shapes[] = {{}, {0}, {3, 0, 5}, {1}, {7}, {2, 3}, {1, 2, 1, 2, 1, 2, 1, 2}, {1000, 3}};
  std::vector<TensorToWrite> tensors;
  std::vector<std::string> data;
  for (DType dtype : kAll)
    for (const Shape& shape : shapes) {
      tensors.push_back({text("{}{}", dtype, shape), {shape, dtype}});
      data.push_back(pattern(tensors.back().spec, unsigned(tensors.size())));
    }
  for (size_t i = 0; i < tensors.size(); ++i) tensors[i].data = data[i].data();
  const MetadataItem metadata[] = {{"z", "caf\xC3\xA9 \"quoted\" \n"}, {"", ""}};
  write_safetensors(folder / "f", tensors, metadata);

  const SafetensorsFile file(folder / "f");
  EXPECT_EQ(file.entries().size(), tensors.size());
  ASSERT_EQ(file.metadata().size(), 2u);
  EXPECT_EQ(file.metadata()[0], metadata[1]);
  EXPECT_EQ(file.metadata()[1], metadata[0]);
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_EQ(file.entry(tensors[i].name).spec(), tensors[i].spec);
    EXPECT_EQ(file.entry(tensors[i].name).offset % size_of(tensors[i].spec.dtype), 0) << tensors[i].name;
    std::string out(data[i].size(), '\1');
    file.read(tensors[i].name, tensors[i].spec, out.data());
    EXPECT_EQ(out, data[i]) << tensors[i].name;
  }
}

TEST(Safetensors, NanAndInfinityKeepTheirBits) {
  const Folder folder;
  const uint32_t bits[] = {0x7FC00000, 0xFFC12345, 0x7F800001, 0x7F800000, 0xFF800000, 0x80000000};
  const TensorToWrite tensor[] = {{"x", {{6}, DType::f32}, bits}};
  write_safetensors(folder / "f", tensor);
  uint32_t out[6] = {};
  SafetensorsFile(folder / "f").read("x", {{6}, DType::f32}, out);
  EXPECT_EQ(std::memcmp(out, bits, sizeof bits), 0);
}

TEST(Safetensors, EqualContentGivesEqualBytesInAnyOrder) {
  const Folder folder;
  const double data[4] = {1, 2, 3, 4};
  const TensorToWrite one[] = {{"b", {{2}, DType::f64}, data}, {"c", {{4}, DType::bf16}, data}, {"a", {{2}, DType::f64}, data + 2}};
  const TensorToWrite two[] = {one[2], one[1], one[0]};
  const MetadataItem meta_one[] = {{"k", "1"}, {"j", "2"}}, meta_two[] = {meta_one[1], meta_one[0]};
  EXPECT_EQ(write_safetensors(folder / "1", one, meta_one), write_safetensors(folder / "2", two, meta_two));
  EXPECT_EQ(get(folder / "1"), get(folder / "2"));
}

namespace {
struct Counting {
  int64_t next = 0;
  size_t largest = 0;
};
void count_up(void* context, int64_t offset, std::span<std::byte> out) {
  Counting& c = *static_cast<Counting*>(context);
  EXPECT_EQ(offset, c.next);  // in order, front to back
  for (size_t i = 0; i < out.size(); ++i) out[i] = std::byte((offset + int64_t(i)) * 7 % 251);
  c.next += int64_t(out.size());
  c.largest = std::max(c.largest, out.size());
}
}  // namespace

TEST(Safetensors, StreamsFromASourceInPieces) {
  const Folder folder;
  const int64_t bytes = (5 << 20) + 3;
  Counting counting;
  const uint8_t small = 9;
  const TensorToWrite tensors[] = {{"big", {{bytes}, DType::u8}, nullptr, count_up, &counting}, {"small", {{}, DType::u8}, &small}};
  write_safetensors(folder / "f", tensors);
  EXPECT_EQ(counting.next, bytes);
  EXPECT_LE(counting.largest, size_t(1) << 20);
  const SafetensorsFile file(folder / "f");
  std::string expected(size_t(bytes), '\0');
  for (int64_t i = 0; i < bytes; ++i) expected[size_t(i)] = char(i * 7 % 251);
  EXPECT_EQ(read_all(file, file.entry("big")), expected);
  std::string part(1000, '\0');
  file.read_bytes(file.entry("big"), 12345, std::as_writable_bytes(std::span(part)));
  EXPECT_EQ(part, expected.substr(12345, 1000));

  // And into a sink.
  struct Collected {
    std::string bytes;
    size_t largest = 0;
  } collected;
  const auto collect = [](void* context, int64_t offset, std::span<const std::byte> bytes) {
    Collected& c = *static_cast<Collected*>(context);
    EXPECT_EQ(offset, int64_t(c.bytes.size()));
    c.bytes.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    c.largest = std::max(c.largest, bytes.size());
  };
  file.read("big", {{bytes}, DType::u8}, collect, &collected);
  EXPECT_EQ(collected.bytes, expected);
  EXPECT_LE(collected.largest, size_t(kSafetensorsPiece));
  collected = {};
  file.read("small", {{}, DType::u8}, collect, &collected);
  EXPECT_EQ(collected.bytes, "\x09");
  expect_error(Failure::failed, "is needed", [&] { file.read("big", {{bytes - 1}, DType::u8}, collect, &collected); });
}

TEST(Safetensors, TypesThatWeDoNotHaveAreListedAndRefusedByName) {
  const Folder folder;
  const std::string header =
      "{\"a\":{\"dtype\":\"F8_E8M0\",\"shape\":[3],\"data_offsets\":[0,3]},"
      "\"b\":{\"dtype\":\"F4\",\"shape\":[2,3],\"data_offsets\":[3,6]},"
      "\"c\":{\"dtype\":\"C64\",\"shape\":[1],\"data_offsets\":[6,14]}}";
  const uint64_t length = header.size();
  put(folder / "f", std::string(reinterpret_cast<const char*>(&length), 8) + header + "0123456789abcd");
  const SafetensorsFile file(folder / "f");
  ASSERT_EQ(file.entries().size(), 3u);
  EXPECT_EQ(file.entry("a").dtype, "F8_E8M0");
  EXPECT_FALSE(file.entry("b").readable());
  EXPECT_EQ(file.entry("b").shape, (Shape{2, 3}));
  EXPECT_EQ(read_all(file, file.entry("b")), "345");
  expect_error(Failure::failed, "tensor 'a' has dtype F8_E8M0, which Reckon does not have", [&] { file.entry("a").spec(); });
  char out[8];
  expect_error(Failure::failed, "tensor 'c' is C64[1], but f32[2] is needed", [&] { file.read("c", {{2}, DType::f32}, out); });
}

// Under the names that PyTorch's float8_e4m3fn and float8_e5m2 have in such files.
TEST(Safetensors, EightBitFloatsHaveTheNamesOfTheFormat) {
  const Folder folder;
  const uint8_t codes[3] = {0x38, 0x7E, 0xFF};
  const TensorToWrite tensors[] = {{"a", {{3}, DType::f8e4m3fn}, codes}, {"b", {{3}, DType::f8e5m2}, codes}};
  write_safetensors(folder / "f", tensors);
  const SafetensorsFile file(folder / "f");
  EXPECT_EQ(file.entry("a").dtype, "F8_E4M3");
  EXPECT_EQ(file.entry("b").dtype, "F8_E5M2");
  uint8_t read[3] = {};
  file.read("b", {{3}, DType::f8e5m2}, read);
  EXPECT_EQ(std::memcmp(read, codes, 3), 0);
}

TEST(Safetensors, ReadingChecksTheSpecTheNameAndTheRange) {
  const Folder folder;
  const float x[2] = {1, 2};
  const uint8_t no_bool[2] = {1, 2};
  const TensorToWrite tensors[] = {{"wte.weight", {{2}, DType::f32}, x}, {"mask", {{2}, DType::boolean}, no_bool}};
  write_safetensors(folder / "f", tensors);
  const SafetensorsFile file(folder / "f");
  float out[4] = {};
  expect_error(Failure::failed, "tensor 'wte.weight' is F32[2], but f32[3] is needed", [&] {
    file.read("wte.weight", {{3}, DType::f32}, out);
  });
  expect_error(Failure::failed, "is F32[2], but i32[2] is needed", [&] { file.read("wte.weight", {{2}, DType::i32}, out); });
  expect_error(Failure::corrupt, "has no tensor 'wte.weigth', did you mean 'wte.weight'?", [&] {
    file.read("wte.weigth", {{2}, DType::f32}, out);
  });
  expect_error(Failure::corrupt, "tensor 'mask' holds 2 at element 1, which is no bool", [&] {
    file.read("mask", {{2}, DType::boolean}, out);
  });
  const auto nowhere = [](void*, int64_t, std::span<const std::byte>) { ADD_FAILURE() << "a sink was given what is no bool"; };
  expect_error(Failure::corrupt, "tensor 'mask' holds 2 at element 1, which is no bool", [&] {
    file.read("mask", {{2}, DType::boolean}, nowhere, nullptr);
  });
  const auto bytes = std::as_writable_bytes(std::span(out));
  const SafetensorsEntry& entry = file.entry("wte.weight");
  expect_error(Failure::failed, "has 8 bytes; cannot read 16 from 0 on", [&] { file.read_bytes(entry, 0, bytes); });
  expect_error(Failure::failed, "cannot read 4 from 5 on", [&] { file.read_bytes(entry, 5, bytes.first(4)); });
  expect_error(Failure::failed, "cannot read 0 from -1 on", [&] { file.read_bytes(entry, -1, bytes.first(0)); });
  EXPECT_EQ(file.find("nothing"), nullptr);
}

TEST(Safetensors, AFileCutAfterOpeningIsAnError) {
  const Folder folder;
  const std::vector<float> x(50'000, 1.0f);
  const TensorToWrite tensors[] = {{"x", {{50'000}, DType::f32}, x.data()}};
  write_safetensors(folder / "f", tensors);
  const SafetensorsFile file(folder / "f");
  ASSERT_EQ(::truncate((folder / "f").c_str(), 5000), 0);
  std::vector<float> out(50'000);
  expect_error(Failure::corrupt, "f: ends at byte 5000", [&] { file.read("x", {{50'000}, DType::f32}, out.data()); });
}

TEST(Safetensors, TheWriterRefusesWhatItCouldNotReadBack) {
  const Folder folder;
  const float x[2] = {1, 2};
  const TensorToWrite good{"x", {{2}, DType::f32}, x};
  const auto write = [&](std::vector<TensorToWrite> tensors, std::vector<MetadataItem> metadata = {}) {
    write_safetensors(folder / "f", tensors, metadata);
  };
  expect_error(Failure::failed, "two tensors are named 'x'", [&] { write({good, good}); });
  expect_error(Failure::failed, "'__metadata__' is no name", [&] { write({{"__metadata__", {{2}, DType::f32}, x}}); });
  expect_error(Failure::failed, "tensor 'y' has no data", [&] { write({{"y", {{2}, DType::f32}}}); });
  expect_error(Failure::failed, "not valid UTF-8", [&] { write({{"\xFF", {{2}, DType::f32}, x}}); });
  expect_error(Failure::failed, "two metadata values have the key 'k'", [&] { write({good}, {{"k", "1"}, {"k", "2"}}); });
  EXPECT_TRUE(list_directory(folder.path()).empty());
}

TEST(Safetensors, AFullDiskLeavesTheFormerFile) {
  const Folder folder;
  const std::vector<float> x(100'000, 1.0f);
  const TensorToWrite tensors[] = {{"x", {{100'000}, DType::f32}, x.data()}};
  put(folder / "f", "kept");
  {
    const FileSizeLimit limit(100'000);
    expect_error(Failure::failed, "it needs 400", [&] { write_safetensors(folder / "f", tensors); });
  }
  EXPECT_EQ(get(folder / "f"), "kept");
  EXPECT_EQ(list_directory(folder.path()), std::vector<std::string>{"f"});
}
