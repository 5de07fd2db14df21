// Kernels that read places from memory, and those that work on parts of words, touch nothing beyond their tensors: each block has pages of
// its own here, with pages that nobody may touch around.
#include <gtest/gtest.h>

#include <algorithm>
#include <string_view>

#include "reckon/backend/cpu/device.h"
#include "reckon/cli/op_cases_judge.h"

namespace reckon {
namespace {
void expect_within(const std::vector<std::string_view>& ops, int least) {
  const Ref<Device> device = open_cpu(Mode::real, local_cpu_profile(), Guard::mapping);
  int cases = 0;
  for (const OpCase& c : op_cases()) {
    if (std::find(ops.begin(), ops.end(), c.op) == ops.end()) continue;
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
  EXPECT_GT(cases, least);
}

TEST(Guarded, DropoutAndRoutingStayWithinTheirTensors) {
  expect_within({"dropout", "route_top_k", "pick_experts", "moe_dispatch", "moe_combine"}, 400);
}
TEST(Guarded, PlacesStayWithinTheirTensors) {
  expect_within({"cumsum", "top_k", "argmax", "tril", "index_add", "embedding", "conv2d", "contiguous"}, 600);
}
}  // namespace
}  // namespace reckon
