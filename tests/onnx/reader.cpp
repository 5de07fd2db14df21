#include "tests/onnx/reader.h"

#include <bit>
#include <cstring>

#include "reckon/base/error.h"

namespace reckon::onnx {
namespace {
// One field: its number, and a whole number or bytes.
struct Field {
  int number;
  enum class Wire : uint8_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 } wire;
  uint64_t value = 0;  // of varint and fixed fields
  std::string_view bytes;
};

class Message {
 public:
  explicit Message(std::string_view bytes) : rest_(bytes) {}
  bool next(Field& field) {
    if (rest_.empty()) return false;
    const uint64_t key = varint();
    field.number = int(key >> 3);
    field.wire = Field::Wire(key & 7);
    switch (field.wire) {
      case Field::Wire::varint:
        field.value = varint();
        return true;
      case Field::Wire::fixed32:
      case Field::Wire::fixed64: {
        const std::string_view raw = take(field.wire == Field::Wire::fixed32 ? 4 : 8);
        field.value = 0;
        std::memcpy(&field.value, raw.data(), raw.size());
        return true;
      }
      case Field::Wire::bytes:
        field.bytes = take(varint());
        return true;
    }
    fail("onnx: wire type {} is unknown", int(key & 7));
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint8_t byte = uint8_t(take(1)[0]);
      value |= uint64_t(byte & 127) << shift;
      if (byte < 128) return value;
    }
    fail("onnx: a number has more than ten bytes");
  }
  bool empty() const { return rest_.empty(); }

 private:
  std::string_view take(uint64_t count) {
    check(count <= rest_.size(), "onnx: a message ends {} bytes early", count - rest_.size());
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }
  std::string_view rest_;
};

double float_of(uint64_t bits) { return double(std::bit_cast<float>(uint32_t(bits))); }

// A repeated number: one a field, or all of them packed into bytes.
template <class Add>
void each_varint(const Field& field, Add add) {
  if (field.wire != Field::Wire::bytes) return add(field.value);
  for (Message packed(field.bytes); !packed.empty();) add(packed.varint());
}
template <class Raw, class Add>
void each_fixed(std::string_view bytes, Add add) {
  check(bytes.size() % sizeof(Raw) == 0, "onnx: {} bytes are no whole number of elements of {}", bytes.size(), sizeof(Raw));
  for (size_t at = 0; at < bytes.size(); at += sizeof(Raw)) {
    Raw raw;
    std::memcpy(&raw, bytes.data() + at, sizeof raw);
    add(raw);
  }
}
template <class Raw, class Add>
void each_fixed(const Field& field, Add add) {
  if (field.wire == Field::Wire::bytes) return each_fixed<Raw>(field.bytes, add);
  Raw raw;
  std::memcpy(&raw, &field.value, sizeof raw);
  add(raw);
}

struct ElementType {
  const char* name;
  std::optional<DType> dtype;
};
constexpr int kElementTypes = 17;
const ElementType kTypes[kElementTypes] = {
    {"undefined", {}},   {"f32", DType::f32},  {"u8", DType::u8},   {"i8", {}},     {"u16", {}},
    {"i16", {}},         {"i32", DType::i32},  {"i64", DType::i64}, {"string", {}}, {"bool", DType::boolean},
    {"f16", DType::f16}, {"f64", DType::f64},  {"u32", {}},         {"u64", {}},    {"complex64", {}},
    {"complex128", {}},  {"bf16", DType::bf16}};

double half(uint64_t bits) {
  float16 h;
  h.bits = uint16_t(bits);
  return double(float(h));
}
double brain(uint64_t bits) { return double(std::bit_cast<float>(uint32_t(bits << 16))); }

void read_raw(std::string_view raw, Value& value) {
  const auto number = [&](auto v) { value.numbers.push_back(double(v)); };
  const auto type = dtype_of(value.element_type);
  if (!type) return;
  switch (*type) {
    case DType::f32:
      return each_fixed<float>(raw, number);
    case DType::f64:
      return each_fixed<double>(raw, number);
    case DType::i32:
      return each_fixed<int32_t>(raw, number);
    case DType::i64:
      return each_fixed<int64_t>(raw, [&](int64_t v) { value.whole.push_back(v); });
    case DType::f16:
      return each_fixed<uint16_t>(raw, [&](uint16_t v) { number(half(v)); });
    case DType::bf16:
      return each_fixed<uint16_t>(raw, [&](uint16_t v) { number(brain(v)); });
    default:
      return each_fixed<uint8_t>(raw, number);
  }
}

Attribute read_attribute(std::string_view bytes, std::string& name) {
  Attribute a;
  Field field;
  for (Message m(bytes); m.next(field);) switch (field.number) {
      case 1:
        name = field.bytes;
        break;
      case 2:
        a.number = float_of(field.value);
        break;
      case 3:
        a.whole = int64_t(field.value);
        break;
      case 4:
        a.text = field.bytes;
        break;
      case 5:
        a.tensor = read_tensor(field.bytes);
        break;
      case 7:
        each_fixed<float>(field, [&](float v) { a.numbers.push_back(double(v)); });
        break;
      case 8:
        each_varint(field, [&](uint64_t v) { a.list.push_back(int64_t(v)); });
        break;
      default:
        break;
    }
  return a;
}

Node read_node(std::string_view bytes) {
  Node node;
  Field field;
  for (Message m(bytes); m.next(field);) switch (field.number) {
      case 1:
        node.in.emplace_back(field.bytes);
        break;
      case 2:
        node.out.emplace_back(field.bytes);
        break;
      case 4:
        node.op = field.bytes;
        break;
      case 5: {
        std::string name;
        const Attribute attribute = read_attribute(field.bytes, name);
        node.attributes[name] = attribute;
        break;
      }
      default:
        break;
    }
  return node;
}

std::string name_in(std::string_view bytes) {
  Field field;
  for (Message m(bytes); m.next(field);)
    if (field.number == 1) return std::string(field.bytes);
  return {};
}

void read_graph(std::string_view bytes, Model& model) {
  Field field;
  for (Message m(bytes); m.next(field);) switch (field.number) {
      case 1:
        model.nodes.push_back(read_node(field.bytes));
        break;
      case 5:
        model.initializers.push_back(read_tensor(field.bytes));
        break;
      case 11:
        model.in.push_back(name_in(field.bytes));
        break;
      case 12:
        model.out.push_back(name_in(field.bytes));
        break;
      default:
        break;
    }
}

// A domain without a name is the standard's own.
void read_opset(std::string_view bytes, Model& model) {
  Field field;
  std::string domain;
  int64_t version = 0;
  for (Message m(bytes); m.next(field);) {
    if (field.number == 1) domain = field.bytes;
    if (field.number == 2) version = int64_t(field.value);
  }
  if (domain.empty()) model.opset = version;
}
}  // namespace

std::string element_name(int element_type) {
  return element_type >= 0 && element_type < kElementTypes ? kTypes[element_type].name : "type " + std::to_string(element_type);
}
std::optional<DType> dtype_of(int element_type) {
  return element_type >= 0 && element_type < kElementTypes ? kTypes[element_type].dtype : std::nullopt;
}

Model read_model(std::string_view bytes) {
  Model model;
  Field field;
  for (Message m(bytes); m.next(field);) {
    if (field.number == 7) read_graph(field.bytes, model);
    if (field.number == 8) read_opset(field.bytes, model);
  }
  return model;
}

Value read_tensor(std::string_view bytes) {
  Value value;
  Field field;
  std::string_view raw;
  const auto number = [&](double v) { value.numbers.push_back(v); };
  // int32_data holds the narrow types too; a half as its bits.
  std::vector<uint64_t> narrow;
  for (Message m(bytes); m.next(field);) switch (field.number) {
      case 1:
        each_varint(field, [&](uint64_t v) { value.dims.push_back(int64_t(v)); });
        break;
      case 2:
        value.element_type = int(field.value);
        break;
      case 4:
        each_fixed<float>(field, number);
        break;
      case 5:
        each_varint(field, [&](uint64_t v) { narrow.push_back(v); });
        break;
      case 7:
        each_varint(field, [&](uint64_t v) { value.whole.push_back(int64_t(v)); });
        break;
      case 8:
        value.name = field.bytes;
        break;
      case 9:
        raw = field.bytes;
        break;
      case 10:
        each_fixed<double>(field, number);
        break;
      default:
        break;
    }
  const auto type = dtype_of(value.element_type);
  for (const uint64_t v : narrow) number(type == DType::f16 ? half(v) : type == DType::bf16 ? brain(v) : double(int32_t(v)));
  read_raw(raw, value);
  return value;
}
}  // namespace reckon::onnx
