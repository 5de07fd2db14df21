// Token files: every format, every way to be malformed, and memory that does not follow the file's size.
#include "reckon/data/token_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <numeric>

#include "tests/data/scratch.h"

using namespace reckon;

namespace {
template <class T>
std::string raw(std::initializer_list<int64_t> ids) {
  std::string bytes;
  for (int64_t id : ids) {
    const T value = T(id);
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  return bytes;
}

std::string npy(const std::string& dict, const std::string& data, int version = 1) {
  std::string head = "\x93NUMPY";
  head += char(version);
  head += '\0';
  const size_t n = dict.size() + 1;
  head += char(n & 0xFF);
  head += char(n >> 8);
  if (version > 1) head += std::string(2, '\0');
  return head + dict + "\n" + data;
}
std::string dict_of(const std::string& descr, const std::string& shape) {
  return "{'descr': '" + descr + "', 'fortran_order': False, 'shape': " + shape + ", }";
}

std::vector<int32_t> all(const std::string& path, int64_t vocab) {
  const Ref<TokenFile> file = TokenFile::open(path, vocab);
  std::vector<int32_t> ids(size_t(file->size()));
  file->read(0, ids);
  return ids;
}
std::string open_error(const std::string& path, int64_t vocab = 0, Failure kind = Failure::corrupt) {
  return error_of(kind, [&] { TokenFile::open(path, vocab); });
}

int64_t resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmRSS:")) return std::stoll(line.substr(6)) * 1024;
  return -1;
}
}  // namespace

TEST(TokenFile, ReadsEveryFormat) {
  Scratch s;
  const std::vector<int32_t> ids = {1, 2, 300};
  EXPECT_EQ(all(s.file("a.bin", raw<uint16_t>({1, 2, 300})), 50257), ids);
  EXPECT_EQ(all(s.file("a.bin", raw<uint32_t>({1, 2, 300})), 128256), ids);
  EXPECT_EQ(all(s.file("a.u32", raw<uint32_t>({1, 2, 300})), 500), ids);
  EXPECT_EQ(all(s.file("a.u16", raw<uint16_t>({1, 2, 300})), 128256), ids);
  EXPECT_EQ(all(s.file("a.npy", npy(dict_of("<u2", "(3,)"), raw<uint16_t>({1, 2, 300}))), 301), ids);
  EXPECT_EQ(all(s.file("b.npy", npy(dict_of("<u4", "(3,)"), raw<uint32_t>({1, 2, 300}), 2)), 301), ids);
  EXPECT_EQ(all(s.file("c", npy(dict_of("<i4", "(3,)"), raw<int32_t>({1, 2, 300}), 3)), 301), ids);
  EXPECT_EQ(all(s.file("d", npy("{\"shape\":(3,),\"fortran_order\":False,\"descr\":\"<i8\"}   ", raw<int64_t>({1, 2, 300}))), 301), ids);
  std::string llmc = raw<int32_t>({20240520, 1, 3});
  llmc.resize(1024);
  EXPECT_EQ(all(s.file("e.bin", llmc + raw<uint16_t>({1, 2, 300})), 50257), ids);
  llmc = raw<int32_t>({20240801, 7, 3});
  llmc.resize(1024);
  EXPECT_EQ(all(s.file("f.bin", llmc + raw<uint32_t>({1, 2, 300})), 50257), ids);
  EXPECT_EQ(TokenFile::open(s.path + "/f.bin", 0)->format(), "llm.c u32");
  EXPECT_EQ(TokenFile::open(s.path + "/a.npy", 0)->format(), "npy u16");
  for (const char* name : {"a.bin", "a.u16", "a.npy", "c", "d", "f.bin"}) EXPECT_TRUE(is_token_file(s.path + "/" + name)) << name;
  EXPECT_FALSE(is_token_file(s.file("text", "some words")));
  EXPECT_FALSE(is_token_file(s.file("empty", "")));
}

TEST(TokenFile, WritesNpyAndNothingUnlessFinished) {
  Scratch s;
  std::vector<int32_t> ids(100001);
  std::iota(ids.begin(), ids.end(), 0);
  for (int64_t vocab : {int64_t(65536), int64_t(100001)}) {
    const std::string path = s.path + "/w" + std::to_string(vocab) + ".npy";
    const std::span<const int32_t> part = std::span(ids).first(size_t(std::min<int64_t>(vocab, 100001)));
    TokenFileWriter writer(path, vocab);
    writer.append(part.first(7));
    writer.append(part.subspan(7));
    EXPECT_FALSE(path_exists(path));
    writer.finish();
    EXPECT_EQ(TokenFile::open(path, vocab)->format(), vocab <= 65536 ? "npy u16" : "npy u32");
    EXPECT_TRUE(std::equal(part.begin(), part.end(), all(path, vocab).begin()));
  }
  const std::string header = read_file(s.path + "/w65536.npy", 1 << 20).substr(0, 128);
  EXPECT_EQ(header.substr(0, 10), std::string("\x93NUMPY\x01\x00\x76\x00", 10));
  EXPECT_TRUE(contains(header, "{'descr': '<u2', 'fortran_order': False, 'shape': (65536,), }  "));
  EXPECT_EQ(header.back(), '\n');
  {
    TokenFileWriter writer(s.path + "/none.npy", 10);
    writer.append(std::vector<int32_t>{1});
    EXPECT_TRUE(contains(error_of(Failure::failed,
                                  [&] {
                                    writer.append(std::vector<int32_t>{2, 10});
                                  }),
                         "token 2 is id 10, outside the vocabulary of 10"));
  }
  EXPECT_EQ(list_directory(s.path).size(), 2u);
  EXPECT_TRUE(contains(error_of(Failure::failed, [&] { TokenFileWriter("/nonexistent/x.npy", 10); }), "/nonexistent/x.npy"));
}

TEST(TokenFile, MalformedFilesAreOneClearLine) {
  Scratch s;
  const std::string data = raw<uint16_t>({1, 2, 3});
  EXPECT_TRUE(contains(open_error(s.file("e.bin", "")), "e.bin is empty"));
  EXPECT_TRUE(contains(open_error(s.file("o.bin", "abc")), "3 bytes, which is not a whole number of u16"));
  EXPECT_TRUE(contains(open_error(s.file("o.bin", "abcdef"), 100000), "not a whole number of u32"));
  EXPECT_TRUE(contains(open_error(s.file("x.npy", "hello world")), "does not start as one"));
  const struct {
    std::string bytes;
    const char* says;
  } cases[] = {
      {npy(dict_of("<u2", "(4,)"), data), "4 tokens of 2 bytes, but 6 bytes"},
      {npy(dict_of("<u2", "(2,)"), data), "2 tokens of 2 bytes, but 6 bytes"},
      {npy(dict_of("<u2", "(3,)"), data + "x"), "but 7 bytes"},
      {npy(dict_of("<u2", "(0,)"), ""), "holds no tokens"},
      {npy(dict_of("<u2", "(999999999999999999,)"), data), "999,999,999,999,999,999 tokens"},
      {npy(dict_of("<u2", "(9999999999999999999,)"), data), "shape is too large"},
      {npy(dict_of("<u2", "(-3,)"), data), "dimension expected"},
      {npy(dict_of("<u2", "(3, 1)"), data), "one dimension, this .npy has 2"},
      {npy(dict_of("<u2", "()"), data), "one dimension, this .npy has 0"},
      {npy(dict_of(">u2", "(3,)"), data), "'>u2' is not one of token ids"},
      {npy(dict_of("<f2", "(3,)"), data), "'<f2'"},
      {npy(dict_of("|O", "(3,)"), data), "'|O'"},
      {npy("{'descr': [('a', '<u2')], 'fortran_order': False, 'shape': (3,)}", data), "structured"},
      {npy("{'descr': '<u2', 'fortran_order': True, 'shape': (3,)}", data), "Fortran"},
      {npy("{'descr': '<u2', 'fortran_order': Maybe, 'shape': (3,)}", data), "needed"},
      {npy("{'descr': '<u2', 'shape': (3,)}", data), "needed"},
      {npy("{'descr': '<u2', 'descr': '<u2', 'fortran_order': False, 'shape': (3,)}", data), "repeated key 'descr'"},
      {npy("{'descr': '<u2', 'fortran_order': False, 'shape': (3,), 'x': 1}", data), "key 'x'"},
      {npy(dict_of("<u2", "(3,)") + "x", data), "after the dictionary"},
      {npy("{'descr': '<u2", data), "malformed .npy header"},
      {npy("", data), "'{' expected"},
      {npy(dict_of("<u2", "(3,)"), data, 4), "version 4.0"},
      {std::string("\x93NUMPY\x01", 7), "version"},
      {std::string("\x93NUMPY\x01\x00\xff\xff", 10), "it says it has 65535 bytes"},
      {std::string("\x93NUMPY\x02\x00\xff\xff\xff\xff", 12), "it says it has 4294967295 bytes"},
  };
  for (const auto& c : cases)
    EXPECT_TRUE(contains(open_error(s.file("m.npy", c.bytes)), c.says)) << open_error(s.path + "/m.npy") << " / " << c.says;
  std::string llmc = raw<int32_t>({20240520, 1, 3});
  llmc.resize(1024);
  EXPECT_TRUE(contains(open_error(s.file("l.bin", llmc + data + "x")), "but 7 bytes"));
  llmc[8] = '\xff', llmc[11] = '\xff';
  EXPECT_NE(open_error(s.file("l.bin", llmc + data)), "");
  llmc[4] = 2;
  EXPECT_TRUE(contains(open_error(s.file("l.bin", llmc + data)), "version 2"));
  EXPECT_TRUE(contains(open_error(s.file("w.bin", raw<uint32_t>({5, 6, 7, 8, 9, 10, 11, 12, 13})), 100), "looks like u32"));
  EXPECT_EQ(all(s.file("w.u32", raw<uint32_t>({5, 6, 7, 8, 9, 10, 11, 12, 13})), 100).size(), 9u);
}

TEST(TokenFile, WrongPathsAreUsageErrors) {
  Scratch s;
  EXPECT_TRUE(contains(open_error(s.path + "/none.bin", 0, Failure::usage), "none.bin"));
  EXPECT_TRUE(contains(open_error(s.path, 0, Failure::usage), s.path));
  const std::string fifo = s.path + "/fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_TRUE(contains(open_error(fifo, 0, Failure::usage), "fifo"));  // and it does not wait for a writer
  EXPECT_TRUE(contains(open_error("/dev/zero", 0, Failure::usage), "/dev/zero"));
  EXPECT_NE(open_error("", 0, Failure::usage), "");
}

TEST(TokenFile, IdsOutsideTheVocabularyNameThemselves) {
  Scratch s;
  const std::string path = s.file("v.bin", raw<uint16_t>({1, 2, 256, 4, 300}));
  const Ref<TokenFile> file = TokenFile::open(path, 256);
  std::vector<int32_t> two(2);
  file->read(0, two);
  EXPECT_EQ(error_of(Failure::usage, [&] { file->check_ids(); }),
            path + ": token 2 is id 256, outside the vocabulary of 256; ids go up to 300, which takes a model.vocab of 301");
  EXPECT_TRUE(contains(error_of(Failure::usage, [&] { file->read(2, two); }), "token 2 is id 256"));
  EXPECT_TRUE(contains(error_of(Failure::corrupt,
                                [&] {
                                  all(s.file("n", npy(dict_of("<i4", "(2,)"), raw<int32_t>({1, -5}))), 9);
                                }),
                       "token 1 is id -5"));
  // An id that no vocabulary has is damage, wherever it stands: the first one outside this vocabulary does not hide it.
  EXPECT_TRUE(contains(error_of(Failure::corrupt,
                                [&] {
                                  all(s.file("n", npy(dict_of("<i4", "(3,)"), raw<int32_t>({1, 12, -5}))), 9);
                                }),
                       "token 2 is id -5"));
  EXPECT_TRUE(
      contains(error_of(Failure::corrupt, [&] { all(s.file("n", npy(dict_of("<i8", "(1,)"), raw<int64_t>({int64_t(1) << 40}))), 0); }),
               "1099511627776"));
  EXPECT_TRUE(contains(error_of(Failure::corrupt, [&] { all(s.file("n.u32", raw<uint32_t>({0xFFFFFFFF})), 0); }),
                       "4294967295, which no vocabulary has"));
  EXPECT_TRUE(contains(error_of(Failure::failed, [&] { file->read(4, two); }), "2 tokens from 4 on are outside"));
  EXPECT_NE(error_of(Failure::failed, [&] { file->read(-1, two); }), "");
  EXPECT_NE(error_of(Failure::failed, [&] { file->read(INT64_MAX, two); }), "");
}

TEST(TokenFile, AFileCutWhileInUseIsAnError) {
  Scratch s;
  const std::string path = s.file("t.bin", std::string(1 << 20, '\1'));
  const Ref<TokenFile> file = TokenFile::open(path, 0);
  std::vector<int32_t> ids(1000);
  file->read(file->size() - 1000, ids);
  ASSERT_EQ(::truncate(path.c_str(), 5000), 0);
  EXPECT_TRUE(contains(error_of(Failure::corrupt, [&] { file->read(file->size() - 1000, ids); }), "ends at byte 5000"));
  file->read(0, ids);
}

TEST(TokenFile, ResidentMemoryIsFlatForAHugeFile) {
  Scratch s;
  const std::string path = s.file("sparse.bin", "");
  const int64_t bytes = int64_t(6) << 30;
  ASSERT_EQ(::truncate(path.c_str(), bytes), 0);
  const Ref<TokenFile> file = TokenFile::open(path, 50257);
  EXPECT_EQ(file->size(), bytes / 2);
  std::vector<int32_t> ids(4097);
  file->read(0, ids);
  const int64_t before = resident_bytes();
  ASSERT_GT(before, 0);
  const int64_t windows = 20000;  // spread over all of it: 330 MB of pages, if they were mapped
  for (int64_t i = 0; i < windows; ++i) file->read(i * ((file->size() - 4097) / (windows - 1)), ids);
  EXPECT_LT(resident_bytes() - before, int64_t(2) << 20);
}
