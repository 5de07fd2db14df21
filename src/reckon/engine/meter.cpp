#include "reckon/engine/meter.h"

#include <chrono>
#include <deque>
#include <map>
#include <tuple>

#include "reckon/engine/context.h"

namespace reckon {

Flops& Flops::operator+=(const Flops& o) {
  matmul = checked_sum({matmul, o.matmul});
  vector = checked_sum({vector, o.vector});
  model = checked_sum({model, o.model});
  return *this;
}

struct Meter::State {
  std::deque<MeterRow> rows;
  std::map<std::tuple<Phase, uint32_t, const OpDef*, bool>, MeterRow*> index;
  bool recording = false;
  std::chrono::steady_clock::time_point recording_since;
  std::vector<CallRecord> calls;
};

Meter::Meter() : state_(new State) {}
Meter::~Meter() { delete state_; }

int64_t bytes_moved(const Plan& plan) {
  if (plan.bytes_moved >= 0) return plan.bytes_moved;
  int64_t bytes = 0;
  for (const TensorSpec& spec : plan.in) bytes = checked_sum({bytes, spec.bytes()});
  for (const TensorSpec& spec : plan.out) bytes = checked_sum({bytes, spec.bytes()});
  return bytes;
}

MeterRow& Meter::charge(const OpDef& op, const Plan& plan) {
  const Context& c = context();
  MeterRow*& row = state_->index[{c.phase, c.module, &op, c.recomputing}];
  if (!row)
    row =
        &state_->rows.emplace_back(MeterRow{.phase = c.phase, .module = c.module, .op = op.name, .recomputed = c.recomputing, .flops = {}});
  row->bytes = checked_sum({row->bytes, op.traits.view ? 0 : bytes_moved(plan)});
  row->flops += plan.flops;
  ++row->calls;
  return *row;
}

void Meter::reset() {
  state_->index.clear();
  state_->rows.clear();
}

std::vector<MeterRow> Meter::rows() const { return {state_->rows.begin(), state_->rows.end()}; }

void Meter::record_calls(bool on) {
  state_->recording = on;
  if (!on) return;
  state_->calls.clear();
  state_->recording_since = std::chrono::steady_clock::now();
}

bool Meter::records_calls() const { return state_->recording; }

CallRecord& Meter::record(const OpDef& op, const Plan& plan, size_t events) {
  const Context& c = context();
  CallRecord& r = state_->calls.emplace_back(CallRecord{.op = &op,
                                                        .phase = c.phase,
                                                        .module = c.module,
                                                        .recomputed = c.recomputing,
                                                        .in = plan.in,
                                                        .out = plan.out,
                                                        .params = plan.params,
                                                        .flops = plan.flops});
  r.bytes = bytes_moved(plan);
  r.workspace = plan.workspace;
  r.events = events;
  return r;
}

const std::vector<CallRecord>& Meter::calls() const { return state_->calls; }

double Meter::clock() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - state_->recording_since).count(); }

Flops Meter::total() const {
  Flops sum;
  for (const MeterRow& row : state_->rows) sum += {row.flops.matmul, row.flops.vector, row.recomputed ? 0 : row.flops.model};
  return sum;
}
}  // namespace reckon
