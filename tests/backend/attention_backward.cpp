// tests/backend/attention_backward: the reference's gradient against finite differences, the kernels against the reference, and bits that
// depend neither on threads, nor on lanes, nor on whether one pass or two made them.
#include <gtest/gtest.h>

#include <cmath>

#include "hwy/targets.h"
#include "reckon/base/parallel.h"
#include "tests/backend/attention_reference.h"

namespace reckon::test {
namespace {
using cpu::AttentionShape;

// A central difference with step h is off by h^2 times a third derivative of order one, and by rounding 2^-53 / h.
TEST(AttentionBackward, ReferenceMatchesFiniteDifferences) {
  for (bool causal : {true, false}) {
    const AttentionShape s{2, 5, 4, 2, 3, DType::f64, causal};
    std::vector<double> qkv = uniform(DType::f64, 2 * 5 * 8 * 3, 1).doubles();
    const std::vector<double> dout = uniform(DType::f64, 2 * 5 * 4 * 3, 2).doubles();
    const Reference r = reference_attention(s, qkv, dout);
    auto loss = [&] {
      const std::vector<double> out = reference_attention(s, qkv).out;
      double sum = 0;
      for (size_t i = 0; i < out.size(); ++i) sum += out[i] * dout[i];
      return sum;
    };
    const double h = 1e-5, tol = 4 * (h * h + 0x1p-53 / h * double(dout.size()));
    for (size_t i = 0; i < qkv.size(); ++i) {
      const double x = qkv[i];
      qkv[i] = x + h;
      const double above = loss();
      qkv[i] = x - h;
      const double below = loss();
      qkv[i] = x;
      ASSERT_NEAR((above - below) / (2 * h), r.dqkv[i], tol) << i;
    }
  }
}

void expect_backward(const AttentionShape& s, int lanes) {
  Call call(s, lanes);
  call.forward();
  call.backward();
  const Reference want = reference_attention(s, call.qkv.doubles(), call.dout.doubles());
  const double tol = tolerance(s, want, 1, 1).dqkv;
  for (int64_t i = 0; i < call.dqkv.count(); ++i) {
    ASSERT_LE(std::abs(call.dqkv[i] - want.dqkv[size_t(i)]), tol)
        << describe(s) << " lanes " << lanes << " dqkv " << i << ": " << call.dqkv[i] << " for " << want.dqkv[size_t(i)];
  }
}

TEST(AttentionBackward, MatchesReferenceOverShapes) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
    for (int64_t T : {1, 2, 17, 64, 65, 200}) {
      for (int64_t D : {1, 3, 16, 33, 64, 80, 128}) expect_backward({1, T, 2, 2, D, dtype}, 2);
    }
    expect_backward({1, 70, 1, 1, 256, dtype}, 1);
    expect_backward({1, 150, 1, 1, 40, dtype}, 3);  // one task for three lanes: two passes
  }
}

TEST(AttentionBackward, GroupsOfQueryHeadsShareKeys) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
    expect_backward({2, 33, 6, 3, 24, dtype}, 2);
    expect_backward({2, 90, 6, 2, 24, dtype}, 2);
    expect_backward({1, 90, 7, 1, 24, dtype}, 2);
    expect_backward({1, 150, 9, 3, 64, dtype}, 2);
  }
}

TEST(AttentionBackward, WithoutMask) {
  for (int lanes : {1, 4}) {
    for (int64_t T : {1, 17, 129}) expect_backward({1, T, 4, 2, 40, DType::f32, false}, lanes);
    expect_backward({1, 65, 4, 2, 40, DType::f64, false}, lanes);
    expect_backward({1, 65, 4, 2, 40, DType::bf16, false}, lanes);
  }
}

AttentionShape windowed(AttentionShape s, int64_t window) {
  s.window = window;
  return s;
}

TEST(AttentionBackward, AWindowHidesWhatLiesFarBack) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16})
    for (int64_t window : {1, 2, 7, 31, 64, 65, 129, 199, 250})
      for (int lanes : {1, 5}) {
        expect_backward(windowed({1, 200, 2, 1, 20, dtype}, window), lanes);
        expect_backward(windowed({1, 130, 7, 1, 16, dtype}, window), lanes);
      }
}

TEST(AttentionBackward, OwnScale) {
  AttentionShape s{1, 100, 2, 1, 32};
  s.scale = 0.5;
  expect_backward(s, 1);
  s.dtype = DType::f64;
  expect_backward(s, 1);
}

TEST(AttentionBackward, NothingToDo) {
  expect_backward({0, 5, 2, 1, 8}, 2);
  expect_backward({3, 0, 2, 1, 8}, 2);
}

// Few groups on many lanes take two passes, many groups one: the sums must be the same numbers in the same order.
TEST(AttentionBackward, BitsDoNotDependOnThreadsOrLanes) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16})
    for (const AttentionShape& s : {AttentionShape{1, 400, 3, 1, 48, dtype}, AttentionShape{1, 333, 1, 1, 64, dtype},
                                    AttentionShape{3, 65, 4, 2, 40, dtype}, AttentionShape{1, 200, 2, 1, 20, dtype, false},
                                    windowed({1, 400, 3, 1, 48, dtype}, 100), windowed({3, 150, 4, 2, 40, dtype}, 10)})
      expect_same_bits_everywhere(s);
}

TEST(AttentionBackward, EveryInstructionSet) {
  for (int64_t disabled : {int64_t(HWY_AVX3), int64_t(HWY_AVX3 | HWY_AVX2)}) {
    hwy::DisableTargets(disabled);
    for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      for (int64_t T : {1, 17, 130}) {
        for (int64_t D : {1, 20, 64, 77}) expect_backward({1, T, 2, 1, D, dtype}, 1);
      }
    }
  }
  hwy::DisableTargets(0);
}
}  // namespace
}  // namespace reckon::test
