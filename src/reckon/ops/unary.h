// ops/unary: further element-wise functions and comparisons. Users include it beside ops/ops.h. Where nothing else is said they take the
// four float types, compute in float32 (float64 for f64) and round once; of whole numbers they give f32.
#pragma once
#include "reckon/tensor/tensor.h"

namespace reckon {

Tensor sin(const Tensor& x);
Tensor cos(const Tensor& x);
/// 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x.
Tensor erf(const Tensor& x);
/// To whole numbers: down, up, to the nearest with halves to the even one; integers stay. The gradient is 0.
Tensor floor(const Tensor& x);
Tensor ceil(const Tensor& x);
Tensor round(const Tensor& x);
/// -1, 0 or 1, integers included; NaN stays. The gradient is 0.
Tensor sign(const Tensor& x);
/// log(1 + x) and exp(x) - 1 without cancellation near 0.
Tensor log1p(const Tensor& x);
Tensor expm1(const Tensor& x);
/// log(1 + exp(beta x)) / beta.
Tensor softplus(const Tensor& x, double beta = 1);
/// x (1 + erf(x / sqrt 2)) / 2; gelu() is its tanh approximation. Hendrycks & Gimpel 2016, arXiv:1606.08415.
Tensor gelu_erf(const Tensor& x);
/// low where x < low, high where x > high, else x, and NaN stays; also i32 and i64, in f32 if a bound is no whole number. The gradient passes where low <= x <= high.
/// Throws Error unless low <= high; either may be infinite.
Tensor clamp(const Tensor& x, double low, double high);
/// x where x > 0, else alpha (exp(x) - 1). Clevert et al. 2015, arXiv:1511.07289.
Tensor elu(const Tensor& x, double alpha = 1);
/// x where x > 0, else slope x.
Tensor leaky_relu(const Tensor& x, double slope = 0.01);
/// clamp(alpha x + beta, 0, 1).
Tensor hard_sigmoid(const Tensor& x, double alpha = 1.0 / 6, double beta = 0.5);

// ---- bool results, no gradient; any two tensors, promoted and broadcast
Tensor not_equal(const Tensor& a, const Tensor& b);
Tensor greater(const Tensor& a, const Tensor& b);
Tensor greater_equal(const Tensor& a, const Tensor& b);
/// Of bool tensors, broadcast.
Tensor logical_and(const Tensor& a, const Tensor& b);
Tensor logical_or(const Tensor& a, const Tensor& b);
Tensor logical_xor(const Tensor& a, const Tensor& b);
Tensor logical_not(const Tensor& x);
Tensor isnan(const Tensor& x);
/// Of either sign.
Tensor isinf(const Tensor& x);
}  // namespace reckon
