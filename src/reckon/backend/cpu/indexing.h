// backend/cpu/indexing: elements read and written by index along one axis. Whatever the indices are, nothing outside an array is touched.
#pragma once
#include "reckon/backend/cpu/rows_walk.h"
#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// Indices of a shape: i32 or i64, with strides.
struct Indices {
  Strided at;
  bool wide;  // i64
  int64_t operator[](int64_t i) const { return wide ? static_cast<const int64_t*>(at.data)[i] : static_cast<const int32_t*>(at.data)[i]; }
};

/// y[i, j, ...] = x[index[i, j, ...], j, ...] (for axis 0), for elements of 1, 2, 4 or 8 bytes. shape is index's and that of y, which is
/// dense; x has `extent` elements along the axis. Where an index is not in [0, extent), y gets the bytes of `missing`.
void gather(int64_t element_bytes, uint64_t missing, const Shape& shape, int axis, Strided x, int64_t extent, Indices index, void* y);

/// y[index[i, j, ...], j, ...] = src[i, j, ...] in order of i, so that the last one stays. shape is index's and src's; y is dense.
void scatter(int64_t element_bytes, const Shape& shape, int axis, Indices index, Strided src, const Shape& y_shape, void* y);

/// The same with +=, in order of i. f32, f64, i32, i64 and u8; integers wrap. 16-bit floats are added in float32: y is then float32.
void scatter_add(DType src_dtype, const Shape& shape, int axis, Indices index, Strided src, const Shape& y_shape, void* y);
}  // namespace reckon::cpu
