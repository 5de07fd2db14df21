// backend/cpu/attention_forward: blocks of query rows over all the keys they see, with a running softmax. Compiled once per instruction
// set. Rows are vector lanes: maxima and sums of the softmax need no shuffles, and no transposition of keys.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "reckon/backend/cpu/vec_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/attention_forward.cpp"
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/contrib/math/math-inl.h"
#include "reckon/backend/cpu/attention_rows-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::detail::HWY_NAMESPACE {
namespace {

/// The running softmax of each row, in base 2: the largest score, the sum of 2^(score - largest), and what the last tile scaled it by.
struct Softmax {
  float largest[kRows], sum[kRows], factor[kRows];
};

/// Turns one vector of rows of a tile's scores into probabilities relative to the new largest score.
HWY_INLINE void softmax_vec(const Seen& seen, int64_t count, int64_t at, Softmax& softmax, float* scores) {
  float* column = scores + at;
  const Vec before = load(softmax.largest + at);
  const Vec nothing = all(-HUGE_VALF);
  Vec largest = before, other = before;
  const auto mask = [&](int64_t j) RECKON_VEC {
    const Vec masked = hn::IfThenElse(sees(seen, j), load(column + j * kScoreStride), nothing);
    store(masked, column + j * kScoreStride);
    largest = hn::Max(largest, masked);
  };
  int64_t j = seen.none;
  for (; j < seen.part; ++j) mask(j);
  for (; j + 2 <= seen.all; j += 2) {
    largest = hn::Max(largest, load(column + j * kScoreStride));
    other = hn::Max(other, load(column + (j + 1) * kScoreStride));
  }
  for (; j < seen.all; ++j) largest = hn::Max(largest, load(column + j * kScoreStride));
  for (; j < seen.some; ++j) mask(j);
  largest = hn::Max(largest, other);
  // A row whose window begins in a later tile has seen nothing yet.
  const Vec shift = hn::IfThenElse(hn::Eq(largest, nothing), hn::Zero(Floats()), largest);
  const Vec factor = exp2(hn::Sub(before, shift));
  Vec sum = hn::Mul(load(softmax.sum + at), factor);
  for (j = 0; j < seen.none; ++j) store(hn::Zero(Floats()), column + j * kScoreStride);
  for (; j < seen.some; ++j) {
    const Vec p = exp2(hn::Sub(load(column + j * kScoreStride), shift));
    sum = hn::Add(sum, p);
    store(p, column + j * kScoreStride);
  }
  for (; j < count; ++j) store(hn::Zero(Floats()), column + j * kScoreStride);
  store(largest, softmax.largest + at);
  store(sum, softmax.sum + at);
  store(factor, softmax.factor + at);
}

/// out[i] = factor[i] * out[i] + sum over the keys that row i sees of p[j][i] * values[j].
HWY_INLINE void add_values(const HeadGroup& g, const Rows& r, const Softmax& softmax, int64_t first_key, int64_t count, float* p,
                           const KeyTile& values, float* out, Ahead& ahead) {
  const int64_t width = padded(g.head_dim);
  clear_odd_end(g, count, p);
  if (g.pairs) pair_keys(r, count, p);
  for (int64_t i = 0; i < r.rows; i += kTileRows) {
    ahead.fetch();
    const int64_t rows = std::min<int64_t>(kTileRows, r.rows - i);
    const KeyRange range = key_range(g, r, i, rows, first_key, count);
    if (range.keys <= 0) continue;  // nothing seen: the factor is exactly 1, or out is still 0
    const float* const from = p + range.start * kScoreStride + i;
    if (g.pairs) {
      const PairProduct q{
          words(from),    1, 2 * kScoreStride,  values.pair_words(width) + range.start / 2 * width, width, out + i * width, width,
          range.keys / 2, 0, softmax.factor + i};
      pair_product(PairsInto::scale_and_add, q, rows, width / kLanes);
    } else {
      const Product q{from, kScoreStride, values.rows + range.start * width, width, out + i * width, width, range.keys, softmax.factor + i};
      product<false, Into::scale_and_add>(q, rows, width / kLanes);
    }
  }
}

HWY_INLINE void finish(const HeadGroup& g, const Rows& r, Softmax& softmax, const float* out) {
  for (int64_t i = 0; i < r.rows; ++i) {
    char* to = const_cast<char*>(query_row(g, g.out, g.out_stride, r.first + i));
    store_row(g.dtype, out + i * padded(g.head_dim), 1 / softmax.sum[i], g.head_dim, to);
  }
  if (!g.lse) return;
  float lse[kRows];
  for (int64_t i = 0; i < r.vecs * kLanes; i += kLanes) {
    store(hn::MulAdd(load(softmax.largest + i), all(kLn2), hn::Log(Floats(), load(softmax.sum + i))), lse + i);
  }
  float* to = reinterpret_cast<float*>(g.lse);
  for (int64_t i = 0; i < r.rows; ++i) to[(r.first + i) % g.group * g.query_tokens + (r.first + i) / g.group] = lse[i];
}

/// One block of rows on its way over the keys.
struct Block {
  Rows r;
  Softmax softmax;
  float* transposed;  // [head_dim, kRows] queries, scaled for base 2; or of pairs, as they are
  float* out;         // [kRows, width]
};

HWY_INLINE void start(const HeadGroup& g, int64_t row, Block& block) {
  const int64_t width = padded(g.head_dim);
  block.r = rows_of(g, row);
  if (g.pairs) {
    load_query_pairs(g, g.q, g.q_stride, block.r, block.out, block.transposed, nullptr);
  } else {
    load_query_rows(g, g.q, g.q_stride, block.r, block.out);
    transpose(block.out, padded(block.r.rows), width, width, float(g.scale) * kLog2E, block.transposed, kRows);
  }
  std::memset(block.out, 0, size_t(block.r.rows * width) * 4);
  std::fill(block.softmax.largest, block.softmax.largest + kRows, -HUGE_VALF);
  std::fill(block.softmax.sum, block.softmax.sum + kRows, 0.0f);
}

int64_t lanes_of_vectors() { return kLanes; }

void attend_rows(const RowTask& task, const RowTask& next, float* scratch) {
  const HeadGroup& g = task.g;
  const int64_t row = task.row, width = padded(g.head_dim), end = std::min(row + task.rows, row_count(g)),
                blocks = ceil_div(end - row, kRows);
  const KeyTile k_tile{scratch}, v_tile{scratch + width * kKeys};
  float* scores = scratch + 2 * width * kKeys;  // [kKeys, kScoreStride]
  float* at = scores + kScoreStride * kKeys;
  Block block[kForwardSpan];
  for (int64_t b = 0; b < blocks; ++b, at += 2 * width * kRows) {
    block[b].transposed = at;
    block[b].out = at + width * kRows;
    start(g, row + b * kRows, block[b]);
  }
  const int64_t keys = last_key(g, end - 1) + 1;
  Ahead ahead;
  for (int64_t key = first_tile(g, row); key < keys; key += kKeys) {
    load_key_rows(g, g.k, key, std::min(kKeys, keys - key), k_tile);
    load_key_rows(g, g.v, key, std::min(kKeys, keys - key), v_tile);
    const bool last_tile = key + kKeys >= keys;
    const HeadGroup& then = last_tile ? next.g : g;
    const int64_t then_key = last_tile ? first_tile(next.g, next.row) : key + kKeys;
    ahead.add_keys(then, then.k, then_key, then.keys);
    ahead.add_keys(then, then.v, then_key, then.keys);
    for (int64_t b = 0; b < blocks; ++b) {
      const Rows& r = block[b].r;
      const int64_t count = std::min(kKeys, r.last[kRows - 1] + 1 - key);
      if (count <= 0 || r.from[0] >= key + kKeys) continue;
      if (key + kKeys > r.last[kRows - 1]) {
        ahead.add_queries(g, g.out, g.out_stride, r.first);
        ahead.add_queries(next.g, next.g.q, next.g.q_stride, next.row + b * kRows);
      }
      RECKON_COUNT_VECTOR(5 * seen_pairs(r, key, count));  // scale, maximum, subtract, exp, sum
      tile_scores(g, r, key, count, k_tile, block[b].transposed, float(g.scale) * kLog2E, scores, ahead);
      for (int64_t vec = 0; vec < r.vecs; ++vec) softmax_vec(seen_keys(r, vec, key, count), count, vec * kLanes, block[b].softmax, scores);
      add_values(g, r, block[b].softmax, key, count, scores, v_tile, block[b].out, ahead);
    }
  }
  for (int64_t b = 0; b < blocks; ++b) finish(g, block[b].r, block[b].softmax, block[b].out);
}
}  // namespace
}  // namespace reckon::cpu::detail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reckon::cpu {
namespace detail {
HWY_EXPORT(attend_rows);
HWY_EXPORT(lanes_of_vectors);
void forward_rows(const RowTask& task, const RowTask& next, float* scratch) { HWY_DYNAMIC_DISPATCH(attend_rows)(task, next, scratch); }
}  // namespace detail
int attention_vector_floats() {
  using namespace detail;
  return int(HWY_DYNAMIC_DISPATCH(lanes_of_vectors)());
}
}  // namespace reckon::cpu
#endif
