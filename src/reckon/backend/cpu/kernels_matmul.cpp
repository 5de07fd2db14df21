// backend/cpu: matrix products, from tensors to gemm.
#include "reckon/backend/cpu/gemm.h"
#include "reckon/backend/cpu/kernels.h"

namespace reckon::cpu {
namespace {

// ---- matmul: a batch of products; leading axes broadcast.
GemmShape matmul_shape(const Shape& a, const Shape& b, DType dtype, const MatmulParams& q) {
  GemmShape g{.a = dtype, .b = dtype, .c = dtype, .trans_a = q.transpose_a, .trans_b = q.transpose_b};
  g.m = a[q.transpose_a ? -1 : -2];
  g.k = a[q.transpose_a ? -2 : -1];
  g.n = b[q.transpose_b ? -2 : -1];
  return g;
}

// Elements between matrices of a batch index when walking the leading axes of `out` over a contiguous operand.
struct BatchWalk {
  int64_t index[kMaxRank] = {};
  const Shape& out;  // leading axes
  const Shape& in;
  int64_t offset() const {
    int64_t at = 0;
    const int lead = in.rank() - 2, skip = out.rank() - lead;
    for (int axis = 0; axis < lead; ++axis) at = at * in[axis] + (in[axis] == 1 ? 0 : index[axis + skip]);
    return at * in[-1] * in[-2];
  }
  void next() {
    for (int axis = out.rank() - 1; axis >= 0 && ++index[axis] == out[axis]; --axis) index[axis] = 0;
  }
};
// True if the operand's matrices lie one after another for every step of the batch, or if there is only one.
int64_t uniform_stride(const Shape& out, const Shape& in) {
  int64_t matrices = 1;
  for (int axis = 0; axis + 2 < in.rank(); ++axis) matrices *= in[axis];
  if (matrices == 1) return 0;
  return matrices == out.numel() ? in[-1] * in[-2] : -1;
}
std::byte* at(const Tensor& t, int64_t elements) { return static_cast<std::byte*>(t.raw()) + elements * size_of(t.dtype()); }
}  // namespace

namespace book {
void matmul(Plan& p) {
  if (!is_float(p.in[0].dtype)) return;
  p.workspace = gemm_workspace(matmul_shape(p.in[0].shape, p.in[1].shape, p.in[0].dtype, p.params.as<MatmulParams>()), p.profile.lanes);
}
}  // namespace book

void kernel::matmul(const KernelArgs& k) {
  const Tensor &a = k.in[0], &b = k.in[1], &c = k.out[0];
  const GemmShape g = matmul_shape(a.shape(), b.shape(), a.dtype(), k.as<MatmulParams>());
  const Shape lead = c.shape().first(c.rank() - 2);
  if (!is_float(a.dtype())) {
    BatchWalk walk_a{{}, lead, a.shape()}, walk_b{{}, lead, b.shape()};
    for (int64_t i = 0; i < lead.numel(); ++i, walk_a.next(), walk_b.next())
      gemm_whole(g, at(a, walk_a.offset()), at(b, walk_b.offset()), at(c, i * g.m * g.n));
    return;
  }
  const int64_t step_a = uniform_stride(lead, a.shape()), step_b = uniform_stride(lead, b.shape());
  if (step_a >= 0 && step_b >= 0) {
    gemm_batched(g, lead.numel(), a.raw(), step_a, b.raw(), step_b, c.raw(), g.m * g.n, nullptr, k.workspace, k.lanes);
    return;
  }
  BatchWalk walk_a{{}, lead, a.shape()}, walk_b{{}, lead, b.shape()};
  for (int64_t i = 0; i < lead.numel(); ++i, walk_a.next(), walk_b.next())
    gemm(g, at(a, walk_a.offset()), at(b, walk_b.offset()), at(c, i * g.m * g.n), nullptr, k.workspace, k.lanes);
}

// ---- linear: x [m, k], w [n, k]
namespace {
GemmShape linear_shape(const TensorSpec& x, const TensorSpec& w, bool bias) {
  return {.m = x.shape.rows(), .n = w.shape[0], .k = w.shape[1], .a = x.dtype, .b = w.dtype, .c = x.dtype, .trans_b = true, .bias = bias, .bias_dtype = x.dtype};
}
GemmShape back_x_shape(const TensorSpec& dy, const TensorSpec& w) {
  return {.m = dy.shape.rows(), .n = w.shape[1], .k = w.shape[0], .a = dy.dtype, .b = w.dtype, .c = dy.dtype};
}
GemmShape back_w_shape(const TensorSpec& dy, const TensorSpec& x, DType out, bool accumulate) {
  return {.m = dy.shape.last(), .n = x.shape.last(), .k = dy.shape.rows(), .a = dy.dtype, .b = x.dtype, .c = out, .trans_a = true, .accumulate = accumulate};
}
}  // namespace

namespace book {
void linear(Plan& p) { p.workspace = gemm_workspace(linear_shape(p.in[0], p.in[1], p.in.size() > 2), p.profile.lanes); }
void linear_back_x(Plan& p) { p.workspace = gemm_workspace(back_x_shape(p.in[0], p.in[1]), p.profile.lanes); }
void linear_back_w(Plan& p) {
  // Sized as if it accumulated: the first micro-batch, which overwrites, must fit where the later ones run.
  const DType out = p.in.size() > 2 ? p.in[2].dtype : p.params.as<LinearParams>().out;
  p.workspace = std::max(gemm_workspace(back_w_shape(p.in[0], p.in[1], out, true), p.profile.lanes),
                         gemm_workspace(back_w_shape(p.in[0], p.in[1], out, false), p.profile.lanes));
}
}  // namespace book

void kernel::linear(const KernelArgs& k) {
  const bool bias = k.in.size() > 2;
  gemm(linear_shape(k.in[0].spec(), k.in[1].spec(), bias), k.in[0].raw(), k.in[1].raw(), k.out[0].raw(), bias ? k.in[2].raw() : nullptr, k.workspace, k.lanes);
}
void kernel::linear_back_x(const KernelArgs& k) {
  gemm(back_x_shape(k.in[0].spec(), k.in[1].spec()), k.in[0].raw(), k.in[1].raw(), k.out[0].raw(), nullptr, k.workspace, k.lanes);
}
void kernel::linear_back_w(const KernelArgs& k) {
  const bool slot = k.in.size() > 2;
  const Tensor& dw = slot ? k.in[2] : k.out[0];
  const GemmShape g = back_w_shape(k.in[0].spec(), k.in[1].spec(), dw.dtype(), slot && k.as<LinearParams>().accumulate);
  gemm(g, k.in[0].raw(), k.in[1].raw(), dw.raw(), nullptr, k.workspace, k.lanes);
}
}  // namespace reckon::cpu
