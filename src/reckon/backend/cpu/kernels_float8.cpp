// backend/cpu: linear layers in 8-bit floats, from tensors to the plain-pointer kernels.
#include <algorithm>
#include <bit>

#include "reckon/backend/cpu/count.h"
#include "reckon/backend/cpu/float8.h"
#include "reckon/backend/cpu/kernels.h"

namespace reckon::cpu {
namespace {
// Rows m, width out n, width in k.
Float8Linear shape_of(const Shape& rows_of, int64_t n, int64_t k, DType out) { return {rows_of.rows(), n, k, out}; }
const uint8_t* codes_of(const Tensor& t) { return static_cast<const uint8_t*>(t.raw()); }
float value_of(const Tensor& t, int at) { return t.data<float>()[at]; }
int64_t round_up(int64_t bytes) { return (bytes + 63) / 64 * 64; }

Float8Linear forward_of(const TensorSpec& x, const TensorSpec& w) { return shape_of(x.shape, w.shape[0], w.shape[1], x.dtype); }
// The search for the largest magnitudes of x and of w, one after the other, has this scratch; the product has what is behind it.
int64_t search_bytes(const TensorSpec& x, const TensorSpec& w) {
  return round_up(std::max(float8_workspace(x.numel()), float8_workspace(w.numel())));
}

// The given scale, or what fits the tensor if there is none yet; notes both in stats.
float measured_scale(const Tensor& x, DType format, float given, float* magnitude, float* scale, void* workspace) {
  *magnitude = largest_magnitude(x.dtype(), x.raw(), x.numel(), workspace);
  *scale = given > 0 ? given : float8_scale(format, *magnitude);
  return *scale;
}

void linear_by(const KernelArgs& k, uint8_t* codes) {  // in: x, w, scales, amax (, bias); out: y, stats (, codes)
  const Tensor &x = k.in[0], &w = k.in[1];
  float* const stats = k.out[1].data<float>();
  constexpr DType kFormat = DType::f8e4m3fn;
  const float scale_x = measured_scale(x, kFormat, value_of(k.in[2], kFloat8Input), stats, stats + 2, k.workspace);
  const float scale_w = measured_scale(w, kFormat, value_of(k.in[2], kFloat8Weight), stats + 1, stats + 3, k.workspace);
  if (codes) quantize(x.dtype(), x.raw(), kFormat, scale_x, codes, x.numel());
  void* const scratch = static_cast<char*>(k.workspace) + search_bytes(x.spec(), w.spec());
  float8_linear(forward_of(x.spec(), w.spec()), {kFormat, scale_x, codes, x.raw(), x.dtype()},
                {kFormat, scale_w, nullptr, w.raw(), w.dtype()}, k.out[0].raw(), k.in.size() > 4 ? k.in[4].raw() : nullptr, scratch,
                k.lanes);
}
}  // namespace

void kernel::quantize_fp8(const KernelArgs& k) {
  const Tensor& x = k.in[0];
  const DType format = k.out[0].dtype();
  float* const stats = k.out[1].data<float>();
  const float scale = measured_scale(x, format, value_of(k.in[1], 0), stats, stats + 1, k.workspace);
  quantize(x.dtype(), x.raw(), format, scale, static_cast<uint8_t*>(k.out[0].raw()), x.numel());
}
void kernel::linear_fp8(const KernelArgs& k) { linear_by(k, static_cast<uint8_t*>(k.out[2].raw())); }
void kernel::linear_fp8_again(const KernelArgs& k) { linear_by(k, nullptr); }
void kernel::linear_fp8_back_x(const KernelArgs& k) {  // in: dy, w, stats of dy, stats
  const Tensor &dy = k.in[0], &w = k.in[1], &dx = k.out[0];
  float8_linear_back_x(shape_of(dy.shape(), w.shape()[0], w.shape()[1], dx.dtype()), {dy.dtype(), value_of(k.in[2], 1), codes_of(dy)},
                       {DType::f8e4m3fn, value_of(k.in[3], 3), nullptr, w.raw(), w.dtype()}, dx.raw(), k.workspace, k.lanes);
}
void kernel::linear_fp8_back_w(const KernelArgs& k) {  // in: dy, x, stats of dy, stats (, slot)
  const bool slot = k.in.size() > 4;
  const Tensor &dy = k.in[0], &x = k.in[1], &dw = slot ? k.in[4] : k.out[0];
  float8_linear_back_w(shape_of(dy.shape(), dy.shape().last(), x.shape().last(), dw.dtype()),
                       {dy.dtype(), value_of(k.in[2], 1), codes_of(dy)}, {x.dtype(), value_of(k.in[3], 2), codes_of(x)}, dw.raw(),
                       slot && k.as<LinearParams>().accumulate, k.workspace, k.lanes);
}

void kernel::record_fp8_amax(const KernelArgs& k) {  // in: amax, stats, stats of dy
  float* const amax = k.in[0].data<float>();
  const float seen[kFloat8Tensors] = {value_of(k.in[1], 0), value_of(k.in[1], 1), value_of(k.in[2], 0)};
  RECKON_COUNT_VECTOR(kFloat8Tensors);
  for (int i = 0; i < kFloat8Tensors; ++i)  // as integers: NaN is the largest, and stays
    amax[i] = std::bit_cast<float>(std::max(std::bit_cast<uint32_t>(amax[i]), std::bit_cast<uint32_t>(seen[i])));
}
void kernel::step_fp8_scales(const KernelArgs& k) {  // in: step_scalars, amax, history, scales
  step_float8_scales(kFloat8Tensors, k.in[2].shape()[1], k.in[0].data<double>()[kOk] != 0, k.in[1].data<float>(), k.in[2].data<float>(),
                     k.in[3].data<float>());
}

namespace book {
void quantize_fp8(Plan& p) { p.workspace = float8_workspace(p.in[0].numel()); }
void linear_fp8(Plan& p) {
  p.workspace = search_bytes(p.in[0], p.in[1]) + float8_linear_workspace(forward_of(p.in[0], p.in[1]), p.in.size() > 4, p.profile.lanes);
}
void linear_fp8_again(Plan& p) { linear_fp8(p); }
void linear_fp8_back_x(Plan& p) {
  p.workspace = float8_linear_back_x_workspace(shape_of(p.in[0].shape, p.in[1].shape[0], p.in[1].shape[1], p.in[1].dtype), p.profile.lanes);
}
void linear_fp8_back_w(Plan& p) {
  const DType out = p.in.size() > 4 ? p.in[4].dtype : p.params.as<LinearParams>().out;
  p.workspace = float8_linear_back_w_workspace(shape_of(p.in[0].shape, p.in[0].shape.last(), p.in[1].shape.last(), out), p.profile.lanes);
}
}  // namespace book
}  // namespace reckon::cpu
