#include "reckon/report/palette.h"

#include <algorithm>
#include <cmath>

namespace reckon {
double luminance(uint32_t colour) {
  const auto linear = [&](int shift) {
    const double c = double(colour >> shift & 0xFFu) / 255;
    return c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4);
  };
  return 0.2126 * linear(16) + 0.7152 * linear(8) + 0.0722 * linear(0);
}

double contrast(uint32_t a, uint32_t b) {
  const double x = luminance(a), y = luminance(b);
  return (std::max(x, y) + 0.05) / (std::min(x, y) + 0.05);
}

uint32_t text_on(uint32_t colour) {
  constexpr uint32_t kWhite = 0xffffff, kBlack = 0x000000;
  return contrast(colour, kWhite) >= contrast(colour, kBlack) ? kWhite : kBlack;
}
}  // namespace reckon
