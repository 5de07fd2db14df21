// cli/op_cases: element-wise operations, their references by definition.
#include <numbers>

#include "reckon/cli/op_cases.h"

namespace reckon {
namespace {
using Hold = CaseInput::Hold;

// One case an arrangement; `shape_input` says what the input holds.
template <class Shape_, class Run, class Reference>
void add_unary(CaseList& list, const char* name, Shape_ shape_input, Run run, Reference reference) {
  list.op(name);
  for (const Arrangement& a : arrangements())
    list.add(
        {shape_input(CaseInput(a.shape, a.lay))}, [run](const Tensors& x) { return run(x[0]); },
        [reference](const Arrays& x) { return map(x[0], reference); });
}
template <class Run, class Reference>
void add_pairs(CaseList& list, const CaseInput& like_a, const CaseInput& like_b, Run run, Reference reference) {
  for (const ArrangedPair& pair : arranged_pairs()) {
    CaseInput a = like_a, b = like_b;
    a.shape = pair.a.shape, a.lay = pair.a.lay;
    b.shape = pair.b.shape, b.lay = pair.b.lay;
    list.add(
        {a, b}, [run](const Tensors& x) { return run(x[0], x[1]); }, [reference](const Arrays& x) { return map(x[0], x[1], reference); });
  }
}
// The same operation on whole numbers; no gradient is asked of those.
template <class Run, class Reference>
void add_integers(CaseList& list, Run run, Reference reference) {
  for (const DType dtype : {DType::i32, DType::i64})
    list.add(
        {CaseInput::of({2, 3}, dtype, {1, -2, 3, 4, 0, 1000}), CaseInput::of({3}, dtype, {5, -2, 3})},
        [run](const Tensors& x) { return run(x[0], x[1]); }, [reference](const Arrays& x) { return map(x[0], x[1], reference); });
}

Real larger(const Real& a, const Real& b) { return a.value > b.value ? a : b; }
Real smaller(const Real& a, const Real& b) { return a.value < b.value ? a : b; }

void add_arithmetic(CaseList& list) {
  const CaseInput any{Shape{}}, whole = any.held(Hold::grid, 0), between = any.held(Hold::grid, 0.05);
  // Results of one rounding are judged as that: a sum is not charged for its terms.
  const auto plus = [](const Real& a, const Real& b) { return a + b; };
  const auto minus = [](const Real& a, const Real& b) { return a - b; };
  const auto times = [](const Real& a, const Real& b) { return a * b; };
  const auto run_add = [](const Tensor& a, const Tensor& b) { return add(a, b); };
  list.op("add");
  add_pairs(list, any, any, run_add, plus);
  add_integers(list, run_add, plus);
  list.op("sub");
  add_pairs(list, any, any, sub, minus);
  add_integers(list, sub, minus);
  list.op("mul");
  add_pairs(list, any, any, mul, times);
  add_integers(list, mul, times);
  list.op("div");
  add_pairs(list, any, any.range(0.5, 2), div, [](const Real& a, const Real& b) { return a / b; });
  list.op("pow");
  add_pairs(list, any.range(0.5, 2), any.range(-2, 2), static_cast<Tensor (*)(const Tensor&, const Tensor&)>(pow),
            static_cast<Real (*)(const Real&, const Real&)>(pow));
  list.op("maximum");
  add_pairs(list, whole, between, maximum, larger);
  add_integers(list, maximum, larger);
  list.op("minimum");
  add_pairs(list, whole, between, minimum, smaller);
  add_integers(list, minimum, smaller);

  const auto same = [](const Real& a, const Real& b) { return Real(a.value == b.value); };
  const auto below = [](const Real& a, const Real& b) { return Real(a.value < b.value); };
  const auto not_above = [](const Real& a, const Real& b) { return Real(a.value <= b.value); };
  list.op("equal", false);
  add_pairs(list, whole, whole, equal, same);
  add_integers(list, equal, same);
  list.op("less", false);
  add_pairs(list, whole, whole, less, below);
  add_integers(list, less, below);
  list.op("less_equal", false);
  add_pairs(list, whole, whole, less_equal, not_above);
  add_integers(list, less_equal, not_above);
}

void add_where(CaseList& list) {
  list.op("where");
  const auto reference = [](const Arrays& x) {
    Array y(broadcast(x[0].shape, broadcast(x[1].shape, x[2].shape)));
    for_each_place(y.shape,
                   [&](const Place& p) { y[y.index(p)] = x[x[0].seen_from(p, y.shape).value != 0 ? 1 : 2].seen_from(p, y.shape); });
    return y;
  };
  const auto run = [](const Tensors& x) { return where(x[0], x[1], x[2]); };
  for (const ArrangedPair& pair : arranged_pairs()) {
    list.add({CaseInput::mask(pair.a.shape, pair.a.lay), {pair.a.shape, pair.b.lay}, {pair.b.shape, pair.a.lay}}, run, reference);
    list.add({CaseInput::mask(pair.b.shape, pair.b.lay), {pair.a.shape, pair.a.lay}, CaseInput(Shape{})}, run, reference);
  }
}

void add_affine(CaseList& list) {
  list.op("affine");
  const double alphas[] = {2, -0.75, 0, 1, 1.0 / 3}, betas[] = {0, 1, -0.1, 0};
  size_t i = 0;
  for (const Arrangement& a : arrangements()) {
    const double alpha = alphas[i % 5], beta = betas[i % 4];
    ++i;
    list.add(
        {CaseInput(a.shape, a.lay)}, [=](const Tensors& x) { return affine(x[0], alpha, beta); },
        [=](const Arrays& x) { return map(x[0], [=](const Real& r) { return Real(alpha) * r + Real(beta, magnitude(beta), 0, 0); }); });
  }
}

Real gelu_of(const Real& x) {
  const Real inner = Real(std::numbers::sqrt2 * std::numbers::inv_sqrtpi, 1, 0, 0) * (x + Real(0.044715, 0.05, 0, 0) * x * x * x);
  return Real(0.5) * x * (Real(1) + tanh(inner));
}
Real swiglu_of(const Real& gate, const Real& up) { return gate * sigmoid(gate) * up; }

void add_swiglu(CaseList& list) {
  list.op("swiglu");
  for (const Arrangement& a : row_arrangements()) {
    const int64_t width = a.shape.last();
    list.add(
        {CaseInput(a.shape.with(-1, 2 * width), a.lay).range(-4, 4)}, [](const Tensors& x) { return swiglu(x[0]); },
        [=](const Arrays& x) {
          Array y(x[0].shape.with(-1, width));
          for (int64_t i = 0; i < y.size(); ++i) {
            const int64_t at = i / width * 2 * width + i % width;
            y[i] = swiglu_of(x[0][at], x[0][at + width]);
          }
          return y;
        });
  }
}
}  // namespace

#define UNARY(name, holds, value)                                                                      \
  add_unary(                                                                                           \
      list, #name, [](const CaseInput& in) { return holds; }, [](const Tensor& x) { return name(x); }, \
      [](const Real& x) -> Real { return value; })

void add_elementwise_cases(CaseList& list) {
  add_arithmetic(list);
  add_where(list);
  add_affine(list);
  UNARY(neg, in, -x);
  UNARY(exp, in.range(-4, 4), exp(x));
  UNARY(log, in.range(0.3, 4), log(x));
  UNARY(sqrt, in.range(0.3, 4), sqrt(x));
  UNARY(rsqrt, in.range(0.3, 4), Real(1) / sqrt(x));
  UNARY(square, in.range(-3, 3), x * x);
  UNARY(reciprocal, in.range(0.4, 3), Real(1) / x);
  UNARY(abs, in.held(Hold::apart, -1, 3), x.value < 0 ? -x : x);
  UNARY(tanh, in.range(-3, 3), tanh(x));
  UNARY(sigmoid, in.range(-6, 6), sigmoid(x));
  UNARY(relu, in.held(Hold::apart, -1, 3), x.value > 0 ? x : Real(0));
  UNARY(gelu, in.range(-4, 4), gelu_of(x));
  UNARY(silu, in.range(-6, 6), x * sigmoid(x));
  add_swiglu(list);
}
#undef UNARY
}  // namespace reckon
