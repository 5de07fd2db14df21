// ops/shaped: shapes written down where tensors are used, and checked: shaped(q, "batch seq heads dim", dims), in the manner of jaxtyping.
#pragma once
#include <source_location>

#include "reckon/ops/einops_pattern.h"
#include "reckon/tensor/tensor.h"

namespace reckon {

/// One word of a shaped pattern.
struct ShapedItem {
  enum class Kind : uint8_t { any, name, number, expression, broadcast_name, broadcast_number, hidden, variadic };
  Kind kind = Kind::any;
  std::string_view text;  // without its mark
  int64_t number = 0;
};
struct ShapedSpec {
  std::string_view type;  // "" if none is named
  std::vector<ShapedItem> items;
};

namespace detail {
// Names and numbers with one of + - * between each two.
constexpr FaultAt read_expression(std::string_view word) {
  size_t begin = 0;
  for (size_t i = 0; i <= word.size(); ++i) {
    if (i < word.size() && is_word(word[i])) continue;
    if (i < word.size() && word[i] != '+' && word[i] != '-' && word[i] != '*') return {PatternFault::unknown_character, word.substr(i, 1)};
    const std::string_view operand = word.substr(begin, i - begin);
    if (operand.empty()) return {PatternFault::bad_expression, word};
    PatternAxis axis;
    if (const FaultAt fault = read_word(operand, axis)) return fault;
    if (axis.kind == PatternAxis::Kind::nameless) return {PatternFault::bad_expression, word};
    begin = i + 1;
  }
  return {};
}
constexpr FaultAt read_shaped_word(std::string_view word, ShapedItem& item) {
  using Kind = ShapedItem::Kind;
  item = {Kind::any, word, 0};
  if (word == "_") return {};
  if (word == "...") {
    item.kind = Kind::hidden;
    return {};
  }
  if (word.front() == '.') return {PatternFault::dots_outside_ellipsis, word};
  const bool variadic = word.front() == '*', broadcast = word.front() == '#';
  if (variadic || broadcast) item.text = word.substr(1);
  PatternAxis axis;
  bool single = !item.text.empty();
  for (const char c : item.text) single &= is_word(c);
  if (!single && variadic) return {PatternFault::unknown_character, word};
  if (!single && broadcast) return {PatternFault::bad_broadcast, word};
  if (!single) {
    item.kind = Kind::expression;
    return read_expression(word);
  }
  if (const FaultAt fault = read_word(item.text, axis)) return fault;
  item.number = axis.length;
  const bool number = axis.kind == PatternAxis::Kind::number;
  if (variadic && (number || axis.kind != PatternAxis::Kind::named)) return {PatternFault::unknown_character, word};
  if (broadcast && axis.kind == PatternAxis::Kind::nameless) return {PatternFault::bad_broadcast, word};
  if (variadic)
    item.kind = Kind::variadic;
  else if (broadcast)
    item.kind = number ? Kind::broadcast_number : Kind::broadcast_name;
  else
    item.kind = number ? Kind::number : Kind::name;
  return {};
}
constexpr FaultAt read_shaped(std::string_view pattern, ShapedSpec& spec) {
  std::string_view text = trimmed(pattern);
  if (const size_t bracket = text.find('['); bracket != std::string_view::npos) {
    spec.type = text.substr(0, bracket);
    bool is_type = !spec.type.empty() && text.back() == ']';
    for (const char c : spec.type) is_type &= is_word(c);
    if (!is_type) return {PatternFault::bracket_not_closed, pattern};
    text = text.substr(bracket + 1, text.size() - bracket - 2);
  }
  int variadic = 0;
  for (const std::string_view word : words(text)) {
    spec.items.emplace_back();
    if (const FaultAt fault = read_shaped_word(word, spec.items.back())) return fault;
    const ShapedItem::Kind kind = spec.items.back().kind;
    if (kind == ShapedItem::Kind::hidden || kind == ShapedItem::Kind::variadic)
      if (++variadic > 1) return {PatternFault::second_variadic, word};
  }
  return {};
}
}  // namespace detail

/// As Pattern: a malformed literal does not compile.
class ShapedPattern {
 public:
  template <size_t N>
  consteval ShapedPattern(const char (&literal)[N]) : text_(literal, N - 1) {
    ShapedSpec spec;
    detail::refuse(detail::read_shaped(text_, spec).fault);
  }
  ShapedPattern(const RuntimePattern& pattern) : text_(pattern.text) {}
  constexpr std::string_view text() const { return text_; }

 private:
  std::string_view text_;
};

/// Names and the sizes that they have, for as long as it lives: a function, mostly.
class Dims {
 public:
  Dims() = default;
  /// Sizes that are known beforehand: Dims dims{{"heads", 8}}.
  struct Given {
    std::string_view name;
    int64_t size;
  };
  Dims(std::initializer_list<Given> sizes);
  /// Throws Error if the name has no size yet.
  int64_t operator[](std::string_view name) const;
  bool has(std::string_view name) const { return find(name) != nullptr; }

 private:
  friend class ShapedCheck;
  friend Tensor shaped(Tensor x, ShapedPattern pattern, Dims& dims, std::source_location at);
  struct Bound {
    std::string name;            // with its '*' if it stands for any number of axes
    std::vector<int64_t> sizes;  // one, but for those
    std::string where;           // who said so, for messages
  };
  const Bound* find(std::string_view name) const;
  std::vector<Bound> bound_;
};

/// x, if it is as the pattern says; else throws Error with its shape, the pattern, the axis, and where the name got its size. Words:
///   name    a size: the first time it is any and is kept in dims, later it is that one
///   8       that size              _       any size
///   #name   that size or 1         #8      8 or 1
///   2*dim   of + - * on names that have a size, and numbers, without blanks
///   ...     any axes               *name   any axes, the same every time; at most one of the two
/// "f32[batch dim]" checks the type, too: a dtype, "float" or "int".
Tensor shaped(Tensor x, ShapedPattern pattern, Dims& dims, std::source_location at = std::source_location::current());
}  // namespace reckon
