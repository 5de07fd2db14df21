// train/config_table: the one table that binds a key's name to its field, type, limits and help. Knows no TOML syntax and no file.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "reckon/train/config.h"
#include "reckon/train/config_toml.h"

namespace reckon {

/// Storage of the field: integer, bytes int64_t; number double; boolean bool; word an enumeration of uint8_t; the others std::string.
enum class KeyType : uint8_t { integer, bytes, number, boolean, word, choice, text, preset, tokenizer };

struct ConfigKey {
  const char* name;
  KeyType type;
  void* (*field)(Config&);
  const char* help;
  int64_t least = 0, most = 0;                   // integer, bytes
  double low = 0, high = 0;                      // number
  bool below_high = false;                       // number: high itself is excluded
  const char* zero = nullptr;                    // number: the word that stands for 0, which is then in range
  bool may_be_empty = false;                     // text
  std::span<const std::string_view> words = {};  // word (by value), choice
  std::span<const std::string_view> later = {};  // words of the contract that this version does not have
};

/// Every key, grouped by table, in the order of the documentation.
std::span<const ConfigKey> config_table();
/// The row of that name, or nullptr.
const ConfigKey* find_key(std::string_view name);
/// Stores the setting's value in the key's field. Throws Error (usage) if the type is wrong or the value out of range.
void assign(Config& config, const ConfigKey& key, const Setting& setting);
/// Throws Error (usage), beginning with `where`, if the field's value is out of range.
void check_value(const Config& config, const ConfigKey& key, std::string_view where);
/// The field's value as TOML; numbers in the shortest form that reads back exactly.
std::string value_text(const Config& config, const ConfigKey& key);
/// Gives the key's field the value that it has in `from`.
void copy_value(Config& to, const Config& from, const ConfigKey& key);
/// "integer, at least 1", "fp32 or bf16", ...
std::string type_text(const ConfigKey& key);
/// Throws the Error (usage) for a key that is not in the table: not available yet, a table, or unknown with the nearest known key.
[[noreturn]] void fail_unknown_key(const Setting& setting);
}  // namespace reckon
