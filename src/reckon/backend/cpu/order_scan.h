// backend/cpu/order_scan: what ordering looks for in a line of contiguous f32, bf16 or f16 values, a vector at a time.
#pragma once
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// The position of the first of the largest (or smallest) of n > 0 values; -1 if a NaN is among them.
int64_t first_extreme(DType dtype, bool largest, const void* x, int64_t n);

/// The first position from `from` on whose value is larger (or smaller) than `bound`, or NaN; n if there is none. `bound` is a number.
int64_t next_beyond(DType dtype, bool larger, const void* x, int64_t from, int64_t n, float bound);

/// Positions, rising, of all of the first `next` values that can be among the k largest (or smallest) of the line, the first of equal ones
/// before the others; at least k of them, or none of none. The line is read twice, in one go if it is short: the first time for a bound
/// that at least k values reach. Nothing is looked for in short lines and among NaN.
inline constexpr int64_t kMostCandidates = 128;
struct Candidates {
  int64_t count = 0, next = 0;
};
Candidates candidates(DType dtype, bool largest, const void* x, int64_t n, int64_t k, int32_t* positions);
}  // namespace reckon::cpu
