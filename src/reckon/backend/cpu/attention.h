// backend/cpu/attention: causal multi-head and grouped-query attention over packed rows, forward and backward.
// Plain pointers and numbers: it knows no tensor, no operation and no allocator.
#pragma once
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// One attention call. A token's row of `qkv` holds `heads` query heads, then `kv_heads` key heads, then `kv_heads` value heads, each
/// `head_dim` wide; query head h reads key/value head h / (heads / kv_heads).
struct AttentionShape {
  int64_t batch = 0;         // B
  int64_t tokens = 0;        // T, may be 0
  int64_t heads = 1;         // H, a multiple of kv_heads
  int64_t kv_heads = 1;      // KV
  int64_t head_dim = 64;     // D in [1, 256]
  DType dtype = DType::f32;  // of qkv, out and their gradients: f32, f64, bf16 or f16; sums are float32, or float64 for f64
  bool causal = true;        // token t sees tokens 0..t; otherwise all of them
  double scale = 0;          // of the scores; 0 stands for 1 / sqrt(head_dim)
  int64_t window = 0;        // causal: token t sees itself and the window - 1 tokens before it; 0 stands for all before it
  // Causal: [B, T], the first key that each token sees, that of its document; never falls along a sequence. Null stands for 0 everywhere.
  const int32_t* documents = nullptr;
};

/// Scratch bytes, 64-byte aligned, for up to `lanes` threads. Never less when an extent grows. Forward: independent of T (f64: one row of
/// T).
int64_t attention_workspace(const AttentionShape& shape, int lanes);
/// As above for the backward pass: grows linearly with T.
int64_t attention_back_workspace(const AttentionShape& shape, int lanes);

/// Multiply-adds of the matrix products that a call executes, as its loops make them: also what the mask hides of a tile and what fills up
/// whole vectors, and in the backward pass the scores that are computed again. vector_floats: float32 values of a vector, as
/// attention_vector_floats() says for this machine. Independent of threads. Throws Error (usage) beyond 2^63 - 1.
/// Documents are not looked at: with some, a call executes less.
int64_t attention_work(const AttentionShape& shape, int vector_floats);
int64_t attention_back_work(const AttentionShape& shape, int lanes, int vector_floats);
int attention_vector_floats();

/// out = softmax(scale * q k^T) v by blocks with a running softmax; the T x T scores never exist.
/// qkv [B, T, (H + 2 KV) D] -> out [B, T, H D], lse [B, H, T] (f32; f64 for f64): the log-sum-exp of the scaled scores, kept for backward.
/// Runs on up to `lanes` threads; the bits do not depend on how many. Dao et al. 2022, arXiv:2205.14135; Milakov & Gimelshein 2018,
/// arXiv:1805.02867.
void attention_forward(const AttentionShape& shape, const void* qkv, void* out, void* lse, void* workspace, int lanes);

/// dqkv [B, T, (H + 2 KV) D], fully written, from dout [B, T, H D] and forward's inputs and outputs. The probabilities are recomputed from
/// lse. The bits depend neither on the threads nor on `lanes`.
void attention_backward(const AttentionShape& shape, const void* dout, const void* qkv, const void* out, const void* lse, void* dqkv,
                        void* workspace, int lanes);
}  // namespace reckon::cpu
