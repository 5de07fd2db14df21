// backend/cpu/rows_walk: the strided, broadcasting loop that every element-wise kernel shares. It knows extents and strides, no data.
#pragma once
#include <cstdint>

#include "reckon/tensor/shape.h"

namespace reckon::cpu {

/// A strided operand: strides in elements, one per axis of the shape walked; 0 repeats (broadcast). May be negative.
struct Strided {
  const void* data = nullptr;
  const int64_t* strides = nullptr;  // [rank]
};

inline constexpr int kMaxOperands = 4;

/// A loop nest over several operands, the output first: axes of extent 1 dropped, ordered so that the output's smallest stride is
/// innermost, neighbours merged where every operand allows it. Elements are numbered in this order.
struct Loop {
  int rank = 1;  // at least 1
  int operands = 0;
  int64_t total = 0;
  int64_t extent[kMaxRank] = {};
  int64_t stride[kMaxOperands][kMaxRank] = {};
  int64_t inner() const { return extent[rank - 1]; }
  int64_t inner_stride(int operand) const { return stride[operand][rank - 1]; }
};
Loop make_loop(const Shape& shape, int operands, const int64_t* const* strides);

/// The loop over n contiguous elements.
Loop dense_loop(int operands, int64_t n);

/// Strides of a dense array of this shape, in elements.
void dense_strides(const Shape& shape, int64_t* strides);

/// body(n, offsets) for each run along the innermost axis within elements [begin, end): n elements, of which the first lies at offsets[k]
/// of operand k.
template <class Body>
inline void walk(const Loop& loop, int64_t begin, int64_t end, Body&& body) {
  const int last = loop.rank - 1;
  int64_t index[kMaxRank] = {}, offset[kMaxOperands] = {};
  int64_t rest = begin;
  for (int axis = last; axis >= 0; --axis) {
    index[axis] = rest % loop.extent[axis];
    rest /= loop.extent[axis];
    for (int k = 0; k < loop.operands; ++k) offset[k] += index[axis] * loop.stride[k][axis];
  }
  for (int64_t at = begin; at < end;) {
    const int64_t left = loop.extent[last] - index[last], n = left < end - at ? left : end - at;
    body(n, static_cast<const int64_t*>(offset));
    at += n;
    for (int k = 0; k < loop.operands; ++k) offset[k] -= index[last] * loop.stride[k][last];
    index[last] = 0;
    for (int axis = last - 1; axis >= 0; --axis) {
      for (int k = 0; k < loop.operands; ++k) offset[k] += loop.stride[k][axis];
      if (++index[axis] < loop.extent[axis]) break;
      for (int k = 0; k < loop.operands; ++k) offset[k] -= loop.extent[axis] * loop.stride[k][axis];
      index[axis] = 0;
    }
  }
}
}  // namespace reckon::cpu
