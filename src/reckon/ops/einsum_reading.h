// ops/einsum_reading: the two spellings of einsum: "b i k, b k j -> b i j" and "bik,bkj->bij". As einops_reading, it knows no tensor.
#pragma once
#include "reckon/ops/einops_reading.h"

namespace reckon {
/// Axes of one operand of an einsum, or of its output.
struct EinsumTerm {
  std::vector<std::string_view> axes;
  int ellipsis = -1;  // the place before which its axes lie; -1: none
};
struct EinsumPattern {
  std::vector<EinsumTerm> in;
  EinsumTerm out;
};

namespace detail {
constexpr bool holds_name(const std::vector<std::string_view>& names, std::string_view name) {
  for (const std::string_view other : names)
    if (other == name) return true;
  return false;
}
constexpr FaultAt add_ellipsis(std::string_view text, EinsumTerm& term) {
  if (term.ellipsis >= 0) return {PatternFault::second_ellipsis, text};
  term.ellipsis = int(term.axes.size());
  return {};
}
// Names between blanks.
constexpr FaultAt read_named_term(std::string_view text, EinsumTerm& term) {
  for (const std::string_view word : words(text)) {
    if (word == "...") {
      if (const FaultAt fault = add_ellipsis(text, term)) return fault;
      continue;
    }
    if (word.find('(') != std::string_view::npos || word.find(')') != std::string_view::npos)
      return {PatternFault::parentheses_not_allowed, word};
    if (word.find('.') != std::string_view::npos) return {PatternFault::dots_outside_ellipsis, word};
    if (all_digits(word)) return {PatternFault::number_not_allowed, word};
    if (word == "_") return {PatternFault::nameless_axis_not_allowed, word};
    if (const FaultAt fault = check_name(word)) return fault;
    term.axes.push_back(word);
  }
  return {};
}
// A letter an axis.
constexpr FaultAt read_letter_term(std::string_view text, EinsumTerm& term) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text.substr(i, 3) == "...") {
      if (const FaultAt fault = add_ellipsis(text, term)) return fault;
      i += 2;
    } else if (text[i] == '.') {
      return {PatternFault::dots_outside_ellipsis, text};
    } else if (text[i] == '(' || text[i] == ')') {
      return {PatternFault::parentheses_not_allowed, text};
    } else if (!is_letter(text[i])) {
      return {is_word(text[i]) ? PatternFault::not_a_letter : PatternFault::unknown_character, text.substr(i, 1)};
    } else {
      term.axes.push_back(text.substr(i, 1));
    }
  }
  return {};
}
// Without an arrow: the ellipsis, then the letters that stand once, in their order in ASCII, as in NumPy.
constexpr void imply_output(EinsumPattern& pattern) {
  std::vector<std::string_view> once, more;
  for (const EinsumTerm& term : pattern.in) {
    if (term.ellipsis >= 0) pattern.out.ellipsis = 0;
    for (const std::string_view axis : term.axes) (holds_name(once, axis) ? more : once).push_back(axis);
  }
  for (const std::string_view axis : once) {
    if (holds_name(more, axis)) continue;
    size_t at = 0;
    while (at < pattern.out.axes.size() && pattern.out.axes[at] < axis) ++at;
    pattern.out.axes.insert(pattern.out.axes.begin() + int64_t(at), axis);
  }
}
constexpr FaultAt check_output(const EinsumPattern& pattern) {
  bool ellipsis = false;
  for (const EinsumTerm& term : pattern.in) ellipsis |= term.ellipsis >= 0;
  if (pattern.out.ellipsis >= 0 && !ellipsis) return {PatternFault::ellipsis_only_on_the_right, "..."};
  if (pattern.out.ellipsis < 0 && ellipsis) return {PatternFault::ellipsis_only_on_the_left, "..."};
  for (size_t i = 0; i < pattern.out.axes.size(); ++i) {
    const std::string_view axis = pattern.out.axes[i];
    for (size_t k = 0; k < i; ++k)
      if (pattern.out.axes[k] == axis) return {PatternFault::repeated_output_axis, axis};
    bool given = false;
    for (const EinsumTerm& term : pattern.in) given |= holds_name(term.axes, axis);
    if (!given) return {PatternFault::output_axis_not_in_input, axis};
  }
  return {};
}

/// Patterns of einsum, in one of the two spellings.
constexpr FaultAt read_einsum_as(bool named, std::string_view text, EinsumPattern& pattern) {
  const std::vector<std::string_view> sides = split(text, "->");
  if (sides.size() > 2) return {PatternFault::second_arrow, text};
  std::vector<std::string_view> terms = split(sides[0], ",");
  if (sides.size() == 2) terms.push_back(sides[1]);
  for (size_t i = 0; i < terms.size(); ++i) {
    const bool is_output = sides.size() == 2 && i + 1 == terms.size();
    if (!is_output) pattern.in.emplace_back();
    EinsumTerm& term = is_output ? pattern.out : pattern.in.back();
    if (const FaultAt fault = named ? read_named_term(terms[i], term) : read_letter_term(trimmed(terms[i]), term)) return fault;
  }
  if (sides.size() == 2) return check_output(pattern);
  imply_output(pattern);
  return {};
}
/// A blank between two axes: they have names. Without one a word is letters, or the name of an operand's only axis.
constexpr bool has_named_axes(std::string_view text) {
  for (const std::string_view side : split(text, "->"))
    for (const std::string_view term : split(side, ","))
      if (words(term).size() > 1) return true;
  return false;
}
/// What is wrong in the spelling that it has, or in both that it may have.
constexpr FaultAt einsum_fault(std::string_view text) {
  EinsumPattern pattern, names;
  const bool named = has_named_axes(text);
  const FaultAt fault = read_einsum_as(named, text, pattern);
  return !named && fault && split(text, "->").size() == 2 && !read_einsum_as(true, text, names) ? FaultAt{} : fault;
}
}  // namespace detail
}  // namespace reckon
