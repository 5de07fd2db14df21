#include "reckon/nn/module.h"

#include <algorithm>

#include "reckon/base/text.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/hooks.h"
#include "reckon/ops/dropout.h"
#include "reckon/ops/training.h"

namespace reckon::nn {
namespace {
std::string joined(std::string_view a, std::string_view b) {
  if (a.empty() || b.empty()) return std::string(a) + std::string(b);
  return text("{}.{}", a, b);
}
std::string listed(const std::vector<std::string>& names) {
  constexpr size_t kShown = 8;
  std::string line;
  for (size_t i = 0; i < std::min(names.size(), kShown); ++i) line += (line.empty() ? "" : ", ") + names[i];
  return names.size() > kShown ? text("{} and {} more", line, names.size() - kShown) : line;
}
// '*' stands for any run of characters.
bool matches(std::string_view pattern, std::string_view name) {
  if (pattern.empty()) return name.empty();
  if (pattern[0] != '*') return !name.empty() && pattern[0] == name[0] && matches(pattern.substr(1), name.substr(1));
  for (size_t i = 0; i <= name.size(); ++i)
    if (matches(pattern.substr(1), name.substr(i))) return true;
  return false;
}

// Any float values into a parameter, and exactly into what it has beneath.
void assign(Parameters& registry, Parameter& p, const Tensor& from) {
  const Bucket& bucket = registry.buckets()[size_t(p.bucket)];
  const auto copy = [&](const Tensor& to) { call(op::accumulate, tensors(to, from), AccumulateParams{false}); };
  if (bucket.residual.defined()) {
    split_master_(contiguous(cast(from, DType::f32)), p.value, Parameters::view_of(bucket.residual, p));
    return;
  }
  if (bucket.master.defined()) copy(Parameters::view_of(bucket.master, p));
  copy(p.value);
}
}  // namespace

Module::Module(Parameters& registry) : registry_(&registry), root_(this) {}

Module::Module(Module& parent, std::string_view name)
    : registry_(parent.registry_),
      parent_(&parent),
      root_(parent.root_),
      name_(name),
      path_(joined(parent.path_, name)),
      training_(parent.training_) {
  check(!name.empty() && name.find('.') == name.npos, "a part of '{}' is called '{}': a name has at least one letter and no dot",
        parent.path_, name);
  for (const Module* other : parent.children_) check(other->name_ != name, "'{}' has two parts called '{}'", parent.path_, name);
  parent.children_.push_back(this);
}

Module::~Module() {
  if (parent_) std::erase(parent_->children_, this);
  for (Module* child : children_) child->parent_ = nullptr;
  for (const Ref<Hook>& hook : hooks_) hook->forward = nullptr, hook->gradient = nullptr;
}

std::string Module::whole(std::string_view name) const {
  check(!name.empty() && name.find('.') == name.npos, "'{}' has something called '{}': a name has at least one letter and no dot", path_,
        name);
  return joined(path_, name);
}

Parameter& Module::parameter(std::string_view name, const Shape& shape, const Init& init, bool decay) {
  Parameter& p = registry_->declare(whole(name), shape, init, decay);
  own_.push_back(&p);
  return p;
}
Parameter& Module::share(Parameter& other) {
  own_.push_back(&other);
  return other;
}
Buffer& Module::buffer(std::string_view name, const TensorSpec& spec, double fill, bool saved) {
  const std::string all = whole(name);
  check(is_float(spec.dtype), "buffer {} must be of a floating-point type, not {}", all, spec.dtype);
  for (const Buffer& other : buffers_) check(other.name != all, "buffer {} is declared twice", all);
  return buffers_.emplace_back(Buffer{all, spec, fill, saved, {}});
}

void Module::materialize(Device& device, const StorageOptions& options, uint64_t seed) {
  check(!parent_, "'{}' is a part: materialize() is for the whole model", path_);
  check(registry_->buckets().empty(), "the model was materialized before");
  const NoGrad guard;
  registry_->materialize(device, options, seed);
  for (const auto& [name, buffer] : named_buffers()) {
    const CategoryScope category(Category::parameter);
    const ModuleScope module(module_id(path_));
    buffer->value = full(device, buffer->spec, buffer->fill);
  }
  if (draws_wanted_) draws_ = make_dropout_draws(device);
}

void Module::begin_micro_batch(uint64_t seed, int64_t step, int64_t first_sample) {
  if (!root_->draws_.defined()) return;
  write_dropout_draws(root_->draws_, seed, step, first_sample);
  root_->draws_written_ = true;
}
const Tensor& Module::draws() const {
  check(root_->draws_.defined() && root_->draws_written_,
        "'{}' drops in training and was not told what to draw by: call begin_micro_batch(seed, step, first_sample) before each "
        "micro-batch, or "
        "eval()",
        path_);
  return root_->draws_;
}

// ---- lists
namespace {
// The part of a whole name behind a module's path.
std::string_view behind(std::string_view name, std::string_view path) { return path.empty() ? name : name.substr(path.size() + 1); }
bool is_within(std::string_view name, std::string_view path) {
  return path.empty() || (name.size() > path.size() && name.starts_with(path) && name[path.size()] == '.');
}
}  // namespace

void Module::list(std::string_view prefix, std::vector<NamedParameter>& into) const {
  for (Parameter* p : own_) {
    const bool known = std::any_of(into.begin(), into.end(), [&](const NamedParameter& other) { return other.parameter == p; });
    // A shared parameter has one name, that of its declaration; from a part that does not hold it, the whole one.
    if (!known) into.push_back({std::string(is_within(p->name, prefix) ? behind(p->name, prefix) : p->name), p});
  }
  for (const Module* child : children_) child->list(prefix, into);
}
void Module::list(std::string_view prefix, std::vector<NamedModule>& into) {
  into.push_back({path_.size() == prefix.size() ? "" : std::string(behind(path_, prefix)), this});
  for (Module* child : children_) child->list(prefix, into);
}
void Module::list(std::string_view prefix, std::vector<std::pair<std::string, Buffer*>>& into) const {
  for (const Buffer& b : buffers_) into.emplace_back(behind(b.name, prefix), const_cast<Buffer*>(&b));
  for (const Module* child : children_) child->list(prefix, into);
}
std::vector<Module::NamedParameter> Module::named_parameters() const {
  std::vector<NamedParameter> all;
  list(path_, all);
  return all;
}
std::vector<Module::NamedModule> Module::named_modules() {
  std::vector<NamedModule> all;
  list(path_, all);
  return all;
}
std::vector<std::pair<std::string, Buffer*>> Module::named_buffers() const {
  std::vector<std::pair<std::string, Buffer*>> all;
  list(path_, all);
  return all;
}
int64_t Module::parameter_count() const {
  int64_t count = 0;
  for (const NamedParameter& p : named_parameters()) count += p.parameter->shape.numel();
  return count;
}

// ---- state
const Tensor& StateDict::at(std::string_view name) const {
  for (const NamedTensor& t : *this)
    if (t.name == name) return t.tensor;
  std::vector<std::string> names;
  for (const NamedTensor& t : *this) names.push_back(t.name);
  const std::string hint = did_you_mean(name, names);
  fail("the state has no '{}'{}", printable_line(name),
       !hint.empty()   ? hint
       : names.empty() ? ": it is empty"
                       : ": it has " + listed(names));
}

StateDict Module::state_dict() const {
  StateDict state;
  for (const NamedParameter& p : named_parameters()) {
    check(p.parameter->value.defined(), "{} has no value yet: call materialize()", p.name);
    state.push_back({p.name, p.parameter->value.detached()});
  }
  for (const auto& [name, buffer] : named_buffers())
    if (buffer->saved) state.push_back({name, buffer->value.detached()});
  return state;
}

Module::LoadReport Module::load_state_dict(const StateDict& state, bool strict) {
  struct Place {
    std::string name;
    Parameter* parameter;
    Tensor value;
    const Tensor* from;
  };
  std::vector<Place> places;
  for (const NamedParameter& p : named_parameters()) places.push_back({p.name, p.parameter, p.parameter->value, nullptr});
  for (const auto& [name, buffer] : named_buffers())
    if (buffer->saved) places.push_back({name, nullptr, buffer->value, nullptr});
  LoadReport report;
  std::vector<std::string> wrong;
  for (const NamedTensor& t : state) {
    const auto place = std::find_if(places.begin(), places.end(), [&](const Place& p) { return p.name == t.name; });
    if (place == places.end()) {
      report.unexpected.push_back(t.name);
      continue;
    }
    check(place->value.defined(), "{} has no place yet: call materialize()", place->name);
    check(!place->from, "the state holds {} twice", t.name);
    place->from = &t.tensor;
    const bool fits = t.tensor.shape() == place->value.shape() && is_float(t.tensor.dtype()) == is_float(place->value.dtype());
    if (!fits) wrong.push_back(text("{} is {}, the state has {}", t.name, place->value, t.tensor));
  }
  for (const Place& p : places)
    if (!p.from) report.missing.push_back(p.name);
  std::string mistakes;
  const auto mention = [&](const char* what, const std::vector<std::string>& names) {
    if (!names.empty()) mistakes += text("{}{}: {}", mistakes.empty() ? "" : "; ", what, listed(names));
  };
  if (strict) mention("missing", report.missing), mention("unexpected", report.unexpected);
  mention("wrong shape", wrong);
  check(mistakes.empty(), "the state does not fit {}: {}", path_.empty() ? "the model" : "'" + path_ + "'", mistakes);
  const NoGrad guard;
  for (const Place& p : places) {
    if (!p.from) continue;
    const ModuleScope module(module_id(path_));
    if (p.parameter) {
      assign(*registry_, *p.parameter, *p.from);
    } else {
      call(op::accumulate, tensors(p.value, *p.from), AccumulateParams{false});
    }
  }
  return report;
}

// ---- modes
void Module::train(bool on) {
  training_ = on;
  for (Module* child : children_) child->train(on);
}

int64_t Module::requires_grad_(bool on, std::string_view pattern) {
  std::vector<Parameter*> matching;
  for (const NamedParameter& p : named_parameters())
    if (matches(pattern, p.name)) matching.push_back(p.parameter);
  check(!matching.empty(), "no parameter of '{}' matches '{}'", path_, pattern);
  for (const Parameter* p : matching)
    check(!on || !p->frozen || !p->value.defined(),
          "{} was frozen when memory was laid out and has no place for a gradient: thaw it before materialize()", p->name);
  for (Parameter* p : matching) {
    if (!p->value.defined()) {
      p->frozen = !on;
      continue;
    }
    p->value.set_requires_grad(on);
    if (!on) p->value.zero_grad();
  }
  return int64_t(matching.size());
}

// ---- hooks
int Module::add_hook(bool before, ForwardHook forward, GradientHook gradient, void* user) {
  Ref<Hook> hook(new Hook);
  hook->number = next_hook_;
  hook->before = before;
  hook->forward = forward, hook->gradient = gradient;
  hook->user = user;
  hook->module = this;
  hooks_.push_back(std::move(hook));
  return next_hook_++;
}
void Module::remove_hook(int number) {
  const auto at =
      std::find_if(hooks_.begin(), hooks_.end(), [&](const Ref<Hook>& h) { return h->number == number && (h->forward || h->gradient); });
  check(at != hooks_.end(), "'{}' has no hook {}", path_, number);
  (*at)->forward = nullptr, (*at)->gradient = nullptr;  // its place stays: the list may be running
}

Tensor Module::run_forward_hooks(Tensor x, bool before) const {
  for (size_t i = 0; i < hooks_.size(); ++i) {
    const Ref<Hook> h = hooks_[i];
    if (!h->forward || h->before != before) continue;
    if (Tensor other = h->forward(*this, x, h->user); other.defined()) x = std::move(other);
  }
  return x;
}

bool Module::watches_gradient() const {
  return is_grad_enabled() && std::any_of(hooks_.begin(), hooks_.end(), [](const Ref<Hook>& h) { return h->gradient != nullptr; });
}

// What others use too has a gradient from them too: a layer that gives its input, as dropout in evaluation, sees only its own.
Tensor Module::watch_gradient(Tensor y, const Edge& before) const {
  const Edge now = gradient_edge(y);
  if (!now.wanted()) return y;
  if (now.leaf.defined() || (now.node == before.node && now.output == before.output)) y = detail::joined_alias(y);
  for (const Ref<Hook>& hook : hooks_)
    if (hook->gradient)
      register_hook(y, [hook](const Tensor& dy) { return hook->gradient ? hook->gradient(*hook->module, dy, hook->user) : Tensor(); });
  return y;
}

ModuleScope Module::scope() const { return ModuleScope(module_id(path_)); }

Tensor Layer::operator()(Tensor x) const {
  const ModuleScope module = scope();
  x = run_forward_hooks(std::move(x), true);
  if (!watches_gradient()) return run_forward_hooks(forward(std::move(x)), false);
  Edge before = gradient_edge(x);
  before.leaf = {};  // or it would hold x
  return watch_gradient(run_forward_hooks(forward(std::move(x)), false), before);
}

Tensor Sequential::forward(Tensor x) const {
  for (const Step& step : steps_) x = step.layer ? (*step.layer)(std::move(x)) : step.function(x);
  return x;
}
}  // namespace reckon::nn
