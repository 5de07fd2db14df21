#include "reckon/ops/reductions.h"

#include <cmath>

#include "reckon/engine/autocast.h"
#include "reckon/ops/axes.h"
#include "reckon/ops/dtypes.h"
#include "reckon/ops/ops.h"
#include "reckon/ops/sorting.h"
#include "reckon/ops/unary.h"

namespace reckon {
namespace {
Tensor constant(const Tensor& like, double value) { return full(like.device(), {Shape{}, like.dtype()}, value); }

int64_t elements(const Tensor& x, uint32_t mask) {
  int64_t n = 1;
  for (int axis = 0; axis < x.rank(); ++axis) n *= mask >> axis & 1u ? x.shape()[axis] : 1;
  return n;
}
// An empty axis has no least and no largest element; if the result is empty, nobody asks for one.
void check_filled(const char* name, const char* what, const Tensor& x, uint32_t mask) {
  int64_t kept = 1;
  for (int axis = 0; axis < x.rank(); ++axis) kept *= mask >> axis & 1u ? 1 : x.shape()[axis];
  check(x.numel() > 0 || kept == 0, "{}: the {} over an empty axis of {} is undefined", name, what, x.shape());
}
// Axes of extent 1 go away where the mask says so.
Tensor dropped(Tensor x, uint32_t mask) {
  for (int axis = x.rank() - 1; axis >= 0; --axis)
    if (mask >> axis & 1u) x = squeeze(x, axis);
  return x;
}
// 16-bit floats as float32.
Tensor widened(const Tensor& x) { return is_float(x.dtype()) && size_of(x.dtype()) == 2 ? cast(x, DType::f32) : x; }
void check_bool(const Tensor& x, const char* name) { check(x.dtype() == DType::boolean, "{}: wants bool, got {}", name, x); }

// Halves of the axis are multiplied until one element is left; odd ones are multiplied at the end.
Tensor prod_along(Tensor x, int axis) {
  if (x.shape()[axis] == 0)  // 1, as a result that depends on x
    return is_float(x.dtype()) ? affine(sum(x, {axis}, true), 1, 1) : full(x.device(), {x.shape().with(axis, 1), x.dtype()}, 1);
  Tensor rest;
  while (x.shape()[axis] > 1) {
    const int64_t extent = x.shape()[axis], half = extent / 2;
    if (extent % 2) {
      const Tensor last = slice(x, axis, extent - 1, extent);
      rest = rest.defined() ? mul(rest, last) : last;
    }
    x = mul(slice(x, axis, 0, half), slice(x, axis, half, 2 * half));
  }
  return rest.defined() ? mul(x, rest) : x;
}
}  // namespace

Tensor min(const Tensor& x, std::initializer_list<int> axes, bool keepdim) {
  check_computes("min", x);
  const uint32_t mask = axes_of("min", x.shape(), axes);
  check_filled("min", "minimum", x, mask);
  if (is_float(x.dtype())) return neg(max(neg(x), axes, keepdim));
  if (x.numel() == 0) return max(x, axes, keepdim);  // as empty as the other
  // Of whole numbers the least has no negative.
  Tensor y = x;
  for (int axis = 0; axis < x.rank(); ++axis)
    if (mask >> axis & 1u) y = top_k(y, 1, axis, false).values;
  return keepdim ? y : dropped(y, mask);
}

Tensor prod(const Tensor& in, std::initializer_list<int> axes, bool keepdim) {
  check_computes("prod", in);
  const Tensor x = autocast_input(AutocastPolicy::wide, in);
  const uint32_t mask = axes_of("prod", x.shape(), axes);
  const bool real = is_float(x.dtype());
  Tensor y = real ? widened(x) : cast(x, DType::i64);
  for (int axis = 0; axis < x.rank(); ++axis)
    if (mask >> axis & 1u) y = prod_along(y, axis);
  return cast(keepdim ? y : dropped(y, mask), real ? x.dtype() : DType::i64);
}

Tensor any(const Tensor& x, std::initializer_list<int> axes, bool keepdim) {
  check_bool(x, "any");
  axes_of("any", x.shape(), axes);
  const Tensor count = sum(cast(x, DType::f32), axes, keepdim);  // of ones: above 0 however it rounds
  return less(constant(count, 0), count);
}
Tensor all(const Tensor& x, std::initializer_list<int> axes, bool keepdim) {
  check_bool(x, "all");
  axes_of("all", x.shape(), axes);
  return logical_not(any(logical_not(x), axes, keepdim));
}

Tensor variance(const Tensor& in, std::initializer_list<int> axes, double correction, bool keepdim) {
  check_has_fractions("variance", in);
  const Tensor x = autocast_input(AutocastPolicy::wide, in);
  const uint32_t mask = axes_of("variance", x.shape(), axes);
  const double n = double(elements(x, mask));
  check(n > correction, "variance: {} elements of {} are too few for a correction of {}", n, x.shape(), correction);
  const Tensor wide = widened(x), squares = sum(square(sub(wide, mean(wide, axes, true))), axes, true);
  const Tensor y = affine(squares, 1 / (n - correction));
  return cast(keepdim ? y : dropped(y, mask), x.dtype());
}

Tensor norm(const Tensor& in, double p, std::initializer_list<int> axes, bool keepdim) {
  check(p >= 1, "norm: p must be at least 1, got {}", p);
  check_computes("norm", in);
  const uint32_t mask = axes_of("norm", in.shape(), axes);
  const Tensor x = autocast_input(AutocastPolicy::wide, to_floats(in));
  if (std::isinf(p)) {
    check_filled("norm", "largest element", x, mask);
    return max(abs(x), axes, keepdim);
  }
  if (p == 1) return sum(abs(x), axes, keepdim);
  const Tensor wide = widened(x);
  const Tensor total = sum(p == 2 ? square(wide) : pow(abs(wide), constant(wide, p)), axes, keepdim), zero = constant(total, 0);
  // The slope of a root is infinite at 0: there the root of 1 is taken, and not used.
  const Tensor at_zero = equal(total, zero), safe = where(at_zero, constant(total, 1), total);
  return cast(where(at_zero, zero, p == 2 ? sqrt(safe) : pow(safe, constant(total, 1 / p))), x.dtype());
}

Tensor logsumexp(const Tensor& in, std::initializer_list<int> axes, bool keepdim) {
  check_computes("logsumexp", in);
  const uint32_t mask = axes_of("logsumexp", in.shape(), axes);
  check_filled("logsumexp", "logarithm of a sum", in, mask);
  const Tensor x = autocast_input(AutocastPolicy::wide, to_floats(in)), wide = widened(x), most = max(wide.detached(), axes, true);
  const Tensor shift = where(isinf(most), constant(most, 0), most);  // infinity minus itself would be NaN
  const Tensor y = add(log(sum(exp(sub(wide, shift)), axes, true)), shift);
  return cast(keepdim ? y : dropped(y, mask), x.dtype());
}
}  // namespace reckon
