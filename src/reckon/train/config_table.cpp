// train/config_table: reads, checks and prints one key by its row. Knows no TOML syntax and no file.
#include "reckon/train/config_table.h"

#include <cmath>
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

std::vector<std::string> key_names() {
  std::vector<std::string> names;
  for (const ConfigKey& key : config_table()) names.emplace_back(key.name);
  return names;
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
      return "an integer";
    case KeyType::bytes:
      return "bytes such as 4294967296, \"4GiB\" (2^30) or \"4GB\" (10^9)";
    case KeyType::number:
      return "a number";
    case KeyType::boolean:
      return "true or false";
    case KeyType::word:
    case KeyType::choice:
      return listed(key.words, " or ");
    default:
      return "a string";
  }
}

[[noreturn]] void fail_type(const ConfigKey& key, const Setting& s) {
  fail_as(Failure::usage, "{}{} expects {}, got {}", s.where, key.name, expectation(key), s.shown);
}

// Digits that TOML refused: the number is right in form and too large.
bool is_long_integer(std::string_view value) {
  if (!value.empty() && (value[0] == '+' || value[0] == '-')) value.remove_prefix(1);
  return value.size() >= 19 && value.find_first_not_of("0123456789_") == value.npos;
}

int64_t integer_of(const ConfigKey& key, const Setting& s) {
  if (s.type == Setting::Type::integer) return s.integer;
  if (s.type == Setting::Type::text && s.from_argument)
    check_as(Failure::usage, !is_long_integer(s.text), "{}{} does not fit in 64 bits", s.where, key.name);
  if (key.type != KeyType::bytes || s.type != Setting::Type::text) fail_type(key, s);
  const int64_t bytes = parse_bytes(s.text);
  check_as(Failure::usage, bytes != -2, "{}{} does not fit in 63 bits", s.where, key.name);
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
    case KeyType::number:
      if (s.type != Setting::Type::number && s.type != Setting::Type::integer) fail_type(key, s);
      field<double>(key, config) = s.type == Setting::Type::integer ? double(s.integer) : s.number;
      break;
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

void check_value(const Config& config, const ConfigKey& key, std::string_view where) {
  switch (key.type) {
    case KeyType::integer:
    case KeyType::bytes: {
      const int64_t value = field<int64_t>(key, config);
      check_as(Failure::usage, value >= key.least, "{}{} must be at least {}, got {}", where, key.name, key.least, value);
      check_as(Failure::usage, value <= key.most, "{}{} must be at most {}, got {}", where, key.name, key.most, value);
      break;
    }
    case KeyType::number: {
      const double value = field<double>(key, config);
      check_as(Failure::usage, std::isfinite(value), "{}{} must be a finite number, got {}", where, key.name, value);
      check_as(Failure::usage, value >= key.low, "{}{} must be at least {}, got {}", where, key.name, key.low, value);
      check_as(Failure::usage, value <= key.high && (!key.below_high || value < key.high), "{}{} must be {} {}, got {}", where, key.name,
               key.below_high ? "below" : "at most", key.high, value);
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
    case KeyType::number:
      return number_text(field<double>(key, config));
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
      return key.below_high ? text("number, {} to below {}", key.low, key.high) : text("number, {} to {}", key.low, key.high);
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

namespace {
// Names that other trainers use, by their last component.
struct Synonym {
  std::string_view word, key;
};
constexpr Synonym kSynonyms[] = {
    {"batch_size", "train.micro_batch"},
    {"micro_batch_size", "train.micro_batch"},
    {"block_size", "train.seq_len"},
    {"context_length", "train.seq_len"},
    {"sequence_length", "train.seq_len"},
    {"gradient_accumulation_steps", "train.grad_accum"},
    {"accumulation_steps", "train.grad_accum"},
    {"max_steps", "train.steps"},
    {"max_iters", "train.steps"},
    {"iterations", "train.steps"},
    {"dtype", "train.precision"},
    {"activation_checkpointing", "train.recompute"},
    {"gradient_checkpointing", "train.recompute"},
    {"learning_rate", "optim.lr"},
    {"optimizer", "optim.name"},
    {"grad_clip", "optim.clip_norm"},
    {"max_grad_norm", "optim.clip_norm"},
    {"n_layer", "model.layers"},
    {"n_layers", "model.layers"},
    {"num_layers", "model.layers"},
    {"num_hidden_layers", "model.layers"},
    {"n_head", "model.heads"},
    {"n_heads", "model.heads"},
    {"num_attention_heads", "model.heads"},
    {"num_key_value_heads", "model.kv_heads"},
    {"n_embd", "model.d_model"},
    {"dim", "model.d_model"},
    {"hidden_size", "model.d_model"},
    {"intermediate_size", "model.d_ff"},
    {"vocab_size", "model.vocab"},
    {"max_position_embeddings", "model.max_seq_len"},
    {"eval_interval", "eval.every"},
    {"save_interval", "checkpoint.every"},
    {"out_dir", "run.dir"},
    {"output_dir", "run.dir"},
};

// ", did you mean 'x'?" or "": the nearest key, else the key that has the same or a synonymous last component.
std::string suggestion(std::string_view name) {
  const std::vector<std::string> names = key_names();
  const std::string near = did_you_mean(name, names);
  if (!near.empty()) return near;
  const size_t dot = name.rfind('.');
  const std::string_view last = dot == name.npos ? name : name.substr(dot + 1);
  for (const std::string& key : names)
    if (key.ends_with(last) && key.size() > last.size() && key[key.size() - last.size() - 1] == '.')
      return text(", did you mean '{}'?", key);
  for (const Synonym& synonym : kSynonyms)
    if (synonym.word == last) return text(", did you mean '{}'?", synonym.key);
  return "";
}
}  // namespace

void fail_unknown_key(const Setting& s) {
  const std::string_view name = s.key;
  const std::string shown = printable_line(name, 100);
  const std::string_view table = name.substr(0, name.find('.'));
  check_as(Failure::usage, table != "parallel",
           "{}{} is not available in this version; available: one process on one device, without parallel.* keys", s.where, shown);
  check_as(Failure::usage, table != "offload",
           "{}{} is not available in this version; available: everything in the device's memory, without offload.* keys", s.where, shown);
  std::string inside;
  for (const std::string& key : key_names())
    if (inside.empty() && key.starts_with(name) && key[name.size()] == '.') inside = key;
  check_as(Failure::usage, inside.empty(), "{}'{}' is a table of keys such as {}, got {}", s.where, shown, inside, s.shown);
  fail_as(Failure::usage, "{}unknown {} '{}'{}", s.where, s.type == Setting::Type::table ? "table" : "key", shown, suggestion(name));
}
}  // namespace reckon
