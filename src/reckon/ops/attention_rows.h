// ops/attention_rows: what the rows of attention share: their parameters as a user gives them, and what their plans check and count.
#pragma once
#include "reckon/ops/rows.h"

namespace reckon {

/// scale 0 stands for 1 / sqrt(head_dim).
AttentionParams attention_params(int64_t heads, int64_t kv_heads, int64_t head_dim, bool causal, double scale, int64_t window);
/// Throws Error unless qkv is [B, T, (H + 2 KV) D] of these heads.
void check_qkv(const TensorSpec& qkv, const AttentionParams& a);
/// Throws Error unless documents are i32 [B, T] of qkv and attention is causal.
void check_documents(const TensorSpec& documents, const TensorSpec& qkv, const AttentionParams& a);
/// Pairs of query and key that count, if all tokens are one document, of B sequences of T tokens.
int64_t score_count(const AttentionParams& a, int64_t B, int64_t T);
/// matmul() of which only so many multiply-adds are needed, forward and in each of its gradients; 0: all.
Tensor matmul_of_pairs(const Tensor& a, const Tensor& b, int64_t needed);
}  // namespace reckon
