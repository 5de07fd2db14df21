// cli/op_cases: reductions over axes, softmax over the last.
#include "reckon/cli/op_cases_axes.h"

namespace reckon {
namespace {
uint32_t mask_of(const Shape& shape, const std::vector<int>& axes) {
  uint32_t mask = axes.empty() ? (1u << shape.rank()) - 1 : 0;
  for (const int axis : axes) mask |= 1u << shape.resolve(axis);
  return mask;
}
// Folds all elements that differ only in reduced axes.
template <class Fold>
Array fold(const Array& x, const ArrangedReduction& r, const Real& start, Fold step) {
  const uint32_t mask = mask_of(x.shape, r.axes);
  Shape kept = x.shape;
  for (int axis = 0; axis < x.shape.rank(); ++axis)
    if (mask >> axis & 1u) kept = kept.with(axis, 1);
  Array y(kept);
  std::fill(y.values.begin(), y.values.end(), start);
  for_each_place(x.shape, [&](const Place& p) {
    Place to = p;
    for (int axis = 0; axis < x.shape.rank(); ++axis)
      if (mask >> axis & 1u) to[axis] = 0;
    step(y[y.index(to)], x[x.index(p)]);
  });
  for (int axis = x.shape.rank() - 1; axis >= 0 && !r.keepdim; --axis)
    if (mask >> axis & 1u) y.shape = y.shape.without(axis);
  return y;
}
Array total(const Array& x, const ArrangedReduction& r) {
  return fold(x, r, Real(0), [](Real& sum, const Real& value) { sum += value; });
}

void add_reductions(CaseList& list) {
  list.op("sum");
  for (const ArrangedReduction& r : arranged_reductions())
    list.add(
        {CaseInput(r.x.shape, r.x.lay)},
        [=](const Tensors& x) { return with_axes(r.axes, [&](std::initializer_list<int> axes) { return sum(x[0], axes, r.keepdim); }); },
        [=](const Arrays& x) { return total(x[0], r); });
  list.add(
      {CaseInput(Shape{3, 0, 2})}, [](const Tensors& x) { return sum(x[0], {1}); },
      [](const Arrays&) {
        return Array(Shape{3, 2});
      });
  list.op("mean");
  for (const ArrangedReduction& r : arranged_reductions())
    list.add(
        {CaseInput(r.x.shape, r.x.lay)},
        [=](const Tensors& x) { return with_axes(r.axes, [&](std::initializer_list<int> axes) { return mean(x[0], axes, r.keepdim); }); },
        [=](const Arrays& x) {
          const Array sum = total(x[0], r);
          return map(sum, [&](const Real& s) { return store(s) * Real(double(sum.size()) / double(x[0].size())); });
        });
  list.op("max");
  for (const ArrangedReduction& r : arranged_reductions())
    list.add(
        {CaseInput(r.x.shape, r.x.lay).held(CaseInput::Hold::distinct)},
        [=](const Tensors& x) { return with_axes(r.axes, [&](std::initializer_list<int> axes) { return max(x[0], axes, r.keepdim); }); },
        [=](const Arrays& x) {
          return fold(x[0], r, Real(-__builtin_inf()), [](Real& most, const Real& value) {
            if (value.value > most.value) most = value;
          });
        });
}

void add_sum_to(CaseList& list) {
  list.op("sum_to");
  for (const ArrangedPair& pair : arranged_pairs()) {
    const Shape big = broadcast(pair.a.shape, pair.b.shape);
    for (const Shape& small : {pair.a.shape, pair.b.shape}) {
      list.add(
          {CaseInput(big, pair.a.lay)}, [=](const Tensors& x) { return sum_to(x[0], small); },
          [=](const Arrays& x) {
            Array y(small);
            for_each_place(big, [&](const Place& p) { const_cast<Real&>(y.seen_from(p, big)) += x[0][x[0].index(p)]; });
            return y;
          });
    }
  }
}

// One row in, one row out.
template <class Row>
Array by_rows(const Array& x, Row row) {
  Array y(x.shape);
  const int64_t cols = x.shape.last();
  for (int64_t r = 0; r < x.shape.rows(); ++r) row(&x.values[size_t(r * cols)], &y.values[size_t(r * cols)], cols);
  return y;
}
Real exp_sum(const Real* x, int64_t cols, double& most) {
  most = x[0].value;
  for (int64_t i = 1; i < cols; ++i) most = x[i].value > most ? x[i].value : most;
  Real sum;
  for (int64_t i = 0; i < cols; ++i) sum += exp(x[i] - Real(most));
  return sum;
}

void add_softmax(CaseList& list) {
  list.op("softmax");
  for (const Arrangement& a : row_arrangements())
    list.add(
        {CaseInput(a.shape, a.lay).range(-4, 4)}, [](const Tensors& x) { return softmax(x[0]); },
        [](const Arrays& x) {
          return by_rows(x[0], [](const Real* in, Real* out, int64_t cols) {
            double most;
            const Real sum = exp_sum(in, cols, most);
            for (int64_t i = 0; i < cols; ++i) out[i] = exp(in[i] - Real(most)) / sum;
          });
        });
  list.op("log_softmax");
  for (const Arrangement& a : row_arrangements())
    list.add(
        {CaseInput(a.shape, a.lay).range(-4, 4)}, [](const Tensors& x) { return log_softmax(x[0]); },
        [](const Arrays& x) {
          return by_rows(x[0], [](const Real* in, Real* out, int64_t cols) {
            double most;
            const Real sum = exp_sum(in, cols, most);
            for (int64_t i = 0; i < cols; ++i) out[i] = in[i] - Real(most) - log(sum);
          });
        });
}
}  // namespace

void add_reduce_cases(CaseList& list) {
  add_reductions(list);
  add_sum_to(list);
  add_softmax(list);
}
}  // namespace reckon
