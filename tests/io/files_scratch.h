// tests/io: a folder of its own for each test, and plain reading and writing that does not go through the code under test.
#pragma once
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "reckon/base/error.h"

namespace scratch {

class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "reckon-io-XXXXXX").string();
    if (!::mkdtemp(pattern.data())) std::abort();
    path_ = pattern;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline void put(const std::string& path, const std::string& bytes) {
  std::remove(path.c_str());  // some file systems flush at once a file that was emptied and rewritten
  std::ofstream out(path, std::ios::binary);
  out << bytes;
  out.close();
  ASSERT_TRUE(out.good()) << path;
}

inline std::string get(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

/// Makes every write beyond this many bytes of a file fail, as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) std::abort();
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_;
  void (*handler_)(int);
};

/// Expects an Error of this kind with this text in it; its one line otherwise goes to the report.
template <class Body>
void expect_error(reckon::Failure kind, const std::string& part, Body&& body) {
  try {
    body();
    ADD_FAILURE() << "no error; expected one with '" << part << "'";
  } catch (const reckon::Error& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find(part), what.npos) << what;
    EXPECT_EQ(what.find('\n'), what.npos) << "not one line: " << what;
    EXPECT_EQ(error.exit_code(), static_cast<int>(kind)) << what;
  }
}
}  // namespace scratch
