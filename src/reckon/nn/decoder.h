// nn/decoder: one decoder-only transformer for the GPT-2 and the Llama/Qwen families, and the deep linear net Cruncher.
#pragma once
#include "reckon/nn/parameters.h"
#include "reckon/ops/float8.h"

namespace reckon {

/// y = x w^T + b
struct Linear {
  Parameter* weight;          // [out, in]
  Parameter* bias = nullptr;  // [out], optional
  const Float8State* float8 = nullptr;  // if there is one, passes that are differentiated multiply in 8 bits
  Linear(Parameters& p, const std::string& name, int64_t in, int64_t out, bool with_bias, const Init& init);
  /// x_is_kept: backward has x anyway, or computes it again, so that it keeps no copy in 8 bits.
  Tensor operator()(const Tensor& x, bool x_is_kept = false) const;
};

/// The states of a model's linear layers in float8, by the layers' names, in the order of declaration.
struct NamedFloat8State {
  std::string name;  // "blocks.0.attn.qkv"
  Float8State state;
};
using Float8States = std::deque<NamedFloat8State>;

struct Norm {
  NormKind kind;
  double eps;
  Parameter* weight;          // [C]
  Parameter* bias = nullptr;  // [C], layer_norm only, optional
  bool composed = false;      // of element-wise operations, as a reference
  Norm(Parameters& p, const std::string& name, const ModelConfig& config, int64_t width);
  Tensor operator()(const Tensor& x) const;
  SumAndNorm of_sum(Tensor x, Tensor residual) const;
};

/// Keys and values of past tokens of one layer, preallocated to their maximum.
struct KvCache {
  std::vector<Tensor> k, v;  // [B, KV, max_T, D] a layer
  Tensor position;           // i64 [1]: rows already in the cache
  KvCache(Device& device, const ModelConfig& config, int64_t B, int64_t max_tokens, DType dtype);
};

/// Documents that lie one after another in rows of tokens and do not see each other. Undefined: each row is one document.
struct Documents {
  Tensor first;      // i32 [B, T]: position in its row of the first token of each token's document
  Tensor positions;  // i32 [B, T]: position of each token in its document; with learned positions only
};

/// Keys and values of whole sequences, a layer each, of which a chunk at a time passes through the blocks.
struct ChunkedSequence {
  std::vector<SequenceKeys> layers;  // undefined: not held
  int64_t first = 0;                 // position of the chunk's first token
  bool stores = false;               // the chunk's keys and values are not there yet
  ChunkedSequence(Device& device, const ModelConfig& config, int64_t B, int64_t T, DType dtype);
  /// Makes room for the keys and values of a layer, or of their gradients; or lets go of all of them.
  void hold_keys(size_t layer);
  void hold_gradients(size_t layer);
  void release(size_t layer) { layers[layer] = {}; }

 private:
  Device& device_;
  TensorSpec keys_;
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

/// How blocks attend, and to what besides the tokens that they are given: at most one of cache and chunk.
struct Attending {
  KvCache* cache = nullptr;          // the tokens continue at cache->position
  ChunkedSequence* chunk = nullptr;  // they are a chunk of longer sequences
  Tensor documents = {};             // i32 [B, T], see Documents::first
  bool plain = false;                // with T x T scores in memory, where there is neither
};

class DecoderBlock {
 public:
  DecoderBlock(Parameters& p, const ModelConfig& config, int64_t index);
  /// Gives each of the four layers a state; see Decoder::use_float8.
  void use_float8(Device& device, int64_t window, Float8States& states);
  /// x [B, T, C] -> [B, T, C]. selective: BlockRecompute::selective.
  Tensor operator()(Tensor x, const Attending& how = {}, bool selective = false) const;
  /// See Decoder::set_fused_kernels.
  void set_fused_kernels(bool on);
  /// See Decoder::set_dropout; draws stay where they are, or null.
  void set_dropout(const Tensor* draws) { draws_ = draws; }
  /// Of the chunk x, only the keys and values.
  void store_keys(const Tensor& x, ChunkedSequence& chunk) const;

 private:
  Tensor packed_qkv(const Tensor& x, const Attending& how, bool selective) const;
  Tensor attend(const Tensor& x, const Attending& how, bool selective) const;
  Tensor activation(const Tensor& x) const;
  Tensor feed_forward(Tensor normalized, const Attending& how, bool selective) const;
  Tensor dropped(Tensor branch, uint64_t site, const Attending& how) const;
  const ModelConfig& config_;
  int64_t index_;
  std::string name_;
  Norm norm1_;
  Linear qkv_, proj_;
  Norm norm2_;
  Linear up_, down_;             // gelu: up [F, C]; swiglu: gate_up [2F, C]
  Parameter* q_norm_ = nullptr;  // [D]
  Parameter* k_norm_ = nullptr;
  uint64_t attention_site_, mlp_site_;  // of dropout
  const Tensor* draws_ = nullptr;       // of the decoder
};

/// tokens -> logits. Parameters are declared by the constructor and live in `parameters()`.
class Decoder {
 public:
  explicit Decoder(const ModelConfig& config);
  Decoder(const Decoder&) = delete;
  const ModelConfig& config() const { return config_; }
  Parameters& parameters() { return parameters_; }
  /// Blocks attend by attention_plain instead of attention: the same numbers but for rounding. Not in chunks, nor over a cache.
  void set_plain_attention(bool on) { plain_attention_ = on; }
  /// false: norms, activations and residual sums are composed of element-wise operations, each with its result in memory.
  void set_fused_kernels(bool on);

  /// Residual dropout with probability model.dropout by what `draws` holds (ops/dropout.h): on the embedding and on what attention and MLP
  /// add, as in GPT-2; not on attention's probabilities, which flash attention never holds. Undefined: none, for evaluation. Never over a
  /// cache.
  void set_dropout(const Tensor& draws);

  /// From now on the linear layers of the blocks multiply in 8 bits wherever they are differentiated (category optimizer for what they
  /// remember of `window` steps); embedding, attention and head stay as they are. Without gradients all products are those of before.
  void use_float8(Device& device, int64_t window);
  const Float8States& float8_states() const { return float8_states_; }

  /// tokens i32 [B, T] -> logits [B, T, V]. Throws Error if the policy is one of another number of blocks.
  Tensor logits(const Tensor& tokens, const RecomputePolicy& recompute = {}) const;
  /// Mean cross-entropy (nats) of targets i32 [B, T]; fused: by linear_cross_entropy, without the logits.
  Tensor loss(const Tensor& tokens, const Tensor& targets, const RecomputePolicy& recompute = {}, bool fused = false,
              const Documents& documents = {}) const;
  /// What the head reads: the last block's output, normalized. [B, T, C]
  Tensor hidden(const Tensor& tokens, const RecomputePolicy& recompute = {}, const Documents& documents = {}) const;
  /// From hidden() to the loss and back to every parameter, without the logits: adds the gradients of seed * loss (seed: a scalar of the
  /// loss's dtype) to the parameters' slots and gives the loss. The same gradients as backward(loss(...), seed), but the head's sums have
  /// another order. hidden's storage becomes its gradient's if the caller moves it in. Throws Error if no parameter requires a gradient.
  Tensor loss_and_backward(Tensor hidden, const Tensor& targets, const Tensor& seed, const CrossEntropyOptions& options = {}) const;
  /// The same for sequences whose activations do not fit, `chunk` tokens of each at a time: adds the gradients of seed * loss and gives
  /// the loss of tokens i32 [B, T]. Keys, values and their gradients are held for whole sequences, all else for one chunk. All chunks but
  /// the last pass forward twice. Where the policy runs every block again on its own, blocks take turns instead: each takes all chunks, and
  /// held are the inputs of all blocks, and keys, values and gradients of one. Phases forward and backward.
  Tensor loss_and_backward_in_chunks(const Tensor& tokens, const Tensor& targets, const Tensor& seed, int64_t chunk,
                                     const RecomputePolicy& recompute = {}, bool fused = true, const Documents& documents = {}) const;
  /// The loss alone, likewise; records nothing.
  Tensor loss_in_chunks(const Tensor& tokens, const Tensor& targets, int64_t chunk, bool fused = true,
                        const Documents& documents = {}) const;
  /// tokens i32 [B, Tn] continue at cache.position; positions i32 [Tn] are their absolute positions. Logits of the last token: [B, 1, V].
  Tensor next_logits(const Tensor& tokens, const Tensor& positions, KvCache& cache) const;

 private:
  Tensor embed(const Tensor& tokens, const Tensor& positions) const;
  Tensor embed_dropped(const Tensor& tokens, const Tensor& positions, int64_t first) const;
  void check_documents(const Documents& documents) const;
  Tensor loss_and_backward_by_blocks(const Tensor& tokens, const Tensor& targets, const Tensor& seed, int64_t chunk, bool fused,
                                     const Documents& documents) const;
  Tensor embed_in_chunks(const Tensor& tokens, int64_t chunk, const Documents& documents) const;
  Tensor block_in_chunks(size_t layer, const Tensor& x, int64_t chunk, ChunkedSequence& sequence, const Documents& documents) const;
  Tensor head_in_chunks(const Tensor& x, const Tensor& targets, const Tensor& seed, int64_t chunk, bool fused, const Tensor& dy) const;
  void block_backward_in_chunks(size_t layer, const Tensor& x, int64_t chunk, ChunkedSequence& sequence, const Documents& documents,
                                const Tensor& dy) const;
  Tensor embed_chunk(const Tensor& tokens, int64_t first, const Tensor& positions) const;
  Tensor run_blocks(Tensor x, const RecomputePolicy& recompute, const Attending& how = {}) const;
  void store_chunks(const Tensor& tokens, std::span<const int64_t> starts, int64_t chunk, ChunkedSequence& sequence,
                    const Documents& documents) const;
  Tensor chunk_hidden(const Tensor& tokens, int64_t chunk, ChunkedSequence& sequence, const Documents& documents,
                      const RecomputePolicy& recompute) const;
  Tensor chunk_loss(const Tensor& hidden, const Tensor& targets, bool fused) const;
  Tensor normalized(const Tensor& x) const;
  Tensor head(const Tensor& x) const;
  const Tensor& head_weight() const { return (head_ ? head_ : embed_)->value; }
  ModelConfig config_;
  bool plain_attention_ = false;
  Parameters parameters_;
  Parameter* embed_;                  // [V, C]
  Parameter* positions_ = nullptr;    // [max_seq_len, C], learned positions only
  std::vector<DecoderBlock> blocks_;
  Norm* norm_ = nullptr;
  std::deque<Norm> final_norm_;       // one; after the blocks in declaration order
  Parameter* head_ = nullptr;         // [V, C]; null: tied to embed_
  Float8States float8_states_;
  Tensor draws_;  // i64 [2] of dropout; undefined: none
};

/// The deep linear net: x [B, D] -> D x D layers without bias -> [B, 1], trained on squared error.
class Cruncher {
 public:
  explicit Cruncher(const ModelConfig& config);
  Cruncher(const Cruncher&) = delete;
  Parameters& parameters() { return parameters_; }
  /// As of a decoder: all layers but the head.
  void use_float8(Device& device, int64_t window);
  const Float8States& float8_states() const { return float8_states_; }
  /// x [B, D], y [B, 1] -> mean squared error
  Tensor loss(const Tensor& x, const Tensor& y) const;

 private:
  Parameters parameters_;
  std::vector<Linear> layers_;
  Float8States float8_states_;
};
}  // namespace reckon
