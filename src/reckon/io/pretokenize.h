// io/pretokenize: cuts a text into the pieces that BPE merges within. Knows regular expressions and UTF-8, not tokens.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "reckon/base/ref.h"

namespace reckon {

/// Length of the longest prefix that is valid UTF-8 (no overlong forms, no surrogates, at most U+10FFFF).
size_t utf8_valid_prefix(std::string_view bytes);
/// Bytes of the valid character at the front, 0 if there is none (invalid, cut short or empty).
size_t utf8_character(std::string_view bytes);
/// The code point of a valid character of this many bytes.
uint32_t utf8_code_point(std::string_view bytes, size_t length);

/// GPT-2's split pattern, and the patterns of later models that allow the same cuts (see safe_cut).
extern const char* const kGpt2Pattern;
extern const char* const kLlama3Pattern;
extern const char* const kQwen2Pattern;

/// A compiled split pattern (PCRE2 with UTF and UCP, JIT where the system allows it). Unicode 14 classes. Immutable: threads may share it.
class SplitPattern : public RefCounted {
 public:
  /// source names the regex in errors. Throws Error (corrupt) for a pattern that is malformed, too large or matches the empty string.
  static Ref<SplitPattern> compile(std::string_view regex, std::string_view source);
  virtual const std::string& regex() const = 0;
  /// True for the patterns above, for which safe_cut holds.
  virtual bool allows_cuts() const = 0;
};

/// Walks the pieces of a text in order; together they are the text, byte for byte. A piece is a match of the pattern or what lies between
/// two matches. A byte that is not part of valid UTF-8 is a piece of its own. One thread at a time; the text and pattern must outlive it.
class PieceScanner {
 public:
  explicit PieceScanner(const SplitPattern& pattern);
  ~PieceScanner();
  PieceScanner(const PieceScanner&) = delete;
  PieceScanner& operator=(const PieceScanner&) = delete;

  void start(std::string_view text);
  /// False at the end. Throws Error when a match exceeds its limits (10 million steps, 64 MiB), as hostile patterns do.
  bool next(std::string_view& piece);

 private:
  struct State;
  State* state_;
};

/// The last position c in (0, text.size()) at which any text around can be cut without changing its pieces under a pattern that allows
/// cuts; 0 if there is none. It is before a space that follows a visible character, or between a CJK letter and a CJK comma or full stop:
/// in all these patterns a match never runs across such a point, nor looks across it.
size_t safe_cut(std::string_view text);
}  // namespace reckon
