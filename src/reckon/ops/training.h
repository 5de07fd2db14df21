// ops/training: device operations of the optimizer step, for train/.
#pragma once
#include "reckon/engine/call.h"

namespace reckon {
/// Sum of squares in double, f64 [1].
Tensor sum_of_squares(const Tensor& x);
/// Writes gradient norm, clip coefficient and the ok flag into step_scalars (see ops/step_scalars.h).
void clip_(const Tensor& step_scalars, const Tensor& loss, const Tensors& sums);
/// f32 master weights <-> bf16 working copy and 16-bit residual plane. Exact in both directions.
void split_master_(const Tensor& master, const Tensor& working, const Tensor& residual);
void join_master_(const Tensor& master, const Tensor& working, const Tensor& residual);
}  // namespace reckon
