// tests/onnx/operators: ONNX's operators by our operations. An operator is one function from a node and its inputs to its outputs.
#pragma once
#include <map>
#include <string>

#include "reckon/ops/ops.h"
#include "tests/onnx/reader.h"

namespace reckon::onnx {

/// What a case needs and our operations do not give; `what` is a line of not_applicable.txt.
struct NotApplicable {
  std::string what;
};

/// A node, and its inputs in its order; undefined where one is left out.
struct Call {
  const Node& node;
  const Tensors& in;
  int64_t opset;
  Device& device;

  bool has(size_t i) const { return i < in.size() && in[i].defined(); }
  const Tensor& operator[](size_t i) const { return in.at(i); }
  int64_t whole(const char* name, int64_t otherwise) const;
  double number(const char* name, double otherwise) const;
  std::string text(const char* name, const char* otherwise) const;
  std::vector<int64_t> list(const char* name) const;
  bool has_attribute(const char* name) const { return node.attributes.count(name) != 0; }
  /// Elements of an input that is an argument: axes, a shape, bounds.
  std::vector<int64_t> numbers(size_t i) const;
  /// Axes by an attribute, or by an input where operators have it.
  std::vector<int64_t> axes(size_t input) const;
};
using Operator = Tensors (*)(const Call&);

Tensor tensor_of(Device& device, const Value& value);
/// Whole axes counted from the front, as operations take them.
int front_axis(int64_t axis, int rank);

using OperatorTable = std::map<std::string, Operator>;
void add_elementwise(OperatorTable& table);
void add_shapes(OperatorTable& table);
void add_reductions(OperatorTable& table);
void add_networks(OperatorTable& table);
void add_training(OperatorTable& table);
const OperatorTable& operators();
}  // namespace reckon::onnx
