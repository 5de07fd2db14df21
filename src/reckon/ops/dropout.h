// ops/dropout: masks that are drawn again wherever they are needed and stored nowhere.
#pragma once
#include <string_view>

#include "reckon/engine/call.h"

namespace reckon {

/// y = x * mask / (1 - p), each element kept with probability 1 - p (to 2^-17); x [samples, ...], a float of any shape. The mask is a
/// function of what `draws` holds, the sample, the site and the element alone: the same in backward, in a pass that is repeated, at any
/// number of threads and however samples are cut into micro-batches.
/// draws: i64 [2], see write_dropout_draws(). site: which dropout of the model this is. first: where x begins in its samples, in elements,
/// for chunks of them. Throws Error unless 0 <= p < 1. Linear in x, so it can be differentiated any number of times.
/// Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
Tensor dropout(Tensor x, double p, const Tensor& draws, uint64_t site, int64_t first = 0);

/// What all masks of a step are drawn by: i64 [2], the key of (seed, step) and the number of x's first sample among all of the run.
Tensor make_dropout_draws(Device& device);
/// Between backward of one micro-batch and forward of the next. Does nothing on meta.
void write_dropout_draws(const Tensor& draws, uint64_t seed, int64_t step, int64_t first_sample);
/// A site by the name of its place: "blocks.0.attn.dropout".
uint64_t dropout_site(std::string_view name);

/// As the kernel reads it.
struct DropoutParams {
  double p;
  uint64_t site;
  int64_t first;
};
}  // namespace reckon
