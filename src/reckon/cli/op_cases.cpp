#include "reckon/cli/op_cases.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "reckon/base/philox.h"

namespace reckon {

CaseInput CaseInput::range(double from, double to) const { return held(Hold::uniform, from, to); }
CaseInput CaseInput::held(Hold how, double from, double to) const {
  CaseInput copy = *this;
  copy.hold = how;
  copy.low = from;
  copy.high = to;
  return copy;
}
CaseInput CaseInput::of(const Shape& shape, std::vector<double> values) {
  CaseInput input = CaseInput(shape).held(Hold::given);
  input.values = std::move(values);
  return input;
}
CaseInput CaseInput::of(const Shape& shape, DType dtype, std::vector<double> values) {
  CaseInput input = of(shape, std::move(values));
  input.follows = false;
  input.dtype = dtype;
  return input;
}
namespace {
CaseInput fixed(const Shape& shape, Lay lay, DType dtype, CaseInput::Hold hold, double high) {
  CaseInput input = CaseInput(shape, lay).held(hold, 0, high);
  input.follows = false;
  input.dtype = dtype;
  return input;
}
}  // namespace
CaseInput CaseInput::ids(const Shape& shape, int64_t count) { return fixed(shape, Lay::plain, DType::i32, Hold::ids, double(count)); }
CaseInput CaseInput::targets(const Shape& shape, int64_t count) {
  return fixed(shape, Lay::plain, DType::i32, Hold::targets, double(count));
}
CaseInput CaseInput::mask(const Shape& shape, Lay lay) { return fixed(shape, lay, DType::boolean, Hold::mask, 1); }

std::string to_string(const OpCase& c) {
  std::string list;
  for (const CaseInput& input : c.inputs) list += (list.empty() ? "" : " ") + to_string(input.shape);
  return text("{} #{} ({})", c.op, c.index, list);
}

// ---- inputs in memory
namespace {
// Layouts that need two axes fall back to one that does not.
Lay lay_of(const CaseInput& input) {
  if ((input.lay == Lay::transposed || input.lay == Lay::turned) && input.shape.rank() < 2) return Lay::stepped;
  return input.lay == Lay::expanded && input.shape.rank() == 0 ? Lay::plain : input.lay;
}
Shape swapped(const Shape& s, int a, int b) { return s.with(a, s[b]).with(b, s[a]); }

Shape leaf_shape(const CaseInput& input) {
  const Shape& s = input.shape;
  const Lay lay = lay_of(input);
  if (s.rank() == 0 && lay != Lay::plain) return {3};
  switch (lay) {
    case Lay::plain:
      return s;
    case Lay::transposed:
      return swapped(s, -2, -1);
    case Lay::turned:
      return swapped(s, 0, -1);
    case Lay::stepped:
      return s.with(-1, 2 * s.last() + 1);
    case Lay::padded:
      return s.with(-1, s.last() + 3);
    case Lay::shifted:
      return s.with(0, s[0] + 2);
    case Lay::expanded:
      return s.with(0, 1);
  }
  return s;
}

Tensor see_one(const CaseInput& input, const Tensor& leaf) {
  const Shape& s = input.shape;
  const Lay lay = lay_of(input);
  if (s.rank() == 0 && lay != Lay::plain) return select(leaf, 0, 1);
  switch (lay) {
    case Lay::plain:
      return leaf;
    case Lay::transposed:
      return transpose(leaf);
    case Lay::turned:
      return transpose(leaf, 0, -1);
    case Lay::stepped:
      return slice(leaf, -1, 1, 2 * s.last() + 1, 2);
    case Lay::padded:
      return slice(leaf, -1, 1, s.last() + 1);
    case Lay::shifted:
      return slice(leaf, 0, 2, s[0] + 2);
    case Lay::expanded:
      return expand(leaf, s);
  }
  return leaf;
}

// The key of an input: the same on every machine.
uint64_t key_of(const OpCase& c, size_t input) {
  uint64_t key = mix_key(uint64_t(c.index), uint64_t(input));
  for (const char letter : c.op) key = mix_key(key, uint64_t(letter));
  return key;
}
double draw(uint64_t key, uint64_t stream, int64_t i) {
  const auto words = philox(key, stream, uint64_t(i));
  return uniform_double(words[0], words[1]);
}

std::vector<double> hold(const CaseInput& input, int64_t count, uint64_t key) {
  std::vector<double> v(static_cast<size_t>(count));
  if (input.hold == CaseInput::Hold::distinct) {
    std::vector<std::pair<double, int64_t>> order;
    for (int64_t i = 0; i < count; ++i) order.emplace_back(draw(key, 0, i), i);
    std::sort(order.begin(), order.end());
    for (int64_t rank = 0; rank < count; ++rank) v[size_t(order[size_t(rank)].second)] = 0.02 * double(rank - count / 2) + 0.01;
    return v;
  }
  for (int64_t i = 0; i < count; ++i) {
    const double u = draw(key, 0, i);
    double& x = v[size_t(i)];
    switch (input.hold) {
      case CaseInput::Hold::uniform:
        x = input.low + (input.high - input.low) * u;
        break;
      case CaseInput::Hold::apart:
        x = u < 0.5 ? -0.1 - 2 * u * (input.high - 0.1) : 0.1 + (2 * u - 1) * (input.high - 0.1);
        break;
      case CaseInput::Hold::grid:
        x = 0.1 * std::floor(21 * u) - 1 + input.low;
        break;
      case CaseInput::Hold::ids:
        x = input.low + std::floor(u * input.high);
        break;
      case CaseInput::Hold::targets:
        x = i % 4 == 3 ? double(kIgnoredTarget) : std::floor(u * input.high);
        break;
      case CaseInput::Hold::mask:
        x = u < 0.5;
        break;
      case CaseInput::Hold::given:
        x = input.values.at(size_t(i));
        break;
      case CaseInput::Hold::distinct:
        break;
    }
  }
  return v;
}

template <class T>
void put(std::vector<std::byte>& bytes, const std::vector<double>& values) {
  for (size_t i = 0; i < values.size(); ++i) {
    T value;
    if constexpr (std::is_class_v<T>)
      value = T(float(values[i]));
    else
      value = T(values[i]);
    std::memcpy(&bytes[i * sizeof value], &value, sizeof value);
  }
}
}  // namespace

std::vector<double> random_values(int64_t count, uint64_t key, uint64_t stream) {
  std::vector<double> v(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) v[size_t(i)] = 2 * draw(key, stream, i) - 1;
  return v;
}

Tensor tensor_of(Device& device, const Shape& shape, DType dtype, const std::vector<double>& values) {
  std::vector<std::byte> bytes(values.size() * size_t(size_of(dtype)));
  switch (dtype) {
    case DType::f32:
      put<float>(bytes, values);
      break;
    case DType::f64:
      put<double>(bytes, values);
      break;
    case DType::bf16:
      put<bfloat16>(bytes, values);
      break;
    case DType::f16:
      put<float16>(bytes, values);
      break;
    case DType::i32:
      put<int32_t>(bytes, values);
      break;
    case DType::i64:
      put<int64_t>(bytes, values);
      break;
    case DType::u8:
      put<uint8_t>(bytes, values);
      break;
    case DType::boolean:
      put<bool>(bytes, values);
      break;
    case DType::f8e4m3fn:
      put<float8_e4m3fn>(bytes, values);
      break;
    case DType::f8e5m2:
      put<float8_e5m2>(bytes, values);
      break;
  }
  return from_bytes(device, {shape, dtype}, bytes.data(), int64_t(bytes.size()));
}

std::vector<double> leaf_values(const OpCase& c, size_t input, DType dtype) {
  std::vector<double> v = hold(c.inputs[input], leaf_shape(c.inputs[input]).numel(), key_of(c, input));
  const DType held = c.inputs[input].follows ? dtype : c.inputs[input].dtype;
  for (double& x : v) {
    if (held == DType::f32) x = double(float(x));
    if (held == DType::bf16) x = double(float(bfloat16(float(x))));
    if (held == DType::f16) x = double(float(float16(float(x))));
    if (held == DType::f8e4m3fn) x = double(float(float8_e4m3fn(float(x))));
    if (held == DType::f8e5m2) x = double(float(float8_e5m2(float(x))));
  }
  return v;
}

std::vector<BuiltInput> build_inputs(const OpCase& c, Device& device, DType dtype, bool requires_grad) {
  std::vector<BuiltInput> built;
  for (size_t i = 0; i < c.inputs.size(); ++i) {
    const CaseInput& input = c.inputs[i];
    Tensor leaf = tensor_of(device, leaf_shape(input), input.follows ? dtype : input.dtype, leaf_values(c, i, dtype));
    if (requires_grad && is_float(leaf.dtype())) leaf.set_requires_grad();
    built.push_back({leaf, see_one(input, leaf)});
  }
  return built;
}

Tensors see(const OpCase& c, const Tensors& leaves) {
  Tensors seen;
  for (size_t i = 0; i < leaves.size(); ++i) seen.push_back(see_one(c.inputs[i], leaves[i]));
  return seen;
}

// ---- the table
CaseList& CaseList::op(const char* name, bool differentiable, uint32_t dtypes) {
  op_ = name;
  differentiable_ = differentiable;
  dtypes_ = dtypes;
  index_ = 0;
  return *this;
}
void CaseList::append(CaseInputs inputs, Ref<CaseBody> body) {
  cases_.push_back({op_, index_++, std::move(inputs), std::move(body), differentiable_, dtypes_});
}

const std::vector<OpCase>& op_cases() {
  static const std::vector<OpCase> table = [] {
    std::vector<OpCase> cases;
    CaseList list(cases);
    add_elementwise_cases(list);
    add_whole_cases(list);
    add_view_cases(list);
    add_named_cases(list);
    add_packing_cases(list);
    add_reduce_cases(list);
    add_matmul_cases(list);
    add_float8_cases(list);
    add_norm_cases(list);
    add_transformer_cases(list);
    add_loss_cases(list);
    add_creation_cases(list);
    add_training_cases(list);
    add_joining_cases(list);
    add_indexing_cases(list);
    add_order_cases(list);
    add_function_cases(list);
    add_conv_cases(list);
    add_module_cases(list);
    return cases;
  }();
  return table;
}

std::vector<std::string> case_ops() {
  std::vector<std::string> names;
  for (const OpCase& c : op_cases())
    if (names.empty() || names.back() != c.op) names.push_back(c.op);
  return names;
}

std::span<const UncoveredRow> uncovered_rows() {
  static const UncoveredRow rows[] = {
      {"attention_chunk_back",
       "its sums wait between the calls of a whole sequence: tests/nn/chunks.cpp, tests/backend/attention_chunk.cpp"}};
  return rows;
}

// 2048 and 16384 elements are where the CPU's row and element kernels cut; 64 where copies tile.
std::span<const Arrangement> arrangements() {
  static const Arrangement sets[] = {
      {{}, Lay::plain},
      {{}, Lay::stepped},
      {{1}, Lay::plain},
      {{7}, Lay::plain},
      {{0}, Lay::plain},
      {{3, 0, 2}, Lay::turned},
      {{33}, Lay::stepped},
      {{17}, Lay::shifted},
      {{3, 5}, Lay::plain},
      {{3, 5}, Lay::transposed},
      {{4, 6}, Lay::stepped},
      {{4, 7}, Lay::padded},
      {{2, 3, 4}, Lay::turned},
      {{1, 5, 1}, Lay::plain},
      {{5, 1}, Lay::transposed},
      {{6, 4}, Lay::expanded},
      {{2, 1, 3, 1, 2, 2, 1, 2}, Lay::transposed},
      {{65}, Lay::plain},
      {{3, 129}, Lay::padded},
      {{127, 3}, Lay::transposed},
      {{2049}, Lay::plain},
      {{130, 131}, Lay::transposed},
      {{16391}, Lay::shifted},
      {{3, 5463}, Lay::stepped},
  };
  return sets;
}

std::span<const Arrangement> row_arrangements() {
  static const Arrangement sets[] = {
      {{1}, Lay::plain},         {{7}, Lay::plain},
      {{16}, Lay::stepped},      {{1, 1}, Lay::plain},
      {{0, 5}, Lay::plain},      {{2, 0, 3}, Lay::plain},
      {{3, 5}, Lay::plain},      {{3, 5}, Lay::transposed},
      {{4, 6}, Lay::stepped},    {{4, 7}, Lay::padded},
      {{2, 3, 4}, Lay::turned},  {{5, 1}, Lay::plain},
      {{6, 4}, Lay::expanded},   {{2, 1, 2, 1, 2, 1, 2, 9}, Lay::shifted},
      {{3, 33}, Lay::plain},     {{33, 3}, Lay::transposed},
      {{2, 65}, Lay::padded},    {{3, 129}, Lay::plain},
      {{70, 17}, Lay::plain},    {{1, 2049}, Lay::plain},
      {{2, 2500}, Lay::stepped}, {{300, 64}, Lay::plain},
      {{65, 257}, Lay::padded},  {{1100, 8}, Lay::transposed},
  };
  return sets;
}

std::span<const ArrangedPair> arranged_pairs() {
  static const ArrangedPair sets[] = {
      {{{}, Lay::plain}, {{}, Lay::plain}},
      {{{5}, Lay::plain}, {{}, Lay::plain}},
      {{{}, Lay::stepped}, {{3, 4}, Lay::transposed}},
      {{{1}, Lay::plain}, {{1}, Lay::plain}},
      {{{0}, Lay::plain}, {{1}, Lay::plain}},
      {{{3, 0, 2}, Lay::turned}, {{1, 1, 2}, Lay::plain}},
      {{{7}, Lay::plain}, {{7}, Lay::stepped}},
      {{{33}, Lay::shifted}, {{33}, Lay::shifted}},
      {{{3, 5}, Lay::plain}, {{3, 5}, Lay::transposed}},
      {{{3, 5}, Lay::transposed}, {{3, 5}, Lay::transposed}},
      {{{3, 5}, Lay::plain}, {{5}, Lay::plain}},
      {{{5}, Lay::padded}, {{3, 5}, Lay::stepped}},
      {{{3, 1}, Lay::plain}, {{1, 5}, Lay::plain}},
      {{{4, 1, 3}, Lay::turned}, {{2, 1}, Lay::transposed}},
      {{{2, 3, 4}, Lay::turned}, {{3, 1}, Lay::plain}},
      {{{6, 4}, Lay::expanded}, {{6, 4}, Lay::padded}},
      {{{1, 4}, Lay::plain}, {{6, 4}, Lay::expanded}},
      {{{2, 1, 3, 1, 2, 2, 1, 2}, Lay::plain}, {{2, 1, 2, 1, 2, 3, 1}, Lay::transposed}},
      {{{3, 129}, Lay::padded}, {{129}, Lay::plain}},
      {{{127, 3}, Lay::transposed}, {{127, 1}, Lay::plain}},
      {{{2049}, Lay::plain}, {{2049}, Lay::plain}},
      {{{130, 131}, Lay::transposed}, {{130, 131}, Lay::plain}},
      {{{16391}, Lay::shifted}, {{1}, Lay::plain}},
      {{{3, 5463}, Lay::stepped}, {{5463}, Lay::plain}},
  };
  return sets;
}
}  // namespace reckon
