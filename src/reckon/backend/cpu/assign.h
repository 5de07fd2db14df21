// backend/cpu/assign: strided elements of one type, or one value, into strided places of any other, on plain pointers.
#pragma once
#include "reckon/backend/cpu/rows_walk.h"

namespace reckon::cpu {

/// to[i] = from[i] for every place i of the shape, converted as by convert(); `from` may repeat (stride 0), `to` may not. Strides in
/// elements, of any sign. No aliasing.
void assign(const Shape& shape, DType from_dtype, Strided from, DType to_dtype, void* to, const int64_t* to_strides);
/// to[i] = value, converted as by fill(), for every place i of the shape.
void assign(const Shape& shape, double value, DType to_dtype, void* to, const int64_t* to_strides);
}  // namespace reckon::cpu
