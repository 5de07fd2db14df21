// train/generate: text from a trained model, one token at a time over a KV cache.
#pragma once
#include "reckon/train/saved_run.h"

namespace reckon {

struct SamplingOptions {
  double temperature = 0.8;  // 0: always the most likely token
  int64_t top_k = 0;         // only the k most likely tokens (0: all)
  double top_p = 1.0;        // only the most likely tokens whose probabilities reach p
  uint64_t seed = 1;
};

/// Picks a token from logits [V]; `draw` is uniform in [0, 1). Ties go to the lower id.
int32_t sample_token(std::span<const float> logits, const SamplingOptions& options, double draw);

/// Called with each new token; false stops.
using TokenSink = bool (*)(void* user, int32_t token);

struct GenerationResult {
  int64_t tokens = 0;
  double prompt_seconds = 0, token_seconds = 0;
};
/// Continues `prompt` (at least one id) by up to max_tokens. The draw of a token depends on (seed, its index) only. When the cache is full
/// the last half of it becomes a new prompt.
GenerationResult generate(const LoadedModel& model, Device& device, std::span<const int32_t> prompt, int64_t max_tokens, const SamplingOptions& options, TokenSink sink,
                          void* user);
}  // namespace reckon
