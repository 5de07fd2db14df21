#include "reckon/report/markup.h"

#include <cmath>

#include "reckon/base/error.h"
#include "reckon/base/text.h"

namespace reckon {
namespace {
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Bytes of the UTF-8 character at the front (RFC 3629: no surrogates, nothing overlong, nothing above U+10FFFF); 0 if there is none.
size_t character_size(std::string_view s) {
  const auto byte = [&](size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0u; };
  const auto follows = [&](size_t from, size_t count) {
    for (size_t i = from; i < from + count; ++i)
      if ((byte(i) & 0xC0u) != 0x80u) return false;
    return true;
  };
  const unsigned a = byte(0), b = byte(1);
  if (a < 0x80) return 1;
  if (a >= 0xC2 && a <= 0xDF) return follows(1, 1) ? 2 : 0;
  if (a >= 0xE0 && a <= 0xEF) return follows(1, 2) && !(a == 0xE0 && b < 0xA0) && !(a == 0xED && b > 0x9F) ? 3 : 0;
  if (a >= 0xF0 && a <= 0xF4) return follows(1, 3) && !(a == 0xF0 && b < 0x90) && !(a == 0xF4 && b > 0x8F) ? 4 : 0;
  return 0;
}

std::string_view entity(char c) {
  switch (c) {
    case '&':
      return "&amp;";
    case '<':
      return "&lt;";
    case '>':
      return "&gt;";
    case '"':
      return "&quot;";
    case '\'':
      return "&#39;";
    default:
      return {};
  }
}
}  // namespace

std::string valid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t size = character_size(text);
    out += size > 0 ? text.substr(0, size) : kReplacement;
    text.remove_prefix(size > 0 ? size : 1);
  }
  return out;
}

std::string escaped(std::string_view text) {
  std::string out;
  const std::string valid = valid_utf8(text);
  out.reserve(valid.size());
  for (const char c : valid) {
    const bool control = static_cast<unsigned char>(c) < 0x20 && c != '\t' && c != '\n';
    if (control || c == 0x7F) {
      out += kReplacement;
    } else if (const std::string_view name = entity(c); !name.empty()) {
      out += name;
    } else {
      out += c;
    }
  }
  return out;
}

std::string script_safe(std::string_view json) {
  std::string out;
  out.reserve(json.size());
  for (size_t i = 0; i < json.size(); ++i) {
    const std::string_view rest = json.substr(i);
    if (json[i] == '<' || json[i] == '>' || json[i] == '&') {
      out += text("\\u00{:02x}", int(json[i]));
    } else if (rest.starts_with("\xE2\x80\xA8") || rest.starts_with("\xE2\x80\xA9")) {
      out += rest[2] == '\xA8' ? "\\u2028" : "\\u2029";
      i += 2;
    } else {
      out += json[i];
    }
  }
  return out;
}

std::string short_number(double value) {
  if (!std::isfinite(value)) return "–";
  static constexpr const char* kPrefixes[] = {"", " k", " M", " G", " T", " P", " E"};
  const double size = std::abs(value);
  if (size < 1e6) return size >= 100 || value == std::round(value) ? with_commas(std::llround(value)) : text("{:.3g}", value);
  int prefix = 0;
  while (std::abs(value) >= 999.5 && prefix < 6) value /= 1000, ++prefix;
  const int decimals = std::abs(value) < 9.995 ? 2 : std::abs(value) < 99.95 ? 1 : 0;
  return text("{:.{}f}{}", value, decimals, kPrefixes[prefix]);
}

std::string short_seconds(double seconds) {
  if (!std::isfinite(seconds)) return "–";
  if (seconds >= 60) return human_seconds(seconds);
  if (seconds >= 1) return text("{:.2f} s", seconds);
  if (seconds >= 1e-3) return text("{:.3g} ms", seconds * 1e3);
  return text("{:.3g} µs", seconds * 1e6);
}

std::string percent(double share) {
  if (!std::isfinite(share)) return "–";
  if (share > 0 && share < 0.0005) return "< 0.1 %";
  return text("{:.1f} %", share * 100);
}

std::string fixed2(double value) {
  std::string s = text("{:.2f}", value);
  while (s.back() == '0') s.pop_back();
  if (s.back() == '.') s.pop_back();
  return s == "-0" ? "0" : s;
}

double tick_step(double span, int count, bool binary) {
  if (!(span > 0) || !std::isfinite(span)) return 1;
  const double wanted = span / count;
  if (binary) {
    // Within a unit of 1024 steps are decimal, so that 200, 400, 600 MiB are ticks.
    const double unit = wanted < 1 ? 1 : std::pow(1024.0, std::floor(std::log2(wanted) / 10));
    const double steps[] = {1, 2, 5, 10, 20, 50, 100, 200, 256, 512, 1024};
    for (const double step : steps)
      if (step * unit >= wanted) return step * unit;
    return 1024 * unit;
  }
  const double power = std::pow(10.0, std::floor(std::log10(wanted)));
  for (const double step : {1.0, 2.0, 2.5, 5.0})
    if (step * power >= wanted * 0.999) return step * power;
  return 10 * power;
}
}  // namespace reckon
