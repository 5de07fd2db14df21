// backend/cpu/loss: softmax cross entropy of rows of logits against class indices.
#pragma once
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// Targets with this value take no part in the loss or in its gradient.
inline constexpr int32_t kIgnoreIndex = -100;

/// loss[i] = lse[i] - logits[i, target[i]] with lse[i] = log(sum_j exp(logits[i, j])); 0 for ignored rows.
/// mean[0] = sum(loss) / count over the rows that are not ignored (NaN if there are none, as in PyTorch), count[0] = their number.
/// A target outside [0, classes) that is not kIgnoreIndex makes loss[i], and so the mean, NaN; nothing is read out of bounds.
/// loss, lse, mean and count are f32, f64 for f64 logits. The mean is summed in double, in order.
struct CrossEntropy {
  DType dtype = DType::f32;
  int64_t rows = 0, classes = 0;
  const void* logits = nullptr;      // [rows, classes]
  const int32_t* targets = nullptr;  // [rows]
  void* loss = nullptr;              // [rows]
  void* lse = nullptr;               // [rows], kept for backward
  void* mean = nullptr;              // [1], null: not wanted
  void* count = nullptr;             // [1], null: not wanted
};
void cross_entropy(const CrossEntropy& args);

/// dlogits[i, j] = (exp(logits[i, j] - lse[i]) - (j == target[i])) * scale[0] / count[0]; 0 for ignored rows, NaN for targets out of range.
/// With per_row, the factor is scale[i] instead: the gradient of the per-row losses. dlogits may be logits.
struct CrossEntropyBack {
  DType dtype = DType::f32;
  int64_t rows = 0, classes = 0;
  const void* logits = nullptr;      // [rows, classes]
  const int32_t* targets = nullptr;  // [rows]
  const void* lse = nullptr;         // [rows]
  const void* scale = nullptr;       // [1], or [rows] if per_row: the gradient of the mean or of the losses; f32, f64 for f64
  const void* count = nullptr;       // [1], as forward wrote it; not used if per_row
  bool per_row = false;
  void* dlogits = nullptr;  // [rows, classes]
};
void cross_entropy_back(const CrossEntropyBack& args);
}  // namespace reckon::cpu
