#include "reckon/ops/shaped.h"

#include <algorithm>

namespace reckon {
namespace {
using Kind = ShapedItem::Kind;

std::string_view file_name(const char* path) {
  const std::string_view whole = path;
  return whole.substr(whole.find_last_of('/') + 1);
}
bool is_type(std::string_view type, DType dtype) {
  if (type == "float") return is_float(dtype);
  if (type == "int") return !is_float(dtype) && !is_float8(dtype) && dtype != DType::boolean;
  return type == name_of(dtype);
}
bool is_known_type(std::string_view type) {
  bool known = type == "float" || type == "int";
  for (int i = 0; i < kDTypes; ++i) known |= type == name_of(DType(i));
  return known;
}
std::string print(std::span<const int64_t> sizes) { return to_string(Shape(sizes)); }
}  // namespace

// One check of one tensor: what it binds is kept apart until all of it holds.
class ShapedCheck {
 public:
  ShapedCheck(const Tensor& x, std::string_view pattern, const Dims& dims, const std::source_location& at)
      : x_(x),
        pattern_(pattern),
        dims_(dims),
        where_(text("{}:{} (\"{}\" of {})", file_name(at.file_name()), at.line(), pattern, to_string(x))) {}

  std::vector<Dims::Bound> run() {
    const FaultAt fault = detail::read_shaped(pattern_, spec_);
    require(!fault, "{}", to_string(fault));
    if (!spec_.type.empty()) {
      require(is_known_type(spec_.type), "'{}' is neither a type nor 'float' nor 'int'", spec_.type);
      require(is_type(spec_.type, x_.dtype()), "the type is {}, not {}", x_.dtype(), spec_.type);
    }
    const auto is_variadic = [](const ShapedItem& i) { return i.kind == Kind::hidden || i.kind == Kind::variadic; };
    const int named = int(std::count_if(spec_.items.begin(), spec_.items.end(), [&](const ShapedItem& i) { return !is_variadic(i); }));
    const bool any = named < int(spec_.items.size());
    require(any ? named <= x_.rank() : named == x_.rank(), "the pattern has {}{} {}, the tensor has {}", any ? "at least " : "", named,
            named == 1 ? "axis" : "axes", x_.rank());
    for (const bool expressions : {false, true}) {  // names that stand alone first: they give expressions their sizes
      int axis = 0;
      for (const ShapedItem& item : spec_.items) {
        const int count = is_variadic(item) ? x_.rank() - named : 1;
        if (expressions == (item.kind == Kind::expression)) check_item(item, axis, count);
        axis += count;
      }
    }
    return std::move(fresh_);
  }

 private:
  template <class... Args>
  void require(bool condition, std::string_view message, const Args&... args) const {
    if (!condition) [[unlikely]]
      fail("shaped: {}, in \"{}\" for {}", text(message, args...), pattern_, to_string(x_));
  }
  const Dims::Bound* find(std::string_view name) const {
    for (const Dims::Bound& b : fresh_)
      if (b.name == name) return &b;
    return dims_.find(name);
  }
  void check_item(const ShapedItem& item, int axis, int count) {
    const int64_t size = count == 1 && axis < x_.rank() ? x_.shape()[axis] : 0;
    switch (item.kind) {
      case Kind::any:
      case Kind::hidden:
        return;
      case Kind::number:
        return require(size == item.number, "axis {} has length {}, not {}", axis, size, item.number);
      case Kind::broadcast_number:
        return require(size == 1 || size == item.number, "axis {} has length {}, neither 1 nor {}", axis, size, item.number);
      case Kind::broadcast_name:
        if (size == 1) return;
        [[fallthrough]];
      case Kind::name:
        return check_sizes(std::string(item.text), axis, x_.shape().span().subspan(size_t(axis), 1));
      case Kind::variadic:
        return check_sizes("*" + std::string(item.text), axis, x_.shape().span().subspan(size_t(axis), size_t(count)));
      case Kind::expression: {
        const int64_t value = evaluate(item.text);
        return require(size == value, "axis {}, '{}', has length {}, not {}", axis, item.text, size, value);
      }
    }
  }
  void check_sizes(const std::string& name, int axis, std::span<const int64_t> sizes) {
    const Dims::Bound* bound = find(name);
    if (!bound) {
      fresh_.push_back({name, {sizes.begin(), sizes.end()}, where_});
    } else if (name[0] == '*') {
      require(std::equal(sizes.begin(), sizes.end(), bound->sizes.begin(), bound->sizes.end()),
              "axes '{}' are {}, but they are {} since {}", name, print(sizes), print(bound->sizes), bound->where);
    } else {
      require(sizes[0] == bound->sizes[0], "axis {}, '{}', has length {}, but it is {} since {}", axis, name, sizes[0], bound->sizes[0],
              bound->where);
    }
  }
  // A sum of products, from the left.
  int64_t evaluate(std::string_view expression) const {
    int64_t sum = 0, product = 0;
    char before = '+';
    size_t begin = 0;
    for (size_t i = 0; i <= expression.size(); ++i) {
      if (i < expression.size() && detail::is_word(expression[i])) continue;
      const int64_t operand = value_of(expression.substr(begin, i - begin), expression);
      if (before == '*') {
        product *= operand;
      } else {
        sum += product;
        product = before == '-' ? -operand : operand;
      }
      if (i < expression.size()) before = expression[i];
      begin = i + 1;
    }
    return sum + product;
  }
  int64_t value_of(std::string_view word, std::string_view expression) const {
    PatternAxis axis;
    detail::read_word(word, axis);
    if (axis.kind == PatternAxis::Kind::number) return axis.length;
    const Dims::Bound* bound = find(word);
    require(bound != nullptr, "'{}' in '{}' has no size yet: a name gets it where it stands alone", word, expression);
    return bound->sizes[0];
  }

  const Tensor& x_;
  std::string_view pattern_;
  const Dims& dims_;
  std::string where_;
  ShapedSpec spec_;
  std::vector<Dims::Bound> fresh_;
};

Dims::Dims(std::initializer_list<Given> sizes) {
  for (const Given& given : sizes) {
    check(!given.name.empty() && !detail::check_name(given.name), "Dims: '{}' is no name of an axis", given.name);
    check(given.size >= 0, "Dims: '{}' is given the size {}", given.name, given.size);
    check(!has(given.name), "Dims: '{}' is given twice", given.name);
    bound_.push_back({std::string(given.name), {given.size}, "it was given to Dims"});
  }
}
const Dims::Bound* Dims::find(std::string_view name) const {
  for (const Bound& b : bound_)
    if (b.name == name) return &b;
  return nullptr;
}
int64_t Dims::operator[](std::string_view name) const {
  const Bound* bound = find(name);
  check(bound != nullptr && bound->sizes.size() == 1, "Dims: '{}' has no size", name);
  return bound->sizes[0];
}

Tensor shaped(Tensor x, ShapedPattern pattern, Dims& dims, std::source_location at) {
  check(x.defined(), "shaped: the tensor is undefined, for \"{}\"", pattern.text());
  for (Dims::Bound& fresh : ShapedCheck(x, pattern.text(), dims, at).run()) dims.bound_.push_back(std::move(fresh));
  return x;
}
}  // namespace reckon
