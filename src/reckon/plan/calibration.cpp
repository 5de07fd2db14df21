#include "reckon/plan/calibration.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>

#include "reckon/engine/context.h"
#include "reckon/ops/ops.h"
#include "reckon/ops/rows.h"
#include "reckon/plan/time_model.h"

namespace reckon {
namespace {
double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
void keep_best(double& best, double seconds) { best = best > 0 ? std::min(best, seconds) : seconds; }

// ---- grid: operands come from a pool that is walked through, so that they are no nearer than in a step: there, some sixteen times their
// size, all other layers with gradients and optimizer state, lies between two uses of a weight.
constexpr int64_t kWalk = 16;

class OperandPool {
 public:
  explicit OperandPool(Device& device) {
    constexpr int64_t kPiece = int64_t(4) << 20, kPieces = 16;  // of bf16: 128 MiB
    const Tensor piece = empty(device, {{1, kPiece}, DType::bf16});
    // Ordinary numbers in every dtype: a float32 is mostly the bfloat16 in its upper half, whose bits as a float16 are a number around 1.
    fill_normal_(piece, 1, 0, 0.02);
    pool_ = contiguous(expand(piece, {kPieces, kPiece}));
    slots_ = zeros(device, {{kPieces / 2, kPiece}, DType::f32});
  }
  Tensors operands(const GridPoint& point) {
    Tensors in;
    walk_ = 0;
    for (const TensorSpec& spec : point.in) walk_ += kWalk * round_block(spec.bytes());
    for (size_t i = 0; i < point.in.size(); ++i) in.push_back(take(point.in[i], point.op->traits.mutates >> i & 1u ? slots_ : pool_));
    return in;
  }

 private:
  Tensor take(const TensorSpec& spec, const Tensor& from) {
    const int64_t bytes = round_block(spec.bytes()), end = from.spec().bytes();
    check(bytes <= end, "calibration: {} is larger than its pool", spec);
    if (at_ + bytes > std::min(end, walk_)) at_ = 0;
    Layout layout(spec.shape);
    layout.offset = at_ / size_of(spec.dtype);
    at_ += bytes;
    return from.alias(layout, spec.dtype);
  }
  Tensor pool_, slots_;
  int64_t at_ = 0, walk_ = 0;  // bytes; walk_: at which to begin again
};

void measure_point(GridPoint& point, OperandPool& pool) {
  constexpr double kEnough = 1e-3;  // seconds of a point in a round
  constexpr int kRepeats = 8;
  Meter meter;
  const MeterScope scope(meter);
  meter.record_calls(true);
  double spent = 0;
  for (int i = 0; i < kRepeats && spent < kEnough; ++i) {
    call(*point.op, pool.operands(point), point.params);
    keep_best(point.seconds, meter.calls().back().seconds);
    spent += meter.calls().back().seconds;
  }
}

// ---- models
struct TimedModel {
  Config config;
  std::vector<CallRecord> calls;  // of one step; seconds are each call's best
  double step_seconds = 0;        // best
};

// After a first step that warms up, short steps are repeated: they are the ones that noise moves most.
void measure_model(TimedModel& model, Device& device) {
  constexpr double kEnough = 0.005;  // seconds of a model in a round
  TrainStep step(model.config, device);
  const SyntheticBatches batches(std::max<int64_t>(model.config.model.vocab, 1), 1);
  step.run(0, batches);
  double spent = 0;
  for (int64_t i = 1; spent < kEnough; i += 2) {
    const double start = now();
    step.run(i, batches);
    const double seconds = now() - start;
    spent += seconds;
    keep_best(model.step_seconds, seconds);
    Meter meter;
    const MeterScope scope(meter);
    meter.record_calls(true);
    step.run(i + 1, batches);
    const std::vector<CallRecord>& calls = meter.calls();
    if (model.calls.empty()) model.calls = calls;
    for (size_t c = 0; c < calls.size(); ++c) keep_best(model.calls[c].seconds, calls[c].seconds);
  }
}

// ---- from measurements to tables
constexpr double kNear = 1.25;   // sizes closer than this are one point
constexpr double kLeast = 1e-8;  // seconds; no clock sees less

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + long(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// A curve over bytes: near sizes are pooled, and each point is the median of its calls, which met their operands in all states of the
// caches.
TimeTable curve_of(const std::string& key, const std::map<double, std::vector<double>>& seconds_by_size) {
  TimeTable table{.key = key, .axes = {{}}};
  for (auto first = seconds_by_size.begin(); first != seconds_by_size.end();) {
    std::vector<double> rates;
    double log_size = 0;
    auto last = first;
    for (; last != seconds_by_size.end() && last->first <= first->first * kNear; ++last)
      for (const double seconds : last->second) {
        rates.push_back(std::max(seconds, kLeast) / last->first);
        log_size += std::log(last->first);
      }
    const double size = std::exp(log_size / double(rates.size()));
    table.axes[0].push_back(size);
    table.seconds.push_back(median(rates) * size);
    first = last;
  }
  make_monotone(table);
  return table;
}

std::vector<TimeTable> curves_of(const std::vector<TimedModel>& models) {
  std::map<std::string, std::map<double, std::vector<double>>> measured;
  for (const TimedModel& model : models)
    for (const CallRecord& call : model.calls) {
      const TimeKey key = time_key(call);
      if (key.at.size() == 1) measured[key.table][key.at[0]].push_back(call.seconds);
    }
  std::vector<TimeTable> tables;
  for (const auto& [key, seconds] : measured) tables.push_back(curve_of(key, seconds));
  return tables;
}

// The peak is the best matrix product: a faster one in the grid is it.
void raise_peak(const GridPoint& point, MachineProfile& profile) {
  if (point.op != &op::linear || point.in[0].dtype == DType::f16) return;
  const double rate = 2 * double(point.in[0].shape.numel()) * double(point.in[1].shape[0]) / std::max(point.seconds, kLeast);
  double& peak = point.in[0].dtype == DType::bf16 ? profile.bf16_flops_per_second : profile.f32_flops_per_second;
  peak = std::max(peak, rate);
}

// Operands of a step are nearer to the caches than the grid's, or farther: the table takes the level of its calls in the models.
void scale_to_models(TimeTable& table, const std::vector<TimedModel>& models) {
  double measured = 0, predicted = 0;
  for (const TimedModel& model : models)
    for (const CallRecord& call : model.calls) {
      const TimeKey key = time_key(call);
      if (key.table != table.key) continue;
      measured += call.seconds;
      predicted += interpolate(table, key.at) * share_of_pairs(call);
    }
  if (!(measured > 0 && predicted > 0)) return;
  for (double& seconds : table.seconds) seconds *= measured / predicted;
}

// step = factor * (sum of its calls) + overhead * (number of calls): least squares of the relative error over the models.
void fit_overheads(const std::vector<TimedModel>& models, MachineProfile& profile) {
  double xx = 0, xy = 0, yy = 0, x1 = 0, y1 = 0;
  for (const TimedModel& model : models) {
    double sum = 0;
    for (const CallRecord& call : model.calls) sum += *predict_seconds(call, profile);
    const double x = sum / model.step_seconds, y = double(model.calls.size()) / model.step_seconds;
    xx += x * x, xy += x * y, yy += y * y, x1 += x, y1 += y;
  }
  const double determinant = xx * yy - xy * xy;
  double factor = determinant > 0 ? (x1 * yy - y1 * xy) / determinant : 1,
         overhead = determinant > 0 ? (y1 * xx - x1 * xy) / determinant : 0;
  if (overhead < 0) overhead = 0, factor = x1 / xx;
  // No step is faster than its calls: a smaller factor is other programs' doing, who slowed the calls down more than the steps.
  if (factor < 1) factor = 1, overhead = std::max(0.0, (y1 - xy) / yy);
  profile.call_factor = factor;
  profile.call_overhead_seconds = overhead;
}
}  // namespace

void make_monotone(TimeTable& table) {
  size_t stride = 1;
  for (size_t axis = table.axes.size(); axis-- > 0; stride *= table.axes[axis].size())
    for (size_t i = table.seconds.size(); i-- > 0;)
      if (i / stride % table.axes[axis].size() + 1 < table.axes[axis].size())
        table.seconds[i] = std::min(table.seconds[i], table.seconds[i + stride]);
}

struct Calibration::State {
  explicit State(Device& on) : device(on), grid(calibration_grid()), pool(on) {
    for (const std::vector<std::string>& overrides : calibration_models())
      models.push_back({parse_config("", "calibration", overrides), {}, 0});
  }
  void measure_grid() {
    const NoGrad guard;
    for (GridPoint& point : grid.points) measure_point(point, pool);
  }
  Device& device;
  Grid grid;
  std::vector<TimedModel> models;
  OperandPool pool;
};

Calibration::Calibration(Device& device) : state_(new State(device)) {
  state_->measure_grid();  // first touch, and the library's own first time
  for (GridPoint& point : state_->grid.points) point.seconds = 0;
}
Calibration::~Calibration() = default;

void Calibration::round() {
  state_->measure_grid();
  for (TimedModel& model : state_->models) measure_model(model, state_->device);
}

void Calibration::finish(MachineProfile& profile) const {
  profile.tables = curves_of(state_->models);
  const size_t curves = profile.tables.size();
  profile.tables.insert(profile.tables.end(), state_->grid.tables.begin(), state_->grid.tables.end());
  for (const GridPoint& point : state_->grid.points) {
    profile.tables[curves + point.table].seconds[point.index] = std::max(point.seconds, kLeast);
    raise_peak(point, profile);
  }
  for (size_t i = curves; i < profile.tables.size(); ++i) {
    make_monotone(profile.tables[i]);
    scale_to_models(profile.tables[i], state_->models);
  }
  fit_overheads(state_->models, profile);
}
}  // namespace reckon
