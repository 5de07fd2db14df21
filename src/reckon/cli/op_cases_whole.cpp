// cli/op_cases: whole numbers and bool, in the operations that take them. Values are small enough for doubles to hold every result.
#include <algorithm>
#include <cmath>

#include "reckon/cli/op_cases.h"
#include "reckon/ops/dtypes.h"

namespace reckon {
namespace {
// The inputs have a dtype of their own: once a case is enough.
constexpr uint32_t kOnce = 1u << int(DType::f32);
constexpr DType kWhole[] = {DType::i32, DType::i64, DType::u8};

// Whole numbers in [low, high).
CaseInput whole(const Shape& shape, Lay lay, DType dtype, int64_t low, int64_t high) {
  CaseInput input(shape, lay);
  input.follows = false;
  input.dtype = dtype;
  input = input.held(CaseInput::Hold::ids, 0, double(high - low));
  input.low = double(low);
  return input;
}
int64_t lowest(DType dtype, int64_t wanted) { return dtype == DType::u8 ? std::max<int64_t>(wanted, 0) : wanted; }

// What the type keeps of a number, as it wraps.
double wrapped(DType dtype, double value) {
  if (dtype != DType::u8) return value;
  return double(uint8_t(int64_t(value)));
}

template <class Run, class Reference>
void add_pairs(CaseList& list, int64_t low, int64_t high, Run run, Reference reference) {
  for (const DType dtype : kWhole)
    for (const ArrangedPair& pair : arranged_pairs())
      list.add(
          {whole(pair.a.shape, pair.a.lay, dtype, lowest(dtype, low), high),
           whole(pair.b.shape, pair.b.lay, dtype, lowest(dtype, low), high)},
          [run](const Tensors& x) { return run(x[0], x[1]); },
          [=](const Arrays& x) {
            return map(x[0], x[1], [=](const Real& a, const Real& b) { return Real(wrapped(dtype, reference(a.value, b.value))); });
          });
}

template <class Run, class Reference>
void add_single(CaseList& list, Run run, Reference reference) {
  for (const DType dtype : kWhole)
    for (const Arrangement& a : arrangements())
      list.add(
          {whole(a.shape, a.lay, dtype, lowest(dtype, -100), 100)}, [run](const Tensors& x) { return run(x[0]); },
          [=](const Arrays& x) { return map(x[0], [=](const Real& v) { return Real(wrapped(dtype, reference(v.value))); }); });
}

double floor_quotient(double a, double b) { return b == 0 ? 0 : std::floor(a / b); }
double rest(double a, double b) { return a - floor_quotient(a, b) * b; }
double power(double a, double b) {
  if (b < 0) return a == 1 ? 1 : a == -1 ? (std::fmod(b, 2) != 0 ? -1 : 1) : 0;
  return std::pow(a, b);
}

void add_two_operands(CaseList& list) {
  using Binary = Tensor (*)(const Tensor&, const Tensor&);
  const auto run_add = [](const Tensor& a, const Tensor& b) { return add(a, b); };
  list.op("add_whole", false, kOnce);
  add_pairs(list, -1000, 200, run_add, [](double a, double b) { return a + b; });
  list.op("sub_whole", false, kOnce);
  add_pairs(list, -1000, 200, static_cast<Binary>(sub), [](double a, double b) { return a - b; });
  list.op("mul_whole", false, kOnce);
  add_pairs(list, -1000, 200, static_cast<Binary>(mul), [](double a, double b) { return a * b; });
  list.op("maximum_whole", false, kOnce);
  add_pairs(list, -1000, 200, static_cast<Binary>(maximum), [](double a, double b) { return std::max(a, b); });
  list.op("minimum_whole", false, kOnce);
  add_pairs(list, -1000, 200, static_cast<Binary>(minimum), [](double a, double b) { return std::min(a, b); });
  list.op("floor_divide_whole", false, kOnce);
  add_pairs(list, -20, 20, static_cast<Binary>(floor_divide), floor_quotient);
  list.op("remainder_whole", false, kOnce);
  add_pairs(list, -20, 20, static_cast<Binary>(remainder), rest);
  list.op("pow_whole", false, kOnce);
  add_pairs(list, -7, 8, static_cast<Binary>(pow), power);
  list.op("less_whole", false, kOnce);
  add_pairs(list, -20, 20, static_cast<Binary>(less), [](double a, double b) { return double(a < b); });
  list.op("equal_whole", false, kOnce);
  add_pairs(list, -3, 3, static_cast<Binary>(equal), [](double a, double b) { return double(a == b); });
}

// Floats have these two as well.
void add_float_quotients(CaseList& list) {
  const auto add_floats = [&](auto run, auto reference) {
    for (const ArrangedPair& pair : arranged_pairs()) {
      // Quotients stay away from whole numbers, where they jump.
      CaseInput a = CaseInput(pair.a.shape, pair.a.lay).held(CaseInput::Hold::grid, 2.05),
                b = CaseInput(pair.b.shape, pair.b.lay).range(0.89, 0.91);
      list.add(
          {a, b}, [run](const Tensors& x) { return run(x[0], x[1]); }, [reference](const Arrays& x) { return map(x[0], x[1], reference); });
    }
  };
  list.op("floor_divide", false);
  add_floats(floor_divide, [](const Real& a, const Real& b) { return Real(std::floor(a.value / b.value)); });
  list.op("remainder");
  add_floats(remainder, [](const Real& a, const Real& b) { return a - Real(std::floor(a.value / b.value)) * b; });
}

void add_promotions(CaseList& list) {
  list.op("add_promoted", false, kOnce);
  const auto as = [](DType dtype) { return whole({3, 5}, Lay::transposed, dtype, 0, 2); };
  for (const DType a : {DType::boolean, DType::u8, DType::i32, DType::i64, DType::f32, DType::f64, DType::bf16, DType::f16})
    for (const DType b : {DType::u8, DType::i32, DType::i64, DType::f32, DType::f64, DType::bf16, DType::f16})
      list.add(
          {as(a), as(b)}, [](const Tensors& x) { return add(x[0], x[1]); },
          [](const Arrays& x) { return map(x[0], x[1], [](const Real& u, const Real& v) { return Real(u.value + v.value); }); });
}

Array reduced(const Array& x, uint32_t axes, bool max) {
  std::vector<int64_t> extents;
  for (int axis = 0; axis < x.shape.rank(); ++axis)
    if (!(axes >> axis & 1u)) extents.push_back(x.shape[axis]);
  Array y{Shape(std::span<const int64_t>(extents))};
  std::vector<bool> seen(size_t(y.size()));
  for_each_place(x.shape, [&](const Place& p) {
    int64_t to = 0;
    for (int axis = 0; axis < x.shape.rank(); ++axis)
      if (!(axes >> axis & 1u)) to = to * x.shape[axis] + p[axis];
    const double v = x[x.index(p)].value, old = y[to].value;
    y[to] = Real(!seen[size_t(to)] ? v : max ? std::max(old, v) : old + v);
    seen[size_t(to)] = true;
  });
  return y;
}

void add_reductions(CaseList& list) {
  for (const bool max : {false, true}) {
    list.op(max ? "max_whole" : "sum_whole", false, kOnce);
    for (const DType dtype : {DType::i32, DType::i64, DType::u8, DType::boolean})
      for (const Arrangement& a : arrangements()) {
        const int last = a.shape.rank() - 1;
        if (max && a.shape.numel() == 0) continue;
        const CaseInput in =
            whole(a.shape, a.lay, dtype, lowest(dtype == DType::boolean ? DType::u8 : dtype, -50), dtype == DType::boolean ? 2 : 50);
        list.add(
            {in}, [=](const Tensors& x) { return max ? reckon::max(x[0]) : sum(x[0]); },
            [=](const Arrays& x) { return reduced(x[0], ~0u, max); });
        if (last < 0) continue;
        list.add(
            {in}, [=](const Tensors& x) { return max ? reckon::max(x[0], {0}) : sum(x[0], {0}); },
            [=](const Arrays& x) { return reduced(x[0], 1u, max); });
        list.add(
            {in}, [=](const Tensors& x) { return max ? reckon::max(x[0], {-1}) : sum(x[0], {-1}); },
            [=](const Arrays& x) { return reduced(x[0], 1u << last, max); });
      }
  }
}

void add_products(CaseList& list) {
  list.op("matmul_whole", false, kOnce);
  const Shape pairs[][2] = {{{1, 1}, {1, 1}}, {{3, 4}, {4, 5}}, {{2, 3, 4}, {4, 5}},  {{3, 4}, {2, 4, 2}}, {{2, 1, 3, 4}, {3, 4, 2}},
                            {{0, 4}, {4, 2}}, {{3, 0}, {0, 2}}, {{65, 33}, {33, 70}}, {{5, 1}, {1, 9}}};
  for (const DType dtype : kWhole)
    for (const auto& [a, b] : pairs)
      for (const Lay lay : {Lay::plain, Lay::transposed, Lay::padded})
        list.add(
            {whole(a, lay, dtype, lowest(dtype, -9), 9), whole(b, lay == Lay::padded ? Lay::transposed : lay, dtype, lowest(dtype, -9), 9)},
            [](const Tensors& x) { return matmul(x[0], x[1]); },
            [=](const Arrays& x) {
              const Shape &s = x[0].shape, &t = x[1].shape;
              Array y(broadcast(s.first(s.rank() - 2), t.first(t.rank() - 2)).appended(s[-2]).appended(t[-1]));
              for_each_place(y.shape, [&](const Place& p) {
                double total = 0;
                for (int64_t l = 0; l < s[-1]; ++l) {
                  Place u = p, v = p;
                  u[y.shape.rank() - 1] = l;
                  v[y.shape.rank() - 2] = l;
                  total += x[0].seen_from(u, y.shape.with(-1, s[-1])).value * x[1].seen_from(v, y.shape.with(-2, s[-1])).value;
                }
                y[y.index(p)] = Real(wrapped(dtype, total));
              });
              return y;
            });
}
}  // namespace

void add_whole_cases(CaseList& list) {
  add_two_operands(list);
  add_float_quotients(list);
  add_promotions(list);
  list.op("neg_whole", false, kOnce);
  add_single(
      list, [](const Tensor& x) { return neg(x); }, [](double v) { return -v; });
  list.op("abs_whole", false, kOnce);
  add_single(
      list, [](const Tensor& x) { return abs(x); }, [](double v) { return std::abs(v); });
  list.op("square_whole", false, kOnce);
  add_single(
      list, [](const Tensor& x) { return square(x); }, [](double v) { return v * v; });
  list.op("relu_whole", false, kOnce);
  add_single(
      list, [](const Tensor& x) { return relu(x); }, [](double v) { return std::max(v, 0.0); });
  list.op("affine_whole", false, kOnce);
  add_single(
      list, [](const Tensor& x) { return affine(x, 3, -2); }, [](double v) { return 3 * v - 2; });
  add_reductions(list);
  add_products(list);
}
}  // namespace reckon
