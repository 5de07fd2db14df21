// backend/cpu/rounding: from wider numbers to floats of 16 and 8 bits in one rounding, where float32 lies on the way.
#pragma once
#include <bit>
#include <cstdint>

namespace reckon::cpu {

/// A float that rounds like `value` itself when it is rounded again to fewer bits: the last bit says that bits were lost.
template <class T>
float round_to_odd(T value) {
  const float nearest = float(value);
  const long double exact = value, got = nearest;
  if (got == exact || nearest != nearest) return nearest;
  uint32_t bits = std::bit_cast<uint32_t>(nearest);
  const bool away_from_zero = exact < 0 ? got < exact : got > exact;
  if (away_from_zero) bits -= 1;
  return std::bit_cast<float>(bits | 1u);
}
}  // namespace reckon::cpu
