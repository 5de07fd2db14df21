// cli/op_cases: the two passes of LAMB, whose norms are of whole parameter tensors.
#include <algorithm>
#include <cmath>

#include "reckon/cli/op_cases_optimizers.h"
#include "reckon/ops/rows.h"
#include "reckon/ops/state_blocks.h"

namespace reckon {
namespace {
// Parameter tensors one behind the other, from some element of their bucket on.
struct Places {
  std::vector<double> starts;
  int64_t n() const { return int64_t(starts.back() - starts.front()); }
  int64_t parameters() const { return int64_t(starts.size()) - 1; }
};
std::vector<Places> arrangements_of_places() {
  std::vector<Places> all;
  // Elements in units of kPlaceAlignment; 512 of these are a slice of the CPU.
  const std::vector<std::vector<int>> sizes = {{},        {1},          {3},   {64},          {1, 1},      {5, 2, 9},
                                               {0, 4, 0}, {65, 1, 130}, {512}, {513, 511, 1}, {7, 1030, 2}};
  for (const std::vector<int>& parameters : sizes) {
    Places p{{double(kPlaceAlignment * int64_t(3 * all.size()))}};
    for (const int size : parameters) p.starts.push_back(p.starts.back() + double(size * kPlaceAlignment));
    all.push_back(p);
  }
  return all;
}

struct LambCase {
  Places places;
  std::vector<double> s;
  OptimizerParams params;
  bool ok;
};
Real direction(const LambCase& c, const Real& p, const Real& m, const Real& v) {
  const Real decay(c.params.weight_decay, c.params.weight_decay, 0, 0);
  return (m / Real(c.s[kBiasFactor1])) / (sqrt(v / Real(c.s[kBiasFactor2])) + Real(c.s[kEpsilon])) + decay * p;
}
// max(low, min(high, x)), exact where x is cut.
Real bounded(const Real& x, double low, double high) { return x.value < low ? Real(low) : x.value > high ? Real(high) : x; }

Array trust_ratios(const LambCase& c, const Array& p, const Array& m, const Array& v) {
  Array ratios(Shape{c.places.parameters()});
  for (int64_t k = 0; k < ratios.size(); ++k) {
    Real p_squares, u_squares;
    const int64_t begin = int64_t(c.places.starts[size_t(k)] - c.places.starts[0]),
                  end = int64_t(c.places.starts[size_t(k) + 1] - c.places.starts[0]);
    for (int64_t i = begin; i < end; ++i) {
      const Real u = direction(c, p[i], m[i], v[i]);
      p_squares += p[i] * p[i];
      u_squares += u * u;
    }
    const Real phi = bounded(sqrt(p_squares), c.params.phi_low, c.params.phi_high), norm = sqrt(u_squares);
    ratios[k] = c.ok && p_squares.value > 0 && norm.value > 0 ? phi / norm : Real(1);
  }
  return ratios;
}

Tensor copy_of(const Tensor& x) { return affine(x, 1, 0); }

void add_moments(CaseList& list, const LambCase& c, bool zero_weights) {
  const Shape shape{c.places.n()};
  const CaseInput p = zero_weights ? CaseInput(shape).range(0, 0) : CaseInput(shape).range(-2, 2);
  const CaseInputs inputs{CaseInput::of({kStepScalars}, DType::f64, c.s),
                          p,
                          CaseInput(shape).range(-3, 3),
                          CaseInput(shape).range(-1, 1),
                          CaseInput(shape).range(0.1, 1),
                          CaseInput::of({c.places.parameters() + 1}, DType::i64, c.places.starts)};
  list.add(
      inputs,
      [=](Device& device, DType dtype, const Tensors& x) {
        const CaseWeights weights(device, x[1]);
        const DType wide = statistics_dtype(dtype);
        Tensors args{x[0], weights.working(), cast(x[2], wide), cast(x[3], wide), cast(x[4], wide), x[5]}, results;
        if (dtype == DType::bf16)  // without a residual plane, before the states change
          results.push_back(call(op::lamb_moments, {x[0], x[1], args[2], copy_of(args[3]), copy_of(args[4]), x[5]}, c.params)[0]);
        weights.append_to(args);
        results.push_back(call(op::lamb_moments, args, c.params)[0]);
        results.push_back(args[3]);
        results.push_back(args[4]);
        return results;
      },
      [=](DType dtype, const Arrays& x) {
        Array m = x[3], v = x[4];
        for (int64_t i = 0; i < m.size() && c.ok; ++i) {
          const Real g = x[2][i] * Real(c.s[kClip]);
          m[i] = Real(c.s[kBeta1]) * m[i] + Real(1 - c.s[kBeta1]) * g;
          v[i] = Real(c.s[kBeta2]) * v[i] + Real(1 - c.s[kBeta2]) * g * g;
        }
        const Array ratios = trust_ratios(c, x[1], m, v);
        Arrays results{ratios, m, v};
        if (dtype == DType::bf16) results.insert(results.begin(), ratios);
        return results;
      });
}

void add_weights(CaseList& list, const LambCase& c) {
  const Shape shape{c.places.n()};
  std::vector<double> ratios;
  for (int64_t k = 0; k < c.places.parameters(); ++k) ratios.push_back(0.25 * double(k % 5 + 1));
  const CaseInputs inputs{CaseInput::of({kStepScalars}, DType::f64, c.s),
                          CaseInput(shape).range(-2, 2),
                          CaseInput(shape).range(-1, 1),
                          CaseInput(shape).range(0.1, 1),
                          CaseInput::of({c.places.parameters() + 1}, DType::i64, c.places.starts),
                          CaseInput::of({c.places.parameters()}, DType::f64, ratios)};
  list.add(
      inputs,
      [=](Device& device, DType dtype, const Tensors& x) {
        const CaseWeights weights(device, x[1]);
        const DType wide = statistics_dtype(dtype);
        Tensors args{x[0], weights.working(), cast(x[2], wide), cast(x[3], wide), x[4], x[5]};
        weights.append_to(args);
        call(op::lamb_step, args, c.params);
        Tensors after = weights.after();
        if (dtype != DType::bf16) return after;
        call(op::lamb_step, {x[0], x[1], args[2], args[3], x[4], x[5]}, c.params);
        after.push_back(x[1]);
        return after;
      },
      [=](DType dtype, const Arrays& x) {
        Array weights = x[1];
        for (int64_t k = 0; k < c.places.parameters() && c.ok; ++k) {
          const Real rate = Real(c.s[kLearningRate] * c.params.lr_scale) * x[5][k];
          for (int64_t i = int64_t(c.places.starts[size_t(k)] - c.places.starts[0]);
               i < int64_t(c.places.starts[size_t(k) + 1] - c.places.starts[0]); ++i)
            weights[i] = weights[i] - rate * direction(c, x[1][i], x[2][i], x[3][i]);
        }
        Arrays after;
        append_weights(after, weights, dtype, c.ok);
        return after;
      });
}
}  // namespace

void add_lamb_cases(CaseList& list) {
  std::vector<LambCase> cases;
  for (const Places& places : arrangements_of_places())
    for (int i = 0; i < 5; ++i) {
      const int at = int(cases.size());
      OptimizerParams params{};
      params.weight_decay = i % 2 ? 0.1 : 0.0;
      params.first = int64_t(places.starts[0]);
      params.bucket = 1;
      params.lr_scale = i == 3 ? 0.5 : 1;
      if (i == 2) params.phi_low = 2, params.phi_high = 3;
      cases.push_back({places, step_scalars(0.05, at % 2 ? 0.25 : 1, at % 7 != 6), params, at % 7 != 6});
    }
  list.op("lamb_moments", false);
  for (size_t i = 0; i < cases.size(); ++i) add_moments(list, cases[i], i % 5 == 4);
  list.op("lamb_step", false);
  for (const LambCase& c : cases) add_weights(list, c);
}
}  // namespace reckon
