#include "reckon/io/pretokenize.h"

#include <algorithm>

#include "reckon/base/error.h"
#include "reckon/base/text.h"
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstring>

namespace reckon {

const char* const kGpt2Pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const char* const kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const char* const kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

size_t utf8_character(std::string_view s) {
  const auto at = [&](size_t i) { return i < s.size() ? uint8_t(s[i]) : uint8_t(0); };
  const auto tail = [&](size_t i) { return (at(i) & 0xC0) == 0x80; };
  const uint8_t a = at(0), b = at(1);
  if (a < 0x80) return s.empty() ? 0 : 1;
  if (a >= 0xC2 && a <= 0xDF) return tail(1) ? 2 : 0;
  if (a >= 0xE0 && a <= 0xEF) {
    if ((a == 0xE0 && b < 0xA0) || (a == 0xED && b > 0x9F)) return 0;  // overlong; surrogate
    return tail(1) && tail(2) ? 3 : 0;
  }
  if (a >= 0xF0 && a <= 0xF4) {
    if ((a == 0xF0 && b < 0x90) || (a == 0xF4 && b > 0x8F)) return 0;  // overlong; beyond U+10FFFF
    return tail(1) && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

uint32_t utf8_code_point(std::string_view s, size_t length) {
  const auto tail = [&](size_t i) { return uint32_t(uint8_t(s[i]) & 0x3F); };
  const uint32_t a = uint8_t(s[0]);
  if (length == 1) return a;
  if (length == 2) return (a & 0x1F) << 6 | tail(1);
  if (length == 3) return (a & 0x0F) << 12 | tail(1) << 6 | tail(2);
  return (a & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3);
}

size_t utf8_valid_prefix(std::string_view s) {
  size_t i = 0;
  while (i < s.size()) {
    uint64_t word;
    if (i + 8 <= s.size() && (std::memcpy(&word, s.data() + i, 8), (word & 0x8080808080808080u) == 0)) {
      i += 8;  // eight ASCII bytes
      continue;
    }
    const size_t n = utf8_character(s.substr(i, 4));
    if (n == 0) break;
    i += n;
  }
  return i;
}

namespace {
constexpr size_t kMaxPatternBytes = 16384;
constexpr uint32_t kMatchLimit = 10000000;
constexpr uint32_t kHeapLimitKiB = 65536;
constexpr size_t kJitStackBytes = 1 << 20;

std::string pcre2_message(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

struct CompiledPattern final : SplitPattern {
  ~CompiledPattern() override { pcre2_code_free(code); }
  const std::string& regex() const override { return text; }
  bool allows_cuts() const override { return cuts; }

  std::string text, source;
  pcre2_code* code = nullptr;
  bool jit = false;
  bool cuts = false;
};
}  // namespace

Ref<SplitPattern> SplitPattern::compile(std::string_view regex, std::string_view source) {
  Ref<CompiledPattern> pattern(new CompiledPattern);
  pattern->text = regex;
  pattern->source = source;
  check_as(Failure::corrupt, regex.size() <= kMaxPatternBytes, "{}: the split pattern has {} bytes, over the limit of {}", source,
           regex.size(), kMaxPatternBytes);
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_parens_nest_limit(context, 50);
  int error = 0;
  PCRE2_SIZE at = 0;
  pattern->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(regex.data()), regex.size(), PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C,
                                &error, &at, context);
  pcre2_compile_context_free(context);
  if (!pattern->code) fail_as(Failure::corrupt, "{}: the split pattern is not valid at character {}: {}", source, at, pcre2_message(error));
  uint32_t matches_empty = 0;
  pcre2_pattern_info(pattern->code, PCRE2_INFO_MATCHEMPTY, &matches_empty);
  check_as(Failure::corrupt, !matches_empty, "{}: the split pattern '{}' matches the empty string", source, printable_line(regex, 80));
  pattern->jit = pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE) == 0;
  pattern->cuts = regex == kGpt2Pattern || regex == kLlama3Pattern || regex == kQwen2Pattern;
  return Ref<SplitPattern>(pattern.get());
}

struct PieceScanner::State {
  const CompiledPattern* pattern;
  pcre2_match_data* match;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
  std::string_view text;
  size_t at = 0;         // everything before has been given out
  size_t run_begin = 0;  // the valid UTF-8 run that is being matched
  size_t run_end = 0;
  size_t match_end = 0;  // > at: [at, match_end) is a match found together with the gap before it
};

PieceScanner::PieceScanner(const SplitPattern& pattern) : state_(new State) {
  // SplitPattern has this one implementation; its constructor is compile().
  state_->pattern = static_cast<const CompiledPattern*>(&pattern);
  state_->match = pcre2_match_data_create(1, nullptr);
  state_->context = pcre2_match_context_create(nullptr);
  state_->stack = pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr);
  RECKON_ASSERT(state_->match && state_->context && state_->stack);
  pcre2_set_match_limit(state_->context, kMatchLimit);
  pcre2_set_heap_limit(state_->context, kHeapLimitKiB);
  pcre2_jit_stack_assign(state_->context, nullptr, state_->stack);
}

PieceScanner::~PieceScanner() {
  pcre2_match_data_free(state_->match);
  pcre2_match_context_free(state_->context);
  pcre2_jit_stack_free(state_->stack);
  delete state_;
}

void PieceScanner::start(std::string_view text) {
  state_->text = text;
  state_->at = state_->run_begin = state_->run_end = state_->match_end = 0;
}

bool PieceScanner::next(std::string_view& piece) {
  State& s = *state_;
  if (s.at >= s.text.size()) return false;
  if (s.match_end > s.at) {  // the gap before this match was the previous piece
    piece = s.text.substr(s.at, s.match_end - s.at);
    s.at = s.match_end;
    return true;
  }
  if (s.at == s.run_end) {
    s.run_begin = s.at;
    s.run_end = s.at + utf8_valid_prefix(s.text.substr(s.at));
    if (s.run_end == s.at) {  // an invalid byte
      piece = s.text.substr(s.at++, 1);
      s.run_begin = s.run_end = s.at;
      return true;
    }
  }
  const auto subject = reinterpret_cast<PCRE2_SPTR>(s.text.data() + s.run_begin);
  const size_t length = s.run_end - s.run_begin, from = s.at - s.run_begin;
  const int found = s.pattern->jit ? pcre2_jit_match(s.pattern->code, subject, length, from, PCRE2_NO_UTF_CHECK, s.match, s.context)
                                   : pcre2_match(s.pattern->code, subject, length, from, PCRE2_NO_UTF_CHECK, s.match, s.context);
  if (found == PCRE2_ERROR_NOMATCH) {
    piece = s.text.substr(s.at, s.run_end - s.at);
    s.at = s.run_end;
    return true;
  }
  if (found < 0)
    fail_as(Failure::corrupt, "{}: the split pattern '{}' fails at byte {} of the text: {}", s.pattern->source,
            printable_line(s.pattern->text, 80), s.at, pcre2_message(found));
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(s.match);
  const size_t begin = s.run_begin + ends[0], end = s.run_begin + ends[1];
  if (begin < s.at || end <= begin)  // \K in a look-ahead can do that
    fail_as(Failure::corrupt, "{}: the split pattern '{}' gives matches that go backwards", s.pattern->source,
            printable_line(s.pattern->text, 80));
  if (begin > s.at) {  // the gap is a piece, the match the next one
    piece = s.text.substr(s.at, begin - s.at);
    s.at = begin;
    s.match_end = end;
    return true;
  }
  piece = s.text.substr(begin, end - begin);
  s.at = end;
  return true;
}

namespace {
// White space by any Unicode version, and format characters that once were: no cut after these.
bool may_be_space(uint32_t c) {
  return c <= 0x20 || (c >= 0x7F && c <= 0xA0) || c == 0x1680 || c == 0x180E || (c >= 0x2000 && c <= 0x200F) ||
         (c >= 0x2028 && c <= 0x202F) || (c >= 0x205F && c <= 0x206F) || c == 0x3000 || c == 0xFEFF;
}
bool is_cjk_letter(uint32_t c) { return (c >= 0x4E00 && c <= 0x9FA5) || (c >= 0x3041 && c <= 0x3096) || (c >= 0x30A1 && c <= 0x30FA); }
bool is_cjk_stop(uint32_t c) { return c == 0x3001 || c == 0x3002 || c == 0xFF0C || c == 0xFF01 || c == 0xFF1F; }

constexpr uint32_t kInvalid = 0x110000;  // no code point, and so no space

// The valid character that ends at `end`; kInvalid if the byte before `end` ends none.
uint32_t character_before(std::string_view text, size_t end) {
  for (size_t n = 1; n <= 4 && n <= end; ++n)
    if (utf8_character(text.substr(end - n, n)) == n) return utf8_code_point(text.substr(end - n, n), n);
  return kInvalid;
}
}  // namespace

size_t safe_cut(std::string_view text) {
  for (size_t cut = text.size() - std::min<size_t>(text.size(), 1); cut > 0; --cut) {
    const uint8_t next = uint8_t(text[cut]);
    if (next == ' ') {
      if (!may_be_space(character_before(text, cut))) return cut;
    } else if (next == 0xE3 || next == 0xEF) {
      const size_t n = utf8_character(text.substr(cut, 4));
      if (n == 3 && is_cjk_stop(utf8_code_point(text.substr(cut, n), n)) && is_cjk_letter(character_before(text, cut))) return cut;
    }
  }
  return 0;
}
}  // namespace reckon
