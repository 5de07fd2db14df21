#include "reckon/engine/backward.h"

#include <algorithm>
#include <map>
#include <optional>
#include <unordered_map>

#include "reckon/base/debug.h"
#include "reckon/engine/anomaly.h"
#include "reckon/engine/autocast.h"
#include "reckon/engine/backward_pass.h"
#include "reckon/engine/node_extras.h"

namespace reckon {
namespace {
Tensor filled(Device& device, const TensorSpec& spec, double value) { return call_on(device, op::fill, {}, FillParams(spec, value))[0]; }

// Gradients that meet are summed in place where nobody else holds them.
void add_to(Tensor& sum, Tensor g) { sum = sum.defined() ? call(op::add, tensors(std::move(sum), std::move(g)))[0] : std::move(g); }

// Nobody else can see it, by this handle or by another one on the same memory.
bool is_owned(const Tensor& g) { return g.state().use_count() == 1 && g.storage().use_count() == 1; }
Tensor copy_of(Tensor g) { return call(op::contiguous, tensors(std::move(g)))[0]; }

const detail::LeafHooks* hooks_of(const Tensor& leaf) { return static_cast<const detail::LeafHooks*>(leaf.state().hooks.get()); }

// A hook's replacement must be what it replaces.
void run_list(const Ref<detail::HookList> list, const Node* node, Tensors& gradients, const TensorSpec& spec, const char* of) {
  if (!list) return;
  list->run(node, gradients);
  check(gradients[0].defined() && gradients[0].spec() == spec, "{}: a hook gave {} as a gradient of {}", of, gradients[0], spec);
}
void run_leaf_hooks(const Tensor& leaf, Tensor& g) {
  const detail::LeafHooks* hooks = hooks_of(leaf);
  if (!hooks || !hooks->gradient) return;
  Tensors one = tensors(std::move(g));
  const TensorSpec spec = one[0].spec();
  run_list(hooks->gradient, nullptr, one, spec, "leaf");
  g = std::move(one[0]);
}
}  // namespace

namespace detail {
// One pass: gradients that wait for their node, by sequence number so that the newest comes first.
class BackwardPass {
 public:
  // wanted: null for backward(), the inputs of grad() otherwise. outer: the pass of which this one is a part.
  BackwardPass(const BackwardOptions& options, const Tensors* wanted, BackwardPass* outer = nullptr)
      : options_(options), wanted_(wanted), outer_(outer) {
    if (!wanted_) return;
    results_.resize(wanted_->size());
    oldest_wanted_ = ~uint64_t(0);
    for (const Tensor& t : *wanted_) oldest_wanted_ = std::min(oldest_wanted_, node_of(t) ? node_of(t)->sequence() : 0);
  }

  void start(const Tensor& root, Tensor seed) {
    check(root.defined() && root.requires_grad(),
          "backward: the tensor {} is not the result of a recorded operation on anything that requires a gradient", root);
    if (!seed.defined()) {
      check(root.numel() == 1, "backward: {} is not a scalar; give the gradient of each element as seed", root);
      seed = filled(root.device(), root.spec(), 1.0);
    }
    check(seed.spec() == root.spec(), "backward: seed {} does not match the tensor {}", seed, root);
    continue_at(gradient_edge(root), std::move(seed));
  }
  void start(const Edge& from, Tensor seed) {
    check(from.wanted(), "backward: there is nothing behind this edge that requires a gradient");
    const TensorSpec spec = from.node ? from.node->out_specs()[size_t(from.output)] : from.leaf.spec();
    check(seed.defined() && seed.spec() == spec, "backward: seed {} does not match the gradient of {}", seed, spec);
    deliver(from, std::move(seed));
  }
  void continue_at(const Edge& edge, Tensor dy) {
    if (wanted_) explore(edge);
    if (leads_to_wanted(edge)) deliver(edge, std::move(dy));
  }

  Tensors run() {
    while (!waiting_.empty()) {
      const auto newest = std::prev(waiting_.end());
      const Ref<Node> node = std::move(newest->second.node);
      Tensors dy = std::move(newest->second.dy);
      waiting_.erase(newest);
      visit(*node, std::move(dy));
    }
    if (!outer_) finish_leaves();
    return std::move(results_);
  }

 private:
  struct Waiting {
    Ref<Node> node;
    Tensors dy;
  };

  void visit(Node& node, Tensors dy) {
    const bool goes_on = !wanted_ || runs(node);
    if (goes_on) node.check_usable();
    const ModuleScope scope(node.module());
    if (debug(Debug::grad)) debug_line(Debug::grad, text("{} #{} [{}]", node.name(), node.sequence(), module_path(node.module())));
    for (size_t i = 0; i < dy.size(); ++i)
      if (!dy[i].defined() && !(node.detached_outputs() >> i & 1u)) dy[i] = filled(node.device(), node.out_specs()[i], 0.0);
    if (node.has_hooks()) run_hooks(node, dy);
    const bool is_watched = context().anomaly;
    if (is_watched) check_gradients(node, dy, "arrived a gradient of output ", false);
    collect(node, dy);
    if (!goes_on) return;
    const std::vector<Edge> edges = node.next_functions();
    uint32_t needs = 0;
    for (size_t i = 0; i < edges.size(); ++i)
      if (edges[i].wanted() && leads_to_wanted(edges[i])) needs |= 1u << i;
    const bool keep = options_.retain_graph || options_.create_graph;
    const VjpFunction rule = options_.create_graph && node.op().traits.fallback ? node.op().traits.fallback : node.op().vjp;
    Vjp vjp{node, std::move(dy), needs, !keep, !options_.create_graph && !wanted_, this};
    Tensors dx = rule(vjp);
    vjp.dy.clear();
    RECKON_ASSERT(dx.size() <= edges.size());
    if (is_watched) check_rule(node, dx, edges, needs);
    if (const Node::Extras* extras = node.extras_if_any(); extras && extras->after) run_posthooks(node, *extras->after, dx);
    if (!keep) node.forget();
    for (size_t i = 0; i < dx.size(); ++i) {
      if (!dx[i].defined() || !(needs >> i & 1u)) continue;
      check(dx[i].shape() == node.in_specs()[i].shape, "{}: {} as the gradient of input {}, {}", node.name(), dx[i], i, node.in_specs()[i]);
      deliver(edges[i], std::move(dx[i]));
    }
  }

  // Those of its results come first: what is kept for a result is its gradient after them.
  void run_hooks(Node& node, Tensors& dy) {
    const Node::Extras& extras = *node.extras_if_any();
    for (size_t i = 0; i < extras.of_output.size(); ++i) {
      if (!extras.of_output[i] || !dy[i].defined()) continue;
      Tensors one = tensors(std::move(dy[i]));
      run_list(extras.of_output[i], &node, one, node.out_specs()[i], node.name());
      dy[i] = std::move(one[0]);
    }
    for (size_t i = 0; i < extras.retained.size(); ++i) {
      if (!extras.retained[i] || !dy[i].defined() || wanted_) continue;
      // Outside of the graph, which holds the node and so this place: it would be a cycle.
      const NoGrad guard;
      Tensor sum(std::exchange(extras.retained[i]->grad, {}));
      if (sum.defined())
        add_to(sum, dy[i].detached());
      else
        sum = !options_.create_graph && is_owned(dy[i]) ? dy[i] : copy_of(dy[i]);
      extras.retained[i]->grad = sum.ref();
    }
    for (const auto& [hook, user] : extras.plain_hooks) hook(node, dy, user);
    if (extras.before) extras.before->run(&node, dy);
    for (size_t i = 0; i < dy.size(); ++i)
      check((node.detached_outputs() >> i & 1u) || (dy[i].defined() && dy[i].spec() == node.out_specs()[i]),
            "{}: a hook gave {} as the gradient of output {}, {}", node.name(), dy[i], i, node.out_specs()[i]);
  }

  static void run_posthooks(const Node& node, const detail::HookList& hooks, Tensors& dx) {
    dx.resize(node.in_specs().size());
    const Tensors made = dx;
    hooks.run(&node, dx);
    check(dx.size() == made.size(), "{}: a hook gave {} gradients for {} inputs", node.name(), dx.size(), made.size());
    for (size_t i = 0; i < dx.size(); ++i) {
      if (dx[i].ref() == made[i].ref()) continue;
      const TensorSpec spec = made[i].defined() ? made[i].spec() : node.in_specs()[i];
      check(dx[i].defined() && dx[i].spec() == spec, "{}: a hook gave {} as the gradient of input {}, {}", node.name(), dx[i], i, spec);
    }
  }

  // What a rule wrote into slots itself is looked at there.
  void check_rule(const Node& node, const Tensors& dx, const std::vector<Edge>& edges, uint32_t needs) const {
    Tensors made = dx;
    made.resize(edges.size());
    for (size_t i = 0; i < made.size(); ++i)
      if (!made[i].defined() && (needs >> i & 1u) && edges[i].leaf.defined() && edges[i].leaf.state().grad_filled)
        made[i] = edges[i].leaf.grad();
    check_gradients(node, made, "made a gradient of input ", true);
  }

  // grad(): results of operations whose gradient was asked for.
  void collect(const Node& node, const Tensors& dy) {
    if (!wanted_) return;
    for (size_t w = 0; w < wanted_->size(); ++w) {
      const Tensor& t = (*wanted_)[w];
      if (node_of(t) == &node) results_[w] = dy[size_t(t.state().output_index)];
    }
  }

  // Which of the nodes behind this edge lead to what is wanted. Older nodes than all of that do not, and are not looked at.
  void explore(const Edge& from) {
    std::map<uint64_t, Node*> found;
    std::vector<Node*> open;
    const auto meet = [&](const Edge& edge) {
      Node* node = edge.node.get();
      if (!node || node->sequence() < oldest_wanted_ || leads_.contains(node->sequence())) return;
      if (found.emplace(node->sequence(), node).second) open.push_back(node);
    };
    meet(from);
    while (!open.empty()) {
      const Node* node = open.back();
      open.pop_back();
      for (const Edge& edge : node->next_functions()) meet(edge);
    }
    for (const auto& [sequence, node] : found) {
      const std::vector<Edge>& edges = node->next_functions();
      leads_[sequence] = is_checkpoint(*node) || std::any_of(edges.begin(), edges.end(), [&](const Edge& e) { return leads_to_wanted(e); });
    }
  }
  bool runs(const Node& node) const {
    const auto known = leads_.find(node.sequence());
    return known != leads_.end() && known->second;
  }
  bool leads_to_wanted(const Edge& edge) const {
    if (!wanted_) return true;
    if (edge.node && runs(*edge.node)) return true;
    for (const Tensor& t : *wanted_)
      if (edge.node ? node_of(t) == edge.node.get() && t.state().output_index == edge.output : t.ref() == edge.leaf.ref()) return true;
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

  void deliver_leaf(const Tensor& leaf, Tensor g) {
    if (wanted_) {
      for (size_t w = 0; w < wanted_->size(); ++w)
        if ((*wanted_)[w].ref() == leaf.ref()) add_to(results_[w], g);
    } else if (leaf.state().hooks) {
      // A sum in 16 bits would lose what the slot keeps.
      const Tensor slot = options_.create_graph ? Tensor() : leaf.grad_slot();
      if (slot.defined() && slot.dtype() != g.dtype()) g = call(op::cast, tensors(std::move(g)), CastParams{slot.dtype()})[0];
      add_to(sum_for_hooks(leaf), std::move(g));
    } else {
      accumulate(leaf, std::move(g));
    }
  }

  void accumulate(const Tensor& leaf, Tensor g) {
    TensorState& state = leaf.state();
    state.note_gradient();
    if (state.grad_is_slot) {
      const NoGrad guard;
      call(op::accumulate, tensors(leaf.grad_slot(), std::move(g)), AccumulateParams{state.grad_filled});
    } else if (state.grad_filled) {
      state.grad = call(op::add, tensors(Tensor(std::exchange(state.grad, {})), std::move(g)))[0].ref();
    } else {
      // A gradient that someone else also holds is copied, so that a later in-place change cannot reach it.
      state.grad = is_owned(g) ? g.ref() : copy_of(std::move(g)).ref();
    }
    state.grad_filled = true;
  }

  // Checkpointed segments inside a pass are a part of it.
  Tensor& sum_for_hooks(const Tensor& leaf) {
    if (outer_) return outer_->sum_for_hooks(leaf);
    for (auto& [known, sum] : hooked_)
      if (known.ref() == leaf.ref()) return sum;
    return hooked_.emplace_back(leaf, Tensor()).second;
  }
  void finish_leaves() {
    for (size_t w = 0; w < results_.size(); ++w) {
      const Tensor& leaf = (*wanted_)[w];
      if (!results_[w].defined() || node_of(leaf)) continue;
      const auto first = std::find_if(wanted_->begin(), wanted_->end(), [&](const Tensor& t) { return t.ref() == leaf.ref(); });
      if (const size_t at = size_t(first - wanted_->begin()); at < w)
        results_[w] = results_[at];  // asked for twice: its hooks ran
      else
        run_leaf_hooks(leaf, results_[w]);
    }
    for (auto& [leaf, sum] : hooked_) {
      run_leaf_hooks(leaf, sum);
      accumulate(leaf, std::move(sum));
      Tensors one = tensors(leaf);
      const LeafHooks* hooks = hooks_of(leaf);  // none if they removed themselves
      if (const Ref<HookList> after = hooks ? hooks->accumulated : Ref<HookList>()) after->run(nullptr, one);
    }
  }

  const BackwardOptions& options_;
  const Tensors* wanted_;
  uint64_t oldest_wanted_ = 0;
  Tensors results_;
  std::map<uint64_t, Waiting> waiting_;
  std::unordered_map<uint64_t, bool> leads_;  // by sequence number: does the node's rule lead to what is wanted
  BackwardPass* outer_;
  std::vector<std::pair<Tensor, Tensor>> hooked_;  // leaves with hooks, in the order of their first contribution, and their sums
};

void continue_at(BackwardPass& pass, const Edge& edge, Tensor dy) { pass.continue_at(edge, std::move(dy)); }

void run_inner_pass(BackwardPass& outer, const Tensor& root, const Tensor& seed) {
  const NoGrad guard;
  const BackwardOptions options;
  BackwardPass pass(options, nullptr, &outer);
  pass.start(root, seed);
  pass.run();
}
}  // namespace detail

namespace {
Tensors run_pass(const Tensors& roots, const Tensors& seeds, const BackwardOptions& options, const Tensors* wanted) {
  check(seeds.empty() || seeds.size() == roots.size(), "backward: {} seeds for {} tensors", seeds.size(), roots.size());
  const detail::UncachedAutocast types_of_forward;
  std::optional<NoGrad> no_grad;
  std::optional<EnableGrad> enable;
  if (options.create_graph) {
    enable.emplace();
  } else {
    no_grad.emplace();
  }
  detail::BackwardPass pass(options, wanted);
  for (size_t i = 0; i < roots.size(); ++i) pass.start(roots[i], seeds.empty() ? Tensor() : seeds[i]);
  return pass.run();
}
}  // namespace

void backward(const Tensor& root, const Tensor& seed, const BackwardOptions& options) { run_pass({root}, {seed}, options, nullptr); }
void backward(const Tensors& roots, const Tensors& seeds, const BackwardOptions& options) { run_pass(roots, seeds, options, nullptr); }

void backward(const Edge& from, Tensor seed) {
  const detail::UncachedAutocast types_of_forward;
  const NoGrad guard;
  const BackwardOptions options;
  detail::BackwardPass pass(options, nullptr);
  pass.start(from, std::move(seed));
  pass.run();
}

Tensors grad(const Tensor& root, const Tensors& inputs, const Tensor& seed, const BackwardOptions& options) {
  return grad(Tensors{root}, inputs, Tensors{seed}, options);
}
Tensors grad(const Tensors& roots, const Tensors& inputs, const Tensors& seeds, const BackwardOptions& options) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    check(inputs[i].defined(), "grad: input {} is undefined", i);
    check(options.allow_unused || inputs[i].requires_grad(),
          "grad: input {}, {}, does not require a gradient; set_requires_grad(), or pass allow_unused", i, inputs[i]);
  }
  // A graph that was let go leads nowhere: that is the fault to name then.
  for (const Tensor& root : roots)
    if (root.defined() && root.requires_grad())
      if (const Ref<Node> node = gradient_edge(root).node) node->check_usable();
  Tensors gradients = run_pass(roots, seeds, options, &inputs);
  for (size_t i = 0; i < inputs.size(); ++i)
    check(options.allow_unused || gradients[i].defined(),
          "grad: input {}, {}, is not reached from {}: nothing that was recorded leads there; pass allow_unused to have it undefined", i,
          inputs[i], roots.size() == 1 ? text("{}", roots[0]) : text("any of {} tensors", roots.size()));
  return gradients;
}

// ---- an alias with a place of its own in the graph
namespace {
void plan_alias(Plan& p) { p.output(p.in[0]); }
Tensors vjp_alias(Vjp& v) { return tensors(std::move(v.dy[0])); }
const OpDef alias_row{-1, "alias", plan_alias, vjp_alias};
}  // namespace

Tensor detail::joined_alias(const Tensor& x) {
  Tensor result = x.detached();
  if (!x.requires_grad()) return result;
  const Ref<Node> node(new Node(alias_row, {}, {x}, {result}));
  TensorState& state = result.state();
  state.requires_grad = true;
  state.grad_fn = Ref<RefCounted>(node);
  return result;
}
}  // namespace reckon
