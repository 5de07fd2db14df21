#include "reckon/engine/backward.h"

#include <map>
#include <optional>

#include "reckon/base/debug.h"
#include "reckon/engine/context.h"

namespace reckon {
namespace {

Tensor filled(Device& device, const TensorSpec& spec, double value) { return call_on(device, op::fill, {}, FillParams(spec, value))[0]; }

// One pass: gradients that wait for their node, by sequence number so that the newest comes first.
class Pass {
 public:
  Pass(const BackwardOptions& options, const Tensors* wanted) : options_(options), wanted_(wanted) {
    if (wanted_) results_.resize(wanted_->size());
  }

  void start(const Tensor& root, Tensor seed) {
    check(root.requires_grad(), "backward: the tensor {} is not the result of a recorded operation on anything that requires a gradient", root);
    if (!seed.defined()) {
      check(root.numel() == 1, "backward: {} is not a scalar; give the gradient of each element as seed", root);
      seed = filled(root.device(), root.spec(), 1.0);
    }
    check(seed.spec() == root.spec(), "backward: seed {} does not match the tensor {}", seed, root);
    deliver(gradient_edge(root), std::move(seed));
  }
  void start(const Edge& from, Tensor seed) {
    check(from.wanted(), "backward: there is nothing behind this edge that requires a gradient");
    const TensorSpec spec = from.node ? from.node->out_specs()[size_t(from.output)] : from.leaf.spec();
    check(seed.defined() && seed.spec() == spec, "backward: seed {} does not match the gradient of {}", seed, spec);
    deliver(from, std::move(seed));
  }

  Tensors run() {
    while (!waiting_.empty()) {
      const auto newest = std::prev(waiting_.end());
      const Ref<Node> node = std::move(newest->second.node);
      Tensors dy = std::move(newest->second.dy);
      waiting_.erase(newest);
      visit(*node, std::move(dy));
    }
    return std::move(results_);
  }

 private:
  struct Waiting {
    Ref<Node> node;
    Tensors dy;
  };

  void visit(Node& node, Tensors dy) {
    node.check_usable();
    const ModuleScope scope(node.module());
    if (debug(Debug::grad)) debug_line(Debug::grad, text("{} #{} [{}]", node.name(), node.sequence(), module_path(node.module())));
    for (size_t i = 0; i < dy.size(); ++i)
      if (!dy[i].defined() && !(node.op().traits.detached_outputs >> i & 1u)) dy[i] = filled(node.device(), node.out_specs()[i], 0.0);
    node.run_hooks(dy);
    for (size_t i = 0; i < dy.size(); ++i)
      if (dy[i].defined())
        check(dy[i].spec() == node.out_specs()[i], "{}: a hook gave {} as the gradient of output {}, {}", node.name(), dy[i], i, node.out_specs()[i]);
    collect(node, dy);
    const std::vector<Edge> edges = node.next_functions();
    uint32_t needs = 0;
    for (size_t i = 0; i < edges.size(); ++i)
      if (edges[i].wanted() && reaches_wanted(edges[i])) needs |= 1u << i;
    const bool keep = options_.retain_graph || options_.create_graph;
    Vjp vjp{node, std::move(dy), needs, !keep, !options_.create_graph && !wanted_};
    Tensors dx = node.op().vjp(vjp);
    vjp.dy.clear();
    RECKON_ASSERT(dx.size() <= edges.size());
    if (!keep) node.forget();
    for (size_t i = 0; i < dx.size(); ++i) {
      if (!dx[i].defined() || !(needs >> i & 1u)) continue;
      RECKON_ASSERT(dx[i].shape() == node.in_specs()[i].shape);
      deliver(edges[i], std::move(dx[i]));
    }
  }

  // grad(): results of operations whose gradient was asked for.
  void collect(const Node& node, const Tensors& dy) {
    if (!wanted_) return;
    for (size_t w = 0; w < wanted_->size(); ++w) {
      const Tensor& t = (*wanted_)[w];
      if (node_of(t) == &node) results_[w] = dy[size_t(t.state().output_index)];
    }
  }
  bool reaches_wanted(const Edge& edge) const {
    if (!wanted_ || edge.node) return true;
    for (const Tensor& t : *wanted_)
      if (t.ref() == edge.leaf.ref()) return true;
    return false;
  }

  void deliver(const Edge& edge, Tensor g) {
    if (edge.leaf.defined()) return deliver_leaf(edge.leaf, std::move(g));
    Waiting& w = waiting_[edge.node->sequence()];
    if (!w.node) {
      w.node = edge.node;
      w.dy.resize(edge.node->out_specs().size());
    }
    add_to(w.dy[size_t(edge.output)], std::move(g));
  }
  static void add_to(Tensor& sum, Tensor g) { sum = sum.defined() ? call(op::add, tensors(std::move(sum), std::move(g)))[0] : std::move(g); }

  void deliver_leaf(const Tensor& leaf, Tensor g) {
    if (wanted_) {
      for (size_t w = 0; w < wanted_->size(); ++w)
        if ((*wanted_)[w].ref() == leaf.ref()) add_to(results_[w], g);
      return;
    }
    TensorState& state = leaf.state();
    state.note_gradient();
    if (state.grad_is_slot) {
      const NoGrad guard;
      call(op::accumulate, tensors(leaf.grad_slot(), std::move(g)), AccumulateParams{state.grad_filled});
    } else if (state.grad_filled) {
      state.grad = call(op::add, tensors(Tensor(std::exchange(state.grad, {})), std::move(g)))[0].ref();
    } else {
      // A gradient that someone else also holds is copied, so that a later in-place change cannot reach it.
      const bool owned = g.state().use_count() == 1 && g.storage().use_count() == 1;
      state.grad = owned || options_.create_graph ? g.ref() : call(op::contiguous, tensors(std::move(g)))[0].ref();
    }
    state.grad_filled = true;
  }

  const BackwardOptions& options_;
  const Tensors* wanted_;
  Tensors results_;
  std::map<uint64_t, Waiting> waiting_;
};

Tensors run_pass(const Tensor& root, const Tensor& seed, const BackwardOptions& options, const Tensors* wanted) {
  std::optional<NoGrad> no_grad;
  std::optional<EnableGrad> enable;
  if (options.create_graph) {
    enable.emplace();
  } else {
    no_grad.emplace();
  }
  Pass pass(options, wanted);
  pass.start(root, seed);
  return pass.run();
}
}  // namespace

void backward(const Tensor& root, const Tensor& seed, const BackwardOptions& options) { run_pass(root, seed, options, nullptr); }

void backward(const Edge& from, Tensor seed) {
  const NoGrad guard;
  const BackwardOptions options;
  Pass pass(options, nullptr);
  pass.start(from, std::move(seed));
  pass.run();
}

Tensors grad(const Tensor& root, const Tensors& inputs, const Tensor& seed, const BackwardOptions& options) { return run_pass(root, seed, options, &inputs); }

// ---- checkpoint: a node that keeps the inputs of a segment and runs it again.
namespace {
void plan_checkpoint(Plan&) {}  // never called: the segment's own operations are planned

// Runs the segment; its operations may write only what it makes itself.
Tensor run_segment(const detail::Segment& segment, const Tensors& in) {
  const int64_t begin = in.empty() ? -1 : in[0].device().allocator().ledger().allocations;  // the number of the next block
  const detail::Restore<int64_t> scope(context().segment_begin, begin);
  return segment.run(in);
}

Tensors vjp_checkpoint(Vjp& v) {
  check(v.use_slots, "checkpoint: grad() and create_graph do not pass through a checkpointed segment; use backward()");
  const auto* segment = static_cast<const detail::Segment*>(v.node.payload());
  Tensors inputs;
  for (size_t i = 0; i < v.node.in_specs().size(); ++i) {
    Tensor copy = v.in(i).detached();
    copy.set_requires_grad(v.needs_in(int(i)) && is_float(copy.dtype()));
    inputs.push_back(std::move(copy));
  }
  Tensor again;
  {
    const EnableGrad guard;
    const detail::Restore<bool> recomputing(context().recomputing, true);
    again = run_segment(*segment, inputs);
  }
  Tensors dx(inputs.size());
  if (!again.requires_grad()) return dx;  // what required a gradient in the first pass was frozen since
  backward(again, v.dy[0]);
  for (size_t i = 0; i < inputs.size(); ++i)
    if (v.needs_in(int(i))) dx[i] = inputs[i].grad();
  return dx;
}
const OpDef checkpoint_row{-1, "checkpoint", plan_checkpoint, vjp_checkpoint, {.in = ~0u}};
}  // namespace

Tensor detail::checkpoint(Ref<Segment> segment, Tensors in) {
  if (!context().grad_enabled && !context().marking) return segment->run(in);  // it will not run again
  if (!context().grad_enabled) return run_segment(*segment, in);               // inside another segment's first pass
  Tensor out;
  {
    const NoGrad guard;
    const detail::Restore<bool> marking(context().marking, true);
    out = run_segment(*segment, in);
  }
  if (!out.requires_grad()) return out;
  const Ref<Node> node(new Node(checkpoint_row, {}, in, {out}, Ref<NodePayload>(segment)));
  Tensor result = out.detached();
  TensorState& state = result.state();
  state.requires_grad = true;
  state.grad_fn = Ref<RefCounted>(node);
  return result;
}
}  // namespace reckon
