// tests/docs/flops_table: tables and formulas of a Markdown document. Knows nothing of operations.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace reckon::docs {

using Names = std::map<std::string, int64_t>;
/// The cells of a line of a table, trimmed.
using TableLine = std::vector<std::string>;
/// By the first cell.
using Table = std::map<std::string, TableLine>;

/// The table under the heading of this name; path from the repository's root. Throws Error if there is none or a first cell repeats.
Table read_table(const std::string& path, std::string_view heading);

/// Integers, names, + - * / and parentheses. Throws Error for anything else, for unknown names and for a division with a remainder.
int64_t evaluate(std::string_view formula, const Names& names);
}  // namespace reckon::docs
