// train/config_toml: the only file that includes toml++; it compiles slowly, and its limits are set here.
#include "reckon/train/config_toml.h"

namespace {
// toml++ asserts that "[=" does not occur, and without assertions assumes so: here it is an exception in every build type.
struct Rejected {};
[[noreturn]] void reject() { throw Rejected(); }
}  // namespace
#undef NDEBUG
#define TOML_ASSERT(condition) ((condition) ? void(0) : reject())
// Values nest in arrays and inline tables; no key of ours does, and toml++ frees what it read recursively.
#define TOML_MAX_NESTED_VALUES 16
#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <unordered_map>

#include "reckon/base/error.h"
#include "reckon/base/text.h"

namespace reckon {
namespace {
constexpr size_t kMaxFileBytes = 256 << 10;
constexpr int kMaxDotsInLine = 250;  // each dot of a key may open a table inside another, and toml++ frees tables recursively

std::string joined(std::string_view table, std::string_view key) { return table.empty() ? std::string(key) : text("{}.{}", table, key); }

std::string shown_text(std::string_view value) { return text("\"{}\"", printable_line(value, 60)); }

void set_value(Setting& s, const toml::node& node) {
  if (const auto* integer = node.as_integer()) {
    s.type = Setting::Type::integer;
    s.integer = integer->get();
    s.shown = text("{}", s.integer);
  } else if (const auto* number = node.as_floating_point()) {
    s.type = Setting::Type::number;
    s.number = number->get();
    s.shown = text("{}", s.number);
    if (s.shown.find_first_of(".en") == std::string::npos) s.shown += ".0";
  } else if (const auto* boolean = node.as_boolean()) {
    s.type = Setting::Type::boolean;
    s.boolean = boolean->get();
    s.shown = s.boolean ? "true" : "false";
  } else if (const auto* string = node.as_string()) {
    s.type = Setting::Type::text;
    s.text = string->get();
    s.shown = shown_text(s.text);
  } else {
    s.type = node.is_table() ? Setting::Type::table : Setting::Type::other;
    s.shown = node.is_table() ? "a table" : node.is_array() ? "an array" : "a date or time";
  }
}

struct Found {
  Setting setting;
  toml::source_position at;
};

// Depth is bounded by the limits on nesting and dots above.
void flatten(const toml::table& table, const std::string& path, std::string_view source, std::vector<Found>& out) {
  for (const auto& [key, node] : table) {
    const std::string name = joined(path, key.str());
    const toml::table* inner = node.as_table();
    if (inner && !inner->empty()) {
      flatten(*inner, name, source, out);
      continue;
    }
    Found found{{}, node.source().begin ? node.source().begin : key.source().begin};
    found.setting.key = name;
    found.setting.where = text("{}:{}: ", printable_line(source), found.at.line);
    set_value(found.setting, node);
    out.push_back(std::move(found));
  }
}

// What toml++ 3.3 does not survive, told before it looks: its stack (dots) and its tables of Unicode space (undefined behaviour on a
// letter such as e-acute where a space may stand). Returns the complaint and its line, or nullptr.
const char* hazard(std::string_view toml, int& line) {
  line = 1;
  if (toml.starts_with("\xEF\xBB\xBF")) toml.remove_prefix(3);
  int dots = 0;
  for (size_t at = 0; at < toml.size(); ++at) {
    const char c = toml[at];
    if (c == '#') {
      at = std::min(toml.find('\n', at), toml.size()) - 1;
    } else if (c == '"' || c == '\'') {
      const char before = at == 0 ? '\n' : toml[at - 1];
      if (std::string_view(" \t\r\n=,[{").find(before) == std::string_view::npos)
        return "not valid TOML: a quotation mark must follow a space, '=', ',' or an opening bracket";
      if (toml.substr(at + 1, 2) == std::string(2, c)) return "strings of several lines are not used here: write it in one line";
      for (++at; at < toml.size() && toml[at] != c && toml[at] != '\n'; ++at)
        if (c == '"' && toml[at] == '\\') ++at;
      if (at >= toml.size() || toml[at] == '\n') return "not valid TOML: a quotation mark is not closed in its line";
    } else if (c == '\n') {
      ++line, dots = 0;
    } else if (c == '.' && ++dots > kMaxDotsInLine) {
      return "more than 250 dots in a line; keys look like train.micro_batch";
    } else if (uint8_t(c) >= 0x80) {
      return "not valid TOML: a character that is not ASCII stands outside quotation marks";
    }
  }
  return nullptr;
}

// The first line with which toml++ rejects the document by an assertion: it stops at its first error, so prefixes are monotone.
int rejected_line(std::string_view toml) {
  std::vector<size_t> ends;
  for (size_t at = 0; at < toml.size(); ++at)
    if (toml[at] == '\n' || at + 1 == toml.size()) ends.push_back(at + 1);
  const auto rejects = [&](size_t end) {
    try {
      const toml::table prefix = toml::parse(toml.substr(0, end));
    } catch (const Rejected&) {
      return true;
    } catch (const toml::parse_error&) {
    }
    return false;
  };
  const auto first = std::partition_point(ends.begin(), ends.end(), [&](size_t end) { return !rejects(end); });
  return int(first - ends.begin()) + 1;
}

// toml++ names its own macro after some limits.
std::string without_macro(std::string_view description) {
  const size_t at = description.find(" (TOML_");
  return printable_line(at == description.npos ? description : description.substr(0, at));
}
}  // namespace

std::string read_config_file(const std::string& path) {
  const std::string name = printable_line(path);
  std::FILE* file = std::fopen(path.c_str(), "rb");
  check_as(Failure::usage, file, "cannot open the configuration {}: {}", name, std::strerror(errno));
  std::string bytes(kMaxFileBytes + 1, '\0');
  const size_t count = std::fread(bytes.data(), 1, bytes.size(), file);
  const int error = std::ferror(file) ? errno : 0;
  std::fclose(file);
  check_as(Failure::usage, error != EISDIR, "the configuration {} is a directory; name the TOML file in it", name);
  check_as(Failure::usage, error == 0, "cannot read the configuration {}: {}", name, std::strerror(error));
  check_as(Failure::usage, count <= kMaxFileBytes, "{} is larger than {}: it is not a configuration file", name,
           human_bytes(kMaxFileBytes));
  bytes.resize(count);
  return bytes;
}

std::vector<Setting> read_toml(std::string_view toml, std::string_view source) {
  int line = 0;
  if (const char* complaint = hazard(toml, line)) fail_as(Failure::usage, "{}:{}: {}", printable_line(source), line, complaint);
  std::vector<Found> found;
  try {
    const toml::table root = toml::parse(toml);
    flatten(root, "", source, found);
  } catch (const toml::parse_error& error) {
    fail_as(Failure::usage, "{}:{}:{}: not valid TOML: {}", printable_line(source), error.source().begin.line, error.source().begin.column,
            without_macro(error.description()));
  } catch (const Rejected&) {
    fail_as(Failure::usage, "{}:{}: not valid TOML: a key must begin with a letter, a digit, '_', '-' or a quotation mark",
            printable_line(source), rejected_line(toml));
  }
  std::stable_sort(found.begin(), found.end(), [](const Found& a, const Found& b) { return a.at < b.at; });
  std::unordered_map<std::string, unsigned> first_line;
  std::vector<Setting> settings;
  for (Found& f : found) {
    // toml++ refuses a repeated key, but not train.steps beside "train.steps".
    const auto [earlier, is_new] = first_line.try_emplace(f.setting.key, f.at.line);
    check_as(Failure::usage, is_new, "{}key '{}' was given in line {} already", f.setting.where, printable_line(f.setting.key),
             earlier->second);
    settings.push_back(std::move(f.setting));
  }
  return settings;
}

Setting read_argument(std::string_view argument) {
  const size_t equals = argument.find('=');
  check_as(Failure::usage, equals != argument.npos && equals > 0,
           "argument '{}' is not of the form key.path=value, such as train.steps=100", printable_line(argument));
  Setting s;
  s.key = argument.substr(0, equals);
  s.from_argument = true;
  s.where = text("argument '{}': ", printable_line(argument));
  const std::string_view value = argument.substr(equals + 1);
  s.type = Setting::Type::text;
  s.text = value;
  s.shown = shown_text(value);
  // An array of one element: nothing after the value can pass as a second key.
  const std::string wrapped = text("value = [{}]", value);
  int line = 0;
  if (hazard(wrapped, line) || value.ends_with(',')) return s;
  try {
    const toml::table document = toml::parse(wrapped);
    const toml::array* array = document.size() == 1 ? document["value"].as_array() : nullptr;
    const bool commented = value.find('#') != value.npos && array && !array->empty() && !(*array)[0].is_string();
    if (array && array->size() == 1 && !commented) set_value(s, (*array)[0]);
  } catch (const toml::parse_error&) {  // not TOML: the string as it stands
  } catch (const Rejected&) {
  }
  return s;
}

std::string toml_quoted(std::string_view value) {
  std::string out = "\"";
  for (const char c : value) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (uint8_t(c) < 0x20 || c == 0x7F) {
      out += text("\\u{:04X}", unsigned(uint8_t(c)));
    } else {
      out += c;
    }
  }
  return out + '"';
}
}  // namespace reckon
