// train/config_table: reads, checks and prints one key by its row. Knows no TOML syntax and no file.
#include "reckon/train/config_table.h"

#include <limits>
#include <vector>

#include "reckon/base/error.h"
#include "reckon/base/text.h"

namespace reckon {
namespace {
constexpr int64_t kUnbounded = std::numeric_limits<int64_t>::max();
constexpr size_t kMaxTextBytes = 4096;

template <class T>
T& field(const ConfigKey& key, Config& config) {
  return *static_cast<T*>(key.field(config));
}
// Rows hand out mutable addresses; reading through one leaves the configuration as it is.
template <class T>
const T& field(const ConfigKey& key, const Config& config) {
  return *static_cast<const T*>(key.field(const_cast<Config&>(config)));
}

template <class Words>
std::string listed(const Words& words, std::string_view last_separator) {
  std::string list;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i > 0) list += i + 1 == words.size() ? last_separator : ", ";
    list += words[i];
  }
  return list;
}

std::string number_text(double value) {
  std::string digits = text("{}", value);
  if (digits.find_first_of(".en") == std::string::npos) digits += ".0";
  return digits;
}

struct Unit {
  std::string_view name;
  int64_t bytes;
};
constexpr Unit kUnits[] = {
    {"B", 1},
    {"KiB", int64_t(1) << 10},
    {"MiB", int64_t(1) << 20},
    {"GiB", int64_t(1) << 30},
    {"TiB", int64_t(1) << 40},
    {"PiB", int64_t(1) << 50},
    {"KB", 1'000},
    {"kB", 1'000},
    {"MB", 1'000'000},
    {"GB", 1'000'000'000},
    {"TB", 1'000'000'000'000},
    {"PB", 1'000'000'000'000'000},
};

// "4GiB", "1.5 GB", "4096"; exact in integers, rounded down to a byte. -1: not a size; -2: above 63 bits.
int64_t parse_bytes(std::string_view value) {
  size_t at = 0;
  __int128 digits = 0, scale = 1;
  bool any = false, fraction = false;
  for (; at < value.size() && ((value[at] >= '0' && value[at] <= '9') || (value[at] == '.' && !fraction)); ++at) {
    if (value[at] == '.') {
      fraction = true;
      continue;
    }
    any = true;
    digits = 10 * digits + (value[at] - '0');
    if (fraction) scale *= 10;
    if (digits > kUnbounded || scale > kUnbounded) return -2;
  }
  if (!any || value[at - 1] == '.') return -1;
  while (at < value.size() && value[at] == ' ') ++at;
  const std::string_view name = value.substr(at);
  if (name.empty()) return fraction ? -1 : int64_t(digits);
  for (const Unit& unit : kUnits) {
    if (unit.name != name) continue;
    const __int128 bytes = digits * unit.bytes / scale;
    return bytes > kUnbounded ? -2 : int64_t(bytes);
  }
  return -1;
}

std::string expectation(const ConfigKey& key) {
  switch (key.type) {
    case KeyType::integer:
      return key.most == kUnbounded ? text("an integer of at least {}", key.least) : text("an integer from {} to {}", key.least, key.most);
    case KeyType::bytes:
      return "bytes such as 4294967296, \"4GiB\" (2^30) or \"4GB\" (10^9)";
    case KeyType::number:
      return (key.zero ? text("{} or ", key.zero) : "") +
             text(key.below_high ? "a number from {} to below {}" : "a number from {} to {}", key.low, key.high);
    case KeyType::boolean:
      return "true or false";
    case KeyType::word:
    case KeyType::choice:
      return listed(key.words, " or ");
    default:
      return "a string";
  }
}

// Wrong type and out of range are one mistake to the user: not what the key takes.
[[noreturn]] void fail_value(const ConfigKey& key, std::string_view where, std::string_view shown) {
  fail_as(Failure::usage, "{}{} expects {}, got {}", where, key.name, expectation(key), shown);
}
[[noreturn]] void fail_type(const ConfigKey& key, const Setting& s) { fail_value(key, s.where, s.shown); }

// Digits that TOML refused: the number is right in form and too large.
bool is_long_integer(std::string_view value) {
  if (!value.empty() && (value[0] == '+' || value[0] == '-')) value.remove_prefix(1);
  return value.size() >= 19 && value.find_first_not_of("0123456789_") == value.npos;
}

[[noreturn]] void fail_long(const ConfigKey& key, const Setting& s) {
  fail_value(key, s.where, key.most == kUnbounded ? text("{}, which is above 2^63 - 1", s.text) : s.text);
}

int64_t integer_of(const ConfigKey& key, const Setting& s) {
  if (s.type == Setting::Type::integer) return s.integer;
  if (s.type == Setting::Type::text && s.from_argument && is_long_integer(s.text)) fail_long(key, s);
  if (key.type != KeyType::bytes || s.type != Setting::Type::text) fail_type(key, s);
  const int64_t bytes = parse_bytes(s.text);
  if (bytes == -2) fail_long(key, s);
  if (bytes < 0) fail_type(key, s);
  return bytes;
}

const std::string& text_of(const ConfigKey& key, const Setting& s) {
  // An argument such as run.dir=2024 is meant as it stands.
  if (s.type != Setting::Type::text && !s.from_argument) fail_type(key, s);
  return s.text;
}

size_t word_of(const ConfigKey& key, const Setting& s) {
  if (s.type != Setting::Type::text) fail_type(key, s);
  for (size_t i = 0; i < key.words.size(); ++i)
    if (key.words[i] == s.text) return i;
  for (const std::string_view later : key.later)
    check_as(Failure::usage, later != s.text, "{}{} = {} is not available in this version; available: {}", s.where, key.name, s.shown,
             listed(key.words, ", "));
  const std::vector<std::string> words(key.words.begin(), key.words.end());
  const std::string_view nearest = nearest_word(s.text, words);
  fail_as(Failure::usage, "{}{} expects {}, got {}{}", s.where, key.name, expectation(key), s.shown,
          nearest.empty() ? "" : text(", did you mean \"{}\"?", nearest));
}

void check_text(const ConfigKey& key, const std::string& value, std::string_view where) {
  check_as(Failure::usage, value.size() <= kMaxTextBytes, "{}{} is longer than {} bytes", where, key.name, kMaxTextBytes);
  check_as(Failure::usage, printable_line(value, kMaxTextBytes + 1) == value, "{}{} has a control character or is not valid UTF-8: \"{}\"",
           where, key.name, printable_line(value, 60));
  check_as(Failure::usage, !value.empty() || key.may_be_empty, "{}{} must not be empty", where, key.name);
}

void check_tokenizer(const ConfigKey& key, const std::string& value, std::string_view where) {
  check_text(key, value, where);
  if (!value.starts_with("bpe:")) return;
  const std::string_view digits = std::string_view(value).substr(4);
  const bool is_number = !digits.empty() && digits.size() <= 8 && digits.find_first_not_of("0123456789") == digits.npos;
  check_as(Failure::usage, is_number, "{}{} expects bpe:N with a number N of at most {}, got \"{}\"", where, key.name, kMaxVocab,
           printable_line(value, 60));
  const int64_t size = std::stoll(std::string(digits));
  check_as(Failure::usage, size > 256 && size <= kMaxVocab, "{}{}: N of bpe:N must be from 257 to {}, got {}", where, key.name, kMaxVocab,
           size);
}

void check_preset(const std::string& name, std::string_view where) {
  try {
    model_preset(name);
  } catch (const Error& error) {
    fail_as(error.kind(), "{}{}", where, error.what());
  }
}
}  // namespace

const ConfigKey* find_key(std::string_view name) {
  for (const ConfigKey& key : config_table())
    if (key.name == name) return &key;
  return nullptr;
}

void assign(Config& config, const ConfigKey& key, const Setting& s) {
  switch (key.type) {
    case KeyType::integer:
    case KeyType::bytes:
      field<int64_t>(key, config) = integer_of(key, s);
      break;
    case KeyType::number: {
      const bool is_zero_word = key.zero && s.type == Setting::Type::text && s.text == key.zero;
      if (!is_zero_word && s.type != Setting::Type::number && s.type != Setting::Type::integer) fail_type(key, s);
      const double value = is_zero_word ? 0 : s.type == Setting::Type::integer ? double(s.integer) : s.number;
      if (key.zero && value == 0 && !is_zero_word) fail_type(key, s);
      field<double>(key, config) = value;
      break;
    }
    case KeyType::boolean:
      if (s.type != Setting::Type::boolean) fail_type(key, s);
      field<bool>(key, config) = s.boolean;
      break;
    case KeyType::word:
      field<uint8_t>(key, config) = uint8_t(word_of(key, s));
      break;
    case KeyType::choice:
      field<std::string>(key, config) = key.words[word_of(key, s)];
      break;
    case KeyType::text:
    case KeyType::preset:
    case KeyType::tokenizer:
      field<std::string>(key, config) = text_of(key, s);
      break;
  }
  check_value(config, key, s.where);
}

void copy_value(Config& to, const Config& from, const ConfigKey& key) {
  switch (key.type) {
    case KeyType::integer:
    case KeyType::bytes:
      field<int64_t>(key, to) = field<int64_t>(key, from);
      break;
    case KeyType::number:
      field<double>(key, to) = field<double>(key, from);
      break;
    case KeyType::boolean:
      field<bool>(key, to) = field<bool>(key, from);
      break;
    case KeyType::word:
      field<uint8_t>(key, to) = field<uint8_t>(key, from);
      break;
    default:
      field<std::string>(key, to) = field<std::string>(key, from);
  }
}

void check_value(const Config& config, const ConfigKey& key, std::string_view where) {
  switch (key.type) {
    case KeyType::integer:
    case KeyType::bytes: {
      const int64_t value = field<int64_t>(key, config);
      if (value < key.least || value > key.most) fail_value(key, where, text("{}", value));
      break;
    }
    case KeyType::number: {
      const double value = field<double>(key, config);
      if (key.zero && value == 0) break;
      // NaN is in no range.
      if (!(value >= key.low && value <= key.high) || (key.below_high && value == key.high)) fail_value(key, where, text("{}", value));
      break;
    }
    case KeyType::boolean:
      break;
    case KeyType::word:
      check_as(Failure::usage, field<uint8_t>(key, config) < key.words.size(), "{}{} expects {}", where, key.name, expectation(key));
      break;
    case KeyType::choice: {
      const std::string& value = field<std::string>(key, config);
      bool known = false;
      for (const std::string_view word : key.words) known = known || word == value;
      check_as(Failure::usage, known, "{}{} expects {}, got \"{}\"", where, key.name, expectation(key), printable_line(value, 60));
      break;
    }
    case KeyType::text:
      check_text(key, field<std::string>(key, config), where);
      break;
    case KeyType::preset:
      check_preset(field<std::string>(key, config), where);
      break;
    case KeyType::tokenizer:
      check_tokenizer(key, field<std::string>(key, config), where);
      break;
  }
}

std::string value_text(const Config& config, const ConfigKey& key) {
  switch (key.type) {
    case KeyType::integer:
    case KeyType::bytes:
      return text("{}", field<int64_t>(key, config));
    case KeyType::number: {
      const double value = field<double>(key, config);
      return key.zero && value == 0 ? toml_quoted(key.zero) : number_text(value);
    }
    case KeyType::boolean:
      return field<bool>(key, config) ? "true" : "false";
    case KeyType::word:
      return toml_quoted(key.words[field<uint8_t>(key, config)]);
    default:
      return toml_quoted(field<std::string>(key, config));
  }
}

std::string type_text(const ConfigKey& key) {
  switch (key.type) {
    case KeyType::integer:
      return key.most == kUnbounded ? text("integer, at least {}", key.least) : text("integer, {} to {}", key.least, key.most);
    case KeyType::bytes:
      return "bytes";
    case KeyType::number:
      return (key.zero ? text("{} or ", key.zero) : "") +
             (key.below_high ? text("number, {} to below {}", key.low, key.high) : text("number, {} to {}", key.low, key.high));
    case KeyType::boolean:
      return "true or false";
    case KeyType::word:
    case KeyType::choice:
      return listed(key.words, " or ");
    case KeyType::preset:
      return "preset";
    case KeyType::tokenizer:
    case KeyType::text:
      return "string";
  }
  return "";
}
}  // namespace reckon
