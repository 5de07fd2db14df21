// Gradients of gradients.
#include <cmath>

#include "reckon/ops/functional.h"
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

// Values away from kinks, all different.
Values spread(int64_t count) {
  Values v;
  for (int64_t i = 0; i < count; ++i) v.push_back(0.07 + 0.9 * std::sin(double(3 * i + 1)));
  return v;
}

// Each fused row against differences of the first order, whose gradients the fused rules make.
TEST_F(SecondOrder, EveryFusedOperationHasIt) {
  const Tensor x = tensor({2, 6}, spread(12)), w = tensor({6}, spread(6)), b = tensor({6}, spread(6)), m = tensor({3, 6}, spread(18));
  const Tensor r = tensor({2, 6}, Values(12, 0.3)), small = tensor({3}, {0.3, -0.2, 0.5});
  using F = Tensor (*)(const Tensors&);
  const auto agree = [&](F f, const Tensors& in) {
    EXPECT_EQ(gradcheck(f, in), "");
    EXPECT_EQ(gradgradcheck(f, in), "");
  };
  for (const F f : {F([](const Tensors& t) { return tanh(t[0]); }), F([](const Tensors& t) { return sigmoid(t[0]); }),
                    F([](const Tensors& t) { return relu(t[0]); }), F([](const Tensors& t) { return gelu(t[0]); }),
                    F([](const Tensors& t) { return silu(t[0]); }), F([](const Tensors& t) { return swiglu(t[0]); }),
                    F([](const Tensors& t) { return softmax(t[0]); }), F([](const Tensors& t) { return log_softmax(t[0]); }),
                    F([](const Tensors& t) { return max(t[0], {1}); }), F([](const Tensors& t) { return slice(t[0], 1, 1, 6, 2); })})
    agree(f, {x});
  agree([](const Tensors& t) { return layer_norm(t[0], t[1], t[2]); }, {x, w, b});
  agree([](const Tensors& t) { return layer_norm(t[0], t[1], {}); }, {x, w});
  agree([](const Tensors& t) { return rms_norm(t[0], t[1]); }, {x, w});
  agree(
      [](const Tensors& t) {
        const auto [sum, norm] = add_layer_norm(t[0], t[1], t[2], t[3]);
        return mul(sum, norm);
      },
      {x, r, w, b});
  agree(
      [](const Tensors& t) {
        const auto [sum, norm] = add_rms_norm(t[0], t[1], t[2]);
        return mul(sum, norm);
      },
      {x, r, w});
  agree([](const Tensors& t) { return linear(t[0], t[1], t[2]); }, {x, m, small});
  agree([](const Tensors& t) { return matmul(t[0], transpose(t[1])); }, {x, m});
  const Tensor qkv = tensor({1, 3, 8}, spread(24)), q = tensor({2}, {0.5, 1.5}), k = tensor({2}, {1.2, -0.4});
  agree([](const Tensors& t) { return attention(t[0], 2, 1, 2); }, {qkv});
  agree([](const Tensors& t) { return attention(t[0], 2, 1, 2, true, 0.7, 2); }, {qkv});
  agree([](const Tensors& t) { return attention(t[0], 2, 1, 2, false); }, {qkv});
  agree([](const Tensors& t) { return qk_norm(t[0], t[1], t[2], 2, 1, 2); }, {qkv, q, k});
  agree([](const Tensors& t) { return rope(t[0], 3, 2, 100); }, {qkv});
}

TEST_F(SecondOrder, LossesAndEmbeddingsHaveIt) {
  const Tensor x = tensor({3, 4}, spread(12)), w = tensor({5, 4}, spread(20)), logits = tensor({3, 5}, spread(15));
  const Tensor targets = from_values<int32_t>(*device_, {3}, std::vector<int32_t>{4, kIgnoredTarget, 1});
  for (const Reduction reduction : {Reduction::mean, Reduction::sum, Reduction::none}) {
    const CrossEntropyOptions options{reduction, 0.1, 0.05};
    EXPECT_EQ(gradgradcheck([&](const Tensor& t) { return cross_entropy(t, targets, options); }, {logits}), "");
    EXPECT_EQ(gradgradcheck([&](const Tensor& a, const Tensor& b) { return linear_cross_entropy(a, b, targets, options); }, {x, w}), "");
  }
  const Tensor ids = from_values<int32_t>(*device_, {3}, std::vector<int32_t>{2, 0, 2});
  EXPECT_EQ(gradgradcheck([&](const Tensor& table) { return square(embedding(table, ids)); }, {w}), "");
}

TEST_F(SecondOrder, TheThirdDerivativeOfGelu) {
  const auto derivative = [](const Tensor& x) { return grad(sum(gelu(x)), {x}, {}, kRecord)[0]; };
  const auto second = [&](const Tensor& x) { return grad(sum(derivative(x)), {x}, {}, kRecord)[0]; };
  EXPECT_EQ(gradcheck(second, {tensor({4}, {-1.3, -0.2, 0.4, 2})}), "");
}

TEST_F(SecondOrder, AFirstGradientHasTheSameBitsRecordedOrNot) {
  const Tensor x = leaf({2, 6}, spread(12)), w = leaf({3, 6}, spread(18)), b = leaf({3}, spread(3));
  const Tensor y = softmax(swiglu(gelu(tanh(silu(sigmoid(relu(x)))))));
  const auto same = [&](const Tensor& root, const Tensors& at) {
    const Tensors recorded = grad(root, at, {}, kRecord), plain = grad(root, at, {}, {.retain_graph = true});
    for (size_t i = 0; i < at.size(); ++i) {
      EXPECT_TRUE(recorded[i].requires_grad()) << i;
      EXPECT_EQ(recorded[i].to_vector(), plain[i].to_vector()) << i;
    }
  };
  same(sum(square(y)), {x});
  same(sum(square(linear(x, w, b))), {x, w, b});
  same(sum(square(log_softmax(x))), {x});
}

// Gradients of earlier keys gather in place, outside of any graph.
TEST_F(SecondOrder, ChunksOfASequenceRefuseIt) {
  const Tensor qkv = leaf({1, 2, 6}, spread(12)), k = zeros(*device_, {{1, 1, 2, 2}, DType::f64});
  const Tensor sums = zeros(*device_, {{1, 1, 2, key_sum_width(2)}, DType::f64});
  const SequenceKeys keys{k, zeros(*device_, k.spec()), sums, zeros(*device_, sums.spec())};
  store_keys(qkv.detached(), keys, 0, 1, 1, 2);
  const Tensor y = sum(square(attention_chunk(qkv, keys, 0, 1, 1, 2)));
  EXPECT_THAT(error_of([&] { grad(y, {qkv}, {}, kRecord); }), HasSubstr("attention_chunk_back: has no gradient rule"));
}

TEST_F(SecondOrder, WithoutCreateGraphGradientsAreConstants) {
  const Tensor x = scalar_leaf(3);
  EXPECT_FALSE(grad(square(x), {x})[0].requires_grad());
  backward(square(x));
  EXPECT_FALSE(x.grad().requires_grad());
}
}  // namespace
}  // namespace reckon
