// AdamW with 8-bit states: the map from its definition, quantizing to the nearest value, weights in every storage, skipping, threads. What
// a step computes is judged against double by the cases of adamw8bit_step.
#include <limits>

#include "reckon/backend/cpu/optimizer_8bit.h"
#include "reckon/ops/state_blocks.h"
#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
// Dettmers et al. 2022: the number of leading zero bits is the decade, the bits behind the first one cut [0.1, 1] of it into equal parts.
// Signed codes have 7 bits for the magnitude and a sign, unsigned ones 8; the code that is left is 1.
std::vector<double> map_values(bool is_signed) {
  std::vector<double> values(256);
  const int bits = is_signed ? 7 : 8;
  for (int code = 0; code < 256; ++code) {
    const int c = is_signed ? code % 128 : code;
    double& value = values[size_t(code)];
    for (int zeros = 0, parts = 1 << (bits - 1); parts > 0; ++zeros, parts /= 2)
      if (c / parts == 1) value = std::pow(10.0, -zeros) * (0.1 + 0.9 * (c % parts + 0.5) / parts);
    if (is_signed && code >= 128) value = -value;
  }
  values[is_signed ? 128 : 1] = 1;
  return values;
}

// A step of one or more blocks whose effect is plain: with betas of 1 the states stay, with 0 they are the gradient and its square.
struct Blocks {
  Buffer p, g, m, m_scale, v, v_scale;
  Buffer residual = Buffer(DType::bf16, 0), master = Buffer(DType::f32, 0);

  explicit Blocks(int64_t blocks, DType dtype = DType::f32)
      : p(dtype, blocks * kStateBlock),
        g(DType::f32, blocks * kStateBlock),
        m(DType::u8, blocks * kStateBlock),
        m_scale(DType::f32, blocks),
        v(DType::u8, blocks * kStateBlock),
        v_scale(DType::f32, blocks) {}
  void step(const std::vector<double>& scalars, double weight_decay = 0) {
    OptimizerStep a{
        .dtype = p.dtype(), .n = p.size(), .p = p.data(), .g = g.data(), .weight_decay = weight_decay, .scalars = scalars.data()};
    if (p.dtype() == DType::bf16) a.residual = residual.as<uint16_t>();
    if (p.dtype() == DType::f16) a.master = master.as<float>();
    adamw8bit_step(a, {m.as<uint8_t>(), m_scale.as<float>(), v.as<uint8_t>(), v_scale.as<float>()});
  }
  std::vector<Buffer> all() const { return {p, residual, master, m, m_scale, v, v_scale}; }
};
std::vector<double> scalars(double beta1, double beta2, double eps) {
  std::vector<double> s(kStepScalars);
  s[kLearningRate] = 1, s[kBeta1] = beta1, s[kBeta2] = beta2, s[kEpsilon] = eps;
  s[kBiasFactor1] = s[kBiasFactor2] = 1, s[kClip] = 1, s[kOk] = 1, s[kLossScale] = 1;
  return s;
}

// Restored from slope and base, both rounded: at most 1.8 and 0.8 of the decade, whose smallest value is a tenth.
double restoring_error(double value) { return 4 * epsilon(DType::f32) * 10 * std::abs(value); }

TEST(RowsOptimizer8bit, MapHas256ValuesFromMinusOneToOne) {
  for (const bool is_signed : {true, false}) {
    std::vector<double> values = map_values(is_signed);
    std::sort(values.begin(), values.end());
    EXPECT_EQ(std::unique(values.begin(), values.end()), values.end());
    EXPECT_EQ(values.back(), 1);
    EXPECT_NEAR(values.front(), is_signed ? -0.1 - 0.9 * 63.5 / 64 : 0, 1e-15);
    EXPECT_TRUE(std::binary_search(values.begin(), values.end(), 0));
  }
}

// With betas of 1 every code stays what it is, and the weights show its value: -m / (sqrt(v) + eps).
TEST(RowsOptimizer8bit, EveryCodeIsRestoredAndFoundAgain) {
  on_every_target([] {
    const std::vector<double> first = map_values(true), second = map_values(false);
    for (const double scale : {1.0, 3e-20, 7e4}) {
      Blocks of_m(1), of_v(1);
      for (int code = 0; code < 256; ++code) {
        of_m.m.set(code, code), of_v.v.set(code, code);
        of_v.m.set(code, 128);
      }
      of_m.m_scale.set(0, scale), of_v.v_scale.set(0, scale), of_v.m_scale.set(0, 1);
      const Blocks m_before = of_m, v_before = of_v;
      of_m.step(scalars(1, 1, 1));
      of_v.step(scalars(1, 1, 1e-30));
      for (int code = 0; code < 256; ++code) {
        const double m = first[size_t(code)] * scale, v = second[size_t(code)] * scale;
        EXPECT_NEAR(of_m.p[code], -m, restoring_error(m)) << code;
        if (code == 0) continue;
        EXPECT_NEAR(of_v.p[code], -1 / std::sqrt(v), restoring_error(1 / std::sqrt(v))) << code;
      }
      EXPECT_TRUE(of_m.m.same_bytes(m_before.m) && of_m.m_scale.same_bytes(m_before.m_scale));
      EXPECT_TRUE(of_v.v.same_bytes(v_before.v) && of_v.v_scale.same_bytes(v_before.v_scale));
    }
  });
}

// With betas of 0 the states are the gradient and its square: any float goes to the nearest value of the map.
TEST(RowsOptimizer8bit, QuantizesToTheNearest) {
  std::vector<double> first = map_values(true), second = map_values(false), inputs;
  std::vector<double> sorted = first;
  std::sort(sorted.begin(), sorted.end());
  for (size_t i = 0; i + 1 < sorted.size(); ++i) {  // values, and around the middle between them
    const float middle = float((sorted[i] + sorted[i + 1]) / 2);
    for (const float x : {float(sorted[i]), std::nextafter(middle, -2.f), middle, std::nextafter(middle, 2.f)}) inputs.push_back(double(x));
  }
  for (uint64_t i = 0; i < 20000; ++i) {
    const double u = double(mix_key(3, i) >> 11) * 0x1p-53, sign = mix_key(4, i) % 2 ? 1 : -1;
    inputs.push_back(sign * (i % 2 ? u : std::pow(10.0, -9 * u)));
  }
  const int64_t each = kStateBlock - 1, blocks = (int64_t(inputs.size()) + each - 1) / each;
  on_every_target([&] {
    Blocks b(blocks);
    for (int64_t i = 0; i < blocks * kStateBlock; ++i) {  // 1 first, so that the scale is 1
      const size_t at = size_t(i / kStateBlock * each + i % kStateBlock - 1);
      b.g.set(i, i % kStateBlock == 0 ? 1 : at < inputs.size() ? inputs[at] : 0);
    }
    b.step(scalars(0, 0, 1));
    for (int64_t i = 0; i < blocks; ++i) ASSERT_TRUE(b.m_scale[i] == 1 && b.v_scale[i] == 1);
    for (int64_t i = 0; i < blocks * kStateBlock; ++i) {
      const double m = b.g[i], v = double(float(b.g[i]) * float(b.g[i]));
      const auto nearest = [](const std::vector<double>& values, double x) {
        double best = 2;
        for (const double value : values) best = std::min(best, std::abs(value - x));
        return best;
      };
      const double got_m = first[size_t(b.m[i])], got_v = second[size_t(b.v[i])];
      // The place within a decade is computed in float32: a tie may go either way.
      ASSERT_LE(std::abs(got_m - m), nearest(first, m) + restoring_error(m)) << m << " became " << got_m;
      if (v > 0 && v < second[2]) {
        ASSERT_EQ(b.v[i], 2) << v << ": what is not 0 is at least the smallest value";
      } else {
        ASSERT_LE(std::abs(got_v - v), nearest(second, v) + restoring_error(v)) << v << " became " << got_v;
      }
    }
  });
}

TEST(RowsOptimizer8bit, BlocksOfZerosStayZero) {
  on_every_target([] {
    Blocks b(3);
    for (int64_t i = kStateBlock; i < 2 * kStateBlock; ++i) b.g.set(i, 1e-30);  // its square is no float
    b.step(scalars(0.9, 0.95, 1e-8));
    for (int64_t i = 0; i < b.p.size(); ++i) {
      const bool tiny = i / kStateBlock == 1;
      ASSERT_EQ(b.m[i] != 0, tiny) << i;
      ASSERT_EQ(b.v[i], 0) << i;
      ASSERT_EQ(b.p[i] != 0, tiny) << i;
    }
    EXPECT_EQ(b.m_scale[0], 0);
    EXPECT_EQ(b.v_scale[1], 0);
  });
}

Blocks start(DType dtype, int64_t blocks) {
  Blocks b(blocks, dtype);
  Buffer master = uniform(DType::f32, b.p.size(), 9);
  for (int64_t i = 0; i < b.p.size(); ++i) b.p.set(i, master[i]);
  if (dtype == DType::f16) b.master = master;
  if (dtype == DType::bf16) {
    b.residual = Buffer(DType::bf16, b.p.size());
    split_master(master.as<float>(), b.p.data(), b.residual.as<uint16_t>(), b.p.size());
  }
  return b;
}
void three_steps(Blocks& b) {
  for (int step = 1; step <= 3; ++step) {
    b.g = uniform(DType::f32, b.g.size(), 100 + uint64_t(step));
    auto s = scalars(0.9, 0.95, 1e-8);
    s[kLearningRate] = 0.01, s[kBiasFactor1] = 1 - std::pow(0.9, step), s[kBiasFactor2] = 1 - std::pow(0.95, step), s[kClip] = 0.5;
    b.step(s, 0.1);
  }
}

TEST(RowsOptimizer8bit, SixteenBitWeightsAreTheFloatRunBitByBit) {
  on_every_target([] {
    Blocks whole = start(DType::f32, 70), planes = start(DType::bf16, 70), copied = start(DType::f16, 70);
    for (Blocks* b : {&whole, &planes, &copied}) three_steps(*b);
    Buffer joined(DType::f32, whole.p.size());
    join_master(planes.p.data(), planes.residual.as<uint16_t>(), joined.as<float>(), joined.size());
    EXPECT_TRUE(joined.same_bytes(whole.p));
    EXPECT_TRUE(copied.master.same_bytes(whole.p));
    for (int64_t i = 0; i < whole.p.size(); ++i) ASSERT_EQ(copied.p[i], double(float(float16(float(whole.p[i])))));
    for (const Blocks* b : {&planes, &copied})
      EXPECT_TRUE(b->m.same_bytes(whole.m) && b->m_scale.same_bytes(whole.m_scale) && b->v.same_bytes(whole.v) &&
                  b->v_scale.same_bytes(whole.v_scale));
  });
}

TEST(RowsOptimizer8bit, SkipsWhenNotOk) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    Blocks b = start(dtype, 2);
    three_steps(b);
    const Blocks before = b;
    b.g.set(3, std::nan(""));
    auto s = scalars(0.9, 0.95, 1e-8);
    s[kOk] = 0;
    b.step(s, 0.1);
    for (size_t i = 0; i < b.all().size(); ++i) EXPECT_TRUE(b.all()[i].same_bytes(before.all()[i])) << i;
  }
}

TEST(RowsOptimizer8bit, SameBytesOnAnyThreads) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    expect_same_on_any_threads([&] {
      Blocks b = start(dtype, 321);
      three_steps(b);
      return b.all();
    });
}
}  // namespace
}  // namespace reckon::cpu
