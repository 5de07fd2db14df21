// backend/cpu/softmax: softmax and log-softmax over the last axis.
#pragma once
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// y[i, j] = exp(x[i, j] - lse[i]) with lse[i] = log(sum_j exp(x[i, j])), or, if `log`, x[i, j] - lse[i]. Contiguous [rows, cols], any
/// float dtype; the sum is kept in double. y may be x. A row of nothing but -inf gives NaN.
void softmax(bool log, DType dtype, const void* x, void* y, int64_t rows, int64_t cols);

/// From the output y: dx = y * (dy - sum_j dy y), or, if `log`, dx = dy - exp(y) * sum_j dy. dx may be dy or y.
void softmax_back(bool log, DType dtype, const void* dy, const void* y, void* dx, int64_t rows, int64_t cols);
}  // namespace reckon::cpu
