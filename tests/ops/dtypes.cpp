// Types that meet, whole numbers at their edges, and what C++ writes between tensors.
#include "reckon/ops/dtypes.h"

#include <cmath>
#include <limits>

#include "reckon/ops/indexing.h"
#include "reckon/ops/joining.h"
#include "reckon/ops/reductions.h"
#include "reckon/ops/rows.h"
#include "reckon/ops/scan.h"
#include "reckon/ops/unary.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {

class DTypes : public OnCpu {
 protected:
  Tensor of(DType dtype, const Shape& shape, double value = 1) { return full(*device_, {shape, dtype}, value); }
  template <class T>
  Tensor list(const std::vector<T>& values) {
    return from_values<T>(*device_, {int64_t(values.size())}, values);
  }
};

// torch.result_type: a tensor without axes widens only to another kind.
TEST_F(DTypes, ATensorWithoutAxesWidensOnlyToAHigherKind) {
  const auto meet = [&](DType a, const Shape& s, DType b, const Shape& t) { return result_dtype(of(a, s), of(b, t)); };
  EXPECT_EQ(meet(DType::bf16, {2}, DType::f32, {}), DType::bf16);
  EXPECT_EQ(meet(DType::bf16, {2}, DType::f32, {1}), DType::f32);
  EXPECT_EQ(meet(DType::f32, {}, DType::bf16, {}), DType::f32);
  EXPECT_EQ(meet(DType::i64, {}, DType::u8, {3}), DType::u8);
  EXPECT_EQ(meet(DType::f64, {}, DType::i32, {3}), DType::f64);
  EXPECT_EQ(meet(DType::i64, {}, DType::f16, {3}), DType::f16);
  EXPECT_EQ(meet(DType::i32, {}, DType::boolean, {3}), DType::i32);
}

TEST_F(DTypes, EveryTwoOperandFunctionPromotes) {
  const Tensor i = list<int32_t>({7, -7, 0}), h = cast(list<float>({2, 2, 2}), DType::bf16), u = cast(i, DType::u8);
  EXPECT_EQ(add(i, h).dtype(), DType::bf16);
  EXPECT_EQ(mul(u, i).dtype(), DType::i32);
  EXPECT_EQ(div(i, i).dtype(), DType::f32);
  EXPECT_EQ(div(i, h).to_vector(), (Values{3.5, -3.5, 0}));
  EXPECT_EQ(pow(i, h).dtype(), DType::bf16);
  EXPECT_EQ(maximum(u, h).dtype(), DType::bf16);
  EXPECT_EQ(floor_divide(i, list<int64_t>({2, 2, 0})).to_vector(), (Values{3, -4, 0}));
  EXPECT_EQ(where(less(i, h), i, h).to_vector(), (Values{2, -7, 0}));
  EXPECT_EQ(less(i, h).dtype(), DType::boolean);
  for (const Tensor& y : {sqrt(i), exp(u), sigmoid(i), tanh(i), gelu(i)}) EXPECT_EQ(y.dtype(), DType::f32);
  EXPECT_EQ(sqrt(list<int64_t>({16})).item(), 4);
  EXPECT_EQ(sign(list<int32_t>({-7, 0, 9})).to_vector(), (Values{-1, 0, 1}));
  EXPECT_EQ(floor(i).dtype(), DType::i32);
  EXPECT_EQ(erf(i).dtype(), DType::f32);
  EXPECT_EQ(not_equal(i, h).to_vector(), (Values{1, 1, 1}));
  EXPECT_EQ(greater(i, h).to_vector(), (Values{1, 0, 0}));
}

// A cast is an operation: the plan sees it, and gradients pass through it.
TEST_F(DTypes, PromotionIsVisibleAndDifferentiable) {
  const Tensor h = cast(list<float>({1, 2}), DType::bf16).set_requires_grad(), f = list<float>({3, 5}).set_requires_grad();
  Meter meter;
  {
    const MeterScope scope(meter);
    backward(sum(mul(h, f)));
  }
  EXPECT_EQ(h.grad().dtype(), DType::bf16);
  EXPECT_EQ(h.grad().to_vector(), (Values{3, 5}));
  EXPECT_EQ(f.grad().dtype(), DType::f32);
  EXPECT_EQ(f.grad().to_vector(), (Values{1, 2}));
  int64_t casts = 0;
  for (const MeterRow& row : meter.rows())
    if (std::string_view(row.op) == "cast") casts += row.calls;
  EXPECT_EQ(casts, 2) << "there and back";
}

TEST_F(DTypes, WholeNumbersWrapAndNeverTrap) {
  constexpr int32_t least = std::numeric_limits<int32_t>::min(), most = std::numeric_limits<int32_t>::max();
  const Tensor edge = list<int32_t>({least, most, least, 5, -5, 5, -5});
  const Tensor by = list<int32_t>({-1, 1, 0, 0, 0, -3, 3});
  EXPECT_EQ(floor_divide(edge, by).to_vector(), (Values{double(least), double(most), 0, 0, 0, -2, -2}));
  EXPECT_EQ(remainder(edge, by).to_vector(), (Values{0, 0, double(least), 5, -5, -1, 1}));
  EXPECT_EQ(add(list<int32_t>({most}), list<int32_t>({1})).item(), least);
  EXPECT_EQ(neg(list<int32_t>({least})).item(), least);
  EXPECT_EQ(abs(list<int32_t>({least})).item(), least);
  EXPECT_EQ(square(list<int32_t>({1 << 16})).item(), 0);
  EXPECT_EQ(pow(list<int32_t>({2}), list<int32_t>({31})).item(), least);
  EXPECT_EQ(pow(list<int32_t>({-1, 1, 2, 0}), list<int32_t>({-3, -3, -1, -1})).to_vector(), (Values{-1, 1, 0, 0}));
  constexpr int64_t wide = std::numeric_limits<int64_t>::min();
  EXPECT_EQ(floor_divide(list<int64_t>({wide}), list<int64_t>({-1})).item(), double(wide));
  EXPECT_EQ(remainder(list<int64_t>({wide}), list<int64_t>({-1})).item(), 0);
}

// a == b * floor(a / b) + rest and the rest has b's sign, in every float type.
TEST_F(DTypes, FloatQuotientsAreThoseOfPython) {
  EXPECT_EQ(floor_divide(list<double>({7, -7, 7, -7, 0.3, 1e300}), list<double>({2, 2, -2, -2, 0.1, 1e-10})).to_vector(),
            (Values{3, -4, -4, 3, 2, std::numeric_limits<double>::infinity()}));
  EXPECT_EQ(remainder(list<double>({7, -7, 7, -7, 5.5}), list<double>({2, 2, -2, -2, 2})).to_vector(), (Values{1, 1, -1, -1, 1.5}));
  EXPECT_TRUE(std::isnan(remainder(list<float>({1}), list<float>({0})).item()));
  EXPECT_TRUE(std::isinf(floor_divide(list<float>({1}), list<float>({0})).item()));
}

TEST_F(DTypes, SumsOfWholeNumbersAndBoolAreCounts) {
  const Tensor u = of(DType::u8, {300}, 255);
  EXPECT_EQ(sum(u).dtype(), DType::i64);
  EXPECT_EQ(sum(u).item(), 300 * 255);
  EXPECT_EQ(sum(less(arange(*device_, 1000, DType::i32), of(DType::i32, {}, 17))).item(), 17);
  EXPECT_EQ(max(list<int64_t>({-5, -2})).item(), -2);
  const int64_t large = (int64_t(1) << 53) + 1;  // no double holds it
  const Tensor x = list<int64_t>({large, -large, 1});
  EXPECT_EQ(*sum(x).data<int64_t>(), 1);
  EXPECT_EQ(*sum(list<int64_t>({large, 2})).data<int64_t>(), large + 2);
}

// Parts of a sum are added in double. Rounded to float32 first, it would lie halfway between two 16-bit numbers.
TEST_F(DTypes, SumsOf16BitsAreRoundedOnce) {
  const auto spread = [&](const Values& parts, DType dtype) {
    Values values(3000);
    for (size_t i = 0; i < parts.size(); ++i) values[i * 1400] = parts[i];  // farther apart than what is added in float32
    return cast(list<double>(values), dtype);
  };
  const Tensor x = spread({1, 0x1p-8, 0x1p-40}, DType::bf16), h = spread({1, 0x1p-11, 0x1p-24}, DType::f16);
  EXPECT_EQ(sum(x).item(), 1 + 0x1p-7);
  EXPECT_EQ(sum(neg(x)).item(), -1 - 0x1p-7);
  EXPECT_EQ(cumsum(x, 0).to_vector().back(), 1 + 0x1p-7);
  EXPECT_EQ(cumsum(h, 0).to_vector().back(), 1 + 0x1p-10);
}

TEST_F(DTypes, OperatorsAreTheFunctions) {
  const Tensor x = list<float>({1, 2, 4}), i = list<int32_t>({1, 2, 4});
  EXPECT_EQ((x + x * 2 - 1).to_vector(), (Values{2, 5, 11}));
  EXPECT_EQ((1 - x / 4).to_vector(), (Values{0.75, 0.5, 0}));
  EXPECT_EQ((8 / x).to_vector(), (Values{8, 4, 2}));
  EXPECT_EQ((-x).to_vector(), (Values{-1, -2, -4}));
  EXPECT_EQ((i * 3 + 1).dtype(), DType::i32);
  EXPECT_EQ((i * 3 + 1).to_vector(), (Values{4, 7, 13}));
  EXPECT_EQ((i * 0.5).dtype(), DType::f32);
  EXPECT_EQ((i / 2).to_vector(), (Values{0.5, 1, 2}));
  EXPECT_EQ((less(x, x + 1) * 2).dtype(), DType::i64);
  // A quotient is rounded once.
  EXPECT_EQ((list<float>({1}) / 3.0).item(), double(1.0f / 3.0f));
  EXPECT_EQ((list<float>({5}) / 49.0).item(), double(5.0f / 49.0f));
}

// The number itself may be beyond the tensor's type where the quotient is not.
TEST_F(DTypes, NumbersThat16BitsDoNotHoldDivideAll) {
  const Tensor h = cast(list<float>({60000, 100}), DType::f16);
  EXPECT_EQ((h / 1e6).dtype(), DType::f16);
  EXPECT_EQ((h / 1e6).to_vector(), (Values{double(float(float16(0.06f))), double(float(float16(1e-4f)))}));
  EXPECT_EQ((1e6 / h).to_vector(), (Values{double(float(float16(1e6f / 60000))), 10000}));
  EXPECT_EQ(mean(of(DType::f16, {1000}, 100)).item(), 100) << "their sum is beyond float16";
  EXPECT_EQ(mean(of(DType::f16, {1000}, 100)).dtype(), DType::f16);
  EXPECT_EQ(softplus(cast(list<float>({100}), DType::f16), 1000).item(), 100);
}

TEST_F(DTypes, FunctionsOfWholeNumbersAreThoseOfTheirFloats) {
  EXPECT_EQ(norm(list<int32_t>({3, 4})).item(), 5);
  EXPECT_EQ(norm(list<int32_t>({30000, 40000})).item(), 50000);
  EXPECT_EQ(norm(list<int32_t>({3, -4}), 1).dtype(), DType::f32);
  EXPECT_NEAR(logsumexp(list<int64_t>({1, 1})).item(), 1 + std::log(2.0), 4 * epsilon(DType::f32));
  EXPECT_EQ(clamp(list<int32_t>({0, 1}), 0.25, 0.75).to_vector(), (Values{0.25, 0.75}));
  EXPECT_EQ(clamp(list<int32_t>({-5, 1}), -2, INFINITY).dtype(), DType::i32);
  EXPECT_EQ((list<int32_t>({2, -1}) * 1e30).dtype(), DType::f32);
  EXPECT_TRUE(std::isinf((list<int32_t>({2}) * INFINITY).item()));
}

TEST_F(DTypes, ValuesThatATypeDoesNotHoldAreRefused) {
  const Tensor i = list<int32_t>({1, 2}), mask = less(i, of(DType::i32, {}, 2));
  EXPECT_THAT(error_of([&] { masked_fill(i, mask, 0.5); }), HasSubstr("masked_fill: i32 does not hold 0.5"));
  EXPECT_THAT(error_of([&] { masked_fill(i, mask, -INFINITY); }), HasSubstr("i32 does not hold -inf"));
  const int64_t none[] = {0}, one[] = {1};
  EXPECT_THAT(error_of([&] { pad(of(DType::u8, {2}), one, none, -1); }), HasSubstr("pad: u8 does not hold -1"));
  EXPECT_THAT(error_of([&] { arange(*device_, 300, DType::u8); }), HasSubstr("arange: u8 does not hold values from 0 to 299"));
  EXPECT_EQ(masked_fill(i, mask, -7).to_vector(), (Values{-7, 2}));
}

TEST_F(DTypes, UndefinedTensorsAreRefusedEverywhere) {
  const Tensor none;
  for (const auto& use : std::vector<void (*)(const Tensor&)>{[](const Tensor& t) { exp(t); }, [](const Tensor& t) { affine(t, 2); },
                                                              [](const Tensor& t) { relu(t); }, [](const Tensor& t) { sum(t); },
                                                              [](const Tensor& t) { norm(t); }, [](const Tensor& t) { t.shape(); }})
    EXPECT_THAT(error_of([&] { use(none); }), HasSubstr("undefined"));
}

// Factors of a derivative may be beyond the type where it is not.
TEST_F(DTypes, GradientsStayFiniteWhereTheyAre) {
  const auto gradient = [](Tensor leaf, const auto& f) {
    leaf.set_requires_grad();
    return grad(sum(f(leaf)), {leaf})[0].to_vector();
  };
  const Tensor b = cast(list<float>({300}), DType::f16);
  EXPECT_NEAR(gradient(b.detached(), [&](const Tensor& x) { return div(b, x); })[0], -1 / 300.0, 4 * epsilon(DType::f16) / 300);
  EXPECT_NEAR(gradient(list<float>({1e-23f}), [](const Tensor& x) { return div(x.detached(), x); })[0], -1e23, 1e23 * 8 * epsilon(DType::f32));
  Tensor x = cast(list<float>({23, 30, 50, -40, 20}), DType::f16);
  x.set_requires_grad();
  const Tensor first = grad(sum(gelu(x)), {x}, {}, {.create_graph = true})[0];
  for (const double second : grad(sum(first), {x})[0].to_vector()) EXPECT_EQ(second, 0);
}

// A row that is ignored may hold anything, also in a gradient that is recorded.
TEST_F(DTypes, IgnoredRowsOfTheLossMayBeNaN) {
  Tensor logits = reshape(list<float>({0, 1, NAN, 2}), {2, 2});
  logits = logits.detached().set_requires_grad();
  const Tensor loss = cross_entropy(logits, list<int32_t>({0, kIgnoredTarget}));
  const Values recorded = grad(loss, {logits}, {}, {.create_graph = true})[0].to_vector();
  EXPECT_EQ(recorded[2], 0);
  EXPECT_EQ(recorded[3], 0);
  EXPECT_TRUE(std::isfinite(recorded[0]) && std::isfinite(recorded[1]));
}

TEST_F(DTypes, IdsOf64BitsMeanTheSame) {
  const Tensor table = list<float>({1, 2, 3, 4, 5, 6});
  const Tensor rows = reshape(table, {3, 2});
  EXPECT_EQ(embedding(rows, list<int64_t>({2, 0})).to_vector(), (Values{5, 6, 1, 2}));
  const int64_t wraps_to_one = (int64_t(1) << 32) + 1;
  const Values gone = embedding(rows, list<int64_t>({wraps_to_one, -wraps_to_one})).to_vector();
  for (const double v : gone) EXPECT_TRUE(std::isnan(v)) << "an id beyond i32 is out of range, not wrapped";
  const Tensor logits = reshape(table, {2, 3});
  EXPECT_EQ(cross_entropy(logits, list<int64_t>({1, kIgnoredTarget})).item(),
            cross_entropy(logits, list<int32_t>({1, kIgnoredTarget})).item());
}

TEST_F(DTypes, SoftmaxRunsOverAnyAxis) {
  const Tensor x = reshape(arange(*device_, 24, DType::f64, 0, 0.1), {2, 3, 4});
  for (int axis = -3; axis < 3; ++axis) {
    const Values y = sum(softmax(x, axis), {axis}).to_vector();
    for (const double v : y) EXPECT_NEAR(v, 1, 8 * epsilon(DType::f64));
    EXPECT_EQ(softmax(x, axis).to_vector(), transpose(softmax(transpose(x, axis, -1)), axis, -1).to_vector());
    const Values logs = log_softmax(x, axis).to_vector(), direct = softmax(x, axis).to_vector();
    for (size_t i = 0; i < logs.size(); ++i) EXPECT_NEAR(std::exp(logs[i]), direct[i], 8 * epsilon(DType::f64));
  }
  EXPECT_THAT(error_of([&] { softmax(x, 3); }), HasSubstr("axis"));
}

TEST_F(DTypes, WholeRandomNumbersDependOnKeyAndPlaceAlone) {
  const Tensor all = of(DType::i64, {10000}), few = of(DType::i64, {17}), floats = of(DType::f32, {10000}), bytes = of(DType::u8, {10000});
  for (const Tensor& x : {all, few, floats, bytes}) fill_integers_(x, 42, 3, 9);
  const Values v = all.to_vector();
  EXPECT_EQ(few.to_vector(), Values(v.begin(), v.begin() + 17));
  EXPECT_EQ(floats.to_vector(), v);
  EXPECT_EQ(bytes.to_vector(), v);
  std::vector<double> counts(6);
  for (const double x : v) {
    ASSERT_GE(x, 3);
    ASSERT_LT(x, 9);
    ++counts[size_t(x - 3)];
  }
  // Six standard errors of a binomial count.
  for (const double c : counts) EXPECT_NEAR(c, 10000 / 6.0, 6 * std::sqrt(10000 * (1 / 6.0) * (5 / 6.0)));
  fill_integers_(all, 43, 3, 9);
  EXPECT_NE(all.to_vector(), v);
  // Negative ends, and a range of 2^32.
  fill_integers_(all, 1, -(int64_t(1) << 31), int64_t(1) << 31);
  double sign = 0;
  for (const double x : all.to_vector()) sign += x < 0 ? -1 : 1;
  EXPECT_LT(std::abs(sign), 6 * 100.0);
}

TEST_F(DTypes, BernoulliIsZeroOrOne) {
  const Tensor x = of(DType::boolean, {10000}), y = of(DType::f16, {10000});
  fill_bernoulli_(x, 7, 0.3);
  fill_bernoulli_(y, 7, 0.3);
  EXPECT_EQ(x.to_vector(), y.to_vector());
  EXPECT_NEAR(sum(x).item(), 3000, 6 * std::sqrt(10000 * 0.3 * 0.7));
  fill_bernoulli_(x, 7, 0);
  EXPECT_EQ(sum(x).item(), 0);
  fill_bernoulli_(x, 7, 1);
  EXPECT_EQ(sum(x).item(), 10000);
}
}  // namespace
}  // namespace reckon
