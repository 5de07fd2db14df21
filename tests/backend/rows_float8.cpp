// Vectors of 8-bit floats against the scalar types, scales, saturation, and the history that scales follow.
#include <limits>

#include "reckon/backend/cpu/convert.h"
#include "reckon/backend/cpu/float8.h"
#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
constexpr DType kFormats[] = {DType::f8e4m3fn, DType::f8e5m2};
constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

uint8_t code_of(DType format, float x) { return encode_float8(float8_format(format), x); }
float value_of(DType format, uint8_t code) { return float(load_float(format, &code, 0)); }

// Every value of the format, every middle, the float32 on both sides of each, and all bfloat16: both signs.
std::vector<float> probes(DType format) {
  std::vector<float> list;
  for (int code = 0; code < 0x7F; ++code) {
    const float here = value_of(format, uint8_t(code)), next = value_of(format, uint8_t(code + 1));
    const float middle = std::isfinite(next) ? (here + next) / 2 : here + (here - value_of(format, uint8_t(code - 1))) / 2;
    for (const float x : {here, middle})
      for (const float near : {x, std::nextafter(x, kInfinity), std::nextafter(x, -kInfinity)}) list.insert(list.end(), {near, -near});
  }
  for (uint32_t i = 0; i < 65536; ++i) list.push_back(std::bit_cast<float>(i << 16));
  return list;
}

TEST(RowsFloat8, VectorsRoundAsTheScalarTypes) {
  on_every_target([] {
    for (const DType format : kFormats) {
      const std::vector<float> x = probes(format);
      std::vector<uint8_t> got(x.size());
      convert(DType::f32, x.data(), format, got.data(), int64_t(x.size()));
      for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(int(got[i]), int(code_of(format, x[i]))) << name_of(format) << " " << x[i];
      for (const int64_t n : {1, 3, 17, 33}) {  // tails
        std::vector<uint8_t> few(size_t(n) + 1, 0xA5);
        convert(DType::f32, x.data(), format, few.data(), n);
        EXPECT_TRUE(std::equal(few.begin(), few.end() - 1, got.begin()) && few.back() == 0xA5);
      }
    }
  });
}

TEST(RowsFloat8, AllPatternsComeBack) {
  on_every_target([] {
    for (const DType format : kFormats) {
      uint8_t codes[256], back[256];
      float wide[256];
      for (int i = 0; i < 256; ++i) codes[i] = uint8_t(i);
      convert(format, codes, DType::f32, wide, 256);
      convert(DType::f32, wide, format, back, 256);
      for (int i = 0; i < 256; ++i) {
        const float want = value_of(format, uint8_t(i));
        ASSERT_TRUE(std::isnan(want) ? std::isnan(wide[i]) : wide[i] == want && back[i] == codes[i]) << name_of(format) << " " << i;
      }
    }
  });
}

TEST(RowsFloat8, TheLargestMagnitudeSeesEveryElement) {
  on_every_target([] {
    for (const DType dtype : {DType::f32, DType::bf16})
      for (const int64_t n : {0, 1, 15, 16, 31, 2049, 40000}) {
        std::vector<char> scratch(size_t(float8_workspace(n)));
        Buffer x = uniform(dtype, n, 3);
        EXPECT_EQ(largest_magnitude(dtype, x.data(), n, scratch.data()), float(max_abs(values(x))));
        for (const int64_t at : {int64_t(0), n / 2, n - 1}) {
          if (at < 0 || at >= n) continue;
          const double before = x[at];
          x.set(at, -7);
          EXPECT_EQ(largest_magnitude(dtype, x.data(), n, scratch.data()), 7);
          x.set(at, -double(INFINITY));
          EXPECT_EQ(largest_magnitude(dtype, x.data(), n, scratch.data()), kInfinity);
          x.set(at, double(NAN));
          EXPECT_TRUE(std::isnan(largest_magnitude(dtype, x.data(), n, scratch.data())));
          x.set(at, before);
        }
      }
  });
}

TEST(RowsFloat8, ScalesAreTheLargestPowersOfTwoThatFit) {
  for (const DType format : kFormats) {
    const double most = largest_finite(format);
    for (const double magnitude : {1.0, 0.875, 0.8750001, 1.75, 1.76, 448.0, 449.0, 57344.0, 57345.0, 1e-6, 3e7, 1.9999999}) {
      const double scale = double(float8_scale(format, float(magnitude)));
      EXPECT_LE(double(float(magnitude)) * scale, most) << magnitude;
      EXPECT_GT(double(float(magnitude)) * scale * 2, most) << magnitude;
    }
    for (const float odd : {0.0f, kInfinity, kNan}) EXPECT_EQ(float8_scale(format, odd), 1);
    EXPECT_EQ(float8_scale(format, 1e-40f), 0x1p100f);
  }
}

TEST(RowsFloat8, QuantizingSaturatesWhatIsFiniteAndKeepsWhatIsNot) {
  on_every_target([] {
    for (const DType format : kFormats)
      for (const float scale : {1.0f, 0x1p-20f, 0x1p40f}) {
        const float most = float(largest_finite(format)) / scale, huge = std::numeric_limits<float>::max();
        const std::vector<float> x = {most, most * 1.001f, -most * 3, huge, -huge, kInfinity, -kInfinity, kNan, 0, -0.0f, most / 3};
        const int64_t n = int64_t(x.size());
        std::vector<uint8_t> q(x.size());
        std::vector<bfloat16> wide(x.size()), through(x.size());
        quantize(DType::f32, x.data(), format, scale, q.data(), n);
        restore(format, q.data(), scale, wide.data(), n);
        round_through(DType::f32, x.data(), format, scale, through.data(), n);
        for (const size_t i : {0, 1, 3}) EXPECT_EQ(float(wide[i]), most) << i;
        for (const size_t i : {2, 4}) EXPECT_EQ(float(wide[i]), -most) << i;
        for (const size_t i : {5, 6})
          EXPECT_TRUE(format == DType::f8e5m2 ? float(wide[i]) == x[i] : std::isnan(float(wide[i])))
              << "an infinity must be seen behind a product";
        EXPECT_TRUE(std::isnan(float(wide[7])));
        EXPECT_EQ(float(wide[8]), 0);
        EXPECT_TRUE(std::signbit(float(wide[9])));
        EXPECT_EQ(float(wide[10]), value_of(format, code_of(format, x[10] * scale)) / scale);
        for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(wide[i].bits, through[i].bits) << i;
      }
  });
}

// What is restored is a bfloat16 exactly, at every scale that there may be.
TEST(RowsFloat8, EveryCodeIsABfloat16AtEveryScale) {
  for (const DType format : kFormats)
    for (int power = -100; power <= 100; power += 25) {
      uint8_t codes[256];
      bfloat16 wide[256];
      for (int i = 0; i < 256; ++i) codes[i] = uint8_t(i);
      restore(format, codes, std::ldexp(1.0f, power), wide, 256);
      for (int i = 0; i < 256; ++i) {
        const double want = std::ldexp(double(value_of(format, uint8_t(i))), -power);
        ASSERT_TRUE(std::isnan(want) ? std::isnan(float(wide[i])) : double(float(wide[i])) == want) << i << " at 2^" << power;
      }
    }
}

TEST(RowsFloat8, SameBitsOnAnyThreads) {
  expect_same_on_any_threads([] {
    constexpr int64_t m = 300, n = 70, k = 130;
    Buffer x = uniform(DType::bf16, m * k, 1), w = uniform(DType::bf16, n * k, 2), q(DType::f8e4m3fn, m * k), y(DType::bf16, m * n),
           dw(DType::f32, n * k);
    Buffer g = uniform(DType::f8e5m2, m * n, 3), dx(DType::bf16, m * k);
    std::vector<char> scratch(size_t(float8_workspace(m * k)));
    const float scale = float8_scale(DType::f8e4m3fn, largest_magnitude(DType::bf16, x.data(), m * k, scratch.data()));
    quantize(DType::bf16, x.data(), DType::f8e4m3fn, scale, q.as<uint8_t>(), m * k);
    const Float8Matrix a{DType::f8e4m3fn, scale, q.as<uint8_t>()}, b{DType::f8e4m3fn, 8, nullptr, w.data(), DType::bf16},
        dy{DType::f8e5m2, 4, g.as<uint8_t>()};
    const Float8Linear s{m, n, k, DType::bf16}, wide{m, n, k, DType::f32};
    scratch.resize(size_t(std::max({float8_linear_workspace(s, false, 5), float8_linear_back_x_workspace(s, 5),
                                    float8_linear_back_w_workspace(wide, 5)})) +
                   64);
    char* const aligned = scratch.data() + (64 - reinterpret_cast<uintptr_t>(scratch.data()) % 64) % 64;
    float8_linear(s, a, b, y.data(), nullptr, aligned, 5);
    float8_linear_back_x(s, dy, b, dx.data(), aligned, 5);
    float8_linear_back_w(wide, dy, a, dw.data(), false, aligned, 5);
    return std::vector<Buffer>{q, y, dx, dw};
  });
}

TEST(RowsFloat8, ScalesFollowTheWindow) {
  constexpr int64_t kWindow = 3;
  std::vector<float> amax(3), history(3 * kWindow), scales(3);
  const auto step = [&](float input, bool ok = true) {
    amax = {input, 0, input};
    step_float8_scales(3, kWindow, ok, amax.data(), history.data(), scales.data());
    EXPECT_EQ(amax, std::vector<float>(3)) << "the next step begins with nothing";
  };
  const auto newest = [&] { return std::vector<float>(history.begin(), history.begin() + kWindow); };
  step(1);
  EXPECT_EQ(newest(), (std::vector<float>{1, 0, 0}));
  EXPECT_EQ(scales, (std::vector<float>{256, 0, 32768}));
  step(4);
  step(2);
  EXPECT_EQ(newest(), (std::vector<float>{2, 4, 1}));
  EXPECT_EQ(scales[0], 64);
  for (const float odd : {kInfinity, kNan}) step(odd);
  step(100, false);
  EXPECT_EQ(newest(), (std::vector<float>{2, 4, 1})) << "nothing was learned";
  EXPECT_EQ(scales[0], 64);
  step(1);
  EXPECT_EQ(scales[0], 64);
  step(1);
  EXPECT_EQ(newest(), (std::vector<float>{1, 1, 2}));
  EXPECT_EQ(scales[0], 128) << "the 4 has left the window";
}
}  // namespace
}  // namespace reckon::cpu
