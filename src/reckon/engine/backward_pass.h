// engine/backward_pass: what a rule may ask of the pass that runs it. For this room alone.
#pragma once
#include "reckon/engine/backward.h"

namespace reckon::detail {

/// The pass goes on through a graph that the rule recorded just now, which stands for its node.
void continue_at(BackwardPass& pass, const Edge& edge, Tensor dy);
/// backward(root, seed) as a part of the pass: hooks of leaves wait for its end.
void run_inner_pass(BackwardPass& outer, const Tensor& root, const Tensor& seed);
/// A node whose graph is not known before its rule runs: its segment may use anything.
bool is_checkpoint(const Node& node);
}  // namespace reckon::detail
