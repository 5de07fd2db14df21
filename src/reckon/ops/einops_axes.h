// ops/einops_axes: a pattern of rearrange, reduce or repeat for one shape: every axis has a length, and calls that do what it says. For
// this room.
#pragma once
#include "reckon/ops/einops.h"

namespace reckon {

/// Where something is wrong, for messages.
struct PatternPlace {
  const char* function;
  std::string_view pattern;
  std::string operands;  // as printed: "f32[2, 3]"

  /// Throws Error "FUNCTION: MESSAGE, in "PATTERN" for OPERANDS".
  template <class... Args>
  void check(bool condition, std::string_view message, const Args&... args) const {
    if (!condition) [[unlikely]]
      fail(Failure::failed, reckon::text(message, args...));
  }
  [[noreturn]] void fail(Failure kind, const std::string& message) const;
  void check(const FaultAt& fault) const { check(!fault, "{}", to_string(fault)); }
};

struct ResolvedPattern {
  std::vector<int64_t> lengths;         // of the elementary axes: those of the left in their order, then new ones
  int given = 0;                        // how many are the left's
  std::vector<std::vector<int>> right;  // the elementary axes that are merged into each axis of the result
  Shape result() const;
};
ResolvedPattern resolve(PatternOf what, const PatternPlace& place, const Shape& x, const AxisLengths& lengths);

/// Adds the calls that make the result of a value, and returns it. Axes of the left that are not on the right are reduced.
int transform(Composition& calls, int value, const ResolvedPattern& pattern, Reducer reducer);
}  // namespace reckon
