// ops/loss: what a cross-entropy is asked for.
#pragma once
#include <cstdint>

namespace reckon {

/// Targets with this value take no part in the loss, unless CrossEntropyOptions names another.
inline constexpr int32_t kIgnoredTarget = -100;

enum class Reduction : uint8_t { mean, sum, none };

/// loss = lse - (1 - s) x[target] - s mean(x) + z lse^2 of each row x of logits, with lse = log(sum(exp(x))); reduced over the rows whose
/// target is not ignored. As torch.nn.functional.cross_entropy where z is 0.
struct CrossEntropyOptions {
  Reduction reduction = Reduction::mean;
  double label_smoothing = 0;  // s, in [0, 1). Szegedy et al. 2016, arXiv:1512.00567
  double z_loss = 0;           // z >= 0; PaLM has 1e-4. Chowdhery et al. 2022, arXiv:2204.02311
  int32_t ignore_index = kIgnoredTarget;
};
}  // namespace reckon
