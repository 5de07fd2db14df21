// train/parameter_groups: parameters by name, whose learning rate and weight decay are other than those of the rest. Knows no tensor.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace reckon {

/// Factors are from 0 to this.
inline constexpr double kMaxGroupFactor = 1000;

/// Parameters whose names match. In a pattern * stands for any characters, as in "blocks.*.weight".
struct ParameterGroup {
  std::string pattern;
  double lr = 1;            // multiplies the learning rate
  double weight_decay = 1;  // multiplies the weight decay, where there is one: norms and biases have none
  bool operator==(const ParameterGroup&) const = default;
};
bool matches(const ParameterGroup& group, std::string_view name);
/// The first group that matches the name, as an index; -1: none does.
int group_of(const std::vector<ParameterGroup>& groups, std::string_view name);
/// "embed.* lr=0.1; *.bias lr=2 weight_decay=0" as optim.groups has it: patterns with factors from 0 to 1000, between commas or blanks.
/// Throws Error (usage) with the part that is no group, or gives a factor twice.
std::vector<ParameterGroup> parse_groups(std::string_view text);
}  // namespace reckon
