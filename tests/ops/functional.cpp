// Derivatives of functions: products with the Jacobian, the Jacobian and the Hessian, and the checks by differences.
#include "reckon/ops/functional.h"

#include <cmath>

#include "tests/engine/support.h"

namespace reckon {
namespace {

class Functional : public OnCpu {
 protected:
  Tensor x_ = tensor({3}, {0.5, -1, 2});
};

TEST_F(Functional, TheJacobianOfAnElementWiseFunctionIsDiagonal) {
  const Tensor j = jacobian([](const Tensor& t) { return exp(t); }, x_);
  ASSERT_EQ(j.shape(), (Shape{3, 3}));
  EXPECT_FALSE(j.requires_grad());
  for (int i = 0; i < 3; ++i)
    for (int k = 0; k < 3; ++k) EXPECT_DOUBLE_EQ(j.to_vector()[size_t(3 * i + k)], i == k ? std::exp(x_.to_vector()[size_t(i)]) : 0);
}

TEST_F(Functional, TheJacobianHasTheAxesOfBoth) {
  const Tensor a = tensor({2, 2}, {1, 2, 3, 4}), b = tensor({2, 3}, {1, 0, 2, -1, 3, 1});
  const Tensor j = jacobian([&](const Tensor& t) { return matmul(t, b); }, a);
  ASSERT_EQ(j.shape(), (Shape{2, 3, 2, 2}));  // d y[i, n] / d a[r, k] = b[k, n] where i = r
  const Values v = j.to_vector(), values = b.to_vector();
  for (int i = 0; i < 2; ++i)
    for (int n = 0; n < 3; ++n)
      for (int r = 0; r < 2; ++r)
        for (int k = 0; k < 2; ++k) EXPECT_EQ(v[size_t(((i * 3 + n) * 2 + r) * 2 + k)], i == r ? values[size_t(k * 3 + n)] : 0);
}

TEST_F(Functional, ProductsAgreeWithTheJacobian) {
  const auto f = [](const Tensor& t) { return softmax(mul(gelu(t), t)); };
  const Tensor v = tensor({3}, {0.3, 1, -0.7}), j = jacobian(f, x_);
  const auto [y, moved] = jvp(f, {x_}, {v});
  const auto [y2, pulled] = vjp(f, {x_}, {v});
  EXPECT_EQ(y[0].to_vector(), f(x_).to_vector());
  EXPECT_EQ(y2[0].to_vector(), y[0].to_vector());
  const Values want = matmul(j, unsqueeze(v, 1)).to_vector(), back = matmul(unsqueeze(v, 0), j).to_vector();
  const double tolerance = 8 * 0x1p-52 * 3;  // a handful of operations on numbers up to 3
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(moved[0].to_vector()[i], want[i], tolerance);
    EXPECT_NEAR(pulled[0].to_vector()[i], back[i], tolerance);
  }
}

TEST_F(Functional, WhatTheProductsCost) {
  const Tensor x = ones(*device_, {{4, 8}, DType::f64}), w = ones(*device_, {{16, 8}, DType::f64}),
               y = ones(*device_, {{4, 16}, DType::f64});
  const int64_t product = 2 * 4 * 8 * 16;
  const auto work = [](auto f) {
    Meter meter;
    const MeterScope scope(meter);
    f();
    return meter.total().matmul;
  };
  const auto constant = [&](const Tensor& t) { return linear(t, w); };
  EXPECT_EQ(work([&] { jvp(constant, {x}, {x}); }), 3 * product);
  EXPECT_EQ(work([&] { vjp(constant, {x}, {y}); }), 2 * product);
  EXPECT_EQ(work([&] { jvp([](const Tensor& a, const Tensor& b) { return linear(a, b); }, {x, w}, {x, w}); }), 5 * product);
}

TEST_F(Functional, SeveralInputsAndResults) {
  const auto f = [](const Tensor& a, const Tensor& b) { return Tensors{mul(a, b), sum(square(b))}; };
  const Tensor a = tensor({2}, {2, 3}), b = tensor({2}, {5, 7}), da = tensor({2}, {1, 0}), db = tensor({2}, {0, 1});
  const auto moved = jvp(f, {a, b}, {da, db}).derivatives;
  EXPECT_THAT(moved[0].to_vector(), ElementsAre(5, 3));
  EXPECT_EQ(moved[1].item(), 14);
  const auto pulled = vjp(f, {a, b}, {tensor({2}, {1, 1}), scalar(10)}).derivatives;
  EXPECT_THAT(pulled[0].to_vector(), ElementsAre(5, 7));
  EXPECT_THAT(pulled[1].to_vector(), ElementsAre(2 + 100, 3 + 140));
}

TEST_F(Functional, TheHessianAndItsProduct) {
  // f = sum(x)^3: every second derivative is 6 sum(x).
  const auto cube = [](const Tensor& t) { return pow(sum(t), full(t.device(), {{}, DType::f64}, 3)); };
  const Tensor h = hessian(cube, x_);
  ASSERT_EQ(h.shape(), (Shape{3, 3}));
  for (const double v : h.to_vector()) EXPECT_NEAR(v, 9, 1e-14);
  // Through fused operations: the product with a vector is the matrix times it.
  const auto f = [](const Tensor& t) { return sum(square(layer_norm(gelu(t), arange(t.device(), 3, DType::f64, 1), {}))); };
  const Tensor v = tensor({3}, {1, -2, 0.5}), matrix = hessian(f, x_);
  const auto [value, product] = hvp(f, x_, v);
  EXPECT_DOUBLE_EQ(value[0].item(), f(x_).item());
  const Values want = matmul(matrix, unsqueeze(v, 1)).to_vector(), m = matrix.to_vector();
  double largest = 0;
  for (const double e : m) largest = std::max(largest, std::fabs(e));
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(product[0].to_vector()[i], want[i], 32 * 0x1p-52 * largest);
    for (size_t k = 0; k < 3; ++k) EXPECT_NEAR(m[3 * i + k], m[3 * k + i], 32 * 0x1p-52 * largest) << "it is symmetric";
  }
}

TEST_F(Functional, WhatDoesNotDependIsZero) {
  const auto constant = [](const Tensor& t) { return ones(t.device(), {{2}, DType::f64}); };
  const auto linear_sum = [](const Tensor& t) { return sum(affine(t, 3)); };
  EXPECT_EQ(jacobian(constant, x_).to_vector(), Values(6, 0));
  EXPECT_EQ(jvp(constant, {x_}, {x_}).derivatives[0].to_vector(), Values(2, 0));
  EXPECT_EQ(vjp(linear_sum, {x_}).derivatives[0].to_vector(), Values(3, 3));
  EXPECT_EQ(hessian(linear_sum, x_).to_vector(), Values(9, 0));
  EXPECT_EQ(hvp(linear_sum, x_, x_).derivatives[0].to_vector(), Values(3, 0));
}

TEST_F(Functional, NobodysGradientChangesAndCapturesAreConstants) {
  const Tensor w = leaf({3}, {1, 2, 3}), x = Tensor(x_.detached()).set_requires_grad();
  const auto f = [&](const Tensor& t) { return sum(mul(square(t), w)); };
  hessian(f, x);
  vjp(f, {x});
  EXPECT_FALSE(w.grad().defined() || x.grad().defined());
  const NoGrad off;
  EXPECT_THAT(vjp(f, {x_}).derivatives[0].to_vector(), ElementsAre(1, -4, 12)) << "it records by itself";
}

TEST_F(Functional, OnMetaItIsTheSame) {
  const auto run = [](Mode mode) {
    const Ref<Device> device = open_cpu(mode);
    const Tensor x = ones(*device, {{2, 4}, DType::f32});
    const auto f = [](const Tensor& t) { return sum(square(softmax(gelu(t)))); };
    hessian(f, x);
    jvp(f, {x}, {x});
    return std::pair(device->allocator().trace_hash(), device->allocator().ledger().peak);
  };
  EXPECT_EQ(run(Mode::real), run(Mode::meta));
}

TEST_F(Functional, MistakesAreNamed) {
  const auto f = [](const Tensor& t) { return exp(t); };
  EXPECT_THAT(error_of([&] { jvp(f, {x_}, {scalar(1)}); }), HasSubstr("jvp: tangent 0 is f64[], but what it belongs to is f64[3]"));
  EXPECT_THAT(error_of([&] { jvp(f, {x_}, {}); }), HasSubstr("jvp: 0 tangent for 1 tensors"));
  EXPECT_THAT(error_of([&] { vjp(f, {x_}, {scalar(1)}); }), HasSubstr("vjp: cotangent 0"));
  EXPECT_THAT(error_of([&] { hessian(f, x_); }), HasSubstr("hessian: wants a function with a scalar result, this one gives f64[3]"));
  EXPECT_THAT(error_of([&] { jacobian(f, arange(*device_, 3)); }), HasSubstr("is not a floating-point tensor"));
  EXPECT_THAT(error_of([&] { jacobian(f, view(ones(*device_, {{1}, DType::f64}), {1, 1, 1, 1, 1})); }), HasSubstr("10 axes"));
  EXPECT_THAT(error_of([&] { jvp(f, {x_, x_}, {x_, x_}); }), HasSubstr("the function takes 1 tensors, 2 are given"));
}

TEST_F(Functional, ChecksFindWrongGradients) {
  EXPECT_EQ(gradcheck([](const Tensor& t) { return exp(t); }, {x_}), "");
  EXPECT_THAT(gradcheck([](const Tensor& t) { return mul(t, t.detached()); }, {x_}), HasSubstr("gradient in input 0 at element 0"));
  // Right at first order, wrong at second.
  const auto half_right = [](const Tensor& t) { return add(mul(t, affine(t, 2).detached()), neg(square(t)).detached()); };
  EXPECT_EQ(gradcheck(half_right, {x_}), "");
  EXPECT_THAT(gradgradcheck(half_right, {x_}), HasSubstr("second derivative in input 0"));
  EXPECT_THAT(error_of([&] { gradcheck([](const Tensor& t) { return exp(t); }, {cast(x_, DType::f32)}); }), HasSubstr("is not float64"));
}
}  // namespace
}  // namespace reckon
