// tests/onnx/reader: as much of ONNX's files as its operator tests need, read from the wire format of Protocol Buffers. It computes
// nothing. ONNX 1.12, onnx.proto: field numbers are those of the messages there.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reckon/tensor/dtype.h"

namespace reckon::onnx {

/// TensorProto.DataType by its number: "f32", "i8", ...; and our type, if there is one.
std::string element_name(int element_type);
std::optional<DType> dtype_of(int element_type);

/// TensorProto. Elements are doubles, or where those are too narrow whole numbers.
struct Value {
  std::string name;
  int element_type = 0;
  std::vector<int64_t> dims;
  std::vector<double> numbers;
  std::vector<int64_t> whole;  // i64 alone
};

/// AttributeProto: what it holds is what is set.
struct Attribute {
  double number = 0;
  int64_t whole = 0;
  std::string text;
  std::vector<double> numbers;
  std::vector<int64_t> list;
  std::optional<Value> tensor;
};

struct Node {
  std::string op;
  std::vector<std::string> in, out;  // "": left out
  std::map<std::string, Attribute> attributes;
};

struct Model {
  std::vector<Node> nodes;
  std::vector<std::string> in, out;
  std::vector<Value> initializers;
  int64_t opset = 0;  // of the operators of the standard's own domain
};

/// Throw Error for bytes that are not such a message.
Model read_model(std::string_view bytes);
Value read_tensor(std::string_view bytes);
}  // namespace reckon::onnx
