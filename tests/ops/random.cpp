// Random fills: element i is a function of the key and of i alone, and the draws are distributed as they say.
#include <algorithm>
#include <cmath>

#include "tests/engine/support.h"

namespace reckon {
namespace {

class RandomFill : public OnCpu {
 protected:
  template <class Fill>
  Values filled(int64_t n, DType dtype, Fill fill) {
    const Tensor x = empty(*device_, {{n}, dtype});
    fill(x);
    return x.to_vector();
  }
};

TEST_F(RandomFill, AnElementDependsOnItsKeyAndPlaceOnly) {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
    const auto check_prefix = [&](auto fill) {
      const Values longest = filled(5000, dtype, fill);
      for (const int64_t n : {1, 3, 17, 1000, 2049}) {
        const Values part = filled(n, dtype, fill);
        EXPECT_TRUE(std::equal(part.begin(), part.end(), longest.begin())) << n << " " << name_of(dtype);
      }
    };
    check_prefix([](const Tensor& x) { fill_uniform_(x, 42); });
    check_prefix([](const Tensor& x) { fill_normal_(x, 42); });
    check_prefix([](const Tensor& x) { fill_trunc_normal_(x, 42, 1, 2); });
  }
}

TEST_F(RandomFill, OtherKeysGiveOtherNumbers) {
  const auto uniform = [&](uint64_t key) { return filled(1000, DType::f64, [=](const Tensor& x) { fill_uniform_(x, key); }); };
  for (const uint64_t other : {uint64_t(0), uint64_t(2), uint64_t(1) << 32, uint64_t(1) << 63}) {
    const Values a = uniform(1), b = uniform(other);
    int64_t same = 0;
    double products = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      same += a[i] == b[i];
      products += (a[i] - 0.5) * (b[i] - 0.5);
    }
    EXPECT_LE(same, 2) << other;
    EXPECT_LT(std::abs(products) * 12 / std::sqrt(1000.0), 5) << "correlated with the stream of key " << other;
  }
}

// The largest distance between the empirical and the true distribution, times sqrt(n): Kolmogorov's law has mean 0.869 and deviation 0.26.
template <class Cdf>
double distance(Values v, Cdf cdf) {
  std::sort(v.begin(), v.end());
  double most = 0;
  for (size_t i = 0; i < v.size(); ++i)
    most = std::max({most, std::abs(cdf(v[i]) - double(i) / double(v.size())), std::abs(cdf(v[i]) - double(i + 1) / double(v.size()))});
  return most * std::sqrt(double(v.size()));
}
double normal_cdf(double x) { return std::erfc(-x / std::sqrt(2.0)) / 2; }

TEST_F(RandomFill, DistributionsAreWhatTheySay) {
  constexpr int kKeys = 25;
  // The mean over the keys is within 5 of its deviations, and no key is off by what happens once in 10^7.
  const auto expect_law = [&](DType dtype, const char* what, auto fill, auto cdf) {
    double mean = 0;
    for (uint64_t key = 0; key < kKeys; ++key) {
      const double d = distance(filled(10000, dtype, [&](const Tensor& x) { fill(x, key); }), cdf);
      EXPECT_LT(d, 2.9) << what << " in " << name_of(dtype) << ", key " << key;
      mean += d / kKeys;
    }
    EXPECT_NEAR(mean, 0.869, 5 * 0.26 / std::sqrt(double(kKeys))) << what << " in " << name_of(dtype);
  };
  for (const DType dtype : {DType::f32, DType::f64}) {
    expect_law(
        dtype, "uniform", [](const Tensor& x, uint64_t key) { fill_uniform_(x, key, -2, 3); }, [](double x) { return (x + 2) / 5; });
    expect_law(
        dtype, "normal", [](const Tensor& x, uint64_t key) { fill_normal_(x, key, 1, 0.5); },
        [](double x) { return normal_cdf((x - 1) / 0.5); });
    for (const double bound : {0.5, 1.0, 3.0}) {
      const double below = normal_cdf(-bound), inside = 1 - 2 * below;
      expect_law(
          dtype, "cut normal", [=](const Tensor& x, uint64_t key) { fill_trunc_normal_(x, key, 1, bound); },
          [=](double x) { return (normal_cdf(x) - below) / inside; });
    }
  }
}

TEST_F(RandomFill, NeighboursAreIndependent) {
  const Values v = filled(50000, DType::f64, [](const Tensor& x) { fill_normal_(x, 8); });
  for (const size_t lag : {1, 2, 3, 4, 7, 8, 16, 64, 1024}) {
    double sum = 0;
    for (size_t i = 0; i + lag < v.size(); ++i) sum += v[i] * v[i + lag];
    EXPECT_LT(std::abs(sum) / std::sqrt(double(v.size() - lag)), 4.5) << "lag " << lag;
  }
}

TEST_F(RandomFill, BoundsHold) {
  for (const double v : filled(100000, DType::f32, [](const Tensor& x) { fill_uniform_(x, 9); })) {
    ASSERT_GE(v, 0);
    ASSERT_LT(v, 1) << "the upper end is excluded";
  }
  for (const double v : filled(100000, DType::f32, [](const Tensor& x) { fill_trunc_normal_(x, 10, 0.02, 0.04); }))
    ASSERT_LE(std::abs(v), double(0.04f));
  for (const double v : filled(100000, DType::f32, [](const Tensor& x) { fill_normal_(x, 11); })) ASSERT_TRUE(std::isfinite(v));
}
}  // namespace
}  // namespace reckon
