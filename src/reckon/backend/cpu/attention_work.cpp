// backend/cpu/attention_work: how many multiply-adds the loops of attention_rows-inl, _forward and _backward execute, without running them.
// A test with counting kernels holds it against them, so whoever changes how a tile is cut changes it here, too.
#include <algorithm>

#include "reckon/backend/cpu/attention.h"
#include "reckon/backend/cpu/attention_block.h"
#include "reckon/base/error.h"

namespace reckon::cpu {
namespace {
using namespace detail;

constexpr int64_t kStrip = 6;  // rows or keys of a register tile: kTileRows of attention_tile-inl
__extension__ typedef __int128 Wide;

/// Multiply-adds of the three kinds of products of one block of rows with one tile of keys: [key][row] scores, [row][head] sums over keys
/// and [key][head] sums over rows.
struct Work {
  Wide scores = 0, row_sums = 0, key_sums = 0;
  void add(const Work& w, Wide times) {
    scores += times * w.scores;
    row_sums += times * w.row_sums;
    key_sums += times * w.key_sums;
  }
};

struct Cut {
  int64_t head_dim, vector_floats;
  DType dtype;

  int64_t up(int64_t at) const { return step_up(dtype, at); }
  int64_t down(int64_t at) const { return step_down(dtype, at); }
  /// Rows [start, end) of a block of `rows`, widened as sums over rows are.
  int64_t row_range(int64_t start, int64_t end, int64_t rows) const {
    return start >= rows ? 0 : std::max<int64_t>(up(std::min(rows, end)) - down(start), 0);
  }

  /// A tile of which every row sees all `keys` keys.
  Work seen_tile(int64_t rows, int64_t keys) const {
    const int64_t width = padded(head_dim);
    return {Wide(keys) * (ceil_div(rows, vector_floats) * vector_floats) * up(head_dim), Wide(rows) * up(keys) * width,
            Wide(keys) * up(rows) * width};
  }

  /// The tile that the diagonal crosses. Row i of the block sees the keys up to last(i), which never falls.
  template <class Last>
  Work diagonal_tile(int64_t rows, Last last) const {
    const int64_t width = padded(head_dim), keys = last(rows - 1) + 1, vecs = ceil_div(rows, vector_floats);
    Work w;
    int64_t hidden_vecs = 0, hidden_rows = 0;  // rows that see nothing from key j on
    for (int64_t j = 0; j < keys; j += kStrip) {
      const int64_t count = std::min(kStrip, keys - j);
      while (hidden_vecs < vecs && last(std::min((hidden_vecs + 1) * vector_floats, rows) - 1) < j) ++hidden_vecs;
      while (hidden_rows < rows && last(hidden_rows) < j) ++hidden_rows;
      w.scores += count * (vecs - hidden_vecs) * vector_floats * up(head_dim);
      w.key_sums += count * row_range(hidden_rows, rows, rows) * width;
    }
    for (int64_t i = 0; i < rows; i += kStrip) {
      const int64_t count = std::min(kStrip, rows - i);
      w.row_sums += count * up(last(i + count - 1) + 1) * width;
    }
    return w;
  }
};

/// Keys [from, last] that each row of a block sees.
struct Band {
  int64_t rows;
  int64_t from[kRows], last[kRows];
};

/// A tile of keys that the diagonal or the window's edge crosses.
Work band_tile(const Cut& cut, const Band& b, int64_t first_key, int64_t keys) {
  const int64_t width = padded(cut.head_dim), lanes = cut.vector_floats, vecs = ceil_div(b.rows, lanes);
  const auto last_of = [&](int64_t vec) { return b.last[std::min((vec + 1) * lanes, b.rows) - 1]; };
  Work w;
  int64_t skip = 0, end = 0, hidden_rows = 0, end_rows = 0;
  for (int64_t j = 0; j < keys; j += kStrip) {
    const int64_t count = std::min(kStrip, keys - j), key = first_key + j;
    while (skip < vecs && last_of(skip) < key) ++skip;
    while (end < vecs && b.from[end * lanes] < key + count) ++end;
    while (hidden_rows < b.rows && b.last[hidden_rows] < key) ++hidden_rows;
    while (end_rows < b.rows && b.from[end_rows] < key + count) ++end_rows;
    w.scores += count * std::max<int64_t>(end - skip, 0) * lanes * cut.up(cut.head_dim);
    w.key_sums += count * cut.row_range(hidden_rows, end_rows, b.rows) * width;
  }
  for (int64_t i = 0; i < b.rows; i += kStrip) {
    const int64_t count = std::min(kStrip, b.rows - i), start = cut.down(std::max<int64_t>(b.from[i] - first_key, 0));
    w.row_sums += count * std::max<int64_t>(cut.up(std::min(keys, b.last[i + count - 1] - first_key + 1)) - start, 0) * width;
  }
  return w;
}

/// The query rows of one head group over all keys, or all before them.
Work unlimited_work(const AttentionShape& s, int vector_floats) {
  const Cut cut{s.head_dim, vector_floats, s.dtype};
  const int64_t T = s.tokens, group = s.heads / s.kv_heads, tiles = T / kKeys, rest = T % kKeys;
  Work sum;
  if (!s.causal) {
    const int64_t rows = T * group;
    for (const auto& [blocks, size] : {std::pair(rows / kRows, kRows), std::pair(int64_t(rows % kRows > 0), rows % kRows)}) {
      sum.add(cut.seen_tile(size, kKeys), Wide(blocks) * tiles);
      sum.add(cut.seen_tile(size, rest), blocks);
    }
    return sum;
  }
  // 64 tokens are `group` blocks of rows; wherever they lie, the diagonal crosses one tile of each in the same way, and all before is seen.
  static_assert(kRows == kKeys);
  for (int64_t first = 0; first < kRows * group; first += kRows) {
    const auto last = [&](int64_t i) { return (first + i) / group; };
    sum.add(cut.diagonal_tile(kRows, last), tiles);
    sum.add(cut.seen_tile(kRows, kKeys), Wide(tiles) * (tiles - 1) / 2);
    const int64_t rows = std::min(kRows, rest * group - first);  // of the tokens after the last whole tile
    if (rows <= 0) continue;
    sum.add(cut.diagonal_tile(rows, last), 1);
    sum.add(cut.seen_tile(rows, kKeys), tiles);
  }
  return sum;
}

/// The query rows of one head group with a window: as without one until the window leaves the first key; then 64 tokens are like the 64
/// before them, and only the tiles at both ends of what a block sees are cut.
Work window_work(const AttentionShape& s, int vector_floats) {
  const Cut cut{s.head_dim, vector_floats, s.dtype};
  const int64_t T = s.tokens, group = s.heads / s.kv_heads, rows = T * group;
  const auto block = [&](int64_t first) {
    Band b;
    b.rows = std::min(kRows, rows - first);
    for (int64_t i = 0; i < b.rows; ++i) {
      b.last[i] = (first + i) / group;
      b.from[i] = std::max<int64_t>(b.last[i] + 1 - s.window, 0);
    }
    Work sum;
    const int64_t end = b.last[b.rows - 1] + 1;
    // Tiles [seen, cut_again) are seen by all rows.
    const int64_t seen = ceil_div(b.from[b.rows - 1], kKeys) * kKeys, cut_again = std::max(seen, (b.last[0] + 1) / kKeys * kKeys);
    sum.add(cut.seen_tile(b.rows, kKeys), (cut_again - seen) / kKeys);
    for (int64_t key = b.from[0] / kKeys * kKeys; key < end; key += kKeys) {
      if (key == seen) key = cut_again;
      if (key < end) sum.add(band_tile(cut, b, key, std::min(kKeys, end - key)), 1);
    }
    return sum;
  };
  static_assert(kRows == kKeys);
  const int64_t period = kRows * group, whole = T / kKeys * period;  // rows
  const int64_t start = std::min(s.window / kKeys * period, whole), steady = std::min(ceil_div(s.window, kKeys) * period, whole);
  AttentionShape before = s;
  before.tokens = start / group;
  Work sum = unlimited_work(before, vector_floats);
  for (int64_t first = start; first < steady; first += kRows) sum.add(block(first), 1);
  for (int64_t first = steady; first < std::min(steady + period, whole); first += kRows) sum.add(block(first), (whole - steady) / period);
  for (int64_t first = whole; first < rows; first += kRows) sum.add(block(first), 1);
  return sum;
}

Work group_work(const AttentionShape& s, int vector_floats) {
  return s.causal && s.window > 0 && s.window < s.tokens ? window_work(s, vector_floats) : unlimited_work(s, vector_floats);
}

/// Of the f64 loops: one multiply-add for each pair that counts and value of a head, a product.
Wide pair_work(const AttentionShape& s) {
  const Wide T = s.tokens, unseen = s.causal && s.window > 0 && s.window < s.tokens ? T - s.window : 0;
  const Wide pairs = s.causal ? (T * (T + 1) - unseen * (unseen + 1)) / 2 : T * T;
  return pairs * s.batch * s.heads * s.head_dim;
}

int64_t in_63_bits(Wide count) {
  check_as(Failure::usage, count <= INT64_MAX, "attention over these extents executes more than 2^63 - 1 multiply-adds");
  return int64_t(count);
}
}  // namespace

int64_t attention_work(const AttentionShape& s, int vector_floats) {
  assert_shape(s);
  if (s.dtype == DType::f64) return in_63_bits(2 * pair_work(s));
  const Work w = group_work(s, vector_floats);
  return in_63_bits(Wide(s.batch) * s.kv_heads * (w.scores + w.row_sums));
}

int64_t attention_back_work(const AttentionShape& s, int lanes, int vector_floats) {
  assert_shape(s);
  if (s.dtype == DType::f64) return in_63_bits(5 * pair_work(s));
  const int64_t groups = s.batch * s.kv_heads;
  const Work w = group_work(s, vector_floats);
  // Scores and their gradients; dq; dk and dv. With two passes both make the first two.
  return in_63_bits(Wide(groups) * ((one_pass(groups, lanes) ? 2 : 4) * w.scores + w.row_sums + 2 * w.key_sums));
}
}  // namespace reckon::cpu
