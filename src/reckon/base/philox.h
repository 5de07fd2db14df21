// base/philox: counter-based random numbers. A draw is a pure function of its key and counter; there is no running state.
#pragma once
#include <array>
#include <cstdint>

namespace reckon {

/// Philox4x32-10: four uniform 32-bit words from a 64-bit key and a 128-bit counter.
/// Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
inline std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter_high, uint64_t counter_low) {
  uint32_t c0 = uint32_t(counter_low), c1 = uint32_t(counter_low >> 32), c2 = uint32_t(counter_high), c3 = uint32_t(counter_high >> 32);
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
    c0 = uint32_t(p1 >> 32) ^ c1 ^ k0;
    c2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
    c1 = uint32_t(p1);
    c3 = uint32_t(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {c0, c1, c2, c3};
}

/// Mixes two words into a key (the finalizer of MurmurHash3), so that (seed, step, site, ...) become one 64-bit key.
inline uint64_t mix_key(uint64_t a, uint64_t b) {
  uint64_t h = a ^ (b + 0x9E3779B97F4A7C15ull + (a << 6) + (a >> 2));
  h = (h ^ (h >> 33)) * 0xFF51AFD7ED558CCDull;
  h = (h ^ (h >> 33)) * 0xC4CEB9FE1A85EC53ull;
  return h ^ (h >> 33);
}

/// Uniform in [0, 1): 24 bits.
inline float uniform_float(uint32_t word) { return float(word >> 8) * 0x1p-24f; }
/// Uniform in [0, 1): 53 bits from two words.
inline double uniform_double(uint32_t high, uint32_t low) { return double(((uint64_t(high) << 32) | low) >> 11) * 0x1p-53; }
}  // namespace reckon
