#include "reckon/engine/autocast.h"

#include <algorithm>
#include <map>

#include "reckon/engine/node.h"
#include "reckon/tensor/dtype_info.h"

namespace reckon {
struct detail::AutocastCache : RefCounted {
  struct Entry {
    Tensor source;  // held: a new tensor could come to lie where it was
    Tensor cast;
    uint64_t version;  // of the source when it was cast
  };
  std::vector<Entry> entries;  // in the order of their calls, in which they end
  std::map<std::pair<const TensorState*, DType>, size_t> places;
  Tensors results;

  bool keeps(const Tensor& x) const {
    const auto is_x = [&](const Tensor& t) { return t.ref() == x.ref(); };
    return x.is_leaf() && x.requires_grad() && x.state().output_index != kMarked && std::none_of(results.begin(), results.end(), is_x);
  }
};

namespace {
using detail::AutocastCache;

DType checked(DType low, bool on) {
  if (!on) return DType::f32;
  if (low != DType::bf16 && low != DType::f16)
    fail_as(Failure::usage, "autocast: products run in bf16 or f16, not in {}; Autocast() without a type turns it off", low);
  return low;
}
Ref<RefCounted> new_cache(bool wanted) { return Ref<RefCounted>(wanted ? new AutocastCache : nullptr); }
AutocastCache* cache_of(const Ref<RefCounted>& made) { return static_cast<AutocastCache*>(made.get()); }

// What was cast while nothing was recorded carries no gradient; what backward went through carries none any more.
bool is_current(const AutocastCache::Entry& e) {
  if (!e.cast.defined() || e.version != e.source.version()) return false;
  const Context& c = context();
  if (!c.grad_enabled) return !c.marking || e.cast.requires_grad();
  const Node* node = node_of(e.cast);
  return node && !node->is_released();
}

Tensor cast_to(Tensor x, DType to) { return call(op::cast, tensors(std::move(x)), CastParams{to})[0]; }

Tensor cast_once(Tensor x, DType to) {
  AutocastCache* cache = context().casts;
  if (!cache || !cache->keeps(x)) return cast_to(std::move(x), to);
  const std::pair<const TensorState*, DType> key(x.ref().get(), to);
  const auto known = cache->places.find(key);
  if (known == cache->places.end()) {
    Tensor y = cast_to(x, to);
    cache->places.emplace(key, cache->entries.size());
    cache->entries.push_back({x, y, x.version()});
    return y;
  }
  AutocastCache::Entry& e = cache->entries[known->second];
  if (is_current(e)) return e.cast;
  e.cast = Tensor();  // its memory goes before there is a new one
  e.version = x.version();
  return e.cast = cast_to(std::move(x), to);
}

void apply(AutocastPolicy policy, Tensors& in) {
  bool is_none = true;
  DType to = DType::boolean;  // gives way to any float
  for (const Tensor& t : in) {
    if (!is_float(t.dtype())) continue;
    to = promote(to, t.dtype());
    is_none = false;
  }
  if (is_none) return;
  if (policy != AutocastPolicy::widest) {
    if (to == DType::f64) return;  // that is never cast down, so the others stay as well
    to = policy == AutocastPolicy::low ? context().autocast : DType::f32;
  }
  for (Tensor& t : in)
    if (is_float(t.dtype()) && t.dtype() != to) t = cast_once(std::move(t), to);
}
}  // namespace

Autocast::Autocast(DType low, bool on)
    : made_(new_cache(on && !context().casts)),
      low_(context().autocast, checked(low, on)),
      casts_(context().casts, made_ ? cache_of(made_) : context().casts) {}

detail::OwnCasts::OwnCasts(Tensors results) : made_(new_cache(is_autocast_enabled())), casts_(context().casts, cache_of(made_)) {
  if (made_) cache_of(made_)->results = std::move(results);
}

Tensor autocast_input(AutocastPolicy policy, const Tensor& x) {
  if (!is_autocast_enabled() || policy == AutocastPolicy::none || !x.defined()) return x;
  Tensors one = tensors(x);
  apply(policy, one);
  return std::move(one[0]);
}

void detail::autocast_inputs(const OpDef& op, Tensors& in) {
  if (op.traits.autocast != AutocastPolicy::none && !op.traits.mutates) apply(op.traits.autocast, in);
}
}  // namespace reckon
