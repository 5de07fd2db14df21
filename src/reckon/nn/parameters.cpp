#include "reckon/nn/parameters.h"

#include <algorithm>
#include <cmath>

#include "reckon/base/philox.h"
#include "reckon/engine/context.h"
#include "reckon/ops/state_blocks.h"
#include "reckon/ops/training.h"

namespace reckon {

double init_std(const Init& init, int64_t fan_out, int64_t fan_in) {
  switch (init.kind) {
    case Init::xavier: return init.gain * std::sqrt(2.0 / double(fan_in + fan_out));
    case Init::kaiming: return init.gain * std::sqrt(2.0 / double(fan_in));
    default: return init.gain * init.std;
  }
}

namespace {
// Where a name is, or belongs, among sorted ones.
std::vector<Parameter*>::iterator place_of(std::vector<Parameter*>& sorted, std::string_view name) {
  return std::lower_bound(sorted.begin(), sorted.end(), name, [](const Parameter* p, std::string_view wanted) { return p->name < wanted; });
}
}  // namespace

Parameter& Parameters::declare(std::string name, const Shape& shape, const Init& init, bool decay) {
  check(buckets_.empty(), "parameter {} is declared after the model was materialized", name);
  check(find(name) == nullptr, "parameter {} is declared twice", name);
  Parameter& parameter = parameters_.emplace_back(Parameter{.name = std::move(name), .shape = shape, .init = init, .decay = decay});
  by_name_.insert(place_of(by_name_, parameter.name), &parameter);
  return parameter;
}

Parameter* Parameters::find(std::string_view name) {
  const auto place = place_of(by_name_, name);
  return place != by_name_.end() && (*place)->name == name ? *place : nullptr;
}

int64_t Parameters::count() const {
  int64_t count = 0;
  for (const Parameter& p : parameters_) count += p.shape.numel();
  return count;
}

DType Parameters::dtype() const {
  check(!buckets_.empty(), "the model has no storage yet: call materialize()");
  return buckets_[0].values.dtype();
}

void Parameters::zero_grad() {
  for (Parameter& p : parameters_) p.value.zero_grad();
}

void Parameters::mark_gradients_filled() {
  for (Parameter& p : parameters_) p.value.state().grad_filled = p.value.state().grad_is_slot;
}

Tensor Parameters::view_of(const Tensor& flat, const Parameter& parameter) {
  Layout layout(parameter.shape);
  layout.offset = parameter.offset;
  return flat.alias(layout);
}

void Parameters::lay_out(int64_t quantized_from) {
  const auto is_quantized = [&](const Parameter& p) { return quantized_from > 0 && p.shape.numel() >= quantized_from; };
  for (const bool decay : {true, false})
    for (const bool quantized : {true, false}) {
      Bucket bucket{.decay = decay, .quantized = quantized};
      const int64_t alignment = quantized ? kStateBlock : kParameterAlignment;
      for (Parameter& p : parameters_) {
        if (p.decay != decay || is_quantized(p) != quantized) continue;
        p.bucket = int(buckets_.size());
        p.offset = bucket.numel;
        p.padded = (p.shape.numel() + alignment - 1) / alignment * alignment;
        bucket.numel += p.padded;
      }
      if (bucket.numel > 0) buckets_.push_back(bucket);
    }
}

void Parameters::materialize(Device& device, const StorageOptions& options, uint64_t seed) {
  RECKON_ASSERT(buckets_.empty());
  const NoGrad guard;
  lay_out(options.quantized_from);
  const DType gradient = options.dtype == DType::f64 ? DType::f64 : DType::f32;
  check(options.master || options.dtype != DType::f16, "f16 parameters need float32 master weights");
  const bool split = options.dtype == DType::bf16 && options.training && options.master, copied = options.dtype == DType::f16 && options.training;
  for (Bucket& bucket : buckets_) {
    // Zeros, so that the padding between parameters stays zero through every optimizer.
    const auto flat = [&](Category category, DType dtype) {
      const CategoryScope scope(category);
      return zeros(device, {{bucket.numel}, dtype});
    };
    bucket.values = flat(Category::parameter, options.dtype);
    if (split) bucket.residual = flat(Category::master, DType::bf16);
    if (copied) bucket.master = flat(Category::master, DType::f32);
    if (options.training) bucket.gradients = flat(Category::gradient, gradient);
  }
  for (Parameter& p : parameters_) {
    const Bucket& bucket = buckets_[size_t(p.bucket)];
    p.value = view_of(bucket.values, p);
    fill(p, seed);
    if (!options.training) continue;
    p.value.set_requires_grad();
    p.value.set_grad_slot(view_of(bucket.gradients, p));
  }
}

void Parameters::fill(Parameter& p, uint64_t seed) {
  if (p.init.kind == Init::zeros) return;
  const size_t dot = p.name.rfind('.');
  const ModuleScope scope(std::string_view(p.name).substr(0, dot == std::string::npos ? 0 : dot));
  const Bucket& bucket = buckets_[size_t(p.bucket)];
  const bool split = bucket.residual.defined(), copied = bucket.master.defined();
  // With split storage the f32 values are made aside and then stored exactly.
  const Tensor target = split ? empty(p.value.device(), {p.shape, DType::f32}) : copied ? view_of(bucket.master, p) : p.value;
  uint64_t key = mix_key(seed, 0x696E6974);
  for (const char c : p.name) key = mix_key(key, uint8_t(c));
  const double std = p.shape.rank() == 2 ? init_std(p.init, p.shape[0], p.shape[1]) : p.init.gain * p.init.std;
  if (p.init.kind == Init::ones) {
    fill_uniform_(target, key, 1, 1);
  } else if (p.init.kind == Init::trunc_normal) {
    fill_trunc_normal_(target, key, std, 3 * std);
  } else {
    fill_normal_(target, key, 0, std);
  }
  if (split) split_master_(target, p.value, view_of(bucket.residual, p));
  if (copied) call(op::accumulate, tensors(p.value, target), AccumulateParams{false});
}
}  // namespace reckon
