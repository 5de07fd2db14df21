// backend/cpu/norm: layer norm and root-mean-square norm over rows, forward and backward.
#pragma once
#include <cstdint>

#include "reckon/backend/cpu/rows.h"

namespace reckon::cpu {

/// layer: y = (x - mean) * r * w + b with r = 1 / sqrt(variance + eps). Ba et al. 2016, arXiv:1607.06450.
/// rms:   y = x * r * w + b      with r = 1 / sqrt(mean(x^2) + eps). Zhang & Sennrich 2019, arXiv:1910.07467.
enum class Norm : uint8_t { layer, rms };

/// `dtype` is that of x, y, dy and dx. Weights are f32, bf16 or f16 with any of these, and f64 with f64. Statistics are f32 (f64 for f64).
struct NormForward {
  Norm kind = Norm::layer;
  DType dtype = DType::f32, w_dtype = DType::f32;
  int64_t rows = 0, cols = 0;
  double eps = 1e-5;
  const void* x = nullptr;  // [rows, cols]
  RowLayout x_rows;
  const void* w = nullptr;  // [cols], null: 1
  const void* b = nullptr;  // [cols], null: 0
  const void* residual = nullptr;  // as x; not null: sum = x + residual, rounded, is what is normalized
  void* sum = nullptr;             // as x; may be x or residual
  void* y = nullptr;               // [rows, cols]; may be x, if there is no residual
  RowLayout y_rows;
  void* mean = nullptr;  // [rows], layer norm only; null: not kept
  void* r = nullptr;     // [rows], null: not kept
};
void norm_forward(const NormForward& args);

/// Gradients; dx, dw and db are computed if not null. dx may be dy or x. dw and db may be of any float dtype (f64 for f64).
struct NormBackward {
  Norm kind = Norm::layer;
  DType dtype = DType::f32, w_dtype = DType::f32, dw_dtype = DType::f32;
  int64_t rows = 0, cols = 0;
  const void* dy = nullptr;  // [rows, cols]
  RowLayout dy_rows;
  const void* x = nullptr;  // [rows, cols]
  RowLayout x_rows;
  const void* w = nullptr;     // [cols], null: 1
  const void* mean = nullptr;  // [rows], layer norm only
  const void* r = nullptr;     // [rows]
  const void* dsum = nullptr;  // [rows, cols] contiguous, is added to the rounded dx; null: nothing is
  void* dx = nullptr;          // [rows, cols], not dsum
  RowLayout dx_rows;
  void* dw = nullptr;         // [cols]
  void* db = nullptr;         // [cols]
  bool accumulate = false;    // dw and db are added to what is there, else overwritten
  void* workspace = nullptr;  // norm_backward_workspace() bytes, aligned to 8
};
void norm_backward(const NormBackward& args);
/// Bytes of partial sums for dw and db together; monotone in rows and cols. 0 is enough if neither is wanted.
int64_t norm_backward_workspace(DType dtype, int64_t rows, int64_t cols);
}  // namespace reckon::cpu
