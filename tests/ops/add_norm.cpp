// tests/ops/add_norm: sum and norm in one pass give the bits of the two operations that they replace, forward and backward.
#include <gtest/gtest.h>

#include "reckon/backend/cpu/device.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/ops/ops.h"

namespace reckon {
namespace {
constexpr int64_t kRows = 37, kWidth = 83;

using Values = std::vector<double>;

Tensor random(Device& device, DType dtype, const Shape& shape, uint64_t key) {
  Tensor t = empty(device, {shape, dtype});
  fill_normal_(t, key, 0.3, 1.5);
  return t.set_requires_grad();
}

// sum, norm, and the gradients of x, residual, weight and bias where both results are used.
std::vector<Values> results(DType dtype, bool layer, bool with_bias, bool fused, bool use_sum) {
  const Ref<Device> device = open_cpu(Mode::real);
  const Tensor x = random(*device, dtype, {kRows, kWidth}, 1), residual = random(*device, dtype, {kRows, kWidth}, 2);
  const Tensor w = random(*device, dtype, {kWidth}, 3), bias = with_bias ? random(*device, dtype, {kWidth}, 4) : Tensor();
  SumAndNorm both;
  if (fused) {
    both = layer ? add_layer_norm(x, residual, w, bias) : add_rms_norm(x, residual, w);
  } else {
    both.sum = add(x, residual);
    both.norm = layer ? layer_norm(both.sum, w, bias) : rms_norm(both.sum, w);
  }
  std::vector<Values> found = {both.sum.to_vector(), both.norm.to_vector()};
  const Tensor from_sum = empty(*device, both.sum.spec()), from_norm = empty(*device, both.sum.spec());
  fill_normal_(from_sum, 5);
  fill_normal_(from_norm, 6);
  const Tensor loss = use_sum ? add(mul(both.norm, from_norm), mul(both.sum, from_sum)) : mul(both.norm, from_norm);
  backward(sum(loss));
  for (const Tensor& leaf : {x, residual, w, bias})
    if (leaf.defined()) found.push_back(leaf.grad().to_vector());
  return found;
}

TEST(AddNorm, HasTheBitsOfSumAndNorm) {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16})
    for (const bool layer : {true, false})
      for (const bool bias : {true, false}) {
        if (bias && !layer) continue;
        SCOPED_TRACE(testing::Message() << name_of(dtype) << (layer ? " layer" : " rms") << (bias ? " with bias" : ""));
        EXPECT_EQ(results(dtype, layer, bias, true, true), results(dtype, layer, bias, false, true));
        EXPECT_EQ(results(dtype, layer, bias, true, false), results(dtype, layer, bias, false, false));
      }
}

// The sum takes the place of what nobody else holds.
TEST(AddNorm, WritesTheSumWhereATermWas) {
  const Ref<Device> device = open_cpu(Mode::real);
  const NoGrad guard;
  const Tensor w = random(*device, DType::f32, {kWidth}, 3);
  Tensor x = empty(*device, {{kRows, kWidth}, DType::f32}), residual = empty(*device, x.spec());
  fill_normal_(x, 1);
  fill_normal_(residual, 2);
  const void* const place = residual.raw();
  const SumAndNorm both = add_rms_norm(x, std::move(residual), w);
  EXPECT_EQ(both.sum.raw(), place);
}

TEST(AddNorm, RefusesTermsThatDiffer) {
  const Ref<Device> device = open_cpu(Mode::meta);
  const Tensor x = empty(*device, {{2, 3}, DType::f32}), y = empty(*device, {{3}, DType::f32}), w = empty(*device, {{3}, DType::f32});
  EXPECT_THROW(add_rms_norm(x, y, w), Error);
  EXPECT_THROW(add_layer_norm(x, x, empty(*device, {{2}, DType::f32}), w), Error);
}
}  // namespace
}  // namespace reckon
