// Stochastic rounding of bf16 weights that have no master: up or down to a neighbour, right on average, and by draws that depend on nothing
// but step, bucket and place.
#include <bit>

#include "reckon/backend/cpu/optimizer.h"
#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
std::vector<double> scalars(double learning_rate, uint64_t key) {
  std::vector<double> s(kStepScalars);
  s[kLearningRate] = learning_rate, s[kClip] = 1, s[kOk] = 1, s[kLossScale] = 1;
  s[kNoiseHigh] = double(key >> 32), s[kNoiseLow] = double(key & 0xFFFFFFFFu);
  return s;
}
// Elements [begin, end) of a bucket, by sgd: p -= lr g.
void step(Buffer& p, const Buffer& g, const std::vector<double>& s, int64_t begin, int64_t end, uint64_t bucket = 0) {
  optimizer_step({.kind = Optimizer::sgd,
                  .dtype = DType::bf16,
                  .n = end - begin,
                  .p = p.as<uint16_t>() + begin,
                  .g = static_cast<const float*>(g.data()) + begin,
                  .first = begin,
                  .bucket = bucket,
                  .scalars = s.data()});
}
void step(Buffer& p, const Buffer& g, const std::vector<double>& s, uint64_t bucket = 0) { step(p, g, s, 0, p.size(), bucket); }

TEST(RowsRounding, GoesToANeighbourAndKeepsWhatIsExact) {
  on_every_target([] {
    const int64_t n = 20011;
    const Buffer start = uniform(DType::bf16, n, 3, -4, 4), g = uniform(DType::f32, n, 4);
    Buffer p = start, still = start;
    step(p, g, scalars(0.1, 7));
    step(still, g, scalars(0, 7));
    EXPECT_TRUE(still.same_bytes(start)) << "a weight that is a bfloat16 already is not rounded";
    int64_t down = 0;
    for (int64_t i = 0; i < n; ++i) {
      const float exact = std::fma(-float(0.1), float(g[i]), float(start[i]));
      const uint32_t bits = std::bit_cast<uint32_t>(exact);
      const double below = double(std::bit_cast<float>(bits & 0xFFFF0000u)),
                   above = double(std::bit_cast<float>((bits & 0xFFFF0000u) + 0x10000u));
      // Where there is no fused product, the sum is rounded once more: to what may be a bfloat16 beside.
      const double slack = 2 * epsilon(DType::f32) * std::abs(double(exact));
      const bool is_below = std::abs(p[i] - below) <= slack, is_above = std::abs(p[i] - above) <= slack;
      ASSERT_TRUE(is_below || is_above) << i << ": " << exact << " became " << p[i];
      down += is_below;
    }
    EXPECT_GT(down, n / 3);
    EXPECT_LT(down, 2 * n / 3);
  });
}

// An update of a sixteenth of a bfloat16's step: rounding to nearest loses it always, stochastic rounding on average never.
TEST(RowsRounding, IsRightOnAverage) {
  on_every_target([] {
    const int64_t n = 1 << 18;
    Buffer p(DType::bf16, n, 1);
    const Buffer g(DType::f32, n, -1);
    const double share = 1.0 / 16, ulp = epsilon(DType::bf16);
    step(p, g, scalars(share * ulp, 11));
    double up = 0;
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_TRUE(p[i] == 1 || p[i] == 1 + ulp);
      up += p[i] > 1;
    }
    // A binomial count, within five of its standard deviations.
    EXPECT_NEAR(up, share * double(n), 5 * std::sqrt(share * (1 - share) * double(n)));
  });
}

TEST(RowsRounding, DrawsDependOnStepBucketAndPlaceAlone) {
  on_every_target([] {
    const int64_t n = 3000;
    const Buffer g = uniform(DType::f32, n, 4);
    Buffer whole = uniform(DType::bf16, n, 3), parts = whole, other_step = whole, other_bucket = whole;
    const auto s = scalars(0.01, 0x123456789ABCDEFull);
    step(whole, g, s, 1);
    const int64_t cuts[] = {0, 32, 96, 736, 1024, 2592, n};
    for (size_t i = 0; i + 1 < std::size(cuts); ++i) step(parts, g, s, cuts[i], cuts[i + 1], 1);
    EXPECT_TRUE(parts.same_bytes(whole));
    step(other_bucket, g, s, 2);
    step(other_step, g, scalars(0.01, 0x123456789ABCDF0ull), 1);
    EXPECT_FALSE(other_bucket.same_bytes(whole));
    EXPECT_FALSE(other_step.same_bytes(whole));
  });
}

TEST(RowsRounding, SameBytesOnAnyThreads) {
  const Buffer g = uniform(DType::f32, 100003, 5);
  expect_same_on_any_threads([&] {
    Buffer p = uniform(DType::bf16, g.size(), 6);
    step(p, g, scalars(0.01, 5));
    return std::vector<Buffer>{p};
  });
}
}  // namespace
}  // namespace reckon::cpu
