// Gradients that were silently wrong, or programs that ended where an error belongs; each story stands above its test.
#include <cmath>
#include <limits>

#include "reckon/ops/rows.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {
class GradientIssue : public OnCpu {
 protected:
  static constexpr double kInfinity = std::numeric_limits<double>::infinity();
};

// A float64 seed of a float32 loss passed (only shapes were compared) and cross_entropy_back read half of its bytes as a float.
TEST_F(GradientIssue, ASeedHasTheDtypeOfItsTensor) {
  const Tensor logits = Tensor(from_values<float>(*device_, {1, 2}, std::vector<float>{1, 2})).set_requires_grad();
  const Tensor loss = cross_entropy(logits, from_values<int32_t>(*device_, {1}, std::vector<int32_t>{0}));
  EXPECT_THAT(error_of([&] { backward(loss, scalar(1)); }), HasSubstr("seed f64[] does not match the tensor f32[]"));
}

TEST_F(GradientIssue, AHookGivesWhatTheNodeWants) {
  const Tensor x = leaf({2}, {1, 2}), y = exp(x);
  node_of(y)->add_hook([](const Node&, Tensors& dy, void*) { dy[0] = cast(dy[0], DType::f32); }, nullptr);
  EXPECT_THAT(error_of([&] { backward(sum(y)); }), HasSubstr("exp: a hook gave f32[2]"));
}

// Rows that only write in place have no outputs, and "all of no outputs are detached" let them pass: the gradient ignored the writing.
TEST_F(GradientIssue, WritingIntoAResultOfTheGraphIsRefused) {
  const Tensor x = leaf({2}, {1, 2}), y = affine(x, 2);
  EXPECT_THAT(error_of([&] { fill_uniform_(y, 1); }), HasSubstr("random: input 0 is written"));
  EXPECT_THAT(y.to_vector(), ElementsAre(2, 4));
  fill_uniform_(x, 1, 5, 5);
  EXPECT_THAT(x.to_vector(), ElementsAre(5, 5)) << "a leaf may be filled";
  const NoGrad guard;
  fill_uniform_(y, 1, 6, 6);
  EXPECT_THAT(y.to_vector(), ElementsAre(6, 6));
}

// Where the condition chose the other side, the gradient was 0 * dy: NaN for an infinite dy.
TEST_F(GradientIssue, WhatWasNotChosenGetsZeroWhateverArrives) {
  const Tensor a = leaf({2}, {1, 2}), b = leaf({2}, {3, 1});
  const Tensor condition = less(a, b), seed = tensor({2}, {kInfinity, -kInfinity});
  backward(where(condition, a, b), seed);
  EXPECT_THAT(a.grad().to_vector(), ElementsAre(kInfinity, 0));
  EXPECT_THAT(b.grad().to_vector(), ElementsAre(0, -kInfinity));
  const Tensor c = leaf({2}, {1, 2}), d = leaf({2}, {3, 1});
  backward(maximum(c, d), seed);
  EXPECT_THAT(c.grad().to_vector(), ElementsAre(0, -kInfinity));
  EXPECT_THAT(d.grad().to_vector(), ElementsAre(kInfinity, 0));
  const Tensor x = leaf({2}, {kInfinity, -kInfinity});
  backward(sum(abs(x)));
  EXPECT_THAT(x.grad().to_vector(), ElementsAre(1, -1));
}

// A block whose parameters are frozen, below the first that learns: backward ran it again and found nothing to differentiate.
// Now it is a constant of the graph.
TEST_F(GradientIssue, AFrozenCheckpointedBlockEndsThePass) {
  const Tensor frozen = scalar(3), x = tensor({2}, {1, 2}), w = leaf({2}, {5, 7});
  const Tensor y = checkpoint([&](const Tensors& in) { return mul(in[0], frozen); }, tensors(x));
  backward(sum(mul(y, w)));
  EXPECT_THAT(w.grad().to_vector(), ElementsAre(3, 6));
}

// The kernel writes statistics of 4 or 8 bytes an element; into a bfloat16 slot it wrote beyond the end.
TEST_F(GradientIssue, AnEmbeddingGradientGoesIntoASlotOfAnyDtype) {
  const Tensor table = Tensor(from_values<float>(*device_, {2, 1}, std::vector<float>{1, 2})).set_requires_grad();
  Tensor handle = table;
  const Tensor slot = zeros(*device_, {{2, 1}, DType::bf16});
  handle.set_grad_slot(slot);
  for (int pass = 1; pass <= 2; ++pass) {
    backward(sum(embedding(table, from_values<int32_t>(*device_, {3}, std::vector<int32_t>{1, 1, 0}))));
    EXPECT_THAT(slot.to_vector(), ElementsAre(pass, 2 * pass));
  }
}

// stop - start + step - 1 passed 2^63.
TEST_F(GradientIssue, ASliceMayStepOverEverything) {
  const Tensor x = leaf({3}, {1, 2, 3}), y = slice(x, 0, 1, 3, std::numeric_limits<int64_t>::max());
  EXPECT_THAT(y.to_vector(), ElementsAre(2));
  backward(sum(y));
  EXPECT_THAT(x.grad().to_vector(), ElementsAre(0, 1, 0));
}

// The gradient of the exponent was a^b log a = 0 * -inf = NaN at base 0, and that of the base 0 * 0^-1 = NaN at exponent 0.
TEST_F(GradientIssue, APowerOfZeroHasGradients) {
  const Values bases{0, 0, 0, -0.0, 2}, exponents{2, 0.5, 0, 3, 3};
  const Tensor a = leaf({5}, bases), b = leaf({5}, exponents);
  backward(sum(pow(a, b)));
  EXPECT_THAT(a.grad().to_vector(), ElementsAre(0, kInfinity, 0, 0, 12));
  EXPECT_THAT(b.grad().to_vector(), ElementsAre(0, 0, 0, 0, testing::DoubleNear(8 * std::log(2), 1e-14)));
  // A negative power has no finite slope there; torch.pow says the same.
  const Tensor c = leaf({1}, {0}), d = leaf({1}, {-1});
  backward(sum(pow(c, d)));
  EXPECT_THAT(c.grad().to_vector(), ElementsAre(-kInfinity));
  EXPECT_THAT(d.grad().to_vector(), ElementsAre(-kInfinity));
  // One exponent for all bases, and half as many bits.
  const Tensor x = Tensor(cast(tensor({3}, {0, 1, 2}), DType::bf16)).set_requires_grad(),
               n = Tensor(cast(tensor({1}, {2}), DType::bf16)).set_requires_grad();
  backward(sum(pow(x, n)));
  EXPECT_THAT(x.grad().to_vector(), ElementsAre(0, 2, 4));
  EXPECT_NEAR(n.grad().item(), 4 * std::log(2), 2 * epsilon(DType::bf16) * 4 * std::log(2))
      << "log, product and sum round, half an epsilon each";
}

TEST_F(GradientIssue, APowerOfZeroHasSecondGradients) {
  // The curvature of a^2 in a is 2; a^2 log a has slope 0 at 0.
  const Tensor a = scalar_leaf(0), b = scalar_leaf(2);
  const Tensors first = grad(pow(a, b), {a, b}, {}, {.create_graph = true});
  EXPECT_EQ(grad(first[0], {a}, {}, {.retain_graph = true})[0].item(), 2);
  EXPECT_EQ(grad(first[1], {a}, {}, {.retain_graph = true})[0].item(), 0);
  EXPECT_EQ(grad(first[1], {b})[0].item(), 0);
}

// The caches had the new keys already when the second of the two operations refused the gradient.
TEST_F(GradientIssue, ARefusedCachedAttentionLeavesTheCachesAlone) {
  const Tensor position = arange(*device_, 1), k = zeros(*device_, {{1, 1, 4, 1}, DType::f64}), v = zeros(*device_, k.spec());
  const Tensor learns = leaf({1, 2, 3}, Values(6, 1)), plain = tensor({1, 2, 3}, Values(6, 1));
  Tensor tracked_cache = zeros(*device_, k.spec());
  tracked_cache.set_requires_grad();
  EXPECT_THAT(error_of([&] { attention_with_cache(learns, k, v, position, 1, 1, 1); }),
              HasSubstr("attention_with_cache: has no gradient rule"));
  EXPECT_THAT(error_of([&] { attention_with_cache(plain, k, tracked_cache, position, 1, 1, 1); }), HasSubstr("has no gradient rule"));
  for (const Tensor& cache : {k, v, tracked_cache}) EXPECT_THAT(cache.to_vector(), ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(error_of([&] {
                call(op::kv_append, {learns, k, v, position}, AttentionParams{1, 1, 1, 1, true});
              }),
              HasSubstr("kv_append: has no gradient rule"))
      << "what is written would be cut off from the graph";
  EXPECT_THAT(k.to_vector(), ElementsAre(0, 0, 0, 0));
  const NoGrad guard;
  attention_with_cache(learns, k, v, position, 1, 1, 1);
  EXPECT_THAT(k.to_vector(), ElementsAre(1, 1, 0, 0));
}

// A checkpoint's result required a gradient although nothing in it did: backward ran the segment again for nothing, and a result that
// should have been a constant refused set_requires_grad and kept its inputs alive.
TEST_F(GradientIssue, ACheckpointRequiresAGradientIfItsSegmentWould) {
  const Tensor x = tensor({2}, {1, 2}), frozen = tensor({2}, {3, 4}), learns = leaf({2}, {5, 6});
  const auto result = [&](const Tensor& in, auto segment) {
    return checkpoint([&](const Tensors& t) { return segment(t[0]); }, tensors(in));
  };
  const auto times_frozen = [&](const Tensor& t) { return mul(t, frozen); };
  EXPECT_FALSE(result(x, times_frozen).requires_grad());
  EXPECT_TRUE(result(x, times_frozen).is_leaf());
  EXPECT_TRUE(result(learns, times_frozen).requires_grad()) << "an input";
  EXPECT_TRUE(result(x, [&](const Tensor& t) { return mul(t, learns); }).requires_grad()) << "a parameter that the segment captured";
  EXPECT_TRUE(result(x, [&](const Tensor& t) { return result(t, [&](const Tensor& u) { return mul(u, learns); }); }).requires_grad());
  EXPECT_FALSE(result(x, [&](const Tensor& t) { return result(t, times_frozen); }).requires_grad());
  // What is cut off inside is cut off outside.
  EXPECT_FALSE(result(learns, [&](const Tensor& t) { return exp(t.detached()); }).requires_grad());
  EXPECT_FALSE(result(learns, [&](const Tensor& t) { return cast(less(t, frozen), DType::f64); }).requires_grad());
  EXPECT_FALSE(result(learns, [&](const Tensor& t) {
                 const NoGrad guard;
                 return exp(t);
               }).requires_grad());
  EXPECT_TRUE(result(learns, [](const Tensor& t) { return t; }).requires_grad());
  EXPECT_FALSE(result(x, [](const Tensor& t) { return t; }).requires_grad());
  const NoGrad guard;
  EXPECT_FALSE(result(learns, times_frozen).requires_grad());
}

TEST_F(GradientIssue, AFrozenCheckpointRunsOnceAndKeepsNothing) {
  const Tensor frozen = tensor({2}, {3, 4}), learns = leaf({2}, {5, 6});
  int runs = 0;
  Tensor loss;
  {
    Tensor x = tensor({2}, {1, 2});
    const int64_t before = live();
    Tensor y = checkpoint([&](const Tensors& in) { return ++runs, mul(in[0], frozen); }, tensors(std::move(x)));
    EXPECT_EQ(live(), before) << "its input went, its result came";
    loss = sum(mul(y, learns));
  }
  backward(loss);
  EXPECT_EQ(runs, 1);
  EXPECT_THAT(learns.grad().to_vector(), ElementsAre(3, 8));
}

// A division by zero key-value heads ended the program.
TEST_F(GradientIssue, AttentionWithoutKeysIsAnError) {
  const Tensor qkv = tensor({1, 1, 4}, {1, 2, 3, 4});
  EXPECT_THAT(error_of([&] { attention_plain(qkv, 1, 0, 4); }), HasSubstr("attention_plain"));
  EXPECT_THAT(error_of([&] { attention(qkv, 1, 0, 4); }), HasSubstr("0 key-value heads"));
}
}  // namespace
}  // namespace reckon
