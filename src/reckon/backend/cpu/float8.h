// backend/cpu/float8: tensors in 8-bit floats with one scale, a power of two, and linear layers on them. A CPU has no product of these:
// every 8-bit value is a bfloat16 exactly, and stays one when it is divided by the scale, so gemm multiplies them as a machine with 8-bit
// products and float32 sums would, up to the order of the sums. It knows dtypes and threads; nothing of tensors, ops or devices.
#pragma once
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// The largest magnitude among n elements, f32 or bf16: infinity or NaN if one of them is. workspace: float8_workspace(n) bytes.
float largest_magnitude(DType dtype, const void* x, int64_t n, void* workspace);
int64_t float8_workspace(int64_t n);

/// The largest power of two, 2^-100 to 2^100, times which `magnitude` is still finite in the format; 1 if it is 0, NaN or infinite.
float float8_scale(DType format, float magnitude);

/// q[i] = x[i] * scale, rounded to nearest even. x is f32 or bf16. What is finite saturates at the largest finite value; infinities become
/// those of E5M2 and NaN in E4M3FN, and NaN stays NaN, so that whoever looks for them behind the product finds them.
void quantize(DType dtype, const void* x, DType format, float scale, uint8_t* q, int64_t n);
/// wide[i] = q[i] / scale: exact.
void restore(DType format, const uint8_t* q, float scale, bfloat16* wide, int64_t n);
/// Both, without keeping q.
void round_through(DType dtype, const void* x, DType format, float scale, bfloat16* wide, int64_t n);

/// A matrix in 8 bits, as values of its own, or a wide one that is rounded to them while it is read.
struct Float8Matrix {
  DType format;  // f8e4m3fn or f8e5m2
  float scale;
  const uint8_t* codes;        // or null:
  const void* wide = nullptr;  // f32 or bf16
  DType wide_dtype = DType::bf16;
};

/// y[m, n] = x[m, k] w[n, k]^T (+ bias[n]); y and bias are f32 or bf16, in one dtype.
/// dx[m, k] = dy[m, n] w[n, k]; dx is f32 or bf16.
/// dw[n, k] = (accumulate ? dw : 0) + dy[m, n]^T x[m, k]; dw is f32 or bf16.
/// Sums are float32. Rows are widened 2048 at a time (all of them for a bf16 dw), w as a whole.
struct Float8Linear {
  int64_t m, n, k;
  DType out;
};
void float8_linear(const Float8Linear& s, const Float8Matrix& x, const Float8Matrix& w, void* y, const void* bias, void* workspace,
                   int lanes);
void float8_linear_back_x(const Float8Linear& s, const Float8Matrix& dy, const Float8Matrix& w, void* dx, void* workspace, int lanes);
void float8_linear_back_w(const Float8Linear& s, const Float8Matrix& dy, const Float8Matrix& x, void* dw, bool accumulate, void* workspace,
                          int lanes);
/// Bytes of scratch, 64-byte aligned; monotone in every extent.
int64_t float8_linear_workspace(const Float8Linear& s, bool bias, int lanes);
int64_t float8_linear_back_x_workspace(const Float8Linear& s, int lanes);
int64_t float8_linear_back_w_workspace(const Float8Linear& s, int lanes);

/// history[tensors, window], newest first: amax goes in front of each row, the oldest goes, and scale[i] fits the largest that is left; 0
/// if all are. format(i) is E4M3FN but for the last tensor, the gradient. If !ok, or for an amax that is not finite, history and scale
/// stay. amax becomes 0.
void step_float8_scales(int64_t tensors, int64_t window, bool ok, float* amax, float* history, float* scales);
}  // namespace reckon::cpu
