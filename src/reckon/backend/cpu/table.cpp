#include <array>

#include "reckon/backend/cpu/kernels.h"

namespace reckon::cpu {
namespace {
constexpr std::array<KernelRow, kKernelCount> make_table() {
  std::array<KernelRow, kKernelCount> rows{};
#define OP(name) rows[k_##name].run = kernel::name;
#include "reckon/ops/ops.def"
#undef OP
#define BOOK(name) rows[k_##name].book = book::name;
  BOOK(matmul) BOOK(linear) BOOK(linear_back_x) BOOK(linear_back_w) BOOK(linear_back_b)
  BOOK(quantize_fp8) BOOK(linear_fp8) BOOK(linear_fp8_again) BOOK(linear_fp8_back_x) BOOK(linear_fp8_back_w)
  BOOK(layer_norm_back) BOOK(rms_norm_back) BOOK(qk_norm_back) BOOK(rope)
  BOOK(attention) BOOK(attention_back) BOOK(attention_cached)
  BOOK(attention_chunk) BOOK(attention_chunk_back) BOOK(cross_entropy)
  BOOK(linear_cross_entropy) BOOK(linear_cross_entropy_back) BOOK(linear_cross_entropy_step) BOOK(sum) BOOK(max) BOOK(sum_of_squares)
  BOOK(scatter_add) BOOK(sort) BOOK(top_k) BOOK(conv2d) BOOK(conv2d_back_x) BOOK(conv2d_back_w)
  BOOK(lamb_moments)
#undef BOOK
  return rows;
}
constexpr std::array<KernelRow, kKernelCount> kTable = make_table();
}  // namespace

const KernelRow* kernel_table() { return kTable.data(); }
}  // namespace reckon::cpu
