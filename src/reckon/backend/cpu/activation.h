// backend/cpu/activation: activation functions, forward and backward, over contiguous elements.
#pragma once
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// gelu is the tanh form, 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), as in GPT-2. silu is x * sigmoid(x).
enum class Activation : uint8_t { gelu, relu, silu, sigmoid, tanh };

/// y[i] = f(x[i]) for n elements of a float dtype. y may be x.
void activation(Activation kind, DType dtype, const void* x, void* y, int64_t n);
/// dx[i] = dy[i] * f'(x[i]). `kept` is x for gelu, relu and silu, and y for sigmoid and tanh (relu takes either). dx may be dy or kept.
void activation_back(Activation kind, DType dtype, const void* dy, const void* kept, void* dx, int64_t n);

/// y = silu(gate) * up, with each row of x packed as (gate | up). x [rows, 2 * width], y [rows, width]; no aliasing.
/// Shazeer 2020, arXiv:2002.05202.
void swiglu(DType dtype, const void* x, void* y, int64_t rows, int64_t width);
/// dx [rows, 2 * width] packed as x is; dx may be x.
void swiglu_back(DType dtype, const void* dy, const void* x, void* dx, int64_t rows, int64_t width);
}  // namespace reckon::cpu
