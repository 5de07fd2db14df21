// tests/nn/small_models: decoders of every architecture, too small for any size to be a multiple of a tile or a vector, and their tokens.
#pragma once
#include <string>
#include <vector>

#include "reckon/base/philox.h"
#include "reckon/nn/model_config.h"

namespace reckon::test {

/// gpt2, llama, qwen (QK-norm, biases, a tied head) or mistral (a sliding window); at most 48 tokens, initialized far from uniform.
inline ModelConfig architecture(const std::string& name, int64_t layers) {
  ModelConfig c = model_preset(name == "gpt2" ? "tiny" : "llama-3-8b");
  c.layers = layers;
  c.d_model = 60;
  c.heads = 6;
  c.kv_heads = name == "gpt2" ? 6 : 2;
  c.head_dim = 14;
  c.d_ff = 100;
  c.vocab = 83;
  c.max_seq_len = 48;
  c.init_std = 0.2;
  if (name == "qwen") c.qk_norm = c.qkv_bias = c.tied_head = true;
  if (name == "mistral") c.sliding_window = 9;
  return c;
}

inline std::vector<int32_t> some_tokens(int64_t count, int64_t vocab, uint64_t draw = 2) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(int32_t(philox(1, draw, uint64_t(i))[0] % uint64_t(vocab)));
  return ids;
}
}  // namespace reckon::test
