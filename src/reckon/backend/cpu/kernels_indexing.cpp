// backend/cpu: joining, indexing, order and running sums, from tensors to the plain-pointer kernels.
#include <bit>
#include <limits>

#include "reckon/backend/cpu/convert.h"
#include "reckon/backend/cpu/cumsum.h"
#include "reckon/backend/cpu/index_add.h"
#include "reckon/backend/cpu/indexing.h"
#include "reckon/backend/cpu/kernels.h"
#include "reckon/backend/cpu/order.h"
#include "reckon/backend/cpu/rows_elementwise.h"
#include "reckon/backend/cpu/triangle.h"

namespace reckon::cpu {
namespace {
Strided seen(const Tensor& t) { return {t.raw(), t.layout().strides}; }
Indices indices(const Tensor& t) { return {seen(t), t.dtype() == DType::i64}; }

// The bytes of what an index out of range reads.
uint64_t nan_bits(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return std::bit_cast<uint32_t>(std::numeric_limits<float>::quiet_NaN());
    case DType::f64:
      return std::bit_cast<uint64_t>(std::numeric_limits<double>::quiet_NaN());
    case DType::bf16:
      return 0x7FC0;
    case DType::f16:
      return 0x7E00;
    default:
      return 0;
  }
}
// x into y, unless y took over its storage.
void take_over(const Tensor& x, const Tensor& y) {
  if (x.raw() != y.raw()) copy_strided(size_of(y.dtype()), y.shape(), seen(x), y.raw(), y.layout().strides);
}
// 16-bit floats are added in float32, in the workspace.
bool is_half(DType dtype) { return is_float(dtype) && size_of(dtype) == 2; }
// Whole slices of more than one element may go by index_add. By the rank, not by an extent: workspaces are monotone in those.
bool by_slices(const AxisParams& p, int rank) { return p.slices && p.axis < rank - 1; }
}  // namespace

void kernel::concatenate(const KernelArgs& k) {
  const int axis = k.as<AxisParams>().axis;
  const Tensor& out = k.out[0];
  const int64_t bytes = size_of(out.dtype());
  int64_t at = 0;
  for (const Tensor& part : k.in) {
    std::byte* const to = static_cast<std::byte*>(out.raw()) + at * out.layout().strides[axis] * bytes;
    if (part.numel() > 0) copy_strided(bytes, part.shape(), seen(part), to, out.layout().strides);
    at += part.shape()[axis];
  }
}

void kernel::gather(const KernelArgs& k) {  // in: x, index
  const auto p = k.as<AxisParams>();
  const Tensor& x = k.in[0];
  cpu::gather(size_of(x.dtype()), p.zero_missing ? 0 : nan_bits(x.dtype()), k.in[1].shape(), p.axis, seen(x), x.shape()[p.axis],
              indices(k.in[1]), k.out[0].raw());
}
void kernel::scatter(const KernelArgs& k) {  // in: x, index, src
  const Tensor &y = k.out[0], &src = k.in[2];
  take_over(k.in[0], y);
  cpu::scatter(size_of(y.dtype()), src.shape(), k.as<AxisParams>().axis, indices(k.in[1]), seen(src), y.shape(), y.raw());
}
void kernel::scatter_add(const KernelArgs& k) {  // in: x, index, src
  const Tensor &y = k.out[0], &src = k.in[2];
  const auto p = k.as<AxisParams>();
  if (by_slices(p, y.rank())) {
    IndexAdd args{y.dtype(), y.shape(), p.axis, src.shape()[p.axis], seen(k.in[0]), seen(src), indices(k.in[1])};
    args.y = y.raw();
    return index_add(args, k.workspace);
  }
  take_over(k.in[0], y);
  void* const sums = is_half(y.dtype()) ? k.workspace : y.raw();
  if (sums != y.raw()) convert(y.dtype(), y.raw(), DType::f32, sums, y.numel());
  cpu::scatter_add(src.dtype(), src.shape(), p.axis, indices(k.in[1]), seen(src), y.shape(), sums);
  if (sums != y.raw()) convert(DType::f32, sums, y.dtype(), y.raw(), y.numel());
}
void kernel::triangle(const KernelArgs& k) {
  const auto t = k.as<TriangleParams>();
  const Tensor& x = k.in[0];
  cpu::triangle(size_of(x.dtype()), x.shape(), seen(x), t.upper, t.shift, k.out[0].raw());
}

namespace {
void order_by(const KernelArgs& k) {
  const auto o = k.as<OrderParams>();
  const Tensor& x = k.in[0];
  Order args{x.dtype(), x.shape(), o.axis, o.descending, o.nan_first, k.out[0].shape()[o.axis], seen(x)};
  args.values = k.out[0].raw();
  args.indices = static_cast<int64_t*>(k.out[1].raw());
  order(args, k.workspace, k.lanes);
}
void book_order(Plan& p) {
  const int axis = p.params.as<OrderParams>().axis;
  p.workspace = order_workspace(p.in[0].shape[axis], p.out[0].shape[axis], p.profile.lanes);
}
}  // namespace
void kernel::sort(const KernelArgs& k) { order_by(k); }
void kernel::top_k(const KernelArgs& k) { order_by(k); }
void kernel::cumsum(const KernelArgs& k) {
  const auto s = k.as<ScanParams>();
  const Tensor& x = k.in[0];
  cpu::cumsum(x.dtype(), x.shape(), s.axis, s.reverse, s.exclusive, seen(x), k.out[0].raw());
}

namespace book {
void scatter_add(Plan& p) {
  const auto a = p.params.as<AxisParams>();
  if (by_slices(a, p.out[0].shape.rank())) {
    p.workspace = index_add_workspace(p.out[0].shape[a.axis], p.in[1].shape[a.axis]);
  } else if (is_half(p.out[0].dtype)) {
    p.workspace = checked_multiply(p.out[0].numel(), 4);
  }
}
void sort(Plan& p) { book_order(p); }
void top_k(Plan& p) { book_order(p); }
}  // namespace book
}  // namespace reckon::cpu
