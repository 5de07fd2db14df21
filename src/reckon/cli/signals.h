// cli/signals: how large the numbers are that flow through a model as it starts: every layer's output, and the gradient of it.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "reckon/tensor/tensor.h"
#include "reckon/train/config.h"

namespace reckon {

/// Of all elements of a tensor, in double.
struct Moments {
  int64_t count = 0;
  int64_t bad = 0;  // NaN or infinite, and left out of the rest
  double mean = 0, variance = 0, max_abs = 0;
};

/// One result of one operation in the forward pass.
struct Signal {
  std::string module, operation;  // "blocks.0.attn", "linear"; "add_layer_norm, output 1" where there are several
  Shape shape;
  Moments output;
  std::optional<Moments> gradient;  // of the loss with respect to it; none where no gradient passes
};

struct Signals {
  double loss = 0;
  std::vector<Signal> rows;  // in the order of the forward pass
};

/// Bytes that measure_signals() takes, by a dry run.
int64_t signals_bytes(const Config& config);
/// Builds the model (initial values by model.init and seed), runs one micro-batch of random tokens forward and backward, with dropout if
/// there is any, and looks at every result on the way. Uses model.*, seed, train.micro_batch, train.seq_len, train.precision.
Signals measure_signals(const Config& config);

/// The same of any net: `loss` makes its inputs and parameters on the device, the same on each, and gives a scalar; `user` is handed to it.
Signals measure_signals(Tensor (*loss)(Device& device, void* user), void* user);

/// One linear layer [out, in] under each rule of initialization, on 256 inputs of N(0, 1) and gradients of N(0, 1).
struct LayerSignal {
  std::string init;              // "normal, std 1", "xavier"
  double std = 0;                // of the weights
  double output_variance = 0;    // expected: in std^2
  double gradient_variance = 0;  // expected, of the gradient of the input: out std^2
  Moments output, gradient;
};
std::vector<LayerSignal> measure_layer(int64_t in, int64_t out, uint64_t seed);
}  // namespace reckon
