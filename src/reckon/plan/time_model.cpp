#include "reckon/plan/time_model.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "reckon/base/program.h"
#include "reckon/engine/context.h"
#include "reckon/ops/rows.h"
#include "reckon/plan/conventions.h"

namespace reckon {
namespace {
// The narrowest float of a call decides which kernel runs; float64 appears in training only as scalars.
DType dtype_of(const CallRecord& call) {
  bool bf16 = false, f16 = false;
  for (const std::vector<TensorSpec>* specs : {&call.in, &call.out})
    for (const TensorSpec& spec : *specs) bf16 |= spec.dtype == DType::bf16, f16 |= spec.dtype == DType::f16;
  return bf16 ? DType::bf16 : f16 ? DType::f16 : DType::f32;
}

PeakType peak_type_of(DType dtype) { return dtype == DType::bf16 ? PeakType::bf16 : dtype == DType::f16 ? PeakType::fp16 : PeakType::fp32; }

// Adding to a gradient that is there is other work than overwriting it.
bool adds(const CallRecord& call) {
  if (call.op == &op::accumulate) return call.params.as<AccumulateParams>().keep;
  if (call.op == &op::embedding_back) return call.params.as<EmbeddingParams>().accumulate;
  return call.op == &op::linear_back_b && call.params.as<LinearParams>().accumulate;
}

bool is_float8(const CallRecord& call) {
  return call.op == &op::linear_fp8 || call.op == &op::linear_fp8_again || call.op == &op::linear_fp8_back_x || call.op == &op::linear_fp8_back_w;
}
bool is_linear(const CallRecord& call) {
  return call.op == &op::linear || call.op == &op::linear_back_x || call.op == &op::linear_back_w ||
         call.op == &op::linear_cross_entropy_step || is_float8(call);
}
bool is_chunk(const CallRecord& call) { return call.op == &op::attention_chunk || call.op == &op::attention_chunk_back; }
bool is_attention(const CallRecord& call) { return call.op == &op::attention || call.op == &op::attention_back || is_chunk(call); }
bool is_backward(const CallRecord& call) { return call.op == &op::attention_back || call.op == &op::attention_chunk_back; }

// Rows, width out and width in of the layer, whichever of its three products this is, or all of them.
std::vector<double> linear_extents(const CallRecord& call) {
  const Shape &a = call.in[0].shape, &b = call.in[1].shape;
  if (call.op == &op::linear_back_w || call.op == &op::linear_fp8_back_w) return {double(a.rows()), double(a.last()), double(b.last())};
  return {double(a.rows()), double(b[0]), double(b[1])};
}
// Tokens of the sequence that came before a chunk.
double first_of(const CallRecord& call) { return is_chunk(call) ? double(call.params.as<AttentionChunkParams>().first) : 0; }
std::vector<double> attention_extents(const CallRecord& call) {
  const auto p = call.params.as<AttentionParams>();  // a chunk's parameters begin with them
  const Shape& qkv = call.in[is_backward(call)].shape;
  return {double(qkv[0] * p.kv_heads), double(p.heads / p.kv_heads), first_of(call) + double(qkv[1]), double(p.head_dim)};
}

// Attention's work is quadratic in its tokens, the third of four axes; all other work is linear in each extent.
double growth(const TimeTable& table, size_t axis) { return table.axes.size() == 4 && axis == 2 ? 2 : 1; }

// Where a value lies on an axis: between points cell and cell + 1, `part` of the way in logarithms.
struct AxisPlace {
  size_t cell = 0;
  double part = 0;
  double beyond = 1;  // value / last point, if that is more than 1
};
AxisPlace place_on(const std::vector<double>& axis, double value) {
  if (!(value > axis.front())) return {};
  if (value >= axis.back()) return {axis.size() - 1, 0, value / axis.back()};
  const size_t cell = size_t(std::upper_bound(axis.begin(), axis.end(), value) - axis.begin()) - 1;
  return {cell, std::log(value / axis[cell]) / std::log(axis[cell + 1] / axis[cell]), 1};
}

const TimeTable* find_table(const MachineProfile& profile, std::string_view key) {
  for (const TimeTable& table : profile.tables)
    if (table.key == key) return &table;
  return nullptr;
}

double flops_of(const CallRecord& call) { return double(call.flops.matmul) + double(call.flops.vector); }

// Bytes that bandwidth has to carry while one FLOP is done decide what bounds a call.
CallTime span_of(const CallRecord& call, double seconds, double flops_per_second, double bytes_per_second) {
  CallTime t;
  t.seconds = seconds;
  t.flops_per_byte = call.bytes > 0 ? flops_of(call) / double(call.bytes) : 0;
  t.compute_bound = t.flops_per_byte > flops_per_second / bytes_per_second;
  return t;
}

class Totals {
 public:
  void add(const std::string& name, const CallRecord& call, double seconds) {
    const auto [found, is_new] = index_.emplace(name, totals_.size());
    if (is_new) totals_.push_back({name});
    TimeTotal& t = totals_[found->second];
    ++t.calls;
    t.seconds += seconds;
    t.flops += call.flops;
    t.bytes += call.bytes;
  }
  std::vector<TimeTotal> take() {
    std::stable_sort(totals_.begin(), totals_.end(), [](const TimeTotal& a, const TimeTotal& b) { return a.seconds > b.seconds; });
    return std::move(totals_);
  }

 private:
  std::map<std::string, size_t> index_;
  std::vector<TimeTotal> totals_;
};

// Lays the spans one after another with a pause before each, and adds them up.
void lay_out(const RunPlan& plan, double pause, StepTime& step) {
  Totals ops, phases, modules;
  double clock = 0;
  for (size_t i = 0; i < plan.calls.size(); ++i) {
    const CallRecord& call = plan.calls[i];
    CallTime& t = step.calls[i];
    t.start = clock += pause;
    clock += t.seconds;
    ops.add(call.op->name, call, t.seconds);
    phases.add(std::string(name_of(call.phase)), call, t.seconds);
    modules.add(module_path(call.module), call, t.seconds);
  }
  step.between_seconds = pause * double(plan.calls.size());
  step.seconds = clock;
  step.by_op = ops.take();
  step.by_phase = phases.take();
  step.by_module = modules.take();
}
}  // namespace

TimeKey time_key(const CallRecord& call) {
  const char* const name = is_chunk(call) ? (is_backward(call) ? op::attention_back : op::attention).name : call.op->name;
  const std::string table = std::string(name) + (adds(call) ? "+ " : " ") + to_string(dtype_of(call));
  if (is_linear(call)) return {table, linear_extents(call)};
  if (is_attention(call)) return {table, attention_extents(call)};
  return {table, {double(std::max<int64_t>(call.bytes, 1))}};
}

double interpolate(const TimeTable& table, std::span<const double> at) {
  const size_t axes = table.axes.size();
  check(at.size() == axes, "table {} has {} axes and is asked for {} values", table.key, axes, at.size());
  std::vector<AxisPlace> places;
  double scale = 1;
  for (size_t axis = 0; axis < axes; ++axis) {
    places.push_back(place_on(table.axes[axis], at[axis]));
    scale *= std::pow(places.back().beyond, growth(table, axis));
  }
  double sum = 0;  // of logarithms over the corners of the cell
  for (size_t corner = 0; corner < size_t(1) << axes; ++corner) {
    double weight = 1;
    size_t index = 0;
    for (size_t axis = 0; axis < axes; ++axis) {
      const bool upper = corner >> axis & 1u;
      weight *= upper ? places[axis].part : 1 - places[axis].part;
      const size_t point = places[axis].cell + upper;
      index = index * table.axes[axis].size() + std::min(point, table.axes[axis].size() - 1);
    }
    if (weight > 0) sum += weight * std::log(table.seconds[index]);
  }
  return std::exp(sum) * scale;
}

double share_of_pairs(const CallRecord& call) {
  if (!is_attention(call)) return 1;
  const auto p = call.params.as<AttentionParams>();
  const auto pairs = [&](double T) {
    const double hidden = p.window > 0 ? std::max(T - double(p.window), 0.0) : 0;
    return T * (T + 1) - hidden * (hidden + 1);
  };
  const double T = attention_extents(call)[2], first = first_of(call);
  return (pairs(T) - pairs(first)) / (T * (T + 1));
}

std::optional<double> predict_seconds(const CallRecord& call, const MachineProfile& profile) {
  if (call.op == &op::empty) return 0.0;  // no kernel
  const TimeKey key = time_key(call);
  const TimeTable* table = find_table(profile, key.table);
  if (!table || table->axes.size() != key.at.size()) return {};
  return interpolate(*table, key.at) * share_of_pairs(call);
}

StepTime predict_step(const RunPlan& plan, const MachineProfile& profile) {
  StepTime step;
  for (const CallRecord& call : plan.calls) {
    const std::optional<double> seconds = predict_seconds(call, profile);
    if (!seconds) return {.unknown = time_key(call).table};
    const double peak = peak_flops(profile, dtype_of(call));
    step.calls.push_back(span_of(call, *seconds * profile.call_factor, peak, profile.copy_bytes_per_second));
  }
  lay_out(plan, profile.call_overhead_seconds, step);
  return step;
}

StepTime bound_step(const RunPlan& plan, const HardwareProfile& device) {
  StepTime step;
  step.is_bound = true;
  const double bytes_per_second = device.bandwidth.value, vector_peak = device.peak(PeakType::fp32);
  for (const CallRecord& call : plan.calls) {
    const double peak = device.peak(is_float8(call) ? PeakType::fp8 : peak_type_of(dtype_of(call)));
    // Matrix and vector units work beside each other.
    const double compute = std::max(double(call.flops.matmul) / peak, double(call.flops.vector) / vector_peak);
    const double memory = double(call.bytes) / bytes_per_second;
    CallTime t = span_of(call, std::max(compute, memory), peak, bytes_per_second);
    t.compute_bound = compute > memory;
    step.calls.push_back(t);
  }
  lay_out(plan, 0, step);
  return step;
}

std::string predict_time(RunPlan& plan, const std::optional<MachineProfile>& profile) {
  RunReport& report = plan.predicted;
  report.step_seconds = report.tokens_per_second = report.mfu = report.hfu = std::nullopt;
  const std::string way_out = text("run `{} bench device` once", program_name());
  if (!profile) return text("no measured profile of this machine, so no predicted time and no MFU: {}", way_out);
  const StepTime step = predict_step(plan, *profile);
  if (!step.seconds) return text("this machine's profile has no time for {}, so no predicted time: {}", step.unknown, way_out);
  const Config& c = plan.config;
  const double peak = peak_flops(*profile, dtype_of(c.train.precision));
  report.step_seconds = *step.seconds;
  report.tokens_per_second = double(tokens_per_step(c)) / *step.seconds;
  report.mfu = double(report.flops_per_step->model) / *step.seconds / peak;
  report.hfu = double(report.flops_per_step->matmul) / *step.seconds / peak;
  return "";
}

std::string compare_times(const RunReport& predicted, const RunReport& measured) {
  if (!predicted.step_seconds || !measured.step_seconds) return "";
  return text("step predicted {:.4g} s, measured {:.4g} s ({:+.1f} %)", *predicted.step_seconds, *measured.step_seconds,
              100 * (*measured.step_seconds / *predicted.step_seconds - 1));
}
}  // namespace reckon
