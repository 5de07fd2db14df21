// ops/attention_chunk: attention of one chunk of a sequence, whose keys and values of before were kept, and whose gradients wait for it.
#include <algorithm>

#include "reckon/engine/context.h"
#include "reckon/ops/attention_rows.h"
#include "reckon/ops/ops.h"

namespace reckon {
namespace {
// in: part, whole
void plan_store_chunk(Plan& p) {
  const TensorSpec &part = p.in[0], &whole = p.in[1];
  const int64_t first = p.params.as<ChunkParams>().first;
  check(whole.shape.rank() >= 2 && part.shape.rank() >= 2 && part == TensorSpec{whole.shape.with(1, part.shape[1]), whole.dtype},
        "a chunk {} does not match {}", part, whole);
  check(first >= 0 && first <= whole.shape[1] - part.shape[1], "rows {} to {} are not in {}", first, first + part.shape[1], whole);
  p.bytes_moved = checked_multiply(2, part.bytes());
}

// keys, sums of their gradients if there are any, and documents: inputs i, i + 1 and j, j + 1 and the last
void check_keys(const Plan& p, const TensorSpec& qkv, size_t i, size_t j) {
  const auto c = p.params.as<AttentionChunkParams>();
  const AttentionParams& a = c.attention;
  check_qkv(qkv, a);
  check(a.causal, "a chunk sees no later tokens: attention must be causal");
  const TensorSpec &k = p.in[i], &v = p.in[i + 1];
  check(k == v && k.dtype == qkv.dtype && k.shape.rank() == 4 && k.shape == Shape{qkv.shape[0], a.kv_heads, k.shape[2], a.head_dim},
        "keys {} and values {} are not [B, {}, T, {}] of qkv's dtype", k, v, a.kv_heads, a.head_dim);
  const int64_t C = qkv.shape[1], T = k.shape[2];
  check(c.first >= 0 && C <= T && c.first <= T - C, "tokens {} to {} are not in sequences of {}", c.first, c.first + C, T);
  if (c.has_documents) check_documents(p.in.back(), qkv, a);
  if (j + 2 > p.in.size() - c.has_documents) return;
  const TensorSpec sums{k.shape.with(-1, key_sum_width(a.head_dim)), statistics_dtype(k.dtype)};
  check(p.in[j] == sums && p.in[j + 1] == sums, "sums of gradients {} and {} are not {}", p.in[j], p.in[j + 1], sums);
}
// Pairs of the chunk's queries and their keys that count.
int64_t pairs_of(const AttentionChunkParams& c, int64_t B, int64_t C) {
  return score_count(c.attention, B, c.first + C) - score_count(c.attention, B, c.first);
}
// Of the keys and values, or their sums: those that the chunk can see.
int64_t seen_bytes(const AttentionChunkParams& c, const TensorSpec& keys, int64_t C) {
  const AttentionParams& a = c.attention;
  const int64_t seen = a.window > 0 ? std::min(c.first + C, C + a.window - 1) : c.first + C;
  return checked_product({2, keys.bytes() / std::max<int64_t>(keys.shape[2], 1), seen});
}
int64_t documents_bytes(const Plan& p) { return p.params.as<AttentionChunkParams>().has_documents ? p.in.back().bytes() : 0; }

// in: qkv, k, v
void plan_store_keys(Plan& p) {
  check_keys(p, p.in[0], 1, p.in.size());
  const auto a = p.params.as<AttentionChunkParams>().attention;
  p.bytes_moved = checked_product({4, p.in[0].bytes() / (a.heads + 2 * int64_t(a.kv_heads)), a.kv_heads});  // read and written
}
// in: qkv, k, v (, dk, dv) (, documents) -> out, lse
void plan_attention_chunk(Plan& p) {
  check_keys(p, p.in[0], 1, 3);
  const auto c = p.params.as<AttentionChunkParams>();
  const int64_t B = p.in[0].shape[0], C = p.in[0].shape[1], pairs = pairs_of(c, B, C);
  p.output({B, C, int64_t(c.attention.heads) * c.attention.head_dim}, p.in[0].dtype);
  p.output({B, c.attention.heads, C}, statistics_dtype(p.in[0].dtype));
  p.matmul_flops({4, pairs, c.attention.head_dim});
  p.vector_flops({5, pairs});
  p.bytes_moved = checked_sum({p.in[0].bytes(), p.out[0].bytes(), p.out[1].bytes(), seen_bytes(c, p.in[1], C), documents_bytes(p)});
}
// in: dout, qkv, k, v, out, lse, dk, dv (, documents) -> dqkv
void plan_attention_chunk_back(Plan& p) {
  check_keys(p, p.in[1], 2, 6);
  check(p.in[0] == p.in[4], "dout {} does not match out {}", p.in[0], p.in[4]);
  const auto c = p.params.as<AttentionChunkParams>();
  const int64_t B = p.in[1].shape[0], C = p.in[1].shape[1], pairs = pairs_of(c, B, C);
  p.output(p.in[1]);
  p.matmul_flops({8, pairs, c.attention.head_dim});
  p.vector_flops({8, pairs});
  p.bytes_moved = checked_sum({p.in[0].bytes(), p.in[1].bytes(), p.in[4].bytes(), p.in[5].bytes(), p.out[0].bytes(),
                               seen_bytes(c, p.in[2], C), 2 * seen_bytes(c, p.in[6], C), documents_bytes(p)});
}
Tensors vjp_attention_chunk(Vjp& v) {
  Tensors in = tensors(std::move(v.dy[0]), v.in(0), v.in(1), v.in(2), v.out(0), v.out(1), v.in(3), v.in(4));
  Tensors dx(v.node.in_specs().size());
  if (v.as<AttentionChunkParams>().has_documents) in.push_back(v.in(5));
  dx[0] = call(op::attention_chunk_back, std::move(in), v.as<AttentionChunkParams>())[0];
  return dx;
}
}  // namespace

const OpDef op::store_chunk{k_store_chunk, "store_chunk", plan_store_chunk, nullptr, {}, {.mutates = 0b10}};
const OpDef op::store_keys{k_store_keys, "store_keys", plan_store_keys, nullptr, {}, {.mutates = 0b110}};
const OpDef op::attention_chunk{
    k_attention_chunk,         "attention_chunk", plan_attention_chunk, vjp_attention_chunk, {.in = 0b111111, .out = 0b11},
    {.detached_outputs = 0b10}};
const OpDef op::attention_chunk_back{k_attention_chunk_back, "attention_chunk_back", plan_attention_chunk_back, nullptr, {},
                                     {.mutates = 0b11000000}};

int64_t key_sum_width(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

void store_chunk(const Tensor& part, const Tensor& whole, int64_t first) {
  call(op::store_chunk, tensors(part, whole), ChunkParams{first});
}

void store_keys(const Tensor& qkv, const SequenceKeys& keys, int64_t first, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  const AttentionChunkParams c{attention_params(heads, kv_heads, head_dim, true, 0, 0), first};
  call(op::store_keys, tensors(qkv, keys.k, keys.v), c);
}

Tensor attention_chunk(const Tensor& qkv, const SequenceKeys& keys, int64_t first, int64_t heads, int64_t kv_heads, int64_t head_dim,
                       double scale, int64_t window, const Tensor& documents) {
  check(!tracked({keys.k, keys.v}), "attention_chunk: keys are places that chunks write, but they require a gradient");
  check(keys.dk.defined() || !tracked({qkv}),
        "attention_chunk: an input requires a gradient, but there is no place for those of the keys: give keys.dk and keys.dv");
  Tensors in = tensors(qkv, keys.k, keys.v);
  if (keys.dk.defined()) in.insert(in.end(), {keys.dk, keys.dv});
  if (documents.defined()) in.push_back(documents);
  const AttentionParams a = attention_params(heads, kv_heads, head_dim, true, scale, window);
  return call(op::attention_chunk, std::move(in), AttentionChunkParams{a, first, documents.defined()})[0];
}
}  // namespace reckon
