// backend/cpu: element-wise operations, copies and creation, from tensors to the plain-pointer kernels.
#include <cstring>

#include "reckon/backend/cpu/assign.h"
#include "reckon/backend/cpu/convert.h"
#include "reckon/backend/cpu/kernels.h"
#include "reckon/backend/cpu/rows.h"
#include "reckon/backend/cpu/rows_elementwise.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
// A tensor seen through the output's shape: stride 0 where it is broadcast.
struct Seen {
  int64_t strides[kMaxRank] = {};
  const void* data;
  Seen(const Tensor& t, const Shape& shape) : data(t.raw()) {
    const int lead = shape.rank() - t.rank();
    for (int axis = lead; axis < shape.rank(); ++axis)
      strides[axis] = t.shape()[axis - lead] == 1 && shape[axis] != 1 ? 0 : t.layout().strides[axis - lead];
  }
  operator Strided() const { return {data, strides}; }
};

void apply(const KernelArgs& k, Binary op) {
  const Tensor& out = k.out[0];
  binary(op, out.dtype(), out.shape(), Seen(k.in[0], out.shape()), Seen(k.in[1], out.shape()), out.raw(), out.layout().strides);
}
void apply(const KernelArgs& k, Unary op) {
  const Tensor& out = k.out[0];
  unary(op, out.dtype(), out.shape(), Seen(k.in[0], out.shape()), out.raw(), out.layout().strides);
}
void apply(const KernelArgs& k, Compare op) {
  const Tensor& out = k.out[0];
  compare(op, k.in[0].dtype(), out.shape(), Seen(k.in[0], out.shape()), Seen(k.in[1], out.shape()), out.raw(), out.layout().strides);
}
}  // namespace

#define BINARY(name, op) \
  void kernel::name(const KernelArgs& k) { apply(k, Binary::op); }
BINARY(add, add)
BINARY(sub, sub)
BINARY(mul, mul)
BINARY(div, div)
BINARY(maximum, max)
BINARY(minimum, min)
BINARY(pow, pow)
BINARY(floor_divide, floor_divide)
BINARY(remainder, remainder)
#undef BINARY
#define UNARY(name) \
  void kernel::name(const KernelArgs& k) { apply(k, Unary::name); }
UNARY(neg)
UNARY(exp)
UNARY(log)
UNARY(sqrt)
UNARY(rsqrt)
UNARY(square)
UNARY(reciprocal)
UNARY(abs)
#undef UNARY
void kernel::equal(const KernelArgs& k) { apply(k, Compare::eq); }
void kernel::less(const KernelArgs& k) { apply(k, Compare::lt); }
void kernel::less_equal(const KernelArgs& k) { apply(k, Compare::le); }
void kernel::where(const KernelArgs& k) {
  const Tensor& out = k.out[0];
  cpu::where(size_of(out.dtype()), out.shape(), Seen(k.in[0], out.shape()), Seen(k.in[1], out.shape()), Seen(k.in[2], out.shape()), out.raw(), out.layout().strides);
}
void kernel::affine(const KernelArgs& k) {
  const auto p = k.as<AffineParams>();
  cpu::affine(k.out[0].dtype(), k.in[0].raw(), p.alpha, p.beta, k.out[0].raw(), k.out[0].numel());
}

void kernel::contiguous(const KernelArgs& k) {
  const Tensor& out = k.out[0];
  copy_strided(size_of(out.dtype()), out.shape(), Seen(k.in[0], out.shape()), out.raw(), out.layout().strides);
}
void kernel::cast(const KernelArgs& k) { convert(k.in[0].dtype(), k.in[0].raw(), k.out[0].dtype(), k.out[0].raw(), k.out[0].numel()); }
void kernel::copy_(const KernelArgs& k) {  // in: place, source
  const Tensor &place = k.in[0], &source = k.in[1];
  assign(place.shape(), source.dtype(), Seen(source, place.shape()), place.dtype(), place.raw(), place.layout().strides);
}
void kernel::fill_(const KernelArgs& k) {  // in: place
  const Tensor& place = k.in[0];
  assign(place.shape(), k.as<ValueParams>().value, place.dtype(), place.raw(), place.layout().strides);
}
void kernel::empty(const KernelArgs&) {}
void kernel::fill(const KernelArgs& k) { cpu::fill(k.out[0].dtype(), k.out[0].raw(), k.out[0].numel(), k.as<FillParams>().value); }
void kernel::accumulate(const KernelArgs& k) {  // in: slot, g
  const Tensor &slot = k.in[0], &g = k.in[1];
  if (k.as<AccumulateParams>().keep) {
    axpby(g.dtype(), 1, g.raw(), slot.dtype(), 1, slot.raw(), slot.raw(), slot.numel());
  } else {
    convert(g.dtype(), g.raw(), slot.dtype(), slot.raw(), slot.numel());
  }
}

namespace {
// data[i] = start + i * step, converted by T's constructor.
template <class T>
void arange_of(void* data, const ArangeParams& a) {
  for (int64_t i = 0; i < a.count; ++i) static_cast<T*>(data)[i] = T(a.start + double(i) * a.step);
}
template <class T>
void arange_of_half(void* data, const ArangeParams& a) {
  for (int64_t i = 0; i < a.count; ++i) static_cast<T*>(data)[i] = T(float(a.start + double(i) * a.step));
}
}  // namespace

void kernel::arange(const KernelArgs& k) {
  const auto a = k.as<ArangeParams>();
  void* data = k.out[0].raw();
  switch (a.dtype) {
    case DType::f32: return arange_of<float>(data, a);
    case DType::f64: return arange_of<double>(data, a);
    case DType::bf16: return arange_of_half<bfloat16>(data, a);
    case DType::f16: return arange_of_half<float16>(data, a);
    case DType::i32: return arange_of<int32_t>(data, a);
    case DType::i64: return arange_of<int64_t>(data, a);
    case DType::u8: return arange_of<uint8_t>(data, a);
    case DType::boolean: return arange_of<bool>(data, a);
    case DType::f8e4m3fn: case DType::f8e5m2: break;  // refused by the plan
  }
}
void kernel::causal_mask(const KernelArgs& k) {
  const auto m = k.as<MaskParams>();
  bool* mask = k.out[0].data<bool>();
  parallel_range(m.queries, rows_per_task(m.keys), [&](int64_t begin, int64_t end) {
    for (int64_t q = begin; q < end; ++q) {
      const int64_t last = q + (m.keys - m.queries), first = m.window > 0 ? last + 1 - m.window : 0;
      for (int64_t key = 0; key < m.keys; ++key) mask[q * m.keys + key] = first <= key && key <= last;
    }
  });
}
void kernel::slice_back(const KernelArgs& k) {  // zeros, with dy where the slice was
  const auto s = k.as<SliceParams>();
  const Tensor &dy = k.in[0], &dx = k.out[0];
  fill_zero(dx.raw(), dx.spec().bytes());
  int64_t strides[kMaxRank];
  std::memcpy(strides, dx.layout().strides, sizeof strides);
  void* start = static_cast<std::byte*>(dx.raw()) + s.start * strides[s.axis] * size_of(dx.dtype());
  if (dy.shape()[s.axis] > 1) strides[s.axis] *= s.step;
  copy_strided(size_of(dx.dtype()), dy.shape(), Seen(dy, dy.shape()), start, strides);
}
}  // namespace reckon::cpu
