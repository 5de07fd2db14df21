// einops' own documented examples, as einops computes them (make_einops.py).
#include "reckon/ops/einops.h"

#include <cctype>
#include <cmath>

#include "reckon/backend/cpu/device.h"
#include "reckon/io/safetensors.h"
#include "reckon/ops/ops.h"
#include "reckon/ops/packing.h"
#include "tests/golden/golden.h"

namespace reckon {
namespace {
std::vector<std::string> pieces(const std::string& text, char separator) {
  std::vector<std::string> found{""};
  for (const char c : text) c == separator ? found.emplace_back() : found.back() += c;
  return found;
}

struct Example {
  std::string operation, pattern;
  AxisLengths lengths;
  std::vector<Shape> shapes;
};
Example read_example(const std::string& line) {
  const std::vector<std::string> fields = pieces(line, '|');
  Example e{fields.at(0), fields.at(1), {}, {}};
  for (const std::string& given : pieces(fields.at(2), ' '))
    if (!given.empty()) e.lengths.add(given.substr(0, given.find('=')), std::stoll(given.substr(given.find('=') + 1)));
  for (const std::string& shape : pieces(fields.at(3), ';')) {
    std::vector<int64_t> extents;
    for (const std::string& extent : pieces(shape, ' '))
      if (!extent.empty()) extents.push_back(std::stoll(extent));
    e.shapes.push_back(Shape(std::span<const int64_t>(extents)));
  }
  return e;
}
// As make_einops.py says.
Tensor input(Device& device, const Shape& shape, DType dtype) {
  std::vector<double> values(size_t(shape.numel()));
  for (size_t i = 0; i < values.size(); ++i) values[i] = double(int64_t(i * 7 + size_t(shape.rank()) * 3) % 23 - 9);
  return cast(from_values<double>(device, shape, values), dtype);
}
Tensor run(const Example& e, const Tensors& x) {
  const RuntimePattern pattern = runtime(e.pattern);
  if (e.operation == "rearrange") return rearrange(x[0], pattern, e.lengths);
  if (e.operation == "repeat") return repeat(x[0], pattern, e.lengths);
  if (e.operation == "pack") return pack(x, pattern).tensor;
  if (e.operation == "einsum") return einsum(pattern, x);
  if (e.operation == "reduce sum") return reduce(x[0], pattern, Reducer::sum, e.lengths);
  if (e.operation == "reduce mean") return reduce(x[0], pattern, Reducer::mean, e.lengths);
  if (e.operation == "reduce max") return reduce(x[0], pattern, Reducer::max, e.lengths);
  if (e.operation == "reduce min") return reduce(x[0], pattern, Reducer::min, e.lengths);
  if (e.operation == "reduce prod") return reduce(x[0], pattern, Reducer::prod, e.lengths);
  fail("'{}' is no operation of the golden file", e.operation);
}

TEST(GoldenEinops, DocumentedExamplesAreReproduced) {
  const Ref<Device> device = open_cpu(Mode::real);
  const golden::File file("einops");
  const SafetensorsFile list("tests/golden/einops.safetensors");
  int compared = 0;
  for (const MetadataItem& item : list.metadata()) {
    if (!std::isdigit(static_cast<unsigned char>(item.key[0]))) continue;
    const Example e = read_example(item.value);
    const std::vector<double> want = file.values(item.key);
    double most = 1;
    for (const double v : want) most = std::max(most, std::abs(v));
    for (const DType dtype : {DType::f64, DType::f32}) {
      Tensors x;
      double elements = 1;
      for (const Shape& shape : e.shapes) {
        x.push_back(input(*device, shape, dtype));
        elements = std::max(elements, double(shape.numel()));
      }
      Tensor y;
      ASSERT_NO_THROW(y = run(e, x)) << item.value;
      ASSERT_EQ(y.shape(), file.shape(item.key)) << item.value;
      // Whole numbers stay whole; a mean rounds, and a sum of products of up to 13 may grow far beyond its result.
      const bool moved = e.operation == "rearrange" || e.operation == "pack" || e.operation == "repeat" || e.operation == "reduce max" ||
                         e.operation == "reduce min";
      const double tolerance = moved ? 0 : 4 * epsilon(dtype) * std::sqrt(elements) * most;
      const std::vector<double> got = y.to_vector();
      for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], tolerance) << item.value << " [" << i << "] " << name_of(dtype);
      ++compared;
    }
  }
  EXPECT_EQ(compared, 2 * int(list.entries().size()));
  EXPECT_GE(compared, 2 * 140);
}
}  // namespace
}  // namespace reckon
