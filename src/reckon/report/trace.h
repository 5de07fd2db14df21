// report/trace: one step as a Chrome trace (https://ui.perfetto.dev opens it): calls nested by phase and module, live bytes by category.
#pragma once
#include <optional>
#include <span>

#include "reckon/plan/run_plan.h"

namespace reckon {

/// Where a step's times come from. `order`: nobody knows them; a call takes one unit.
enum class Timing : uint8_t { order, predicted, measured };
std::string_view name_of(Timing timing);

/// When each call of a step ran: seconds from the start of the step, one entry a call of RunPlan::calls.
struct CallTimes {
  Timing timing = Timing::order;
  std::vector<double> start, seconds;
};
/// Calls one after the other without gaps: what a time model says, or units if nobody knows.
CallTimes predicted_times(std::span<const double> seconds);
CallTimes order_of_calls(size_t count);
/// From the records of a real step. Nothing if these are not the plan's calls (other operations, another number of them).
std::optional<CallTimes> measured_times(const RunPlan& plan, std::span<const CallRecord> records);

/// One operation of the step. Spans follow each other and never overlap.
struct TraceSpan {
  std::string op, module;
  Phase phase = Phase::forward;
  bool recomputed = false;
  double start_us = 0, duration_us = 0;
  size_t events = 0;   // the allocations of the call begin here in the events
  std::string shapes;  // "f32[2, 3] f32[3, 4] -> f32[2, 4]"
  int64_t flops = 0, bytes = 0;
};
std::vector<TraceSpan> spans_of(const RunPlan& plan, const CallTimes& times);

struct TraceInput {
  std::string title;  // of the process row
  Timing timing = Timing::order;
  std::span<const TraceSpan> spans;
  std::span<const AllocationEvent> events;  // of the whole plan
  size_t begin = 0, end = 0;                // those of the step
};
/// A JSON object in the trace event format: complete events ("X") for phases, modules and operations, counters ("C") for each category and
/// for all live bytes, one after each allocation and free. Timestamps are in microseconds and never go back. Throws Error if spans overlap.
std::string trace_json(const TraceInput& input);
/// The same for the steady step of a plan.
std::string trace_json(const RunPlan& plan, const CallTimes& times);

/// Times that trace_json has written for this plan, read back; nothing if the trace is of another plan or has no measured times.
/// Throws Error (corrupt) if the file is no such trace.
std::optional<CallTimes> times_in_trace(std::string_view json, const std::string& source, const RunPlan& plan);
}  // namespace reckon
