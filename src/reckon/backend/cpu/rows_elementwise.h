// backend/cpu/rows_elementwise: unary and binary operations, comparisons, selection and strided copies, with broadcasting.
#pragma once
#include <cstdint>

#include "reckon/backend/cpu/rows_walk.h"
#include "reckon/tensor/dtype.h"
#include "reckon/tensor/shape.h"

namespace reckon::cpu {

enum class Unary : uint8_t { neg, exp, log, sqrt, rsqrt, square, reciprocal, abs };
/// max and min return NaN if either side is NaN.
enum class Binary : uint8_t { add, sub, mul, div, max, min, pow, floor_divide, remainder };
enum class Compare : uint8_t { eq, ne, lt, le, gt, ge };

/// An output may be one of the inputs if both have the same data and strides; otherwise they must not overlap. Outputs must not repeat
/// elements (no stride 0 on an axis longer than 1). All float arithmetic is in f32 (f64 for f64) and rounds once; exp and log
/// of bf16 are within 0.51 units of the last place (vec_narrow-inl.h).

/// y = op(x); float types, and whole numbers for neg, square and abs (they wrap).
void unary(Unary op, DType dtype, const Shape& shape, Strided x, void* y, const int64_t* y_strides);
/// out = op(a, b); float types; whole numbers, which wrap, but for div; bool for add (or), mul (and), max and min. A whole number divided
/// by 0 is 0, and itself as a remainder; to a negative power it is 0 but for 1 and -1.
void binary(Binary op, DType dtype, const Shape& shape, Strided a, Strided b, void* out, const int64_t* out_strides);
/// out = op(a, b) as bool; any type, NaN compares as in IEEE 754.
void compare(Compare op, DType dtype, const Shape& shape, Strided a, Strided b, void* out, const int64_t* out_strides);
/// out = condition ? a : b for elements of 1, 2, 4 or 8 bytes; the condition is bool.
void where(int64_t element_bytes, const Shape& shape, Strided condition, Strided a, Strided b, void* out, const int64_t* out_strides);
/// to = from for elements of 1, 2, 4 or 8 bytes: what `contiguous` does. Transposes go by tiles.
void copy_strided(int64_t element_bytes, const Shape& shape, Strided from, void* to, const int64_t* to_strides);

/// The same on n contiguous elements, in the calling thread.
void unary_run(Unary op, DType dtype, const void* x, void* y, int64_t n);
void binary_run(Binary op, DType dtype, const void* a, const void* b, void* out, int64_t n);

/// y[i] = alpha * x[i] + beta for n contiguous elements; y may be x. Of whole numbers if alpha and beta are some, below 2^63; they wrap.
void affine(DType dtype, const void* x, double alpha, double beta, void* y, int64_t n);
/// out[i] = alpha * x[i] + beta * y[i] for n contiguous floats; out has y's type and may be x (of the same type) or y.
/// x may be of another float type, as when bf16 gradients are added to f32 ones; f64 goes only with f64.
void axpby(DType x_dtype, double alpha, const void* x, DType y_dtype, double beta, const void* y, void* out, int64_t n);
}  // namespace reckon::cpu
