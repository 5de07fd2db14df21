// tests/backend/attention_forward: the forward pass against materialized scores in double, at every instruction set this machine has.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "hwy/targets.h"
#include "reckon/base/parallel.h"
#include "tests/backend/attention_reference.h"

namespace reckon::test {
namespace {
using cpu::AttentionShape;

void expect_forward(const AttentionShape& s, double width = 1) {
  Call call(s, 2, width);
  call.forward();
  const Reference want = reference_attention(s, call.qkv.doubles());
  const Tolerance tol = tolerance(s, want, width, 1);
  for (int64_t i = 0; i < call.out.count(); ++i) {
    ASSERT_LE(std::abs(call.out[i] - want.out[size_t(i)]), tol.out)
        << describe(s) << " out " << i << ": " << call.out[i] << " for " << want.out[size_t(i)];
  }
  for (int64_t i = 0; i < call.lse.count(); ++i) {
    ASSERT_LE(std::abs(call.lse[i] - want.lse[size_t(i)]), tol.lse)
        << describe(s) << " lse " << i << ": " << call.lse[i] << " for " << want.lse[size_t(i)];
  }
}

TEST(AttentionForward, MatchesReferenceOverShapes) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
    for (int64_t T : {1, 2, 17, 63, 64, 65, 130, 300}) {
      for (int64_t D : {1, 3, 15, 16, 32, 64, 77, 80, 128}) expect_forward({1, T, 2, 1, D, dtype});
    }
    expect_forward({1, 70, 1, 1, 256, dtype});
    expect_forward({2, 40, 2, 2, 255, dtype});
  }
}

TEST(AttentionForward, GroupsOfQueryHeadsShareKeys) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
    expect_forward({2, 33, 6, 6, 24, dtype});
    expect_forward({2, 33, 6, 3, 24, dtype});
    expect_forward({2, 90, 6, 2, 24, dtype});
    expect_forward({2, 90, 7, 1, 24, dtype});
    expect_forward({1, 150, 9, 3, 64, dtype});
  }
}

TEST(AttentionForward, WithoutMaskEveryTokenSeesAll) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
    for (int64_t T : {1, 17, 64, 129}) expect_forward({2, T, 4, 2, 40, dtype, false});
  }
}

AttentionShape windowed(AttentionShape s, int64_t window) {
  s.window = window;
  return s;
}

// Windows smaller and larger than a tile, a vector and a group's tokens; some rows see nothing of a block's first tile.
TEST(AttentionForward, AWindowHidesWhatLiesFarBack) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16})
    for (int64_t window : {1, 2, 7, 31, 63, 64, 65, 100, 129, 299, 300, 400}) {
      expect_forward(windowed({1, 300, 2, 1, 20, dtype}, window));
      expect_forward(windowed({2, 130, 7, 1, 16, dtype}, window));
    }
  expect_forward(windowed({1, 500, 2, 1, 16}, 90), 12);
  expect_forward(windowed({1, 700, 65, 1, 4}, 3));
}

TEST(AttentionForward, AWindowAsLongAsTheSequenceChangesNoBit) {
  Call all({1, 200, 3, 1, 24}, 2), seen(windowed({1, 200, 3, 1, 24}, 200), 2);
  all.forward();
  seen.forward();
  EXPECT_TRUE(all.out.same_bits(seen.out) && all.lse.same_bits(seen.lse));
}

TEST(AttentionForward, OwnScaleAndLargeScores) {
  AttentionShape s{1, 100, 2, 2, 32};
  s.scale = 0.75;
  expect_forward(s);
  expect_forward({1, 100, 2, 2, 32}, 12);  // scores up to some hundreds: the running maximum must hold
  s.scale = -0.3;
  expect_forward(s);
}

TEST(AttentionForward, NothingToDo) {
  expect_forward({0, 5, 2, 1, 8});
  expect_forward({3, 0, 2, 1, 8});
}

TEST(AttentionForward, LaterTokensNeverShow) {
  for (DType dtype : {DType::f32, DType::bf16}) {
    const AttentionShape s{1, 150, 3, 1, 20, dtype};
    Call a(s, 1), b(s, 1);
    const int64_t seen = 71, row = 5 * 20;
    for (int64_t i = seen * row; i < b.qkv.count(); ++i) b.qkv.set(i, 3 - b.qkv[i]);
    a.forward(), b.forward();
    for (int64_t i = 0; i < seen * 60; ++i) ASSERT_EQ(a.out[i], b.out[i]) << i;
    EXPECT_NE(a.out[seen * 60], b.out[seen * 60]);
  }
}

TEST(AttentionForward, NotANumberShows) {
  const AttentionShape s{1, 80, 1, 1, 16};
  Call call(s, 1);
  call.qkv.set(40 * 48 + 3, std::numeric_limits<double>::quiet_NaN());  // the query of token 40
  call.forward();
  for (int64_t t = 0; t < 80; ++t) EXPECT_EQ(std::isnan(call.out[t * 16 + 5]), t == 40) << t;
  Call key(s, 1);
  key.qkv.set(40 * 48 + 16 + 3, std::numeric_limits<double>::quiet_NaN());  // the key of token 40
  key.forward();
  for (int64_t t = 0; t < 80; ++t) EXPECT_EQ(std::isnan(key.out[t * 16 + 5]), t >= 40) << t;
}

TEST(AttentionForward, BitsDoNotDependOnThreadsOrLanes) {
  const int before = thread_count();
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
    for (const AttentionShape& s : {AttentionShape{1, 700, 2, 1, 48, dtype}, AttentionShape{3, 65, 4, 4, 64, dtype}}) {
      set_thread_count(1);
      Call one(s, 1);
      one.forward();
      for (int threads : {1, 2, 5}) {
        set_thread_count(threads);
        for (int lanes : {1, 2, 5}) {
          Call many(s, lanes);
          many.forward();
          EXPECT_TRUE(many.out.same_bits(one.out)) << describe(s) << " " << threads << " threads, " << lanes << " lanes";
          EXPECT_TRUE(many.lse.same_bits(one.lse)) << describe(s) << " " << threads << " threads, " << lanes << " lanes";
        }
      }
    }
  }
  set_thread_count(before);
}

TEST(AttentionForward, EveryInstructionSet) {
  for (int64_t disabled : {int64_t(HWY_AVX3), int64_t(HWY_AVX3 | HWY_AVX2)}) {
    hwy::DisableTargets(disabled);
    for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      for (int64_t T : {1, 17, 130}) {
        for (int64_t D : {1, 20, 64, 77}) expect_forward({1, T, 2, 1, D, dtype});
      }
    }
  }
  hwy::DisableTargets(0);
}

TEST(AttentionForward, WorkspaceGrowsWithEveryExtent) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16}) {
    const AttentionShape s{2, 100, 4, 2, 40, dtype};
    for (int lanes : {1, 2, 7}) {
      for (int grown = 0; grown < 5; ++grown) {
        AttentionShape t = s;
        (grown == 0 ? t.batch : grown == 1 ? t.tokens : grown == 2 ? t.heads : grown == 3 ? t.head_dim : t.kv_heads) *= 2;
        EXPECT_GE(cpu::attention_workspace(t, lanes), cpu::attention_workspace(s, lanes));
        EXPECT_GE(cpu::attention_back_workspace(t, lanes), cpu::attention_back_workspace(s, lanes));
      }
      EXPECT_GT(cpu::attention_workspace(s, lanes + 1), cpu::attention_workspace(s, lanes));
      EXPECT_GE(cpu::attention_back_workspace(s, lanes + 1), cpu::attention_back_workspace(s, lanes));
    }
  }
  // Never T x T: twice the tokens cost at most twice the scratch.
  const AttentionShape a{1, 4096, 8, 8, 64}, b{1, 8192, 8, 8, 64};
  EXPECT_EQ(cpu::attention_workspace(a, 2), cpu::attention_workspace(b, 2));
  EXPECT_LE(cpu::attention_back_workspace(b, 2), 2 * cpu::attention_back_workspace(a, 2));
}
}  // namespace
}  // namespace reckon::test
