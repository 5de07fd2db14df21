// backend/cpu/kernels: one function per operation of ops.def, from tensors to the plain-pointer kernels beside it. A missing one is a link
// error that names the operation.
#pragma once
#include "reckon/ops/rows.h"

namespace reckon::cpu {
namespace kernel {
#define OP(name) void name(const KernelArgs&);
#include "reckon/ops/ops.def"
#undef OP
}  // namespace kernel

/// What kernels need beyond their outputs; sets Plan::workspace and executed work.
namespace book {
void matmul(Plan&);
void linear(Plan&);
void linear_back_x(Plan&);
void linear_back_w(Plan&);
void linear_back_b(Plan&);
void quantize_fp8(Plan&);
void linear_fp8(Plan&);
void linear_fp8_again(Plan&);
void linear_fp8_back_x(Plan&);
void linear_fp8_back_w(Plan&);
void layer_norm_back(Plan&);
void rms_norm_back(Plan&);
void qk_norm_back(Plan&);
void rope(Plan&);
void attention(Plan&);
void attention_back(Plan&);
void attention_cached(Plan&);
void attention_chunk(Plan&);
void attention_chunk_back(Plan&);
void cross_entropy(Plan&);
void linear_cross_entropy(Plan&);
void linear_cross_entropy_back(Plan&);
void linear_cross_entropy_step(Plan&);
void sum(Plan&);
void max(Plan&);
void sum_of_squares(Plan&);
void scatter_add(Plan&);
void sort(Plan&);
void top_k(Plan&);
void conv2d(Plan&);
void conv2d_back_x(Plan&);
void conv2d_back_w(Plan&);
void lamb_moments(Plan&);
}  // namespace book

const KernelRow* kernel_table();
int64_t count_nonfinite(DType dtype, const void* data, int64_t count);
}  // namespace reckon::cpu
