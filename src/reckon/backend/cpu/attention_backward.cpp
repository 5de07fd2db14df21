// backend/cpu/attention_backward: gradients of one block of query rows, or of one tile of keys, with the probabilities recomputed from the
// log-sum-exp. Compiled once per instruction set. As forward, rows are vector lanes.
#include <algorithm>
#include <cstring>

#include "reckon/backend/cpu/vec_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/attention_backward.cpp"
// clang-format off
#include "hwy/foreach_target.h"
#include "reckon/backend/cpu/attention_rows-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::detail::HWY_NAMESPACE {
namespace {

/// Scratch that the blocks of a span share. Widths are padded heads.
struct Tiles {
  KeyTile k, v;
  float *p, *ds;     // [kKeys, kScoreStride]
  uint16_t* ds_row;  // of pairs, [kKeys, kScoreStride]: ds once more, as rows; p is rows of bf16 in place, with stride 2 * kScoreStride
  float* rest;
};
HWY_INLINE Tiles tiles_at(const HeadGroup& g, float* at) {
  const int64_t keys = padded(g.head_dim) * kKeys, scores = kScoreStride * kKeys;
  float* p = at + 2 * keys;
  return {{at}, {at + keys}, p, p + scores, reinterpret_cast<uint16_t*>(p + 2 * scores), p + 2 * scores + scores / 2};
}

/// One block of rows, and what it needs throughout: the log-sum-exp in base 2, and delta = dout . out.
struct Block {
  Rows r;
  float lse2[kRows], delta[kRows];
  float *q_transposed, *dout_transposed;  // [head_dim, kRows]; q is scaled for base 2. Of pairs: as they are
  float *q, *dout, *dq;                   // [kRows, width]; q and dout of pairs: by pairs of rows
};

HWY_INLINE float dot(const float* a, const float* b, int64_t n) {
  Vec sum = hn::Zero(Floats());
  for (int64_t i = 0; i < n; i += kLanes) sum = hn::MulAdd(load(a + i), load(b + i), sum);
  return hn::GetLane(hn::SumOfLanes(Floats(), sum));
}

/// Loads q, dout, both transposed, and the statistics. Delta is computed from out (and left in back.delta), or taken from there.
HWY_INLINE void load_block(const HeadGroup& g, const HeadGroupBack& back, int64_t row, bool compute_delta, float* at, Block& b) {
  const int64_t width = padded(g.head_dim), part = width * kRows;
  b.r = rows_of(g, row);
  b.q_transposed = at, b.dout_transposed = at + part, b.q = at + 2 * part, b.dout = at + 3 * part, b.dq = at + 4 * part;
  load_query_rows(g, back.dout, g.out_stride, b.r, b.dout);
  if (compute_delta) load_query_rows(g, g.out, g.out_stride, b.r, b.q);
  std::memset(b.lse2, 0, sizeof b.lse2);
  std::memset(b.delta, 0, sizeof b.delta);
  const float* lse = reinterpret_cast<const float*>(g.lse);
  for (int64_t i = 0; i < b.r.rows; ++i) {
    const int64_t from = (row + i) % g.group * g.query_tokens + (row + i) / g.group;
    b.lse2[i] = lse[from] * kLog2E;
    b.delta[i] = compute_delta ? dot(b.dout + i * width, b.q + i * width, width) : back.delta[from];
    if (compute_delta && back.delta) back.delta[from] = b.delta[i];
  }
  if (g.pairs) {
    load_query_pairs(g, g.q, g.q_stride, b.r, b.dq, b.q_transposed, b.q);
    load_query_pairs(g, back.dout, g.out_stride, b.r, b.dq, b.dout_transposed, b.dout);
    return;
  }
  load_query_rows(g, g.q, g.q_stride, b.r, b.q);
  transpose(b.q, padded(b.r.rows), width, width, float(g.scale) * kLog2E, b.q_transposed, kRows);
  transpose(b.dout, padded(b.r.rows), width, width, 1.0f, b.dout_transposed, kRows);
}

/// p = 2^(score - lse) and ds = p * (dp - delta) for one vector of rows; both are zero where the mask hides the key.
HWY_INLINE void gradients_vec(const Seen& seen, int64_t count, int64_t at, const Block& b, float* p, float* ds) {
  const Vec lse2 = load(b.lse2 + at), delta = load(b.delta + at);
  const auto masked = [&](int64_t j) RECKON_VEC {
    const int64_t i = j * kScoreStride + at;
    const auto mask = sees(seen, j);
    const Vec probability = hn::IfThenElseZero(mask, exp2(hn::Sub(load(p + i), lse2)));
    store(probability, p + i);
    store(hn::IfThenElseZero(mask, hn::Mul(probability, hn::Sub(load(ds + i), delta))), ds + i);
  };
  const auto hidden = [&](int64_t j) RECKON_VEC {
    store(hn::Zero(Floats()), p + j * kScoreStride + at);
    store(hn::Zero(Floats()), ds + j * kScoreStride + at);
  };
  int64_t j = 0;
  for (; j < seen.none; ++j) hidden(j);
  for (; j < seen.part; ++j) masked(j);
  for (; j < seen.all; ++j) {
    const int64_t i = j * kScoreStride + at;
    const Vec probability = exp2(hn::Sub(load(p + i), lse2));
    store(probability, p + i);
    store(hn::Mul(probability, hn::Sub(load(ds + i), delta)), ds + i);
  }
  for (; j < seen.some; ++j) masked(j);
  for (; j < count; ++j) hidden(j);
}

/// p and ds [key][row] of the block and the loaded tile of keys first_key + [0, count).
HWY_INLINE void tile_gradients(const HeadGroup& g, const Block& b, int64_t first_key, int64_t count, const Tiles& t, Ahead& ahead) {
  tile_scores(g, b.r, first_key, count, t.k, b.q_transposed, float(g.scale) * kLog2E, t.p, ahead);
  tile_scores(g, b.r, first_key, count, t.v, b.dout_transposed, 1.0f, t.ds, ahead);
  for (int64_t vec = 0; vec < b.r.vecs; ++vec) gradients_vec(seen_keys(b.r, vec, first_key, count), count, vec * kLanes, b, t.p, t.ds);
  clear_odd_end(g, count, t.ds);
  if (!g.pairs) return;
  for (int64_t j = 0; j < count; ++j) {
    float* const p = t.p + j * kScoreStride;
    round_to_row(p, b.r.vecs * kLanes, reinterpret_cast<uint16_t*>(p));
    round_to_row(t.ds + j * kScoreStride, b.r.vecs * kLanes, t.ds_row + j * kScoreStride);
  }
  pair_keys(b.r, count, t.ds);
}

/// dq[i] += sum over keys of ds[j][i] * k[j].
HWY_INLINE void add_query_gradient(const HeadGroup& g, const Block& b, int64_t first_key, int64_t count, const Tiles& t, Ahead& ahead) {
  const int64_t width = padded(g.head_dim);
  for (int64_t i = 0; i < b.r.rows; i += kTileRows) {
    ahead.fetch();
    const int64_t rows = std::min<int64_t>(kTileRows, b.r.rows - i);
    const KeyRange range = key_range(g, b.r, i, rows, first_key, count);
    if (range.keys <= 0) continue;
    const float* const from = t.ds + range.start * kScoreStride + i;
    float* const to = b.dq + i * width;
    if (g.pairs) {
      const uint32_t* const keys = t.k.pair_words(width) + range.start / 2 * width;
      const PairProduct p{words(from), 1, 2 * kScoreStride, keys, width, to, width, range.keys / 2, 0, nullptr};
      pair_product(PairsInto::add, p, rows, width / kLanes);
    } else {
      const Product p{from, kScoreStride, t.k.rows + range.start * width, width, to, width, range.keys, nullptr};
      product<false, Into::add>(p, rows, width / kLanes);
    }
  }
}

/// dk_sum[j] += sum over rows of ds[j][i] * q[i], dv_sum[j] += sum over rows of p[j][i] * dout[i].
HWY_INLINE void add_key_gradients(const HeadGroup& g, const Block& b, int64_t first_key, int64_t count, const Tiles& t, float* dk_sum,
                                  float* dv_sum) {
  const int64_t width = padded(g.head_dim), vecs = width / kLanes;
  for (int64_t j = 0; j < count; j += kTileRows) {
    const int64_t keys = std::min<int64_t>(kTileRows, count - j);
    const int64_t start = step_down(g.dtype, std::max<int64_t>(first_row(g, first_key + j) - b.r.first, 0));
    if (start >= b.r.rows) break;
    const int64_t rows = step_up(g.dtype, std::min(b.r.rows, end_row(g, first_key + j + keys - 1) - b.r.first)) - start;
    if (rows <= 0) continue;
    float *const dk = dk_sum + j * width, *const dv = dv_sum + j * width;
    if (g.pairs) {
      constexpr int64_t kStride = kScoreStride / 2;  // words
      const uint32_t* const ds = reinterpret_cast<const uint32_t*>(t.ds_row) + j * kStride + start / 2;
      const uint32_t* const p = words(t.p) + j * kScoreStride + start / 2;
      const int64_t from = start / 2 * width, n = rows / 2;
      pair_product(PairsInto::add, {ds, kStride, 1, words(b.q) + from, width, dk, width, n, 0, nullptr}, keys, vecs);
      pair_product(PairsInto::add, {p, kScoreStride, 1, words(b.dout) + from, width, dv, width, n, 0, nullptr}, keys, vecs);
    } else {
      const int64_t score = j * kScoreStride + start, from = start * width;
      product<true, Into::add>({t.ds + score, kScoreStride, b.q + from, width, dk, width, rows, nullptr}, keys, vecs);
      product<true, Into::add>({t.p + score, kScoreStride, b.dout + from, width, dv, width, rows, nullptr}, keys, vecs);
    }
  }
}

/// What a block will want: its own results' rows, and the inputs of the block that follows in its place.
HWY_INLINE void fetch_block(const RowTask& task, const Block& b, const RowTask& next, int64_t next_row, Ahead& ahead) {
  ahead.add_queries(task.g, task.back.dq, task.g.q_stride, b.r.first);
  ahead.add_queries(next.g, next.back.dout, next.g.out_stride, next_row);
  ahead.add_queries(next.g, next.g.out, next.g.out_stride, next_row);
  ahead.add_queries(next.g, next.g.q, next.g.q_stride, next_row);
}

void gradient_rows(const RowTask& task, const RowTask& next, float* dk_sum, float* dv_sum, float* scratch) {
  const HeadGroup& g = task.g;
  const int64_t width = padded(g.head_dim), end = std::min(task.row + task.rows, row_count(g)), blocks = ceil_div(end - task.row, kRows);
  const Tiles t = tiles_at(g, scratch);
  Block block[kBackwardSpan];
  for (int64_t i = 0; i < blocks; ++i) {
    load_block(g, task.back, task.row + i * kRows, true, t.rest + i * 5 * width * kRows, block[i]);
    std::memset(block[i].dq, 0, size_t(block[i].r.rows * width) * 4);
  }
  const int64_t keys = last_key(g, end - 1) + 1;
  Ahead ahead;
  for (int64_t key = first_tile(g, task.row); key < keys; key += kKeys) {
    load_key_rows(g, g.k, key, std::min(kKeys, keys - key), t.k);
    load_key_rows(g, g.v, key, std::min(kKeys, keys - key), t.v);
    const bool last_tile = key + kKeys >= keys;
    const HeadGroup& then = last_tile ? next.g : g;
    const int64_t then_key = last_tile ? first_tile(next.g, next.row) : key + kKeys;
    ahead.add_keys(then, then.k, then_key, then.keys);
    ahead.add_keys(then, then.v, then_key, then.keys);
    for (int64_t i = 0; i < blocks; ++i) {
      const Block& b = block[i];
      const int64_t count = std::min(kKeys, b.r.last[kRows - 1] + 1 - key);
      if (count <= 0 || b.r.from[0] >= key + kKeys) continue;
      if (key + kKeys > b.r.last[kRows - 1]) fetch_block(task, b, next, next.row + i * kRows, ahead);
      RECKON_COUNT_VECTOR(8 * seen_pairs(b.r, key, count));  // the pass over keys that there may be repeats these, and is not counted
      tile_gradients(g, b, key, count, t, ahead);
      add_query_gradient(g, b, key, count, t, ahead);
      if (dk_sum) add_key_gradients(g, b, key, count, t, dk_sum + key * width, dv_sum + key * width);
    }
  }
  for (const Block* b = block; b < block + blocks; ++b) {
    for (int64_t i = 0; i < b->r.rows; ++i) {
      char* to = const_cast<char*>(query_row(g, task.back.dq, g.q_stride, b->r.first + i));
      store_row(g.dtype, b->dq + i * width, float(g.scale), g.head_dim, to);
    }
  }
}

void write_key_gradients(const HeadGroup& g, const HeadGroupBack& back, int64_t key, int64_t count, const float* dk_sum,
                         const float* dv_sum) {
  const int64_t width = padded(g.head_dim);
  for (int64_t j = 0; j < count; ++j) {
    const int64_t at = (key + j) * g.kv_stride * g.element;
    store_row(g.dtype, dk_sum + j * width, float(g.scale), g.head_dim, back.dk + at);
    store_row(g.dtype, dv_sum + j * width, 1.0f, g.head_dim, back.dv + at);
  }
}

void gradient_keys(const HeadGroup& g, const HeadGroupBack& back, int64_t key, float* dk_sum, float* dv_sum, float* scratch) {
  const int64_t keys = std::min(kKeys, g.keys - key), begin = first_row(g, key) / kRows * kRows, end = end_row(g, key + keys - 1);
  if (begin >= end) return;
  const Tiles t = tiles_at(g, scratch);
  load_key_rows(g, g.k, key, keys, t.k);
  load_key_rows(g, g.v, key, keys, t.v);
  Block block;
  Ahead ahead;
  for (int64_t row = begin; row < end; row += kRows) {
    load_block(g, back, row, false, t.rest, block);
    // The tile ends where the other pass ends it, so that both add the same numbers in the same order.
    const int64_t count = std::min(kKeys, block.r.last[kRows - 1] + 1 - key);
    ahead.add_queries(g, back.dout, g.out_stride, row + kRows);
    ahead.add_queries(g, g.q, g.q_stride, row + kRows);
    tile_gradients(g, block, key, count, t, ahead);
    add_key_gradients(g, block, key, count, t, dk_sum, dv_sum);
  }
}
}  // namespace
}  // namespace reckon::cpu::detail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reckon::cpu::detail {
HWY_EXPORT(gradient_rows);
HWY_EXPORT(gradient_keys);
HWY_EXPORT(write_key_gradients);
void backward_rows(const RowTask& task, const RowTask& next, float* dk_sum, float* dv_sum, float* scratch) {
  HWY_DYNAMIC_DISPATCH(gradient_rows)(task, next, dk_sum, dv_sum, scratch);
}
void backward_keys(const HeadGroup& g, const HeadGroupBack& back, int64_t key, float* dk_sum, float* dv_sum, float* scratch) {
  HWY_DYNAMIC_DISPATCH(gradient_keys)(g, back, key, dk_sum, dv_sum, scratch);
}
void store_key_gradients(const HeadGroup& g, const HeadGroupBack& back, int64_t key, int64_t count, const float* dk_sum,
                         const float* dv_sum) {
  HWY_DYNAMIC_DISPATCH(write_key_gradients)(g, back, key, count, dk_sum, dv_sum);
}
}  // namespace reckon::cpu::detail
#endif
