#include "reckon/train/parameter_groups.h"

#include <algorithm>
#include <charconv>
#include <cstdint>

#include "reckon/base/error.h"
#include "reckon/base/text.h"

namespace reckon {
namespace {
// What lies between any of the separators, without blanks around it; empty parts are left out.
std::vector<std::string_view> parts_of(std::string_view text, std::string_view separators) {
  std::vector<std::string_view> parts;
  for (size_t at = 0, end; at <= text.size(); at = end + 1) {
    end = std::min(text.find_first_of(separators, at), text.size());
    std::string_view part = text.substr(at, end - at);
    while (!part.empty() && part.front() == ' ') part.remove_prefix(1);
    while (!part.empty() && part.back() == ' ') part.remove_suffix(1);
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

bool matches_pattern(std::string_view pattern, std::string_view name) {
  // The last star takes one character more whenever what follows it does not fit.
  size_t p = 0, n = 0, star = pattern.npos, taken = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      taken = n;
    } else if (p < pattern.size() && pattern[p] == name[n]) {
      ++p, ++n;
    } else if (star != pattern.npos) {
      p = star + 1;
      n = ++taken;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == pattern.npos;
}

double factor_of(std::string_view digits, std::string_view word) {
  double value = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  check_as(Failure::usage, error == std::errc() && end == digits.data() + digits.size() && value >= 0 && value <= kMaxGroupFactor,
           "optim.groups: {} is no factor from 0 to {}", printable_line(word, 60), kMaxGroupFactor);
  return value;
}
}  // namespace

bool matches(const ParameterGroup& group, std::string_view name) { return matches_pattern(group.pattern, name); }

int group_of(const std::vector<ParameterGroup>& groups, std::string_view name) {
  for (size_t i = 0; i < groups.size(); ++i)
    if (matches(groups[i], name)) return int(i);
  return -1;
}

std::vector<ParameterGroup> parse_groups(std::string_view text) {
  std::vector<ParameterGroup> groups;
  for (const std::string_view part : parts_of(text, ";")) {
    const std::vector<std::string_view> words = parts_of(part, " ,");
    check_as(Failure::usage, words.size() > 1 && words[0].find('=') == words[0].npos,
             "optim.groups: \"{}\" is no group such as \"embed.* lr=0.1 weight_decay=0\"", printable_line(part, 60));
    ParameterGroup group{.pattern = std::string(words[0])};
    for (size_t i = 1; i < words.size(); ++i) {
      const size_t equals = words[i].find('=');
      const std::string_view name = words[i].substr(0, equals);
      check_as(Failure::usage, equals != words[i].npos && (name == "lr" || name == "weight_decay"),
               "optim.groups: \"{}\" in \"{}\" is neither lr=FACTOR nor weight_decay=FACTOR", printable_line(words[i], 60),
               printable_line(part, 60));
      for (size_t before = 1; before < i; ++before)
        check_as(Failure::usage, words[before].substr(0, words[before].find('=')) != name, "optim.groups: \"{}\" gives {} twice",
                 printable_line(part, 60), name);
      (name == "lr" ? group.lr : group.weight_decay) = factor_of(words[i].substr(equals + 1), words[i]);
    }
    groups.push_back(group);
  }
  return groups;
}
}  // namespace reckon
