// What the operations say to wrong inputs, to requests for gradients that they do not have, and at the edges of their domains.
#include <cmath>

#include "reckon/ops/dtypes.h"
#include "reckon/ops/rows.h"
#include "reckon/ops/training.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {

class Ops : public OnCpu {
 protected:
  Tensor ids(const std::vector<int32_t>& values) { return from_values<int32_t>(*device_, {int64_t(values.size())}, values); }
};

TEST_F(Ops, RowsWithoutARuleSaySo) {
  const Tensor x = leaf({2}, {1, 2});
  EXPECT_THAT(error_of([&] { sum_of_squares(x); }), HasSubstr("sum_of_squares: has no gradient rule"));
  const NoGrad guard;
  EXPECT_EQ(sum_of_squares(x).item(), 5);
}

TEST_F(Ops, EveryRowHasARuleOrRefuses) {
  // A row without a rule that silently gave untracked results would lose gradients.
  for (const OpDef* row : all_ops())
    EXPECT_TRUE(row->vjp || row->keep.in == 0) << row->name << " keeps inputs for a rule that it does not have";
}

TEST_F(Ops, TypesThatAreNotTakenAreRefused) {
  const Tensor f = ones(*device_, {{2}, DType::f32}), d = ones(*device_, {{2}, DType::f64}), i = ones(*device_, {{2}, DType::i32});
  const Tensor b = ones(*device_, {{2}, DType::boolean}), e = ones(*device_, {{2}, DType::f8e5m2});
  // Public functions promote; a row takes one dtype.
  EXPECT_THAT(error_of([&] { call(op::add, {f, d}); }), HasSubstr("add: dtypes differ: f32 and f64; cast one of them"));
  EXPECT_THAT(error_of([&] { call(op::exp, {i}); }), HasSubstr("exp: wants a floating-point tensor, got i32"));
  EXPECT_THAT(error_of([&] { call(op::div, {i, i}); }), HasSubstr("div: wants a floating-point tensor, got i32"));
  EXPECT_THAT(error_of([&] { call(op::affine, {i}, AffineParams{0.5, 0}); }), HasSubstr("affine: 0.5 x + 0 is not taken of i32"));
  EXPECT_THAT(error_of([&] { call(op::affine, {i}, AffineParams{1e19, 0}); }), HasSubstr("is not taken of i32"));
  EXPECT_THAT(error_of([&] { where(f, f, f); }), HasSubstr("where: the condition is f32, not bool"));
  EXPECT_THAT(error_of([&] { add(f, e); }), AllOf(HasSubstr("add: f32 and f8e5m2 do not meet"), HasSubstr("(inputs: f32[2] f8e5m2[2])")));
  EXPECT_THAT(error_of([&] { add(f, Tensor()); }), HasSubstr("add: an input is undefined"));
  EXPECT_THAT(error_of([&] { sub(b, b); }), HasSubstr("sub: has no bool arithmetic"));
  EXPECT_THAT(error_of([&] { neg(b); }), HasSubstr("neg: has no bool arithmetic"));
  EXPECT_THAT(error_of([&] { softmax(i); }), HasSubstr("wants a floating-point tensor"));
  EXPECT_THAT(error_of([&] { mean(i); }), HasSubstr("mean: i32[2] has no room for a mean of whole numbers"));
  EXPECT_THAT(error_of([&] { fill_uniform_(i, 1); }), HasSubstr("random: i32 takes whole numbers only"));
  EXPECT_THAT(error_of([&] { fill_integers_(f, 1, 0, (1 << 24) + 2); }), HasSubstr("f32 holds whole numbers from -16777216 to 16777216"));
  EXPECT_THAT(error_of([&] { fill_integers_(i, 1, 3, 3); }), HasSubstr("wants low < high, got 3 and 3"));
  EXPECT_THAT(error_of([&] { fill_bernoulli_(i, 1, 1.5); }), HasSubstr("a probability is in [0, 1], got 1.5"));
  EXPECT_THAT(error_of([&] { matmul(ones(*device_, {{2, 2}, DType::f32}), ones(*device_, {{2, 2}, DType::f64})); }),
              HasSubstr("wants two matrices of one dtype other than bool, got f32[2, 2] and f64[2, 2]"));
  EXPECT_THAT(error_of([&] { matmul(ones(*device_, {{2, 2}, DType::boolean}), ones(*device_, {{2, 2}, DType::boolean})); }), HasSubstr("other than bool"));
}

TEST_F(Ops, ShapesThatDoNotFitAreRefused) {
  const auto f = [&](const Shape& s) { return ones(*device_, {s, DType::f32}); };
  EXPECT_THAT(error_of([&] { matmul(f({2, 3}), f({2, 3})); }), HasSubstr("inner sizes differ"));
  EXPECT_THAT(error_of([&] { matmul(f({3}), f({3, 2})); }), HasSubstr("at least two axes"));
  EXPECT_THAT(error_of([&] { matmul(f({2, 2, 3}), f({3, 3, 2})); }), HasSubstr("broadcast"));
  EXPECT_THAT(error_of([&] { linear(f({2, 3}), f({4, 2})); }), HasSubstr("inner sizes differ"));
  EXPECT_THAT(error_of([&] { linear(f({2, 3}), f({4, 3}), f({3})); }), HasSubstr("bias"));
  EXPECT_THAT(error_of([&] { layer_norm(f({2, 3}), f({2}), {}); }), HasSubstr("does not match the last axis"));
  EXPECT_THAT(error_of([&] { rms_norm(f({}), f({1})); }), HasSubstr("at least one axis"));
  EXPECT_THAT(error_of([&] { qk_norm(f({2, 9}), f({2}), f({2}), 2, 1, 2); }), HasSubstr("is not [..., 8]"));
  EXPECT_THAT(error_of([&] { swiglu(f({2, 3})); }), HasSubstr("must be even"));
  EXPECT_THAT(error_of([&] { embedding(f({2, 3}), f({2})); }), HasSubstr("ids must be i32"));
  EXPECT_THAT(error_of([&] { rope(f({1, 2, 6}), 1, 3, 1e4); }), HasSubstr("odd"));
  EXPECT_THAT(error_of([&] { rope(f({1, 2, 6}), 2, 4, 1e4); }), HasSubstr("do not fit"));
  EXPECT_THAT(error_of([&] { rope(f({2, 6}), 1, 2, 1e4); }), HasSubstr("[B, T, heads D]"));
  EXPECT_THAT(error_of([&] { attention(f({1, 2, 8}), 2, 1, 3); }), HasSubstr("is not [B, T, 12]"));
  EXPECT_THAT(error_of([&] { attention(f({1, 2, 21}), 3, 2, 3); }), HasSubstr("not a multiple"));
  EXPECT_THAT(error_of([&] { attention(f({1, 2, 12}), 2, 1, 3, true, 0, -1); }), HasSubstr("a window of -1 tokens"));
  EXPECT_THAT(error_of([&] { attention(f({1, 2, 12}), 2, 1, 3, false, 0, 4); }), HasSubstr("attention causal"));
  EXPECT_THAT(error_of([&] { attention_plain(f({1, 2, 12}), 2, 1, 3, false, 0, 4); }), HasSubstr("attention causal"));
  EXPECT_THAT(error_of([&] { attention(f({1, 1, 257 * 3}), 1, 1, 257); }), HasSubstr("outside 1 to 256"));
  EXPECT_THAT(error_of([&] { cross_entropy(f({2, 3}), ids({0, 1, 2})); }), HasSubstr("targets"));
  EXPECT_THAT(error_of([&] { max(f({2, 0}), {1}); }), HasSubstr("empty axis"));
  EXPECT_THAT(error_of([&] { mean(f({2, 0}), {1}); }), HasSubstr("empty axis"));
  EXPECT_THAT(error_of([&] { sum(f({2}), {1}); }), HasSubstr("out of range"));
  EXPECT_THAT(error_of([&] { softmax(f({})); }), HasSubstr("at least one axis"));
  EXPECT_THAT(error_of([&] { arange(*device_, -1); }), HasSubstr("negative"));
  EXPECT_THAT(error_of([&] { fill_trunc_normal_(f({2}), 1, 1, 0); }), HasSubstr("bound > 0"));
  EXPECT_EQ(live(), 0);
}

TEST_F(Ops, AnIdOutsideTheTableGivesNaNAndNoGradient) {
  const Tensor table = leaf({2, 2}, {1, 2, 3, 4});
  const Tensor y = embedding(table, ids({1, 2, -1, 0}));
  const Values v = y.to_vector();
  EXPECT_THAT(Values(v.begin(), v.begin() + 2), ElementsAre(3, 4));
  for (size_t i = 2; i < 6; ++i) EXPECT_TRUE(std::isnan(v[i])) << i;
  EXPECT_THAT(Values(v.begin() + 6, v.end()), ElementsAre(1, 2));
  backward(y, ones(*device_, y.spec()));
  EXPECT_THAT(table.grad().to_vector(), ElementsAre(1, 1, 1, 1));
}

TEST_F(Ops, LossesRefuseOptionsAndOperandsThatTheyDoNotTake) {
  const Tensor x = leaf({2, 3}, {1, 2, 3, 4, 5, 6}), w = leaf({4, 3}, Values(12)), targets = ids({0, 1});
  EXPECT_THAT(error_of([&] { cross_entropy(x, targets, {.label_smoothing = 1}); }), HasSubstr("label_smoothing must be in [0, 1), got 1"));
  EXPECT_THAT(error_of([&] { linear_cross_entropy(x, w, targets, {.z_loss = -1}); }), HasSubstr("z_loss must be in [0, 1e6], got -1"));
  EXPECT_THAT(error_of([&] { linear_cross_entropy(x, w, ids({0})); }), HasSubstr("targets i32[1] do not match f64[2, 3]"));
  EXPECT_THAT(error_of([&] { linear_cross_entropy(x, transpose(w), targets); }), HasSubstr("inner sizes differ"));
  EXPECT_THAT(error_of([&] { linear_cross_entropy(x, cast(w, DType::f32), targets); }), HasSubstr("differ in dtype"));
  EXPECT_THAT(error_of([&] { linear_cross_entropy_step(x, w, targets, tensor({}, {1})); }), HasSubstr("has no slot for it"));
  const Tensor frozen = w.detached();
  EXPECT_THAT(error_of([&] { linear_cross_entropy_step(x, frozen, targets, tensor({2}, {1, 1})); }),
              HasSubstr("the seed f64[2] does not match the loss f64[]"));
}

// A weight that is not trained gets no gradient and costs no product.
TEST_F(Ops, AFrozenHeadHasNoWeightGradient) {
  const Tensor x = leaf({2, 3}, {1, 2, 3, 4, 5, 6}), w = tensor({4, 3}, {1, 0, 2, 1, 3, 0, 1, 1, 1, 0, 0, 2}), targets = ids({3, 1});
  Meter meter;
  {
    const MeterScope scope(meter);
    backward(linear_cross_entropy(x, w, targets));
  }
  EXPECT_EQ(meter.total().model, 2 * (2 * 2 * 3 * 4));
  const LossAndGradient head = linear_cross_entropy_step(x.detached(), w, targets, tensor({}, {1}));
  const Values a = x.grad().to_vector(), b = head.dx.to_vector();
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-15);
  EXPECT_FALSE(linear_cross_entropy_step(x.detached(), w, targets, tensor({}, {1}), {}, false).dx.defined());
}

TEST_F(Ops, AStepTakesOverItsInputIfNobodyElseHasIt) {
  const Tensor w = tensor({4, 3}, Values(12, 0.5)), targets = ids({3, 1}), seed = tensor({}, {1});
  Tensor x = tensor({2, 3}, {1, 2, 3, 4, 5, 6});
  const Tensor held = x;
  const void* place = x.raw();
  EXPECT_NE(linear_cross_entropy_step(x, w, targets, seed).dx.raw(), place);
  EXPECT_THAT(held.to_vector(), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_EQ(linear_cross_entropy_step(tensor({2, 3}, {1, 2, 3, 4, 5, 6}), w, targets, seed).dx.numel(), 6);
  x = tensor({2, 3}, {1, 2, 3, 4, 5, 6});
  place = x.raw();
  EXPECT_EQ(linear_cross_entropy_step(std::move(x), w, targets, seed).dx.raw(), place);
}

TEST_F(Ops, ALossWithoutTargetsIsNotANumber) {
  const Tensor x = leaf({2, 3}, {1, 2, 3, 4, 5, 6});
  EXPECT_TRUE(std::isnan(cross_entropy(x, ids({kIgnoredTarget, kIgnoredTarget})).item()));
  EXPECT_TRUE(std::isnan(cross_entropy(x, ids({0, 3})).item())) << "a target outside the classes";
}

TEST_F(Ops, IgnoredTargetsGetNoGradient) {
  const Tensor x = leaf({2, 3}, {1, 2, 3, 4, 5, 6});
  backward(cross_entropy(x, ids({kIgnoredTarget, 1})));
  const Values g = x.grad().to_vector();
  EXPECT_THAT(Values(g.begin(), g.begin() + 3), ElementsAre(0, 0, 0));
  EXPECT_LT(g[4], 0);
}

TEST_F(Ops, TiesShareTheirGradient) {
  const Tensor a = leaf({3}, {1, 2, 3}), b = leaf({3}, {3, 2, 1});
  backward(sum(maximum(a, b)));
  EXPECT_THAT(a.grad().to_vector(), ElementsAre(0, 0.5, 1));
  EXPECT_THAT(b.grad().to_vector(), ElementsAre(1, 0.5, 0));
  const Tensor x = leaf({4}, {2, 5, 5, 1});
  backward(max(x));
  EXPECT_THAT(x.grad().to_vector(), ElementsAre(0, 0.5, 0.5, 0));
  const Tensor zero = leaf({2}, {0, -0.0});
  backward(sum(add(abs(zero), relu(zero))));
  EXPECT_THAT(zero.grad().to_vector(), ElementsAre(0, 0));
}

TEST_F(Ops, ACastPassesTheGradientOnInTheTypeOfItsInput) {
  for (const DType from : {DType::f32, DType::f64, DType::bf16, DType::f16})
    for (const DType to : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
      const Tensor x = cast(tensor({3}, {1, 2, 3}), from).detached().set_requires_grad();
      backward(cast(x, to), cast(tensor({3}, {0.5, -2, 0.1}), to));
      EXPECT_EQ(x.grad().dtype(), from);
      const Values want = cast(cast(tensor({3}, {0.5, -2, 0.1}), to), from).to_vector();
      EXPECT_EQ(x.grad().to_vector(), want) << name_of(from) << " to " << name_of(to);
    }
  const Tensor x = leaf({3}, {1, 2, 3});
  EXPECT_FALSE(cast(x, DType::i32).requires_grad());
}

TEST_F(Ops, FusedAttentionIsPlainAttention) {
  for (const auto& [heads, kv_heads, T] : {std::array<int64_t, 3>{1, 1, 5}, {4, 2, 33}, {3, 1, 70}, {2, 2, 129}})
    for (const int64_t window : {-1, 0, 4, 40}) {  // -1: without a mask
      const int64_t D = 6, seen = std::max<int64_t>(window, 0);
      const bool causal = window >= 0;
      Tensor fused = empty(*device_, {{2, T, (heads + 2 * kv_heads) * D}, DType::f64});
      fill_normal_(fused, uint64_t(T));
      Tensor plain = from_values<double>(*device_, fused.shape(), fused.to_vector());
      fused.set_requires_grad(), plain.set_requires_grad();
      const Tensor a = attention(fused, heads, kv_heads, D, causal, 0, seen);
      const Tensor b = attention_plain(plain, heads, kv_heads, D, causal, 0, seen);
      Tensor seed = empty(*device_, a.spec());
      fill_normal_(seed, 3);
      backward(a, seed), backward(b, seed);
      const Values ya = a.to_vector(), yb = b.to_vector(), ga = fused.grad().to_vector(), gb = plain.grad().to_vector();
      // Results are averages of values of size 1; gradients are sums of T of them.
      for (size_t i = 0; i < ya.size(); ++i) ASSERT_NEAR(ya[i], yb[i], 16 * epsilon(DType::f64) * std::sqrt(double(T)) * 4);
      for (size_t i = 0; i < ga.size(); ++i) ASSERT_NEAR(ga[i], gb[i], 16 * epsilon(DType::f64) * double(T) * 4);
    }
}

TEST_F(Ops, ACacheFilledTokenByTokenGivesTheSameAttention) {
  const int64_t B = 2, T = 9, H = 4, KV = 2, D = 6, width = (H + 2 * KV) * D;
  const Tensor qkv = empty(*device_, {{B, T, width}, DType::f64});
  fill_normal_(qkv, 1);
  const Tensor k = zeros(*device_, {{B, KV, 12, D}, DType::f64}), v = zeros(*device_, k.spec());
  const Values whole = attention(qkv, H, KV, D).to_vector();
  int64_t t = 0;
  for (const int64_t count : {3, 1, 1, 4}) {
    const Tensor part =
        attention_with_cache(slice(qkv, 1, t, t + count), k, v, from_values<int64_t>(*device_, {1}, std::vector<int64_t>{t}), H, KV, D);
    const Values got = part.to_vector();
    for (int64_t b = 0; b < B; ++b)
      for (int64_t i = 0; i < count * H * D; ++i)
        ASSERT_NEAR(got[size_t(b * count * H * D + i)], whole[size_t((b * T + t) * H * D + i)], 16 * epsilon(DType::f64) * 4)
            << "token " << t;
    t += count;
  }
}

// ---- what the math library says of special values, every kernel must say, too
TEST_F(Ops, SpecialValuesAreThoseOfTheMathLibrary) {
  struct Function {
    const char* name;
    Tensor (*run)(const Tensor&);
    double (*reference)(double);
  };
  const Function functions[] = {
      {"exp", exp, [](double x) { return std::exp(x); }},
      {"log", log, [](double x) { return std::log(x); }},
      {"sqrt", sqrt, [](double x) { return std::sqrt(x); }},
      {"rsqrt", rsqrt, [](double x) { return 1 / std::sqrt(x); }},
      {"reciprocal", reciprocal, [](double x) { return 1 / x; }},
      {"square", square, [](double x) { return x * x; }},
      {"abs", abs, [](double x) { return std::abs(x); }},
      {"neg", neg, [](double x) { return -x; }},
      {"tanh", tanh, [](double x) { return std::tanh(x); }},
      {"sigmoid", sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }},
      {"relu", relu, [](double x) { return std::isnan(x) ? x : std::max(x, 0.0); }},
  };
  const Values special{0.0, -0.0, INFINITY, -INFINITY, NAN, 1, -1, 700, -700, 30, -30};
  for (const Function& f : functions)
    for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16}) {
      // Once alone and once deep in a vector: heads and tails of kernels agree.
      for (const int64_t repeat : {1, 9}) {
        Values in;
        for (int64_t r = 0; r < repeat; ++r) in.insert(in.end(), special.begin(), special.end());
        const Tensor x = cast(tensor({int64_t(in.size())}, in), dtype);
        const Values got = f.run(x).to_vector(), exact = x.to_vector();
        for (size_t i = 0; i < got.size(); ++i) {
          const double want = f.reference(exact[i]);
          const double kept = cast(scalar(want), dtype).item();
          if (std::isnan(kept) || std::isinf(kept) || kept == 0) {
            EXPECT_TRUE(std::isnan(kept) ? std::isnan(got[i]) : got[i] == kept)
                << f.name << "(" << exact[i] << ") in " << name_of(dtype) << ": " << got[i] << ", not " << kept;
          } else {
            EXPECT_NEAR(got[i], want, std::abs(want) * 4 * epsilon(dtype) + (dtype == DType::f16 ? 0x1p-24 : 0x1p-126))
                << f.name << "(" << exact[i] << ") in " << name_of(dtype);
          }
        }
      }
    }
}
}  // namespace
}  // namespace reckon
