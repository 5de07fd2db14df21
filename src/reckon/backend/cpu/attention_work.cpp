// backend/cpu/attention_work: how many multiply-adds the loops of attention_rows-inl, _forward and _backward execute, without running them.
// A test with counting kernels holds it against them, so whoever changes how a tile is cut changes it here, too.
#include <algorithm>

#include "reckon/backend/cpu/attention.h"
#include "reckon/backend/cpu/attention_block.h"
#include "reckon/backend/cpu/attention_chunk.h"
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

/// Where the query rows of one head group stand among the keys.
struct Place {
  const AttentionShape& shape;
  int64_t first;  // position of query token 0
  int64_t group() const { return shape.heads / shape.kv_heads; }
  int64_t position(int64_t row) const { return first + row / group(); }
  /// How far behind the first key the window of this row begins; 0 and less: it sees all before it.
  int64_t hidden(int64_t row) const { return shape.window > 0 ? position(row) + 1 - shape.window : 0; }
};

/// One block of query rows over the keys that it sees.
Work block_work(const Cut& cut, const Place& at, int64_t row) {
  Band b;
  b.rows = std::min(kRows, at.shape.tokens * at.group() - row);
  for (int64_t i = 0; i < b.rows; ++i) {
    b.last[i] = at.position(row + i);
    b.from[i] = std::max<int64_t>(at.hidden(row + i), 0);
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
}

/// Causal query rows of one head group. 64 tokens are `group` blocks of rows; the next 64 tokens are like them but for one more tile that
/// all see, until the window leaves the first key, and then in all.
Work causal_work(const Place& at, int vector_floats) {
  const Cut cut{at.shape.head_dim, vector_floats, at.shape.dtype};
  static_assert(kRows == kKeys);
  const int64_t rows = at.shape.tokens * at.group(), period = kRows * at.group(), whole = rows / kRows * kRows;
  Work sum;
  for (int64_t phase = 0; phase < std::min(period, whole); phase += kRows) {
    const int64_t blocks = ceil_div(whole - phase, period), hidden = at.hidden(phase + kRows - 1);
    const int64_t open = at.shape.window > 0 ? std::clamp<int64_t>(hidden > 0 ? 0 : -hidden / kRows + 1, 0, blocks) : blocks;
    if (open > 0) sum.add(block_work(cut, at, phase), open);
    sum.add(cut.seen_tile(kRows, kKeys), Wide(open) * (open - 1) / 2);
    for (int64_t i = open; i < blocks; ++i) {
      const bool is_steady = at.hidden(phase + i * period) >= 0;
      sum.add(block_work(cut, at, phase + i * period), is_steady ? blocks - i : 1);
      if (is_steady) break;
    }
  }
  if (whole < rows) sum.add(block_work(cut, at, whole), 1);
  return sum;
}

Work group_work(const AttentionShape& s, int64_t first, int vector_floats) {
  if (s.causal) return causal_work({s, first}, vector_floats);
  const Cut cut{s.head_dim, vector_floats, s.dtype};
  const int64_t rows = s.tokens * (s.heads / s.kv_heads), tiles = s.tokens / kKeys, rest = s.tokens % kKeys;
  Work sum;
  for (const auto& [blocks, size] : {std::pair(rows / kRows, kRows), std::pair(int64_t(rows % kRows > 0), rows % kRows)}) {
    sum.add(cut.seen_tile(size, kKeys), Wide(blocks) * tiles);
    sum.add(cut.seen_tile(size, rest), blocks);
  }
  return sum;
}

/// Of the f64 loops: one multiply-add for each pair that counts and value of a head, a product.
Wide pair_work(const AttentionShape& s, int64_t first) {
  const auto pairs_of = [&](Wide T) {
    const Wide unseen = s.causal && s.window > 0 && s.window < T ? T - s.window : 0;
    return s.causal ? (T * (T + 1) - unseen * (unseen + 1)) / 2 : T * T;
  };
  return (pairs_of(first + s.tokens) - pairs_of(first)) * s.batch * s.heads * s.head_dim;
}

int64_t in_63_bits(Wide count) {
  check_as(Failure::usage, count <= INT64_MAX, "attention over these extents executes more than 2^63 - 1 multiply-adds");
  return int64_t(count);
}
int64_t forward_work(const AttentionShape& s, int64_t first, int vector_floats) {
  assert_shape(s);
  if (s.dtype == DType::f64) return in_63_bits(2 * pair_work(s, first));
  const Work w = group_work(s, first, vector_floats);
  return in_63_bits(Wide(s.batch) * s.kv_heads * (w.scores + w.row_sums));
}

int64_t back_work(const AttentionShape& s, int64_t first, int lanes, int vector_floats) {
  assert_shape(s);
  if (s.dtype == DType::f64) return in_63_bits(5 * pair_work(s, first));
  const int64_t groups = s.batch * s.kv_heads;
  const Work w = group_work(s, first, vector_floats);
  // Scores and their gradients; dq; dk and dv. With two passes both make the first two.
  return in_63_bits(Wide(groups) * ((one_pass(groups, lanes) ? 2 : 4) * w.scores + w.row_sums + 2 * w.key_sums));
}
}  // namespace

int64_t attention_work(const AttentionShape& s, int vector_floats) { return forward_work(s, 0, vector_floats); }
int64_t attention_back_work(const AttentionShape& s, int lanes, int vector_floats) { return back_work(s, 0, lanes, vector_floats); }
int64_t attention_chunk_work(const AttentionChunk& c, int vector_floats) { return forward_work(c.attention, c.first, vector_floats); }
int64_t attention_chunk_back_work(const AttentionChunk& c, int lanes, int vector_floats) {
  return back_work(c.attention, c.first, lanes, vector_floats);
}
}  // namespace reckon::cpu
