// Gradients of gradients.
#include <cmath>

#include "tests/engine/support.h"

namespace reckon {
namespace {

class SecondOrder : public OnCpu {
 protected:
  static constexpr BackwardOptions kRecord{.create_graph = true};
};

TEST_F(SecondOrder, CubesByMultiplication) {
  const Tensor x = scalar_leaf(3);
  const Tensor first = grad(mul(x, mul(x, x)), {x}, {}, kRecord)[0];
  EXPECT_EQ(first.item(), 27);
  const Tensor second = grad(first, {x}, {}, kRecord)[0];
  EXPECT_EQ(second.item(), 18);
  EXPECT_EQ(grad(second, {x})[0].item(), 6);
}

TEST_F(SecondOrder, ExpIsItsOwnDerivativeTenTimes) {
  // exp keeps its output: the rule must differentiate through it, not treat it as a constant.
  const Tensor x = scalar_leaf(0.7);
  Tensor y = exp(x);
  for (int order = 1; order <= 10; ++order) {
    y = grad(y, {x}, {}, kRecord)[0];
    EXPECT_NEAR(y.item(), std::exp(0.7), 1e-14 * order) << order;
  }
}

TEST_F(SecondOrder, RootsAndReciprocals) {
  const Tensor x = scalar_leaf(4);
  EXPECT_NEAR(grad(grad(sqrt(x), {x}, {}, kRecord)[0], {x})[0].item(), -0.25 * std::pow(4, -1.5), 1e-15);
  EXPECT_NEAR(grad(grad(rsqrt(x), {x}, {}, kRecord)[0], {x})[0].item(), 0.75 * std::pow(4, -2.5), 1e-15);
  EXPECT_NEAR(grad(grad(reciprocal(x), {x}, {}, kRecord)[0], {x})[0].item(), 2 * std::pow(4, -3), 1e-15);
  EXPECT_NEAR(grad(grad(log(x), {x}, {}, kRecord)[0], {x})[0].item(), -1.0 / 16, 1e-15);
}

TEST_F(SecondOrder, AHessianThroughMatmul) {
  // f(W) = sum((W v)^2): the Hessian along D is 2 D v v^T.
  const Tensor w = leaf({2, 2}, {1, 2, 3, 4}), v = tensor({2, 1}, {5, 7});
  const Tensor g = grad(sum(square(matmul(w, v))), {w}, {}, kRecord)[0];
  const Tensor along = grad(sum(mul(g, tensor({2, 2}, {1, 0, 0, 1}))), {w})[0];
  EXPECT_THAT(along.to_vector(), ElementsAre(2 * 25, 2 * 35, 2 * 35, 2 * 49));
}

TEST_F(SecondOrder, BackwardWithCreateGraphMakesDifferentiableGrads) {
  const Tensor x = leaf({2}, {2, 3});
  backward(sum(mul(x, mul(x, x))), {}, kRecord);
  const Tensor penalty = sum(square(x.grad()));  // (3 x^2)^2 = 9 x^4
  EXPECT_THAT(grad(penalty, {x})[0].to_vector(), ElementsAre(36 * 8, 36 * 27));
}

TEST_F(SecondOrder, AFusedOperationRefusesClearly) {
  const Tensor x = leaf({1, 3}, {1, 2, 3});
  for (const auto& f :
       {+[](const Tensor& t) { return gelu(t); }, +[](const Tensor& t) { return softmax(t); }, +[](const Tensor& t) { return tanh(t); }}) {
    EXPECT_THAT(error_of([&] {
                  const Tensor g = grad(sum(square(f(x))), {x}, {}, kRecord)[0];
                  grad(sum(g), {x});
                }),
                HasSubstr("has no gradient rule"));
  }
}

TEST_F(SecondOrder, WithoutCreateGraphGradientsAreConstants) {
  const Tensor x = scalar_leaf(3);
  EXPECT_FALSE(grad(square(x), {x})[0].requires_grad());
  backward(square(x));
  EXPECT_FALSE(x.grad().requires_grad());
}
}  // namespace
}  // namespace reckon
