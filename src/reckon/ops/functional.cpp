#include "reckon/ops/functional.h"

#include <algorithm>
#include <cmath>

#include "reckon/engine/context.h"
#include "reckon/ops/ops.h"
#include "reckon/ops/rows.h"

namespace reckon {
namespace {
using Function = detail::TensorFunction;

Tensors leaves_of(const Tensors& values, const char* what) {
  check(!values.empty(), "{}: needs at least one input", what);
  Tensors leaves;
  for (const Tensor& v : values) {
    check(v.defined() && is_float(v.dtype()), "{}: input {}, {}, is not a floating-point tensor", what, leaves.size(), v);
    leaves.push_back(v.detached().set_requires_grad());
  }
  return leaves;
}
void check_match(const Tensors& given, const Tensors& of, const char* what, const char* which) {
  check(given.size() == of.size(), "{}: {} {} for {} tensors", what, given.size(), which, of.size());
  for (size_t i = 0; i < of.size(); ++i)
    check(given[i].defined() && given[i].spec() == of[i].spec(), "{}: {} {} is {}, but what it belongs to is {}", what, which, i, given[i],
          of[i]);
}
Tensors detached(const Tensors& list) {
  Tensors plain;
  for (const Tensor& t : list) plain.push_back(t.detached());
  return plain;
}
void fill_undefined(Tensors& list, const Tensors& like) {
  for (size_t i = 0; i < list.size(); ++i)
    if (!list[i].defined()) list[i] = zeros(like[i].device(), like[i].spec());
}
// Those that depend on anything, and what belongs to them.
void keep_tracked(Tensors& roots, Tensors& seeds) {
  size_t kept = 0;
  for (size_t i = 0; i < roots.size(); ++i) {
    if (!roots[i].defined() || !roots[i].requires_grad()) continue;
    roots[kept] = roots[i];
    seeds[kept++] = seeds[i];
  }
  roots.resize(kept);
  seeds.resize(kept);
}
Tensors gradients(Tensors roots, const Tensors& inputs, Tensors seeds, const BackwardOptions& options) {
  keep_tracked(roots, seeds);
  if (roots.empty()) return Tensors(inputs.size());
  return grad(roots, inputs, seeds, options);
}

Tensor only(const Tensors& out, const char* what) {
  check(out.size() == 1, "{}: wants a function with one result, this one has {}", what, out.size());
  return out[0];
}
// Element k of zeros: a one.
Tensor unit(const Tensor& one, int64_t k, const Shape& shape) {
  const int64_t count = shape.numel();
  return reshape(call(op::slice_back, tensors(one), SliceParams{0, count, k, k + 1, 1})[0], shape);
}
// d y[k] / d x for all k: [shape of y..., shape of x...].
Tensor all_rows(const Tensor& y, const Tensor& x, const char* what) {
  const int rank = y.rank() + x.rank();
  check(rank <= kMaxRank, "{}: the result would have {} axes, of {} and of {}; the limit is {}", what, rank, y.shape(), x.shape(),
        kMaxRank);
  std::vector<int64_t> extents(y.shape().begin(), y.shape().begin() + y.rank());
  for (int i = 0; i < x.rank(); ++i) extents.push_back(x.shape()[i]);
  const NoGrad guard;
  const Tensor all = zeros(x.device(), {Shape(std::span<const int64_t>(extents)), x.dtype()});
  if (!y.requires_grad() || y.numel() == 0 || x.numel() == 0) return all;
  const Tensor one = ones(y.device(), {{1}, y.dtype()});
  for (int64_t k = 0; k < y.numel(); ++k) {
    const Tensor row = grad(y, {x}, unit(one, k, y.shape()), {.retain_graph = k + 1 < y.numel(), .allow_unused = true})[0];
    if (!row.defined()) return all;  // nothing depends on x
    Layout place(x.shape());
    place.offset = k * x.numel();
    call(op::accumulate, tensors(all.alias(place), row), AccumulateParams{false});
  }
  return all;
}
Tensor scalar_gradient(const Function& f, const Tensor& x, const char* what, Tensor& value) {
  value = only(f({x}), what);
  check(value.numel() == 1, "{}: wants a function with a scalar result, this one gives {}", what, value);
  if (!value.requires_grad()) return {};
  return grad(value, {x}, {}, {.create_graph = true, .allow_unused = true})[0];
}
}  // namespace

ValuesAndDerivatives detail::vjp(const Function& f, const Tensors& primals, const Tensors& cotangents) {
  const EnableGrad recorded;
  const Tensors at = leaves_of(primals, "vjp"), values = f(at);
  if (!cotangents.empty()) check_match(cotangents, values, "vjp", "cotangent");
  Tensors g = gradients(values, at, cotangents.empty() ? Tensors(values.size()) : cotangents, {.allow_unused = true});
  fill_undefined(g, at);
  return {detached(values), std::move(g)};
}

// g = J^T u is linear in u: its gradient in u, along t, is J t.
ValuesAndDerivatives detail::jvp(const Function& f, const Tensors& primals, const Tensors& tangents) {
  const EnableGrad recorded;
  const Tensors at = leaves_of(primals, "jvp");
  check_match(tangents, at, "jvp", "tangent");
  const Tensors values = f(at);
  Tensors u;
  for (const Tensor& v : values) {
    u.push_back(zeros(v.device(), v.spec()));
    if (is_float(v.dtype())) u.back().set_requires_grad();
  }
  const Tensors g = gradients(values, at, u, {.create_graph = true, .allow_unused = true});
  Tensors moved = gradients(g, u, tangents, {.allow_unused = true});
  fill_undefined(moved, u);
  return {detached(values), std::move(moved)};
}

Tensor detail::jacobian(const Function& f, const Tensor& x) {
  const EnableGrad recorded;
  const Tensors at = leaves_of({x}, "jacobian");
  return all_rows(only(f(at), "jacobian"), at[0], "jacobian");
}

Tensor detail::hessian(const Function& f, const Tensor& x) {
  const EnableGrad recorded;
  const Tensors at = leaves_of({x}, "hessian");
  Tensor value;
  const Tensor g = scalar_gradient(f, at[0], "hessian", value);
  return all_rows(g.defined() ? g : zeros(x.device(), x.spec()), at[0], "hessian");
}

ValuesAndDerivatives detail::hvp(const Function& f, const Tensor& x, const Tensor& v) {
  const EnableGrad recorded;
  const Tensors at = leaves_of({x}, "hvp");
  check_match({v}, at, "hvp", "vector");
  Tensor value;
  const Tensor g = scalar_gradient(f, at[0], "hvp", value);
  Tensors product = gradients({g}, at, {v}, {.allow_unused = true});
  fill_undefined(product, at);
  return {{value.detached()}, std::move(product)};
}

// ---- by differences
namespace {
Tensors random_like(const Tensors& list) {
  Tensors drawn;
  for (const Tensor& t : list) {
    drawn.push_back(empty(t.device(), t.spec()));
    fill_uniform_(drawn.back(), 0x9e3779b9u + drawn.size(), -1, 1);
  }
  return drawn;
}
double weighted(const Tensors& values, const Tensors& weights) {
  double total = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    if (!values[i].defined()) continue;
    const std::vector<double> v = values[i].to_vector(), w = weights[i].to_vector();
    for (size_t k = 0; k < v.size(); ++k) total += v[k] * w[k];
  }
  return total;
}
Tensors float_results(const Tensors& out) {
  Tensors kept;
  for (const Tensor& t : out)
    if (is_float(t.dtype())) kept.push_back(t);
  return kept;
}
// The first element whose derivative, by differences of plain_f, is not what the gradient of f says. h: the error of the differences is
// h^4 f'''''/30, and about eps f / h.
template <class F, class Plain>
std::string compare(const F& f, const Plain& plain_f, const Tensors& at, const char* what) {
  constexpr double h = 1e-3;
  const Tensors values = float_results(f(at)), weights = random_like(values);
  Tensors g = gradients(values, at, weights, {.allow_unused = true});
  fill_undefined(g, at);
  for (size_t i = 0; i < at.size(); ++i) {
    const std::vector<double> wanted = g[i].to_vector(), start = at[i].to_vector();
    double largest = 0;
    for (const double w : wanted) largest = std::max(largest, std::fabs(w));
    std::vector<double> moved = start;
    const auto value = [&](size_t k, double distance) {
      moved[k] = start[k] + distance;
      at[i].write(moved.data(), int64_t(moved.size() * sizeof(double)));
      moved[k] = start[k];
      return weighted(float_results(plain_f(at)), weights);
    };
    for (size_t k = 0; k < start.size(); ++k) {
      const double difference = (8 * (value(k, h) - value(k, -h)) - (value(k, 2 * h) - value(k, -2 * h))) / (12 * h);
      at[i].write(start.data(), int64_t(start.size() * sizeof(double)));
      if (!(std::fabs(difference - wanted[k]) <= 1e-6 * largest + 1e-10))
        return text("{} in input {} at element {}: {:.10g}, by differences {:.10g}; the largest is {:.3g}", what, i, k, wanted[k],
                    difference, largest);
    }
  }
  return {};
}
}  // namespace

std::string detail::gradcheck(const Function& f, const Tensors& inputs, bool second) {
  const EnableGrad guard;
  Tensors at;
  for (const Tensor& t : inputs) {
    check(t.defined() && t.dtype() == DType::f64 && !t.device().is_meta(), "gradcheck: input {}, {}, is not float64 with data", at.size(),
          t);
    const std::vector<double> values = t.to_vector();
    at.push_back(from_bytes(t.device(), t.spec(), values.data(), int64_t(values.size() * sizeof(double))).set_requires_grad());
  }
  check(!at.empty(), "gradcheck: needs at least one input");
  if (!second) return compare(f, f, at, "gradient");
  const Tensors weights = random_like(float_results(f(at)));
  const auto slopes = [&](bool recorded) {
    return [&, recorded](const Tensors& in) {
      Tensors g = gradients(float_results(f(in)), in, weights, {.create_graph = recorded, .allow_unused = true});
      fill_undefined(g, in);
      return g;
    };
  };
  return compare(slopes(true), slopes(false), at, "second derivative");
}
}  // namespace reckon
