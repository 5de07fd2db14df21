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

Tensor random(Device& device, DType dtype, const Shape& shape, uint64_t key, bool wants_gradient = true) {
  Tensor t = empty(device, {shape, dtype});
  fill_normal_(t, key, 0.3, 1.5);
  return t.set_requires_grad(wants_gradient);
}

enum Used : uint8_t { both_results, the_norm, the_sum };

// sum, norm, and the gradients of those of x, residual, weight and bias whose bits are set in `wanted`.
std::vector<Values> results(DType dtype, bool layer, bool with_bias, bool fused, Used used, unsigned wanted) {
  const Ref<Device> device = open_cpu(Mode::real);
  const Tensor x = random(*device, dtype, {kRows, kWidth}, 1, wanted & 1),
               residual = random(*device, dtype, {kRows, kWidth}, 2, wanted & 2);
  const Tensor w = random(*device, dtype, {kWidth}, 3, wanted & 4),
               bias = with_bias ? random(*device, dtype, {kWidth}, 4, wanted & 8) : Tensor();
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
  const Tensor norm = mul(both.norm, from_norm), sums = mul(both.sum, from_sum);
  backward(sum(used == the_norm ? norm : used == the_sum ? sums : add(norm, sums)));
  for (const Tensor& leaf : {x, residual, w, bias}) {
    if (!leaf.defined() || !leaf.requires_grad()) continue;
    found.push_back(leaf.grad().defined() ? leaf.grad().to_vector() : Values(size_t(leaf.numel()), 0.0));
  }
  return found;
}

TEST(AddNorm, HasTheBitsOfSumAndNorm) {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16})
    for (const bool layer : {true, false})
      for (const bool bias : {true, false}) {
        if (bias && !layer) continue;
        SCOPED_TRACE(testing::Message() << name_of(dtype) << (layer ? " layer" : " rms") << (bias ? " with bias" : ""));
        for (unsigned wanted = 1; wanted < (bias ? 16u : 8u); ++wanted)
          for (const Used used : {both_results, the_norm, the_sum}) {
            if (used == the_sum && !(wanted & 3)) continue;  // the sum has no gradient of its own then
            EXPECT_EQ(results(dtype, layer, bias, true, used, wanted), results(dtype, layer, bias, false, used, wanted)) << used << wanted;
          }
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
