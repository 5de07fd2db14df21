// ops/float8: linear layers whose products are taken in 8-bit floats, each tensor with one scale that follows what was seen in steps
// before.
#pragma once
#include "reckon/engine/call.h"

namespace reckon {

/// The tensors of a linear layer that have a scale, in the order of its state.
enum Float8Tensor : int { kFloat8Input, kFloat8Weight, kFloat8Gradient, kFloat8Tensors };

/// What a layer knows of their sizes. Scales stay as they are from the first micro-batch of a step to the last; forward and backward may
/// run as often as they like.
struct Float8State {
  Tensor scales;   // f32 [3]          powers of two that values are multiplied by before they are rounded; 0: fit the tensor at hand
  Tensor amax;     // f32 [3]          largest magnitudes that backward has met in this step
  Tensor history;  // f32 [3, window]  those of the steps before, newest first

  /// All zeros. Throws Error if window < 1.
  static Float8State make(Device& device, int64_t window);
};

/// y = x w^T + bias as linear(), of x and w rounded to E4M3FN; its backward takes the gradient of y rounded to E5M2, and passes the
/// gradient of the rounded tensors on as that of x and w. x, w and bias are f32 or bf16, in one dtype; sums are float32. Kept for backward
/// is the rounded x, a byte an element; with keep_input x itself, where somebody keeps it anyway or computes it again. Backward notes the
/// largest magnitudes in state.amax, once for each call of this function, whatever is computed again; that is its only effect. Has no
/// gradient of its gradient. Micikevicius et al. 2022, arXiv:2209.05433.
Tensor linear_fp8(const Tensor& x, const Tensor& w, const Tensor& bias, const Float8State& state, bool keep_input = false);

/// The end of a step: amax enters the history, and each scale becomes the largest power of two that keeps the largest magnitude of the
/// window finite in its format. A step that was skipped (kOk of step_scalars is 0), or an amax that is not finite, leaves both as they are.
void step_fp8_scales_(const Tensor& step_scalars, const Float8State& state);

/// x (f32 or bf16) times scale [1] (0: what fits x) in `format`, and f32 [2]: the largest magnitude of x and the scale that was used. What
/// is finite saturates; infinities become NaN in f8e4m3fn.
struct QuantizedFp8 {
  Tensor codes, stats;
};
QuantizedFp8 quantize_fp8(const Tensor& x, DType format, const Tensor& scale);
}  // namespace reckon
