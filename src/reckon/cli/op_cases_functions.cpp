// cli/op_cases: the functions of ops/unary.h and the reductions of ops/reductions.h, their references by definition.
#include <cmath>
#include <numbers>

#include "reckon/cli/op_cases_axes.h"
#include "reckon/ops/reductions.h"
#include "reckon/ops/unary.h"

namespace reckon {
namespace {
using Hold = CaseInput::Hold;
constexpr double kUlps = 4;  // of a vector kernel; the math library's are better than that

template <class Holds, class Run, class Reference>
void add_function(CaseList& list, const char* name, Holds holds, Run run, Reference reference) {
  list.op(name);
  for (const Arrangement& a : arrangements())
    list.add(
        {holds(CaseInput(a.shape, a.lay))}, [run](const Tensors& x) { return run(x[0]); },
        [reference](const Arrays& x) { return map(x[0], reference); });
}
template <class Reference>
void add_pairs(CaseList& list, const char* name, const CaseInput& like, Tensor (*run)(const Tensor&, const Tensor&), Reference reference) {
  list.op(name, false);
  for (const ArrangedPair& pair : arranged_pairs()) {
    CaseInput a = like, b = like;
    a.shape = pair.a.shape, a.lay = pair.a.lay;
    b.shape = pair.b.shape, b.lay = pair.b.lay;
    list.add(
        {a, b}, [run](const Tensors& x) { return run(x[0], x[1]); }, [reference](const Arrays& x) { return map(x[0], x[1], reference); });
  }
}

Real erf_of(const Real& x) { return through(x, std::erf(x.value), 2 * std::numbers::inv_sqrtpi * std::exp(-x.value * x.value), kUlps); }
// log(1 + x) and e^x - 1, through a logarithm or exponential and a quotient.
Real log1p_of(const Real& x) { return through(x, std::log1p(x.value), 1 / (1 + x.value), 2 * kUlps); }
Real expm1_of(const Real& x) { return through(x, std::expm1(x.value), std::exp(x.value), 2 * kUlps); }
// A whole number has an error of its own only where it is rounded to the type.
Real whole(double v) { return Real(v); }
Real sign_of(double v) { return Real(v > 0 ? 1 : v < 0 ? -1 : 0); }
// The constants of a composition are rounded to the tensors' type.
Real constant(double v) { return Real(v, magnitude(v), 0, 0); }
Real minimum_of(const Real& x, double most) { return x.value > most ? Real(most) : x; }

void add_functions(CaseList& list) {
  const auto wide = [](const CaseInput& in) { return in.range(-4, 4); };
  const auto apart = [](const CaseInput& in) { return in.held(Hold::apart, -1, 3); };
  add_function(
      list, "sin", [](const CaseInput& in) { return in.range(-9, 9); }, [](const Tensor& x) { return sin(x); },
      [](const Real& x) { return sin(x); });
  add_function(
      list, "cos", [](const CaseInput& in) { return in.range(-9, 9); }, [](const Tensor& x) { return cos(x); },
      [](const Real& x) { return cos(x); });
  add_function(
      list, "erf", wide, [](const Tensor& x) { return erf(x); }, erf_of);
  // Between whole and half numbers, so that no difference steps over one.
  const auto between = [](const CaseInput& in) { return in.held(Hold::grid, 0.03); };
  const auto five = [](const Tensor& x) { return affine(x, 5); };
  const auto five_of = [](const Real& x) { return x.value * 5; };
  add_function(
      list, "floor", between, [=](const Tensor& x) { return floor(five(x)); },
      [=](const Real& x) { return whole(std::floor(five_of(x))); });
  add_function(
      list, "ceil", between, [=](const Tensor& x) { return ceil(five(x)); }, [=](const Real& x) { return whole(std::ceil(five_of(x))); });
  add_function(
      list, "round", between, [=](const Tensor& x) { return round(five(x)); },
      [=](const Real& x) { return whole(std::nearbyint(five_of(x))); });
  add_function(
      list, "sign", apart, [](const Tensor& x) { return sign(x); }, [](const Real& x) { return sign_of(x.value); });
  add_function(
      list, "log1p", [](const CaseInput& in) { return in.range(-0.7, 3); }, [](const Tensor& x) { return log1p(x); }, log1p_of);
  add_function(
      list, "expm1", wide, [](const Tensor& x) { return expm1(x); }, expm1_of);
  const auto softplus_of = [](const Real& x) { return through(x, std::log1p(std::exp(x.value)), 1 / (1 + std::exp(-x.value)), 4 * kUlps); };
  add_function(
      list, "softplus", wide, [](const Tensor& x) { return softplus(x); }, softplus_of);
  list.op("softplus_beta");
  for (const Arrangement& a : arrangements())
    list.add(
        {CaseInput(a.shape, a.lay).range(-4, 4)}, [](const Tensors& x) { return softplus(x[0], 0.5); },
        [=](const Arrays& x) { return map(x[0], [&](const Real& r) { return store(softplus_of(store(Real(0.5) * r))) * Real(2); }); });
  add_function(
      list, "gelu_erf", wide, [](const Tensor& x) { return gelu_erf(x); },
      [](const Real& x) { return Real(0.5) * x * (Real(1) + erf_of(x * constant(std::numbers::sqrt2 / 2))); });
  // The bounds are no values of the grid.
  add_function(
      list, "clamp", [](const CaseInput& in) { return in.held(Hold::grid, 0); }, [](const Tensor& x) { return clamp(x, -0.4375, 0.65625); },
      [](const Real& x) { return Real(std::min(std::max(x.value, -0.4375), 0.65625)); });
  for (const DType dtype : {DType::i32, DType::i64})
    list.add(
        {CaseInput::of({5}, dtype, {-7, -2, 0, 3, 1000})}, [](const Tensors& x) { return clamp(x[0], -2, 1e300); },
        [](const Arrays& x) { return map(x[0], [](const Real& r) { return Real(std::max(r.value, -2.0)); }); });
  add_function(
      list, "elu", apart, [](const Tensor& x) { return elu(x, 0.75); },
      [](const Real& x) { return x.value > 0 ? x : store(expm1_of(minimum_of(x, 0))) * Real(0.75); });
  add_function(
      list, "leaky_relu", apart, [](const Tensor& x) { return leaky_relu(x, 0.125); },
      [](const Real& x) { return x.value > 0 ? x : Real(0.125) * x; });
  add_function(
      list, "hard_sigmoid", [](const CaseInput& in) { return in.held(Hold::grid, 0.03); },
      [](const Tensor& x) { return hard_sigmoid(affine(x, 4), 0.3125, 0.5); },
      [](const Real& x) {
        const Real y = store(Real(0.3125) * store(Real(4) * x) + Real(0.5));
        return y.value < 0 ? Real(0, y.rounded, y.stored, 0) : y.value > 1 ? Real(1, y.rounded, y.stored, 0) : y;
      });
}

void add_logic(CaseList& list) {
  const CaseInput grid = CaseInput(Shape{}).held(Hold::grid, 0), mask = CaseInput::mask(Shape{});
  add_pairs(list, "not_equal", grid, not_equal, [](const Real& a, const Real& b) { return Real(a.value != b.value); });
  add_pairs(list, "greater", grid, greater, [](const Real& a, const Real& b) { return Real(a.value > b.value); });
  add_pairs(list, "greater_equal", grid, greater_equal, [](const Real& a, const Real& b) { return Real(a.value >= b.value); });
  add_pairs(list, "logical_and", mask, logical_and, [](const Real& a, const Real& b) { return Real(a.value != 0 && b.value != 0); });
  add_pairs(list, "logical_or", mask, logical_or, [](const Real& a, const Real& b) { return Real(a.value != 0 || b.value != 0); });
  add_pairs(list, "logical_xor", mask, logical_xor, [](const Real& a, const Real& b) { return Real((a.value != 0) != (b.value != 0)); });
  list.op("logical_not", false);
  for (const Arrangement& a : arrangements())
    list.add(
        {CaseInput::mask(a.shape, a.lay)}, [](const Tensors& x) { return logical_not(x[0]); },
        [](const Arrays& x) { return map(x[0], [](const Real& v) { return Real(v.value == 0); }); });
  for (const bool nan : {true, false}) {
    list.op(nan ? "isnan" : "isinf", false);
    for (const Arrangement& a : arrangements())
      list.add(
          {CaseInput(a.shape, a.lay).held(Hold::grid, 0)},
          [=](const Tensors& x) {
            const Tensor wild = div(x[0], sub(x[0], x[0]));  // +-infinity, NaN at 0
            return nan ? isnan(wild) : isinf(wild);
          },
          [=](const Arrays& x) { return map(x[0], [=](const Real& v) { return Real((v.value == 0) == nan); }); });
  }
}

// ---- reductions
using Axes = std::initializer_list<int>;
// Products and powers of more elements leave the range of 16 bits.
constexpr int64_t kMostReduced = 1000;
// of(the values that go into one element) for each element of the result.
template <class Of>
Array reduced(const Array& x, const ArrangedReduction& r, Of of) {
  uint32_t mask = r.axes.empty() ? (1u << x.shape.rank()) - 1 : 0;
  for (const int axis : r.axes) mask |= 1u << x.shape.resolve(axis);
  Shape kept = x.shape;
  for (int axis = 0; axis < x.shape.rank(); ++axis)
    if (mask >> axis & 1u) kept = kept.with(axis, 1);
  Array y(kept);
  std::vector<std::vector<Real>> values(static_cast<size_t>(kept.numel()));
  for_each_place(x.shape, [&](const Place& p) {
    Place to = p;
    for (int axis = 0; axis < x.shape.rank(); ++axis)
      if (mask >> axis & 1u) to[axis] = 0;
    values[size_t(y.index(to))].push_back(x[x.index(p)]);
  });
  for (int64_t i = 0; i < y.size(); ++i) y[i] = of(values[size_t(i)]);
  for (int axis = x.shape.rank() - 1; axis >= 0 && !r.keepdim; --axis)
    if (mask >> axis & 1u) y.shape = y.shape.without(axis);
  return y;
}
template <class Holds, class Run, class Of>
void add_reduction(CaseList& list, const char* name, bool differentiable, Holds holds, Run run, Of of, uint32_t dtypes = 0b1111) {
  list.op(name, differentiable, dtypes);
  for (const ArrangedReduction& r : arranged_reductions()) {
    // Over an axis that repeats, elements are equal: a variance of 0 has no error of first order, and tolerances know no other.
    const bool repeats = r.x.lay == Lay::expanded && r.axes == std::vector<int>{0};
    if (repeats || r.x.shape.numel() > kMostReduced) continue;
    list.add(
        {holds(CaseInput(r.x.shape, r.x.lay))},
        [=, axes = r.axes, keepdim = r.keepdim](const Tensors& x) {
          return with_axes(axes, [&](Axes list_of) { return run(x[0], list_of, keepdim); });
        },
        [=](const Arrays& x) { return reduced(x[0], r, of); });
  }
}

Real sum_of(const std::vector<Real>& values) {
  Real sum;
  for (const Real& v : values) sum += v;
  return sum;
}
Real mean_of(const std::vector<Real>& values) { return sum_of(values) * constant(1 / double(values.size())); }

void add_reductions(CaseList& list) {
  const auto any_value = [](const CaseInput& in) { return in; };
  const auto distinct = [](const CaseInput& in) { return in.held(Hold::distinct); };
  const auto mask = [](const CaseInput& in) { return CaseInput::mask(in.shape, in.lay); };
  add_reduction(
      list, "min", true, distinct, [](const Tensor& x, Axes a, bool k) { return min(x, a, k); },
      [](const std::vector<Real>& v) {
        Real least = v[0];
        for (const Real& r : v) least = r.value < least.value ? r : least;
        return least;
      });
  for (const DType dtype : {DType::i32, DType::i64, DType::u8, DType::boolean})
    list.add(
        {CaseInput::of({2, 3}, dtype, {1, 0, 1, 1, 1, 1})}, [](const Tensors& x) { return min(x[0], {1}); },
        [](const Arrays&) {
          return Array({2}, {Real(0), Real(1)});
        });
  // Partial products are about 1 at most: the gradient's terms are those, and a judge of narrow types expects no larger ones.
  add_reduction(
      list, "prod", true, [](const CaseInput& in) { return in.range(0.7, 1.1); },
      [](const Tensor& x, Axes a, bool k) { return prod(x, a, k); },
      [](const std::vector<Real>& v) {
        Real product = v[0];
        for (size_t i = 1; i < v.size(); ++i) product = product * v[i];
        return product;
      });
  list.add(  // a factor of 0 has a gradient, and its square none
      {CaseInput::of({5}, {0.5, 0, -2, 3, 0.25})}, [](const Tensors& x) { return prod(x[0]); },
      [](const Arrays&) { return Array({}, {Real(0)}); });
  list.add(
      {CaseInput::of({4}, {0, 2, 0, 3})}, [](const Tensors& x) { return prod(x[0]); }, [](const Arrays&) { return Array({}, {Real(0)}); });
  list.add(
      {CaseInput(Shape{2, 0})}, [](const Tensors& x) { return prod(x[0], {1}); },
      [](const Arrays&) {
        return Array({2}, {Real(1), Real(1)});
      });
  add_reduction(
      list, "any", false, mask, [](const Tensor& x, Axes a, bool k) { return any(x, a, k); },
      [](const std::vector<Real>& v) { return Real(sum_of(v).value > 0); });
  add_reduction(
      list, "all", false, mask, [](const Tensor& x, Axes a, bool k) { return all(x, a, k); },
      [](const std::vector<Real>& v) { return Real(sum_of(v).value == double(v.size())); });
  add_reduction(
      list, "variance", true, any_value, [](const Tensor& x, Axes a, bool k) { return variance(x, a, 0.5, k); },
      [](const std::vector<Real>& v) {
        const Real mean = mean_of(v);
        std::vector<Real> squares;
        for (const Real& r : v) {
          const Real off = r - mean;
          squares.push_back(off * off);
        }
        return sum_of(squares) * constant(1 / (double(v.size()) - 0.5));
      });
  const auto norm_by = [&](const char* name, double p, auto term, auto root) {
    add_reduction(
        list, name, true, [](const CaseInput& in) { return in.held(Hold::apart, -1, 2); },
        [p](const Tensor& x, Axes a, bool k) { return norm(x, p, a, k); },
        [=](const std::vector<Real>& v) {
          std::vector<Real> terms;
          for (const Real& r : v) terms.push_back(term(r.value < 0 ? -r : r));
          return root(sum_of(terms));
        });
  };
  norm_by(
      "norm", 2, [](const Real& r) { return r * r; }, [](const Real& r) { return sqrt(r); });
  norm_by(
      "norm_1", 1, [](const Real& r) { return r; }, [](const Real& r) { return r; });
  norm_by(
      "norm_4", 4, [](const Real& r) { return pow(r, Real(4)); }, [](const Real& r) { return pow(r, Real(0.25)); });
  // In 16 bits the magnitudes would not stay different.
  add_reduction(
      list, "norm_inf", true, distinct, [](const Tensor& x, Axes a, bool k) { return norm(affine(x, 1, 0.005), INFINITY, a, k); },
      [](const std::vector<Real>& v) {
        Real most;
        for (const Real& r : v) {
          const Real moved = store(r + constant(0.005));
          if (magnitude(moved.value) >= most.value) most = moved.value < 0 ? -moved : moved;
        }
        return most;
      },
      0b0011);
  add_reduction(
      list, "logsumexp", true, [](const CaseInput& in) { return in.range(-3, 3); },
      [](const Tensor& x, Axes a, bool k) { return logsumexp(x, a, k); },
      [](const std::vector<Real>& v) {
        double most = v[0].value;
        for (const Real& r : v) most = std::max(most, r.value);
        std::vector<Real> terms;
        for (const Real& r : v) terms.push_back(exp(r - Real(most)));
        return log(sum_of(terms)) + Real(most);
      });
}
}  // namespace

void add_function_cases(CaseList& list) {
  add_functions(list);
  add_logic(list);
  add_reductions(list);
}
}  // namespace reckon
