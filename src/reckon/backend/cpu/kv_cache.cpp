// backend/cpu/kv_cache: appends to the cache and attends over it, with the blocks of attention.
#include "reckon/backend/cpu/kv_cache.h"

#include <cstring>

#include "reckon/backend/cpu/attention_block.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"
#include "reckon/tensor/shape.h"

namespace reckon::cpu {
using namespace detail;

void kv_append(const AttentionShape& s, int64_t max_tokens, const void* qkv, void* cache_k, void* cache_v, const int64_t* position) {
  assert_shape(s);
  const int64_t start = position[0];
  RECKON_ASSERT(start >= 0 && s.tokens <= max_tokens && start <= max_tokens - s.tokens);
  const int64_t bytes = s.head_dim * size_of(s.dtype), row_bytes = (s.heads + 2 * s.kv_heads) * bytes;
  parallel_for(s.batch * s.kv_heads, [&](int64_t task) {
    const int64_t batch = task / s.kv_heads, kv_head = task % s.kv_heads;
    const char* k = static_cast<const char*>(qkv) + batch * s.tokens * row_bytes + (s.heads + kv_head) * bytes;
    const char* v = k + s.kv_heads * bytes;
    const int64_t to = (task * max_tokens + start) * bytes;
    for (int64_t t = 0; t < s.tokens; ++t) {
      std::memcpy(static_cast<char*>(cache_k) + to + t * bytes, k + t * row_bytes, size_t(bytes));
      std::memcpy(static_cast<char*>(cache_v) + to + t * bytes, v + t * row_bytes, size_t(bytes));
    }
  });
}

int64_t attention_cached_workspace(const AttentionShape& shape, int64_t max_tokens, int lanes) {
  return checked_multiply(lanes, forward_lane_bytes(shape, max_tokens));
}

void attention_cached(const AttentionShape& s, int64_t max_tokens, const void* qkv, const void* cache_k, const void* cache_v,
                      const int64_t* position, void* out, void* workspace, int lanes) {
  assert_shape(s);
  const int64_t start = position[0], D = s.head_dim;
  RECKON_ASSERT(start >= 0 && s.tokens <= max_tokens && start <= max_tokens - s.tokens);
  auto group_of = [&](int64_t batch, int64_t kv_head) {
    HeadGroup g = common_group(s);
    g.q_stride = (s.heads + 2 * s.kv_heads) * D;
    g.out_stride = s.heads * D;
    g.kv_stride = D;
    g.first_position = start;
    g.keys = start + s.tokens;
    const int64_t query = kv_head * g.group * D, cached = (batch * s.kv_heads + kv_head) * max_tokens * D;
    g.q = static_cast<const char*>(qkv) + (batch * s.tokens * g.q_stride + query) * g.element;
    g.k = static_cast<const char*>(cache_k) + cached * g.element;
    g.v = static_cast<const char*>(cache_v) + cached * g.element;
    g.out = static_cast<char*>(out) + (batch * s.tokens * g.out_stride + query) * g.element;
    return g;
  };
  run_forward(s, forward_lane_bytes(s, max_tokens), group_of, workspace, lanes);
}
}  // namespace reckon::cpu
