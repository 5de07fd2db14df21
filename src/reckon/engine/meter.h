// engine/meter: counts FLOPs and bytes of every call by operation, module and phase. It adds up plans; it has no formulas of its own.
#pragma once
#include "reckon/engine/op.h"

namespace reckon {

struct MeterRow {
  Phase phase;
  uint32_t module;
  const char* op;
  bool recomputed;      // executed a second time by a checkpoint: hardware work, not model work
  int64_t calls = 0;
  Flops flops;
  int64_t bytes = 0;    // minimum memory traffic
  double seconds = 0;   // measured, only while timing is on
};

class Meter {
 public:
  Meter();
  ~Meter();
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;

  /// The row of this op in the context's phase and module; created on first use. Stable until reset().
  MeterRow& charge(const OpDef& op, const Plan& plan);
  void reset();
  /// Rows in the order of their first call.
  std::vector<MeterRow> rows() const;
  /// Sums over all rows; `model` leaves recomputed work out.
  Flops total() const;
  bool timing = false;

 private:
  struct State;
  State* state_;
};

/// Flops of one call to a plan's bytes: inputs and outputs once each unless the plan says otherwise.
int64_t bytes_moved(const Plan& plan);
}  // namespace reckon
