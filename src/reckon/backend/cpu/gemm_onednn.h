// backend/cpu/gemm_onednn: oneDNN's matrix multiplication for one block of rows, in the calling thread and without hidden memory.
// It knows nothing of how a product is cut, and its header nothing of oneDNN.
#pragma once
#include <cstdint>

#include "reckon/base/ref.h"
#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// C[m, n] = (accumulate ? C : 0) + A[m, k] op(B) (+ bias), everything dense, A and C row-major, extents > 0.
struct OnednnSpec {
  int64_t m = 0, n = 0, k = 0;
  DType ab = DType::f32, c = DType::f32;
  bool trans_b = false, accumulate = false, bias = false;
  DType bias_dtype = DType::f32;
  auto operator<=>(const OnednnSpec&) const = default;
};

/// A compiled product. Safe to run from many threads at once.
class OnednnBlock : public RefCounted {
 public:
  /// scratch: kLaneBytes, 64-byte aligned.
  virtual void run(const void* a, const void* b, void* c, const void* bias, void* scratch) const = 0;
};

/// True where oneDNN multiplies bfloat16 with matrix registers (AMX), many times faster than any vector kernel.
bool onednn_has_matrix_registers();

/// The compiled product, from a bounded cache; null if oneDNN's implementation on this machine is not one that keeps rule 4.1 of the
/// design (brgemm, scratch within kLaneBytes). The answer depends on the spec and the instruction set only.
Ref<const OnednnBlock> onednn_block(const OnednnSpec& spec);
}  // namespace reckon::cpu
