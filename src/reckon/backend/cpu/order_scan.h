// backend/cpu/order_scan: what ordering looks for in a line of contiguous f32 or bf16 values, a vector at a time.
#pragma once
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// The position of the first of the largest (or smallest) of n > 0 values; -1 if a NaN is among them.
int64_t first_extreme(DType dtype, bool largest, const void* x, int64_t n);

/// The first position from `from` on whose value is larger (or smaller) than `bound`, or NaN; n if there is none. `bound` is a number.
int64_t next_beyond(DType dtype, bool larger, const void* x, int64_t from, int64_t n, float bound);
}  // namespace reckon::cpu
