// cli/op_cases_optimizers: what the cases of optimizers share: scalars of a step, and weights in each of their forms.
#pragma once
#include "reckon/cli/op_cases.h"

namespace reckon {

/// step_scalars of a third step.
std::vector<double> step_scalars(double learning_rate, double clip, bool ok);

/// Weights of a step as it wants them: bf16 ones live in two planes, which are split and joined around it, f16 ones beside their master.
class CaseWeights {
 public:
  CaseWeights(Device& device, const Tensor& given);
  const Tensor& working() const { return working_; }
  /// What the step takes besides, in its last place.
  void append_to(Tensors& args) const;
  /// The exact weights, and the copy that is rounded from them.
  Tensors after() const;

 private:
  Tensor working_, master_, residual_;
};
/// The weights of the reference, as often as after() has them; and for bf16 once more, rounded up or down, if they moved.
void append_weights(Arrays& results, const Array& weights, DType dtype, bool moved);

void add_lamb_cases(CaseList& list);
}  // namespace reckon
