// train/schedule: the learning rate of each step, and how it follows the size of a batch. Knows no optimizer's rule.
#pragma once
#include "reckon/train/config.h"

namespace reckon {

/// Learning rate of optimizer step `step` (0-based) of `total`: linear warm-up to lr over warmup_steps, then by optim.schedule:
///   constant      lr
///   cosine        half a period of it, from lr to min_lr_ratio * lr at step `total`. Loshchilov & Hutter 2017, arXiv:1608.03983
///   linear        from lr to min_lr_ratio * lr at step `total`
///   wsd           lr, and in the last decay_fraction * total steps, fewer if the warm-up leaves fewer, as linear. Hu et al. 2024,
///                 arXiv:2404.06395
///   inverse_sqrt  lr * sqrt(max(1, warmup_steps) / (step + 1)), at least min_lr_ratio * lr. Vaswani et al. 2017, arXiv:1706.03762
double learning_rate(const OptimConfig& config, int64_t step, int64_t total);

/// What a learning rate is multiplied by for a batch `ratio` times as large as the one it was found with. none: 1. linear: ratio, for SGD
/// (Goyal et al. 2017, arXiv:1706.02677). sqrt: its root, for Adam and its kin (Malladi et al. 2022, arXiv:2205.10287).
double batch_factor(LrScaling rule, double ratio);
/// The whole square-root rule of Malladi et al. for adam, adamw, lamb and rmsprop: lr * sqrt(ratio), 1 - beta * ratio for both betas and
/// alpha, eps / sqrt(ratio). Throws Error if a beta would fall below 0: the batch is then beyond what the rule can say.
OptimConfig square_root_scaled(OptimConfig config, double ratio);

/// A run's optimizer with the learning rate that it has at its peak: optim.lr times optim.lr_scaling's factor for the tokens of a step.
OptimConfig effective_optim(const Config& config);
/// "learning rate 0.0006 at its peak: optim.lr = 0.0003 x 2 (...)"; "" if nothing is scaled.
std::string scaling_text(const Config& config);
}  // namespace reckon
