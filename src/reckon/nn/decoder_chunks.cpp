// nn/decoder_chunks: the decoder on sequences whose activations do not fit: a chunk at a time. Forward, chunks leave behind their keys and
// values only; then, from the last chunk to the first, each passes again, recorded, and backward.
#include "reckon/nn/decoder_chunks.h"

#include <algorithm>

#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"

namespace reckon {
namespace {
bool runs_blocks_again(const RecomputePolicy& policy) {
  return std::any_of(policy.begin(), policy.end(), [](const RecomputeRun& run) { return run.mode == BlockRecompute::full; });
}
// Each block on its own.
bool takes_turns(const RecomputePolicy& policy) {
  const auto is_alone = [](const RecomputeRun& run) { return run.mode == BlockRecompute::full && run.blocks == 1; };
  return !policy.empty() && std::all_of(policy.begin(), policy.end(), is_alone);
}
}  // namespace

std::vector<int64_t> chunk_starts(const Tensor& tokens, int64_t chunk, bool plain_attention) {
  check(!plain_attention, "plain attention sees whole sequences: pass no chunks of them");
  check(tokens.rank() >= 2 && tokens.shape()[1] >= 1, "tokens must be [B, T], got {}", tokens);
  check(chunk >= 1, "a chunk must have at least one token, got {}", chunk);
  std::vector<int64_t> starts;
  for (int64_t first = 0; first < tokens.shape()[1]; first += chunk) starts.push_back(first);
  return starts;
}
Tensor tokens_of_chunk(const Tensor& tokens, int64_t first, int64_t chunk) {
  if (!tokens.defined()) return {};
  return contiguous(slice(tokens, 1, first, std::min(first + chunk, tokens.shape()[1])));
}

Tensor count_of(const Tensor& targets, DType dtype) {
  const ModuleScope scope("loss");
  const Tensor ignored = equal(targets, full(targets.device(), {Shape{}, DType::i32}, kIgnoredTarget));
  return affine(sum(cast(ignored, dtype)), -1, double(targets.numel()));
}

void add_to(Tensor& total, Tensor share) { total = total.defined() ? add(std::move(total), std::move(share)) : std::move(share); }

ChunkedSequence::ChunkedSequence(Device& device, const ModelConfig& c, int64_t B, int64_t T, DType dtype)
    : layers(size_t(c.layers)), device_(device), keys_{{B, c.kv_heads, T, c.head_dim}, dtype} {}

void ChunkedSequence::hold_keys(size_t layer) {
  const CategoryScope scope(Category::cache);
  layers[layer].k = zeros(device_, keys_);
  layers[layer].v = zeros(device_, keys_);
}

void ChunkedSequence::hold_gradients(size_t layer) {
  const TensorSpec sums{keys_.shape.with(-1, key_sum_width(keys_.shape.last())), statistics_dtype(keys_.dtype)};
  layers[layer].dk = zeros(device_, sums);
  layers[layer].dv = zeros(device_, sums);
}

// positions: of the chunk's tokens in their documents, or undefined.
Tensor Decoder::embed_chunk(const Tensor& tokens, int64_t first, const Tensor& positions) const {
  const int64_t T = tokens.shape()[1];
  check(!positions_ || first + T <= config_.max_seq_len, "{} tokens are longer than model.max_seq_len {}", first + T, config_.max_seq_len);
  return embed_dropped(tokens, positions_ && !positions.defined() ? arange(tokens.device(), T, DType::i32, double(first)) : positions, first);
}

// The summed loss of a chunk.
Tensor Decoder::chunk_loss(const Tensor& hidden, const Tensor& targets, bool fused) const {
  if (fused) {
    const ModuleScope scope("head");
    return linear_cross_entropy(hidden, head_weight(), targets, kSummed);
  }
  Tensor logits = head(hidden);
  const ModuleScope scope("loss");
  return cross_entropy(std::move(logits), targets, kSummed);
}

// The chunk that begins at sequence.first.
Tensor Decoder::chunk_hidden(const Tensor& tokens, int64_t chunk, ChunkedSequence& sequence, const Documents& documents,
                             const RecomputePolicy& recompute) const {
  const int64_t first = sequence.first;
  Tensor x = embed_chunk(tokens_of_chunk(tokens, first, chunk), first, tokens_of_chunk(documents.positions, first, chunk));
  return normalized(run_blocks(std::move(x), recompute, {.chunk = &sequence, .documents = tokens_of_chunk(documents.first, first, chunk)}));
}

Tensor Decoder::loss_and_backward_in_chunks(const Tensor& tokens, const Tensor& targets, const Tensor& seed, int64_t chunk,
                                            const RecomputePolicy& recompute, bool fused, const Documents& documents) const {
  Device& device = tokens.device();
  check_documents(documents);
  const std::vector<int64_t> starts = chunk_starts(tokens, chunk, plain_attention_);
  if (takes_turns(recompute)) return loss_and_backward_by_blocks(tokens, targets, seed, chunk, fused, documents);
  // The last chunk is where backward begins: it passes once, recorded, unless its blocks would store their keys again when they run again.
  const bool is_last_stored = runs_blocks_again(recompute);
  ChunkedSequence sequence(device, config_, tokens.shape()[0], tokens.shape()[1], embed_->value.dtype());
  {
    const PhaseScope phase(device, Phase::forward);
    for (size_t layer = 0; layer < blocks_.size(); ++layer) sequence.hold_keys(layer);
    store_chunks(tokens, std::span(starts).first(starts.size() - !is_last_stored), chunk, sequence, documents);
  }
  for (size_t layer = 0; layer < blocks_.size(); ++layer) sequence.hold_gradients(layer);
  Tensor total, share, count;
  for (size_t i = starts.size(); i-- > 0;) {
    const Tensor labels = tokens_of_chunk(targets, starts[i], chunk);
    sequence.first = starts[i];
    sequence.stores = i + 1 == starts.size() && !is_last_stored;
    Tensor x;
    {
      const PhaseScope phase(device, Phase::forward);
      x = chunk_hidden(tokens, chunk, sequence, documents, recompute);
      if (!fused) x = chunk_loss(x, labels, false);
    }
    const PhaseScope phase(device, Phase::backward);
    const NoGrad guard;
    if (!share.defined()) {
      count = count_of(targets, seed.dtype());
      share = div(seed, count);
    }
    if (fused) {
      add_to(total, loss_and_backward(std::move(x), labels, share, kSummed));
    } else {
      backward(x, share);
      add_to(total, x.detached());
    }
  }
  const PhaseScope phase(device, Phase::backward);
  const NoGrad guard;
  return div(total, count);
}

// Leaves the keys and values of these chunks. Of the last block nothing else is needed.
void Decoder::store_chunks(const Tensor& tokens, std::span<const int64_t> starts, int64_t chunk, ChunkedSequence& sequence,
                           const Documents& documents) const {
  const NoGrad guard;
  const detail::Restore<bool> recomputing(context().recomputing, true);  // these passes are the ones too many
  sequence.stores = true;
  for (const int64_t first : starts) {
    sequence.first = first;
    Tensor x = embed_chunk(tokens_of_chunk(tokens, first, chunk), first, tokens_of_chunk(documents.positions, first, chunk));
    const Attending how{.chunk = &sequence, .documents = tokens_of_chunk(documents.first, first, chunk)};
    for (size_t i = 0; i + 1 < blocks_.size(); ++i) x = blocks_[i](std::move(x), how);
    blocks_.back().store_keys(x, sequence);
  }
}
}  // namespace reckon
