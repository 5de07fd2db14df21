// ops/einops_pattern: patterns as arguments: the compiler reads those that are literals, and refuses malformed ones.
#pragma once
#include "reckon/ops/einsum_reading.h"

namespace reckon {

// Called where a literal is malformed and never at run time: the compiler names them in its error.
#define RECKON_FAULT_FUNCTION(name, message) void pattern_error_##name();
RECKON_PATTERN_FAULTS(RECKON_FAULT_FUNCTION)
#undef RECKON_FAULT_FUNCTION

/// A pattern that is made while the program runs.
struct RuntimePattern {
  std::string text;
};
/// For what the compiler cannot see: rearrange(x, runtime(text)). Malformed text throws Error when it is used.
inline RuntimePattern runtime(std::string text) { return {std::move(text)}; }

namespace detail {
consteval void refuse(PatternFault fault) {
  switch (fault) {
    case PatternFault::none:
      return;
#define RECKON_FAULT_CALL(name, message) \
  case PatternFault::name:               \
    pattern_error_##name();              \
    return;
      RECKON_PATTERN_FAULTS(RECKON_FAULT_CALL)
#undef RECKON_FAULT_CALL
  }
}
constexpr FaultAt fault_in(PatternOf what, std::string_view text) {
  if (what == PatternOf::einsum) return einsum_fault(text);
  if (what == PatternOf::pack) {
    std::vector<std::string_view> axes;
    return read_pack_pattern(text, axes);
  }
  if (what == PatternOf::parse_shape) {
    PatternSide side;
    return read_shape_pattern(text, side);
  }
  ArrowPattern pattern;
  return read_arrow_pattern(what, text, pattern);
}
}  // namespace detail

/// A pattern as an argument. A literal is read by the compiler, and a malformed one does not compile: the error calls a function
/// pattern_error_REASON(). Holds no text: not to be kept beyond the call.
template <PatternOf kWhat>
class Pattern {
 public:
  template <size_t N>
  consteval Pattern(const char (&literal)[N]) : text_(literal, N - 1) {
    detail::refuse(detail::fault_in(kWhat, text_).fault);
  }
  Pattern(const RuntimePattern& pattern) : text_(pattern.text) {}
  constexpr std::string_view text() const { return text_; }

 private:
  std::string_view text_;
};
}  // namespace reckon
