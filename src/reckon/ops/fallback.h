// ops/fallback: rules of fused rows while backward itself is recorded: a composition of public operations is run on what was kept and
// differentiated in the fused rule's place. For this room alone.
#pragma once
#include "reckon/engine/backward.h"
#include "reckon/ops/rows.h"

namespace reckon {

/// Gradients of the tensor composition(in) in in[i] for each bit i of needs, for the gradient dy of its result: part of the graph again.
template <class F>
Tensors differentiated(const Tensors& in, const Tensor& dy, uint32_t needs, F composition) {
  Tensors at, wanted, gradients(in.size());
  for (size_t i = 0; i < in.size(); ++i) {
    at.push_back(detail::joined_alias(in[i]));
    if ((needs >> i & 1u) && at[i].requires_grad()) wanted.push_back(at[i]);
  }
  if (wanted.empty()) return gradients;
  Tensors found = grad(Tensors{composition(at)}, wanted, Tensors{dy}, {.create_graph = true, .allow_unused = true});
  size_t next = 0;
  for (size_t i = 0; i < in.size(); ++i)
    if ((needs >> i & 1u) && at[i].requires_grad()) gradients[i] = std::move(found[next++]);
  return gradients;
}
}  // namespace reckon
