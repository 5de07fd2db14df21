#include "reckon/train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "reckon/base/philox.h"
#include "reckon/engine/context.h"
#include "reckon/ops/rows.h"
#include "reckon/ops/state_blocks.h"
#include "reckon/ops/training.h"

namespace reckon {

double learning_rate(const OptimConfig& c, int64_t step, int64_t total) {
  if (step < c.warmup_steps) return c.lr * double(step + 1) / double(c.warmup_steps);
  if (c.schedule == ScheduleKind::constant) return c.lr;
  const double length = double(std::max<int64_t>(1, total - c.warmup_steps));
  const double progress = std::min(1.0, double(step - c.warmup_steps) / length);
  return c.lr * (c.min_lr_ratio + (1 - c.min_lr_ratio) * 0.5 * (1 + std::cos(std::numbers::pi * progress)));
}

namespace {
constexpr uint64_t kRoundingSite = 0x726F756E64;  // keys of different uses never meet

std::vector<std::string> state_names(OptimizerKind kind) {
  switch (kind) {
    case OptimizerKind::sgd:
      return {};
    case OptimizerKind::momentum:
      return {"momentum"};
    case OptimizerKind::adagrad:
      return {"sum_of_squares"};
    case OptimizerKind::adamw:
      return {"m", "v"};
    case OptimizerKind::adamw8bit:
      return {"m", "m_scale", "v", "v_scale"};
  }
  return {};
}
const OpDef& step_row(OptimizerKind kind, bool quantized) {
  switch (kind) {
    case OptimizerKind::sgd:
      return op::sgd_step;
    case OptimizerKind::momentum:
      return op::momentum_step;
    case OptimizerKind::adagrad:
      return op::adagrad_step;
    case OptimizerKind::adamw:
      break;
    case OptimizerKind::adamw8bit:
      return quantized ? op::adamw8bit_step : op::adamw_step;
  }
  return op::adamw_step;
}

// A bucket's tensor of that state; undefined if it has none.
Tensor make_state(Device& device, const std::string& name, const Bucket& bucket) {
  if (name.ends_with("_scale")) return bucket.quantized ? zeros(device, {{bucket.numel / kStateBlock}, DType::f32}) : Tensor();
  const DType exact = bucket.values.dtype() == DType::f64 ? DType::f64 : DType::f32;
  return zeros(device, {{bucket.numel}, bucket.quantized ? DType::u8 : exact});
}
}  // namespace

int64_t quantized_from(OptimizerKind kind) { return kind == OptimizerKind::adamw8bit ? kSmallest8bit : 0; }

Tensor Optimizer::State::of(const Parameter& p) const {
  const Tensor& flat = buckets[size_t(p.bucket)];
  if (!flat.defined() || !name.ends_with("_scale")) return flat.defined() ? Parameters::view_of(flat, p) : Tensor();
  Layout layout(Shape{p.padded / kStateBlock});
  layout.offset = p.offset / kStateBlock;
  return flat.alias(layout);
}

LossScaling loss_scaling(const TrainConfig& config) {
  if (config.precision != Precision::fp16) return {};
  if (config.loss_scale > 0) return {.start = config.loss_scale};
  return {.start = config.loss_scale_start, .growth_interval = config.loss_scale_interval};
}

Optimizer::Optimizer(Device& device, Parameters& parameters, const OptimConfig& config, const LossScaling& scaling, uint64_t seed)
    : parameters_(parameters), config_(config), scaling_(scaling), seed_(seed) {
  const CategoryScope scope(Category::optimizer);
  scalars_ = zeros(device, {{kStepScalars}, DType::f64});
  const double scale[kScaleScalars] = {scaling.start};
  scale_state().write(scale, sizeof scale);
  for (const std::string& name : state_names(config.name)) {
    State state{name, {}};
    for (const Bucket& bucket : parameters.buckets()) state.buckets.push_back(make_state(device, name, bucket));
    states_.push_back(std::move(state));
  }
}

void Optimizer::write_scalars(int64_t step, int64_t total_steps) const {
  double s[kHostScalars] = {};
  s[kLearningRate] = learning_rate(config_, step, total_steps);
  s[kBeta1] = config_.name == OptimizerKind::momentum ? config_.momentum : config_.beta1;
  s[kBeta2] = config_.beta2;
  s[kBiasFactor1] = 1 - std::pow(config_.beta1, double(step + 1));
  s[kBiasFactor2] = 1 - std::pow(config_.beta2, double(step + 1));
  s[kEpsilon] = config_.eps;
  s[kMaxNorm] = config_.clip_norm;
  s[kGrowthInterval] = double(scaling_.growth_interval);
  const uint64_t noise = mix_key(mix_key(seed_, kRoundingSite), uint64_t(step));
  s[kNoiseHigh] = double(noise >> 32);
  s[kNoiseLow] = double(noise & 0xFFFFFFFFu);
  scalars_.alias(Layout(Shape{kHostScalars})).write(s, sizeof s);  // the loss scale behind them stays
}

Tensor Optimizer::loss_scale() const {
  Layout layout{Shape{}};
  layout.offset = kLossScale;
  return scalars_.alias(layout);
}
Tensor Optimizer::scale_state() const {
  Layout layout(Shape{kScaleScalars});
  layout.offset = kLossScale;
  return scalars_.alias(layout);
}

namespace {
using Run = Parameters::GradientRun;
// The run's part of a flat tensor with one element for each `per` of the bucket.
Tensor part_of(const Tensor& flat, const Run& run, int64_t per = 1) {
  if (run.end - run.begin == flat.numel() * per) return flat;
  Layout layout(Shape{(run.end - run.begin) / per});
  layout.offset = run.begin / per;
  return flat.alias(layout);
}
}  // namespace

void Optimizer::step(const Tensor& loss) const {
  const NoGrad guard;
  const ModuleScope scope("optimizer");
  const std::vector<Run> runs = parameters_.gradient_runs();
  Tensors sums;
  for (const Run& run : runs) sums.push_back(sum_of_squares(run.gradients));
  if (sums.empty()) sums.push_back(zeros(loss.device(), {{1}, DType::f64}));  // the norm of no gradient
  clip_(scalars_, loss, sums);
  for (const Run& run : runs) {
    const Bucket& bucket = parameters_.buckets()[run.bucket];
    Tensors in = tensors(scalars_, part_of(bucket.values, run), run.gradients);
    for (const State& state : states_)
      if (const Tensor& flat = state.buckets[run.bucket]; flat.defined()) in.push_back(part_of(flat, run, bucket.numel / flat.numel()));
    if (bucket.residual.defined()) in.push_back(part_of(bucket.residual, run));
    if (bucket.master.defined()) in.push_back(part_of(bucket.master, run));
    call(step_row(config_.name, bucket.quantized), std::move(in),
         OptimizerParams{bucket.decay ? config_.weight_decay : 0.0, run.begin, run.bucket});
  }
}

Optimizer::Outcome Optimizer::outcome() const {
  if (scalars_.device().is_meta()) return {};
  const std::vector<double> s = scalars_.to_vector();
  return {s[kGradNorm], s[kOk] == 1, s[kUsedScale], s[kOk] == 0 && s[kLossScale] < s[kUsedScale]};
}
}  // namespace reckon
