// cli/op_cases: tensors from nothing, from the host and from keyed random numbers.
#include <cmath>
#include <numbers>

#include "reckon/cli/op_cases.h"
#include "reckon/ops/assign.h"

namespace reckon {
namespace {
using Values = std::vector<double>;
constexpr uint32_t kOnce = 1u << int(DType::f64);  // cases that choose their own types need one run

void add_constant(CaseList& list, const char* name, double value, Tensor (*run)(Device&, const TensorSpec&)) {
  list.op(name, false);
  for (const Arrangement& a : arrangements())
    list.add(
        {},
        [=, shape = a.shape](Device& device, DType dtype, const Tensors&) {
          return run(device, {shape, dtype});
        },
        [=, shape = a.shape](const Arrays&) { return map(Array(shape), [=](const Real&) { return Real(value); }); });
  for (const DType dtype : {DType::i32, DType::i64, DType::u8, DType::boolean})
    list.add(
        {},
        [=](Device& device, DType, const Tensors&) {
          return run(device, {{5}, dtype});
        },
        [=](const Arrays&) { return map(Array(Shape{5}), [=](const Real&) { return Real(value); }); });
}

void add_constants(CaseList& list) {
  add_constant(list, "zeros", 0, zeros);
  add_constant(list, "ones", 1, ones);
  list.op("full", false);
  int at = 0;
  for (const Arrangement& a : arrangements()) {
    const double value = std::array{-2.5, 1e-3, 3.0, 0.1}[size_t(at++ % 4)];
    list.add(
        {},
        [=, shape = a.shape](Device& device, DType dtype, const Tensors&) {
          return full(device, {shape, dtype}, value);
        },
        [=, shape = a.shape](const Arrays&) { return map(Array(shape), [=](const Real&) { return Real(value); }); });
  }
  // An empty tensor holds anything; what can be said of it is that it takes what is written.
  list.op("empty", false);
  for (const Arrangement& a : arrangements())
    list.add(
        {CaseInput(a.shape, a.lay)},
        [](Device& device, DType, const Tensors& x) {
          const Tensor y = empty(device, x[0].spec());
          call(op::accumulate, tensors(y, x[0]), AccumulateParams{false});
          return y;
        },
        [](const Arrays& x) { return x[0]; });
  list.op("accumulate", false);
  for (const Arrangement& a : arrangements())
    list.add(
        {CaseInput(a.shape), CaseInput(a.shape, a.lay)},
        [](const Tensors& x) {
          call(op::accumulate, tensors(x[0], x[1]), AccumulateParams{true});
          return x[0];
        },
        [](const Arrays& x) { return map(x[0], x[1], [](const Real& a, const Real& b) { return a + b; }); });
}

// Into views of any layout but expanded ones, which are refused.
void add_assignments(CaseList& list) {
  const auto place_of = [](const Shape& shape, Lay lay) { return CaseInput(shape, lay == Lay::expanded ? Lay::turned : lay); };
  const auto copied = [](const Tensors& x) {
    copy_(x[0], x[1]);
    return x[0];
  };
  const auto second = [](const Arrays& x) { return map(Array(x[0].shape), x[1], [](const Real&, const Real& b) { return b; }); };
  list.op("copy", false);
  for (const Arrangement& a : arrangements()) {
    list.add({place_of(a.shape, a.lay), CaseInput(a.shape)}, copied, second);
    list.add({CaseInput(a.shape), CaseInput(a.shape, a.lay)}, copied, second);
  }
  for (const ArrangedPair& p : arranged_pairs()) {
    const Shape whole = broadcast(p.a.shape, p.b.shape);
    list.add({place_of(whole, p.a.lay), CaseInput(p.b.shape, p.b.lay)}, copied, second);
  }
  for (int from = 0; from < kDTypes; ++from)
    for (int to = 0; to < kDTypes; ++to) {
      const bool yes_or_no = DType(from) == DType::boolean || DType(to) == DType::boolean;
      const double most = yes_or_no ? 1 : 3;  // the narrowest type holds it
      CaseInput place = CaseInput::of({2, 3}, DType(to), Values(6)), source = CaseInput::of({2, 3}, DType(from), {0, 1, most, 1, 0, most});
      place.lay = from % 2 ? Lay::plain : Lay::transposed, source.lay = to % 2 ? Lay::transposed : Lay::plain;
      list.add({place, source}, copied, second);
    }
  list.op("fill", false);
  for (const Arrangement& a : arrangements())
    for (const double value : {-1.5, 3.0})
      list.add(
          {place_of(a.shape, a.lay)},
          [=](const Tensors& x) {
            fill_(x[0], value);
            return x[0];
          },
          [=](const Arrays& x) { return map(Array(x[0].shape), [=](const Real&) { return Real(value); }); });
}

void add_ranges(CaseList& list) {
  list.op("arange", false, kOnce);
  const double starts[] = {0, -3, 10}, steps[] = {1, 2, -1, 0.5};
  int at = 0;
  for (const int64_t count : {0, 1, 2, 5, 17, 64, 129, 2049})
    for (const DType dtype : {DType::i64, DType::i32, DType::f32, DType::f64}) {
      const double start = starts[at % 3], step = is_float(dtype) ? steps[at % 4] : steps[at % 3];
      ++at;
      list.add(
          {}, [=](Device& device, DType, const Tensors&) { return arange(device, count, dtype, start, step); },
          [=](const Arrays&) {
            Array y(Shape{count});
            for (int64_t i = 0; i < count; ++i) y[i] = start + double(i) * step;
            return y;
          });
    }
  list.op("causal_mask", false, kOnce);
  for (const int64_t queries : {0, 1, 2, 5, 33, 130})
    for (const int64_t more : {0, 1, 7, 64})
      for (const int64_t window : {0, 1, 6})
        list.add(
            {}, [=](Device& device, DType, const Tensors&) { return causal_mask(device, queries, queries + more, window); },
            [=](const Arrays&) {
              Array y(Shape{queries, queries + more});
              for_each_place(y.shape,
                             [&](const Place& p) { y[y.index(p)] = p[1] <= p[0] + more && (window == 0 || p[1] + window > p[0] + more); });
              return y;
            });
  list.op("from_values", false, kOnce);
  for (const Arrangement& a : arrangements())
    list.add(
        {},
        [shape = a.shape](Device& device, DType, const Tensors&) {
          std::vector<double> host;
          for (int64_t i = 0; i < shape.numel(); ++i) host.push_back(double(i) / 3);
          return from_values<double>(device, shape, host);
        },
        [shape = a.shape](const Arrays&) {
          Array y(shape);
          for (int64_t i = 0; i < y.size(); ++i) y[i] = double(i) / 3;
          return y;
        });
}

// A random fill with the mean and the mean square that it should have; 6 standard errors are exceeded by chance once in 10^9.
struct Distribution {
  double low, high, mean, square, mean_error, square_error;  // errors of one draw
};
template <class Fill>
void add_random(CaseList& list, const Shape& shape, const Distribution& d, Fill fill) {
  const double draws = double(shape.numel());
  const auto near = [=](double value, double error) {
    return within(value - 6 * error / std::sqrt(draws), value + 6 * error / std::sqrt(draws));
  };
  list.add(
      {},
      [=](Device& device, DType dtype, const Tensors&) {
        const Tensor x = empty(device, {shape, dtype});
        fill(x);
        if (shape.numel() == 0) return Tensors{x};
        const Tensor wide = cast(x, DType::f64);
        return Tensors{x, mean(wide), mean(square(wide))};
      },
      [=](const Arrays&) {
        const Array x = map(Array(shape), [=](const Real&) { return within(d.low, d.high); });
        if (shape.numel() == 0) return Arrays{x};
        return Arrays{x, Array(Shape{}, {store(near(d.mean, d.mean_error))}), Array(Shape{}, {store(near(d.square, d.square_error))})};
      });
}

void add_random_fills(CaseList& list) {
  const Shape shapes[] = {{0}, {3, 0}, {1}, {7}, {5, 3}, {16}, {63}, {1025}, {33, 129}, {16391}};
  list.op("fill_uniform", false);
  uint64_t key = 1;
  for (const Shape& shape : shapes)
    for (const auto& [low, high] : {std::pair{0.0, 1.0}, {-2.0, 3.0}}) {
      const double mean = (low + high) / 2, variance = (high - low) * (high - low) / 12, most = std::max(-low, high);
      add_random(list, shape, {low, high, mean, mean * mean + variance, std::sqrt(variance), most * most},
                 [=, key = key++, low = low, high = high](const Tensor& x) { fill_uniform_(x, key, low, high); });
    }
  list.op("fill_normal", false);
  for (const Shape& shape : shapes)
    for (const auto& [mean, std] : {std::pair{0.0, 1.0}, {1.0, 0.5}}) {
      const double square = mean * mean + std * std;
      add_random(list, shape, {mean - 7 * std, mean + 7 * std, mean, square, std, std::sqrt(2.0) * std * std + 2 * std::abs(mean) * std},
                 [=, key = key++, mean = mean, std = std](const Tensor& x) { fill_normal_(x, key, mean, std); });
    }
  list.op("fill_trunc_normal", false);
  for (const Shape& shape : shapes)
    for (const auto& [std, bound] : {std::pair{1.0, 2.0}, {0.02, 0.06}}) {
      // The variance of a normal cut at +-c standard deviations.
      const double c = bound / std, density = std::exp(-c * c / 2) / std::sqrt(2 * std::numbers::pi),
                   inside = std::erf(c / std::numbers::sqrt2);
      const double variance = std * std * (1 - 2 * c * density / inside);
      add_random(list, shape, {-bound, bound, 0, variance, std, std::sqrt(2.0) * std * std},
                 [=, key = key++, std = std, bound = bound](const Tensor& x) { fill_trunc_normal_(x, key, std, bound); });
    }
}
}  // namespace

void add_creation_cases(CaseList& list) {
  add_constants(list);
  add_assignments(list);
  add_ranges(list);
  add_random_fills(list);
}
}  // namespace reckon
