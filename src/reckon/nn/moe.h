// nn/moe: a mixture of experts in place of a feed-forward layer.
#pragma once
#include "reckon/nn/layers.h"
#include "reckon/ops/routing.h"

namespace reckon::nn {

struct MoeOptions {
  int64_t experts = 8;
  int64_t top_k = 2;
  double capacity_factor = 1.25;  // room of an expert, as a multiple of its fair share of N top_k choices
  bool renormalize = true;        // weights of a token's choices are made to sum to 1 (Mixtral); false: as the softmax has them (Switch)
  MlpKind kind = MlpKind::swiglu;
};

/// A router, softmax of a linear layer in at least float32, sends each token to its top_k experts, each a feed-forward layer without bias;
/// the result is the sum of what they give, times their weights. An expert takes moe_capacity() tokens, all of them rows of one batched
/// product; a choice that finds no room adds nothing, so that the residual stream around the layer carries the token on. Work: all E
/// capacity rows are multiplied (executed), of which min(N top_k, E capacity) are needed. Fedus et al. 2021, arXiv:2101.03961 (Switch);
/// Lepikhin et al. 2020, arXiv:2006.16668 (GShard); Jiang et al. 2024, arXiv:2401.04088 (Mixtral).
class MoE : public Module {
 public:
  MoE(Module& parent, std::string_view name, int64_t width, int64_t inner, const MoeOptions& options = {});

  struct Result {
    Tensor y;             // of x's shape and dtype
    Tensor balance_loss;  // []  E sum_e f_e P_e: f the shares of choices, P the mean probabilities; 1 where all experts are equal, more
                          // elsewhere
    Tensor z_loss;        // []  mean of the squared log-sum-exp of the router's logits (Zoph et al. 2022, arXiv:2202.08906)
    Tensor load;          // i32 [E]  choices that wanted each expert
    Tensor dropped;       // i32 [1]  choices that found no room
  };
  /// x [..., width], at least one token. The losses are of the router's dtype, to be added to the model's with a small factor.
  Result operator()(const Tensor& x) const;

  const MoeOptions options;
  Linear router;    // [E, width], without bias
  Parameter& up;    // [E, inner or 2 inner, width]
  Parameter& down;  // [E, width, inner]

 private:
  Tensor run_experts(const Tensor& x, int64_t needed_rows) const;
};

/// Tokens that an expert takes: its share of tokens * top_k choices times the factor, rounded up; at least 1, at most all tokens.
int64_t moe_capacity(int64_t tokens, const MoeOptions& options);
}  // namespace reckon::nn
