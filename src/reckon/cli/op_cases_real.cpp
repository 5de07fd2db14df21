#include "reckon/cli/op_cases_real.h"

#include <cmath>

namespace reckon {
namespace {
// What a vector kernel for one of these may be off by; the math library's are better than that.
constexpr double kUlps = 4;
}  // namespace

Real exp(const Real& x) {
  const double v = std::exp(x.value);
  return through(x, v, v, kUlps);
}
Real log(const Real& x) { return through(x, std::log(x.value), 1 / x.value, kUlps); }
Real sqrt(const Real& x) {
  const double v = std::sqrt(x.value);
  return through(x, v, v > 0 ? 0.5 / v : 0, 1);
}
Real tanh(const Real& x) {
  const double v = std::tanh(x.value);
  return through(x, v, 1 - v * v, kUlps);
}
Real sigmoid(const Real& x) {
  const double v = 1 / (1 + std::exp(-x.value));
  return through(x, v, v * (1 - v), kUlps);
}
Real sin(const Real& x) { return through(x, std::sin(x.value), std::cos(x.value), kUlps); }
Real cos(const Real& x) { return through(x, std::cos(x.value), std::sin(x.value), kUlps); }
Real pow(const Real& a, const Real& b) {
  const double v = std::pow(a.value, b.value), by_a = b.value * std::pow(a.value, b.value - 1), by_b = v * std::log(a.value);
  // Kernels go through exp(b log a): an error of log a counts b times.
  const Real from_a = through(a, v, by_a, kUlps * (1 + magnitude(b.value * std::log(a.value)))), from_b = through(b, v, by_b, 0);
  return {v, from_a.rounded + from_b.rounded, from_a.stored + from_b.stored, from_a.slack + from_b.slack};
}

Array::Array(const Tensor& tensor) : shape(tensor.shape()) {
  for (const double v : tensor.to_vector()) values.push_back(v);
}

int64_t Array::index(const Place& place) const {
  int64_t at = 0;
  for (int axis = 0; axis < shape.rank(); ++axis) at = at * shape[axis] + place[axis];
  return at;
}

const Real& Array::seen_from(const Place& place, const Shape& larger) const {
  const int lead = larger.rank() - shape.rank();
  int64_t at = 0;
  for (int axis = 0; axis < shape.rank(); ++axis) at = at * shape[axis] + (shape[axis] == 1 ? 0 : place[axis + lead]);
  return values[size_t(at)];
}
}  // namespace reckon
