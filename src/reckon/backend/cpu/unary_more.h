// backend/cpu/unary_more: element-wise functions over contiguous elements, beside those of rows_elementwise and activation.
#pragma once
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// round goes to the nearest whole number, halves to the even one; sign keeps NaN and -0. softplus is log(1 + e^x),
/// gelu_erf x (1 + erf(x / sqrt 2)) / 2.
enum class Function : uint8_t { sin, cos, erf, floor, ceil, round, sign, log1p, expm1, softplus, gelu_erf };

/// y[i] = f(x[i]) for n elements of a float dtype, in float32 (float64 for f64), rounded once; sin, cos and erf of bf16 are within 0.51
/// units of the last place. y may be x.
void apply_function(Function f, DType dtype, const void* x, void* y, int64_t n);
/// y[i] = low if x[i] < low, high if x[i] > high, else x[i]; floats, i32 and i64. y may be x.
void clamp(DType dtype, const void* x, double low, double high, void* y, int64_t n);
}  // namespace reckon::cpu
