// What a fused group's kernels count in their loops is what its calls are charged: fusion changes no count.
#include <gtest/gtest.h>

#include "reckon/backend/cpu/count.h"
#include "reckon/backend/cpu/device.h"
#include "reckon/engine/compile.h"
#include "reckon/ops/ops.h"

namespace reckon {
namespace {
TEST(CountedFused, AGroupDoesTheWorkOfItsCalls) {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16})
    for (const Shape& shape : {Shape{3, 5}, Shape{301, 77}, Shape{5, 5000}}) {
      const Ref<Device> device = open_cpu(Mode::real);
      CompiledStep step = compile(*device, [](const Tensors& in) -> Tensors {
        const Tensor t = gelu(affine(mul(in[0], in[1]), 0.5, 1));
        return {where(less(t, in[0]), tanh(t), silu(sub(t, in[1]))), sum(square(t), {-1}), sum(pow(abs(t), in[1]))};
      });
      const Tensor x = empty(*device, {shape, dtype}), row = empty(*device, {{shape.last()}, dtype});
      fill_normal_(x, 1);
      fill_normal_(row, 2);
      const CompiledPlan& plan = step.plan({x, row});
      ASSERT_FALSE(plan.groups.empty());
      cpu::take_counted();
      step({x, row});
      EXPECT_EQ(cpu::take_counted().vector, plan.unfused.flops.vector) << name_of(dtype);
      EXPECT_EQ(plan.run.flops, plan.unfused.flops);
    }
}
}  // namespace
}  // namespace reckon
