// backend/cpu/loss: softmax cross entropy of rows of logits against class indices.
#pragma once
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// Targets with this value take no part in the loss or in its gradient, unless LossTerms names another.
inline constexpr int32_t kIgnoreIndex = -100;

/// What the loss of a row is made of, with lse = log(sum_j exp(x[j])):
/// loss = lse - (1 - s) x[target] - s mean_j(x[j]) + z lse^2.
struct LossTerms {
  double label_smoothing = 0;  // s: the share of the target that is spread over all classes. Szegedy et al. 2016, arXiv:1512.00567
  double z_loss = 0;           // z: keeps lse near 0. Chowdhery et al. 2022, arXiv:2204.02311
  int32_t ignore_index = kIgnoreIndex;
};

/// loss[i] as LossTerms says; 0 for ignored rows.
/// mean[0] = sum(loss) / count over the rows that are not ignored (NaN if there are none, as in PyTorch), count[0] = their number.
/// A target outside [0, classes) that is not ignored makes loss[i], and so mean and sum, NaN; nothing is read out of bounds.
/// loss, lse, mean, sum and count are f32, f64 for f64 logits. The sum is made in double, in order.
struct CrossEntropy {
  DType dtype = DType::f32;
  int64_t rows = 0, classes = 0;
  const void* logits = nullptr;      // [rows, classes]
  const int32_t* targets = nullptr;  // [rows]
  LossTerms terms;
  void* loss = nullptr;   // [rows]
  void* lse = nullptr;    // [rows], kept for backward
  void* mean = nullptr;   // [1], null: not wanted
  void* sum = nullptr;    // [1], null: not wanted
  void* count = nullptr;  // [1], null: not wanted
};
void cross_entropy(const CrossEntropy& args);

/// dlogits[i, j] = (p (1 + 2 z lse[i]) - (1 - s) (j == target[i]) - s / classes) * scale[0] / count[0] with p = exp(logits[i, j] - lse[i]);
/// 0 for ignored rows, NaN for targets out of range. Without a count nothing is divided: the gradient of the sum. With per_row, the factor
/// is scale[i]: the gradient of the per-row losses. dlogits may be logits.
struct CrossEntropyBack {
  DType dtype = DType::f32;
  int64_t rows = 0, classes = 0;
  const void* logits = nullptr;      // [rows, classes]
  const int32_t* targets = nullptr;  // [rows]
  LossTerms terms;
  const void* lse = nullptr;    // [rows]
  const void* scale = nullptr;  // [1], or [rows] if per_row: the gradient of the mean, the sum or the losses; f32, f64 for f64
  const void* count = nullptr;  // [1], as forward wrote it; null: not the mean
  bool per_row = false;
  void* dlogits = nullptr;  // [rows, classes]
};
void cross_entropy_back(const CrossEntropyBack& args);

// ---- For logits that are never all there: see linear_loss.h.

/// What is known of a row of logits of which some columns were seen.
struct RowSums {
  double most, exps;  // exps = sum of exp(x - most)
  double total;       // sum of x, if the loss wants it
  double target;      // x[target], NaN before it was seen
};

/// A dense tile of logits: rows with these targets, columns [first, first + cols) of `classes`.
struct LogitTile {
  DType dtype = DType::f32;
  int64_t rows = 0, cols = 0, first = 0, classes = 0;
  void* logits = nullptr;            // [rows, cols]
  const int32_t* targets = nullptr;  // [rows]
  LossTerms terms;
};

/// By what the gradient of a row's loss is multiplied: `shared`, or each_row[i], which is f32, f64 for f64.
struct RowScale {
  double shared = 0;
  const void* each_row = nullptr;  // [rows of the tile]
};

/// Adds a tile's columns to what is known of its rows; tiles come in order, the first one starts the sums. If all but the last have a
/// multiple of kLogitColumns columns, the bits are those of cross_entropy.
inline constexpr int64_t kLogitColumns = 2048;
void add_logits(const LogitTile& tile, RowSums* sums);
/// From all columns: loss[i] and lse[i] of the tile's rows, and the sum of the losses so far, in order.
void finish_losses(const LogitTile& tile, const RowSums* sums, void* loss, void* lse, double& sum);
/// Overwrites the tile by its part of the gradient, as cross_entropy_back; lse of its rows.
void logits_to_gradient(const LogitTile& tile, const void* lse, const RowScale& scale);
/// A tile of whole rows: losses, and the gradient over the logits, while a row is near.
void logits_to_loss_and_gradient(const LogitTile& tile, void* loss, const RowScale& scale);
/// Rows that are not ignored.
int64_t count_targets(const int32_t* targets, int64_t rows, const LossTerms& terms);
}  // namespace reckon::cpu
