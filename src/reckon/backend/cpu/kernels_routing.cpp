// backend/cpu: dropout and the ways to and from experts, from tensors to the plain-pointer kernels.
#include "reckon/backend/cpu/dropout.h"
#include "reckon/backend/cpu/kernels.h"
#include "reckon/backend/cpu/routing.h"
#include "reckon/ops/dropout.h"
#include "reckon/ops/routing.h"

namespace reckon::cpu {
namespace {
static_assert(kMostChoices >= kMaxChoices);

// Tokens' and experts' rows of this width; slots and rows are inputs 1 and 2.
Exchange exchange(const KernelArgs& k, int64_t cols) {
  const Tensor &slots = k.in[1], &rows = k.in[2];
  return {.dtype = k.in[0].dtype(),
          .tokens = slots.shape()[0],
          .k = slots.shape()[1],
          .places = rows.numel(),
          .cols = cols,
          .slots = slots.data<int32_t>(),
          .rows = rows.data<int32_t>(),
          .x = k.in[0].raw(),
          .y = k.out[0].raw()};
}
// in: what is moved, slots, rows (, weights)
Exchange moved(const KernelArgs& k) {
  Exchange e = exchange(k, k.in[0].shape().last());
  if (k.in.size() > 3) e.weights = k.in[3].raw();
  return e;
}
}  // namespace

void kernel::dropout(const KernelArgs& k) {  // in: x, draws
  const auto d = k.as<DropoutParams>();
  const Tensor& x = k.in[0];
  const int64_t samples = x.rank() > 0 ? x.shape()[0] : 1;
  if (x.numel() == 0) return;
  cpu::dropout({.dtype = x.dtype(),
                .samples = samples,
                .each = x.numel() / samples,
                .first = d.first,
                .p = d.p,
                .site = d.site,
                .draws = k.in[1].data<int64_t>(),
                .x = x.raw(),
                .y = k.out[0].raw()});
}

void kernel::route_top_k(const KernelArgs& k) {
  const auto r = k.as<RouteParams>();
  const Tensor& p = k.in[0];
  cpu::route({.dtype = p.dtype(),
              .tokens = p.shape()[0],
              .experts = p.shape()[1],
              .k = r.k,
              .capacity = r.capacity,
              .probabilities = p.raw(),
              .chosen = k.out[0].data<int32_t>(),
              .slots = k.out[1].data<int32_t>(),
              .rows = k.out[2].data<int32_t>(),
              .load = k.out[3].data<int32_t>(),
              .dropped = k.out[4].data<int32_t>()});
}
void kernel::pick_experts(const KernelArgs& k) {
  const Shape &x = k.in[0].shape(), &ids = k.in[1].shape();
  pick(k.in[0].dtype(), k.in[0].raw(), k.in[1].data<int32_t>(), k.out[0].raw(), x[0], x[1], ids[1]);
}
void kernel::pick_experts_back(const KernelArgs& k) {
  const Shape &dx = k.out[0].shape(), &ids = k.in[1].shape();
  pick_back(k.in[0].dtype(), k.in[0].raw(), k.in[1].data<int32_t>(), k.out[0].raw(), dx[0], dx[1], ids[1]);
}
void kernel::moe_dispatch(const KernelArgs& k) { dispatch_rows(moved(k)); }
void kernel::moe_combine(const KernelArgs& k) { combine_rows(moved(k)); }
void kernel::moe_weights_back(const KernelArgs& k) {  // in: x, slots, rows, y
  dot_rows(exchange(k, k.in[0].shape().last()), k.in[3].raw());
}
}  // namespace reckon::cpu
