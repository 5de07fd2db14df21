// backend/cpu/gemm_packed: our own multiplication engine, in the calling thread. Tiles of A and B are copied (and converted) into panels
// that a register-blocked micro-kernel reads in order. It knows nothing of threads, batches or oneDNN.
#pragma once
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// Element (i, j) at i * row_stride + j * col_stride, in elements.
struct Matrix {
  const void* data;
  DType dtype;
  int64_t row_stride, col_stride;
};

/// One product: C[m, n] (+)= A[m, k] B[k, n] (+ bias). C has unit column stride.
struct PackedProduct {
  int64_t m, n, k;
  Matrix a, b;
  void* c;
  DType c_dtype;
  int64_t ldc;
  bool accumulate;
  const void* bias;  // [n] or null
  DType bias_dtype;
};

/// Scratch of one lane: a block of A, a panel of B, and for 16-bit C a tile of float32 sums.
inline constexpr int64_t kLaneBytes = 656 * 1024;

/// A micro-kernel and what packs for it, per compute type and instruction set.
struct PackedKernel {
  int mr, nr;       // rows and columns of the register tile
  int lanes;        // columns of one vector
  int max_k;        // depth packed at once
  int bytes;        // of one packed element
  int accumulator;  // bytes of one sum: 4 or 8
  /// Copies `lines` lines of length kc into out[kc][width], zero beyond `lines`; width is mr for A, nr for B. Up to 64 bytes behind the
  /// panel are overwritten, so panels are packed in the order of their addresses.
  void (*pack_a)(const void* from, DType dtype, int64_t line_stride, int64_t k_stride, int64_t lines, int64_t kc, void* out);
  void (*pack_b)(const void* from, DType dtype, int64_t line_stride, int64_t k_stride, int64_t lines, int64_t kc, void* out);
  /// sums[mr][cols, rounded up to whole vectors] (+)= the panels' product; cols is at most nr.
  void (*multiply)(int64_t kc, int64_t cols, const void* a, const void* b, void* sums, int64_t ld, bool add);
};

/// The best kernels of this machine, by compute type.
const PackedKernel& packed_kernel_f32();
const PackedKernel& packed_kernel_f64();
/// For pairs of bfloat16; null if this machine does not multiply them.
const PackedKernel* packed_kernel_bf16();
PackedKernel packing_bf16();  // the same without its multiply

/// C = round(sums (+ C) (+ bias)) for float32 sums; bias is null or cols floats. sums may be C itself if C is f32 and add_c is false.
void finish_block(int64_t rows, int64_t cols, const float* sums, int64_t ld, void* c, DType c_dtype, int64_t ldc, bool add_c,
                  const float* bias);

/// to[cols][rows] = from[rows][cols] transposed, for 16-bit elements; ld is from's row stride.
void transpose_16(const void* from, int64_t ld, int64_t rows, int64_t cols, void* to);

/// The kernel that multiplies these dtypes.
const PackedKernel& packed_kernel(DType ab);

/// Tiles of C for separate threads, of each of `batch` products that share `lanes` threads: as wide as keeps the lanes busy, since each tile
/// packs its part of A and B for itself. The bits do not depend on the cut.
struct TileCut {
  int64_t rows, cols;
};
TileCut packed_cut(int64_t m, int64_t n, int64_t k, DType ab, DType c, int64_t batch, int64_t lanes);

/// Runs the whole product in this thread. scratch: kLaneBytes, 64-byte aligned.
void multiply_packed(const PackedProduct& p, void* scratch);
}  // namespace reckon::cpu
