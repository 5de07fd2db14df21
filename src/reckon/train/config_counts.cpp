#include "reckon/train/config_counts.h"

#include <algorithm>
#include <cmath>

#include "reckon/base/error.h"
#include "reckon/train/config_table.h"
#include "reckon/train/recompute.h"

namespace reckon {
namespace {
using Keys = std::vector<std::string_view>;

// One product of a bound, and the keys it is a product of.
struct Term {
  double count;
  Keys keys;
};
struct Bound {
  const char* what;  // "... takes"
  const char* unit;
  std::vector<Term> terms;
  double sum() const {
    double total = 0;
    for (const Term& t : terms) total += t.count;
    return total;
  }
};

Keys joined(Keys a, const Keys& b) {
  for (const std::string_view key : b)
    if (std::find(a.begin(), a.end(), key) == a.end()) a.push_back(key);
  return a;
}

// The sizes that bounds are made of.
struct Sizes {
  double tokens, seq_len, batches, layers, width, qkv, heads, inner, up, vocab, parameters, layer_weights, head_weights;
  double padded_kv;    // keys and values of a token, each head in whole vectors
  double padded_head;  // an attention kernel computes whole vectors of up to 16
  bool recompute, dropout, plain;  // plain: attention's scores of all pairs in memory
  double chunks, chunk;   // of a sequence, and tokens of one
  Keys token_keys = {"train.micro_batch", "train.seq_len"}, batch_keys = {"train.grad_accum", "train.micro_batch", "train.seq_len"},
       width_keys;

  explicit Sizes(const Config& c) {
    const ModelConfig& m = c.model;
    seq_len = m.cruncher ? 1 : double(c.train.seq_len);
    tokens = double(c.train.micro_batch) * seq_len;
    batches = double(c.train.grad_accum);
    layers = double(m.layers);
    width = double(m.d_model);
    recompute = recomputes(c.train);
    dropout = m.dropout > 0;
    plain = c.train.attention == AttentionKind::plain;
    chunk = is_chunked(c.train) ? double(c.train.sequence_chunk) : seq_len;
    chunks = std::ceil(seq_len / chunk);
    parameters = double(parameter_count(m));
    if (m.cruncher) {
      qkv = heads = inner = up = padded_kv = padded_head = 0;
      vocab = 1;
      layer_weights = width * width;
      token_keys = {"train.micro_batch"};
      batch_keys = {"train.grad_accum", "train.micro_batch"};
    } else {
      heads = double(m.heads);
      qkv = double(m.heads + 2 * m.kv_heads) * double(m.head_dim);
      inner = double(m.d_ff);
      up = m.mlp == MlpKind::swiglu ? 2 * inner : inner;
      vocab = double(m.vocab);
      padded_head = double((m.head_dim + 15) / 16 * 16);
      padded_kv = 2 * double(m.kv_heads) * padded_head;
      layer_weights = width * (qkv + heads * double(m.head_dim) + up + inner);
    }
    head_weights = width * vocab;
    // Whoever is widest is to blame.
    if (qkv > std::max(width, up))
      width_keys = {"model.heads", "model.head_dim"};
    else
      width_keys = up > width ? Keys{"model.d_ff"} : Keys{"model.d_model"};
  }
  // Scores of all pairs of tokens of a micro-batch in one block, where they are in memory.
  double scores() const { return plain ? tokens * seq_len * heads : 0; }
  // Values that a block makes of one token, a few times over: kept ones, gradients and scratch.
  double block_values() const { return 16 * (width + qkv + inner + up); }
};

Bound tensor_bytes(const Sizes& s) {
  return {"the run's tensors take",
          "bytes",
          {{24 * s.parameters, {"model.layers", "model.d_model", "model.vocab"}},
           {4 * s.tokens * s.layers * s.block_values(), joined(joined({"model.layers"}, s.token_keys), s.width_keys)},
           {(8 * s.layers + 40) * s.scores(), joined({"model.layers", "model.heads"}, s.token_keys)},
           {64 * s.tokens * (s.vocab + s.width), joined(s.token_keys, {s.vocab > s.width ? "model.vocab" : "model.d_model"})},
           {0x1p50, {}}}};  // blocks rounded up, scratch of kernels
}

Bound moved_bytes(const Sizes& s) {
  return {"the memory traffic of a step takes",
          "bytes",
          {{100 * s.parameters, {"model.layers", "model.d_model", "model.vocab"}},
           {s.batches * s.tokens * 4 * s.block_values(), joined(s.batch_keys, s.width_keys)},
           {s.batches * s.tokens * 64 * s.vocab, joined(s.batch_keys, {"model.vocab"})},
           {s.batches * 64 * s.scores(), joined({"model.heads"}, s.batch_keys)},
           {s.batches * s.tokens * s.chunks * 64 * s.padded_kv, joined(s.batch_keys, s.width_keys)},  // keys and values, for each chunk
           {s.batches * s.chunks * 64 * (s.layer_weights + s.head_weights), {"train.grad_accum", "model.d_model", "model.vocab"}},
           {0x1p20, {}}}};
}

Bound matrix_flops(const Sizes& s) {
  const double again = s.recompute + (s.chunks > 1);  // forward passes beyond the first
  const double passes = 6 + 2 * again;                // 2 a multiply-add, forward and twice backward
  // Query rows and keys as kernels see them: in whole vectors and tiles, the mask cut per tile of 64 keys.
  const double pairs = s.plain ? s.seq_len * s.seq_len : s.chunks * (s.chunk + 15) * ((s.seq_len + 1) / 2 + 64), products = 9 + 2 * again;
  return {"the matrix work of a step takes",
          "FLOPs",
          {{s.batches * s.tokens * passes * s.layers * s.layer_weights,
            joined(joined({"model.layers", "model.d_model"}, s.batch_keys), s.width_keys)},
           {s.batches * s.tokens * 6 * s.head_weights, joined(s.batch_keys, {"model.d_model", "model.vocab"})},
           {s.batches * s.tokens / s.seq_len * s.layers * s.heads * 2 * products * pairs * s.padded_head,
            joined({"model.layers", "model.heads", "model.head_dim"}, s.batch_keys)}}};
}

Bound vector_flops(const Sizes& s) {
  return {"the arithmetic of a step takes",
          "FLOPs",
          {{40 * s.parameters, {"model.layers", "model.d_model", "model.vocab"}},
           {s.batches * 16 * s.layers * s.layer_weights, joined(joined({"train.grad_accum", "model.layers"}, s.width_keys), {"model.d_model"})},
           {s.batches * s.tokens * 4 * s.layers * s.block_values(), joined(joined({"model.layers"}, s.batch_keys), s.width_keys)},
           {s.dropout ? s.batches * s.tokens * 7 * 8 * s.layers * s.width : 0, joined({"model.layers", "model.d_model"}, s.batch_keys)},
           {s.batches * s.tokens * 64 * (s.vocab + s.width), joined(s.batch_keys, {"model.vocab"})},
           {s.batches * s.tokens * s.layers * s.heads * (s.plain ? 46 : 23) * (s.seq_len + 1) / 2,
            joined({"model.layers", "model.heads"}, s.batch_keys)},
           {0x1p20, {}}}};  // a few numbers of the whole step
}

void check_bound(const Config& config, const Bound& bound) {
  if (bound.sum() < 0x1p63) return;
  const Term& largest =
      *std::max_element(bound.terms.begin(), bound.terms.end(), [](const Term& a, const Term& b) { return a.count < b.count; });
  std::string product;
  for (const std::string_view key : largest.keys)
    if (value_text(config, *find_key(key)) != "1")
      product += text("{}{} = {}", product.empty() ? "" : " times ", key, value_text(config, *find_key(key)));
  fail_as(Failure::usage, "{} some {:.1e} {}, above the 2^63 - 1 that can be counted, mostly by {}: lower one of them", bound.what,
          bound.sum(), bound.unit, product);
}
}  // namespace

CountBounds count_bounds(const Config& config) {
  const Sizes s(config);
  return {tensor_bytes(s).sum(), moved_bytes(s).sum(), matrix_flops(s).sum(), vector_flops(s).sum()};
}

void check_counts(const Config& config) {
  const Sizes s(config);
  for (const Bound& bound : {tensor_bytes(s), matrix_flops(s), vector_flops(s), moved_bytes(s)}) check_bound(config, bound);
}
}  // namespace reckon
