#include "reckon/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "reckon/base/error.h"
#include "reckon/base/text.h"

namespace reckon {
namespace {
// From 1 to the floor while progress goes from 0 to 1.
double line_to_floor(const OptimConfig& c, double progress) { return 1 - (1 - c.min_lr_ratio) * std::clamp(progress, 0.0, 1.0); }

double share_of_peak(const OptimConfig& c, int64_t step, int64_t total) {
  const double length = double(std::max<int64_t>(1, total - c.warmup_steps));
  const double progress = std::min(1.0, double(step - c.warmup_steps) / length);
  switch (c.schedule) {
    case ScheduleKind::constant:
      break;
    case ScheduleKind::cosine:
      return c.min_lr_ratio + (1 - c.min_lr_ratio) * 0.5 * (1 + std::cos(std::numbers::pi * progress));
    case ScheduleKind::linear:
      return line_to_floor(c, progress);
    case ScheduleKind::wsd: {
      const double decay = std::clamp(c.decay_fraction * double(total), 1.0, length);  // what the warm-up leaves of it
      return c.decay_fraction == 0 ? 1 : line_to_floor(c, (double(step) - (double(total) - decay)) / decay);
    }
    case ScheduleKind::inverse_sqrt:
      return std::max(c.min_lr_ratio, std::sqrt(double(std::max<int64_t>(1, c.warmup_steps)) / double(step + 1)));
  }
  return 1;
}

double step_tokens(const Config& c) {
  return double(c.train.micro_batch) * double(c.train.grad_accum) * double(c.model.cruncher ? 1 : c.train.seq_len);
}
double factor_of(const Config& c) { return batch_factor(c.optim.lr_scaling, step_tokens(c) / double(c.optim.base_batch_tokens)); }
}  // namespace

double learning_rate(const OptimConfig& c, int64_t step, int64_t total) {
  if (step < c.warmup_steps) return c.lr * double(step + 1) / double(c.warmup_steps);
  return c.lr * share_of_peak(c, step, total);
}

double batch_factor(LrScaling rule, double ratio) {
  check(ratio > 0, "a batch cannot be {} times as large", ratio);
  return rule == LrScaling::none ? 1 : rule == LrScaling::linear ? ratio : std::sqrt(ratio);
}

OptimConfig square_root_scaled(OptimConfig c, double ratio) {
  const double root = batch_factor(LrScaling::sqrt, ratio);
  const auto scale = [&](const char* name, double& beta) {
    const double scaled = 1 - ratio * (1 - beta);
    check(scaled >= 0, "the square-root rule has no {} for a batch {} times as large: 1 - {} * (1 - {}) is below 0", name, ratio, ratio,
          beta);
    beta = scaled;
  };
  if (c.name == OptimizerKind::rmsprop) {
    scale("alpha", c.alpha);
  } else {
    scale("beta1", c.beta1);
    scale("beta2", c.beta2);
  }
  c.lr *= root;
  c.eps /= root;
  return c;
}

OptimConfig effective_optim(const Config& config) {
  OptimConfig optim = config.optim;
  optim.lr *= factor_of(config);
  return optim;
}

std::string scaling_text(const Config& c) {
  if (c.optim.lr_scaling == LrScaling::none) return "";
  return text("learning rate {:.6g} at its peak: optim.lr = {:.6g} x {:.6g} ({}: {} tokens a step, optim.base_batch_tokens = {})",
              effective_optim(c).lr, c.optim.lr, factor_of(c), to_string(c.optim.lr_scaling), with_commas(int64_t(step_tokens(c))),
              with_commas(c.optim.base_batch_tokens));
}
}  // namespace reckon
