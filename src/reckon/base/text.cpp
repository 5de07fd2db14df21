#include "reckon/base/text.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "reckon/base/error.h"

namespace reckon {
std::string human_bytes(int64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = double(bytes);
  int unit = 0;
  while (std::abs(value) >= 1024 && unit < 5) value /= 1024, ++unit;
  return unit == 0 ? text("{} B", bytes) : text("{:.2f} {}", value, kUnits[unit]);
}

std::string with_commas(int64_t value) {
  std::string digits = std::to_string(value);
  for (int at = int(digits.size()) - 3, first = value < 0 ? 1 : 0; at > first; at -= 3) digits.insert(size_t(at), ",");
  return digits;
}

std::string counted(int64_t count, std::string_view singular) { return text("{} {}{}", with_commas(count), singular, count == 1 ? "" : "s"); }

std::string human_seconds(double seconds) {
  if (!std::isfinite(seconds)) return "?";
  if (seconds < 60) return text("{:.1f}s", seconds);
  const int64_t whole = std::llround(seconds);
  if (whole < 3600) return text("{}m {:02}s", whole / 60, whole % 60);
  if (whole < 86400) return text("{}h {:02}m", whole / 3600, whole / 60 % 60);
  return text("{}d {:02}h", whole / 86400, whole / 3600 % 24);
}

namespace {
// Damerau-Levenshtein (adjacent swaps count one), by rows.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> row(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) row[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) row[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i)
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = a[i - 1] == b[j - 1] ? 0 : 1;
      row[i][j] = std::min({row[i - 1][j] + 1, row[i][j - 1] + 1, row[i - 1][j - 1] + change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[i][j] = std::min(row[i][j], row[i - 2][j - 2] + 1);
    }
  return row[a.size()][b.size()];
}
}  // namespace

std::string_view nearest_word(std::string_view word, std::span<const std::string> candidates) {
  std::string_view best;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  if (word.size() > 256) return best;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) best = candidate, best_distance = distance;
  }
  return best;
}

std::string did_you_mean(std::string_view word, std::span<const std::string> candidates) {
  const std::string_view nearest = nearest_word(word, candidates);
  return nearest.empty() ? "" : text(", did you mean '{}'?", nearest);
}

namespace {
// Length of the well-formed UTF-8 sequence at the start of the text, or 0.
size_t utf8_length(std::string_view s) {
  const auto byte = [&](size_t i) { return i < s.size() ? uint8_t(s[i]) : 0; };
  const auto tail = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  if (byte(0) < 0x80) return 1;
  if (byte(0) >= 0xC2 && byte(0) <= 0xDF && tail(1)) return 2;
  if (byte(0) >= 0xE0 && byte(0) <= 0xEF && tail(1) && tail(2)) {
    if ((byte(0) == 0xE0 && byte(1) < 0xA0) || (byte(0) == 0xED && byte(1) > 0x9F)) return 0;
    return 3;
  }
  if (byte(0) >= 0xF0 && byte(0) <= 0xF4 && tail(1) && tail(2) && tail(3)) {
    if ((byte(0) == 0xF0 && byte(1) < 0x90) || (byte(0) == 0xF4 && byte(1) > 0x8F)) return 0;
    return 4;
  }
  return 0;
}
}  // namespace

std::string printable_line(std::string_view bytes, size_t max_length) {
  std::string line;
  while (!bytes.empty()) {
    if (line.size() >= max_length) return line + "...";
    const size_t length = utf8_length(bytes);
    if (length == 0 || uint8_t(bytes[0]) < 0x20 || bytes[0] == 0x7F) {
      line += bytes[0] == '\n' ? "\\n" : text("\\x{:02X}", unsigned(uint8_t(bytes[0])));
      bytes.remove_prefix(1);
    } else {
      line += bytes.substr(0, length);
      bytes.remove_prefix(length);
    }
  }
  return line;
}
}  // namespace reckon
