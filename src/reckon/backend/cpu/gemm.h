// backend/cpu/gemm: matrix multiplication on plain pointers. It knows dtypes and threads; nothing of tensors, ops or devices.
#pragma once
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// C[m, n] = (accumulate ? C : 0) + op(A)[m, k] op(B)[k, n] (+ bias[n] on every row). All matrices are dense and row-major:
/// A is stored [m, k], or [k, m] if trans_a; B is stored [k, n], or [n, k] if trans_b. Any extent may be 0.
/// Dtypes (a == b): f32 -> f32, f64 -> f64, bf16 -> {bf16, f32}, f16 -> {f16, f32}; bias is f32 or c's dtype (f64 for f64).
/// Sums are kept in float32 (float64 for f64) and rounded once to c, after accumulate and bias are added.
struct GemmShape {
  int64_t m = 0, n = 0, k = 0;
  DType a = DType::f32, b = DType::f32, c = DType::f32;
  bool trans_a = false, trans_b = false, accumulate = false, bias = false;
  DType bias_dtype = DType::f32;
};

/// Which engine multiplies. `best` is a pure function of shape and instruction set: oneDNN for most bfloat16 and for
/// float32 times a transposed matrix, our packed engine elsewhere.
/// Tests and benchmarks ask for one; `onednn` falls back to `packed` where rule 4.1 of the design refuses it.
enum class GemmEngine : uint8_t { best, packed, onednn };

/// Bytes of scratch, 64-byte aligned, for gemm and gemm_batched on at most `lanes` threads. A pure function of its arguments, the same on
/// every machine, monotone in every extent. Throws Error for a combination of dtypes that is not supported.
int64_t gemm_workspace(const GemmShape& shape, int lanes);

/// C may not overlap A, B or the workspace. The result depends on shape and instruction set only, never on threads or lanes.
void gemm(const GemmShape& shape, const void* a, const void* b, void* c, const void* bias, void* workspace, int lanes,
          GemmEngine engine = GemmEngine::best);

/// One product per i < batch: A at a + i * stride_a and so on; strides in elements, 0 broadcasts A or B; bias is shared. Each product has
/// the bits that gemm gives, and the workspace is the same.
void gemm_batched(const GemmShape& shape, int64_t batch, const void* a, int64_t stride_a, const void* b, int64_t stride_b, void* c,
                  int64_t stride_c, const void* bias, void* workspace, int lanes, GemmEngine engine = GemmEngine::best);

/// Scratch bytes of gemm_tile_f32, for any extents.
inline constexpr int64_t kGemmTileScratch = 288 * 1024;
/// C[m, n] = (accumulate ? C : 0) + A[m, k] op(B) in the calling thread, for tiles inside a lane; leading dimensions in elements.
/// B is stored [k, n], or [n, k] if trans_b. scratch: kGemmTileScratch bytes, 64-byte aligned.
void gemm_tile_f32(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, bool trans_b, float* c,
                   int64_t ldc, bool accumulate, void* scratch);

/// C = op(A) op(B) of i32, i64 or u8, all three of one dtype; sums wrap. Rows of C in parallel, without blocking: for counts and indices.
void gemm_whole(const GemmShape& shape, const void* a, const void* b, void* c);

/// The obvious triple loop, summed in double and rounded once to c: the judge of gemm in tests.
void gemm_reference(const GemmShape& shape, const void* a, const void* b, void* c, const void* bias);
}  // namespace reckon::cpu
