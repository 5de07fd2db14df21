// tensor/dtype: the element types, and the scalar forms of the two 16-bit floats.
#pragma once
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

namespace reckon {

enum class DType : uint8_t { f32, f64, bf16, f16, i32, i64, u8, boolean };
inline constexpr int kDTypes = 8;

/// Bytes of one element.
int64_t size_of(DType dtype);
/// "f32", "f64", "bf16", "f16", "i32", "i64", "u8", "bool".
std::string_view name_of(DType dtype);
std::string to_string(DType dtype);
bool is_float(DType dtype);
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
}  // namespace reckon
