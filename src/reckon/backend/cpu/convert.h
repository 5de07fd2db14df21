// backend/cpu/convert: elements of one type into another, and fills.
#pragma once
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// to[i] = from[i] for n contiguous elements of any two types. Floats round once, to nearest even (overflow becomes infinity, or NaN in
/// f8e4m3fn, which has none); float to
/// integer truncates and saturates, NaN gives 0; integer to a narrower integer wraps; bool is "not equal to 0". No aliasing.
void convert(DType from_dtype, const void* from, DType to_dtype, void* to, int64_t n);

/// data[i] = value, converted as above. Integers up to 2^53 are exact.
void fill(DType dtype, void* data, int64_t n, double value);
/// Every byte 0, in parallel.
void fill_zero(void* data, int64_t bytes);
/// memcpy in parallel.
void copy_bytes(const void* from, void* to, int64_t bytes);
}  // namespace reckon::cpu
