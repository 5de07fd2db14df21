// engine/backward: reverse-mode differentiation of a recorded graph, newest node first.
#pragma once
#include "reckon/engine/node.h"

namespace reckon {

struct BackwardOptions {
  bool retain_graph = false;  // keep the graph for another backward pass
  bool create_graph = false;  // record the backward pass itself, so that gradients can be differentiated; implies retain_graph
  bool allow_unused = false;  // grad(): an input that is not reached has an undefined gradient, instead of an error
};

/// Accumulates the gradient of `root` into the grad of every leaf that requires one. `seed` is the gradient of root (default: ones; root
/// must then have one element). Kept tensors are released as their node finishes. Throws Error if root is not part of a graph.
void backward(const Tensor& root, const Tensor& seed = {}, const BackwardOptions& options = {});
/// The same of several roots at once; no seeds stand for default ones.
void backward(const Tensors& roots, const Tensors& seeds = {}, const BackwardOptions& options = {});

/// The same from the place where a result's gradient goes, for whoever has that gradient and no more use for the result:
/// backward(gradient_edge(y), dy).
void backward(const Edge& from, Tensor seed);

/// Gradients of `root` with respect to `inputs` (leaves or results), one each; no leaf's grad changes. Only what lies between them is
/// visited, and all checkpointed segments behind root, newer than the inputs, are run: what a segment captured shows no sooner, so one may
/// run that leads to none of them. Throws Error naming an input that requires no gradient or is not reached, unless allow_unused: then it
/// is undefined.
Tensors grad(const Tensor& root, const Tensors& inputs, const Tensor& seed = {}, const BackwardOptions& options = {});
/// Of several roots: the sum over them. No seeds stand for default ones.
Tensors grad(const Tensors& roots, const Tensors& inputs, const Tensors& seeds = {}, const BackwardOptions& options = {});

namespace detail {
/// The same data with a place of its own in the graph behind x: grad() with respect to it does not look behind it.
Tensor joined_alias(const Tensor& x);

struct Segment : NodePayload {
  virtual Tensor run(const Tensors& in) const = 0;
};
Tensor checkpoint(Ref<Segment> segment, Tensors in);
}  // namespace detail

/// Runs `segment(inputs) -> Tensor` without recording it; backward runs it a second time. Trades one more forward pass for its activations.
/// The result requires a gradient if it would without the checkpoint; if not, it is a constant and keeps nothing.
/// What the segment captures must outlive the backward pass; parameters it uses get their gradients as usual. grad() and create_graph pass
/// through it; then what the second run records lives as long as the gradient's graph. Throws Error naming the
/// operation if the segment writes a tensor that is older than it: backward would write it again. Chen et al. 2016, arXiv:1604.06174.
template <class F>
Tensor checkpoint(F segment, Tensors in) {
  struct Closure final : detail::Segment {
    F function;
    explicit Closure(F f) : function(std::move(f)) {}
    Tensor run(const Tensors& inputs) const override { return function(inputs); }
  };
  return detail::checkpoint(Ref<detail::Segment>(new Closure(std::move(segment))), std::move(in));
}
}  // namespace reckon
