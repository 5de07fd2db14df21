// backend/cpu/attention_block: what attention's host code hands to its vector code: one block of work at a time, in plain numbers.
// Also the tile sizes and the scratch each lane needs. Private to backend/cpu/attention* and kv_cache*.
#pragma once
#include <algorithm>
#include <cstdint>

#include "reckon/backend/cpu/attention.h"
#include "reckon/backend/cpu/count.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu::detail {

inline constexpr int64_t kRows = 64;        // query rows of a block
inline constexpr int64_t kKeys = 64;        // keys of a tile
inline constexpr int64_t kForwardSpan = 4;  // row blocks that share each tile of keys once it is loaded
inline constexpr int64_t kBackwardSpan = 2;
inline constexpr int64_t kScoreStride = 80;  // floats from one key's scores to the next: 64 + 16, so that columns spread over cache sets
inline constexpr int64_t kMaxHeadDim = 256;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
/// Floats of a padded head: whole vectors on every target, so that a plan does not depend on the machine.
constexpr int64_t padded(int64_t head_dim) { return ceil_div(head_dim, 16) * 16; }

/// The query heads that share one key/value head of one batch element. Its query rows are numbered token by token:
/// row r is token r / group of head r % group. All strides are in elements.
struct HeadGroup {
  DType dtype;
  int64_t element;  // bytes of one element
  int64_t head_dim;
  int64_t group;           // query heads
  int64_t query_tokens;    // rows = query_tokens * group
  int64_t first_position;  // position of query token 0 among the keys
  int64_t keys;
  bool causal;
  int64_t window;  // keys that a row sees at most, itself included; 0: no limit
  bool pairs;      // bf16 is multiplied as it is, by attention_pairs; otherwise tiles are float32
  const int32_t* documents;  // the first key of each query token's document; null: the first of all
  double scale;
  const char* q;  // token t, head g: q + t * q_stride + g * head_dim
  const char* k;  // key j: k + j * kv_stride
  const char* v;
  int64_t q_stride, kv_stride;
  char* out;  // as q, with out_stride
  int64_t out_stride;
  char* lse;  // head g, token t: lse + g * query_tokens + t, in the statistics type; may be null
};

/// What backward reads and writes beside the HeadGroup (whose out and lse it reads).
struct HeadGroupBack {
  const char* dout;    // as out
  char *dq, *dk, *dv;  // as q, k, v
  float* delta;        // [group, query_tokens] rowsum(dout * out), where one pass leaves it for the other; may be null
};

/// Query rows [row, row + rows) of a group.
struct RowTask {
  HeadGroup g;
  HeadGroupBack back;  // backward only
  int64_t row, rows;
};

/// Tiles of bf16 begin and end at even places of a sum, with zeros at the odd end, whether pairs are multiplied or not.
constexpr int64_t sum_step(DType dtype) { return dtype == DType::bf16 ? 2 : 1; }
constexpr int64_t step_down(DType dtype, int64_t at) { return at / sum_step(dtype) * sum_step(dtype); }
constexpr int64_t step_up(DType dtype, int64_t at) { return ceil_div(at, sum_step(dtype)) * sum_step(dtype); }

/// Query rows, and the first and last key that a row sees.
inline int64_t row_count(const HeadGroup& g) { return g.query_tokens * g.group; }
inline int64_t last_key(const HeadGroup& g, int64_t row) { return g.causal ? g.first_position + row / g.group : g.keys - 1; }
inline int64_t first_key(const HeadGroup& g, int64_t row) {
  const int64_t near = g.window > 0 ? std::max<int64_t>(g.first_position + row / g.group + 1 - g.window, 0) : 0;
  return g.documents ? std::max<int64_t>(g.documents[row / g.group], near) : near;
}
/// The first query row that sees this key, and the first one after those that do.
inline int64_t first_row(const HeadGroup& g, int64_t key) {
  const int64_t token = g.causal ? key - g.first_position : 0;
  return (token > 0 ? token : 0) * g.group;
}
inline int64_t end_row(const HeadGroup& g, int64_t key) {
  int64_t tokens = g.window > 0 ? std::clamp<int64_t>(key - g.first_position + g.window, 0, g.query_tokens) : g.query_tokens;
  if (g.documents) tokens = std::upper_bound(g.documents, g.documents + tokens, key) - g.documents;
  return tokens * g.group;
}

/// The first key of the first tile that this row, and so any after it, sees. Tiles lie where they lie without a window.
inline int64_t first_tile(const HeadGroup& g, int64_t row) { return first_key(g, row) / kKeys * kKeys; }

/// Floats of one lane's scratch.
constexpr int64_t forward_scratch(int64_t head_dim) {
  return padded(head_dim) * (2 * kForwardSpan * kRows + 2 * kKeys) + kScoreStride * kKeys;
}
constexpr int64_t backward_scratch(int64_t head_dim) {
  return padded(head_dim) * (5 * kBackwardSpan * kRows + 2 * kKeys) + 2 * kScoreStride * kKeys + kScoreStride * kKeys / 2;
}

/// One pass per (batch, kv head) costs 5 products but has few tasks; a pass over query rows and one over keys cost 7 and divide at will.
/// Both give the same bits, so the choice may look at the lanes.
constexpr bool one_pass(int64_t groups, int64_t lanes) { return ceil_div(groups, lanes) * lanes * 5 <= groups * 7; }

/// Attends the task's rows over all keys they see; writes out and lse. The row is a multiple of kRows and rows at most kForwardSpan *
/// kRows. `next` is what this thread will probably do next: only a hint of what to fetch into the cache.
void forward_rows(const RowTask& task, const RowTask& next, float* scratch);

/// dq of the task's rows, at most kBackwardSpan * kRows. If dk_sum is not null, also adds their part of dk / scale and dv to dk_sum and
/// dv_sum [keys, padded(head_dim)]: called for ascending rows it does the whole backward pass.
void backward_rows(const RowTask& task, const RowTask& next, float* dk_sum, float* dv_sum, float* scratch);
/// Adds the part of dk / scale and dv of all rows to the sums of the keys [key, key + kKeys), dk_sum and dv_sum [kKeys, padded(head_dim)],
/// from back.delta: the same numbers in the same order as ascending backward_rows, so the same bits.
void backward_keys(const HeadGroup& g, const HeadGroupBack& back, int64_t key, float* dk_sum, float* dv_sum, float* scratch);
/// Writes dk and dv of the keys [key, key + count) from their sums.
void store_key_gradients(const HeadGroup& g, const HeadGroupBack& back, int64_t key, int64_t count, const float* dk_sum,
                         const float* dv_sum);

/// The float64 path: obvious loops, one row at a time. scratch [keys].
void forward_rows_f64(const HeadGroup& g, int64_t row, int64_t rows, double* scratch);
/// dq of all rows; adds their part of dk and dv to dk_sum and dv_sum, whose rows lie `stride` apart.
void backward_f64(const HeadGroup& g, const HeadGroupBack& back, double* dk_sum, double* dv_sum, int64_t stride);

/// Rows of one task: `span` blocks if that leaves every lane some four tasks, else one block. Never shows in the bits.
constexpr int64_t task_rows(int64_t groups, int64_t rows, int64_t span, int64_t lanes) {
  return groups * ceil_div(rows, span * kRows) >= 4 * lanes ? span * kRows : kRows;
}

/// Runs every group on up to `lanes` threads. group_of(batch, kv_head) describes a group. A group's tasks follow each other, so that its
/// keys stay in the cache; the last rows, which see the most keys, come first.
template <class GroupOf>
void run_forward(const AttentionShape& shape, int64_t lane_bytes, GroupOf group_of, void* workspace, int lanes) {
  const int64_t groups = shape.batch * shape.kv_heads, rows = shape.tokens * (shape.heads / shape.kv_heads);
  const int64_t step = task_rows(groups, rows, kForwardSpan, lanes), steps = ceil_div(rows, step);
  auto row_task = [&](int64_t task) {
    const int64_t group = task / steps;
    return RowTask{group_of(group / shape.kv_heads, group % shape.kv_heads), {}, (steps - 1 - task % steps) * step, step};
  };
  const int64_t tasks = groups * steps, stride = std::min(lanes, thread_count());
  parallel_for(
      tasks,
      [&](int64_t index, int lane) {
        const RowTask task = row_task(index);
        char* scratch = static_cast<char*>(workspace) + lane * lane_bytes;
        if (shape.dtype == DType::f64) {
          forward_rows_f64(task.g, task.row, step, reinterpret_cast<double*>(scratch));
        } else {
          forward_rows(task, row_task(std::min(index + stride, tasks - 1)), reinterpret_cast<float*>(scratch));
        }
      },
      lanes);
}

/// Aborts unless the kernels can serve this shape: the host checks first and says why.
void assert_shape(const AttentionShape& shape);
/// Bytes of one lane's scratch for the forward pass over up to `keys` keys, a multiple of 64.
int64_t forward_lane_bytes(const AttentionShape& shape, int64_t keys);
/// The dtype, head and scale fields of a group; pointers and extents are left to the caller.
HeadGroup common_group(const AttentionShape& shape);
/// The group of one kv head in packed rows. qkv, out and lse may be gradients or null: only addresses are taken.
HeadGroup packed_group(const AttentionShape& shape, const void* qkv, void* out, void* lse, int64_t batch, int64_t kv_head);
}  // namespace reckon::cpu::detail
