// cli/op_cases: sorting, selection and running sums along an axis.
#include <algorithm>
#include <numeric>

#include "reckon/cli/op_cases.h"
#include "reckon/ops/scan.h"
#include "reckon/ops/sorting.h"

namespace reckon {
namespace {
using Hold = CaseInput::Hold;

struct Lines {
  Arrangement x;
  int axis;
};
// Arrangements with an axis, each with one that is not empty.
std::vector<Lines> lines() {
  std::vector<Lines> sets;
  int i = 0;
  for (const Arrangement& a : arrangements()) {
    if (a.shape.rank() == 0) continue;
    int axis = i++ % a.shape.rank();
    while (a.shape[axis] == 0 && a.shape.rank() > 1) axis = (axis + 1) % a.shape.rank();
    if (a.shape[axis] == 0) continue;
    sets.push_back({a, i % 2 ? axis : axis - a.shape.rank()});
  }
  return sets;
}

// Calls line(values, place) for each line along the axis; place has 0 there.
template <class Line>
void each_line(const Array& x, int axis, Line line) {
  for_each_place(x.shape.with(axis, 1), [&](const Place& p) {
    std::vector<Real> values;
    for (int64_t i = 0; i < x.shape[axis]; ++i) {
      Place at = p;
      at[axis] = i;
      values.push_back(x[x.index(at)]);
    }
    line(values, p);
  });
}
// Values and positions of the first k of each line.
Arrays first_of(const Array& x, int axis, int64_t k, bool descending) {
  Array values(x.shape.with(axis, k)), positions(values.shape);
  each_line(x, axis, [&](const std::vector<Real>& line, Place p) {
    std::vector<int64_t> order(line.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      const double u = line[size_t(a)].value, v = line[size_t(b)].value;
      return descending ? u > v : u < v;
    });
    for (int64_t i = 0; i < k; ++i) {
      p[axis] = i;
      values[values.index(p)] = line[size_t(order[size_t(i)])];
      positions[values.index(p)] = Real(double(order[size_t(i)]));
    }
  });
  return {values, positions};
}

void add_sort(CaseList& list) {
  for (const bool positions_only : {false, true}) {
    list.op(positions_only ? "argsort" : "sort", !positions_only);
    for (const Lines& s : lines())
      for (const bool descending : {false, true}) {
        const int axis = s.x.shape.resolve(s.axis);
        list.add(
            {CaseInput(s.x.shape, s.x.lay).held(Hold::distinct)},
            [=](const Tensors& x) {
              if (positions_only) return Tensors{argsort(x[0], s.axis, descending)};
              ValuesAndIndices y = sort(x[0], s.axis, descending);
              return Tensors{y.values, y.indices};
            },
            [=](const Arrays& x) {
              Arrays y = first_of(x[0], axis, x[0].shape[axis], descending);
              return positions_only ? Arrays{y[1]} : y;
            });
      }
    // Equal values keep their order; other types.
    for (const DType dtype : {DType::i32, DType::i64, DType::u8, DType::boolean})
      for (const bool descending : {false, true}) {
        std::vector<double> values{1, 0, 1, 1, 0, 0};
        if (dtype == DType::i32 || dtype == DType::i64) values[0] = -3, values[3] = 1000;
        list.add(
            {CaseInput::of({2, 3}, dtype, values)},
            [=](const Tensors& x) {
              if (positions_only) return Tensors{argsort(x[0], -1, descending)};
              ValuesAndIndices y = sort(x[0], -1, descending);
              return Tensors{y.values, y.indices};
            },
            [=](const Arrays& x) {
              Arrays y = first_of(x[0], 1, 3, descending);
              return positions_only ? Arrays{y[1]} : y;
            });
      }
  }
  list.op("top_k");
  int i = 0;
  for (const Lines& s : lines())
    for (const bool largest : {false, true}) {
      const int axis = s.x.shape.resolve(s.axis);
      const int64_t extent = s.x.shape[axis], k = std::clamp<int64_t>(i++ % 3 == 0 ? extent : i % 3 == 1 ? 2 : extent / 2, 1, extent);
      list.add(
          {CaseInput(s.x.shape, s.x.lay).held(Hold::distinct)},
          [=](const Tensors& x) {
            ValuesAndIndices y = top_k(x[0], k, s.axis, largest);
            return Tensors{y.values, y.indices};
          },
          [=](const Arrays& x) { return first_of(x[0], axis, k, largest); });
    }
  for (const bool largest : {true, false}) {
    list.op(largest ? "argmax" : "argmin", false);
    for (const Lines& s : lines())
      for (const bool keepdim : {false, true}) {
        const int axis = s.x.shape.resolve(s.axis);
        list.add(  // few different values: the first of equal ones counts
            {CaseInput(s.x.shape, s.x.lay).held(Hold::grid, 0)},
            [=](const Tensors& x) { return largest ? argmax(x[0], s.axis, keepdim) : argmin(x[0], s.axis, keepdim); },
            [=](const Arrays& x) {
              Array y = first_of(x[0], axis, 1, largest)[1];
              if (!keepdim) y.shape = y.shape.without(axis);
              return y;
            });
      }
  }
}

void add_cumsum(CaseList& list) {
  list.op("cumsum");
  const auto reference = [](const Array& x, int axis, bool reverse, bool exclusive) {
    Array y(x.shape);
    each_line(x, axis, [&](const std::vector<Real>& line, Place p) {
      const int64_t n = int64_t(line.size());
      Real sum;
      for (int64_t i = 0; i < n; ++i) {
        p[axis] = reverse ? n - 1 - i : i;
        const Real before = sum;
        sum += line[size_t(p[axis])];
        y[y.index(p)] = exclusive ? before : sum;
      }
    });
    return y;
  };
  int i = 0;
  for (const Lines& s : lines()) {
    const int axis = s.x.shape.resolve(s.axis);
    for (int k = 0; k < 2; ++k) {
      const bool reverse = i % 2, exclusive = i / 2 % 2;
      ++i;
      list.add(
          {CaseInput(s.x.shape, s.x.lay)}, [=](const Tensors& x) { return cumsum(x[0], s.axis, reverse, exclusive); },
          [=](const Arrays& x) { return reference(x[0], axis, reverse, exclusive); });
    }
  }
  for (const DType dtype : {DType::i32, DType::i64, DType::u8, DType::boolean})
    for (const int axis : {0, 1})
      list.add(
          {CaseInput::of({2, 3}, dtype,
                         dtype == DType::boolean ? std::vector<double>{1, 0, 1, 1, 1, 0} : std::vector<double>{1, 2, 3, 200, 250, 0})},
          [=](const Tensors& x) { return cumsum(x[0], axis); }, [=](const Arrays& x) { return reference(x[0], axis, false, false); });
}

void add_cumprod(CaseList& list) {
  list.op("cumprod");
  const auto reference = [](const Array& x, int axis) {
    Array y(x.shape);
    each_line(x, axis, [&](const std::vector<Real>& line, Place p) {
      Real product = Real(1);
      for (p[axis] = 0; p[axis] < int64_t(line.size()); ++p[axis]) y[y.index(p)] = product = product * line[size_t(p[axis])];
    });
    return y;
  };
  // Near 1, so that thousands of factors neither vanish nor overflow; with more, differences are no derivatives.
  for (const Lines& s : lines()) {
    if (s.x.shape[s.axis] > 3000) continue;
    list.add(
        {CaseInput(s.x.shape, s.x.lay).range(0.99, 1.01)}, [=](const Tensors& x) { return cumprod(x[0], s.axis); },
        [=](const Arrays& x) { return reference(x[0], x[0].shape.resolve(s.axis)); });
  }
  list.add(
      {CaseInput::of({6}, {2, 0.5, 0, 3, 0, 1})}, [](const Tensors& x) { return cumprod(x[0], 0); },
      [=](const Arrays& x) { return reference(x[0], 0); });
  list.add(
      {CaseInput::of({2, 3}, DType::i64, {2, -3, 4, 5, 0, 7})}, [](const Tensors& x) { return cumprod(x[0], 1); },
      [=](const Arrays& x) { return reference(x[0], 1); });
}
}  // namespace

void add_order_cases(CaseList& list) {
  add_sort(list);
  add_cumsum(list);
  add_cumprod(list);
}
}  // namespace reckon
