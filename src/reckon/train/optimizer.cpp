#include "reckon/train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "reckon/base/philox.h"
#include "reckon/base/text.h"
#include "reckon/engine/context.h"
#include "reckon/ops/rows.h"
#include "reckon/ops/state_blocks.h"
#include "reckon/ops/training.h"

namespace reckon {
namespace {
constexpr uint64_t kRoundingSite = 0x726F756E64;  // keys of different uses never meet
constexpr double kMostSteps = 0x1p53;             // a float64 counts no further
static_assert(kParameterAlignment % kPlaceAlignment == 0 && kStateBlock % kPlaceAlignment == 0);

std::vector<std::string> state_names(const OptimConfig& config) {
  std::vector<std::string> names;
  switch (config.name) {
    case OptimizerKind::sgd:
      break;
    case OptimizerKind::momentum:
    case OptimizerKind::nesterov:
      return {"momentum"};
    case OptimizerKind::adagrad:
      return {"sum_of_squares"};
    case OptimizerKind::rmsprop:
      names = {"mean_square"};
      if (config.centered) names.push_back("mean");
      if (config.rmsprop_momentum > 0) names.push_back("velocity");
      return names;
    case OptimizerKind::adam:
    case OptimizerKind::adamw:
    case OptimizerKind::lamb:
      return {"m", "v"};
    case OptimizerKind::adamw8bit:
      return {"m", "m_scale", "v", "v_scale"};
  }
  return names;
}
// Of one call; lamb makes two of its own.
const OpDef& step_row(OptimizerKind kind, bool quantized) {
  switch (kind) {
    case OptimizerKind::sgd:
      return op::sgd_step;
    case OptimizerKind::momentum:
      return op::momentum_step;
    case OptimizerKind::nesterov:
      return op::nesterov_step;
    case OptimizerKind::adagrad:
      return op::adagrad_step;
    case OptimizerKind::rmsprop:
      return op::rmsprop_step;
    case OptimizerKind::adam:
      return op::adam_step;
    case OptimizerKind::adamw8bit:
      return quantized ? op::adamw8bit_step : op::adamw_step;
    case OptimizerKind::adamw:
    case OptimizerKind::lamb:
      break;
  }
  return op::adamw_step;
}

// What the rule calls beta1: a moment's decay, or what a velocity keeps.
double beta1_of(const OptimConfig& c) {
  const bool is_momentum = c.name == OptimizerKind::momentum || c.name == OptimizerKind::nesterov;
  return is_momentum ? c.momentum : c.name == OptimizerKind::rmsprop ? c.rmsprop_momentum : c.beta1;
}

// A bucket's tensor of that state; undefined if it has none.
Tensor make_state(Device& device, const std::string& name, const Bucket& bucket) {
  if (name.ends_with("_scale")) return bucket.quantized ? zeros(device, {{bucket.numel / kStateBlock}, DType::f32}) : Tensor();
  const DType exact = bucket.values.dtype() == DType::f64 ? DType::f64 : DType::f32;
  return zeros(device, {{bucket.numel}, bucket.quantized ? DType::u8 : exact});
}
}  // namespace

int64_t quantized_from(OptimizerKind kind) { return kind == OptimizerKind::adamw8bit ? kSmallest8bit : 0; }

double state_bytes(const OptimConfig& config) {
  if (config.name == OptimizerKind::adamw8bit) return 2 * (1 + 4.0 / double(kStateBlock));  // a float32 scale for each block
  return 4 * double(state_names(config).size());
}

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
    : parameters_(parameters), config_(config), scaling_(scaling), seed_(seed), on_meta_(device.is_meta()), lr_(config.lr) {
  validate(config);
  for (const Parameter& p : parameters.all())
    check(p.value.defined(), "{} has no value yet: call materialize() before an Optimizer is made", p.name);
  const CategoryScope scope(Category::optimizer);
  scalars_ = zeros(device, {{kStepScalars}, DType::f64});
  const double scale[kScaleScalars] = {scaling.start};
  scale_state().write(scale, sizeof scale);
  for (const std::string& name : state_names(config)) {
    State state{name, {}};
    for (const Bucket& bucket : parameters.buckets()) state.buckets.push_back(make_state(device, name, bucket));
    states_.push_back(std::move(state));
  }
  set_groups(parse_groups(config.groups));
  if (config.name != OptimizerKind::lamb) return;
  for (const std::vector<Place>& places : places_) {
    std::vector<int64_t> starts;
    for (const Place& place : places) starts.push_back(place.begin);
    starts.push_back(places.back().end);
    starts_.push_back(from_values<int64_t>(device, {int64_t(starts.size())}, starts));
  }
}

void Optimizer::set_groups(std::vector<ParameterGroup> groups) {
  std::vector<std::vector<Place>> places(parameters_.buckets().size());
  for (const Parameter& p : parameters_.all())
    places[size_t(p.bucket)].push_back({p.offset, p.offset + p.padded, group_of(groups, p.name)});
  for (const ParameterGroup& group : groups) {
    for (const double factor : {group.lr, group.weight_decay})
      check_as(Failure::usage, factor >= 0 && factor <= kMaxGroupFactor, "optim.groups: \"{}\" has a factor of {}, not one from 0 to {}",
               printable_line(group.pattern, 60), factor, kMaxGroupFactor);
    const bool found =
        std::any_of(parameters_.all().begin(), parameters_.all().end(), [&](const Parameter& p) { return matches(group, p.name); });
    check_as(Failure::usage, found, "optim.groups: \"{}\" matches no parameter; they have names like {}, and * stands for any characters",
             printable_line(group.pattern, 60), parameters_.all().empty() ? "none" : parameters_.all().front().name);
  }
  for (size_t i = 0; i < groups.size(); ++i) {
    const bool counts = std::any_of(places.begin(), places.end(), [&](const std::vector<Place>& bucket) {
      return std::any_of(bucket.begin(), bucket.end(), [&](const Place& place) { return place.group == int(i); });
    });
    check_as(Failure::usage, counts,
             "optim.groups: \"{}\" would never count: all that it matches are in groups before it; put it first, or leave it out",
             groups[i].pattern);
  }
  places_ = std::move(places);
  groups_ = std::move(groups);
}

void Optimizer::set_lr(double lr) {
  check(std::isfinite(lr) && lr >= 0, "a learning rate must be a number of at least 0, got {}", lr);
  lr_ = lr;
}

void Optimizer::write_scalars(int64_t step, int64_t total_steps) const { write(learning_rate(config_, step, total_steps), step); }

void Optimizer::write(double lr, int64_t step) const {
  double s[kHostScalars] = {};
  s[kLearningRate] = lr;
  s[kBeta1] = beta1_of(config_);
  s[kBeta2] = config_.name == OptimizerKind::rmsprop ? config_.alpha : config_.beta2;
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
Tensor range_of(const Tensor& flat, int64_t begin, int64_t count) {
  if (count == flat.numel()) return flat;
  Layout layout(Shape{count});
  layout.offset = begin;
  return flat.alias(layout);
}
// The run's part of a flat tensor with one element for each `per` of the bucket.
Tensor part_of(const Tensor& flat, const Parameters::GradientRun& run, int64_t per = 1) {
  return range_of(flat, run.begin / per, (run.end - run.begin) / per);
}
}  // namespace

// The index of the part's first parameter.
size_t Optimizer::place_of(const Run& part) const {
  const std::vector<Place>& places = places_[part.bucket];
  return size_t(std::lower_bound(places.begin(), places.end(), part.begin, [](const Place& p, int64_t at) { return p.end <= at; }) -
                places.begin());
}

// The run, cut where another group begins.
std::vector<Optimizer::Run> Optimizer::parts_of(const Run& run) const {
  if (groups_.empty()) return {run};
  const std::vector<Place>& places = places_[run.bucket];
  std::vector<Run> parts;
  for (size_t i = place_of(run); i < places.size() && places[i].begin < run.end; ++i) {
    if (parts.empty() || places[i].group != places[i - 1].group) parts.push_back({run.bucket, places[i].begin, places[i].end, {}});
    parts.back().end = places[i].end;
  }
  for (Run& part : parts) part.gradients = range_of(run.gradients, part.begin - run.begin, part.end - part.begin);
  return parts;
}

OptimizerParams Optimizer::params_of(const Run& part) const {
  const Bucket& bucket = parameters_.buckets()[part.bucket];
  OptimizerParams params{bucket.decay ? config_.weight_decay : 0.0, part.begin, part.bucket};
  params.coupled = config_.weight_decay_kind == DecayKind::coupled && config_.name != OptimizerKind::adam;
  params.centered = config_.name == OptimizerKind::rmsprop && config_.centered;
  params.momentum = config_.name == OptimizerKind::rmsprop && config_.rmsprop_momentum > 0;
  params.phi_low = config_.phi_low;
  params.phi_high = config_.phi_high;
  if (groups_.empty()) return params;
  const int group = places_[part.bucket][place_of(part)].group;
  if (group < 0) return params;
  params.lr_scale = groups_[size_t(group)].lr;
  params.weight_decay *= groups_[size_t(group)].weight_decay;
  return params;
}

void Optimizer::step_part(const Run& part) const {
  const OptimizerParams params = params_of(part);
  if (config_.name == OptimizerKind::lamb) return step_lamb(part, params);
  const Bucket& bucket = parameters_.buckets()[part.bucket];
  Tensors in = tensors(scalars_, part_of(bucket.values, part), part.gradients);
  for (const State& state : states_)
    if (const Tensor& flat = state.buckets[part.bucket]; flat.defined()) in.push_back(part_of(flat, part, bucket.numel / flat.numel()));
  if (bucket.residual.defined()) in.push_back(part_of(bucket.residual, part));
  if (bucket.master.defined()) in.push_back(part_of(bucket.master, part));
  call(step_row(config_.name, bucket.quantized), std::move(in), params);
}

void Optimizer::step_lamb(const Run& part, const OptimizerParams& params) const {
  const Bucket& bucket = parameters_.buckets()[part.bucket];
  const Tensor m = part_of(states_[0].buckets[part.bucket], part), v = part_of(states_[1].buckets[part.bucket], part);
  const std::vector<Place>& places = places_[part.bucket];
  const size_t first = place_of(part);
  size_t last = first;
  while (last < places.size() && places[last].begin < part.end) ++last;
  const Tensor starts = range_of(starts_[part.bucket], int64_t(first), int64_t(last - first) + 1);
  Tensors rest;
  if (bucket.residual.defined()) rest.push_back(part_of(bucket.residual, part));
  if (bucket.master.defined()) rest.push_back(part_of(bucket.master, part));
  Tensors in = tensors(scalars_, part_of(bucket.values, part), part.gradients, m, v, starts);
  in.insert(in.end(), rest.begin(), rest.end());
  const Tensor ratios = call(op::lamb_moments, std::move(in), params)[0];
  in = tensors(scalars_, part_of(bucket.values, part), m, v, starts, ratios);
  in.insert(in.end(), rest.begin(), rest.end());
  call(op::lamb_step, std::move(in), params);
}

void Optimizer::step(const Tensor& loss) const {
  const NoGrad guard;
  const ModuleScope scope("optimizer");
  const std::vector<Run> runs = parameters_.gradient_runs();
  Tensors sums;
  for (const Run& run : runs) sums.push_back(sum_of_squares(run.gradients));
  if (sums.empty()) sums.push_back(zeros(loss.device(), {{1}, DType::f64}));  // the norm of no gradient
  clip_(scalars_, loss, sums);
  for (const Run& run : runs)
    for (const Run& part : parts_of(run)) step_part(part);
}

void Optimizer::step() {
  write(lr_, steps_);
  step(loss_scale());                                                       // a loss that is finite
  if (on_meta_ || !scalars_.device().allocator().in_rehearsal()) ++steps_;  // what a plan rehearses has not happened
}

Optimizer::StateDict Optimizer::planes() const {
  StateDict planes;
  for (const Parameter& p : parameters_.all()) {
    const Bucket& bucket = parameters_.buckets()[size_t(p.bucket)];
    // With bf16 values, the 16 bits below them; together they are the f32 master weight.
    if (bucket.residual.defined()) planes.emplace_back("residual." + p.name, Parameters::view_of(bucket.residual, p));
    // float16 values are roundings of these.
    if (bucket.master.defined()) planes.emplace_back("master." + p.name, Parameters::view_of(bucket.master, p));
    for (const State& state : states_)
      if (const Tensor part = state.of(p); part.defined()) planes.emplace_back(state.name + "." + p.name, part);
  }
  return planes;
}

Optimizer::StateDict Optimizer::state_dict() const {
  StateDict dict = planes();
  dict.emplace_back("step", full(scalars_.device(), {Shape{}, DType::f64}, double(steps_)));
  if (scaling_.start != 1 || scaling_.growth_interval > 0) dict.emplace_back("loss_scale", scale_state());
  std::sort(dict.begin(), dict.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return dict;
}

void Optimizer::load_state_dict(const StateDict& dict) {
  const StateDict own = state_dict();
  const std::string kind = to_string(config_.name);
  const bool has_data = !scalars_.device().is_meta();
  std::map<std::string_view, Tensor> given;
  for (const auto& [name, tensor] : dict) {
    check(tensor.defined() && (!has_data || !tensor.device().is_meta()), "the state \"{}\", {}, has no data: it is undefined, or on meta",
          name, tensor);
    check(given.emplace(name, tensor).second, "the state \"{}\" is there twice", name);
  }
  for (const auto& [name, tensor] : own) {
    const auto found = given.find(name);
    check(found != given.end(), "the state \"{}\" of the optimizer {} is missing", name, kind);
    check(found->second.spec() == tensor.spec(), "the state \"{}\" is {}, the optimizer's is {}", name, found->second.spec(),
          tensor.spec());
  }
  for (const auto& [name, tensor] : dict) {
    const bool known = std::any_of(own.begin(), own.end(), [&, &wanted = name](const auto& state) { return state.first == wanted; });
    check(known, "the optimizer {} has no state \"{}\"", kind, name);
  }
  if (!has_data) return;
  const double step = given.at("step").item();
  check(step >= 0 && step <= kMostSteps && step == std::floor(step), "the state \"step\" is {}, which is no number of steps from 0 to 2^53",
        step);
  const NoGrad guard;
  for (const auto& [name, tensor] : own) tensor.write(contiguous(given.at(name)).raw(), tensor.spec().bytes());
  steps_ = int64_t(step);
}

Optimizer::Outcome Optimizer::outcome() const {
  if (scalars_.device().is_meta()) return {};
  const std::vector<double> s = scalars_.to_vector();
  return {s[kGradNorm], s[kOk] == 1, s[kUsedScale], s[kOk] == 0 && s[kLossScale] < s[kUsedScale]};
}
}  // namespace reckon
