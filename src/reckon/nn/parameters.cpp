#include "reckon/nn/parameters.h"

#include <algorithm>
#include <cmath>

#include "reckon/base/error.h"
#include "reckon/base/philox.h"
#include "reckon/base/text.h"
#include "reckon/engine/context.h"
#include "reckon/ops/state_blocks.h"
#include "reckon/ops/training.h"

namespace reckon {

double init_std(const Init& init, int64_t fan_out, int64_t fan_in) {
  switch (init.kind) {
    case Init::xavier:
      return init.gain * std::sqrt(2.0 / double(fan_in + fan_out));
    case Init::kaiming:
      return init.gain * std::sqrt(2.0 / double(fan_in));
    default:
      return init.gain * init.std;
  }
}

namespace {
// The part of the model whose gradients come and go together: "blocks.3" for "blocks.3.attn.qkv.weight", "embed" for "embed.weight".
std::string_view part_of_model(std::string_view name) {
  const size_t first = name.find('.'), second = first == name.npos ? name.npos : name.find('.', first + 1);
  return name.substr(0, second == name.npos ? first : second);
}

Tensor range_of(const Tensor& flat, int64_t begin, int64_t end) {
  if (begin == 0 && end == flat.numel()) return flat;
  Layout layout(Shape{end - begin});
  layout.offset = begin;
  return flat.alias(layout);
}

// Of a convolution's kernel [out, in, h, w] each tap counts, as in PyTorch.
double std_of(const Parameter& p) {
  const Shape& s = p.shape;
  if (s.rank() == 4) return init_std(p.init, checked_product({s[0], s[2], s[3]}), checked_product({s[1], s[2], s[3]}));
  return s.rank() == 2 ? init_std(p.init, s[0], s[1]) : p.init.gain * p.init.std;
}

// Where a name is, or belongs, among sorted ones.
std::vector<Parameter*>::iterator place_of(std::vector<Parameter*>& sorted, std::string_view name) {
  return std::lower_bound(sorted.begin(), sorted.end(), name, [](const Parameter* p, std::string_view wanted) { return p->name < wanted; });
}
}  // namespace

// Gradients of neighbours in a bucket: one block of memory, which lives as long as one of its parameters has a gradient.
struct detail::GradientPiece final : SlotSource {
  Device& device;
  DType dtype;
  uint32_t module;
  size_t bucket;
  int64_t begin, end;  // elements of the bucket
  bool padded = false;
  std::vector<Parameter*> members;

  GradientPiece(Device& d, DType t, const Parameter& first)
      : device(d), dtype(t), module(module_id(part_of_model(first.name))), bucket(size_t(first.bucket)), begin(first.offset), end(begin) {}
  void add(Parameter& p) {
    members.push_back(&p);
    end = p.offset + p.padded;
    padded |= p.padded != p.shape.numel();
  }
  /// [end - begin]; undefined while there is none.
  Tensor memory() const {
    for (const Parameter* p : members)
      if (const TensorState& leaf = p->value.state(); leaf.grad && leaf.slot_source.get() == this)
        return Tensor(leaf.grad).alias(Layout(Shape{end - begin}));
    return {};
  }
  void provide() override {
    check(!members.empty(), "a gradient comes to {}, whose parameters are gone", module_path(module));
    const NoGrad guard;
    const detail::Restore<bool> unchecked(context().finite_check, false);  // new memory may hold anything
    Tensor flat = memory();
    if (!flat.defined()) {
      const CategoryScope category(Category::gradient);
      const ModuleScope scope(module);
      const TensorSpec spec{{end - begin}, dtype};
      flat = padded ? zeros(device, spec) : empty(device, spec);  // padding is part of the norm
    }
    for (Parameter* p : members) {
      TensorState& leaf = p->value.state();
      if (leaf.grad || leaf.slot_source.get() != this) continue;
      Layout layout(p->shape);
      layout.offset = p->offset - begin;
      leaf.note_gradient();
      leaf.grad = flat.alias(layout).ref();
    }
  }
};

Parameters::Parameters() = default;
// A graph may outlive its parameters, and hold their pieces.
Parameters::~Parameters() {
  for (const auto& piece : pieces_) piece->members.clear();
}

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

Parameter& Parameters::at(std::string_view name) {
  Parameter* const found = find(name);
  if (found) return *found;
  std::vector<std::string> names;
  for (const Parameter& p : parameters_) names.push_back(p.name);
  fail("no parameter is called '{}'{}", printable_line(name), did_you_mean(name, names));
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
  check(pieces_.empty(), "gradients that do not last have no place to write to before the first contribution");
  for (Parameter& p : parameters_) p.value.state().grad_filled = p.value.state().grad_is_slot;
}

int64_t Parameters::gradient_bytes() const {
  int64_t bytes = 0;
  for (const Bucket& bucket : buckets_)
    if (bucket.gradients.defined()) bytes += bucket.gradients.spec().bytes();
  for (const auto& piece : pieces_) bytes += (piece->end - piece->begin) * size_of(piece->dtype);
  return bytes;
}

std::vector<Parameters::GradientRun> Parameters::gradient_runs() const {
  std::vector<GradientRun> runs;
  // Appends the filled ones among `members`, neighbours whose gradients lie in `flat` from element `begin` of the bucket on.
  const auto add = [&](size_t bucket, const auto& members, const Tensor& flat, int64_t begin) {
    const size_t first = runs.size();
    for (const Parameter* p : members) {
      if (!p->value.state().grad_filled) continue;
      const int64_t end = p->offset + p->padded;
      if (runs.size() > first && runs.back().end == p->offset) {
        runs.back().end = end;
      } else {
        runs.push_back({bucket, p->offset, end, {}});
      }
    }
    for (size_t i = first; i < runs.size(); ++i) runs[i].gradients = range_of(flat, runs[i].begin - begin, runs[i].end - begin);
  };
  for (size_t i = 0; i < buckets_.size(); ++i) {
    if (!buckets_[i].gradients.defined()) continue;
    std::vector<const Parameter*> members;
    for (const Parameter& p : parameters_)
      if (size_t(p.bucket) == i) members.push_back(&p);
    add(i, members, buckets_[i].gradients, 0);
  }
  for (const auto& piece : pieces_)
    if (const Tensor flat = piece->memory(); flat.defined()) add(piece->bucket, piece->members, flat, piece->begin);
  return runs;
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
  const bool lasting =
      options.lasting_gradients && std::none_of(parameters_.begin(), parameters_.end(), [](const Parameter& p) { return p.frozen; });
  check(options.master || options.dtype != DType::f16, "f16 parameters need float32 master weights");
  const bool split = options.dtype == DType::bf16 && options.training && options.master,
             copied = options.dtype == DType::f16 && options.training;
  for (Bucket& bucket : buckets_) {
    // Zeros, so that the padding between parameters stays zero through every optimizer.
    const auto flat = [&](Category category, DType dtype) {
      const CategoryScope scope(category);
      return zeros(device, {{bucket.numel}, dtype});
    };
    bucket.values = flat(Category::parameter, options.dtype);
    if (split) bucket.residual = flat(Category::master, DType::bf16);
    if (copied) bucket.master = flat(Category::master, DType::f32);
    if (options.training && lasting) bucket.gradients = flat(Category::gradient, options.dtype == DType::f64 ? DType::f64 : DType::f32);
  }
  for (Parameter& p : parameters_) {
    p.value = view_of(buckets_[size_t(p.bucket)].values, p);
    fill(p, seed);
    if (options.training && !p.frozen) p.value.set_requires_grad();
  }
  if (options.training) make_slots(lasting);
}

void Parameters::make_slots(bool lasting) {
  for (size_t i = 0; i < buckets_.size(); ++i)
    for (Parameter& p : parameters_) {
      if (size_t(p.bucket) != i || p.frozen) continue;
      if (lasting) {
        p.value.set_grad_slot(view_of(buckets_[i].gradients, p));
        continue;
      }
      const bool next = !pieces_.empty() && pieces_.back()->bucket == i && pieces_.back()->end == p.offset &&
                        part_of_model(pieces_.back()->members.front()->name) == part_of_model(p.name);
      if (!next) pieces_.emplace_back(new detail::GradientPiece(p.value.device(), gradient_dtype(), p));
      pieces_.back()->add(p);
      p.value.set_grad_slot(Ref<SlotSource>(pieces_.back()));
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
  const double std = std_of(p);
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
