// report/palette: the nine categories' colours, light and dark. Told apart with normal vision and with each kind of colour blindness, and
// text on them is readable; tests/report/palette.cpp proves it.
#pragma once
#include <cstdint>

#include "reckon/memory/allocator.h"

namespace reckon {

/// 0xRRGGBB.
struct CategoryColour {
  uint32_t light, dark;
};
inline constexpr CategoryColour kCategoryColours[kCategories] = {
    {0x2b3a91, 0x3d69c0},  // parameter: blue
    {0xdd7451, 0xc26717},  // gradient: coral
    {0xac9bfe, 0x8e87ea},  // optimizer: lavender
    {0xa84d7f, 0x8e5e77},  // master: plum
    {0x3ed1ba, 0x51f6d7},  // activation: turquoise
    {0xeab33e, 0xffd077},  // temporary: amber
    {0x0f7dc8, 0x9dc0f9},  // data: sky
    {0x6d253e, 0xed82a2},  // communication: wine
    {0x666101, 0xb6b230},  // cache: olive
};
inline constexpr uint32_t kPaper = 0xffffff, kNight = 0x14171c;  // backgrounds

/// When a call is made: what the work treemap is coloured by, light to dark.
inline constexpr int kPasses = 4;
inline constexpr const char* kPassNames[kPasses] = {"forward", "backward", "recomputed", "update"};
inline constexpr CategoryColour kPassColours[kPasses] = {
    {0xbcd3f2, 0xd5e4fb}, {0x6f9fd8, 0x8db6ee}, {0xeab33e, 0xffd077}, {0x2b3a91, 0x3d69c0}};

/// Relative luminance of WCAG 2, 0 to 1.
double luminance(uint32_t colour);
/// Contrast ratio of WCAG 2, 1 to 21.
double contrast(uint32_t a, uint32_t b);
/// Black or white, whichever reads better on the colour.
uint32_t text_on(uint32_t colour);
}  // namespace reckon
