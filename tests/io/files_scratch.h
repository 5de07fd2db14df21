// tests/io: full disks and expected errors, beside the folder of each test.
#pragma once
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <string>

#include "reckon/base/error.h"
#include "tests/folder.h"

namespace scratch {

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
