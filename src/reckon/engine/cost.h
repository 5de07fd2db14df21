// engine/cost: what the calls of a few lines cost, for whoever wants to see it beside them.
#pragma once
#include <string>

#include "reckon/engine/meter.h"

namespace reckon {

struct Cost {
  int64_t calls = 0;        // views included
  Flops flops;              // docs/flops.md says what counts
  int64_t bytes_moved = 0;  // least memory traffic; views move nothing
  int64_t bytes_held = 0;   // by which more is live now: below 0 if more was let go
};
/// "2,097,152 matmul and 16,384 other FLOPs, moves 49,152 B, holds 16,384 B".
std::string to_string(const Cost& cost);

/// Counts the calls on a device from its construction on, and those within another's scope too.
class CostScope {
 public:
  explicit CostScope(Device& device);
  ~CostScope();
  CostScope(const CostScope&) = delete;
  CostScope& operator=(const CostScope&) = delete;
  /// Since construction, or since the last take().
  Cost take();

 private:
  Cost total() const;
  Device& device_;
  Meter own_;
  Meter* meter_;
  bool installed_;
  Cost before_;
};

/// What f() costs: cost_of(device, [&] { y = matmul(a, b); }).
template <class F>
Cost cost_of(Device& device, F f) {
  CostScope scope(device);
  f();
  return scope.take();
}
}  // namespace reckon
