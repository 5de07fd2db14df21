#include "reckon/ops/scan.h"

#include "reckon/engine/autocast.h"
#include "reckon/ops/axes.h"
#include "reckon/ops/joining.h"
#include "reckon/ops/ops.h"
#include "reckon/ops/rows.h"

namespace reckon {
namespace {
void plan_cumsum(Plan& p) {
  const DType dtype = p.in[0].dtype;
  check(is_float(dtype) || dtype == DType::i64, "wants floats or i64, got {}", dtype);
  p.output(p.in[0]);
  p.vector_flops({1, p.in[0].numel()});
}
// Element i goes into all sums from i on: the sums of dy the other way round.
Tensors vjp_cumsum(Vjp& v) {
  auto p = v.as<ScanParams>();
  p.reverse = !p.reverse;
  return {call(op::cumsum, tensors(std::move(v.dy[0])), p)[0]};
}
}  // namespace

const OpDef op::cumsum{k_cumsum, "cumsum", plan_cumsum, vjp_cumsum, {}, {.reuse = 0b1, .any_stride = 0b1, .autocast = AutocastPolicy::wide}};

Tensor cumsum(Tensor x, int axis, bool reverse, bool exclusive) {
  const ScanParams p{axis_of("cumsum", x.shape(), axis), reverse, exclusive};
  if (!is_float(x.dtype()) && !is_float8(x.dtype())) x = cast(x, DType::i64);
  return call(op::cumsum, tensors(std::move(x)), p)[0];
}

// After the step of `distance` each element is the product of up to twice as many up to it. Hillis & Steele 1986.
Tensor cumprod(const Tensor& in, int axis) {
  axis = axis_of("cumprod", in.shape(), axis);
  const Tensor x = autocast_input(AutocastPolicy::wide, in);
  const int64_t extent = x.shape()[axis];
  const bool half = is_float(x.dtype()) && size_of(x.dtype()) == 2;
  Tensor y = is_float(x.dtype()) || is_float8(x.dtype()) ? cast(x, half ? DType::f32 : x.dtype()) : cast(x, DType::i64);
  for (int64_t distance = 1; distance < extent; distance *= 2)
    y = concatenate({slice(y, axis, 0, distance), mul(slice(y, axis, distance, extent), slice(y, axis, 0, extent - distance))}, axis);
  return half ? cast(y, x.dtype()) : y;
}
}  // namespace reckon
