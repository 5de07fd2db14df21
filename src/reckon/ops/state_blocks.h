// ops/state_blocks: how optimizer states are cut, for those who lay them out and those who compute with them.
#pragma once
#include <cstdint>

namespace reckon {

/// Elements of an 8-bit optimizer state that share a scale.
inline constexpr int64_t kStateBlock = 256;
/// Where a parameter starts in a flat bucket is a multiple of this many elements, so that rules of whole parameters see whole vectors.
inline constexpr int64_t kPlaceAlignment = 32;
}  // namespace reckon
