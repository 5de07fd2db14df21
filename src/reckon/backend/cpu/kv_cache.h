// backend/cpu/kv_cache: keys and values kept for generation, and attention of new tokens over them. Plain pointers, as in attention.h.
#pragma once
#include <cstdint>

#include "reckon/backend/cpu/attention.h"

namespace reckon::cpu {

/// Copies the keys and values of `shape.tokens` new rows, qkv [B, Tn, (H + 2 KV) D], into cache_k and cache_v [B, KV, max_tokens, D] at
/// positions position[0] .. position[0] + Tn - 1. The position is read when the kernel runs. Aborts if the rows do not fit: the host checks
/// first.
void kv_append(const AttentionShape& shape, int64_t max_tokens, const void* qkv, void* cache_k, void* cache_v, const int64_t* position);

/// Scratch bytes of attention_cached; never less when an extent grows.
int64_t attention_cached_workspace(const AttentionShape& shape, int64_t max_tokens, int lanes);

/// Attention of the queries in qkv [B, Tn, (H + 2 KV) D], at positions position[0] .. position[0] + Tn - 1, over the cache, which must
/// already hold their own keys and values (kv_append). Each sees the positions up to its own, or all position[0] + Tn if not causal. out
/// [B, Tn, H D].
void attention_cached(const AttentionShape& shape, int64_t max_tokens, const void* qkv, const void* cache_k, const void* cache_v,
                      const int64_t* position, void* out, void* workspace, int lanes);
}  // namespace reckon::cpu
