// ops/training: device operations of the optimizer step, for train/.
#pragma once
#include "reckon/engine/call.h"

namespace reckon {
/// Sum of squares in double, f64 [1].
Tensor sum_of_squares(const Tensor& x);
/// Writes gradient norm, clip coefficient min(1, max_norm / (norm + 1e-6)) (1 if max_norm is 0) and the ok flag (norm and loss are finite)
/// into step_scalars.
void clip_(const Tensor& step_scalars, const Tensor& loss, const Tensors& sums, double max_norm);
/// f32 master weights <-> bf16 working copy and 16-bit residual plane. Exact in both directions.
void split_master_(const Tensor& master, const Tensor& working, const Tensor& residual);
void join_master_(const Tensor& master, const Tensor& working, const Tensor& residual);
}  // namespace reckon
