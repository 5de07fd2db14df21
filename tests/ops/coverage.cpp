// Every row of the table of operations is run by some case, forward or backward; a new row without one is a failure here.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "reckon/backend/cpu/device.h"
#include "reckon/cli/op_cases_judge.h"
#include "reckon/ops/rows.h"

namespace reckon {
namespace {

TEST(Coverage, EveryRowIsRunByACaseOrListedWithAReason) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  std::set<std::string> run, listed;
  for (const OpCase& c : op_cases())
    for (const std::string& row : rows_of(c, *meta)) run.insert(row);
  for (const UncoveredRow& row : uncovered_rows()) {
    listed.insert(row.op);
    EXPECT_NE(std::string(row.reason), "") << row.op;
    EXPECT_FALSE(run.contains(row.op)) << row.op << " is listed as uncovered, but a case runs it";
  }
  for (const OpDef* row : all_ops())
    EXPECT_TRUE(run.contains(row->name) || listed.contains(row->name))
        << row->name << " has no case: add one to src/reckon/cli/op_cases_*.cpp";
}

// The public functions of the headers of ops, which compose rows or share them.
TEST(Coverage, EveryPublicOperationHasCases) {
  const std::vector<std::string> names = case_ops();
  for (const char* name : {"empty",
                           "full",
                           "zeros",
                           "ones",
                           "arange",
                           "from_values",
                           "causal_mask",
                           "fill_uniform",
                           "fill_normal",
                           "fill_trunc_normal",
                           "view",
                           "reshape",
                           "permute",
                           "diagonal",
                           "rearrange",
                           "reduce",
                           "repeat",
                           "einsum",
                           "pack",
                           "unpack",
                           "transpose",
                           "slice",
                           "select",
                           "expand",
                           "unsqueeze",
                           "squeeze",
                           "contiguous",
                           "cast",
                           "add",
                           "sub",
                           "mul",
                           "div",
                           "maximum",
                           "minimum",
                           "pow",
                           "affine",
                           "neg",
                           "exp",
                           "log",
                           "sqrt",
                           "rsqrt",
                           "square",
                           "reciprocal",
                           "abs",
                           "tanh",
                           "sigmoid",
                           "relu",
                           "gelu",
                           "silu",
                           "equal",
                           "less",
                           "less_equal",
                           "where",
                           "sum",
                           "mean",
                           "max",
                           "sum_to",
                           "softmax",
                           "log_softmax",
                           "matmul",
                           "linear",
                           "layer_norm",
                           "rms_norm",
                           "add_layer_norm",
                           "add_rms_norm",
                           "qk_norm",
                           "swiglu",
                           "embedding",
                           "rope",
                           "attention",
                           "attention_plain",
                           "attention_with_cache",
                           "store_chunk",
                           "store_keys",
                           "attention_chunk",
                           "cross_entropy",
                           "linear_cross_entropy",
                           "linear_cross_entropy_step",
                           "mse_loss",
                           "sum_of_squares",
                           "clip",
                           "split_master",
                           "join_master",
                           "accumulate",
                           "copy",
                           "fill",
                           "concatenate",
                           "stack",
                           "split",
                           "chunk",
                           "index",
                           "flip",
                           "roll",
                           "tile",
                           "repeat_interleave",
                           "pad",
                           "gather",
                           "take_along_axis",
                           "index_select",
                           "scatter",
                           "scatter_add",
                           "index_add",
                           "masked_fill",
                           "tril",
                           "triu",
                           "one_hot",
                           "sort",
                           "argsort",
                           "top_k",
                           "argmax",
                           "argmin",
                           "cumsum",
                           "cumprod",
                           "sin",
                           "cos",
                           "erf",
                           "floor",
                           "ceil",
                           "round",
                           "sign",
                           "log1p",
                           "expm1",
                           "softplus",
                           "gelu_erf",
                           "clamp",
                           "elu",
                           "leaky_relu",
                           "hard_sigmoid",
                           "not_equal",
                           "greater",
                           "greater_equal",
                           "logical_and",
                           "logical_or",
                           "logical_xor",
                           "logical_not",
                           "isnan",
                           "isinf",
                           "min",
                           "prod",
                           "any",
                           "all",
                           "variance",
                           "norm",
                           "logsumexp",
                           "conv2d",
                           "dropout",
                           "route_top_k",
                           "pick_experts",
                           "moe_dispatch",
                           "moe_combine"})
    EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;
}

TEST(Coverage, AnOperationIsNamedOnceInTheTable) {
  const std::vector<std::string> names = case_ops();
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), names.size());
}
}  // namespace
}  // namespace reckon
