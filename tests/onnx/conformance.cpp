// ONNX's own operator tests (libonnx-testdata): each case is a model of a node or a few, inputs, and what NumPy says of them. Cases whose
// operators we have run and must agree; each of the others is there for a reason in not_applicable.txt, which has no reason too many.
#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "reckon/backend/cpu/device.h"
#include "reckon/engine/context.h"
#include "tests/onnx/operators.h"

namespace reckon::onnx {
namespace {
namespace fs = std::filesystem;
const fs::path kCases = "/usr/share/libonnx-testdata/data/node";

std::string contents(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  check(bool(in), "{} cannot be read", file.string());
  return {std::istreambuf_iterator<char>(in), {}};
}
std::vector<std::string> case_names() {
  std::vector<std::string> names;
  if (fs::is_directory(kCases))
    for (const auto& entry : fs::directory_iterator(kCases)) names.push_back(entry.path().filename().string().substr(5));  // after "test_"
  std::sort(names.begin(), names.end());
  return names;
}

// "Acos: a reason": an operator; "type i8: a reason"; "case cast_...: a reason"; or what an operator throws NotApplicable with.
std::map<std::string, std::string> reasons() {
  std::map<std::string, std::string> all;
  std::ifstream in("tests/onnx/not_applicable.txt");
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t colon = line.find(": ");
    check(colon != std::string::npos && !all.count(line.substr(0, colon)), "not_applicable.txt: '{}' is no new 'what: reason'", line);
    all[line.substr(0, colon)] = line.substr(colon + 2);
  }
  return all;
}

std::vector<Value> read_values(const fs::path& folder, const char* kind, size_t count) {
  std::vector<Value> values;
  for (size_t i = 0; i < count; ++i) {
    const fs::path file = folder / (std::string(kind) + "_" + std::to_string(i) + ".pb");
    if (!fs::exists(file)) break;  // an output that the case leaves out
    values.push_back(read_tensor(contents(file)));
  }
  return values;
}

std::map<std::string, Tensor> run_model(Device& device, const Model& model, const std::vector<Value>& inputs) {
  std::map<std::string, Tensor> known;
  for (const Value& v : model.initializers) known[v.name] = tensor_of(device, v);
  for (size_t i = 0; i < inputs.size(); ++i) known[model.in.at(i)] = tensor_of(device, inputs[i]);
  for (const Node& node : model.nodes) {
    Tensors in;
    for (const std::string& name : node.in) {
      check(name.empty() || known.count(name), "the model has no '{}' for {}", name, node.op);
      in.push_back(name.empty() ? Tensor() : known[name]);
    }
    const Tensors out = operators().at(node.op)({node, in, model.opset, device});
    for (size_t i = 0; i < node.out.size() && i < out.size(); ++i) known[node.out[i]] = out[i];
  }
  return known;
}

// NumPy's results were rounded on their way as ours were: `nodes` operators deep, through sums of some hundred terms at most. Whole numbers
// and 16-bit floats only move, or are rounded once: nothing is allowed there.
void expect_values(const Tensor& got, const Value& want, size_t nodes) {
  ASSERT_TRUE(got.defined()) << want.name;
  EXPECT_EQ(std::vector<int64_t>(got.shape().begin(), got.shape().end()), want.dims);
  ASSERT_TRUE(dtype_of(want.element_type).has_value());
  ASSERT_EQ(name_of(got.dtype()), name_of(*dtype_of(want.element_type)));
  const std::vector<double> values = got.to_vector();
  std::vector<double> wanted = want.numbers;
  for (const int64_t v : want.whole) wanted.push_back(double(v));
  ASSERT_EQ(values.size(), wanted.size());
  double largest = 0;
  for (const double w : wanted)
    if (std::isfinite(w)) largest = std::max(largest, std::abs(w));
  const double allowed = is_float(got.dtype()) && size_of(got.dtype()) > 2 ? 16 * epsilon(got.dtype()) * double(1 + nodes) : 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isnan(wanted[i]) ? std::isnan(values[i]) : values[i] == wanted[i]) continue;
    ASSERT_TRUE(std::isfinite(wanted[i]) && std::isfinite(values[i])) << want.name << " element " << i << " is " << values[i] << ", NumPy has " << wanted[i];
    ASSERT_LE(std::abs(values[i] - wanted[i]), allowed * std::max(std::abs(wanted[i]), largest / 16))
        << want.name << " element " << i << " is " << values[i] << ", NumPy has " << wanted[i];
  }
}

// "" if the case ran, else the line of not_applicable.txt that it needs.
std::string run_case(Device& device, const std::string& name) {
  const fs::path folder = kCases / ("test_" + name);
  const Model model = read_model(contents(folder / "model.onnx"));
  for (const Node& node : model.nodes)
    if (!operators().count(node.op)) return node.op;
  try {
    for (int set = 0; fs::exists(folder / ("test_data_set_" + std::to_string(set))); ++set) {
      const fs::path data = folder / ("test_data_set_" + std::to_string(set));
      const auto inputs = read_values(data, "input", model.in.size()), outputs = read_values(data, "output", model.out.size());
      check(!outputs.empty(), "{} has no outputs", data.string());
      for (const auto* values : {&inputs, &outputs})
        for (const Value& v : *values)
          if (!dtype_of(v.element_type)) return "type " + element_name(v.element_type);
      const NoGrad guard;
      auto known = run_model(device, model, inputs);
      for (size_t i = 0; i < outputs.size(); ++i) expect_values(known[model.out[i]], outputs[i], model.nodes.size());
    }
  } catch (const NotApplicable& reason) {
    return reason.what;
  }
  return {};
}

TEST(Onnx, EveryCaseAgreesOrHasAReasonNotToRun) {
  const std::vector<std::string> names = case_names();
  ASSERT_GE(names.size(), 900u) << "install libonnx-testdata: " << kCases;
  const Ref<Device> device = open_cpu(Mode::real);
  const auto known = reasons();
  std::set<std::string> used;
  int agreed = 0, of_one_node = 0;
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    if (const std::string own = "case " + name; known.count(own)) {
      used.insert(own);
      continue;
    }
    std::string reason;
    try {
      reason = run_case(*device, name);
    } catch (const Error& error) {
      ADD_FAILURE() << error.what();
      continue;
    }
    if (reason.empty()) {
      ++agreed;
      of_one_node += name.find("_expanded") == std::string::npos;
      continue;
    }
    EXPECT_TRUE(known.count(reason)) << "'" << reason << "' is not in not_applicable.txt";
    used.insert(reason);
  }
  for (const auto& [what, reason] : known) EXPECT_TRUE(used.count(what)) << "not_applicable.txt has '" << what << "', which no case needs";
  RecordProperty("agreed", agreed);
  // What the list of reasons leaves, so that none slips out of the comparison unseen.
  EXPECT_GE(of_one_node, 400);
  std::printf("%d of %zu cases agree, %d of them single operators\n", agreed, names.size(), of_one_node);
}

// A comparison that cannot fail proves nothing.
TEST(Onnx, WrongValuesAreSeen) {
  const Ref<Device> device = open_cpu(Mode::real);
  static const Tensor* x;
  const Tensor ones_of_two = ones(*device, {{2}, DType::f32});
  x = &ones_of_two;
  static const Value right{"right", 1, {2}, {1, 1}, {}}, other_value{"value", 1, {2}, {1, 1 + 1e-4}, {}},
      infinite{"infinite", 1, {2}, {1, INFINITY}, {}}, other_type{"type", 11, {2}, {1, 1}, {}}, other_shape{"shape", 1, {1, 2}, {1, 1}, {}};
  expect_values(*x, right, 1);
  EXPECT_FATAL_FAILURE(expect_values(*x, other_value, 1), "element 1 is 1, NumPy has 1.0001");
  EXPECT_FATAL_FAILURE(expect_values(*x, infinite, 1), "element 1 is 1, NumPy has inf");
  EXPECT_FATAL_FAILURE(expect_values(*x, other_type, 1), "f64");
  EXPECT_NONFATAL_FAILURE(expect_values(*x, other_shape, 1), "want.dims");
}

TEST(OnnxReader, RefusesWhatIsNoMessage) {
  EXPECT_THROW(read_model(std::string_view("\x3a\x7f", 2)), Error) << "a graph of 127 bytes of which none is there";
  EXPECT_THROW(read_model(std::string_view("\x0b", 1)), Error) << "wire type 3";
  EXPECT_THROW(read_tensor(std::string_view("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12)), Error) << "a number of eleven bytes";
}
}  // namespace
}  // namespace reckon::onnx
