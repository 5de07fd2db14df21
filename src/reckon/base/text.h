// base/text: numbers for people, and the nearest word for a misspelt one.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace reckon {
/// 1536 -> "1.50 KiB"; below 1 KiB "512 B".
std::string human_bytes(int64_t bytes);
/// 1234567 -> "1,234,567".
std::string with_commas(int64_t value);
/// "1 token", "0 tokens", "1,234 tokens".
std::string counted(int64_t count, std::string_view singular);
/// 3725.2 -> "1h 02m", 65 -> "1m 05s", 4.21 -> "4.2s".
std::string human_seconds(double seconds);
/// The candidate nearest to the word by edit distance, or "" if none is near enough to be meant (at most a third of its letters, at least 2).
std::string_view nearest_word(std::string_view word, std::span<const std::string> candidates);
/// ", did you mean 'x'?" or "".
std::string did_you_mean(std::string_view word, std::span<const std::string> candidates);
/// Bytes as one printable line: control characters and invalid UTF-8 as \xNN, cut to max_length with "...".
std::string printable_line(std::string_view bytes, size_t max_length = 200);
}  // namespace reckon
