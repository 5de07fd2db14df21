// backend/cpu: norms, rotary positions and attention, from tensors to the plain-pointer kernels.
#include <cstring>

#include "reckon/backend/cpu/attention.h"
#include "reckon/backend/cpu/attention_chunk.h"
#include "reckon/backend/cpu/embedding.h"
#include "reckon/backend/cpu/kernels.h"
#include "reckon/backend/cpu/kv_cache.h"
#include "reckon/backend/cpu/norm.h"
#include "reckon/backend/cpu/rope.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
RowLayout plain(int64_t cols) { return {.stride = cols}; }

void norm(const KernelArgs& k, Norm kind) {
  const Tensor &x = k.in[0], &w = k.in[1];
  const int64_t cols = x.shape().last();
  const bool layer = kind == Norm::layer;
  norm_forward({.kind = kind, .dtype = x.dtype(), .w_dtype = w.dtype(), .rows = x.shape().rows(), .cols = cols, .eps = k.as<NormParams>().eps,
                .x = x.raw(), .x_rows = plain(cols), .w = w.raw(), .b = k.in.size() > 2 ? k.in[2].raw() : nullptr,
                .y = k.out[0].raw(), .y_rows = plain(cols), .mean = layer ? k.out[1].raw() : nullptr, .r = k.out[layer ? 2 : 1].raw()});
}
// in: x, residual, weight (, bias) -> sum, y (, mean), rstd
void add_norm(const KernelArgs& k, Norm kind) {
  const Tensor &x = k.in[0], &w = k.in[2];
  const int64_t cols = x.shape().last();
  const bool layer = kind == Norm::layer;
  norm_forward({.kind = kind, .dtype = x.dtype(), .w_dtype = w.dtype(), .rows = x.shape().rows(), .cols = cols, .eps = k.as<NormParams>().eps,
                .x = x.raw(), .x_rows = plain(cols), .w = w.raw(), .b = k.in.size() > 3 ? k.in[3].raw() : nullptr, .residual = k.in[1].raw(),
                .sum = k.out[0].raw(), .y = k.out[1].raw(), .y_rows = plain(cols), .mean = layer ? k.out[2].raw() : nullptr,
                .r = k.out[layer ? 3 : 2].raw()});
}
// in: dy, x, weight (, mean), rstd (, dsum)
void norm_back(const KernelArgs& k, Norm kind) {
  const Tensor &x = k.in[1], &w = k.in[2];
  const int64_t cols = x.shape().last();
  const bool layer = kind == Norm::layer;
  size_t at = 0;
  const auto output = [&](int i) { return k.needs(i) ? k.out[at++].raw() : nullptr; };
  void *dx = output(0), *dw = output(1), *db = layer ? output(2) : nullptr;
  norm_backward({.kind = kind, .dtype = x.dtype(), .w_dtype = w.dtype(), .dw_dtype = statistics_dtype(w.dtype()), .rows = x.shape().rows(), .cols = cols,
                 .dy = k.in[0].raw(), .dy_rows = plain(cols), .x = x.raw(), .x_rows = plain(cols), .w = w.raw(),
                 .mean = layer ? k.in[3].raw() : nullptr, .r = k.in[layer ? 4 : 3].raw(),
                 .dsum = k.in.size() > (layer ? 5 : 4) ? k.in.back().raw() : nullptr, .dx = dx, .dx_rows = plain(cols), .dw = dw, .db = db,
                 .workspace = k.workspace});
}

// The query or key heads inside packed rows, as rows of a norm.
struct HeadRange {
  int64_t first, count;  // heads
};
std::byte* head_start(const Tensor& t, int64_t head, int64_t head_dim) { return static_cast<std::byte*>(t.raw()) + head * head_dim * size_of(t.dtype()); }
// rstd is kept as [H block of all rows | KV block of all rows], so that each half is one run of the norm's rows.
std::byte* rstd_start(const Tensor& rstd, bool keys, int64_t rows, int64_t heads) {
  return static_cast<std::byte*>(rstd.raw()) + (keys ? rows * heads * size_of(rstd.dtype()) : 0);
}
// Copies the value heads of every packed row.
void copy_values(const Tensor& from, const Tensor& to, const QkNormParams& q) {
  const int64_t width = from.shape().last(), start = (q.heads + int64_t(q.kv_heads)) * q.head_dim, bytes = (width - start) * size_of(from.dtype());
  parallel_range(from.shape().rows(), rows_per_task(bytes), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t offset = (row * width + start) * size_of(from.dtype());
      std::memcpy(static_cast<std::byte*>(to.raw()) + offset, static_cast<const std::byte*>(from.raw()) + offset, size_t(bytes));
    }
  });
}
}  // namespace

void kernel::layer_norm(const KernelArgs& k) { norm(k, Norm::layer); }
void kernel::rms_norm(const KernelArgs& k) { norm(k, Norm::rms); }
void kernel::add_layer_norm(const KernelArgs& k) { add_norm(k, Norm::layer); }
void kernel::add_rms_norm(const KernelArgs& k) { add_norm(k, Norm::rms); }
void kernel::layer_norm_back(const KernelArgs& k) { norm_back(k, Norm::layer); }
void kernel::rms_norm_back(const KernelArgs& k) { norm_back(k, Norm::rms); }

void kernel::qk_norm(const KernelArgs& k) {
  const auto q = k.as<QkNormParams>();
  const Tensor &x = k.in[0], &y = k.out[0];
  const int64_t rows = x.shape().rows(), width = x.shape().last();
  for (const bool keys : {false, true}) {
    const HeadRange heads = keys ? HeadRange{q.heads, q.kv_heads} : HeadRange{0, q.heads};
    const RowLayout layout{.stride = width, .heads = heads.count, .head_stride = q.head_dim};
    norm_forward({.kind = Norm::rms, .dtype = x.dtype(), .w_dtype = x.dtype(), .rows = rows * heads.count, .cols = q.head_dim, .eps = q.eps,
                  .x = head_start(x, heads.first, q.head_dim), .x_rows = layout, .w = k.in[keys ? 2 : 1].raw(),
                  .y = head_start(y, heads.first, q.head_dim), .y_rows = layout, .r = rstd_start(k.out[1], keys, rows, q.heads)});
  }
  copy_values(x, y, q);
}
// in: dy, qkv, wq, wk, rstd
void kernel::qk_norm_back(const KernelArgs& k) {
  const auto q = k.as<QkNormParams>();
  const Tensor &dy = k.in[0], &x = k.in[1];
  const int64_t rows = x.shape().rows(), width = x.shape().last();
  size_t at = 0;
  const Tensor dx = k.needs(0) ? k.out[at++] : Tensor();
  for (const bool keys : {false, true}) {
    const HeadRange heads = keys ? HeadRange{q.heads, q.kv_heads} : HeadRange{0, q.heads};
    const RowLayout layout{.stride = width, .heads = heads.count, .head_stride = q.head_dim};
    norm_backward({.kind = Norm::rms, .dtype = x.dtype(), .w_dtype = x.dtype(), .dw_dtype = statistics_dtype(x.dtype()), .rows = rows * heads.count,
                   .cols = q.head_dim, .dy = head_start(dy, heads.first, q.head_dim), .dy_rows = layout,
                   .x = head_start(x, heads.first, q.head_dim), .x_rows = layout, .w = k.in[keys ? 3 : 2].raw(),
                   .r = rstd_start(k.in[4], keys, rows, q.heads), .dx = dx.defined() ? head_start(dx, heads.first, q.head_dim) : nullptr,
                   .dx_rows = layout, .dw = k.needs(keys ? 2 : 1) ? k.out[at++].raw() : nullptr, .workspace = k.workspace});
  }
  if (dx.defined()) copy_values(dy, dx, q);
}

namespace {
AttentionShape attention_shape(const TensorSpec& qkv, const AttentionParams& a) {
  return {.batch = qkv.shape[0], .tokens = qkv.shape[1], .heads = a.heads, .kv_heads = a.kv_heads, .head_dim = a.head_dim, .dtype = qkv.dtype, .causal = a.causal,
          .scale = a.scale, .window = a.window};
}
AttentionChunk attention_chunk_of(const TensorSpec& qkv, const TensorSpec& keys, const AttentionChunkParams& a) {
  return {.attention = attention_shape(qkv, a.attention), .first = a.first, .total = keys.shape[2]};
}
RopeShape rope_shape(const TensorSpec& x, const RopeParams& r) {
  return {.rows = x.shape.rows(), .tokens = x.shape[1], .width = x.shape.last(), .rotated_heads = r.rotated_heads, .head_dim = r.head_dim, .theta = r.theta, .dtype = x.dtype};
}
}  // namespace

void kernel::rope(const KernelArgs& k) {
  const auto r = k.as<RopeParams>();
  cpu::rope(rope_shape(k.in[0].spec(), r), k.in[0].raw(), k.out[0].raw(), r.has_position ? k.in[1].data<int64_t>() : &r.first, r.inverse,
            k.workspace);
}
void kernel::attention(const KernelArgs& k) {  // in: qkv (, documents)
  AttentionShape shape = attention_shape(k.in[0].spec(), k.as<AttentionParams>());
  if (k.in.size() > 1) shape.documents = k.in[1].data<int32_t>();
  attention_forward(shape, k.in[0].raw(), k.out[0].raw(), k.out[1].raw(), k.workspace, k.lanes);
}
void kernel::attention_back(const KernelArgs& k) {  // in: dout, qkv, out, lse (, documents)
  AttentionShape shape = attention_shape(k.in[1].spec(), k.as<AttentionParams>());
  if (k.in.size() > 4) shape.documents = k.in[4].data<int32_t>();
  attention_backward(shape, k.in[0].raw(), k.in[1].raw(), k.in[2].raw(), k.in[3].raw(), k.out[0].raw(), k.workspace, k.lanes);
}
void kernel::kv_append(const KernelArgs& k) {
  cpu::kv_append(attention_shape(k.in[0].spec(), k.as<AttentionParams>()), k.in[1].shape()[2], k.in[0].raw(), k.in[1].raw(), k.in[2].raw(), k.in[3].data<int64_t>());
}
void kernel::attention_cached(const KernelArgs& k) {
  cpu::attention_cached(attention_shape(k.in[0].spec(), k.as<AttentionParams>()), k.in[1].shape()[2], k.in[0].raw(), k.in[1].raw(), k.in[2].raw(),
                        k.in[3].data<int64_t>(), k.out[0].raw(), k.workspace, k.lanes);
}
void kernel::store_chunk(const KernelArgs& k) {  // in: part, whole
  const Tensor &part = k.in[0], &whole = k.in[1];
  const int64_t first = k.as<ChunkParams>().first, C = part.shape()[1], T = whole.shape()[1], B = part.shape()[0];
  const int64_t row_bytes = part.numel() == 0 ? 0 : part.spec().bytes() / (B * C);
  if (row_bytes == 0) return;
  parallel_range(B * C, rows_per_task(row_bytes), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      std::byte* to = static_cast<std::byte*>(whole.raw()) + (row / C * T + first + row % C) * row_bytes;
      std::memcpy(to, static_cast<const std::byte*>(part.raw()) + row * row_bytes, size_t(row_bytes));
    }
  });
}
void kernel::store_keys(const KernelArgs& k) {  // in: qkv, k, v
  const auto a = k.as<AttentionChunkParams>();
  cpu::kv_append(attention_shape(k.in[0].spec(), a.attention), k.in[1].shape()[2], k.in[0].raw(), k.in[1].raw(), k.in[2].raw(), &a.first);
}
void kernel::attention_chunk(const KernelArgs& k) {  // in: qkv, k, v (, dk, dv) (, documents)
  const auto a = k.as<AttentionChunkParams>();
  AttentionChunk chunk = attention_chunk_of(k.in[0].spec(), k.in[1].spec(), a);
  if (a.has_documents) chunk.attention.documents = k.in.back().data<int32_t>();
  attention_chunk_forward(chunk, k.in[0].raw(), k.in[1].raw(), k.in[2].raw(), k.out[0].raw(), k.out[1].raw(), k.workspace, k.lanes);
}
void kernel::attention_chunk_back(const KernelArgs& k) {  // in: dout, qkv, k, v, out, lse, dk, dv (, documents)
  const auto a = k.as<AttentionChunkParams>();
  AttentionChunk chunk = attention_chunk_of(k.in[1].spec(), k.in[2].spec(), a);
  if (a.has_documents) chunk.attention.documents = k.in.back().data<int32_t>();
  attention_chunk_backward(chunk, k.in[0].raw(), k.in[1].raw(), k.in[2].raw(), k.in[3].raw(), k.in[4].raw(), k.in[5].raw(), k.in[6].raw(),
                           k.in[7].raw(), k.out[0].raw(), k.workspace, k.lanes);
}

namespace book {
void layer_norm_back(Plan& p) { p.workspace = norm_backward_workspace(p.in[1].dtype, p.in[1].shape.rows(), p.in[1].shape.last()); }
void rms_norm_back(Plan& p) { layer_norm_back(p); }
void qk_norm_back(Plan& p) {
  const auto q = p.params.as<QkNormParams>();
  p.workspace = norm_backward_workspace(p.in[1].dtype, p.in[1].shape.rows() * q.heads, q.head_dim);
}
void rope(Plan& p) { p.workspace = rope_workspace(rope_shape(p.in[0], p.params.as<RopeParams>())); }
int vector_floats(const Plan& p) { return p.profile.vector_floats > 0 ? p.profile.vector_floats : attention_vector_floats(); }
void attention(Plan& p) {
  const AttentionShape shape = attention_shape(p.in[0], p.params.as<AttentionParams>());
  p.workspace = attention_workspace(shape, p.profile.lanes);
  p.flops.matmul = checked_multiply(2, attention_work(shape, vector_floats(p)));
}
void attention_back(Plan& p) {
  const AttentionShape shape = attention_shape(p.in[1], p.params.as<AttentionParams>());
  p.workspace = attention_back_workspace(shape, p.profile.lanes);
  p.flops.matmul = checked_multiply(2, attention_back_work(shape, p.profile.lanes, vector_floats(p)));
}
void attention_cached(Plan& p) {
  p.workspace = attention_cached_workspace(attention_shape(p.in[0], p.params.as<AttentionParams>()), p.in[1].shape[2], p.profile.lanes);
}
void attention_chunk(Plan& p) {
  const AttentionChunk chunk = attention_chunk_of(p.in[0], p.in[1], p.params.as<AttentionChunkParams>());
  p.workspace = attention_chunk_workspace(chunk, p.profile.lanes);
  p.flops.matmul = checked_multiply(2, attention_chunk_work(chunk, vector_floats(p)));
}
void attention_chunk_back(Plan& p) {
  const AttentionChunk chunk = attention_chunk_of(p.in[1], p.in[2], p.params.as<AttentionChunkParams>());
  p.workspace = attention_chunk_back_workspace(chunk, p.profile.lanes);
  p.flops.matmul = checked_multiply(2, attention_chunk_back_work(chunk, p.profile.lanes, vector_floats(p)));
}
}  // namespace book
}  // namespace reckon::cpu
