// backend/cpu/rows_walk: order and merging of axes. Knows extents and strides, no data.
#include "reckon/backend/cpu/rows_walk.h"

#include <algorithm>
#include <cstdlib>

#include "reckon/base/error.h"

namespace reckon::cpu {
namespace {
// Sorts by falling output stride; axes of equal stride keep their order.
void order_axes(Loop& loop) {
  for (int i = 1; i < loop.rank; ++i) {
    for (int j = i; j > 0 && std::abs(loop.stride[0][j - 1]) < std::abs(loop.stride[0][j]); --j) {
      std::swap(loop.extent[j - 1], loop.extent[j]);
      for (int k = 0; k < loop.operands; ++k) std::swap(loop.stride[k][j - 1], loop.stride[k][j]);
    }
  }
}

// Merges axis i + 1 into axis i wherever every operand steps over it evenly.
void merge_axes(Loop& loop) {
  int kept = 0;
  for (int i = 1; i < loop.rank; ++i) {
    bool even = true;
    for (int k = 0; k < loop.operands; ++k) even &= loop.stride[k][kept] == loop.stride[k][i] * loop.extent[i];
    if (even) {
      loop.extent[kept] *= loop.extent[i];
    } else {
      loop.extent[++kept] = loop.extent[i];
    }
    for (int k = 0; k < loop.operands; ++k) loop.stride[k][kept] = loop.stride[k][i];
  }
  loop.rank = kept + 1;
}
}  // namespace

Loop make_loop(const Shape& shape, int operands, const int64_t* const* strides) {
  RECKON_ASSERT(operands >= 1 && operands <= kMaxOperands);
  Loop loop;
  loop.operands = operands;
  loop.total = shape.numel();
  loop.rank = 0;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (shape[axis] == 1) continue;
    loop.extent[loop.rank] = shape[axis];
    for (int k = 0; k < operands; ++k) loop.stride[k][loop.rank] = strides[k][axis];
    ++loop.rank;
  }
  if (loop.rank == 0) {
    loop.rank = 1, loop.extent[0] = 1;
    return loop;
  }
  order_axes(loop);
  merge_axes(loop);
  return loop;
}

Loop dense_loop(int operands, int64_t n) {
  Loop loop;
  loop.operands = operands;
  loop.total = loop.extent[0] = n;
  for (int k = 0; k < operands; ++k) loop.stride[k][0] = 1;
  return loop;
}

void dense_strides(const Shape& shape, int64_t* strides) {
  int64_t stride = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    strides[axis] = stride;
    stride *= shape[axis];
  }
}
}  // namespace reckon::cpu
