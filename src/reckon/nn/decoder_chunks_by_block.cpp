// nn/decoder_chunks_by_block: sequences in chunks where blocks take turns: a block takes all chunks before the next one begins, so that
// keys, values and their gradients are held of one block only, and the inputs of all.
#include "reckon/base/text.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/nn/decoder_chunks.h"

namespace reckon {
namespace {
std::string name_of_block(size_t layer) { return text("blocks.{}", layer); }

// What chunks are copied out of and into belongs to the module whose input or output it is.
Tensor rows_for(const std::string& module, Device& device, const TensorSpec& spec) {
  const ModuleScope scope(module);
  return zeros(device, spec);
}
// The chunk that begins at `first` of whole [B, T, C].
Tensor get_chunk(const std::string& module, const Tensor& whole, int64_t first, int64_t chunk) {
  const ModuleScope scope(module);
  return tokens_of_chunk(whole, first, chunk);
}
void put_chunk(const std::string& module, const Tensor& part, const Tensor& whole, int64_t first) {
  const NoGrad guard;
  const ModuleScope scope(module);
  store_chunk(part, whole, first);
}

// The same numbers as a leaf whose gradient is wanted.
Tensor leaf_of_chunk(const std::string& module, const Tensor& whole, int64_t first, int64_t chunk) {
  Tensor leaf = get_chunk(module, whole, first, chunk).detached();
  leaf.set_requires_grad();
  return leaf;
}
}  // namespace

Tensor Decoder::embed_in_chunks(const Tensor& tokens, int64_t chunk, const Documents& documents) const {
  const Tensor x = rows_for("embed", tokens.device(), {tokens.shape().appended(config_.d_model), embed_->value.dtype()});
  for (const int64_t first : chunk_starts(tokens, chunk, plain_attention_))
    put_chunk("embed", embed_chunk(tokens_of_chunk(tokens, first, chunk), first, tokens_of_chunk(documents.positions, first, chunk)), x,
              first);
  return x;
}

Tensor Decoder::block_in_chunks(size_t layer, const Tensor& x, int64_t chunk, ChunkedSequence& sequence, const Documents& documents) const {
  const std::string name = name_of_block(layer);
  const Tensor y = rows_for(name, x.device(), x.spec());
  sequence.hold_keys(layer);
  sequence.stores = true;
  for (sequence.first = 0; sequence.first < x.shape()[1]; sequence.first += chunk) {
    const Attending how{.chunk = &sequence, .documents = tokens_of_chunk(documents.first, sequence.first, chunk)};
    put_chunk(name, blocks_[layer](get_chunk(name, x, sequence.first, chunk), how), y, sequence.first);
  }
  sequence.release(layer);
  return y;
}

Tensor Decoder::loss_in_chunks(const Tensor& tokens, const Tensor& targets, int64_t chunk, bool fused, const Documents& documents) const {
  const NoGrad guard;
  check_documents(documents);
  ChunkedSequence sequence(tokens.device(), config_, tokens.shape()[0], tokens.shape()[1], embed_->value.dtype());
  Tensor x = embed_in_chunks(tokens, chunk, documents), total;
  for (size_t layer = 0; layer < blocks_.size(); ++layer) x = block_in_chunks(layer, x, chunk, sequence, documents);
  for (const int64_t first : chunk_starts(tokens, chunk, plain_attention_))
    add_to(total, chunk_loss(normalized(get_chunk("head", x, first, chunk)), tokens_of_chunk(targets, first, chunk), fused));
  return div(total, count_of(targets, total.dtype()));
}

// From the last chunk to the first: the loss of each, and in dy the gradient of what the head reads.
Tensor Decoder::head_in_chunks(const Tensor& x, const Tensor& targets, const Tensor& seed, int64_t chunk, bool fused,
                               const Tensor& dy) const {
  const Tensor count = count_of(targets, seed.dtype()), share = div(seed, count);
  const std::vector<int64_t> starts = chunk_starts(targets, chunk, plain_attention_);
  Tensor total;
  for (size_t i = starts.size(); i-- > 0;) {
    const Tensor leaf = leaf_of_chunk("head", x, starts[i], chunk), labels = tokens_of_chunk(targets, starts[i], chunk);
    Tensor y;
    {
      const EnableGrad guard;
      y = normalized(leaf);
      if (!fused) y = chunk_loss(y, labels, false);
    }
    if (fused) {
      add_to(total, loss_and_backward(std::move(y), labels, share, kSummed));
    } else {
      backward(y, share);
      add_to(total, y.detached());
    }
    put_chunk("head", leaf.grad(), dy, starts[i]);
  }
  return div(total, count);
}

// The block once more on its input x, and backward: dy, the gradient of what it gave, becomes that of x.
void Decoder::block_backward_in_chunks(size_t layer, const Tensor& x, int64_t chunk, ChunkedSequence& sequence, const Documents& documents,
                                       const Tensor& dy) const {
  const detail::Restore<bool> recomputing(context().recomputing, true);
  const std::string name = name_of_block(layer);
  const std::vector<int64_t> starts = chunk_starts(x, chunk, plain_attention_);
  sequence.hold_keys(layer);
  for (const int64_t first : starts) {
    sequence.first = first;
    blocks_[layer].store_keys(get_chunk(name, x, first, chunk), sequence);
  }
  sequence.hold_gradients(layer);
  sequence.stores = false;
  for (size_t i = starts.size(); i-- > 0;) {
    const Tensor leaf = leaf_of_chunk(name, x, starts[i], chunk);
    sequence.first = starts[i];
    Tensor y;
    {
      const EnableGrad guard;
      y = blocks_[layer](leaf, {.chunk = &sequence, .documents = tokens_of_chunk(documents.first, starts[i], chunk)});
    }
    const detail::Restore<bool> needed(context().recomputing, false);
    backward(y, get_chunk(name, dy, starts[i], chunk));
    put_chunk(name, leaf.grad(), dy, starts[i]);
  }
  sequence.release(layer);
}

Tensor Decoder::loss_and_backward_by_blocks(const Tensor& tokens, const Tensor& targets, const Tensor& seed, int64_t chunk, bool fused,
                                            const Documents& documents) const {
  Device& device = tokens.device();
  const NoGrad guard;
  ChunkedSequence sequence(device, config_, tokens.shape()[0], tokens.shape()[1], embed_->value.dtype());
  Tensors inputs;  // of each block and of the head, [B, T, C]
  {
    const PhaseScope phase(device, Phase::forward);
    inputs.push_back(embed_in_chunks(tokens, chunk, documents));
    for (size_t layer = 0; layer < blocks_.size(); ++layer)
      inputs.push_back(block_in_chunks(layer, inputs.back(), chunk, sequence, documents));
  }
  const PhaseScope phase(device, Phase::backward);
  const Tensor dy = rows_for("head", device, inputs.back().spec());
  Tensor loss = head_in_chunks(inputs.back(), targets, seed, chunk, fused, dy);
  inputs.pop_back();
  for (size_t layer = blocks_.size(); layer-- > 0; inputs.pop_back())
    block_backward_in_chunks(layer, inputs.back(), chunk, sequence, documents, dy);
  const std::vector<int64_t> starts = chunk_starts(tokens, chunk, plain_attention_);
  for (size_t i = starts.size(); i-- > 0;) {
    const EnableGrad recorded;
    Tensor x;
    {
      const detail::Restore<bool> recomputing(context().recomputing, true);
      x = embed_chunk(tokens_of_chunk(tokens, starts[i], chunk), starts[i], tokens_of_chunk(documents.positions, starts[i], chunk));
    }
    if (x.requires_grad()) backward(x, get_chunk("embed", dy, starts[i], chunk));
  }
  return loss;
}
}  // namespace reckon
