// tests/data: a folder of its own for each test, and the errors of a call.
#pragma once
#include <gtest/gtest.h>

#include <string>

#include "reckon/base/error.h"
#include "reckon/io/files.h"
#include "tests/folder.h"

namespace reckon {
struct Scratch {
  /// Writes a file into the folder and gives back its path.
  std::string file(const std::string& name, std::string_view bytes) const {
    write_file(path + "/" + name, bytes);
    return path + "/" + name;
  }
  scratch::Folder folder;
  const std::string path = folder.path();
};

/// The message of the Error that the call throws, which must be of this kind; "" if it throws none.
template <class Body>
std::string error_of(Failure kind, Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(int(error.kind()), int(kind)) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "";
}
inline bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }
}  // namespace reckon
