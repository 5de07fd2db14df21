// tests/backend/attention_cache: generation over the KV cache gives what attention over the whole sequence gives; bounds hold.
#include <gtest/gtest.h>

#include <cmath>

#include "reckon/backend/cpu/kv_cache.h"
#include "reckon/base/parallel.h"
#include "tests/backend/attention_reference.h"

namespace reckon::test {
namespace {
using cpu::AttentionShape;

struct Cache {
  Array k, v;
  int64_t max_tokens;
  Cache(const AttentionShape& s, int64_t tokens)
      : k(s.dtype, s.batch * s.kv_heads * tokens * s.head_dim), v(s.dtype, k.count()), max_tokens(tokens) {}
};

/// Feeds the tokens [position, position + count) of qkv [B, T, ...]; returns their output [B, count, H D].
Array step(const AttentionShape& whole, const Array& qkv, Cache& cache, int64_t position, int64_t count, int lanes = 2) {
  AttentionShape s = whole;
  s.tokens = count;
  const int64_t width = (s.heads + 2 * s.kv_heads) * s.head_dim;
  Array fresh(s.dtype, s.batch * count * width), out(s.dtype, s.batch * count * s.heads * s.head_dim);
  for (int64_t b = 0; b < s.batch; ++b) {
    for (int64_t i = 0; i < count * width; ++i) fresh.set(b * count * width + i, qkv[(b * whole.tokens + position) * width + i]);
  }
  cpu::kv_append(s, cache.max_tokens, fresh.data(), cache.k.data(), cache.v.data(), &position);
  Buffer workspace(cpu::attention_cached_workspace(s, cache.max_tokens, lanes));
  cpu::attention_cached(s, cache.max_tokens, fresh.data(), cache.k.data(), cache.v.data(), &position, out.data(), workspace.data(), lanes);
  return out;
}

// A prompt, then single tokens, then a pair. The cache beyond the position is NaN and must not be read.
TEST(KvCache, StepsMatchTheWholeSequence) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
    for (const AttentionShape& s :
         {AttentionShape{2, 100, 6, 2, 40, dtype}, AttentionShape{1, 140, 4, 4, 64, dtype}, AttentionShape{2, 30, 3, 1, 7, dtype}}) {
      Call call(s, 2);
      const Reference want = reference_attention(s, call.qkv.doubles());
      const double tol = tolerance(s, want, 1, 1).out;
      Cache cache(s, s.tokens + 3);
      const int64_t row = s.heads * s.head_dim;
      for (int64_t position = 0; position < s.tokens;) {
        const int64_t count = position == 0 ? s.tokens * 2 / 3 : std::min<int64_t>(position % 3 == 0 ? 2 : 1, s.tokens - position);
        const Array out = step(s, call.qkv, cache, position, count);
        for (int64_t b = 0; b < s.batch; ++b) {
          for (int64_t i = 0; i < count * row; ++i) {
            ASSERT_LE(std::abs(out[b * count * row + i] - want.out[size_t((b * s.tokens + position) * row + i)]), tol)
                << describe(s) << " at " << position;
          }
        }
        position += count;
      }
    }
  }
}

TEST(KvCache, AppendWritesItsRowsOnly) {
  const AttentionShape s{2, 3, 4, 2, 5, DType::bf16};
  const Array qkv = uniform(DType::bf16, 2 * 3 * 8 * 5, 1);
  Cache cache(s, 9);
  for (int64_t i = 0; i < cache.k.count(); ++i) cache.k.set(i, 7), cache.v.set(i, 8);
  const int64_t position = 4;
  cpu::kv_append(s, 9, qkv.data(), cache.k.data(), cache.v.data(), &position);
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t h = 0; h < 2; ++h) {
      for (int64_t t = 0; t < 9; ++t) {
        for (int64_t d = 0; d < 5; ++d) {
          const int64_t at = ((b * 2 + h) * 9 + t) * 5 + d, from = (b * 3 + t - 4) * 40 + 20 + h * 5 + d;
          const bool fresh = t >= 4 && t < 7;
          EXPECT_EQ(cache.k[at], fresh ? qkv[from] : 7.0);
          EXPECT_EQ(cache.v[at], fresh ? qkv[from + 10] : 8.0);
        }
      }
    }
  }
}

TEST(KvCacheDeathTest, AppendBeyondTheEndAborts) {
  const AttentionShape s{1, 2, 1, 1, 4};
  const Array qkv = uniform(DType::f32, 2 * 12, 1);
  Cache cache(s, 5);
  Array out(DType::f32, 8);
  Buffer workspace(cpu::attention_cached_workspace(s, 5, 1));
  for (int64_t position : {int64_t(4), int64_t(-1), INT64_MAX}) {
    EXPECT_DEATH(cpu::kv_append(s, 5, qkv.data(), cache.k.data(), cache.v.data(), &position), "start");
    EXPECT_DEATH(cpu::attention_cached(s, 5, qkv.data(), cache.k.data(), cache.v.data(), &position, out.data(), workspace.data(), 1),
                 "start");
  }
}

TEST(KvCache, BitsDoNotDependOnThreads) {
  const int before = thread_count();
  const AttentionShape s{1, 200, 6, 2, 32};
  Call call(s, 1);
  auto run = [&](int threads) {
    set_thread_count(threads);
    Cache cache(s, 256);
    step(s, call.qkv, cache, 0, 150, 5);
    return step(s, call.qkv, cache, 150, 50, 5);
  };
  const Array one = run(1);
  EXPECT_TRUE(run(2).same_bits(one));
  EXPECT_TRUE(run(5).same_bits(one));
  set_thread_count(before);
}
}  // namespace
}  // namespace reckon::test
