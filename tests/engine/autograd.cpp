// Gradients arrive where they should: leaves, slots, results; once or summed.
#include <cmath>

#include "tests/engine/support.h"

namespace reckon {
namespace {

class Autograd : public OnCpu {};

TEST_F(Autograd, ALeafGetsItsGradient) {
  const Tensor x = leaf({2}, {3, 4});
  EXPECT_FALSE(x.grad().defined());
  backward(sum(mul(x, x)));
  EXPECT_THAT(x.grad().to_vector(), ElementsAre(6, 8));
}

TEST_F(Autograd, GradientsAccumulateUntilTheyAreZeroed) {
  Tensor x = leaf({2}, {3, 4});
  backward(sum(mul(x, x)));
  backward(sum(x));
  EXPECT_THAT(x.grad().to_vector(), ElementsAre(7, 9));
  x.zero_grad();
  EXPECT_FALSE(x.grad().defined());
  backward(sum(x));
  EXPECT_THAT(x.grad().to_vector(), ElementsAre(1, 1));
}

TEST_F(Autograd, AGradientInHandDoesNotChangeWhenMoreArrives) {
  const Tensor x = leaf({2}, {3, 4});
  backward(sum(x));
  const Tensor before = x.grad();
  backward(sum(x));
  EXPECT_THAT(before.to_vector(), ElementsAre(1, 1));
  EXPECT_THAT(x.grad().to_vector(), ElementsAre(2, 2));
}

TEST_F(Autograd, TwoLeavesNeverShareOneGradient) {
  // add hands the same tensor to both; accumulating into one must not show in the other.
  const Tensor a = leaf({2}, {1, 2}), b = leaf({2}, {3, 4});
  const Tensor seed = tensor({2}, {5, 6});
  backward(add(a, b), seed);
  backward(add(a, a), seed);
  EXPECT_THAT(a.grad().to_vector(), ElementsAre(15, 18));
  EXPECT_THAT(b.grad().to_vector(), ElementsAre(5, 6));
  EXPECT_THAT(seed.to_vector(), ElementsAre(5, 6));
}

TEST_F(Autograd, ASlotIsOverwrittenWhenEmptyAndAddedToWhenNot) {
  Tensor x = leaf({2}, {3, 4});
  const Tensor slot = tensor({2}, {1e9, 1e9});
  x.set_grad_slot(slot);
  EXPECT_FALSE(x.grad().defined());
  backward(sum(mul(x, x)));
  EXPECT_TRUE(x.grad().same_storage(slot));
  EXPECT_THAT(slot.to_vector(), ElementsAre(6, 8));
  backward(sum(x));
  EXPECT_THAT(slot.to_vector(), ElementsAre(7, 9));
  x.zero_grad();
  EXPECT_FALSE(x.grad().defined());
  EXPECT_THAT(slot.to_vector(), ElementsAre(7, 9)) << "set_to_none leaves the memory as it is";
  backward(sum(x));
  EXPECT_THAT(slot.to_vector(), ElementsAre(1, 1));
  EXPECT_TRUE(x.grad().same_storage(slot));
}

TEST_F(Autograd, ASlotMayBeWiderThanItsLeaf) {
  Tensor x = from_values<float>(*device_, {2}, std::vector<float>{3, 4});
  x = cast(x, DType::bf16).set_requires_grad();
  const Tensor slot = zeros(*device_, {{2}, DType::f32});
  x.set_grad_slot(slot);
  for (int i = 0; i < 3; ++i) backward(sum(affine(x, 1.0 / 256)), {});
  EXPECT_EQ(x.grad().dtype(), DType::f32);
  EXPECT_THAT(slot.to_vector(), ElementsAre(3.0 / 256, 3.0 / 256));
}

TEST_F(Autograd, ASlotOfAnotherShapeOrTypeIsRefused) {
  Tensor x = leaf({2}, {3, 4});
  EXPECT_THAT(error_of([&] { x.set_grad_slot(zeros(*device_, {{3}, DType::f64})); }), HasSubstr("does not fit"));
  EXPECT_THAT(error_of([&] { x.set_grad_slot(zeros(*device_, {{2}, DType::i32})); }), HasSubstr("does not fit"));
}

TEST_F(Autograd, ATensorUsedTwiceGetsBothContributions) {
  const Tensor x = scalar_leaf(3);
  backward(add(mul(x, x), affine(x, 10)));
  EXPECT_EQ(x.grad().item(), 16);
}

TEST_F(Autograd, ADiamondSumsBeforeItGoesOn) {
  // x -> y -> (a, b) -> z: y's rule must run once, on the sum.
  const Tensor x = scalar_leaf(2), y = square(x);
  int visits = 0;
  node_of(y)->add_hook(
      [](const Node&, Tensors& dy, void* count) {
        ++*static_cast<int*>(count);
        EXPECT_EQ(dy[0].item(), 2 * 4 + 3);
      },
      &visits);
  backward(add(square(y), affine(y, 3)));
  EXPECT_EQ(visits, 1);
  EXPECT_EQ(x.grad().item(), (2 * 4 + 3) * 2 * 2);
}

TEST_F(Autograd, ManyDiamondsTakeOneVisitEach) {
  const Tensor x = scalar_leaf(1);
  Tensor y = x;
  for (int i = 0; i < 60; ++i) y = add(y, y);  // by paths: 2^60 visits
  backward(y);
  EXPECT_EQ(x.grad().item(), 0x1p60);
}

TEST_F(Autograd, OnlyWhatIsWantedIsComputed) {
  const Tensor a = leaf({2, 3}, Values(6, 1)), b = tensor({3, 4}, Values(12, 1));
  const Tensor y = matmul(a, b);
  Meter meter;
  const MeterScope scope(meter);
  backward(y, ones(*device_, y.spec()));
  int products = 0;
  for (const MeterRow& row : meter.rows())
    if (std::string_view(row.op) == "matmul") products += int(row.calls);
  EXPECT_EQ(products, 1) << "b needs no gradient";
  EXPECT_FALSE(b.grad().defined());
}

TEST_F(Autograd, SeedsAreChecked) {
  const Tensor x = leaf({2}, {1, 2});
  EXPECT_THAT(error_of([&] { backward(mul(x, x)); }), HasSubstr("give the gradient of each element as seed"));
  EXPECT_THAT(error_of([&] { backward(mul(x, x), tensor({3}, {1, 2, 3})); }), HasSubstr("does not match"));
  EXPECT_THAT(error_of([&] { backward(sum(tensor({2}, {1, 2}))); }), HasSubstr("not the result of a recorded operation"));
}

TEST_F(Autograd, ALeafMayItselfBeTheRoot) {
  const Tensor x = scalar_leaf(3);
  backward(x);
  EXPECT_EQ(x.grad().item(), 1);
}

TEST_F(Autograd, NoGradRecordsNothingAndEnableGradUndoesIt) {
  const Tensor x = scalar_leaf(3);
  {
    const NoGrad off;
    EXPECT_FALSE(square(x).requires_grad());
    {
      const EnableGrad on;
      EXPECT_TRUE(square(x).requires_grad());
      const NoGrad off_again;
      EXPECT_FALSE(square(x).requires_grad());
    }
    EXPECT_FALSE(square(x).requires_grad());
  }
  EXPECT_TRUE(square(x).requires_grad());
  try {
    const NoGrad off;
    fail("out of the scope");
  } catch (const Error&) {
  }
  EXPECT_TRUE(context().grad_enabled);
}

TEST_F(Autograd, IntegersAndResultsCannotBeMarked) {
  Tensor whole = arange(*device_, 3);
  EXPECT_THAT(error_of([&] { whole.set_requires_grad(); }), HasSubstr("only floating-point"));
  Tensor y = square(scalar_leaf(2));
  EXPECT_THAT(error_of([&] { y.set_requires_grad(false); }), HasSubstr("leaves"));
  EXPECT_TRUE(y.requires_grad());
}

TEST_F(Autograd, DetachedTensorsStopGradients) {
  const Tensor x = scalar_leaf(3);
  backward(mul(x, square(x).detached()));
  EXPECT_EQ(x.grad().item(), 9);
}

TEST_F(Autograd, HooksSeeAndReplaceGradients) {
  const Tensor x = scalar_leaf(3), y = square(x), z = affine(y, 5);
  node_of(y)->add_hook(
      [](const Node& node, Tensors& dy, void*) {
        EXPECT_STREQ(node.name(), "square");
        dy[0] = affine(dy[0], 100);
      },
      nullptr);
  backward(z);
  EXPECT_EQ(x.grad().item(), 5 * 100 * 6);
}

TEST_F(Autograd, OutputsWithoutAContributionCountAsZero) {
  // Only statistics go unused here; the gradient of the values alone must come through.
  const Tensor x = leaf({1, 4}, {1, 2, 3, 5}), w = leaf({4}, {1, 1, 1, 1});
  backward(sum(layer_norm(x, w, {})));
  for (const double g : x.grad().to_vector()) EXPECT_NEAR(g, 0, 1e-12);
}

// ---- grad()
TEST_F(Autograd, GradGivesGradientsOfLeavesAndResultsAndTouchesNoLeaf) {
  const Tensor x = scalar_leaf(3), w = scalar_leaf(2), y = mul(x, w), z = square(y);
  const Tensors g = grad(z, {x, y, z, w});
  EXPECT_EQ(g[0].item(), 2 * 6 * 2);
  EXPECT_EQ(g[1].item(), 2 * 6);
  EXPECT_EQ(g[2].item(), 1);
  EXPECT_EQ(g[3].item(), 2 * 6 * 3);
  EXPECT_FALSE(x.grad().defined());
  EXPECT_FALSE(w.grad().defined());
}

TEST_F(Autograd, GradLeavesSlotsAlone) {
  Tensor x = leaf({2, 2}, {1, 2, 3, 4}), w = leaf({2, 2}, {1, 0, 0, 1});
  const Tensor slot = tensor({2, 2}, {7, 7, 7, 7});
  w.set_grad_slot(slot);
  const Tensors g = grad(sum(linear(x, w)), {w});
  EXPECT_THAT(g[0].to_vector(), ElementsAre(4, 6, 4, 6));
  EXPECT_THAT(slot.to_vector(), ElementsAre(7, 7, 7, 7));
  EXPECT_FALSE(w.grad().defined());
}

TEST_F(Autograd, GradOfSomethingElseIsAnErrorUnlessItIsAllowed) {
  const Tensor x = scalar_leaf(3), other = scalar_leaf(1), plain = scalar(2), y = square(x);
  EXPECT_THAT(error_of([&] {
                grad(y, {x, other}, {}, {.retain_graph = true});
              }),
              AllOf(HasSubstr("grad: input 1, f64[], is not reached from f64[]"), HasSubstr("allow_unused")));
  EXPECT_THAT(error_of([&] { grad(y, {plain}); }), HasSubstr("grad: input 0, f64[], does not require a gradient"));
  const Tensors g = grad(y, {other, x, plain}, {}, {.allow_unused = true});
  EXPECT_FALSE(g[0].defined());
  EXPECT_EQ(g[1].item(), 6);
  EXPECT_FALSE(g[2].defined());
}

TEST_F(Autograd, GradOfSeveralRootsIsTheSumOverThem) {
  const Tensor x = leaf({2}, {3, 4}), w = leaf({2}, {1, 2}), y = mul(x, w), z = square(x);
  const Tensors g = grad({y, z}, {x, w}, {tensor({2}, {1, 10}), tensor({2}, {1, 1})});
  EXPECT_THAT(g[0].to_vector(), ElementsAre(1 + 6, 20 + 8));
  EXPECT_THAT(g[1].to_vector(), ElementsAre(3, 40));
  EXPECT_FALSE(x.grad().defined());
  EXPECT_THAT(error_of([&] { grad({sum(x), sum(w)}, {x}, {scalar(1)}); }), HasSubstr("1 seeds for 2 tensors"));
  EXPECT_THAT(error_of([&] { grad({sum(x), square(x)}, {x}); }), HasSubstr("give the gradient of each element as seed"));
  // One of them inside the other's graph.
  const Tensor a = square(x), b = mul(a, a);
  EXPECT_THAT(grad({b, a}, {x}, {ones(*device_, b.spec()), ones(*device_, a.spec())})[0].to_vector(), ElementsAre(4 * 27 + 6, 4 * 64 + 8));
}

TEST_F(Autograd, BackwardOfSeveralRootsAccumulatesTheirSum) {
  const Tensor x = scalar_leaf(3);
  backward({square(x), affine(x, 10)});
  EXPECT_EQ(x.grad().item(), 16);
}

TEST_F(Autograd, GradVisitsOnlyWhatLeadsToItsInputs) {
  const Tensor x = scalar_leaf(3), w = scalar_leaf(2), side = exp(w), y = mul(square(x), side);
  Meter meter;
  {
    const MeterScope scope(meter);
    grad(y, {x});
  }
  // dy, dy side, 2 x and the product: nothing for exp, and no gradient of its result.
  int64_t products = 0;
  for (const MeterRow& row : meter.rows()) products += std::string_view(row.op) == "mul" ? row.calls : 0;
  EXPECT_EQ(products, 2);
  backward(side);  // so its graph is still there
  EXPECT_DOUBLE_EQ(w.grad().item(), std::exp(2.0));
}

TEST_F(Autograd, GradStopsAtResultsThatNothingIsAskedBehind) {
  const Tensor x = scalar_leaf(3), y = exp(x), z = square(y);
  EXPECT_DOUBLE_EQ(grad(z, {y})[0].item(), 2 * std::exp(3.0));
  backward(y);  // y's own node was not run, and is not released
  EXPECT_DOUBLE_EQ(x.grad().item(), std::exp(3.0));
}

// ---- a graph is used once
TEST_F(Autograd, GradThroughAReleasedGraphSaysThatItWasReleased) {
  const Tensor x = leaf({2}, {1, 2}), y = sum(mul(x, x));
  grad(y, {x});
  EXPECT_THAT(error_of([&] { grad(y, {x}); }), HasSubstr("through a released graph; pass retain_graph"));
  EXPECT_THAT(error_of([&] { grad(y, {x}, {}, {.allow_unused = true}); }), HasSubstr("through a released graph; pass retain_graph"));
}

TEST_F(Autograd, ASecondBackwardThroughAReleasedGraphIsAnError) {
  const Tensor x = leaf({2}, {1, 2});
  const Tensor kept = sum(mul(x, x));
  backward(kept);
  EXPECT_THAT(error_of([&] { backward(kept); }), HasSubstr("retain_graph"));
  // The same for rules that keep nothing.
  const Tensor plain = add(x, x), seed = ones(*device_, plain.spec());
  backward(plain, seed);
  EXPECT_THAT(error_of([&] { backward(plain, seed); }), HasSubstr("retain_graph"));
}

TEST_F(Autograd, RetainGraphAllowsIt) {
  const Tensor x = leaf({2}, {1, 2});
  const Tensor y = sum(mul(x, exp(x)));
  backward(y, {}, {.retain_graph = true});
  const Values once = x.grad().to_vector();
  backward(y);
  EXPECT_THAT(x.grad().to_vector(), ElementsAre(2 * once[0], 2 * once[1]));
  EXPECT_THAT(error_of([&] { backward(y); }), HasSubstr("retain_graph"));
}

TEST_F(Autograd, AnOperationWithoutARuleRefusesTrackedInputs) {
  const Tensor x = leaf({2}, {1, 2}), plain = tensor({2}, {1, 2});
  const Tensor position = arange(*device_, 1), cache = zeros(*device_, {{1, 1, 4, 1}, DType::f64});
  const Tensor qkv = leaf({1, 2, 3}, Values(6, 1));
  EXPECT_THAT(error_of([&] { attention_with_cache(qkv, cache, cache, position, 1, 1, 1); }),
              HasSubstr("attention_with_cache: has no gradient rule"));
  // Random fills are outside of autograd: they may fill a leaf, which stays one.
  fill_normal_(x, 1);
  EXPECT_TRUE(x.is_leaf() && x.requires_grad());
  EXPECT_FALSE(equal(x, plain).requires_grad()) << "results that carry no gradient need no rule";
}

TEST_F(Autograd, AKeptTensorThatChangedIsAnError) {
  const Tensor x = leaf({2}, {1, 2}), w = tensor({2}, {3, 4});
  const Tensor y = sum(mul(x, w));
  fill_uniform_(w, 5);
  EXPECT_THAT(error_of([&] { backward(y); }), HasSubstr("mul: input 1 was changed in place"));

  const Tensor v = tensor({4}, {3, 4, 5, 6}), part = slice(v, 0, 0, 2);
  const Tensor z = sum(mul(x, part));
  fill_uniform_(v, 5);  // through another view of the same storage
  EXPECT_THAT(error_of([&] { backward(z); }), HasSubstr("changed in place"));

  const Tensor u = exp(x), t = sum(u);
  const Values zeros_of_two(2);
  u.write(zeros_of_two.data(), 16);  // exp keeps its output
  EXPECT_THAT(error_of([&] { backward(t); }), HasSubstr("exp: output 0 was changed in place"));
}

TEST_F(Autograd, AnUnrelatedChangeIsNot) {
  const Tensor x = leaf({2}, {1, 2}), w = tensor({2}, {3, 4});
  const Tensor y = sum(add(x, w));  // add keeps nothing
  fill_uniform_(w, 5);
  backward(y);
  EXPECT_THAT(x.grad().to_vector(), ElementsAre(1, 1));
}
}  // namespace
}  // namespace reckon
