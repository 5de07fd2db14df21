// ops/transformer: embedding, rotary positions, attention and its cache.
#include <cmath>

#include "reckon/ops/attention_rows.h"
#include "reckon/ops/dtypes.h"
#include "reckon/ops/fallback.h"
#include "reckon/ops/ops.h"

namespace reckon {
namespace {
// ---- embedding. in: table [V, C], ids [...] -> [..., C]
void plan_embedding(Plan& p) {
  check(p.in[0].shape.rank() == 2 && is_float(p.in[0].dtype), "the table must be a floating-point [V, C], got {}", p.in[0]);
  check(p.in[1].dtype == DType::i32, "ids must be i32, got {}", p.in[1].dtype);
  p.output(p.in[1].shape.appended(p.in[0].shape[1]), p.in[0].dtype);
  p.bytes_moved = checked_sum({p.out[0].bytes(), p.out[0].bytes(), p.in[1].bytes()});
}
// in: dy [..., C], ids [...] (, slot [V, C]) -> dtable [V, C], or into the slot
void plan_embedding_back(Plan& p) {
  const auto e = p.params.as<EmbeddingParams>();
  check(p.in[0].shape.without_last() == p.in[1].shape, "dy {} does not match ids {}", p.in[0], p.in[1]);
  const Shape table{e.vocab, p.in[0].shape.last()};
  if (p.in.size() > 2) {
    check(p.in[2] == TensorSpec{table, statistics_dtype(p.in[0].dtype)}, "slot {} is not {}", p.in[2], TensorSpec{table, statistics_dtype(p.in[0].dtype)});
  } else {
    p.output(table, statistics_dtype(p.in[0].dtype));
  }
  p.flops.vector = p.in[0].numel();
  if (p.in.size() > 2 && e.accumulate)  // the rows that are asked for, not the table
    p.bytes_moved = p.in[0].bytes() + p.in[1].bytes() + 2 * p.in[0].numel() * size_of(p.in[2].dtype);
}
Tensors vjp_embedding(Vjp& v) {
  Tensors dx(2);
  if (!v.needs_in(0)) return dx;
  EmbeddingParams e{int32_t(v.node.in_specs()[0].shape[0]), false};
  const Tensor slot = v.slot(0);
  if (slot.defined() && slot.dtype() == statistics_dtype(v.dy[0].dtype())) {  // the kernel adds in that dtype only
    e.accumulate = v.slot_filled(0);
    call(op::embedding_back, tensors(v.dy[0], v.in(1), slot), e);
    v.filled(0);
  } else {
    dx[0] = cast(call(op::embedding_back, tensors(v.dy[0], v.in(1)), e)[0], gradient_dtype(v, 0));
  }
  return dx;
}

// dtable is linear in dy; rows whose id is outside the table are not in it.
Tensors vjp_embedding_back(Vjp& v) {
  const TensorSpec dy = v.node.in_specs()[0];
  const auto scalar = [&](DType dtype, double value) { return full(v.node.device(), {Shape{}, dtype}, value); };
  const Tensor list = v.in(1), ids = unsqueeze(list, -1), zero = scalar(dy.dtype, 0);
  const Tensor rows = embedding(cast(v.dy[0], dy.dtype), list);
  Tensors d(v.node.in_specs().size());
  d[0] = where(less(ids, scalar(DType::i32, 0)), zero, where(less(ids, scalar(DType::i32, v.as<EmbeddingParams>().vocab)), rows, zero));
  return d;
}

// ---- rope. in: x [B, T, heads D] (, position i64 [1]) -> y
void plan_rope(Plan& p) {
  const auto r = p.params.as<RopeParams>();
  check(is_float(p.in[0].dtype) && p.in[0].shape.rank() == 3, "x must be a floating-point [B, T, heads D], got {}", p.in[0]);
  check(r.head_dim % 2 == 0, "head_dim {} is odd; rotary positions need pairs", r.head_dim);
  check(int64_t(r.rotated_heads) * r.head_dim <= p.in[0].shape.last(), "{} heads of {} do not fit in {}", r.rotated_heads, r.head_dim, p.in[0]);
  if (r.has_position) check(p.in[1] == TensorSpec{{1}, DType::i64}, "position must be i64[1], got {}", p.in[1]);
  p.output(p.in[0]);
  p.vector_flops({3, p.in[0].shape.rows(), r.rotated_heads, r.head_dim});
}
Tensors vjp_rope(Vjp& v) {
  auto r = v.as<RopeParams>();
  r.inverse = !r.inverse;
  Tensors dx(v.node.in_specs().size());
  dx[0] = call(op::rope, r.has_position ? tensors(std::move(v.dy[0]), v.in(1)) : tensors(std::move(v.dy[0])), r)[0];
  return dx;
}

// ---- attention. in: qkv [B, T, (H + 2 KV) D] (, documents i32 [B, T]) -> out [B, T, H D], lse [B, H, T]
int64_t packed_width(const AttentionParams& a) { return checked_multiply(a.heads + 2 * int64_t(a.kv_heads), a.head_dim); }
}  // namespace
void check_qkv(const TensorSpec& qkv, const AttentionParams& a) {
  check(a.heads > 0 && a.kv_heads > 0 && a.heads % a.kv_heads == 0, "{} heads are not a multiple of {} key-value heads", a.heads, a.kv_heads);
  check(a.head_dim >= 1 && a.head_dim <= 256, "head_dim {} is outside 1 to 256", a.head_dim);
  check(a.window == 0 || (a.window > 0 && a.causal), "a window of {} tokens; it must be positive, and attention causal", a.window);
  check(is_float(qkv.dtype) && qkv.shape.rank() == 3 && qkv.shape.last() == packed_width(a), "qkv {} is not [B, T, {}]", qkv,
        packed_width(a));
}
void check_documents(const TensorSpec& documents, const TensorSpec& qkv, const AttentionParams& a) {
  check(documents == TensorSpec{{qkv.shape[0], qkv.shape[1]}, DType::i32}, "documents {} are not i32[{}, {}]", documents, qkv.shape[0],
        qkv.shape[1]);
  check(a.causal, "documents need causal attention");
}
int64_t score_count(const AttentionParams& a, int64_t B, int64_t T) {
  const int64_t unseen = a.window > 0 && a.window < T ? T - a.window : 0;  // tokens that the window hides from the last one
  const int64_t pairs = a.causal ? checked_multiply(T, T + 1) / 2 - checked_multiply(unseen, unseen + 1) / 2 : checked_multiply(T, T);
  return checked_product({B, a.heads, pairs});
}
AttentionParams attention_params(int64_t heads, int64_t kv_heads, int64_t head_dim, bool causal, double scale, int64_t window) {
  return {scale != 0 ? scale : 1.0 / std::sqrt(double(head_dim)), int32_t(heads), int32_t(kv_heads), int32_t(head_dim), causal, window};
}

namespace {
void plan_attention(Plan& p) {
  const auto a = p.params.as<AttentionParams>();
  check_qkv(p.in[0], a);
  if (p.in.size() > 1) check_documents(p.in[1], p.in[0], a);
  const int64_t B = p.in[0].shape[0], T = p.in[0].shape[1];
  p.output({B, T, int64_t(a.heads) * a.head_dim}, p.in[0].dtype);
  p.output({B, a.heads, T}, statistics_dtype(p.in[0].dtype));
  p.matmul_flops({4, score_count(a, B, T), a.head_dim});
  p.vector_flops({5, score_count(a, B, T)});
}
// in: dout, qkv, out, lse (, documents) -> dqkv
void plan_attention_back(Plan& p) {
  const auto a = p.params.as<AttentionParams>();
  check_qkv(p.in[1], a);
  const int64_t B = p.in[1].shape[0], T = p.in[1].shape[1];
  check(p.in[0] == p.in[2], "dout {} does not match out {}", p.in[0], p.in[2]);
  p.output(p.in[1]);
  p.matmul_flops({8, score_count(a, B, T), a.head_dim});  // dV, dP, dQ, dK; what a backend computes again it books
  p.vector_flops({8, score_count(a, B, T)});
}
Tensors vjp_attention(Vjp& v) {
  Tensors in = tensors(std::move(v.dy[0]), v.in(0), v.out(0), v.out(1)), dx(v.node.in_specs().size());
  if (dx.size() > 1) in.push_back(v.in(1));
  dx[0] = call(op::attention_back, std::move(in), v.as<AttentionParams>())[0];
  return dx;
}

// While backward is recorded, the T x T scores are made after all.
Tensors attention_fallback(Vjp& v) {
  const auto a = v.as<AttentionParams>();
  Tensors d(v.node.in_specs().size());
  const Tensor documents = d.size() > 1 ? v.in(1) : Tensor();
  d[0] = differentiated({v.in(0)}, v.dy[0], v.needs, [=](const Tensors& in) {
    return attention_plain(in[0], a.heads, a.kv_heads, a.head_dim, a.causal, a.scale, a.window, documents);
  })[0];
  return d;
}

// ---- generation: caches [B, KV, max_T, D], position i64 [1]
void check_cache(const Plan& p, const AttentionParams& a, size_t k, size_t v, size_t position) {
  check_qkv(p.in[0], a);
  const Shape& c = p.in[k].shape;
  check(p.in[k] == p.in[v] && c.rank() == 4 && c[0] == p.in[0].shape[0] && c[1] == a.kv_heads && c[3] == a.head_dim && p.in[k].dtype == p.in[0].dtype,
        "caches {} and {} are not [B, {}, max_T, {}] of qkv's dtype", p.in[k], p.in[v], a.kv_heads, a.head_dim);
  check(p.in[position] == TensorSpec{{1}, DType::i64}, "position must be i64[1], got {}", p.in[position]);
}
void plan_kv_append(Plan& p) { check_cache(p, p.params.as<AttentionParams>(), 1, 2, 3); }  // qkv, k, v, position
void plan_attention_cached(Plan& p) {                                                      // qkv, k, v, position -> out
  const auto a = p.params.as<AttentionParams>();
  check_cache(p, a, 1, 2, 3);
  const int64_t B = p.in[0].shape[0], T = p.in[0].shape[1], longest = p.in[1].shape[2];
  p.output({B, T, int64_t(a.heads) * a.head_dim}, p.in[0].dtype);
  // bounds: the position is not known to the plan
  const int64_t seen = a.window > 0 ? std::min(a.window, longest) : longest;
  p.matmul_flops({4, B, T, a.heads, a.head_dim, seen});
  p.vector_flops({5, B, T, a.heads, seen});
}
}  // namespace

const OpDef op::embedding{k_embedding, "embedding", plan_embedding, vjp_embedding, {.in = 0b10}};
const OpDef op::embedding_back{k_embedding_back, "embedding_back", plan_embedding_back, vjp_embedding_back, {.in = 0b10}, {.mutates = 0b100}};
const OpDef op::rope{k_rope, "rope", plan_rope, vjp_rope, {.in = 0b10}, {.reuse = 0b1}};
const OpDef op::attention{k_attention, "attention", plan_attention, vjp_attention, {.in = 0b11, .out = 0b11}, {.detached_outputs = 0b10, .fallback = attention_fallback, .autocast = AutocastPolicy::low}};
const OpDef op::attention_back{k_attention_back, "attention_back", plan_attention_back};
const OpDef op::kv_append{k_kv_append, "kv_append", plan_kv_append, nullptr, {}, {.mutates = 0b110}};
const OpDef op::attention_cached{k_attention_cached, "attention_cached", plan_attention_cached};

Tensor embedding(const Tensor& table, const Tensor& ids) { return call(op::embedding, tensors(table, to_ids(ids)))[0]; }
Tensor rope(Tensor x, int64_t rotated_heads, int64_t head_dim, double theta, const Tensor& position, int64_t first) {
  check(first >= 0 && (first == 0 || !position.defined()), "rope: the first position is {}, or in a tensor, but not both", first);
  const RopeParams r{theta, int32_t(rotated_heads), int32_t(head_dim), false, position.defined(), first};
  return call(op::rope, position.defined() ? tensors(std::move(x), position) : tensors(std::move(x)), r)[0];
}

Tensor attention(const Tensor& qkv, int64_t heads, int64_t kv_heads, int64_t head_dim, bool causal, double scale, int64_t window,
                 const Tensor& documents) {
  return call(op::attention, documents.defined() ? tensors(qkv, documents) : tensors(qkv),
              attention_params(heads, kv_heads, head_dim, causal, scale, window))[0];
}

Tensor attention_plain(const Tensor& qkv, int64_t heads, int64_t kv_heads, int64_t head_dim, bool causal, double scale, int64_t window,
                       const Tensor& documents) {
  check(window == 0 || (window > 0 && causal), "attention_plain: a window of {} tokens; it must be positive, and attention causal", window);
  check(kv_heads > 0 && heads % kv_heads == 0 && qkv.rank() == 3 && qkv.shape().last() == (heads + 2 * kv_heads) * head_dim, "attention_plain: qkv {} is not [B, T, ({} + 2 {}) {}]",
        qkv, heads, kv_heads, head_dim);
  const int64_t B = qkv.shape()[0], T = qkv.shape()[1], group = heads / kv_heads, D = head_dim;
  const Tensor split = reshape(qkv, {B, T, heads + 2 * kv_heads, D});
  // [B, KV, group, T, D]: the query heads of a group share one key head by broadcasting.
  const Tensor q = reshape(permute(slice(split, 2, 0, heads), {0, 2, 1, 3}), {B, kv_heads, group, T, D});
  const Tensor k = unsqueeze(permute(slice(split, 2, heads, heads + kv_heads), {0, 2, 1, 3}), 2);
  const Tensor v = unsqueeze(permute(slice(split, 2, heads + kv_heads, heads + 2 * kv_heads), {0, 2, 1, 3}), 2);
  const AttentionParams params = attention_params(heads, kv_heads, D, causal, scale, window);
  if (documents.defined()) check_documents(documents.spec(), qkv.spec(), params);
  const int64_t needed = checked_multiply(score_count(params, B, T), D);
  Tensor scores = affine(matmul_of_pairs(q, transpose(k), needed), scale != 0 ? scale : 1.0 / std::sqrt(double(D)));
  const auto hide_unless = [&](const Tensor& seen) { scores = where(seen, scores, full(qkv.device(), {Shape{}, qkv.dtype()}, -INFINITY)); };
  if (causal) hide_unless(causal_mask(qkv.device(), T, T, window));
  if (documents.defined()) hide_unless(less_equal(view(documents, {B, 1, 1, T, 1}), arange(qkv.device(), T, DType::i32)));
  const Tensor out = matmul_of_pairs(call(op::softmax, tensors(std::move(scores)))[0], v, needed);  // in place
  return reshape(permute(reshape(out, {B, heads, T, D}), {0, 2, 1, 3}), {B, T, heads * D});
}

Tensor attention_with_cache(const Tensor& qkv, const Tensor& k_cache, const Tensor& v_cache, const Tensor& position, int64_t heads, int64_t kv_heads,
                            int64_t head_dim, double scale, int64_t window) {
  const AttentionParams a = attention_params(heads, kv_heads, head_dim, true, scale, window);
  // Refused before the caches are written, not between the two operations.
  check(!tracked({qkv, k_cache, v_cache}), "attention_with_cache: has no gradient rule, but an input requires one: use it under NoGrad");
  call(op::kv_append, tensors(qkv, k_cache, v_cache, position), a);
  return call(op::attention_cached, tensors(qkv, k_cache, v_cache, position), a)[0];
}
}  // namespace reckon
