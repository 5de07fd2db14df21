// engine/meter: counts FLOPs and bytes of every call by operation, module and phase. It adds up plans; it has no formulas of its own.
#pragma once
#include "reckon/engine/op.h"

namespace reckon {

struct MeterRow {
  Phase phase;
  uint32_t module;
  const char* op;
  bool recomputed;  // executed a second time by a checkpoint: hardware work, not model work
  int64_t calls = 0;
  Flops flops;
  int64_t bytes = 0;   // minimum memory traffic
  double seconds = 0;  // measured, only while timing is on
};

/// One launch, with what its plan said: what a time model is fitted on and a trace is drawn from. Views launch nothing and leave no record.
struct CallRecord {
  const OpDef* op;
  Phase phase;
  uint32_t module;
  bool recomputed;
  std::vector<TensorSpec> in, out;
  Params params;
  Flops flops;
  int64_t bytes = 0;      // minimum memory traffic
  int64_t workspace = 0;  // bytes of scratch
  size_t events = 0;      // Allocator::events() when the call began: its blocks are the next ones; 0 if they are not recorded
  double start = 0;       // seconds since record_calls(true); 0 on meta
  double seconds = 0;     // of the kernel; 0 on meta
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

  /// From now on every launch is kept in calls(), timed with a synchronization after each. Forgets earlier records when switched on.
  void record_calls(bool on);
  bool records_calls() const;
  /// Used by call(): a record in the context's phase and module, valid until the next call.
  CallRecord& record(const OpDef& op, const Plan& plan, size_t events);
  const std::vector<CallRecord>& calls() const;
  /// Seconds since record_calls(true).
  double clock() const;

 private:
  struct State;
  State* state_;
};

/// Flops of one call to a plan's bytes: inputs and outputs once each unless the plan says otherwise.
int64_t bytes_moved(const Plan& plan);
}  // namespace reckon
