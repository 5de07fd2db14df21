// tests/backend/attention_chunk: sequences by chunks give the outputs of whole sequences bit by bit, and their gradients but for the order
// in which the chunks add to those of keys and values.
#include <gtest/gtest.h>

#include "hwy/targets.h"
#include "reckon/base/parallel.h"
#include "tests/backend/attention_chunked.h"

namespace reckon::test {
namespace {
using cpu::AttentionShape;

AttentionShape windowed(AttentionShape s, int64_t window) {
  s.window = window;
  return s;
}

void expect_whole(const AttentionShape& s, int64_t chunk, int lanes = 2) {
  Call whole(s, lanes);
  whole.forward();
  whole.backward();
  Chunked parts(s, lanes);
  parts.forward(chunk);
  parts.backward(chunk);
  const std::string what = describe(s) + " in chunks of " + std::to_string(chunk) + ", " + std::to_string(lanes) + " lanes";
  EXPECT_TRUE(parts.whole.out.same_bits(whole.out)) << what;
  EXPECT_TRUE(parts.whole.lse.same_bits(whole.lse)) << what;
  const Reference want = reference_attention(s, whole.qkv.doubles(), whole.dout.doubles());
  const double tol = tolerance(s, want, 1, 1).dqkv;
  const int64_t row = parts.row(), queries = s.heads * s.head_dim;
  for (int64_t i = 0; i < whole.dqkv.count(); ++i) {
    ASSERT_LE(std::abs(parts.whole.dqkv[i] - want.dqkv[size_t(i)]), tol) << what << " dqkv " << i;
    if (i % row < queries) {
      ASSERT_EQ(parts.whole.dqkv[i], whole.dqkv[i]) << what << " dq " << i;
    }
  }
}

TEST(AttentionChunk, GivesWhatWholeSequencesGive) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
    for (int64_t chunk : {1, 5, 64, 100, 200, 300}) expect_whole({1, 200, 2, 2, 20, dtype}, chunk);
    expect_whole({2, 130, 6, 2, 33, dtype}, 50);
    expect_whole({1, 150, 7, 1, 16, dtype}, 64);
    expect_whole({1, 150, 3, 1, 40, dtype}, 70, 5);  // two passes
    expect_whole({1, 90, 1, 1, 256, dtype}, 33, 1);
    expect_whole({1, 40, 2, 1, 1, dtype}, 7);
  }
}

TEST(AttentionChunk, AWindowReachesBackOverChunks) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16})
    for (int64_t window : {1, 7, 64, 65, 129, 250})
      for (int lanes : {1, 5})
        for (int64_t chunk : {30, 64, 128}) expect_whole(windowed({1, 200, 3, 1, 20, dtype}, window), chunk, lanes);
}

TEST(AttentionChunk, OwnScale) {
  for (DType dtype : {DType::f32, DType::f64}) {
    AttentionShape s{1, 100, 2, 1, 32, dtype};
    s.scale = 0.5;
    expect_whole(s, 40);
  }
}

// In float64 nothing but the last bits of a sum over chunks differs.
TEST(AttentionChunk, DoublesAgreeToTheirRounding) {
  const AttentionShape s{2, 170, 6, 2, 24, DType::f64};
  Call whole(s, 2);
  whole.forward();
  whole.backward();
  Chunked parts(s, 2);
  parts.forward(48);
  parts.backward(48);
  const double most = max_abs(whole.dqkv.doubles());
  for (int64_t i = 0; i < whole.dqkv.count(); ++i) ASSERT_NEAR(parts.whole.dqkv[i], whole.dqkv[i], 0x1p-52 * std::sqrt(170.0) * 4 * most);
}

TEST(AttentionChunk, BitsDoNotDependOnThreadsOrLanes) {
  const int before = thread_count();
  for (DType dtype : {DType::f32, DType::f64, DType::bf16})
    for (const AttentionShape& s :
         {AttentionShape{1, 300, 3, 1, 48, dtype}, AttentionShape{3, 90, 4, 2, 40, dtype}, windowed({1, 300, 3, 1, 48, dtype}, 100)}) {
      set_thread_count(1);
      Chunked one(s, 1);
      one.forward(70);
      one.backward(70);
      for (int threads : {1, 2, 5}) {
        set_thread_count(threads);
        for (int lanes : {1, 2, 5}) {
          Chunked many(s, lanes);
          many.forward(70);
          many.backward(70);
          EXPECT_TRUE(many.whole.out.same_bits(one.whole.out)) << describe(s) << " " << threads << " threads, " << lanes << " lanes";
          EXPECT_TRUE(many.whole.dqkv.same_bits(one.whole.dqkv)) << describe(s) << " " << threads << " threads, " << lanes << " lanes";
        }
      }
    }
  set_thread_count(before);
}

TEST(AttentionChunk, EveryInstructionSet) {
  for (int64_t disabled : {int64_t(HWY_AVX3), int64_t(HWY_AVX3 | HWY_AVX2)}) {
    hwy::DisableTargets(disabled);
    for (DType dtype : {DType::f32, DType::bf16}) expect_whole({1, 130, 2, 1, 20, dtype}, 50);
  }
  hwy::DisableTargets(0);
}

TEST(AttentionChunkDeathTest, AChunkBeyondTheEndAborts) {
  const AttentionShape s{1, 8, 1, 1, 4};
  Chunked c(s, 1);
  cpu::AttentionChunk part = c.parts(8)[0];
  part.first = 1;
  Buffer workspace(cpu::attention_chunk_workspace(part, 1));
  EXPECT_DEATH(cpu::attention_chunk_forward(part, c.whole.qkv.data(), c.k.data(), c.v.data(), c.whole.out.data(), c.whole.lse.data(),
                                            workspace.data(), 1),
               "first");
}
}  // namespace
}  // namespace reckon::test
