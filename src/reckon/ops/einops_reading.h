// ops/einops_reading: the notation of named axes, read by the compiler and at run time alike. It knows no tensor: what can be wrong with a
// pattern by itself is found here, what can be wrong with it for a shape is not.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// Every way in which a pattern is malformed, and what is said of it; {} is the piece of the pattern that it is about.
#define RECKON_PATTERN_FAULTS(FAULT)                                                                                               \
  FAULT(missing_arrow, "there is no '->' between what is given and what is wanted")                                                \
  FAULT(second_arrow, "there is more than one '->'")                                                                               \
  FAULT(unbalanced_parenthesis, "a parenthesis has no partner at '{}'")                                                            \
  FAULT(nested_parentheses, "parentheses are nested at '{}', and one level is all there is")                                       \
  FAULT(parentheses_not_allowed, "parentheses are not part of this notation; rearrange first")                                     \
  FAULT(unknown_character, "'{}' is not part of the notation")                                                                     \
  FAULT(name_begins_with_digit, "'{}' is neither a name nor a number")                                                             \
  FAULT(name_ends_in_underscore, "axis '{}' begins or ends with an underscore")                                                    \
  FAULT(nameless_axis_not_allowed, "'_' names no axis; only parse_shape and shaped know it")                                       \
  FAULT(dots_outside_ellipsis, "dots stand only in an ellipsis, three of them, at '{}'")                                           \
  FAULT(second_ellipsis, "'{}' has two ellipses, and which axes each stands for is open")                                          \
  FAULT(ellipsis_in_parentheses_on_the_left, "the ellipsis on the left is in parentheses: an axis has no unknown number of parts") \
  FAULT(ellipsis_only_on_the_right, "the ellipsis is on the right only")                                                           \
  FAULT(ellipsis_only_on_the_left, "the ellipsis is on the left only")                                                             \
  FAULT(ellipsis_not_allowed, "an ellipsis is not part of this notation; '*' stands for any number of axes")                       \
  FAULT(repeated_axis, "axis '{}' is named twice on one side")                                                                     \
  FAULT(repeated_output_axis, "axis '{}' is named twice in the output")                                                            \
  FAULT(axis_only_on_the_left, "axis '{}' is on the left only")                                                                    \
  FAULT(axis_only_on_the_right, "axis '{}' is on the right only")                                                                  \
  FAULT(output_axis_not_in_input, "axis '{}' of the output is in no input")                                                        \
  FAULT(number_has_no_partner, "the axis of length {} has no name, so that it is on one side only")                                \
  FAULT(number_of_zero, "length '{}' must be at least 1")                                                                          \
  FAULT(number_too_large, "length '{}' has more than 15 digits")                                                                   \
  FAULT(number_not_allowed, "'{}' is a length, and axes have names here")                                                          \
  FAULT(star_not_allowed, "'*' is not part of this notation")                                                                      \
  FAULT(missing_star, "there is no '*' where the axes are packed")                                                                 \
  FAULT(second_star, "there is more than one '*'")                                                                                 \
  FAULT(not_a_letter, "'{}' is not a letter; axes of several characters are separated by spaces")                                  \
  FAULT(bracket_not_closed, "'{}' is not a type and axes in brackets, as in f32[batch dim]")                                       \
  FAULT(bad_expression, "'{}' is not made of names and numbers with + - * between them")                                           \
  FAULT(bad_broadcast, "'{}' must be '#' and a name or a number")                                                                  \
  FAULT(second_variadic, "'{}' is the second of '...' and '*name', and where one ends is open")

namespace reckon {

enum class PatternFault : uint8_t {
  none,
#define RECKON_FAULT_NAME(name, message) name,
  RECKON_PATTERN_FAULTS(RECKON_FAULT_NAME)
#undef RECKON_FAULT_NAME
};

/// What is wrong, and the piece of the pattern that it is about.
struct FaultAt {
  PatternFault fault = PatternFault::none;
  std::string_view piece;
  constexpr explicit operator bool() const { return fault != PatternFault::none; }
};
/// "axis 'x' is on the left only".
std::string to_string(const FaultAt& at);

/// One elementary axis of a pattern.
struct PatternAxis {
  enum class Kind : uint8_t { named, number, ellipsis, nameless, star };
  Kind kind = Kind::named;
  std::string_view name;  // as it is written
  int64_t length = 0;     // of a number: above 1, for an axis of 1 is no axis
  bool in_parentheses = false;
  constexpr bool operator==(const PatternAxis& o) const { return kind == o.kind && name == o.name && kind != Kind::number; }
};
/// What becomes one axis of a tensor: an axis, several in parentheses, or none, written 1 or (). An ellipsis outside of parentheses becomes
/// any number.
using PatternGroup = std::vector<PatternAxis>;
using PatternSide = std::vector<PatternGroup>;

struct ArrowPattern {
  PatternSide left, right;
};

enum class PatternOf : uint8_t { rearrange, reduce, repeat, parse_shape, pack, einsum };

// ---- Reading -------------------------------------------------------------------------------------------------------------------
namespace detail {
constexpr bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
constexpr bool is_digit(char c) { return c >= '0' && c <= '9'; }
constexpr bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
constexpr bool is_word(char c) { return is_letter(c) || is_digit(c) || c == '_'; }

constexpr std::string_view trimmed(std::string_view s) {
  while (!s.empty() && is_blank(s.front())) s.remove_prefix(1);
  while (!s.empty() && is_blank(s.back())) s.remove_suffix(1);
  return s;
}
// The pieces between separators; one piece if there is none.
constexpr std::vector<std::string_view> split(std::string_view s, std::string_view separator) {
  std::vector<std::string_view> pieces;
  for (size_t at; (at = s.find(separator)) != std::string_view::npos; s.remove_prefix(at + separator.size()))
    pieces.push_back(s.substr(0, at));
  pieces.push_back(s);
  return pieces;
}
// The pieces between blanks.
constexpr std::vector<std::string_view> words(std::string_view s) {
  std::vector<std::string_view> pieces;
  for (size_t i = 0; i < s.size();) {
    size_t end = i;
    while (end < s.size() && !is_blank(s[end])) ++end;
    if (end > i) pieces.push_back(s.substr(i, end - i));
    i = end + 1;
  }
  return pieces;
}
constexpr FaultAt read_number(std::string_view word, int64_t& value) {
  if (word.size() > 15) return {PatternFault::number_too_large, word};
  value = 0;
  for (const char c : word) value = value * 10 + (c - '0');
  return value > 0 ? FaultAt{} : FaultAt{PatternFault::number_of_zero, word};
}
constexpr bool all_digits(std::string_view word) {
  for (const char c : word)
    if (!is_digit(c)) return false;
  return !word.empty();
}
constexpr FaultAt check_name(std::string_view word) {
  for (size_t i = 0; i < word.size(); ++i)
    if (!is_word(word[i])) return {PatternFault::unknown_character, word.substr(i, 1)};
  if (is_digit(word.front())) return {PatternFault::name_begins_with_digit, word};
  if (word.front() == '_' || word.back() == '_') return {PatternFault::name_ends_in_underscore, word};
  return {};
}
// A word of letters, digits and underscores.
constexpr FaultAt read_word(std::string_view word, PatternAxis& axis) {
  axis = {PatternAxis::Kind::named, word, 0};
  if (all_digits(word)) {
    axis.kind = PatternAxis::Kind::number;
    return read_number(word, axis.length);
  }
  if (word == "_") {
    axis.kind = PatternAxis::Kind::nameless;
    return {};
  }
  return check_name(word);
}
// The next axis of an expression, at place `at`, which moves behind it.
constexpr FaultAt read_axis(std::string_view side, size_t& at, PatternAxis& axis) {
  const size_t begin = at;
  if (side.substr(at, 3) == "...") {
    at += 3;
    axis = {PatternAxis::Kind::ellipsis, side.substr(begin, 3), 0};
    return at < side.size() && side[at] == '.' ? FaultAt{PatternFault::dots_outside_ellipsis, side.substr(begin, 4)} : FaultAt{};
  }
  if (side[at] == '.') return {PatternFault::dots_outside_ellipsis, side.substr(at, 1)};
  if (side[at] == '*') {
    ++at;
    axis = {PatternAxis::Kind::star, side.substr(begin, 1), 0};
    return {};
  }
  while (at < side.size() && is_word(side[at])) ++at;
  if (at == begin) return {PatternFault::unknown_character, side.substr(at, 1)};
  return read_word(side.substr(begin, at - begin), axis);
}

constexpr FaultAt read_side(std::string_view side, PatternSide& groups) {
  bool inside = false;
  size_t opened = 0;
  for (size_t at = 0; at < side.size();) {
    if (is_blank(side[at])) {
      ++at;
    } else if (side[at] == '(') {
      if (inside) return {PatternFault::nested_parentheses, side.substr(opened, at + 1 - opened)};
      inside = true;
      opened = at++;
      groups.emplace_back();
    } else if (side[at] == ')') {
      if (!inside) return {PatternFault::unbalanced_parenthesis, side.substr(0, at + 1)};
      inside = false;
      ++at;
    } else {
      PatternAxis axis;
      if (const FaultAt fault = read_axis(side, at, axis)) return fault;
      if (!inside) groups.emplace_back();
      axis.in_parentheses = inside;
      if (axis.kind != PatternAxis::Kind::number || axis.length != 1) groups.back().push_back(axis);
    }
  }
  if (inside) return {PatternFault::unbalanced_parenthesis, side.substr(opened)};
  return {};
}

constexpr bool holds(const PatternSide& side, const PatternAxis& axis) {
  for (const PatternGroup& group : side)
    for (const PatternAxis& other : group)
      if (other == axis) return true;
  return false;
}
// What no side may have: an axis twice, two ellipses, '*' or '_'.
constexpr FaultAt check_side(std::string_view text, const PatternSide& side) {
  PatternSide before;
  for (const PatternGroup& group : side)
    for (const PatternAxis& axis : group) {
      if (axis.kind == PatternAxis::Kind::star) return {PatternFault::star_not_allowed, axis.name};
      if (axis.kind == PatternAxis::Kind::nameless) return {PatternFault::nameless_axis_not_allowed, axis.name};
      if (holds(before, axis)) {
        if (axis.kind == PatternAxis::Kind::ellipsis) return {PatternFault::second_ellipsis, trimmed(text)};
        return {PatternFault::repeated_axis, axis.name};
      }
      before.push_back({axis});
    }
  return {};
}
// The first axis of `side` that has no partner on the other; numbers have none.
constexpr FaultAt check_partners(const PatternSide& side, const PatternSide& other, bool numbers, PatternFault named,
                                 PatternFault ellipsis) {
  for (const PatternGroup& group : side)
    for (const PatternAxis& axis : group) {
      if (axis.kind == PatternAxis::Kind::number) {
        if (!numbers) return {PatternFault::number_has_no_partner, axis.name};
      } else if (!holds(other, axis)) {
        const PatternFault fault = axis.kind == PatternAxis::Kind::ellipsis ? ellipsis : named;
        if (fault != PatternFault::none) return {fault, axis.name};
      }
    }
  return {};
}

constexpr FaultAt split_arrow(std::string_view text, std::string_view& left, std::string_view& right) {
  const std::vector<std::string_view> sides = split(text, "->");
  if (sides.size() < 2) return {PatternFault::missing_arrow, text};
  if (sides.size() > 2) return {PatternFault::second_arrow, text};
  left = sides[0];
  right = sides[1];
  return {};
}

/// Patterns of rearrange, reduce and repeat.
constexpr FaultAt read_arrow_pattern(PatternOf what, std::string_view text, ArrowPattern& pattern) {
  std::string_view left, right;
  if (const FaultAt fault = split_arrow(text, left, right)) return fault;
  if (const FaultAt fault = read_side(left, pattern.left)) return fault;
  if (const FaultAt fault = read_side(right, pattern.right)) return fault;
  if (const FaultAt fault = check_side(left, pattern.left)) return fault;
  if (const FaultAt fault = check_side(right, pattern.right)) return fault;
  for (const PatternGroup& group : pattern.left)
    for (const PatternAxis& axis : group)
      if (axis.kind == PatternAxis::Kind::ellipsis && axis.in_parentheses) return {PatternFault::ellipsis_in_parentheses_on_the_left, left};
  const bool reduces = what == PatternOf::reduce, repeats = what == PatternOf::repeat;
  const PatternFault none = PatternFault::none;
  if (const FaultAt fault = check_partners(pattern.left, pattern.right, reduces, reduces ? none : PatternFault::axis_only_on_the_left,
                                           reduces ? none : PatternFault::ellipsis_only_on_the_left))
    return fault;
  return check_partners(pattern.right, pattern.left, repeats, repeats ? none : PatternFault::axis_only_on_the_right,
                        PatternFault::ellipsis_only_on_the_right);
}

/// Patterns of parse_shape: axes and at most one ellipsis, no parentheses but (); '_' names no axis.
constexpr FaultAt read_shape_pattern(std::string_view text, PatternSide& side) {
  if (const FaultAt fault = read_side(text, side)) return fault;
  PatternSide named;
  for (const PatternGroup& group : side) {
    if (group.size() > 1) return {PatternFault::parentheses_not_allowed, text};
    if (!group.empty() && group[0].kind != PatternAxis::Kind::nameless) named.push_back(group);
  }
  return check_side(text, named);
}

/// Patterns of pack and unpack: names, and one '*'.
constexpr FaultAt read_pack_pattern(std::string_view text, std::vector<std::string_view>& axes) {
  axes = words(text);
  int stars = 0;
  for (size_t i = 0; i < axes.size(); ++i) {
    const std::string_view axis = axes[i];
    if (axis == "*") {
      ++stars;
      continue;
    }
    if (axis.find('(') != std::string_view::npos || axis.find(')') != std::string_view::npos)
      return {PatternFault::parentheses_not_allowed, axis};
    if (axis.find("...") != std::string_view::npos) return {PatternFault::ellipsis_not_allowed, axis};
    if (all_digits(axis)) return {PatternFault::number_not_allowed, axis};
    if (axis == "_") return {PatternFault::nameless_axis_not_allowed, axis};
    if (const FaultAt fault = check_name(axis)) return fault;
    for (size_t k = 0; k < i; ++k)
      if (axes[k] == axis) return {PatternFault::repeated_axis, axis};
  }
  if (stars == 0) return {PatternFault::missing_star, text};
  return stars == 1 ? FaultAt{} : FaultAt{PatternFault::second_star, text};
}
}  // namespace detail
}  // namespace reckon
