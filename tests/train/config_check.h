// What the tests of train/config share.
#pragma once
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "reckon/base/error.h"
#include "reckon/train/config.h"

namespace reckon {
using Arguments = std::vector<std::string>;

inline Config parse(std::string_view toml, const Arguments& arguments = {}) { return parse_config(toml, "config.toml", arguments); }

// The message of the usage error that the call throws; "" if it throws none. Every message is one line.
template <class Call>
std::string usage_error(Call call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Failure::usage) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  return "";
}

inline std::string file_error(std::string_view toml) {
  return usage_error([&] { parse(toml); });
}
inline std::string argument_error(const std::string& argument) {
  return usage_error([&] { parse("", {argument}); });
}
inline std::string refusal(const Config& config) {
  return usage_error([&] { validate(config); });
}

inline void expect_contains(const std::string& message, const std::string& part) {
  EXPECT_NE(message.find(part), std::string::npos) << "'" << message << "' lacks '" << part << "'";
}
}  // namespace reckon
