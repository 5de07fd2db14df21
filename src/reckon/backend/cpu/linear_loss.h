// backend/cpu/linear_loss: cross entropy of the logits x w^T, which exist a tile at a time. It multiplies with gemm and knows plain
// pointers only.
#pragma once
#include "reckon/backend/cpu/loss.h"

namespace reckon::cpu {

/// x [rows, width], w [classes, width], both of `dtype`; targets [rows]. Losses and their statistics are f32, f64 for f64.
struct LinearLoss {
  DType dtype = DType::f32;
  int64_t rows = 0, width = 0, classes = 0;
  const void* x = nullptr;
  const void* w = nullptr;
  const int32_t* targets = nullptr;
  LossTerms terms;
  void* workspace = nullptr;  // 64-byte aligned, as the functions below say
  int lanes = 1;
};

/// What a head's gradients are added up in.
struct HeadGradients {
  void* dx = nullptr;  // [rows, width], null: not wanted
  void* dw = nullptr;  // [classes, width] of dw_dtype, null: not wanted
  DType dw_dtype = DType::f32;
  bool accumulate_dw = false;  // add to dw instead of overwriting it
};

/// The statistics of the rows and, where they are wanted, the losses and their mean or sum: those of cross_entropy on the logits rounded to
/// `dtype`. Tiles of kTileRows x kTileColumns.
struct LinearLossForward {
  void* losses = nullptr;  // [rows], null: not wanted
  void* lse = nullptr;     // [rows]
  void* mean = nullptr;    // [1], null: not wanted
  void* sum = nullptr;     // [1], null: not wanted
  void* count = nullptr;   // [1]
};
void linear_loss(const LinearLoss& head, const LinearLossForward& out);

/// Gradients from what forward found; scale, count and per_row as in CrossEntropyBack. The logits are made again.
struct LinearLossScale {
  const void* scale = nullptr;
  const void* count = nullptr;
  bool per_row = false;
};
void linear_loss_back(const LinearLoss& head, const LinearLossScale& scale, const void* lse, const HeadGradients& gradients);

/// Losses and gradients at once, three products in all: tiles of whole rows, so that a row's log-sum-exp is known before its tile is left.
/// Of losses, mean and sum those that are wanted; if it is the mean, scale is divided by the count, which is counted here. dx may be x.
void linear_loss_step(const LinearLoss& head, const LinearLossForward& out, const LinearLossScale& scale, const HeadGradients& gradients);

inline constexpr int64_t kTileRows = 256, kTileColumns = 2 * kLogitColumns;

/// Bytes of scratch: what gemm needs, a tile, and a few numbers a row of it. Pure functions, monotone in every extent.
int64_t linear_loss_workspace(DType dtype, int64_t rows, int64_t width, int64_t classes, int lanes);
int64_t linear_loss_back_workspace(DType dtype, int64_t rows, int64_t width, int64_t classes, DType dw_dtype, int lanes);
int64_t linear_loss_step_workspace(DType dtype, int64_t rows, int64_t width, int64_t classes, DType dw_dtype, int lanes);
/// Rows of a tile of the step: as many as fit in kStepTileBytes, from kLeastStepRows to kMostStepRows, in tiles of equal height.
inline constexpr int64_t kStepTileBytes = int64_t(64) << 20, kLeastStepRows = 128, kMostStepRows = 512;
int64_t linear_loss_step_rows(DType dtype, int64_t rows, int64_t classes);
}  // namespace reckon::cpu
