// The narrow floats against their definitions: every bit pattern decoded by the formula of the format, and encoded again from every float32
// that matters: each value, each middle between two, and their neighbours on both sides.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "reckon/tensor/dtype.h"

namespace reckon {
namespace {
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A sign, bits of exponent with a bias, bits of fraction; and if the largest exponent is for infinities and NaN alone.
struct Definition {
  int exponent, fraction, bias;
  bool has_infinity;
  int bits() const { return 1 + exponent + fraction; }
  int codes() const { return 1 << bits(); }
  double value(int code) const {
    const int sign = code >> (bits() - 1), e = code >> fraction & ((1 << exponent) - 1), f = code & ((1 << fraction) - 1);
    const int last = (1 << exponent) - 1;
    double v;
    if (has_infinity && e == last)
      v = f ? double(NAN) : double(INFINITY);
    else if (!has_infinity && e == last && f == (1 << fraction) - 1)
      v = double(NAN);
    else
      v = e == 0 ? std::ldexp(f, 1 - bias - fraction) : std::ldexp((1 << fraction) + f, e - bias - fraction);
    return sign ? -v : v;
  }
};

template <class T>
struct Format;
template <>
struct Format<bfloat16> {
  static constexpr Definition definition{8, 7, 127, true};
};
template <>
struct Format<float16> {
  static constexpr Definition definition{5, 10, 15, true};
};
template <>
struct Format<float8_e4m3fn> {
  static constexpr Definition definition{4, 3, 7, false};
};
template <>
struct Format<float8_e5m2> {
  static constexpr Definition definition{5, 2, 15, true};
};

template <class T>
T of_code(int code) {
  T x;
  x.bits = decltype(x.bits)(code);
  return x;
}

template <class T>
class NarrowFloat : public ::testing::Test {};
using Formats = ::testing::Types<bfloat16, float16, float8_e4m3fn, float8_e5m2>;
TYPED_TEST_SUITE(NarrowFloat, Formats);

TYPED_TEST(NarrowFloat, EveryPatternIsWhatTheFormatSaysAndComesBack) {
  constexpr Definition d = Format<TypeParam>::definition;
  for (int code = 0; code < d.codes(); ++code) {
    const double want = d.value(code);
    const float got = float(of_code<TypeParam>(code));
    if (std::isnan(want)) {
      EXPECT_TRUE(std::isnan(got)) << code;
      EXPECT_TRUE(std::isnan(float(TypeParam(got)))) << code;
      continue;
    }
    ASSERT_EQ(double(got), want) << code;
    ASSERT_EQ(std::signbit(got), std::signbit(want)) << code;
    ASSERT_EQ(int(TypeParam(got).bits), code);
  }
}

// What a float32 must become: the nearer of the two values around it, of two equally near ones the even code. `above` is where the values
// would go on beyond the largest one.
template <class T>
int nearest(double v) {
  constexpr Definition d = Format<T>::definition;
  static const std::vector<double> values = [d] {  // not negative, ascending: codes from 0 on
    std::vector<double> list;
    for (int code = 0; code < d.codes() / 2 && std::isfinite(d.value(code)); ++code) list.push_back(d.value(code));
    list.push_back(2 * list.back() - list[list.size() - 2]);  // infinity in its place, or NaN
    return list;
  }();
  const double magnitude = std::abs(v);
  const int sign = std::signbit(v) ? d.codes() / 2 : 0;
  if (magnitude >= values.back()) return sign + int(values.size()) - 1;
  const int above = int(std::upper_bound(values.begin(), values.end(), magnitude) - values.begin()), below = above - 1;
  const double up = values[size_t(above)] - magnitude, down = magnitude - values[size_t(below)];
  return sign + (up < down || (up == down && above % 2 == 0) ? above : below);
}

template <class T>
void expect_nearest(float x) {
  for (const float v : {x, -x}) ASSERT_EQ(int(T(v).bits), nearest<T>(v)) << v;
}

TYPED_TEST(NarrowFloat, RoundsToTheNearestAroundEveryValueAndMiddle) {
  constexpr Definition d = Format<TypeParam>::definition;
  for (int code = 0; code + 1 < d.codes() / 2 && std::isfinite(d.value(code)); ++code) {
    const double here = d.value(code), next = d.value(code + 1);
    const double middle = std::isfinite(next) ? (here + next) / 2 : here + (here - d.value(code - 1)) / 2;
    for (const double at : {here, middle}) {
      const float x = float(at);
      if (double(x) != at) continue;  // middles of bfloat16's subnormals alone
      expect_nearest<TypeParam>(x);
      expect_nearest<TypeParam>(std::nextafter(x, kInfinity));
      if (x > 0) expect_nearest<TypeParam>(std::nextafter(x, 0.0f));
    }
  }
  EXPECT_TRUE(std::isnan(float(TypeParam(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(int(TypeParam(kInfinity).bits), nearest<TypeParam>(INFINITY));
  EXPECT_EQ(int(TypeParam(-std::numeric_limits<float>::max()).bits), nearest<TypeParam>(-double(std::numeric_limits<float>::max())));
  EXPECT_EQ(int(TypeParam(std::numeric_limits<float>::denorm_min()).bits), nearest<TypeParam>(0x1p-149));
}

// All 65,536 bfloat16 and all float16 as what is rounded.
TYPED_TEST(NarrowFloat, RoundsEveryHalf) {
  for (int code = 0; code < 65536; ++code)
    for (const float x : {float(of_code<bfloat16>(code)), float(of_code<float16>(code))}) {
      if (std::isnan(x))
        ASSERT_TRUE(std::isnan(float(TypeParam(x)))) << code;
      else
        ASSERT_EQ(int(TypeParam(x).bits), nearest<TypeParam>(x)) << x;
    }
}

TEST(Float8, FactsOfTheTypes) {
  for (const DType dtype : {DType::f8e4m3fn, DType::f8e5m2}) {
    EXPECT_EQ(size_of(dtype), 1);
    EXPECT_TRUE(is_float8(dtype));
    EXPECT_FALSE(is_float(dtype)) << "nothing is computed in it";
    const Float8Format& f = float8_format(dtype);
    EXPECT_EQ(double(std::bit_cast<float>(f.largest)), largest_finite(dtype));
  }
  EXPECT_FALSE(is_float8(DType::f16));
  EXPECT_EQ(largest_finite(DType::f8e4m3fn), 448);
  EXPECT_EQ(largest_finite(DType::f8e5m2), 57344);
  EXPECT_EQ(name_of(DType::f8e4m3fn), "f8e4m3fn");
  EXPECT_EQ(name_of(DType::f8e5m2), "f8e5m2");
  EXPECT_EQ(epsilon(DType::f8e4m3fn), 0.125);
  EXPECT_EQ(epsilon(DType::f8e5m2), 0.25);
  // As PyTorch casts: 464 is halfway to where 480 would be and goes to the even 448, beyond is NaN; E5M2 goes to infinity.
  EXPECT_EQ(float(float8_e4m3fn(464.0f)), 448);
  EXPECT_TRUE(std::isnan(float(float8_e4m3fn(464.1f))));
  EXPECT_TRUE(std::isnan(float(float8_e4m3fn(kInfinity))));
  EXPECT_EQ(float(float8_e5m2(61439.0f)), 57344);
  EXPECT_EQ(float(float8_e5m2(61440.0f)), kInfinity);
}
}  // namespace
}  // namespace reckon
