// backend/cpu/cumsum: running sums along one axis.
#pragma once
#include "reckon/backend/cpu/rows_walk.h"
#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// y[i] = the sum of x up to element i along the axis, added in this order; reverse: from the end; exclusive: without element i. Floats are
/// added in float64 and rounded once; i64 wraps. y is dense and may be x.
void cumsum(DType dtype, const Shape& shape, int axis, bool reverse, bool exclusive, Strided x, void* y);
}  // namespace reckon::cpu
