// engine/fused: what a backend is told of a fused group: element-wise calls over one shape, run in one pass. It knows neither how groups
// are found nor how they are run.
#pragma once
#include "reckon/engine/op.h"

namespace reckon {

/// What a group is given.
struct FusedInput {
  TensorSpec spec;
  bool is_dense = false;   // of the group's shape, row-major without gaps
  bool is_single = false;  // one element, repeated
};

/// One call of a group. Values are numbered: first the inputs of the group, then the result of each call.
struct FusedCall {
  const OpDef* op = nullptr;
  Params params;
  int in[3] = {-1, -1, -1};  // values; -1: no such input
  TensorSpec out;            // of the group's shape; of a sum (op->traits.sums) that of its result
  int output = -1;           // which output of the group this is; -1: nobody but the group reads it, and it has no memory
};

/// The inputs of a group broadcast to its shape; the last axis that is longer than 1 has stride 0 or 1 in each. Calls read earlier values
/// only. A sum runs over the last axes, the same ones in every sum of the group; nothing in the group reads its result. Each value holds
/// what its operation alone would have stored, rounded to its dtype. An output may lie on an input of the same element size that no call
/// reads after the one that makes it.
struct FusedProgram {
  static constexpr int kMaxInputs = 24, kMaxCalls = 48;
  Shape shape;
  std::vector<FusedInput> inputs;
  std::vector<FusedCall> calls;

  int first_result() const { return int(inputs.size()); }
  int values() const { return int(inputs.size() + calls.size()); }
  const TensorSpec& spec(int value) const {
    return value < first_result() ? inputs[size_t(value)].spec : calls[size_t(value - first_result())].out;
  }
};

/// Parameters of the row `fused`: the kernel's in are the group's inputs, its out the outputs.
struct FusedParams {
  const FusedProgram* program;
};
}  // namespace reckon
