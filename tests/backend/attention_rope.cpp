// tests/backend/attention_rope: the rotation against sines taken directly, in double.
#include <gtest/gtest.h>

#include <cmath>

#include "hwy/targets.h"
#include "reckon/backend/cpu/rope.h"
#include "reckon/base/parallel.h"
#include "tests/backend/attention_reference.h"

namespace reckon::test {
namespace {
using cpu::RopeShape;

Array rotate(const RopeShape& s, const Array& x, const int64_t* offset = nullptr, bool inverse = false) {
  Array y(s.dtype, x.count());
  Buffer workspace(cpu::rope_workspace(s));
  cpu::rope(s, x.data(), y.data(), offset, inverse, workspace.data());
  return y;
}

std::vector<double> reference_rope(const RopeShape& s, const std::vector<double>& x, int64_t offset, bool inverse) {
  std::vector<double> y = x;
  for (int64_t r = 0; r < s.rows; ++r) {
    for (int64_t h = 0; h < s.rotated_heads; ++h) {
      for (int64_t i = 0; i < s.head_dim / 2; ++i) {
        const double angle = double(r % s.tokens + offset) / std::pow(s.theta, 2 * double(i) / double(s.head_dim));
        const double c = std::cos(angle), n = inverse ? -std::sin(angle) : std::sin(angle);
        const size_t a = size_t(r * s.width + h * s.head_dim + i), b = a + size_t(s.head_dim / 2);
        y[a] = x[a] * c - x[b] * n;
        y[b] = x[b] * c + x[a] * n;
      }
    }
  }
  return y;
}

// Two products, a sum and the tables' rounding: 4 roundings of values up to 2, the angle's own error in double, and the output's rounding.
void expect_rope(const RopeShape& s, int64_t offset, bool inverse) {
  const Array x = uniform(s.dtype, s.rows * s.width, 3);
  const Array y = rotate(s, x, &offset, inverse);
  const std::vector<double> want = reference_rope(s, x.doubles(), offset, inverse);
  const double angle_error = double(s.tokens + offset) * 0x1p-51;
  const double tol = 4 * epsilon(statistics_dtype(s.dtype)) + 2 * angle_error + epsilon(s.dtype) * std::sqrt(2.0) / 2;
  for (int64_t i = 0; i < y.count(); ++i)
    ASSERT_NEAR(y[i], want[size_t(i)], tol) << "row " << i / s.width << " column " << i % s.width << " D " << s.head_dim;
}

TEST(Rope, MatchesReference) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
    for (int64_t D : {2, 6, 32, 64, 80, 128, 256}) {
      for (int64_t offset : {0, 31, 1000}) {
        expect_rope({2 * 70, 70, 4 * D + 5, 3, D, 10000.0, dtype}, offset, false);
        expect_rope({2 * 70, 70, 3 * D, 3, D, 500000.0, dtype}, offset, true);
      }
    }
    expect_rope({1, 1, 64, 1, 64, 10000.0, dtype}, 131071, false);
    expect_rope({3, 1, 64, 0, 64, 10000.0, dtype}, 0, false);  // nothing turned: a copy
    expect_rope({0, 5, 64, 1, 64, 10000.0, dtype}, 0, false);
  }
}

TEST(Rope, InPlaceAndWithoutOffset) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
    const RopeShape s{90, 45, 5 * 20, 3, 20, 10000.0, dtype};
    Array x = uniform(dtype, s.rows * s.width, 4);
    const Array y = rotate(s, x);
    Buffer workspace(cpu::rope_workspace(s));
    cpu::rope(s, x.data(), x.data(), nullptr, false, workspace.data());
    EXPECT_TRUE(x.same_bits(y));
  }
}

// Rotations keep dot products of equal distance, and the inverse undoes them.
TEST(Rope, InverseRestores) {
  const RopeShape s{64, 64, 128, 2, 64, 10000.0, DType::f64};
  const Array x = uniform(DType::f64, s.rows * s.width, 5);
  const int64_t offset = 77;
  const Array back = rotate(s, rotate(s, x, &offset), &offset, true);
  for (int64_t i = 0; i < x.count(); ++i) ASSERT_NEAR(back[i], x[i], 8 * 0x1p-52);
}

// Generation turns one token at a time; it must get what the whole sequence got.
TEST(Rope, PositionAloneDecidesTheBits) {
  for (DType dtype : {DType::f32, DType::f64, DType::bf16}) {
    const RopeShape whole{100, 100, 64, 1, 64, 10000.0, dtype}, one{1, 1, 64, 1, 64, 10000.0, dtype};
    const Array x = uniform(dtype, whole.rows * whole.width, 6), y = rotate(whole, x);
    for (int64_t t = 0; t < 100; ++t) {
      Array row(dtype, 64);
      for (int64_t i = 0; i < 64; ++i) row.set(i, x[t * 64 + i]);
      const Array turned = rotate(one, row, &t);
      for (int64_t i = 0; i < 64; ++i) ASSERT_EQ(turned[i], y[t * 64 + i]) << "token " << t << " column " << i;
    }
  }
}

TEST(Rope, BitsDoNotDependOnThreads) {
  const int before = thread_count();
  const RopeShape s{300, 150, 96, 2, 32, 10000.0, DType::f32};
  const Array x = uniform(DType::f32, s.rows * s.width, 7);
  set_thread_count(1);
  const Array one = rotate(s, x);
  for (int threads : {2, 5}) {
    set_thread_count(threads);
    EXPECT_TRUE(rotate(s, x).same_bits(one)) << threads;
  }
  set_thread_count(before);
}

TEST(Rope, EveryInstructionSet) {
  for (int64_t disabled : {int64_t(HWY_AVX3), int64_t(HWY_AVX3 | HWY_AVX2)}) {
    hwy::DisableTargets(disabled);
    for (DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      for (int64_t D : {2, 20, 64}) expect_rope({50, 25, 3 * D, 2, D, 10000.0, dtype}, 3, false);
    }
  }
  hwy::DisableTargets(0);
}
}  // namespace
}  // namespace reckon::test
