#include "reckon/engine/node.h"

#include <atomic>

#include "reckon/engine/anomaly.h"
#include "reckon/engine/autocast.h"
#include "reckon/engine/context.h"
#include "reckon/engine/node_extras.h"

namespace reckon {
namespace {
std::atomic<uint64_t> next_sequence{0};
}  // namespace

Edge gradient_edge(const Tensor& tensor) {
  Edge edge;
  if (!tensor.requires_grad()) return edge;
  if (Node* node = node_of(tensor)) {
    edge.node = Ref<Node>(node);
    edge.output = tensor.state().output_index;
  } else {
    edge.leaf = tensor;
  }
  return edge;
}

Node* node_of(const Tensor& tensor) { return static_cast<Node*>(tensor.grad_fn().get()); }

bool is_remade(const Tensor& tensor) {
  const Node* maker = node_of(tensor);
  // What was written since it was made is not what its maker would give.
  return maker && maker->remade_ && maker->made_version_[size_t(tensor.state().output_index)] == tensor.version();
}

Node::Node(const OpDef& op, const Params& params, const Tensors& in, const Tensors& out, Ref<NodePayload> payload, bool remade,
           const Keep& keeps, uint32_t detached_outputs)
    : op_(&op),
      params_(params),
      sequence_(next_sequence++),
      module_(context().module),
      detached_outputs_(detached_outputs),
      remade_(remade),
      payload_(std::move(payload)) {
  device_ = Ref<Device>(&(in.empty() ? out : in)[0].device());
  in_.resize(in.size());
  out_.resize(out.size());
  for (size_t i = 0; i < in.size(); ++i) {
    in_specs_.push_back(in[i].spec());
    edges_.push_back(gradient_edge(in[i]));
    if (remade || (keeps.in >> i & 1u)) in_[i] = keep(in[i]);
  }
  if (remade) waiting_.resize(out.size());
  for (size_t i = 0; i < out.size(); ++i) {
    out_specs_.push_back(out[i].spec());
    if (remade) made_version_.push_back(out[i].version());
    if (!(keeps.out >> i & 1u)) continue;
    // Statistics are small, and kept in any case.
    if (remade && !(detached_outputs >> i & 1u)) {
      out_[i].remade = int(i);
      ++waiting_[i];
    } else {
      out_[i] = packed_or_plain(out[i].detached());  // detached: an output that held its own node would be a cycle
    }
  }
  if (context().anomaly) extras().frames = detail::stack_frames();
}

Node::Kept Node::keep(const Tensor& tensor) {
  if (!is_remade(tensor)) return packed_or_plain(tensor);
  Kept k;
  k.maker = Ref<Node>(node_of(tensor));
  k.remade = tensor.state().output_index;
  ++k.maker->waiting_[size_t(k.remade)];
  return k;
}

Node::Kept Node::packed_or_plain(Tensor tensor) {
  detail::SavedTensorPacker* packer = context().packer;
  if (!packer || (tensor.is_leaf() && tensor.requires_grad())) {
    const uint64_t version = tensor.version();
    return {std::move(tensor), version};
  }
  const NoGrad no_grad;
  const detail::UncachedAutocast plain_types;
  const detail::Restore<detail::SavedTensorPacker*> unpacked(context().packer, nullptr);
  const CategoryScope category(context().has_category ? context().category : Category::activation);
  Kept k;
  k.packed = packer->pack(tensor.detached());
  k.packed->spec = tensor.spec();
  return k;
}

Node::Extras& Node::extras() {
  if (!extras_) extras_ = Ref<RefCounted>(new Extras);
  return static_cast<Extras&>(*extras_);
}
const Node::Extras* Node::extras_if_any() const { return static_cast<const Extras*>(extras_.get()); }

void Node::add_hook(Hook hook, void* user) { extras().plain_hooks.push_back({hook, user}); }

size_t Node::keep_other(const Tensor& tensor) {
  extras().others.push_back(packed_or_plain(tensor));
  return extras().others.size() - 1;
}

std::vector<Node::KeptTensor> Node::kept_tensors() const {
  std::vector<KeptTensor> all;
  const auto append = [&](const std::vector<Kept>& list, bool is_output, bool is_other) {
    for (size_t i = 0; i < list.size(); ++i) {
      const Kept& k = list[i];
      if (!k.tensor.defined() && k.remade < 0 && !k.packed) continue;
      all.push_back({is_output, is_other, i, k.tensor, k.remade >= 0, bool(k.packed), k.packed ? k.packed->bytes() : 0});
    }
  };
  append(in_, false, false);
  append(out_, true, false);
  if (const Extras* e = extras_if_any()) append(e->others, false, true);
  return all;
}

// Long chains of nodes are unlinked one by one: the default would recurse once a node, through edges and through kept results alike.
Node::~Node() {
  std::vector<Ref<Node>> pending;
  const auto unlink = [&](Node& node) {
    for (Edge& edge : node.edges_)
      if (edge.node) pending.push_back(std::move(edge.node));
    node.release_kept();  // a kept result holds the node that made it; that one is pending, so nothing recurses here
  };
  unlink(*this);
  while (!pending.empty()) {
    const Ref<Node> node = std::move(pending.back());
    pending.pop_back();
    if (node->use_count() == 1) unlink(*node);
  }
}

void Node::check_usable() const { check(!released_, "{}: backward ran a second time through a released graph; pass retain_graph", name()); }

Tensor Node::kept(Kept& k, size_t i, const char* what, Use use) {
  check_usable();
  if (k.remade >= 0) {
    Node& maker = k.maker ? *k.maker : *this;
    Tensor tensor = maker.remake(size_t(k.remade), use);
    if (context().grad_enabled && k.maker) tensor = maker.attached(tensor, k.remade);
    if (use == Use::last) k = {};
    return tensor;
  }
  if (k.packed) return unpacked(k, i, what, use);
  RECKON_ASSERT(k.tensor.defined());
  check(k.tensor.version() == k.version, "{}: {} {} was changed in place after it was kept for backward (version {}, now {})", name(), what,
        i, k.version, k.tensor.version());
  return use == Use::last ? std::move(k.tensor) : k.tensor;
}

// A kept input joins the graph that it came from: what a recorded rule makes of it is differentiated through it.
Tensor Node::unpacked(Kept& k, size_t i, const char* what, Use use) {
  const bool recorded = context().grad_enabled;
  Tensor tensor;
  {
    const NoGrad no_grad;
    const detail::UncachedAutocast plain_types;
    const detail::Restore<detail::SavedTensorPacker*> plain(context().packer, nullptr);
    tensor = k.packed->unpack();
  }
  check(tensor.defined() && tensor.spec() == k.packed->spec && &tensor.device() == device_.get(),
        "{}: unpack gave {} for {} {} that was kept for backward, {}", name(), tensor, what, i, k.packed->spec);
  if (use == Use::last) k = {};
  const bool is_input = i < in_.size() && &k == &in_[i];
  if (!recorded || !is_input || !edges_[i].node) return tensor;
  return edges_[i].node->attached(tensor, edges_[i].output);
}

// The first who asks has it computed; it stays for those who will ask after. While the graph stays nothing is held between two uses.
Tensor Node::remake(size_t output, Use use) {
  check_usable();
  if (use == Use::open) return run_again(use)[output];
  if (again_.empty()) {
    again_ = run_again(use);
    for (size_t i = 0; i < again_.size(); ++i)
      if (waiting_[i] == 0) again_[i] = Tensor();
  }
  Tensor tensor = again_[output];
  if (use == Use::last) leave(output);
  return tensor;
}

Tensors Node::run_again(Use use) {
  const NoGrad no_grad;
  const detail::UncachedAutocast as_it_was;  // its inputs were cast before they were kept
  const ModuleScope module(module_);
  const CategoryScope category(Category::activation);
  const detail::Restore<bool> recomputing(context().recomputing, true);
  Tensors in;
  in.reserve(in_.size());
  for (size_t i = 0; i < in_.size(); ++i) {
    const bool rule_asks = op_->keep.in >> i & 1u;
    in.push_back(kept(in_[i], i, "input", use == Use::open ? use : rule_asks ? Use::again : Use::last));
  }
  return call(*op_, std::move(in), params_);
}

// One less will ask for this output.
void Node::leave(size_t output) {
  if (--waiting_[output] == 0 && !again_.empty()) again_[output] = Tensor();
}

void Node::release_kept() {
  for (Kept& k : in_)
    if (k.maker) k.maker->leave(size_t(k.remade));
  in_.clear();
  out_.clear();
  again_.clear();
  if (extras_) extras().others.clear();
}

Tensor Node::attached(const Tensor& tensor, int output) {
  Tensor result = tensor.detached();
  TensorState& state = result.state();
  state.requires_grad = true;
  state.grad_fn = Ref<RefCounted>(this);
  state.output_index = output;
  return result;
}

void Node::forget() {
  released_ = true;
  release_kept();
  payload_ = {};
  std::vector<Edge> edges = std::move(edges_);
  edges_.clear();
}

Tensor Vjp::in(size_t i) {
  // A rule that may yet ask for an output of its own has it made from the inputs.
  const bool own_output = node.remade_ && (node.op().keep.out & ~node.detached_outputs());
  return node.kept(node.in_.at(i), i, "input", !last_use ? Node::Use::open : own_output ? Node::Use::again : Node::Use::last);
}

Tensor Vjp::out(size_t i) {
  Tensor tensor = node.kept(node.out_.at(i), i, "output", last_use ? Node::Use::last : Node::Use::open);
  if (!context().grad_enabled || (node.detached_outputs() >> i & 1u)) return tensor;
  // A handle of its own: the node holds only the detached one, so this makes no cycle.
  return node.attached(tensor, int(i));
}

Tensor Vjp::other(size_t i) {
  return node.kept(node.extras().others.at(i), i, "saved tensor", last_use ? Node::Use::last : Node::Use::open);
}

Tensor Vjp::slot(int i) const {
  const Tensor& leaf = node.edges_[size_t(i)].leaf;
  // A hook is given the leaf's gradient before it is accumulated.
  if (!use_slots || !needs_in(i) || !leaf.defined() || !leaf.state().grad_is_slot || leaf.state().hooks) return {};
  return leaf.grad_slot();
}
bool Vjp::slot_filled(int i) const { return node.edges_[size_t(i)].leaf.state().grad_filled; }
void Vjp::filled(int i) const {
  TensorState& leaf = node.edges_[size_t(i)].leaf.state();
  leaf.note_gradient();
  leaf.grad_filled = true;
}
}  // namespace reckon
