// ops/routing: which experts a token goes to, and its way there and back. No shape depends on data: an expert has room for `capacity`
// tokens, and what finds no room is counted. Shazeer et al. 2017, arXiv:1701.06538; Lepikhin et al. 2020, arXiv:2006.16668 (GShard).
#pragma once
#include "reckon/engine/call.h"

namespace reckon {

/// Of N tokens with k choices each, E experts with room for R tokens each; all i32, none with a gradient.
struct Routing {
  Tensor experts;  // [N, k]  by falling probability; equal ones by number
  Tensor slots;    // [N, k]  expert * R + place; -1: the expert was full
  Tensor rows;     // [E, R]  token * k + choice that has this place; -1: empty
  Tensor load;     // [E]     choices that wanted the expert, whether they found room or not
  Tensor dropped;  // [1]     choices that found none
};
/// Places are given to all first choices in the order of tokens, then to all second ones, and so on. probabilities [N, E], N, E >= 1.
/// Throws Error unless 1 <= k <= E, k <= kMaxChoices and capacity >= 1. A NaN is no more likely than anything, and is chosen when nothing
/// else is left.
Routing route_top_k(const Tensor& probabilities, int64_t k, int64_t capacity);

/// y[n, j] = x[n, experts[n, j]]: x [N, E], experts i32 [N, k] -> [N, k]. A number outside [0, E) gives NaN.
Tensor pick_experts(const Tensor& x, const Tensor& experts);

/// What each expert is given: x [N, C] -> [E, R, C], zero where no token is. weights [N, k] of x's dtype multiply the rows; undefined: 1.
Tensor moe_dispatch(const Tensor& x, const Routing& routing, const Tensor& weights = {});
/// The way back: y [E, R, C] -> [N, C], the sum over a token's choices of weights [N, k] (undefined: 1) times its rows, in the order of
/// choices and in at least float32; zero for a token whose every choice was dropped.
Tensor moe_combine(const Tensor& y, const Routing& routing, const Tensor& weights = {});

/// The largest k: a kernel holds a token's choices on its stack.
inline constexpr int64_t kMaxChoices = 64;

/// As the kernels read them.
struct RouteParams {
  int64_t k, capacity;
};
struct PickParams {
  int64_t experts;  // pick_experts_back
};
}  // namespace reckon
