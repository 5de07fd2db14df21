// backend/cpu: further element-wise functions and convolution, from tensors to the plain-pointer kernels.
#include "reckon/backend/cpu/conv.h"
#include "reckon/backend/cpu/kernels.h"
#include "reckon/backend/cpu/rows_elementwise.h"
#include "reckon/backend/cpu/unary_more.h"

namespace reckon::cpu {
#define FUNCTION(name)                                                                                \
  void kernel::name(const KernelArgs& k) {                                                            \
    apply_function(Function::name, k.in[0].dtype(), k.in[0].raw(), k.out[0].raw(), k.out[0].numel()); \
  }
FUNCTION(sin)
FUNCTION(cos)
FUNCTION(erf)
FUNCTION(floor)
FUNCTION(ceil)
FUNCTION(round)
FUNCTION(sign)
FUNCTION(log1p)
FUNCTION(expm1)
FUNCTION(softplus)
FUNCTION(gelu_erf)
#undef FUNCTION
void kernel::clamp(const KernelArgs& k) {
  const auto c = k.as<ClampParams>();
  cpu::clamp(k.in[0].dtype(), k.in[0].raw(), c.low, c.high, k.out[0].raw(), k.out[0].numel());
}
void kernel::not_equal(const KernelArgs& k) {
  const Tensor& out = k.out[0];
  int64_t strides[2][kMaxRank] = {};  // seen through the result's shape: 0 where an input is broadcast
  for (const int i : {0, 1}) {
    const Tensor& t = k.in[size_t(i)];
    const int lead = out.rank() - t.rank();
    for (int axis = lead; axis < out.rank(); ++axis)
      strides[i][axis] = t.shape()[axis - lead] == 1 && out.shape()[axis] != 1 ? 0 : t.layout().strides[axis - lead];
  }
  compare(Compare::ne, k.in[0].dtype(), out.shape(), {k.in[0].raw(), strides[0]}, {k.in[1].raw(), strides[1]}, out.raw(),
          out.layout().strides);
}

namespace {
Conv conv_of(const Shape& x, const Shape& w, const Shape& y, DType dtype, const ConvParams& p) {
  Conv c{dtype, x[0], p.groups, w[1], w[0] / p.groups};
  for (const int axis : {0, 1}) {
    c.in[axis] = x[2 + axis], c.kernel[axis] = w[2 + axis], c.out[axis] = y[2 + axis];
    c.stride[axis] = p.stride[axis], c.padding[axis] = p.padding[axis], c.dilation[axis] = p.dilation[axis];
  }
  return c;
}
}  // namespace
void kernel::conv2d(const KernelArgs& k) {  // in: x, w (, bias)
  const Conv c = conv_of(k.in[0].shape(), k.in[1].shape(), k.out[0].shape(), k.in[0].dtype(), k.as<ConvParams>());
  conv(c, k.in[0].raw(), k.in[1].raw(), k.in.size() > 2 ? k.in[2].raw() : nullptr, k.out[0].raw(), k.workspace, k.lanes);
}
void kernel::conv2d_back_x(const KernelArgs& k) {  // in: dy, w
  const Conv c = conv_of(k.out[0].shape(), k.in[1].shape(), k.in[0].shape(), k.in[0].dtype(), k.as<ConvParams>());
  conv_back_x(c, k.in[0].raw(), k.in[1].raw(), k.out[0].raw(), k.workspace, k.lanes);
}
void kernel::conv2d_back_w(const KernelArgs& k) {  // in: dy, x
  const Conv c = conv_of(k.in[1].shape(), k.out[0].shape(), k.in[0].shape(), k.in[0].dtype(), k.as<ConvParams>());
  conv_back_w(c, k.in[0].raw(), k.in[1].raw(), k.out[0].raw(), k.workspace, k.lanes);
}

namespace book {
void conv2d(Plan& p) {
  p.workspace =
      conv_workspace(conv_of(p.in[0].shape, p.in[1].shape, p.out[0].shape, p.in[0].dtype, p.params.as<ConvParams>()), p.profile.lanes);
}
void conv2d_back_x(Plan& p) {
  p.workspace = conv_back_x_workspace(conv_of(p.out[0].shape, p.in[1].shape, p.in[0].shape, p.in[0].dtype, p.params.as<ConvParams>()),
                                      p.profile.lanes);
}
void conv2d_back_w(Plan& p) {
  p.workspace = conv_back_w_workspace(conv_of(p.in[1].shape, p.out[0].shape, p.in[0].shape, p.in[0].dtype, p.params.as<ConvParams>()),
                                      p.profile.lanes);
}
}  // namespace book
}  // namespace reckon::cpu
