// tests/backend/attention_allocation: attention, RoPE and the KV cache take no memory: their scratch is given to them.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>

#include "reckon/backend/cpu/kv_cache.h"
#include "reckon/backend/cpu/rope.h"
#include "reckon/base/parallel.h"
#include "tests/backend/attention_reference.h"

extern std::atomic<size_t> largest_allocation;  // bytes, since it was last cleared: the witness in gemm.cpp

namespace reckon::test {
namespace {
using cpu::AttentionShape;

template <class Run>
void expect_no_allocation(const AttentionShape& s, const char* what, Run run) {
  run();  // threads start once
  largest_allocation = 0;
  run();
  EXPECT_LE(largest_allocation, 4096u) << what << " " << describe(s);
}

TEST(AttentionAllocation, KernelsTakeNoMemory) {
  const int before = thread_count();
  largest_allocation = 0;
  void* volatile seen = std::malloc(5000);  // volatile: an unused pair would be optimized away
  std::free(seen);
  ASSERT_GE(largest_allocation, 5000u) << "the witness sees nothing";
  for (int threads : {1, 2, 5}) {
    set_thread_count(threads);
    for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
      for (const AttentionShape& s : {AttentionShape{1, 300, 4, 1, 64, dtype}, AttentionShape{3, 100, 6, 2, 77, dtype}}) {
        Call c(s, 5);
        Buffer forward(cpu::attention_workspace(s, 5)), backward(cpu::attention_back_workspace(s, 5));
        expect_no_allocation(s, "forward", [&] { cpu::attention_forward(s, c.qkv.data(), c.out.data(), c.lse.data(), forward.data(), 5); });
        expect_no_allocation(s, "backward", [&] {
          cpu::attention_backward(s, c.dout.data(), c.qkv.data(), c.out.data(), c.lse.data(), c.dqkv.data(), backward.data(), 5);
        });
        const int64_t position = 7, max_tokens = s.tokens + 20;
        Array k(dtype, s.batch * s.kv_heads * max_tokens * s.head_dim), v(dtype, k.count());
        Buffer cached(cpu::attention_cached_workspace(s, max_tokens, 5));
        expect_no_allocation(s, "cached", [&] {
          cpu::kv_append(s, max_tokens, c.qkv.data(), k.data(), v.data(), &position);
          cpu::attention_cached(s, max_tokens, c.qkv.data(), k.data(), v.data(), &position, c.out.data(), cached.data(), 5);
        });
        const cpu::RopeShape r{
            s.batch * s.tokens, s.tokens, (s.heads + 2 * s.kv_heads) * s.head_dim, 2, s.head_dim / 2 * 2, 10000.0, dtype};
        Buffer tables(cpu::rope_workspace(r));
        expect_no_allocation(s, "rope", [&] { cpu::rope(r, c.qkv.data(), c.dqkv.data(), &position, false, tables.data()); });
      }
    }
  }
  set_thread_count(before);
}
}  // namespace
}  // namespace reckon::test
