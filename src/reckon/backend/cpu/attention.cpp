// backend/cpu/attention: cuts the work into blocks and hands them to threads. No arithmetic on elements here.
#include "reckon/backend/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "reckon/backend/cpu/attention_block.h"
#include "reckon/backend/cpu/attention_pairs.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"
#include "reckon/tensor/shape.h"

namespace reckon::cpu {
namespace detail {
void assert_shape(const AttentionShape& s) {
  RECKON_ASSERT(s.batch >= 0 && s.tokens >= 0 && s.kv_heads >= 1 && s.heads >= 1 && s.heads % s.kv_heads == 0);
  RECKON_ASSERT(s.head_dim >= 1 && s.head_dim <= kMaxHeadDim && is_float(s.dtype) && s.window >= 0);
}

int64_t forward_lane_bytes(const AttentionShape& s, int64_t keys) {
  const int64_t bytes = s.dtype == DType::f64 ? checked_multiply(keys, 8) : forward_scratch(s.head_dim) * 4;
  return ceil_div(bytes, 64) * 64;
}

HeadGroup common_group(const AttentionShape& s) {
  HeadGroup g{};
  g.dtype = s.dtype;
  g.element = size_of(s.dtype);
  g.head_dim = s.head_dim;
  g.group = s.heads / s.kv_heads;
  g.query_tokens = s.tokens;
  g.keys = s.tokens;
  g.causal = s.causal;
  g.window = s.causal ? s.window : 0;
  g.pairs = s.dtype == DType::bf16 && multiplies_pairs();
  g.scale = s.scale != 0 ? s.scale : 1 / std::sqrt(double(s.head_dim));
  return g;
}

HeadGroup packed_group(const AttentionShape& s, const void* qkv, void* out, void* lse, int64_t batch, int64_t kv_head) {
  HeadGroup g = common_group(s);
  const int64_t width = (s.heads + 2 * s.kv_heads) * s.head_dim, query = kv_head * g.group * s.head_dim;
  const int64_t key = (s.heads + kv_head) * s.head_dim;
  if (s.causal && s.documents) g.documents = s.documents + batch * s.tokens;
  const char* rows = static_cast<const char*>(qkv) + batch * s.tokens * width * g.element;
  g.q = rows + query * g.element;
  g.k = rows + key * g.element;
  g.v = rows + (key + s.kv_heads * s.head_dim) * g.element;
  g.q_stride = g.kv_stride = width;
  g.out_stride = s.heads * s.head_dim;
  g.out = static_cast<char*>(out) + (batch * s.tokens * g.out_stride + query) * g.element;
  g.lse = static_cast<char*>(lse) + (batch * s.heads + kv_head * g.group) * s.tokens * size_of(statistics_dtype(s.dtype));
  return g;
}
}  // namespace detail

namespace {
using namespace detail;

int64_t back_lane_bytes(const AttentionShape& s) {
  if (s.dtype == DType::f64) return 0;
  const int64_t key_sums = checked_product({2, std::max(s.tokens, kKeys), padded(s.head_dim)});
  return checked_multiply(checked_sum({backward_scratch(s.head_dim), key_sums}), 4);
}

/// Where the parts of one lane's backward scratch lie.
struct BackLane {
  float *scratch, *dk_sum, *dv_sum;
};
BackLane back_lane(const AttentionShape& s, void* workspace, int lane) {
  float* scratch = reinterpret_cast<float*>(static_cast<char*>(workspace) + lane * back_lane_bytes(s));
  float* dk_sum = scratch + backward_scratch(s.head_dim);
  return {scratch, dk_sum, dk_sum + std::max(s.tokens, kKeys) * padded(s.head_dim)};
}

struct BackCall {
  const AttentionShape& shape;
  const void *dout, *qkv, *out, *lse;
  void* dqkv;
  float* delta;  // [B, H, T], or null

  HeadGroup group(int64_t index) const {
    return packed_group(shape, qkv, const_cast<void*>(out), const_cast<void*>(lse), index / shape.kv_heads, index % shape.kv_heads);
  }
  HeadGroupBack back(int64_t index) const {
    const int64_t batch = index / shape.kv_heads, kv_head = index % shape.kv_heads;
    const HeadGroup d = packed_group(shape, dqkv, const_cast<void*>(dout), nullptr, batch, kv_head);
    float* rows = delta ? delta + (batch * shape.heads + kv_head * d.group) * shape.tokens : nullptr;
    return {d.out, const_cast<char*>(d.q), const_cast<char*>(d.k), const_cast<char*>(d.v), rows};
  }
  RowTask rows(int64_t index, int64_t row, int64_t count) const { return {group(index), back(index), row, count}; }
};

// Of one group, in float64: dk and dv are summed where they belong.
void back_f64(const HeadGroup& g, const HeadGroupBack& back) {
  double *dk = reinterpret_cast<double*>(back.dk), *dv = reinterpret_cast<double*>(back.dv);
  for (double* sums : {dk, dv})
    for (int64_t j = 0; j < g.keys; ++j) std::fill(sums + j * g.kv_stride, sums + j * g.kv_stride + g.head_dim, 0.0);
  backward_f64(g, back, dk, dv, g.kv_stride);
}

void back_in_one_pass(const BackCall& call, int64_t groups, void* workspace, int lanes) {
  const AttentionShape& s = call.shape;
  constexpr int64_t kStep = kBackwardSpan * kRows;
  const int64_t stride = std::min(lanes, thread_count());
  parallel_for(
      groups,
      [&](int64_t index, int lane) {
        RowTask task = call.rows(index, 0, kStep), next = task;
        const HeadGroup& g = task.g;
        if (s.dtype == DType::f64) return back_f64(g, task.back);
        const BackLane at = back_lane(s, workspace, lane);
        std::memset(at.dk_sum, 0, size_t(g.keys * padded(s.head_dim)) * 4);
        std::memset(at.dv_sum, 0, size_t(g.keys * padded(s.head_dim)) * 4);
        for (; task.row < row_count(g); task.row += kStep) {
          next.row = task.row + kStep;
          if (next.row >= row_count(g)) next = call.rows(std::min(index + stride, groups - 1), 0, kStep);
          backward_rows(task, next, at.dk_sum, at.dv_sum, at.scratch);
        }
        store_key_gradients(g, task.back, 0, g.keys, at.dk_sum, at.dv_sum);
      },
      lanes);
}

void back_in_two_passes(const BackCall& call, int64_t groups, void* workspace, int lanes) {
  const AttentionShape& s = call.shape;
  const int64_t rows = s.tokens * (s.heads / s.kv_heads), step = task_rows(groups, rows, kBackwardSpan, lanes);
  const int64_t row_steps = ceil_div(rows, step), key_steps = ceil_div(s.tokens, kKeys);
  // Late rows see the most keys: first.
  auto row_task = [&](int64_t task) { return call.rows(task / row_steps, (row_steps - 1 - task % row_steps) * step, step); };
  const int64_t row_tasks = groups * row_steps, stride = std::min(lanes, thread_count());
  parallel_for(
      row_tasks,
      [&](int64_t task, int lane) {
        const RowTask next = row_task(std::min(task + stride, row_tasks - 1));
        backward_rows(row_task(task), next, nullptr, nullptr, back_lane(s, workspace, lane).scratch);
      },
      lanes);
  parallel_for(
      groups * key_steps,
      [&](int64_t task, int lane) {  // early keys are seen by the most rows: first
        const BackLane at = back_lane(s, workspace, lane);
        const int64_t index = task / key_steps, key = task % key_steps * kKeys;
        const HeadGroup g = call.group(index);
        const int64_t keys = std::min(kKeys, g.keys - key);
        std::memset(at.dk_sum, 0, size_t(keys * padded(g.head_dim)) * 4);
        std::memset(at.dv_sum, 0, size_t(keys * padded(g.head_dim)) * 4);
        backward_keys(g, call.back(index), key, at.dk_sum, at.dv_sum, at.scratch);
        store_key_gradients(g, call.back(index), key, keys, at.dk_sum, at.dv_sum);
      },
      lanes);
}
}  // namespace

int64_t attention_workspace(const AttentionShape& shape, int lanes) {
  return checked_multiply(lanes, forward_lane_bytes(shape, shape.tokens));
}

int64_t attention_back_workspace(const AttentionShape& shape, int lanes) {
  const int64_t delta = shape.dtype == DType::f64 ? 0 : checked_product({shape.batch, shape.heads, shape.tokens, 4});
  return checked_sum({checked_multiply(lanes, back_lane_bytes(shape)), delta, 63}) / 64 * 64;
}

void attention_forward(const AttentionShape& shape, const void* qkv, void* out, void* lse, void* workspace, int lanes) {
  assert_shape(shape);
  auto group_of = [&](int64_t batch, int64_t kv_head) { return packed_group(shape, qkv, out, lse, batch, kv_head); };
  run_forward(shape, forward_lane_bytes(shape, shape.tokens), group_of, workspace, lanes);
}

void attention_backward(const AttentionShape& shape, const void* dout, const void* qkv, const void* out, const void* lse, void* dqkv,
                        void* workspace, int lanes) {
  assert_shape(shape);
  const int64_t groups = shape.batch * shape.kv_heads;
  if (groups == 0 || shape.tokens == 0) return;
  BackCall call{shape, dout, qkv, out, lse, dqkv, nullptr};
  if (shape.dtype == DType::f64 || one_pass(groups, lanes)) return back_in_one_pass(call, groups, workspace, lanes);
  call.delta = reinterpret_cast<float*>(static_cast<char*>(workspace) + lanes * back_lane_bytes(shape));
  back_in_two_passes(call, groups, workspace, lanes);
}
}  // namespace reckon::cpu
