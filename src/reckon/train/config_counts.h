// train/config_counts: whether everything that is counted of a run stays below 2^63. Bounds in floating point: nothing here can overflow.
#pragma once
#include "reckon/train/config.h"

namespace reckon {

/// Upper bounds of what a run of this configuration counts: bytes of all tensors that live at once, bytes moved by the calls of one
/// operation and module in a step, and FLOPs of a step. Matrix work is within some per cent of what is executed at common sizes; the others
/// are generous.
struct CountBounds {
  double tensor_bytes = 0, moved_bytes = 0, matrix_flops = 0, vector_flops = 0;
};
CountBounds count_bounds(const Config& config);

/// Throws Error (usage) naming the keys whose product is to blame if a bound is above 2^63 - 1.
void check_counts(const Config& config);
}  // namespace reckon
