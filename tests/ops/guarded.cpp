// Kernels that read places from memory, and those that work on parts of words, touch nothing beyond their tensors: each block has pages of its
// own here, with pages that nobody may touch around.
#include <gtest/gtest.h>

#include "reckon/backend/cpu/device.h"
#include "reckon/cli/op_cases_judge.h"

namespace reckon {
namespace {
TEST(Guarded, DropoutAndRoutingStayWithinTheirTensors) {
  const Ref<Device> device = open_cpu(Mode::real, local_cpu_profile(), Guard::mapping);
  int cases = 0;
  for (const OpCase& c : op_cases()) {
    if (c.op != "dropout" && c.op != "route_top_k" && c.op != "pick_experts" && c.op != "moe_dispatch" && c.op != "moe_combine") continue;
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
      ++cases;
      EXPECT_EQ(judge_values(c, *device, dtype), "");
      if (dtype == DType::f64) {
        EXPECT_EQ(judge_gradients(c, *device), "");
      } else {
        bits_of(c, *device, dtype);  // backward
      }
    }
  }
  EXPECT_GT(cases, 400);
}
}  // namespace
}  // namespace reckon
