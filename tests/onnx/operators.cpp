#include "tests/onnx/operators.h"

namespace reckon::onnx {
int64_t Call::whole(const char* name, int64_t otherwise) const {
  const auto at = node.attributes.find(name);
  return at == node.attributes.end() ? otherwise : at->second.whole;
}
double Call::number(const char* name, double otherwise) const {
  const auto at = node.attributes.find(name);
  return at == node.attributes.end() ? otherwise : at->second.number;
}
std::string Call::text(const char* name, const char* otherwise) const {
  const auto at = node.attributes.find(name);
  return at == node.attributes.end() ? otherwise : at->second.text;
}
std::vector<int64_t> Call::list(const char* name) const {
  const auto at = node.attributes.find(name);
  return at == node.attributes.end() ? std::vector<int64_t>() : at->second.list;
}
std::vector<int64_t> Call::numbers(size_t i) const {
  std::vector<int64_t> values;
  for (const double v : in.at(i).to_vector()) values.push_back(int64_t(v));
  return values;
}
std::vector<int64_t> Call::axes(size_t input) const { return has(input) ? numbers(input) : list("axes"); }

Tensor tensor_of(Device& device, const Value& value) {
  const auto dtype = dtype_of(value.element_type);
  if (!dtype) throw NotApplicable{"type " + element_name(value.element_type)};
  const Shape shape{std::span<const int64_t>(value.dims)};
  if (*dtype == DType::i64) return from_values<int64_t>(device, shape, value.whole);
  return cast(from_values<double>(device, shape, value.numbers), *dtype);
}

int front_axis(int64_t axis, int rank) { return int(axis < 0 ? axis + rank : axis); }

const OperatorTable& operators() {
  static const OperatorTable table = [] {
    OperatorTable t;
    add_elementwise(t);
    add_shapes(t);
    add_reductions(t);
    add_networks(t);
    add_training(t);
    return t;
  }();
  return table;
}
}  // namespace reckon::onnx
