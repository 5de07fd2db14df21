// backend/cpu/order: sorting and selection along one axis.
#pragma once
#include "reckon/backend/cpu/rows_walk.h"
#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// The first k elements of each line along an axis in order, equal ones in the order that they have; k is the extent to sort.
/// -0 equals 0; a NaN is larger than everything, or before everything if nan_first.
struct Order {
  DType dtype = DType::f32;  // any but the 8-bit floats
  Shape shape;               // of x
  int axis = 0;
  bool descending = false, nan_first = false;
  int64_t k = 0;
  Strided x;
  void* values = nullptr;      // dense, k along the axis
  int64_t* indices = nullptr;  // likewise
};
/// Scratch bytes for lines of this extent; none if few elements are asked for.
int64_t order_workspace(int64_t extent, int64_t k, int lanes);
void order(const Order& args, void* workspace, int lanes);
}  // namespace reckon::cpu
