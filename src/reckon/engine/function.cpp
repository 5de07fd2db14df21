#include "reckon/engine/function.h"

#include <algorithm>
#include <optional>

#include "reckon/engine/autocast.h"

namespace reckon {
namespace {
constexpr size_t kMostTensors = 32;  // bits of a mask

using Kind = detail::FunctionBody::Kind;

int place_of(const Tensor& tensor, const Tensors& list) {
  const auto at = std::find_if(list.begin(), list.end(), [&](const Tensor& t) { return t.ref() == tensor.ref(); });
  return at == list.end() ? -1 : int(at - list.begin());
}

void check_results(const char* name, const Tensors& in, const Tensors& out) {
  check(!out.empty() && out.size() <= kMostTensors, "{}: forward gave {} tensors; it may give 1 to {}", name, out.size(), kMostTensors);
  for (size_t i = 0; i < out.size(); ++i) {
    check(out[i].defined(), "{}: output {} of forward is undefined", name, i);
    check(&out[i].device() == &in[0].device(), "{}: output {} of forward, {}, is on another device than its inputs", name, i, out[i]);
  }
}

// A handle of its own, that nobody else has marked: forward may give what it was given.
Tensor result_of(const Tensor& out, const Ref<Node>& node, size_t index, bool has_gradient) {
  Tensor result = out.detached();
  if (!has_gradient) return result;
  TensorState& state = result.state();
  state.requires_grad = true;
  state.grad_fn = Ref<RefCounted>(node);
  state.output_index = node ? int(index) : kMarked;
  return result;
}

// ---- once differentiable: a node whose rule refuses
struct Refusal : NodePayload {
  const char* name = "";
};
void plan_nothing(Plan&) {}  // never called: a function's own operations are planned
Tensors vjp_refusal(Vjp& v) {
  fail(
      "{}: its backward is once differentiable, so there is no gradient of its gradient: write backward with operations that have one, and "
      "take "
      "once_differentiable away",
      static_cast<const Refusal*>(v.node.payload())->name);
}
const OpDef refusal_row{-1, "once_differentiable", plan_nothing, vjp_refusal};

// Whoever differentiates these gradients again, in dy or in an input, meets the refusal.
void refuse_second_order(const Node& node, const Tensors& dy, Tensors& dx) {
  Tensors sources, results;
  for (const Tensor& t : dy)
    if (t.defined()) sources.push_back(t);
  for (const Edge& edge : node.next_functions()) {
    if (edge.leaf.defined()) sources.push_back(edge.leaf);
    if (!edge.node) continue;
    Tensor stand_in = dy[0].defined() ? dy[0].detached() : sources[0].detached();
    stand_in.state().requires_grad = true;
    stand_in.state().grad_fn = Ref<RefCounted>(edge.node);
    stand_in.state().output_index = edge.output;
    sources.push_back(std::move(stand_in));
  }
  for (const Tensor& t : dx)
    if (t.defined()) results.push_back(t);
  if (results.empty()) return;
  Ref<Refusal> refusal(new Refusal);
  refusal->name = node.name();
  const Ref<Node> refuses(new Node(refusal_row, {}, sources, results, Ref<NodePayload>(refusal)));
  size_t index = 0;
  for (Tensor& t : dx)
    if (t.defined()) t = result_of(t, refuses, index++, true);
}

// Inside Autocast a gradient comes in the type that backward's operations gave it.
void cast_gradients(const Vjp& v, Tensors& dx) {
  const std::vector<TensorSpec>& in = v.node.in_specs();
  for (size_t i = 0; i < std::min(dx.size(), in.size()); ++i)
    if (dx[i].defined() && is_float(dx[i].dtype()) && is_float(in[i].dtype) && dx[i].dtype() != in[i].dtype)
      dx[i] = call(op::cast, tensors(std::move(dx[i])), CastParams{in[i].dtype})[0];
}
}  // namespace

void detail::plan_function(Plan&) {}  // never called

void detail::check_arity(const char* name, size_t given, size_t wanted) {
  check(given == wanted, "{}: forward gave {} tensors, but backward takes {} gradients", name, given, wanted);
}

Tensors detail::apply_function(const OpDef& row, Ref<FunctionBody> body, const Tensors& in) {
  const char* name = row.name;
  check(!in.empty() && in.size() <= kMostTensors, "{}: {} inputs; a function takes 1 to {}", name, in.size(), kMostTensors);
  FunctionContext c;
  bool wanted = false;
  for (size_t i = 0; i < in.size(); ++i) {
    check(in[i].defined() && &in[i].device() == &in[0].device(), "{}: input {}, {}, is undefined or lives on another device than input 0",
          name, i, in[i]);
    wanted |= in[i].requires_grad();
    if (in[i].requires_grad() && (context().grad_enabled || context().marking)) c.needs_ |= 1u << i;
  }
  const bool is_tracked = wanted && context().grad_enabled, is_marked = wanted && context().marking;
  body->autocast = context().autocast;
  Tensors out;
  {
    const NoGrad guard;
    std::optional<CategoryScope> category;  // as what recorded calls make
    if (is_tracked && !context().has_category) category.emplace(Category::activation);
    out = body->forward(c, in);
  }
  check_results(name, in, out);
  uint32_t detached = 0;
  for (size_t i = 0; i < out.size(); ++i)
    if (!is_float(out[i].dtype()) || place_of(out[i], c.detached_) >= 0) detached |= 1u << i;
  for (const Tensor& t : c.detached_) check(place_of(t, out) >= 0, "{}: mark_non_differentiable was given {}, which is no output", name, t);

  Ref<Node> node;
  if (is_tracked) {
    Keep keep;
    Tensors others;
    for (const Tensor& t : c.to_save_) {
      check(t.defined(), "{}: save_for_backward was given an undefined tensor", name);
      if (const int i = place_of(t, in); i >= 0) {
        keep.in |= 1u << i;
        body->saved.push_back({Kind::input, size_t(i)});
      } else if (const int o = place_of(t, out); o >= 0) {
        keep.out |= 1u << o;
        body->saved.push_back({Kind::output, size_t(o)});
      } else {
        check(!t.requires_grad(), "{}: save_for_backward was given {}, which requires a gradient but is no input: pass it to the function",
              name, t);
        body->saved.push_back({Kind::other, others.size()});
        others.push_back(t.detached());
      }
    }
    node = Ref<Node>(new Node(row, {}, in, out, Ref<NodePayload>(body), false, keep, detached));
    for (const Tensor& t : others) node->keep_other(t);
  }
  for (size_t i = 0; i < out.size(); ++i) out[i] = result_of(out[i], node, i, (is_tracked || is_marked) && !(detached >> i & 1u));
  return out;
}

const Tensors& FunctionContext::saved() {
  check(vjp_, "saved() is for backward; forward has the tensors");
  if (is_loaded_) return saved_;
  is_loaded_ = true;
  const auto& body = static_cast<const detail::FunctionBody&>(*vjp_->node.payload());
  for (size_t k = 0; k < body.saved.size(); ++k) {
    const auto [kind, index] = body.saved[k];
    // A second handle of what was saved twice: the first may have taken it from the node.
    const auto same = std::find_if(body.saved.begin(), body.saved.begin() + std::ptrdiff_t(k),
                                   [&](const auto& s) { return s.kind == kind && s.index == index; });
    if (same != body.saved.begin() + std::ptrdiff_t(k)) {
      saved_.push_back(saved_[size_t(same - body.saved.begin())]);
      continue;
    }
    saved_.push_back(kind == Kind::input ? vjp_->in(index) : kind == Kind::output ? vjp_->out(index) : vjp_->other(index));
    const bool is_cut = kind == Kind::other || (kind == Kind::output && (vjp_->node.detached_outputs() >> index & 1u));
    check(!is_cut || !context().grad_enabled || !is_float(saved_.back().dtype()),
          "saved tensor {}, {}, is {}, so a gradient of the gradient would miss what it depends on: {}, compute it in backward, or declare "
          "the function once_differentiable",
          k, saved_.back(), kind == Kind::other ? "neither input nor output" : "an output marked as not differentiable",
          kind == Kind::other ? "give it as an output and save that" : "do not mark it");
  }
  return saved_;
}

Tensors detail::vjp_function(Vjp& v) {
  const char* name = v.node.name();
  auto& body = static_cast<FunctionBody&>(*v.node.payload());
  const bool refuses = context().grad_enabled && body.once_differentiable;
  FunctionContext c;
  c.needs_ = v.needs;
  c.vjp_ = &v;
  Tensors dx;
  try {
    const Restore<bool> recorded(context().grad_enabled, context().grad_enabled && !refuses);
    {
      const UncachedAutocast as_in_forward(body.autocast);
      dx = body.backward(c, v.dy);
    }
    if (body.autocast != DType::f32) cast_gradients(v, dx);
  } catch (const Error& error) {
    throw Error(text("{}: in its backward: {}", name, error.what()), error.kind(), error.details());
  }
  const std::vector<TensorSpec>& in = v.node.in_specs();
  check(dx.size() == in.size(), "{}: backward gave {} gradients for {} inputs; an undefined one stands for none", name, dx.size(),
        in.size());
  for (size_t i = 0; i < dx.size(); ++i)
    check(!dx[i].defined() || !v.needs_in(int(i)) || dx[i].spec() == in[i], "{}: backward gave {} as the gradient of input {}, {}", name,
          dx[i], i, in[i]);
  if (refuses) refuse_second_order(v.node, v.dy, dx);
  return dx;
}
}  // namespace reckon
