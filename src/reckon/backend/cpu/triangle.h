// backend/cpu/triangle: one side of a diagonal of matrices.
#pragma once
#include "reckon/backend/cpu/rows_walk.h"

namespace reckon::cpu {

/// y = x where column - row <= shift in the last two axes (upper: >=), 0 elsewhere, for elements of 1, 2, 4 or 8 bytes. y is dense and may
/// be x. |shift| is below 2^62.
void triangle(int64_t element_bytes, const Shape& shape, Strided x, bool upper, int64_t shift, void* y);
}  // namespace reckon::cpu
