// tests/support/gradient_watcher: a function that sees a step's gradients before they are let go.
#pragma once
#include <functional>

#include "reckon/train/step.h"

namespace reckon::test {

struct WatchGradients final : TrainStep::GradientWatcher {
  std::function<void(const Parameters&)> function;
  WatchGradients(TrainStep& step, std::function<void(const Parameters&)> f) : function(std::move(f)) { step.watcher = this; }
  void on_gradients(const Parameters& parameters) override { function(parameters); }
};
}  // namespace reckon::test
