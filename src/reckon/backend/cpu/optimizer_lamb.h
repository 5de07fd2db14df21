// backend/cpu/optimizer_lamb: LAMB, which scales the step of each parameter tensor by the ratio of two norms, so in two passes: moments
// and norms, then weights. You et al. 2020, arXiv:1904.00962.
#pragma once
#include "reckon/backend/cpu/optimizer.h"

namespace reckon::cpu {

/// Parameter tensors that lie one behind the other in a bucket. With g = stored gradient * clip:
///   m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, u = (m / bias1) / (sqrt(v / bias2) + eps) + weight_decay p
///   p -= lr ratio u, where ratio = min(max(|p|, phi_low), phi_high) / |u| of the whole tensor; 1 if either is 0
/// Algorithm 2 of the paper. Norms are sums in double of slices that begin with the tensor: no bit depends on who lies beside it.
struct LambStep {
  OptimizerStep step;               // g: in the first pass only; n and first are multiples of kPlaceAlignment
  int64_t parameters = 0;           // S
  const int64_t* places = nullptr;  // [S + 1] where each begins and the last ends, in elements of the bucket: multiples of kPlaceAlignment
  double* ratios = nullptr;         // [S] written by the first pass, read by the second
  double phi_low = 0, phi_high = 0;
};
/// Bytes of scratch of the first pass over n elements of so many parameters.
int64_t lamb_workspace(int64_t n, int64_t parameters);
/// Steps m and v, and finds the ratios. Where the step is skipped ratios are 1 and nothing else is written.
void lamb_moments(const LambStep& args, void* workspace);
/// Steps the weights with moments as lamb_moments left them.
void lamb_step(const LambStep& args);
}  // namespace reckon::cpu
