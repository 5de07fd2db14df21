// train/config_toml: turns TOML text and `key.path=value` arguments into a flat list of settings. Knows TOML; knows no key.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace reckon {

/// One key and the value somebody gave it.
struct Setting {
  enum class Type : uint8_t { integer, number, boolean, text, table, other };
  std::string key;  // dotted path
  Type type = Type::other;
  int64_t integer = 0;
  double number = 0;  // may be NaN or infinite
  bool boolean = false;
  std::string text;  // the string; for an argument of any type, what stands after '='
  bool from_argument = false;
  std::string shown;  // the value as a message shows it: 8, "eight", an array
  std::string where;  // how a message begins: "config.toml:12: " or "argument 'train.steps=x': "
};

/// The file's bytes; an Error (usage) if it cannot be read, is a directory, or is larger than a configuration can be.
std::string read_config_file(const std::string& path);
/// Every value of the document in the order of its lines; an empty table is one setting of type table. Throws Error (usage) with
/// source:line:column for text that is not TOML, and with source:line for a key given twice.
std::vector<Setting> read_toml(std::string_view toml, std::string_view source);
/// `key.path=value`. A value that is not TOML is a string as it stands. Throws Error (usage) if there is no key or no '='.
Setting read_argument(std::string_view argument);
/// The string as a TOML basic string, quotes included. It must be valid UTF-8.
std::string toml_quoted(std::string_view value);
}  // namespace reckon
