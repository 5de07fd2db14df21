// cli/op_cases_real: what references compute with: doubles that carry a bound of the error that a kernel may make, and arrays of them.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "reckon/tensor/tensor.h"

namespace reckon {

/// A value and first-order bounds of the rounding error of a kernel that computes it in any order. Every operation below adds what
/// rounding its result adds, so the tolerance of a test is computed along with the value it judges.
struct Real {
  double value = 0;
  double rounded = 0;  // in epsilons of the type that the kernel computes with
  double stored = 0;   // in half epsilons of the tensors' own type: intermediate results that are kept as tensors, see store()
  double slack = 0;    // absolute: for what is only known to lie in a range, see within()

  Real() = default;
  Real(double v) : value(v) {}  // exact
  Real(double v, double r, double s, double a) : value(v), rounded(r), stored(s), slack(a) {}
};

inline double magnitude(double x) { return x < 0 ? -x : x; }
/// f(x) with |f'(x)| = slope, computed to `ulps` units in the last place.
inline Real through(const Real& x, double f, double slope, double ulps) {
  const double s = magnitude(slope);
  return {f, s * x.rounded + ulps * magnitude(f), s * x.stored, s * x.slack};
}
inline Real operator-(const Real& x) { return {-x.value, x.rounded, x.stored, x.slack}; }
inline Real operator+(const Real& a, const Real& b) {
  const double v = a.value + b.value;
  return {v, a.rounded + b.rounded + magnitude(v), a.stored + b.stored, a.slack + b.slack};
}
inline Real operator-(const Real& a, const Real& b) { return a + -b; }
inline Real operator*(const Real& a, const Real& b) {
  const double v = a.value * b.value, x = magnitude(a.value), y = magnitude(b.value);
  return {v, x * b.rounded + y * a.rounded + magnitude(v), x * b.stored + y * a.stored, x * b.slack + y * a.slack};
}
inline Real operator/(const Real& a, const Real& b) {
  const double v = a.value / b.value, y = magnitude(b.value), q = magnitude(v);
  return {v, (a.rounded + q * b.rounded) / y + q, (a.stored + q * b.stored) / y, (a.slack + q * b.slack) / y};
}
/// One term of a sum. Charged with both magnitudes, because a kernel may add the terms in another order.
inline Real& operator+=(Real& sum, const Real& term) {
  const double before = magnitude(sum.value) + magnitude(term.value);
  return sum = {sum.value + term.value, sum.rounded + term.rounded + before, sum.stored + term.stored, sum.slack + term.slack};
}
/// The value after it was kept in a tensor between two operations, or between two parts of a kernel that works in the tensor's type.
inline Real store(const Real& x) { return {x.value, x.rounded, x.stored + magnitude(x.value), x.slack}; }
/// Anything in [low, high].
inline Real within(double low, double high) { return {(low + high) / 2, 0, 0, (high - low) / 2}; }

Real exp(const Real& x);
Real log(const Real& x);
Real sqrt(const Real& x);
Real tanh(const Real& x);
Real pow(const Real& a, const Real& b);
/// 1 / (1 + e^-x).
Real sigmoid(const Real& x);
/// sin and cos of an angle that is itself computed.
Real sin(const Real& x);
Real cos(const Real& x);

/// A place in an array: one number an axis, innermost last.
struct Place {
  int64_t at[kMaxRank] = {};
  int64_t& operator[](int axis) { return at[axis]; }
  int64_t operator[](int axis) const { return at[axis]; }
};

/// Row-major values, as a reference sees a tensor.
struct Array {
  Shape shape;
  std::vector<Real> values;

  Array() = default;
  explicit Array(const Shape& s) : shape(s), values(size_t(s.numel())) {}
  explicit Array(const Tensor& tensor);
  Array(const Shape& s, std::vector<Real> v) : shape(s), values(std::move(v)) {}

  int64_t size() const { return shape.numel(); }
  Real& operator[](int64_t i) { return values[size_t(i)]; }
  const Real& operator[](int64_t i) const { return values[size_t(i)]; }
  /// Position of a place in values.
  int64_t index(const Place& place) const;
  /// The element that a place of a larger shape sees when this array is broadcast to it.
  const Real& seen_from(const Place& place, const Shape& larger) const;
};
using Arrays = std::vector<Array>;

/// Calls body(place) for every place of a shape in row-major order.
template <class Body>
void for_each_place(const Shape& shape, Body body) {
  Place place;
  for (int64_t n = 0; n < shape.numel(); ++n) {
    body(place);
    for (int axis = shape.rank() - 1; axis >= 0 && ++place[axis] == shape[axis]; --axis) place[axis] = 0;
  }
}

/// f of every element.
template <class F>
Array map(const Array& x, F f) {
  Array y(x.shape);
  for (int64_t i = 0; i < x.size(); ++i) y[i] = f(x[i]);
  return y;
}
/// f of every pair, broadcast.
template <class F>
Array map(const Array& a, const Array& b, F f) {
  Array y(broadcast(a.shape, b.shape));
  for_each_place(y.shape, [&](const Place& p) { y[y.index(p)] = f(a.seen_from(p, y.shape), b.seen_from(p, y.shape)); });
  return y;
}
/// Element `from(place)` of x at every place of a shape.
template <class F>
Array gather(const Array& x, const Shape& shape, F from) {
  Array y(shape);
  for_each_place(shape, [&](const Place& p) { y[y.index(p)] = x[x.index(from(p))]; });
  return y;
}
}  // namespace reckon
