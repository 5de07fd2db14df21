// ops/sorting: sort and top_k; their gradients go back through the positions.
#include "reckon/ops/sorting.h"

#include <bit>

#include "reckon/ops/axes.h"
#include "reckon/ops/indexing.h"
#include "reckon/ops/ops.h"
#include "reckon/ops/rows.h"

namespace reckon {
namespace {
// Comparisons a element of a merge sort of n: the binary logarithm, rounded up.
int64_t depth(int64_t n) { return n <= 1 ? 0 : int64_t(std::bit_width(uint64_t(n - 1))); }

// x -> values, indices
void plan_sort(Plan& p) {
  const Shape& x = p.in[0].shape;
  p.output(p.in[0]);
  p.output(x, DType::i64);
  p.vector_flops({x.numel(), depth(x[p.params.as<OrderParams>().axis])});
}
void plan_top_k(Plan& p) {
  const auto o = p.params.as<OrderParams>();
  const Shape& x = p.in[0].shape;
  check(o.k >= 1 && o.k <= x[o.axis], "k must be in [1, {}], the extent of axis {} of {}, got {}", x[o.axis], o.axis, x, o.k);
  p.output(x.with(o.axis, o.k), p.in[0].dtype);
  p.output(x.with(o.axis, o.k), DType::i64);
  const int64_t selected = o.k < x[o.axis] ? x.numel() : 0;
  p.flops.vector = checked_sum({selected, checked_product({p.out[0].numel(), depth(o.k)})});
}
// Positions do not repeat, so adding at them places.
Tensors vjp_order(Vjp& v) {
  const Tensor dy = v.dy[0];
  const Tensor zeros_of_x = expand(zeros(dy.device(), {Shape{}, dy.dtype()}), v.node.in_specs()[0].shape);
  return {scatter_add(zeros_of_x, v.as<OrderParams>().axis, v.out(1), dy)};
}

// The first of the order, without a gradient.
Tensor first_of(const Tensor& x, int axis, bool keepdim, bool largest, const char* name) {
  axis = axis_of(name, x.shape(), axis);
  check(x.shape()[axis] >= 1, "{}: axis {} of {} is empty", name, axis, x.shape());
  const Tensor at = call(op::top_k, tensors(x.detached()), OrderParams{axis, largest, true, 1})[1];
  return keepdim ? at : squeeze(at, axis);
}
}  // namespace

const OpDef op::sort{k_sort, "sort", plan_sort, vjp_order, {.out = 0b10}, {.any_stride = 0b1, .detached_outputs = 0b10}};
const OpDef op::top_k{k_top_k, "top_k", plan_top_k, vjp_order, {.out = 0b10}, {.any_stride = 0b1, .detached_outputs = 0b10}};

ValuesAndIndices sort(const Tensor& x, int axis, bool descending) {
  Tensors out = call(op::sort, tensors(x), OrderParams{axis_of("sort", x.shape(), axis), descending, false, 0});
  return {std::move(out[0]), std::move(out[1])};
}
Tensor argsort(const Tensor& x, int axis, bool descending) {
  return sort(x.detached(), axis_of("argsort", x.shape(), axis), descending).indices;
}
ValuesAndIndices top_k(const Tensor& x, int64_t k, int axis, bool largest) {
  Tensors out = call(op::top_k, tensors(x), OrderParams{axis_of("top_k", x.shape(), axis), largest, false, k});
  return {std::move(out[0]), std::move(out[1])};
}
Tensor argmax(const Tensor& x, int axis, bool keepdim) { return first_of(x, axis, keepdim, true, "argmax"); }
Tensor argmin(const Tensor& x, int axis, bool keepdim) { return first_of(x, axis, keepdim, false, "argmin"); }
}  // namespace reckon
