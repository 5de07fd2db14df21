// engine/checkpoint: a node that keeps the inputs of a segment and runs it again.
#include "reckon/engine/autocast.h"
#include "reckon/engine/backward_pass.h"

namespace reckon {
namespace {
void plan_checkpoint(Plan&) {}  // never called: the segment's own operations are planned

// The segment, and the autocast state that it ran in.
struct Rerun : NodePayload {
  Rerun(Ref<detail::Segment> s, DType low) : segment(std::move(s)), autocast(low) {}
  const Ref<detail::Segment> segment;
  const DType autocast;
};

// Runs the segment; its operations may write only what it makes itself. results: inputs that are leaves only here.
Tensor run_segment(const detail::Segment& segment, const Tensors& in, Tensors results = {}) {
  const int64_t begin = in.empty() ? -1 : in[0].device().allocator().ledger().allocations;  // the number of the next block
  const detail::Restore<int64_t> scope(context().segment_begin, begin);
  const detail::OwnCasts casts(std::move(results));  // so that both runs make the same
  return segment.run(in);
}
Tensor run_recorded(const Rerun& rerun, const Tensors& in, Tensors results = {}) {
  const EnableGrad guard;
  const detail::Restore<bool> recomputing(context().recomputing, true);
  const detail::UncachedAutocast as_in_forward(rerun.autocast);
  return run_segment(*rerun.segment, in, std::move(results));
}

// grad() and create_graph: the segment is recorded on the inputs themselves, and the pass goes on through that. So it finds captured
// tensors that are asked for, and what is recorded on the way can be differentiated.
Tensors splice(Vjp& v, const Rerun& rerun) {
  Tensors inputs;
  {
    const EnableGrad guard;
    for (size_t i = 0; i < v.node.in_specs().size(); ++i) inputs.push_back(v.in(i));
  }
  const Tensor again = run_recorded(rerun, inputs);
  if (again.requires_grad()) detail::continue_at(*v.pass, gradient_edge(again), std::move(v.dy[0]));
  return {};
}

Tensors vjp_checkpoint(Vjp& v) {
  const auto& rerun = static_cast<const Rerun&>(*v.node.payload());
  if (!v.use_slots) return splice(v, rerun);
  Tensors inputs, results;
  for (size_t i = 0; i < v.node.in_specs().size(); ++i) {
    Tensor copy = v.in(i).detached();
    copy.set_requires_grad(v.needs_in(int(i)) && is_float(copy.dtype()));
    if (v.node.next_functions()[i].node) results.push_back(copy);
    inputs.push_back(std::move(copy));
  }
  const Tensor again = run_recorded(rerun, inputs, std::move(results));
  Tensors dx(inputs.size());
  if (!again.requires_grad()) return dx;  // what required a gradient in the first pass was frozen since
  detail::run_inner_pass(*v.pass, again, v.dy[0]);
  for (size_t i = 0; i < inputs.size(); ++i)
    if (v.needs_in(int(i))) dx[i] = inputs[i].grad();
  return dx;
}
const OpDef checkpoint_row{-1, "checkpoint", plan_checkpoint, vjp_checkpoint, {.in = ~0u}};
}  // namespace

bool detail::is_checkpoint(const Node& node) { return &node.op() == &checkpoint_row; }

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
  const Ref<Node> node(new Node(checkpoint_row, {}, in, {out}, Ref<NodePayload>(new Rerun(std::move(segment), context().autocast))));
  Tensor result = out.detached();
  TensorState& state = result.state();
  state.requires_grad = true;
  state.grad_fn = Ref<RefCounted>(node);
  return result;
}
}  // namespace reckon
