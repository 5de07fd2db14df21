// ops/printing: each number gets the fewest digits that give it back in its type; columns align at the point.
#include "reckon/ops/printing.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

namespace reckon {
namespace {
// One element, widened: integers stay exact.
struct Number {
  double value = 0;
  int64_t whole = 0;
};

template <class T>
T read(Device& device, const std::byte* at) {
  T value;
  device.copy_out(&value, at, sizeof value);
  return value;
}
Number read_number(Device& device, DType dtype, const std::byte* at) {
  switch (dtype) {
    case DType::f32:
      return {double(read<float>(device, at))};
    case DType::f64:
      return {read<double>(device, at)};
    case DType::bf16:
      return {double(float(read<bfloat16>(device, at)))};
    case DType::f16:
      return {double(float(read<float16>(device, at)))};
    case DType::f8e4m3fn:
      return {double(float(read<float8_e4m3fn>(device, at)))};
    case DType::f8e5m2:
      return {double(float(read<float8_e5m2>(device, at)))};
    case DType::i32:
      return {0, read<int32_t>(device, at)};
    case DType::i64:
      return {0, read<int64_t>(device, at)};
    case DType::u8:
    case DType::boolean:
      return {0, read<uint8_t>(device, at)};
  }
  return {};
}
double rounded(double value, DType dtype) {
  switch (dtype) {
    case DType::f64:
      return value;
    case DType::bf16:
      return double(float(bfloat16(float(value))));
    case DType::f16:
      return double(float(float16(float(value))));
    case DType::f8e4m3fn:
      return double(float(float8_e4m3fn(float(value))));
    case DType::f8e5m2:
      return double(float(float8_e5m2(float(value))));
    default:
      return double(float(value));
  }
}
bool has_point(DType dtype) { return is_float(dtype) || is_float8(dtype); }

// Digits behind the leading one that give the value back.
int digits_of(double value, DType dtype) {
  for (int digits = 0; digits < 17; ++digits)
    if (rounded(std::strtod(fmt::format("{:.{}e}", value, digits).c_str(), nullptr), dtype) == value) return digits;
  return 17;
}

// How all numbers of one tensor are written.
struct Style {
  bool scientific = false;
  int precision = 0;  // of scientific numbers
  int left = 0, right = 0;
};

// Without zeros at the end, but with the point.
std::string trimmed(std::string s) {
  s.erase(s.find_last_not_of('0') + 1);
  return s;
}
std::string positional(double value, DType dtype, int precision) {
  const int digits = digits_of(value, dtype);
  const std::string leading = fmt::format("{:.{}e}", value, digits);
  const int behind = std::clamp(digits - std::atoi(leading.c_str() + leading.find('e') + 1), 0, precision);
  std::string s = fmt::format("{:.{}f}", value, behind);
  return s.find('.') == s.npos ? s + "." : trimmed(s);
}
std::string special(double value) { return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf"; }

Style style_of(const std::vector<Number>& numbers, DType dtype, const TextOptions& options) {
  Style style;
  if (!has_point(dtype)) {
    for (const Number& n : numbers)
      style.left = std::max(style.left, int(dtype == DType::boolean ? (n.whole ? 4 : 5) : std::to_string(n.whole).size()));
    return style;
  }
  double largest = 0, smallest = INFINITY;
  for (const Number& n : numbers)
    if (std::isfinite(n.value) && n.value != 0)
      largest = std::max(largest, std::abs(n.value)), smallest = std::min(smallest, std::abs(n.value));
  // NumPy's bounds for numbers that are written with an exponent.
  style.scientific = largest > 0 && (largest >= 1e8 || smallest < 1e-4 || largest / smallest > 1e3);
  if (style.scientific)
    for (const Number& n : numbers)
      if (std::isfinite(n.value)) style.precision = std::max(style.precision, std::min(digits_of(n.value, dtype), options.precision));
  for (const Number& n : numbers) {
    if (!std::isfinite(n.value)) continue;
    if (style.scientific) {
      style.left = std::max(style.left, int(fmt::format("{:#.{}e}", n.value, style.precision).size()));
    } else {
      const std::string s = positional(n.value, dtype, options.precision);
      const int point = int(s.find('.'));
      style.left = std::max(style.left, point);
      style.right = std::max(style.right, int(s.size()) - point);
    }
  }
  for (const Number& n : numbers)
    if (!std::isfinite(n.value)) style.left = std::max(style.left, int(special(n.value).size()) - style.right);
  return style;
}

std::string padded(const std::string& s, int width) { return std::string(size_t(std::max(0, width - int(s.size()))), ' ') + s; }
std::string write(const Number& n, DType dtype, const Style& style, const TextOptions& options) {
  if (dtype == DType::boolean) return padded(n.whole ? "true" : "false", style.left);
  if (!has_point(dtype)) return padded(std::to_string(n.whole), style.left);
  if (!std::isfinite(n.value)) return padded(special(n.value), style.left + style.right);
  if (style.scientific) return padded(fmt::format("{:#.{}e}", n.value, style.precision), style.left);
  const std::string s = positional(n.value, dtype, options.precision);
  const int point = int(s.find('.'));
  return std::string(size_t(style.left - point), ' ') + s + std::string(size_t(style.right - (int(s.size()) - point)), ' ');
}

class Writer {
 public:
  Writer(const Tensor& tensor, const TextOptions& options)
      : tensor_(tensor),
        options_(options),
        summary_(tensor.numel() > options.summarize_above),
        start_(static_cast<const std::byte*>(tensor.raw())) {
    tensor.device().synchronize();
    std::vector<Number> shown;
    visit(0, 0, [&](const Number& n) { shown.push_back(n); });
    style_ = style_of(shown, tensor.dtype(), options);
  }
  std::string text() const { return tensor_.rank() == 0 ? write(number(0), tensor_.dtype(), style_, options_) : axis(0, 0); }

 private:
  // Positions along an axis that are shown; -1 stands for those that are left out.
  std::vector<int64_t> places(int axis) const {
    const int64_t extent = tensor_.shape()[axis];
    std::vector<int64_t> all;
    for (int64_t i = 0; i < extent; ++i) {
      if (summary_ && extent > 2 * options_.edge && i == options_.edge) {
        all.push_back(-1);
        i = extent - options_.edge;
      }
      all.push_back(i);
    }
    return all;
  }
  Number number(int64_t at) const { return read_number(tensor_.device(), tensor_.dtype(), start_ + at * size_of(tensor_.dtype())); }
  template <class Visit>
  void visit(int axis, int64_t at, Visit see) const {
    if (axis == tensor_.rank()) return see(number(at));
    for (const int64_t i : places(axis))
      if (i >= 0) visit(axis + 1, at + i * tensor_.layout().strides[axis], see);
  }
  // A row of numbers, in lines of the given width.
  std::string row(int64_t at) const {
    const int axis = tensor_.rank() - 1;
    std::string s = "[", indent(size_t(axis) + 1, ' ');
    size_t column = indent.size();
    bool first = true;
    for (const int64_t i : places(axis)) {
      const std::string item = i < 0 ? "..." : write(number(at + i * tensor_.layout().strides[axis]), tensor_.dtype(), style_, options_);
      if (!first && column + 1 + item.size() > size_t(options_.width)) {
        s += "\n" + indent;
        column = indent.size();
      } else if (!first) {
        s += " ";
        ++column;
      }
      s += item;
      column += item.size();
      first = false;
    }
    return s + "]";
  }
  std::string axis(int a, int64_t at) const {
    if (a == tensor_.rank() - 1) return row(at);
    // Matrices are an empty line apart, blocks of them two.
    const std::string between = std::string(size_t(tensor_.rank() - 1 - a), '\n') + std::string(size_t(a) + 1, ' ');
    std::string s = "[";
    bool first = true;
    for (const int64_t i : places(a)) {
      if (!first) s += between;
      s += i < 0 ? "..." : axis(a + 1, at + i * tensor_.layout().strides[a]);
      first = false;
    }
    return s + "]";
  }

  const Tensor& tensor_;
  const TextOptions& options_;
  bool summary_;
  const std::byte* start_;
  Style style_;
};
}  // namespace

std::string to_text(const Tensor& tensor, const TextOptions& options) {
  check(options.precision >= 0 && options.edge >= 1, "to_text: wants precision >= 0 and edge >= 1, got {} and {}", options.precision,
        options.edge);
  if (!tensor.defined()) return "undefined";
  if (tensor.device().is_meta()) return text("{} on meta, without values", tensor);
  const std::string values = tensor.numel() == 0 ? "[]" : Writer(tensor, options).text();
  return options.suffix ? text("{}  {}", values, tensor) : values;
}
}  // namespace reckon
