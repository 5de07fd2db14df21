// backend/cpu/rows_plain: the element-wise operations that need no vectors: float64, integers, comparisons and selection. Internal.
#pragma once
#include "reckon/backend/cpu/rows_elementwise.h"

namespace reckon::cpu {
/// floor(a / b) and the rest, which has the sign of b: Python's // and %.
double floor_divide_of(double a, double b);
double remainder_of(double a, double b);
/// Elements [begin, end) of the loop (operands: y, x); f64, or whole numbers.
void unary_plain(Unary op, DType dtype, const Loop& loop, const void* x, void* y, int64_t begin, int64_t end);
/// Elements [begin, end) of the loop (operands: out, a, b); f64, whole numbers or bool.
void binary_plain(Binary op, DType dtype, const Loop& loop, const void* a, const void* b, void* out, int64_t begin, int64_t end);
/// Elements [begin, end) of the loop (operands: out, a, b); any type.
void compare_plain(Compare op, DType dtype, const Loop& loop, const void* a, const void* b, void* out, int64_t begin, int64_t end);
/// Elements [begin, end) of the loop (operands: out, condition, a, b).
void where_plain(int64_t element_bytes, const Loop& loop, const void* condition, const void* a, const void* b, void* out, int64_t begin,
                 int64_t end);
/// y[i] = alpha * x[i] + beta for i in [begin, end) of contiguous whole numbers, which wrap.
void affine_whole(DType dtype, const void* x, int64_t alpha, int64_t beta, void* y, int64_t begin, int64_t end);
}  // namespace reckon::cpu
