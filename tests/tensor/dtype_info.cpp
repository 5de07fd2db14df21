// What each type holds, against its own arithmetic, and where two types meet.
#include "reckon/tensor/dtype_info.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "reckon/base/error.h"

namespace reckon {
namespace {
using testing::HasSubstr;

template <class T>
void expect_limits(DType dtype, bool has_infinity) {
  const FloatInfo info = finfo(dtype);
  const auto value = [](double v) { return double(float(T(float(v)))); };
  EXPECT_EQ(info.bits, int(8 * sizeof(T)));
  EXPECT_EQ(value(info.max), info.max) << name_of(dtype);
  EXPECT_EQ(info.min, -info.max);
  EXPECT_EQ(std::isinf(value(info.max * 1.5)), has_infinity) << name_of(dtype);
  EXPECT_EQ(info.has_infinity, has_infinity);
  EXPECT_EQ(value(1 + info.eps), 1 + info.eps) << name_of(dtype);
  EXPECT_EQ(value(1 + info.eps / 4), 1) << name_of(dtype);
  EXPECT_EQ(value(info.smallest_subnormal), info.smallest_subnormal) << name_of(dtype);
  EXPECT_EQ(value(info.smallest_subnormal / 4), 0) << name_of(dtype);
  // A normal number has all digits, the next one below has not.
  EXPECT_EQ(value(info.smallest_normal * (1 + info.eps)), info.smallest_normal * (1 + info.eps)) << name_of(dtype);
  EXPECT_NE(value(info.smallest_normal / 2 * (1 + info.eps)), info.smallest_normal / 2 * (1 + info.eps)) << name_of(dtype);
}

TEST(DTypeInfo, FloatLimitsAreThoseOfTheArithmetic) {
  expect_limits<bfloat16>(DType::bf16, true);
  expect_limits<float16>(DType::f16, true);
  expect_limits<float8_e4m3fn>(DType::f8e4m3fn, false);
  expect_limits<float8_e5m2>(DType::f8e5m2, true);
  const FloatInfo f32 = finfo(DType::f32), f64 = finfo(DType::f64);
  EXPECT_EQ(f32.max, double(std::numeric_limits<float>::max()));
  EXPECT_EQ(f32.eps, double(std::numeric_limits<float>::epsilon()));
  EXPECT_EQ(f32.smallest_normal, double(std::numeric_limits<float>::min()));
  EXPECT_EQ(f32.smallest_subnormal, double(std::numeric_limits<float>::denorm_min()));
  EXPECT_EQ(f64.max, std::numeric_limits<double>::max());
  EXPECT_EQ(f64.eps, std::numeric_limits<double>::epsilon());
  EXPECT_EQ(f64.smallest_normal, std::numeric_limits<double>::min());
  EXPECT_EQ(f64.smallest_subnormal, std::numeric_limits<double>::denorm_min());
}

// The example of the notes: a learning-rate sized number.
TEST(DTypeInfo, OneHundredMillionthUnderflowsInFloat16AndNotInBfloat16) {
  EXPECT_EQ(float(float16(1e-8f)), 0);
  EXPECT_GT(float(bfloat16(1e-8f)), 0);
}

TEST(DTypeInfo, WholeNumbers) {
  EXPECT_EQ(iinfo(DType::i32).max, 2147483647);
  EXPECT_EQ(iinfo(DType::i32).min, -2147483648);
  EXPECT_EQ(iinfo(DType::i64).max, std::numeric_limits<int64_t>::max());
  EXPECT_EQ(iinfo(DType::u8).min, 0);
  EXPECT_EQ(iinfo(DType::u8).max, 255);
  EXPECT_EQ(iinfo(DType::boolean).max, 1);
  EXPECT_TRUE(is_integer(DType::u8));
  EXPECT_FALSE(is_integer(DType::boolean));
  EXPECT_FALSE(is_integer(DType::f32));
}

std::string error_of(auto run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

TEST(DTypeInfo, WrongKindsAreRefused) {
  EXPECT_THAT(error_of([] { finfo(DType::i32); }), HasSubstr("finfo: i32 is no floating-point type; see iinfo"));
  EXPECT_THAT(error_of([] { iinfo(DType::f8e5m2); }), HasSubstr("iinfo: f8e5m2 is no whole-number type; see finfo"));
  EXPECT_THAT(error_of([] { promote(DType::f8e5m2, DType::f32); }), HasSubstr("f8e5m2 and f32 do not meet"));
}

// torch.promote_types of the eight types, row by row: bool, u8, i32, i64, bf16, f16, f32, f64.
TEST(DTypeInfo, PromotionIsThatOfPyTorch) {
  constexpr DType o = DType::boolean, u = DType::u8, i = DType::i32, l = DType::i64, b = DType::bf16, h = DType::f16, f = DType::f32,
                  d = DType::f64;
  constexpr DType types[8] = {o, u, i, l, b, h, f, d};
  constexpr DType want[8][8] = {
      {o, u, i, l, b, h, f, d}, {u, u, i, l, b, h, f, d}, {i, i, i, l, b, h, f, d}, {l, l, l, l, b, h, f, d},
      {b, b, b, b, b, f, f, d}, {h, h, h, h, f, h, f, d}, {f, f, f, f, f, f, f, d}, {d, d, d, d, d, d, d, d},
  };
  for (int a = 0; a < 8; ++a)
    for (int c = 0; c < 8; ++c) EXPECT_EQ(promote(types[a], types[c]), want[a][c]) << name_of(types[a]) << " " << name_of(types[c]);
}
}  // namespace
}  // namespace reckon
