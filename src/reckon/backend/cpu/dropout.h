// backend/cpu/dropout: elements kept or not by keyed random numbers.
#pragma once
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// y = keep ? x / (1 - p) : 0 for `samples` runs of `each` elements of a float dtype. y may be x.
/// Element e = first + i of sample s is kept if 16 bits reach p * 2^16: those of word e / 256 % 4 of Philox block e / 2048 * 256 + e % 256
/// under the key (draws[0], site, draws[1] + s), the lower ones for even e / 1024, else the upper. The same elements in every dtype.
struct Dropout {
  DType dtype = DType::f32;
  int64_t samples = 0, each = 0, first = 0;
  double p = 0;
  uint64_t site = 0;
  const int64_t* draws = nullptr;  // [2]: key of the step, number of the first sample
  const void* x = nullptr;
  void* y = nullptr;
};
void dropout(const Dropout& args);
}  // namespace reckon::cpu
