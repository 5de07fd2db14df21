// backend/cpu/rows_plain: the element-wise operations that need no vectors: float64, integers, comparisons and selection. Internal.
#pragma once
#include "reckon/backend/cpu/rows_elementwise.h"

namespace reckon::cpu {
/// Elements [begin, end) of the loop (operands: y, x), float64.
void unary_plain(Unary op, const Loop& loop, const void* x, void* y, int64_t begin, int64_t end);
/// Elements [begin, end) of the loop (operands: out, a, b); f64, i32 or i64.
void binary_plain(Binary op, DType dtype, const Loop& loop, const void* a, const void* b, void* out, int64_t begin, int64_t end);
}  // namespace reckon::cpu
