// backend/cpu/gemm_reference: the obvious matrix multiplication, in double. Tests judge the fast engines by it.
#include "reckon/backend/cpu/gemm.h"

namespace reckon::cpu {
namespace {
double read(const void* x, DType dtype, int64_t at) {
  switch (dtype) {
    case DType::f64:
      return static_cast<const double*>(x)[at];
    case DType::bf16:
      return double(float(static_cast<const bfloat16*>(x)[at]));
    case DType::f16:
      return double(float(static_cast<const float16*>(x)[at]));
    default:
      return double(static_cast<const float*>(x)[at]);
  }
}
void write(void* x, DType dtype, int64_t at, double value) {
  switch (dtype) {
    case DType::f64:
      static_cast<double*>(x)[at] = value;
      break;
    case DType::bf16:
      static_cast<bfloat16*>(x)[at] = bfloat16(float(value));
      break;
    case DType::f16:
      static_cast<float16*>(x)[at] = float16(float(value));
      break;
    default:
      static_cast<float*>(x)[at] = float(value);
  }
}
}  // namespace

void gemm_reference(const GemmShape& s, const void* a, const void* b, void* c, const void* bias) {
  for (int64_t i = 0; i < s.m; ++i)
    for (int64_t j = 0; j < s.n; ++j) {
      double sum = s.accumulate ? read(c, s.c, i * s.n + j) : 0;
      for (int64_t l = 0; l < s.k; ++l)
        sum += read(a, s.a, s.trans_a ? l * s.m + i : i * s.k + l) * read(b, s.b, s.trans_b ? j * s.k + l : l * s.n + j);
      if (s.bias) sum += read(bias, s.bias_dtype, j);
      write(c, s.c, i * s.n + j, sum);
    }
}
}  // namespace reckon::cpu
