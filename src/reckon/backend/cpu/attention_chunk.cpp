// backend/cpu/attention_chunk: the blocks of attention over keys that lie apart from the queries. No arithmetic on elements here.
#include "reckon/backend/cpu/attention_chunk.h"

#include <cstring>

#include "reckon/backend/cpu/attention_block.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"
#include "reckon/tensor/shape.h"

namespace reckon::cpu {
namespace {
using namespace detail;

void assert_chunk(const AttentionChunk& c) {
  assert_shape(c.attention);
  RECKON_ASSERT(c.attention.causal && c.first >= 0 && c.attention.tokens <= c.total && c.first <= c.total - c.attention.tokens);
}

int64_t back_lane_bytes(const AttentionShape& s) { return s.dtype == DType::f64 ? 0 : backward_scratch(s.head_dim) * 4; }

/// The group of one kv head: queries in packed rows, keys and values apart.
HeadGroup chunk_group(const AttentionChunk& c, const void* qkv, const void* k, const void* v, void* out, void* lse, int64_t index) {
  const AttentionShape& s = c.attention;
  HeadGroup g = packed_group(s, qkv, out, lse, index / s.kv_heads, index % s.kv_heads);
  const int64_t at = index * c.total * s.head_dim * g.element;
  g.k = static_cast<const char*>(k) + at;
  g.v = static_cast<const char*>(v) + at;
  g.kv_stride = s.head_dim;
  g.first_position = c.first;
  g.keys = c.end();
  return g;
}

struct BackCall {
  const AttentionChunk& chunk;
  const void *dout, *qkv, *k, *v, *out, *lse;
  void *dk, *dv, *dqkv;
  float* delta;  // [B, H, C], or null

  const AttentionShape& shape() const { return chunk.attention; }
  int64_t groups() const { return shape().batch * shape().kv_heads; }
  HeadGroup group(int64_t index) const { return chunk_group(chunk, qkv, k, v, const_cast<void*>(out), const_cast<void*>(lse), index); }
  // dk and dv are those of the chunk's own rows.
  HeadGroupBack back(int64_t index) const {
    const int64_t batch = index / shape().kv_heads, kv_head = index % shape().kv_heads;
    const HeadGroup d = packed_group(shape(), dqkv, const_cast<void*>(dout), nullptr, batch, kv_head);
    float* rows = delta ? delta + (batch * shape().heads + kv_head * d.group) * shape().tokens : nullptr;
    return {d.out, const_cast<char*>(d.q), const_cast<char*>(d.k), const_cast<char*>(d.v), rows};
  }
  RowTask rows(int64_t index, int64_t row, int64_t count) const { return {group(index), back(index), row, count}; }
  template <class T>
  T* sums(void* of, int64_t index, int64_t key = 0) const {
    return static_cast<T*>(of) + (index * chunk.total + key) * padded(shape().head_dim);
  }

  // Gradients of those keys of [key, key + count) that are the chunk's own: nobody else adds to them.
  void store(int64_t index, int64_t key, int64_t count) const {
    const int64_t begin = std::max(key, chunk.first), end = std::min(key + count, chunk.end());
    if (begin >= end) return;
    HeadGroup g = group(index);
    g.kv_stride = (shape().heads + 2 * shape().kv_heads) * shape().head_dim;
    store_key_gradients(g, back(index), begin - chunk.first, end - begin, sums<float>(dk, index, begin), sums<float>(dv, index, begin));
  }
};

void back_of_f64(const BackCall& call, int64_t index) {
  const HeadGroup g = call.group(index);
  const HeadGroupBack back = call.back(index);
  const int64_t width = padded(g.head_dim), row = (call.shape().heads + 2 * call.shape().kv_heads) * g.head_dim;
  backward_f64(g, back, call.sums<double>(call.dk, index), call.sums<double>(call.dv, index), width);
  for (int64_t t = 0; t < g.query_tokens; ++t) {
    const size_t bytes = size_t(g.head_dim) * sizeof(double);
    std::memcpy(back.dk + t * row * g.element, call.sums<double>(call.dk, index, g.first_position + t), bytes);
    std::memcpy(back.dv + t * row * g.element, call.sums<double>(call.dv, index, g.first_position + t), bytes);
  }
}

void back_in_one_pass(const BackCall& call, char* workspace, int lanes) {
  constexpr int64_t kStep = kBackwardSpan * kRows;
  const int64_t groups = call.groups(), stride = std::min(lanes, thread_count());
  parallel_for(
      groups,
      [&](int64_t index, int lane) {
        if (call.shape().dtype == DType::f64) return back_of_f64(call, index);
        RowTask task = call.rows(index, 0, kStep), next = task;
        float* scratch = reinterpret_cast<float*>(workspace + lane * back_lane_bytes(call.shape()));
        for (; task.row < row_count(task.g); task.row += kStep) {
          next.row = task.row + kStep;
          if (next.row >= row_count(task.g)) next = call.rows(std::min(index + stride, groups - 1), 0, kStep);
          backward_rows(task, next, call.sums<float>(call.dk, index), call.sums<float>(call.dv, index), scratch);
        }
        call.store(index, call.chunk.first, call.shape().tokens);
      },
      lanes);
}

void back_in_two_passes(const BackCall& call, char* workspace, int lanes) {
  const AttentionShape& s = call.shape();
  const int64_t groups = call.groups(), rows = s.tokens * (s.heads / s.kv_heads), step = task_rows(groups, rows, kBackwardSpan, lanes);
  const int64_t row_steps = ceil_div(rows, step), row_tasks = groups * row_steps, stride = std::min(lanes, thread_count());
  const auto scratch = [&](int lane) { return reinterpret_cast<float*>(workspace + lane * back_lane_bytes(s)); };
  // Late rows see the most keys: first.
  const auto row_task = [&](int64_t task) { return call.rows(task / row_steps, (row_steps - 1 - task % row_steps) * step, step); };
  parallel_for(
      row_tasks,
      [&](int64_t task, int lane) {
        backward_rows(row_task(task), row_task(std::min(task + stride, row_tasks - 1)), nullptr, nullptr, scratch(lane));
      },
      lanes);
  const int64_t keys = call.chunk.end(), key_steps = ceil_div(keys, kKeys);
  parallel_for(
      groups * key_steps,
      [&](int64_t task, int lane) {  // early keys are seen by the most rows: first
        const int64_t index = task / key_steps, key = task % key_steps * kKeys, count = std::min(kKeys, keys - key);
        backward_keys(call.group(index), call.back(index), key, call.sums<float>(call.dk, index, key),
                      call.sums<float>(call.dv, index, key), scratch(lane));
        call.store(index, key, count);
      },
      lanes);
}
}  // namespace

int64_t attention_chunk_workspace(const AttentionChunk& c, int lanes) {
  return checked_multiply(lanes, forward_lane_bytes(c.attention, c.total));
}

int64_t attention_chunk_back_workspace(const AttentionChunk& c, int lanes) {
  const AttentionShape& s = c.attention;
  const int64_t delta = s.dtype == DType::f64 ? 0 : checked_product({s.batch, s.heads, s.tokens, 4});
  return checked_sum({checked_multiply(lanes, back_lane_bytes(s)), delta, 63}) / 64 * 64;
}

void attention_chunk_forward(const AttentionChunk& c, const void* qkv, const void* k, const void* v, void* out, void* lse, void* workspace,
                             int lanes) {
  assert_chunk(c);
  auto group_of = [&](int64_t batch, int64_t kv_head) {
    return chunk_group(c, qkv, k, v, out, lse, batch * c.attention.kv_heads + kv_head);
  };
  run_forward(c.attention, forward_lane_bytes(c.attention, c.total), group_of, workspace, lanes);
}

void attention_chunk_backward(const AttentionChunk& c, const void* dout, const void* qkv, const void* k, const void* v, const void* out,
                              const void* lse, void* dk, void* dv, void* dqkv, void* workspace, int lanes) {
  assert_chunk(c);
  const AttentionShape& s = c.attention;
  BackCall call{c, dout, qkv, k, v, out, lse, dk, dv, dqkv, nullptr};
  if (call.groups() == 0 || s.tokens == 0) return;
  char* lanes_at = static_cast<char*>(workspace);
  if (s.dtype == DType::f64 || one_pass(call.groups(), lanes)) return back_in_one_pass(call, lanes_at, lanes);
  call.delta = reinterpret_cast<float*>(lanes_at + lanes * back_lane_bytes(s));
  back_in_two_passes(call, lanes_at, lanes);
}
}  // namespace reckon::cpu
