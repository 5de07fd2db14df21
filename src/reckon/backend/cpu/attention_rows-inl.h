// backend/cpu/attention_rows-inl: a block of query rows against a tile of keys, as both passes see it: loading rows of a head group,
// the scores of a tile, and which of them the causal mask leaves. Compiled once per instruction set.
#include <algorithm>

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
/// Loads `count` key or value rows from key `first` on into to [count, padded].
HWY_INLINE void load_key_rows(const HeadGroup& g, const char* base, int64_t first, int64_t count, float* to) {
  const char* from = base + first * g.kv_stride * g.element;
  for (int64_t j = 0; j < count; ++j) load_row(g.dtype, from + j * g.kv_stride * g.element, g.head_dim, to + j * padded(g.head_dim));
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

/// scores[j][i] = keys[j] . rows[i] for the keys first_key + [0, count), keys [count, padded]; vectors of rows that see none of a run of
/// keys are left untouched. transposed [head_dim, kRows].
HWY_INLINE void tile_scores(const HeadGroup& g, const Rows& r, int64_t first_key, int64_t count, const float* keys, const float* transposed,
                            float* scores, Ahead& ahead) {
  const int64_t width = padded(g.head_dim);
  int64_t skip = 0, end = 0;  // vectors [skip, end) are between the diagonal and the window's edge
  for (int64_t j = 0; j < count; j += kTileRows) {
    ahead.fetch();
    const int64_t rows = std::min<int64_t>(kTileRows, count - j);
    while (skip < r.vecs && r.last[skip * kLanes + kLanes - 1] < first_key + j) ++skip;
    while (end < r.vecs && r.from[end * kLanes] < first_key + j + rows) ++end;
    if (skip >= end) continue;
    const Product p{keys + j * width, width,  transposed + skip * kLanes, kRows, scores + j * kScoreStride + skip * kLanes, kScoreStride,
                    g.head_dim,       nullptr};
    product<true, Into::set>(p, rows, end - skip);
  }
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
