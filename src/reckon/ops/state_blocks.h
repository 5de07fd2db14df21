// ops/state_blocks: how 8-bit optimizer states are cut, for those who lay them out and those who compute with them.
#pragma once
#include <cstdint>

namespace reckon {

/// Elements of an 8-bit optimizer state that share a scale.
inline constexpr int64_t kStateBlock = 256;
}  // namespace reckon
