#include "reckon/ops/assign.h"

#include <algorithm>

#include "reckon/engine/context.h"
#include "reckon/ops/axes.h"
#include "reckon/ops/dtypes.h"
#include "reckon/ops/rows.h"

namespace reckon {
namespace {
// place, source: place = source
void plan_copy(Plan& p) {
  check(broadcasts_to(p.in[1].shape, p.in[0].shape), "the source {} does not broadcast to {}, which is written", p.in[1].shape,
        p.in[0].shape);
}
// place: place = value
void plan_fill(Plan&) {}

bool is_recorded() { return context().grad_enabled || context().marking; }

void check_place(const char* operation, const Tensor& view) {
  check(view.defined(), "{}: the tensor to write is undefined", operation);
  check(!is_recorded() || !view.requires_grad(), "{}: {} {}, and no gradient would know of the write: write under NoGrad", operation, view,
        view.is_leaf() ? "is a leaf that requires a gradient" : "is the result of a recorded operation");
  for (int axis = 0; axis < view.rank(); ++axis)
    check(view.stride(axis) != 0 || view.shape()[axis] <= 1,
          "{}: axis {} of {} is expanded (stride 0), its {} places are one element: write to what was expanded, or to a contiguous() copy",
          operation, axis, view, view.shape()[axis]);
}

// Bytes of the storage between a tensor's first and last element.
struct Range {
  int64_t begin = 0, end = 0;
  explicit Range(const Tensor& t) {
    if (t.numel() == 0) return;
    begin = t.layout().offset, end = begin + 1;
    for (int axis = 0; axis < t.rank(); ++axis) {
      const int64_t span = (t.shape()[axis] - 1) * t.stride(axis);
      (span < 0 ? begin : end) += span;
    }
    begin *= size_of(t.dtype()), end *= size_of(t.dtype());
  }
};
bool overlap(const Tensor& a, const Tensor& b) {
  if (!a.same_storage(b)) return false;
  const Range x(a), y(b);
  return x.begin < y.end && y.begin < x.end;
}
}  // namespace

const OpDef op::copy_{k_copy_, "copy_", plan_copy, nullptr, {}, {.mutates = 0b1, .any_stride = 0b11, .float8 = true}};
const OpDef op::fill_{k_fill_, "fill_", plan_fill, nullptr, {}, {.mutates = 0b1, .any_stride = 0b1, .float8 = true}};

void copy_(const Tensor& view, const Tensor& source) {
  check_place("copy_", view);
  check(source.defined(), "copy_: the source is undefined");
  check(
      !is_recorded() || !source.requires_grad(),
      "copy_: the source {} requires a gradient, which a tensor that exists does not pass on: copy its detached(), write under NoGrad, or "
      "make a new tensor with where() or scatter()",
      source);
  call(op::copy_, tensors(view, overlap(view, source) ? call(op::contiguous, tensors(source))[0] : source));
}

void fill_(const Tensor& view, double value) {
  check_place("fill_", view);
  check_holds("fill_", view.dtype(), value);
  call(op::fill_, tensors(view), ValueParams{value});
}
}  // namespace reckon
