// backend/cpu/rows: the fixed cut into slices, and the ordered sum of their partial results.
#include "reckon/backend/cpu/rows.h"

#include <algorithm>

#include "reckon/backend/cpu/rounding.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
int64_t slice_bound(int64_t rows) { return std::min(kMaxSlices, (rows + kSliceRows - 1) / kSliceRows); }

Slices slices_of(int64_t rows) {
  const int64_t bound = slice_bound(rows);
  if (bound == 0) return {};
  const int64_t each = (rows + bound - 1) / bound;
  return {(rows + each - 1) / each, each};
}

void sum_slices(const void* partial, bool f64_partial, int64_t slices, int64_t stride, int64_t cols, void* out, DType out_dtype,
                bool accumulate) {
  constexpr int64_t kColumns = 128;
  parallel_range(cols, kColumns, [&](int64_t begin, int64_t end) {
    double sum[kColumns];
    for (int64_t c = begin; c < end; ++c) sum[c - begin] = accumulate ? load_float(out_dtype, out, c) : 0.0;
    for (int64_t s = 0; s < slices; ++s) {
      if (f64_partial) {
        const double* from = static_cast<const double*>(partial) + s * stride;
        for (int64_t c = begin; c < end; ++c) sum[c - begin] += from[c];
      } else {
        const float* from = static_cast<const float*>(partial) + s * stride;
        for (int64_t c = begin; c < end; ++c) sum[c - begin] += double(from[c]);
      }
    }
    for (int64_t c = begin; c < end; ++c) store_float(out_dtype, out, c, sum[c - begin]);
  });
}

double load_float(DType dtype, const void* data, int64_t at) {
  switch (dtype) {
    case DType::f32:
      return double(static_cast<const float*>(data)[at]);
    case DType::f64:
      return static_cast<const double*>(data)[at];
    case DType::bf16:
      return double(float(static_cast<const bfloat16*>(data)[at]));
    case DType::f16:
      return double(float(static_cast<const float16*>(data)[at]));
    case DType::f8e4m3fn:
      return double(float(static_cast<const float8_e4m3fn*>(data)[at]));
    case DType::f8e5m2:
      return double(float(static_cast<const float8_e5m2*>(data)[at]));
    default:
      fail("load_float: {} is not a float type", name_of(dtype));
  }
}

void store_float(DType dtype, void* data, int64_t at, double value) {
  switch (dtype) {
    case DType::f32:
      static_cast<float*>(data)[at] = float(value);
      return;
    case DType::f64:
      static_cast<double*>(data)[at] = value;
      return;
    case DType::bf16:
      static_cast<bfloat16*>(data)[at] = bfloat16(round_to_odd(value));
      return;
    case DType::f16:
      static_cast<float16*>(data)[at] = float16(round_to_odd(value));
      return;
    case DType::f8e4m3fn:
      static_cast<float8_e4m3fn*>(data)[at] = float8_e4m3fn(round_to_odd(value));
      return;
    case DType::f8e5m2:
      static_cast<float8_e5m2*>(data)[at] = float8_e5m2(round_to_odd(value));
      return;
    default:
      fail("store_float: {} is not a float type", name_of(dtype));
  }
}
}  // namespace reckon::cpu
