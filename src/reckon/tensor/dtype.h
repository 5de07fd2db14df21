// tensor/dtype: the element types, and the scalar forms of the 16-bit and 8-bit floats.
#pragma once
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

namespace reckon {

enum class DType : uint8_t { f32, f64, bf16, f16, i32, i64, u8, boolean, f8e4m3fn, f8e5m2 };
inline constexpr int kDTypes = 10;

/// Bytes of one element.
int64_t size_of(DType dtype);
/// "f32", "f64", "bf16", "f16", "i32", "i64", "u8", "bool", "f8e4m3fn", "f8e5m2".
std::string_view name_of(DType dtype);
std::string to_string(DType dtype);
/// True for the floats that operations compute with; false for the 8-bit ones, which only store.
bool is_float(DType dtype);
bool is_float8(DType dtype);
/// Of a float, 8-bit ones included; 0 for integers.
double largest_finite(DType dtype);
/// Distance from 1 to the next larger value; 0 for integers.
double epsilon(DType dtype);
/// The type that statistics and reductions of this type are kept in: f64 for f64, f32 for the other floats.
DType statistics_dtype(DType dtype);

/// bfloat16: the upper half of a float32, rounded to nearest even; NaN stays NaN.
struct bfloat16 {
  uint16_t bits = 0;
  bfloat16() = default;
  explicit bfloat16(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    bits = (u & 0x7FFFFFFFu) > 0x7F800000u ? uint16_t((u >> 16) | 0x40u) : uint16_t((u + 0x7FFFu + ((u >> 16) & 1u)) >> 16);
  }
  explicit operator float() const { return std::bit_cast<float>(uint32_t(bits) << 16); }
};

/// IEEE binary16, rounded to nearest even, with subnormals.
struct float16 {
  uint16_t bits = 0;
  float16() = default;
  explicit float16(float value) : bits(encode(value)) {}
  explicit operator float() const { return decode(bits); }

 private:
  static uint16_t encode(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value), magnitude = u & 0x7FFFFFFFu;
    const uint16_t sign = uint16_t((u >> 16) & 0x8000u);
    if (magnitude > 0x7F800000u) return uint16_t(sign | 0x7E00u);
    if (magnitude >= 0x477FF000u) return uint16_t(sign | 0x7C00u);  // rounds to 65536 or beyond
    if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 aligns the bits to 2^-24 and the FPU rounds them
      const float aligned = std::bit_cast<float>(magnitude) + 0.5f;
      return uint16_t(sign | (std::bit_cast<uint32_t>(aligned) - 0x3F000000u));
    }
    return uint16_t(sign | ((magnitude + 0xFFFu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13));
  }
  static float decode(uint16_t h) {
    const uint32_t sign = uint32_t(h & 0x8000u) << 16, magnitude = h & 0x7FFFu;
    if (magnitude >= 0x7C00u)
      return std::bit_cast<float>(sign | 0x7F800000u | (magnitude & 0x3FFu) << 13 | (magnitude > 0x7C00u ? 0x400000u : 0u));
    if (magnitude < 0x400u) return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(float(magnitude) * 0x1p-24f));
    return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
  }
};

/// What the two 8-bit floats differ in, as bits of float32; for the scalar and the vector form of their conversions. Values are rounded to
/// nearest even. OCP 8-bit Floating Point Specification 1.0; Micikevicius et al. 2022, arXiv:2209.05433.
struct Float8Format {
  int dropped;               // bits of a float32's fraction that it has not
  uint32_t smallest_normal;  // 2^-6; 2^-14
  uint32_t aligned;          // 2^14; 2^7: one of its units in the last place is the smallest subnormal
  uint32_t rebias;           // difference of the exponents' biases
  uint32_t largest;          // 448; 57344
  uint32_t last;             // the largest float32 that rounds to a finite value
  uint8_t overflow;          // the code of what is larger: NaN, as E4M3FN has no infinity; infinity
  static constexpr uint8_t kNan = 0x7F;
};
inline constexpr Float8Format kE4m3fn{20, 0x3C800000u, 0x46800000u, 0x3C000000u, 0x43E00000u, 0x43E80000u, 0x7F};
inline constexpr Float8Format kE5m2{21, 0x38800000u, 0x43000000u, 0x38000000u, 0x47600000u, 0x476FFFFFu, 0x7C};
constexpr const Float8Format& float8_format(DType dtype) { return dtype == DType::f8e5m2 ? kE5m2 : kE4m3fn; }

/// Code of a float32. As in PyTorch nothing saturates: what is too large becomes NaN in E4M3FN, infinity in E5M2.
constexpr uint8_t encode_float8(const Float8Format& f, float value) {
  const uint32_t u = std::bit_cast<uint32_t>(value), magnitude = u & 0x7FFFFFFFu;
  const uint8_t sign = uint8_t(u >> 24 & 0x80u);
  if (magnitude > 0x7F800000u) return uint8_t(sign | Float8Format::kNan);
  if (magnitude > f.last) return uint8_t(sign | f.overflow);
  if (magnitude < f.smallest_normal) {  // the sum's last place is the smallest subnormal, so that the FPU rounds to it
    const float sum = std::bit_cast<float>(magnitude) + std::bit_cast<float>(f.aligned);
    return uint8_t(sign | (std::bit_cast<uint32_t>(sum) - f.aligned));
  }
  const uint32_t half = (1u << (f.dropped - 1)) - 1u, odd = magnitude >> f.dropped & 1u;
  return uint8_t(sign | ((magnitude + half + odd - f.rebias) >> f.dropped));
}

/// float8 with 4 bits of exponent and 3 of fraction: +-448 at most, subnormals from 2^-9, NaN, no infinity.
struct float8_e4m3fn {
  uint8_t bits = 0;
  float8_e4m3fn() = default;
  explicit float8_e4m3fn(float value) : bits(encode_float8(kE4m3fn, value)) {}
  explicit operator float() const {
    const uint32_t sign = uint32_t(bits & 0x80u) << 24, magnitude = bits & 0x7Fu;
    if (magnitude == 0x7Fu) return std::bit_cast<float>(sign | 0x7FC00000u);
    if (magnitude < 8u) return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(float(magnitude) * 0x1p-9f));
    return std::bit_cast<float>(sign | ((magnitude << 20) + kE4m3fn.rebias));
  }
};

/// float8 with 5 bits of exponent and 2 of fraction, the upper half of a float16: +-57344 at most, subnormals from 2^-16, infinities, NaN.
struct float8_e5m2 {
  uint8_t bits = 0;
  float8_e5m2() = default;
  explicit float8_e5m2(float value) : bits(encode_float8(kE5m2, value)) {}
  explicit operator float() const {
    float16 wide;
    wide.bits = uint16_t(bits << 8);
    return float(wide);
  }
};
}  // namespace reckon
