// backend/cpu/attention_rows-inl: a block of query rows against a tile of keys, as both passes see it: loading rows of a head group,
// the scores of a tile, and which of them the causal mask leaves. Compiled once per instruction set.
#include <algorithm>

#include "reckon/backend/cpu/attention_pairs.h"
#include "reckon/backend/cpu/attention_tile-inl.h"

#if defined(RECKON_ATTENTION_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RECKON_ATTENTION_ROWS_INL_H_
#undef RECKON_ATTENTION_ROWS_INL_H_
#else
#define RECKON_ATTENTION_ROWS_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::detail::HWY_NAMESPACE {

inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kLn2 = 0.693147180559945309f;

/// Query rows [first, first + rows) of a group. Row i is lane i of the score vectors; lanes beyond `rows` hold zeros and count for nothing.
struct Rows {
  int64_t first, rows;
  int64_t vecs;  // vectors that hold the rows
  // The first and last key that each lane sees; they never fall. Lanes beyond `rows` repeat the last row's.
  int64_t from[kRows], last[kRows];
};

HWY_INLINE Rows rows_of(const HeadGroup& g, int64_t first) {
  Rows r;
  r.first = first;
  r.rows = std::min(kRows, row_count(g) - first);
  r.vecs = ceil_div(r.rows, kLanes);
  for (int64_t i = 0; i < kRows; ++i) {
    const int64_t row = first + std::min(i, r.rows - 1);
    r.from[i] = first_key(g, row);
    r.last[i] = last_key(g, row);
  }
  return r;
}

HWY_INLINE const char* query_row(const HeadGroup& g, const char* base, int64_t stride, int64_t row) {
  return base + (row / g.group * stride + row % g.group * g.head_dim) * g.element;
}

/// Loads query rows into to [kRows, padded], zeroing rows up to a multiple of 16.
HWY_INLINE void load_query_rows(const HeadGroup& g, const char* base, int64_t stride, const Rows& r, float* to) {
  const int64_t width = padded(g.head_dim);
  for (int64_t i = 0; i < r.rows; ++i) load_row(g.dtype, query_row(g, base, stride, r.first + i), g.head_dim, to + i * width);
  std::memset(to + r.rows * width, 0, size_t((padded(r.rows) - r.rows) * width) * 4);
}

// Buffers of pairs take the first half of those of floats.
HWY_INLINE uint32_t* words(float* buffer) { return reinterpret_cast<uint32_t*>(buffer); }
HWY_INLINE const uint32_t* words(const float* buffer) { return reinterpret_cast<const uint32_t*>(buffer); }

/// to[0..padded(n)) = from[0..n) and zeros, bf16.
HWY_INLINE void copy_row(const char* from, int64_t n, uint16_t* to) {
  std::memcpy(to, from, size_t(n) * 2);
  std::memset(to + n, 0, size_t(padded(n) - n) * 2);
}
/// What products need of query rows of pairs: transposed [padded / 2, kRows] and by pairs of rows [kRows / 2, padded], which may be null.
/// raw [kRows, padded] bf16 is scratch. Rows up to a multiple of 16 are zero.
HWY_INLINE void load_query_pairs(const HeadGroup& g, const char* base, int64_t stride, const Rows& r, float* raw, float* transposed,
                                 float* pairs) {
  const int64_t width = padded(g.head_dim), rows = padded(r.rows);
  auto* const lines = reinterpret_cast<uint16_t*>(raw);
  for (int64_t i = 0; i < r.rows; ++i) copy_row(query_row(g, base, stride, r.first + i), g.head_dim, lines + i * width);
  std::memset(lines + r.rows * width, 0, size_t((rows - r.rows) * width) * 2);
  transpose_words(words(raw), rows, width / 2, width / 2, words(transposed), kRows);
  for (int64_t i = 0; pairs && i < rows; i += 2) pair_rows(lines + i * width, lines + (i + 1) * width, width, words(pairs) + i / 2 * width);
}

/// A tile of keys or values, [kKeys, padded] floats; of pairs it is `row`s of bf16 in the first half and pairs of rows in the second.
struct KeyTile {
  float* rows;
  HWY_INLINE const uint32_t* row_words() const { return words(rows); }                              // [kKeys, padded / 2]
  HWY_INLINE uint32_t* pair_words(int64_t width) const { return words(rows) + width * kKeys / 2; }  // [kKeys / 2, padded]
};
/// Loads `count` key or value rows from key `first` on, and zeros up to sum_step.
HWY_INLINE void load_key_rows(const HeadGroup& g, const char* base, int64_t first, int64_t count, const KeyTile& tile) {
  const int64_t width = padded(g.head_dim), end = step_up(g.dtype, count);
  const char* from = base + first * g.kv_stride * g.element;
  if (!g.pairs) {
    for (int64_t j = 0; j < count; ++j) load_row(g.dtype, from + j * g.kv_stride * g.element, g.head_dim, tile.rows + j * width);
    std::memset(tile.rows + count * width, 0, size_t((end - count) * width) * 4);
    return;
  }
  auto* const lines = reinterpret_cast<uint16_t*>(tile.rows);
  for (int64_t j = 0; j < count; ++j) copy_row(from + j * g.kv_stride * 2, g.head_dim, lines + j * width);
  std::memset(lines + count * width, 0, size_t((end - count) * width) * 2);
  for (int64_t j = 0; j < end; j += 2) pair_rows(lines + j * width, lines + (j + 1) * width, width, tile.pair_words(width) + j / 2 * width);
}

/// Rows to be fetched into the cache while products run: neighbours lie a whole token apart, too far for the hardware to guess.
class Ahead {
 public:
  /// `rows` rows of `count` elements from base + first * stride on.
  HWY_INLINE void add(const HeadGroup& g, const char* base, int64_t stride, int64_t first, int64_t rows, int64_t count) {
    if (rows <= 0 || end_ - begin_ == kRuns) return;
    runs_[end_++ % kRuns] = {base + first * stride * g.element, stride * g.element, rows, count * g.element};
  }
  /// One tile of keys or values from `first` on, up to `end`.
  HWY_INLINE void add_keys(const HeadGroup& g, const char* base, int64_t first, int64_t end) {
    add(g, base, g.kv_stride, first, std::min(kKeys, end - first), g.head_dim);
  }
  /// One block of query rows from `row` on: their tokens, with all heads of the group.
  HWY_INLINE void add_queries(const HeadGroup& g, const char* base, int64_t stride, int64_t row) {
    const int64_t token = row / g.group, end = std::min(ceil_div(row + kRows, g.group), g.query_tokens);
    add(g, base, stride, token, end - token, g.group * g.head_dim);
  }
  /// Fetches a few rows: to be called once per tile product.
  HWY_INLINE void fetch() {
    for (int n = 0; n < kRowsPerProduct && begin_ != end_; ++n) {
      Run& run = runs_[begin_ % kRuns];
      for (int64_t i = 0; i < run.bytes; i += 64) __builtin_prefetch(run.row + i);
      run.row += run.stride;
      if (--run.left == 0) ++begin_;
    }
  }

 private:
  struct Run {
    const char* row;
    int64_t stride, left, bytes;
  };
  static constexpr unsigned kRuns = 16;
  static constexpr int kRowsPerProduct = 8;
  Run runs_[kRuns];
  unsigned begin_ = 0, end_ = 0;
};

/// scores[j][i] = keys[j] . rows[i] for the keys first_key + [0, count); vectors of rows that see none of a run of keys are left untouched.
/// transposed [head_dim, kRows], or of pairs, whose scores are multiplied by `factor`.
HWY_INLINE void tile_scores(const HeadGroup& g, const Rows& r, int64_t first_key, int64_t count, const KeyTile& keys,
                            const float* transposed, float factor, float* scores, Ahead& ahead) {
  const int64_t width = padded(g.head_dim);
  int64_t skip = 0, end = 0;  // vectors [skip, end) are between the diagonal and the window's edge
  for (int64_t j = 0; j < count; j += kTileRows) {
    ahead.fetch();
    const int64_t rows = std::min<int64_t>(kTileRows, count - j);
    while (skip < r.vecs && r.last[skip * kLanes + kLanes - 1] < first_key + j) ++skip;
    while (end < r.vecs && r.from[end * kLanes] < first_key + j + rows) ++end;
    if (skip >= end) continue;
    float* const to = scores + j * kScoreStride + skip * kLanes;
    if (g.pairs) {
      const PairProduct p{keys.row_words() + j * width / 2, width / 2, 1,      words(transposed) + skip * kLanes, kRows, to, kScoreStride,
                          ceil_div(g.head_dim, 2),          factor,    nullptr};
      pair_product(PairsInto::scale, p, rows, end - skip);
    } else {
      const Product p{keys.rows + j * width,        width,  transposed + skip * kLanes, kRows, to, kScoreStride,
                      step_up(g.dtype, g.head_dim), nullptr};
      product<true, Into::set>(p, rows, end - skip);
    }
  }
}

/// The keys of a tile, counted in it, that rows [i, i + rows) see, widened to sum_step.
struct KeyRange {
  int64_t start, keys;
};
HWY_INLINE KeyRange key_range(const HeadGroup& g, const Rows& r, int64_t i, int64_t rows, int64_t first_key, int64_t count) {
  const int64_t start = step_down(g.dtype, std::max<int64_t>(r.from[i] - first_key, 0));
  return {start, step_up(g.dtype, std::min(count, r.last[i + rows - 1] - first_key + 1)) - start};
}

/// tile[j], j in [count, sum_step's end), = 0: what there is of an odd row's neighbour.
HWY_INLINE void clear_odd_end(const HeadGroup& g, int64_t count, float* tile) {
  if (step_up(g.dtype, count) > count) std::memset(tile + count * kScoreStride, 0, kRows * 4);
}
/// The tile's rows become pairs of keys, in place: pair p of keys at row 2 p.
HWY_INLINE void pair_keys(const Rows& r, int64_t count, float* tile) {
  for (int64_t j = 0; j < count; j += 2)
    round_to_pairs(tile + j * kScoreStride, tile + (j + 1) * kScoreStride, r.vecs * kLanes, words(tile + j * kScoreStride));
}

/// For one vector of rows and one tile of keys: keys [part, all) are seen by every lane, [none, part) and [all, some) by some of them, the
/// rest by none.
struct Seen {
  int64_t none, part, all, some;
  Vec from, last;  // first and last key of each lane, counted in the tile
};
HWY_INLINE Seen seen_keys(const Rows& r, int64_t vec, int64_t first_key, int64_t count) {
  float from[kLanes], last[kLanes];
  const int64_t lane = vec * kLanes, end = lane + kLanes - 1;
  for (int64_t i = 0; i < kLanes; ++i) {
    from[i] = float(std::clamp<int64_t>(r.from[lane + i] - first_key, 0, count));
    last[i] = float(std::clamp<int64_t>(r.last[lane + i] - first_key, -1, count));
  }
  const auto in_tile = [&](int64_t key) { return std::clamp<int64_t>(key - first_key, 0, count); };
  Seen seen{in_tile(r.from[lane]), in_tile(r.from[end]), in_tile(r.last[lane] + 1), in_tile(r.last[end] + 1), load(from), load(last)};
  if (seen.part > seen.all) seen.part = seen.all = seen.none;  // a window so small that no key is seen by all
  return seen;
}
/// Pairs of a row and a key of the tile that count.
[[maybe_unused]] HWY_INLINE int64_t seen_pairs(const Rows& r, int64_t first_key, int64_t count) {
  int64_t pairs = 0;
  for (int64_t i = 0; i < r.rows; ++i)
    pairs += std::clamp<int64_t>(r.last[i] - first_key + 1, 0, count) - std::clamp<int64_t>(r.from[i] - first_key, 0, count);
  return pairs;
}
/// Lanes that see this key of the tile.
HWY_INLINE hn::Mask<Floats> sees(const Seen& seen, int64_t key) {
  const Vec at = all(float(key));
  return hn::And(hn::Ge(seen.last, at), hn::Le(seen.from, at));
}
}  // namespace reckon::cpu::detail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
