#include "reckon/engine/node.h"

#include <atomic>

#include "reckon/engine/context.h"

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

Node::Node(const OpDef& op, const Params& params, const Tensors& in, const Tensors& out, Ref<NodePayload> payload)
    : op_(&op), params_(params), sequence_(next_sequence++), module_(context().module), payload_(std::move(payload)) {
  device_ = Ref<Device>(&(in.empty() ? out : in)[0].device());
  in_.resize(in.size());
  out_.resize(out.size());
  for (size_t i = 0; i < in.size(); ++i) {
    in_specs_.push_back(in[i].spec());
    edges_.push_back(gradient_edge(in[i]));
    if (op.keep.in >> i & 1u) in_[i] = {in[i], in[i].version()};
  }
  for (size_t i = 0; i < out.size(); ++i) {
    out_specs_.push_back(out[i].spec());
    // Detached: an output that held its own node would be a cycle.
    if (op.keep.out >> i & 1u) out_[i] = {out[i].detached(), out[i].version()};
  }
}

// Long chains of nodes are unlinked one by one: the default would recurse once a node, through edges and through kept results alike.
Node::~Node() {
  std::vector<Ref<Node>> pending;
  const auto unlink = [&](Node& node) {
    for (Edge& edge : node.edges_)
      if (edge.node) pending.push_back(std::move(edge.node));
    node.in_.clear();  // a kept result holds the node that made it; that one is pending, so nothing recurses here
  };
  unlink(*this);
  while (!pending.empty()) {
    const Ref<Node> node = std::move(pending.back());
    pending.pop_back();
    if (node->use_count() == 1) unlink(*node);
  }
}

void Node::check_usable() const { check(!released_, "{}: backward ran a second time through a released graph; pass retain_graph", name()); }

Tensor Node::kept(const std::vector<Kept>& list, size_t i, const char* what) const {
  check_usable();
  const Kept& k = list.at(i);
  RECKON_ASSERT(k.tensor.defined());
  check(k.tensor.version() == k.version, "{}: {} {} was changed in place after it was kept for backward (version {}, now {})", name(), what, i, k.version,
        k.tensor.version());
  return k.tensor;
}

void Node::forget() {
  released_ = true;
  in_.clear();
  out_.clear();
  payload_ = {};
  std::vector<Edge> edges = std::move(edges_);
  edges_.clear();
}

Tensor Vjp::take(std::vector<Node::Kept>& list, size_t i, const char* what) {
  Tensor tensor = node.kept(list, i, what);
  if (last_use) list[i].tensor = Tensor();
  return tensor;
}

Tensor Vjp::out(size_t i) {
  Tensor tensor = take(node.out_, i, "output");
  if (!context().grad_enabled || (node.op().traits.detached_outputs >> i & 1u)) return tensor;
  // A handle of its own: the node holds only the detached one, so this makes no cycle.
  tensor = tensor.detached();
  tensor.state().requires_grad = true;
  tensor.state().grad_fn = Ref<RefCounted>(&node);
  tensor.state().output_index = int(i);
  return tensor;
}

Tensor Vjp::slot(int i) const {
  const Tensor& leaf = node.edges_[size_t(i)].leaf;
  if (!use_slots || !needs_in(i) || !leaf.defined() || !leaf.state().grad_is_slot) return {};
  return Tensor(leaf.state().grad);
}
bool Vjp::slot_filled(int i) const { return node.edges_[size_t(i)].leaf.state().grad_filled; }
void Vjp::filled(int i) const {
  TensorState& leaf = node.edges_[size_t(i)].leaf.state();
  leaf.note_gradient();
  leaf.grad_filled = true;
}
}  // namespace reckon
