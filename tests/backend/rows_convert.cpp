// Conversions between every pair of types against a scalar definition.
#include <limits>

#include "reckon/backend/cpu/convert.h"
#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
const DType kAll[] = {DType::f32, DType::f64, DType::bf16, DType::f16, DType::i32, DType::i64, DType::u8, DType::boolean,
                      DType::f8e4m3fn, DType::f8e5m2};

// Nearest even by search among the two neighbours, in exact arithmetic: the definition, not an algorithm.
template <class Half>
double nearest_half(double value) {
  const Half rough{float(value)};
  Half best = rough;
  for (const int step : {-1, 1}) {
    Half other;
    other.bits = decltype(other.bits)(rough.bits + step);
    const double a = std::abs(double(float(best)) - value), b = std::abs(double(float(other)) - value);
    if (std::isfinite(float(other)) && (b < a || (b == a && other.bits % 2 == 0))) best = other;
  }
  return double(float(best));
}

TEST(RowsConvert, EveryPairOfTypes) {
  on_every_target([] {
    for (const DType from : kAll)
      for (const DType to : kAll)
        for (const int64_t n : {0, 1, 31, 20001}) {
          const bool whole = !is_float(from) || !is_float(to);
          Buffer source = uniform(from == DType::boolean ? DType::u8 : from, n, 3, 0, whole ? 120 : 2);
          if (from == DType::boolean)
            for (int64_t i = 0; i < n; ++i) source.set(i, int64_t(source[i]) % 2);
          Buffer target(to, n);
          convert(from, source.data(), to, target.data(), n);
          for (int64_t i = 0; i < n; ++i) {
            const double v = source[i];
            double want = v;
            if (to == DType::boolean)
              want = v != 0;
            else if (to == DType::f8e4m3fn)
              want = nearest_half<float8_e4m3fn>(v);
            else if (to == DType::f8e5m2)
              want = nearest_half<float8_e5m2>(v);
            else if (!is_float(to))
              want = std::trunc(v);
            else if (to == DType::f32)
              want = double(float(v));
            else if (to == DType::bf16)
              want = nearest_half<bfloat16>(v);
            else if (to == DType::f16)
              want = nearest_half<float16>(v);
            ASSERT_EQ(target[i], want) << name_of(from) << " to " << name_of(to) << ", element " << i << " of " << n;
          }
        }
  });
}

// All 2^16 patterns of the halves survive a round trip, and every float near a rounding boundary rounds as the scalar type does.
TEST(RowsConvert, HalvesExhaustively) {
  on_every_target([] {
    for (const DType half : {DType::bf16, DType::f16}) {
      Buffer all(half, 65536), wide(DType::f32, 65536), back(half, 65536);
      for (int i = 0; i < 65536; ++i) all.as<uint16_t>()[i] = uint16_t(i);
      convert(half, all.data(), DType::f32, wide.data(), 65536);
      convert(DType::f32, wide.data(), half, back.data(), 65536);
      for (int i = 0; i < 65536; ++i) {
        const double v = load_float(half, all.data(), i);
        if (std::isnan(v)) {
          ASSERT_TRUE(std::isnan(wide[i]) && std::isnan(back[i])) << i;
        } else {
          ASSERT_EQ(wide[i], v) << i;
          ASSERT_EQ(back.as<uint16_t>()[i], i);
        }
      }
      for (const int delta : {-1, 0, 1}) {  // around the middle between neighbours
        for (int i = 0; i < 65536; ++i) {
          const uint32_t bits = std::bit_cast<uint32_t>(float(wide[i])) + (half == DType::bf16 ? 0x8000u : 0x1000u) + uint32_t(delta);
          wide.as<uint32_t>()[i] = bits;
        }
        convert(DType::f32, wide.data(), half, back.data(), 65536);
        for (int i = 0; i < 65536; ++i) {
          const float v = wide.as<float>()[i];
          if (std::isnan(v)) continue;
          ASSERT_EQ(back.as<uint16_t>()[i], half == DType::bf16 ? bfloat16(v).bits : float16(v).bits) << v;
        }
        convert(half, all.data(), DType::f32, wide.data(), 65536);
      }
    }
  });
}

TEST(RowsConvert, EdgesOfTheRange) {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> edges = {inf, -inf, nan, 1e300, -1e300, 3e9, -3e9, 1e19, -1e19, 65519.9, 65520, 0.5, -0.5};
  Buffer source(DType::f64, int64_t(edges.size()));
  for (size_t i = 0; i < edges.size(); ++i) source.set(int64_t(i), edges[i]);
  Buffer i32(DType::i32, source.size()), i64(DType::i64, source.size()), f16(DType::f16, source.size());
  convert(DType::f64, source.data(), DType::i32, i32.data(), source.size());
  convert(DType::f64, source.data(), DType::i64, i64.data(), source.size());
  convert(DType::f64, source.data(), DType::f16, f16.data(), source.size());
  constexpr int32_t kMax = std::numeric_limits<int32_t>::max(), kMin = std::numeric_limits<int32_t>::min();
  const int32_t want[] = {kMax, kMin, 0, kMax, kMin, kMax, kMin, kMax, kMin, 65519, 65520, 0, 0};
  for (size_t i = 0; i < edges.size(); ++i) EXPECT_EQ(i32.as<int32_t>()[i], want[i]) << edges[i];
  EXPECT_EQ(i64.as<int64_t>()[5], 3000000000);
  EXPECT_EQ(i64.as<int64_t>()[7], std::numeric_limits<int64_t>::max());
  EXPECT_EQ(i64.as<int64_t>()[8], std::numeric_limits<int64_t>::min());
  EXPECT_EQ(f16[9], 65504);
  EXPECT_EQ(f16[10], inf);
  // 1 + 2^-8 + 2^-40 is above the middle of two bfloat16: rounding by way of float32 would lose the last bit and round to even, down.
  Buffer one(DType::f64, 1, 1 + 0x1p-8 + 0x1p-40), rounded(DType::bf16, 1);
  convert(DType::f64, one.data(), DType::bf16, rounded.data(), 1);
  EXPECT_EQ(rounded[0], 1 + 0x1p-7);
  Buffer large(DType::i64, 1), narrow(DType::u8, 1);
  *large.as<int64_t>() = (int64_t(1) << 40) + 300;
  convert(DType::i64, large.data(), DType::u8, narrow.data(), 1);
  EXPECT_EQ(narrow[0], 300 % 256);
}

TEST(RowsConvert, FillCopyAndZero) {
  for (const DType dtype : kAll) {
    Buffer b(dtype, 50001), c(dtype, 50001);
    fill(dtype, b.data(), b.size(), 1);
    for (int64_t i = 0; i < b.size(); ++i) ASSERT_EQ(b[i], 1);
    copy_bytes(b.data(), c.data(), b.size() * size_of(dtype));
    EXPECT_TRUE(b.same_bytes(c));
    fill_zero(b.data(), b.size() * size_of(dtype));
    for (int64_t i = 0; i < b.size(); ++i) ASSERT_EQ(b[i], 0);
  }
}
}  // namespace
}  // namespace reckon::cpu
