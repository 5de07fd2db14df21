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

// A division by zero key-value heads ended the program.
TEST_F(GradientIssue, AttentionWithoutKeysIsAnError) {
  const Tensor qkv = tensor({1, 1, 4}, {1, 2, 3, 4});
  EXPECT_THAT(error_of([&] { attention_plain(qkv, 1, 0, 4); }), HasSubstr("attention_plain"));
  EXPECT_THAT(error_of([&] { attention(qkv, 1, 0, 4); }), HasSubstr("0 key-value heads"));
}
}  // namespace
}  // namespace reckon
