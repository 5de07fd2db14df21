// report/markup: text for a page: escaping, and numbers as people read them. Knows nothing of runs.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace reckon {

/// Text for HTML and SVG, in elements and in quoted attributes: & < > " ' are escaped; control characters (but tab and line feed), and
/// bytes that are not UTF-8, become U+FFFD. Whatever a path or a run is called, it stays text.
std::string escaped(std::string_view text);
/// JSON for a <script> element: the same document with < > & and the line separators U+2028, U+2029 written as \uXXXX.
std::string script_safe(std::string_view json);
/// UTF-8 with every invalid byte as U+FFFD, for writers that take nothing else.
std::string valid_utf8(std::string_view text);

/// 1.53e12 -> "1.53 T", 0.5 -> "0.5", 1234 -> "1,234": three digits, then a decimal prefix from a million up.
std::string short_number(double value);
/// "12.3 ms", "4.56 s", "2m 05s".
std::string short_seconds(double seconds);
/// 0.1234 -> "12.3 %"; below 0.05 % "< 0.1 %".
std::string percent(double share);
/// A coordinate: at most two decimals, no trailing zeros.
std::string fixed2(double value);
/// 1 to 9 times a power of ten below `value`, for axes: the step that gives about `count` ticks, of 1, 2, 2.5 or 5 times a power of ten
/// (of two and of 1024 with `binary`). Always > 0.
double tick_step(double span, int count, bool binary);
}  // namespace reckon
