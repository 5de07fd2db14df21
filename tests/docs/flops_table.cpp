#include "tests/docs/flops_table.h"

#include <cctype>

#include "reckon/base/error.h"
#include "reckon/io/files.h"

namespace reckon::docs {
namespace {
constexpr int64_t kMaxDocument = 1 << 20;  // bytes

std::string trimmed(std::string_view s) {
  const size_t first = s.find_first_not_of(' ');
  return first == s.npos ? "" : std::string(s.substr(first, s.find_last_not_of(' ') - first + 1));
}

TableLine cells_of(std::string_view line) {
  TableLine cells;
  for (size_t at = 1, end; (end = line.find('|', at)) != line.npos; at = end + 1) cells.push_back(trimmed(line.substr(at, end - at)));
  return cells;
}

// sum := product {+|- product}; product := atom {*|/ atom}; atom := integer | name | ( sum )
class Formula {
 public:
  Formula(std::string_view all, const Names& names) : all_(all), rest_(all), names_(names) {}
  int64_t value() {
    const int64_t v = sum();
    check(next() == '\0', "'{}': unexpected '{}'", all_, rest_);
    return v;
  }

 private:
  char next() {
    while (rest_.starts_with(' ')) rest_.remove_prefix(1);
    return rest_.empty() ? '\0' : rest_[0];
  }
  bool take(char c) {
    if (next() != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  int64_t sum() {
    int64_t v = product();
    for (;;) {
      if (take('+'))
        v += product();
      else if (take('-'))
        v -= product();
      else
        return v;
    }
  }
  int64_t product() {
    int64_t v = atom();
    for (;;) {
      if (take('*')) {
        v *= atom();
      } else if (take('/')) {
        const int64_t by = atom();
        check(by != 0 && v % by == 0, "'{}': {} / {} has a remainder", all_, v, by);
        v /= by;
      } else {
        return v;
      }
    }
  }
  int64_t atom() {
    if (take('(')) {
      const int64_t v = sum();
      check(take(')'), "'{}': ')' is missing", all_);
      return v;
    }
    next();
    size_t length = 0;
    while (length < rest_.size() && std::isalnum(static_cast<unsigned char>(rest_[length]))) ++length;
    const std::string word(rest_.substr(0, length));
    check(!word.empty(), "'{}': a number or name is missing before '{}'", all_, rest_);
    rest_.remove_prefix(length);
    if (word.find_first_not_of("0123456789") == word.npos) return std::stoll(word);
    const auto known = names_.find(word);
    check(known != names_.end(), "'{}': nothing is called '{}' here", all_, word);
    return known->second;
  }

  std::string_view all_, rest_;
  const Names& names_;
};
}  // namespace

Table read_table(const std::string& path, std::string_view heading) {
  const std::string document = read_file(path, kMaxDocument);
  const size_t section = document.find("\n## " + std::string(heading) + "\n");
  check(section != document.npos, "{} has no heading '{}'", path, heading);
  Table table;
  bool in_table = false;
  int line_in_table = 0;
  size_t at = document.find('\n', section + 1) + 1;
  for (size_t end; (end = document.find('\n', at)) != document.npos; at = end + 1) {
    const std::string_view line = std::string_view(document).substr(at, end - at);
    if (line.starts_with("## ")) break;
    if (!line.starts_with('|')) {
      if (in_table) break;
      continue;
    }
    in_table = true;
    if (line_in_table++ < 2) continue;  // the titles and the rule under them
    TableLine cells = cells_of(line);
    const std::string name = cells.at(0);
    check(table.emplace(name, std::move(cells)).second, "{}: {} has two lines", path, name);
  }
  check(!table.empty(), "{}: there is no table under '{}'", path, heading);
  return table;
}

int64_t evaluate(std::string_view formula, const Names& names) { return Formula(formula, names).value(); }
}  // namespace reckon::docs
