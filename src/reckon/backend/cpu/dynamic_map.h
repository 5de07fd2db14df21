// backend/cpu/dynamic_map: the 256 values that an 8-bit optimizer state can have, as constants for the kernel and its test.
#pragma once
#include <cstdint>
#include <initializer_list>

namespace reckon::cpu {

/// Dynamic tree quantization of [-1, 1] or [0, 1]. The bits of a magnitude are zeros, each of which divides by 10, a one, and a fraction
/// that cuts [0.1, 1] of that decade into equal parts, whose middle is the value. So for a magnitude c with its leading one at place p, of
/// which the largest is `top`:
///   value = 10^(p - top) (0.1 + 0.9 (c - 2^p + 0.5) / 2^p) = slope[p] (c + 0.5) + base[p]
/// Signed codes (first moments) are a sign bit and 7 bits of magnitude; unsigned ones (second moments) are 8 bits, with one place of
/// fraction more. 0 is 0, and the code that is left over, 0x80 signed and 1 unsigned, is 1 itself: the largest value of a block comes back
/// as it was. Dettmers 2016, arXiv:1511.04561; Dettmers et al. 2022, arXiv:2110.02861.
struct DynamicMap {
  int first = 0;         // smallest p
  float slope[16] = {};  // by p, and again from 8 on: a table for vectors of 8 and of 16
  float base[16] = {};
  float inverse[16] = {}, shift[16] = {};  // c + 0.5 = inverse[p] value + shift[p]
  float enter[7] = {};  // magnitudes above enter[k] have p >= first + k, below all of them are 0: the middle between neighbours
  float one = 0;        // above, the value is 1

  // For vectors of 16. By the last 4 bits of the exponent of c + 0.5, which is 126 for c = 0 and 127 + p for others.
  float slope_by_exponent[16] = {}, base_by_exponent[16] = {};
  // By the last 5 bits of the exponent of a value, from 2^-31 to 1: p below `next`, which the numbers of an exponent cross at most once.
  int32_t place[32] = {};
  float next[32] = {};
  float lowest[16] = {}, highest[16] = {};  // magnitude, by p
};

constexpr DynamicMap dynamic_map(bool is_signed) {
  constexpr double kDecades[] = {1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6};
  const int first = is_signed ? 0 : 1, top = first + 6;
  DynamicMap map{.first = first};
  for (int p = first; p <= top; ++p) {
    const double decade = kDecades[top - p], parts = double(1 << p), slope = 0.9 * decade / parts;
    for (const int at : {p, p + 8}) {
      map.slope[at] = float(slope);
      map.base[at] = float(-0.8 * decade);
      map.inverse[at] = float(1 / slope);
      map.shift[at] = float(0.8 * parts / 0.9);
    }
    const double lowest = decade * (0.1 + 0.45 / parts), below = p == first ? 0 : 0.1 * decade * (1 - 0.9 / parts);
    map.enter[p - first] = float((lowest + below) / 2);
  }
  map.one = float(1 - 0.225 / double(1 << top));
  if (!is_signed) map.base[0] = map.base[8] = 1;  // its slope is 0: the code 1
  for (int p = 0; p <= top; ++p) {
    map.slope_by_exponent[(127 + p) % 16] = map.slope[p];
    map.base_by_exponent[(127 + p) % 16] = map.base[p];
    map.lowest[p] = float(1 << p);
    map.highest[p] = float((2 << p) - 1);
  }
  float least = 0x1p-31f;
  for (int exponent = 96; exponent < 128; ++exponent, least *= 2) {
    int places = 0;
    while (places < 7 && map.enter[places] < least) ++places;  // what every number of this exponent is above
    map.place[exponent % 32] = first + (places > 1 ? places - 1 : 0);
    const int crossed = places > 1 ? places : 1;  // the first place begins at 0: what is 0 is told apart elsewhere
    map.next[exponent % 32] = crossed < 7 ? map.enter[crossed] : 2;
  }
  return map;
}
}  // namespace reckon::cpu
