// backend/cpu/index_add: whole slices added by index along an axis that is not the last: one pass over the result.
#pragma once
#include "reckon/backend/cpu/indexing.h"

namespace reckon::cpu {

/// y = x, and y[.., index[j], ..] += src[.., j, ..] in order of j; indices out of range are left out. Any type but bool and the 8-bit
/// floats; 16-bit floats are added in float32 and rounded once, integers wrap. y is dense and may be x.
struct IndexAdd {
  DType dtype = DType::f32;
  Shape shape;         // of x and y
  int axis = 0;        // before the last
  int64_t length = 0;  // of index, and of src along the axis
  Strided x, src;
  Indices index;  // its stride along the axis counts
  void* y = nullptr;
};
void index_add(const IndexAdd& args, void* workspace);
/// Bytes: which slices of src go to which of y. Monotone.
int64_t index_add_workspace(int64_t extent, int64_t length);
}  // namespace reckon::cpu
