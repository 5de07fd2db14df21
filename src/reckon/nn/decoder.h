// nn/decoder: one decoder-only transformer for the GPT-2 and the Llama/Qwen families, and the deep linear net Cruncher.
#pragma once
#include "reckon/nn/parameters.h"

namespace reckon {

/// y = x w^T + b
struct Linear {
  Parameter* weight;          // [out, in]
  Parameter* bias = nullptr;  // [out], optional
  Linear(Parameters& p, const std::string& name, int64_t in, int64_t out, bool with_bias, const Init& init);
  Tensor operator()(const Tensor& x) const;
};

struct Norm {
  NormKind kind;
  double eps;
  Parameter* weight;          // [C]
  Parameter* bias = nullptr;  // [C], layer_norm only, optional
  Norm(Parameters& p, const std::string& name, const ModelConfig& config, int64_t width);
  Tensor operator()(const Tensor& x) const;
};

/// Keys and values of past tokens of one layer, preallocated to their maximum.
struct KvCache {
  std::vector<Tensor> k, v;  // [B, KV, max_T, D] a layer
  Tensor position;           // i64 [1]: rows already in the cache
  KvCache(Device& device, const ModelConfig& config, int64_t B, int64_t max_tokens, DType dtype);
};

/// What backward computes again of a run of neighbouring blocks instead of keeping it.
enum class BlockRecompute : uint8_t {
  none,
  selective,  // outputs of norms and activations, and of QK-norm with its RoPE; products, attention and the residual stream are kept
  full,       // everything: the run keeps its first block's input, and goes through all its blocks again
};
struct RecomputeRun {
  BlockRecompute mode = BlockRecompute::none;
  int64_t blocks = 1;
  bool operator==(const RecomputeRun&) const = default;
};
/// One run after another, as many blocks as the decoder has; empty: nothing is computed again.
using RecomputePolicy = std::vector<RecomputeRun>;

class DecoderBlock {
 public:
  DecoderBlock(Parameters& p, const ModelConfig& config, int64_t index);
  /// x [B, T, C] -> [B, T, C]; with a cache, the tokens continue at cache->position. selective: BlockRecompute::selective.
  Tensor operator()(Tensor x, KvCache* cache = nullptr, bool selective = false) const;

 private:
  Tensor attend(const Tensor& x, KvCache* cache, bool selective) const;
  Tensor feed_forward(const Tensor& x, bool selective) const;
  const ModelConfig& config_;
  int64_t index_;
  std::string name_;
  Norm norm1_;
  Linear qkv_, proj_;
  Norm norm2_;
  Linear up_, down_;             // gelu: up [F, C]; swiglu: gate_up [2F, C]
  Parameter* q_norm_ = nullptr;  // [D]
  Parameter* k_norm_ = nullptr;
};

/// tokens -> logits. Parameters are declared by the constructor and live in `parameters()`.
class Decoder {
 public:
  explicit Decoder(const ModelConfig& config);
  Decoder(const Decoder&) = delete;
  const ModelConfig& config() const { return config_; }
  Parameters& parameters() { return parameters_; }

  /// tokens i32 [B, T] -> logits [B, T, V]. Throws Error if the policy is one of another number of blocks.
  Tensor logits(const Tensor& tokens, const RecomputePolicy& recompute = {}) const;
  /// Mean cross-entropy (nats) of targets i32 [B, T]; fused: by linear_cross_entropy, without the logits.
  Tensor loss(const Tensor& tokens, const Tensor& targets, const RecomputePolicy& recompute = {}, bool fused = false) const;
  /// What the head reads: the last block's output, normalized. [B, T, C]
  Tensor hidden(const Tensor& tokens, const RecomputePolicy& recompute = {}) const;
  /// From hidden() to the loss and back to every parameter, without the logits: adds the gradients of seed * loss (seed: a scalar of the
  /// loss's dtype) to the parameters' slots and gives the loss. The same gradients as backward(loss(...), seed), but the head's sums have
  /// another order. hidden's storage becomes its gradient's if the caller moves it in. Throws Error if no parameter requires a gradient.
  Tensor loss_and_backward(Tensor hidden, const Tensor& targets, const Tensor& seed) const;
  /// tokens i32 [B, Tn] continue at cache.position; positions i32 [Tn] are their absolute positions. Logits of the last token: [B, 1, V].
  Tensor next_logits(const Tensor& tokens, const Tensor& positions, KvCache& cache) const;

 private:
  Tensor embed(const Tensor& tokens, const Tensor& positions) const;
  Tensor run_blocks(Tensor x, const RecomputePolicy& recompute) const;
  Tensor normalized(const Tensor& x) const;
  Tensor head(const Tensor& x) const;
  const Tensor& head_weight() const { return (head_ ? head_ : embed_)->value; }
  ModelConfig config_;
  Parameters parameters_;
  Parameter* embed_;                  // [V, C]
  Parameter* positions_ = nullptr;    // [max_seq_len, C], learned positions only
  std::vector<DecoderBlock> blocks_;
  Norm* norm_ = nullptr;
  std::deque<Norm> final_norm_;       // one; after the blocks in declaration order
  Parameter* head_ = nullptr;         // [V, C]; null: tied to embed_
};

/// The deep linear net: x [B, D] -> D x D layers without bias -> [B, 1], trained on squared error.
class Cruncher {
 public:
  explicit Cruncher(const ModelConfig& config);
  Cruncher(const Cruncher&) = delete;
  Parameters& parameters() { return parameters_; }
  /// x [B, D], y [B, 1] -> mean squared error
  Tensor loss(const Tensor& x, const Tensor& y) const;

 private:
  Parameters parameters_;
  std::vector<Linear> layers_;
};
}  // namespace reckon
