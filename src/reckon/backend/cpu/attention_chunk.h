// backend/cpu/attention_chunk: attention of one chunk of a sequence whose keys and values lie apart, and its gradients, which gather over
// the chunks. Plain pointers, as in attention.h.
#pragma once
#include <cstdint>

#include "reckon/backend/cpu/attention.h"

namespace reckon::cpu {

/// The tokens [first, first + attention.tokens) of sequences of `total` tokens; causal. `k` and `v` [B, KV, total, D] hold the keys and
/// values of all tokens before first + attention.tokens, those of the chunk included.
struct AttentionChunk {
  AttentionShape attention;
  int64_t first = 0;
  int64_t total = 0;
  int64_t end() const { return first + attention.tokens; }
};

/// Scratch bytes, 64-byte aligned, for up to `lanes` threads. Never less when an extent grows.
int64_t attention_chunk_workspace(const AttentionChunk& chunk, int lanes);
int64_t attention_chunk_back_workspace(const AttentionChunk& chunk, int lanes);
/// Multiply-adds that a call executes, as attention_work() and attention_back_work().
int64_t attention_chunk_work(const AttentionChunk& chunk, int vector_floats);
int64_t attention_chunk_back_work(const AttentionChunk& chunk, int lanes, int vector_floats);

/// The queries of qkv [B, C, (H + 2 KV) D] over k and v -> out [B, C, H D], lse [B, H, C]. The bits of each row are those of
/// attention_forward over the whole sequence.
void attention_chunk_forward(const AttentionChunk& chunk, const void* qkv, const void* k, const void* v, void* out, void* lse,
                             void* workspace, int lanes);

/// dqkv of a chunk [B, C, (H + 2 KV) D], fully written, from dout, forward's inputs and outputs, and the chunks after it: they come first,
/// and add to dk and dv [B, KV, total, D rounded up to 16] (f32; f64 for f64), zero before, what their queries want of earlier keys; dk as
/// the kernel sums it: f32 without the scale. The bits depend neither on threads nor on `lanes`.
void attention_chunk_backward(const AttentionChunk& chunk, const void* dout, const void* qkv, const void* k, const void* v, const void* out,
                              const void* lse, void* dk, void* dv, void* dqkv, void* workspace, int lanes);
}  // namespace reckon::cpu
