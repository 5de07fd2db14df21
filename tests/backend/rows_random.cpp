// Keyed fills: the words of base/philox.h, the moments and bounds of the distributions, and independence of size, offset and threads.
#include "reckon/backend/cpu/random.h"
#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
constexpr uint64_t kKey = 0x123456789ABCDEFull;

TEST(RowsRandom, UniformIsPhilox) {
  on_every_target([] {
    Buffer f(DType::f32, 5001), d(DType::f64, 5001);
    const int64_t first = (int64_t(1) << 34) - 2050;  // the block counter crosses 32 bits
    fill_uniform(DType::f32, f.data(), f.size(), kKey, first, 0, 1);
    fill_uniform(DType::f64, d.data(), d.size(), kKey, first, -2, 2);
    for (int64_t i = 0; i < f.size(); ++i) {
      const uint64_t at = uint64_t(first + i);
      ASSERT_EQ(f[i], uniform_float(philox(kKey, 0, at / 4)[at % 4]));
      const auto w = philox(kKey, 0, at / 2);
      ASSERT_EQ(d[i], -2 + 4 * (at % 2 ? uniform_double(w[2], w[3]) : uniform_double(w[0], w[1])));
    }
  });
}

TEST(RowsRandom, NormalIsBoxMuller) {
  on_every_target([] {
    Buffer f(DType::f32, 40002), d(DType::f64, 40002);
    fill_normal(DType::f32, f.data(), f.size(), kKey, 0, 0.5, 2);
    fill_normal(DType::f64, d.data(), d.size(), kKey, 0, 0.5, 2);
    for (int64_t i = 0; i < f.size(); i += 2) {
      const uint64_t at = uint64_t(i);
      const double u = uniform_float(philox(kKey, 0, at / 4)[at % 4]) + 0x1p-24, t = uniform_float(philox(kKey, 0, at / 4)[at % 4 + 1]);
      const double radius = std::sqrt(-2 * std::log(u));
      // A few roundings of values up to radius and 0.5 + 2 radius; near u = 1 the logarithm is as exact as its argument.
      const double tolerance = 8 * 0x1p-24 * (1 + 2 * radius);
      ASSERT_NEAR(f[i], 0.5 + 2 * radius * std::cos(2 * M_PI * t), tolerance);
      ASSERT_NEAR(f[i + 1], 0.5 + 2 * radius * std::sin(2 * M_PI * t), tolerance);
    }
  });
}

// Mean, variance, skew and kurtosis within five standard errors.
TEST(RowsRandom, NormalMoments) {
  constexpr int64_t n = 1000000;
  for (const DType dtype : {DType::f32, DType::f64}) {
    Buffer z(dtype, n);
    fill_normal(dtype, z.data(), n, kKey + 1, 0, 0, 1);
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, most = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double v = z[i];
      m1 += v / n, m2 += v * v / n, m3 += v * v * v / n, m4 += v * v * v * v / n, most = std::max(most, std::abs(v));
    }
    const double error = 5 / std::sqrt(double(n));
    EXPECT_NEAR(m1, 0, error);
    EXPECT_NEAR(m2, 1, error * std::sqrt(2.0));
    EXPECT_NEAR(m3, 0, error * std::sqrt(15.0));
    EXPECT_NEAR(m4, 3, error * std::sqrt(96.0));
    EXPECT_GT(most, 4);
  }
}

TEST(RowsRandom, TruncatedNormal) {
  constexpr int64_t n = 200000;
  struct Case {
    double mean, std, low, high;
  };
  for (const DType dtype : {DType::f32, DType::f64})
    for (const Case& c :
         {Case{0, 1, -2, 2}, Case{0, 0.02, -2, 2}, Case{1, 2, 3, 4}, Case{0, 1, 6, 7}, Case{0, 1, -9, -6}, Case{0, 1, -1, 8}}) {
      Buffer z(dtype, n);
      fill_truncated_normal(dtype, z.data(), n, kKey + 2, 0, c.mean, c.std, c.low, c.high);
      // Fractions below the quartiles of the interval must follow the distribution function, in the tails too.
      const auto phi = [&](double x) { return 0.5 * std::erfc(-(x - c.mean) / c.std / std::sqrt(2.0)); };
      const auto upper = [&](double x) { return 0.5 * std::erfc((x - c.mean) / c.std / std::sqrt(2.0)); };
      for (const double part : {0.05, 0.25, 0.5, 0.75}) {
        const double at = c.low + part * (c.high - c.low);
        int64_t below = 0;
        for (int64_t i = 0; i < n; ++i) below += z[i] < at;
        const double p = c.low > c.mean ? (upper(c.low) - upper(at)) / (upper(c.low) - upper(c.high))
                                        : (phi(at) - phi(c.low)) / (phi(c.high) - phi(c.low));
        EXPECT_NEAR(double(below) / n, p, 5 * std::sqrt(std::max(p * (1 - p), 1e-9) / n) + 1e-9) << c.low << " " << c.high << " at " << at;
      }
      for (int64_t i = 0; i < n; ++i) ASSERT_TRUE(z[i] >= c.low && z[i] <= c.high);
    }
}

// A shard holds the bytes that the whole fill holds there; any number of threads gives the same.
TEST(RowsRandom, ShardsAndThreads) {
  on_every_target([] {
    for (const DType dtype : kFloats) {
      constexpr int64_t n = 50000;
      const auto all = [&](int64_t first, int64_t count) {
        std::vector<Buffer> out(3, Buffer(dtype, count));
        fill_uniform(dtype, out[0].data(), count, kKey, first, -3, 5);
        fill_normal(dtype, out[1].data(), count, kKey, first, 1, 0.02);
        fill_truncated_normal(dtype, out[2].data(), count, kKey, first, 0, 1, -2, 2);
        return out;
      };
      expect_same_on_any_threads([&] { return all(0, n); });
      const auto whole = all(0, n);
      for (const int64_t first : {1, 7, 16385, 49990}) {
        const int64_t count = std::min<int64_t>(n - first, 3001);
        const auto shard = all(first, count);
        for (size_t k = 0; k < 3; ++k)
          for (int64_t i = 0; i < count; ++i) ASSERT_EQ(shard[k][i], whole[k][first + i]) << k << " " << first << " " << i;
      }
    }
  });
}
}  // namespace
}  // namespace reckon::cpu
