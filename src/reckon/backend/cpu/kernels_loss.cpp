// backend/cpu: losses, from tensors to the plain-pointer kernels.
#include "reckon/backend/cpu/kernels.h"
#include "reckon/backend/cpu/linear_loss.h"
#include "reckon/backend/cpu/loss.h"

namespace reckon::cpu {
namespace {
CrossEntropyOptions options_of(const KernelArgs& k) { return k.as<LossParams>().options; }
LossTerms terms_of(const CrossEntropyOptions& o) { return {o.label_smoothing, o.z_loss, o.ignore_index}; }

// A pointer if the loss is reduced so, else null.
void* if_reduced(const Tensor& loss, const CrossEntropyOptions& o, Reduction by) { return o.reduction == by ? loss.raw() : nullptr; }

LinearLoss head_of(const KernelArgs& k, const Tensor& x, const Tensor& w, const Tensor& targets) {
  return {.dtype = x.dtype(),
          .rows = targets.numel(),
          .width = w.shape()[1],
          .classes = w.shape()[0],
          .x = x.raw(),
          .w = w.raw(),
          .targets = targets.data<int32_t>(),
          .terms = terms_of(options_of(k)),
          .workspace = k.workspace,
          .lanes = k.lanes};
}
LinearLossScale scale_of(const CrossEntropyOptions& o, const Tensor& dloss, const void* count) {
  return {.scale = dloss.raw(), .count = o.reduction == Reduction::mean ? count : nullptr, .per_row = o.reduction == Reduction::none};
}
// Outputs are dx and dw, as far as they are needed; dw may be the slot.
HeadGradients gradients_of(const KernelArgs& k, const Tensor& w, size_t slot) {
  const bool has_slot = k.in.size() > slot;
  HeadGradients g{.dx = k.needs(0) ? k.out[0].raw() : nullptr, .dw_dtype = statistics_dtype(w.dtype())};
  if (k.needs(1)) g.dw = has_slot ? k.in[slot].raw() : k.out[k.needs(0)].raw();
  g.accumulate_dw = has_slot && k.as<LossParams>().accumulate;
  return g;
}
}  // namespace

void kernel::cross_entropy(const KernelArgs& k) {
  const Tensor &logits = k.in[0], &loss = k.out[0];
  const CrossEntropyOptions o = options_of(k);
  cpu::cross_entropy({.dtype = logits.dtype(),
                      .rows = k.in[1].numel(),
                      .classes = logits.shape().last(),
                      .logits = logits.raw(),
                      .targets = k.in[1].data<int32_t>(),
                      .terms = terms_of(o),
                      .loss = o.reduction == Reduction::none ? loss.raw() : k.workspace,
                      .lse = k.out[1].raw(),
                      .mean = if_reduced(loss, o, Reduction::mean),
                      .sum = if_reduced(loss, o, Reduction::sum),
                      .count = k.out[2].raw()});
}
void kernel::cross_entropy_back(const KernelArgs& k) {  // in: dloss, logits, targets, lse, count
  const Tensor& logits = k.in[1];
  const CrossEntropyOptions o = options_of(k);
  cpu::cross_entropy_back({.dtype = logits.dtype(),
                           .rows = k.in[2].numel(),
                           .classes = logits.shape().last(),
                           .logits = logits.raw(),
                           .targets = k.in[2].data<int32_t>(),
                           .terms = terms_of(o),
                           .lse = k.in[3].raw(),
                           .scale = k.in[0].raw(),
                           .count = o.reduction == Reduction::mean ? k.in[4].raw() : nullptr,
                           .per_row = o.reduction == Reduction::none,
                           .dlogits = k.out[0].raw()});
}

void kernel::linear_cross_entropy(const KernelArgs& k) {
  const Tensor& loss = k.out[0];
  const CrossEntropyOptions o = options_of(k);
  linear_loss(head_of(k, k.in[0], k.in[1], k.in[2]), {.losses = if_reduced(loss, o, Reduction::none),
                                                      .lse = k.out[1].raw(),
                                                      .mean = if_reduced(loss, o, Reduction::mean),
                                                      .sum = if_reduced(loss, o, Reduction::sum),
                                                      .count = k.out[2].raw()});
}
void kernel::linear_cross_entropy_back(const KernelArgs& k) {  // in: dloss, x, w, targets, lse, count (, slot)
  linear_loss_back(head_of(k, k.in[1], k.in[2], k.in[3]), scale_of(options_of(k), k.in[0], k.in[5].raw()), k.in[4].raw(),
                   gradients_of(k, k.in[2], 6));
}
void kernel::linear_cross_entropy_step(const KernelArgs& k) {  // in: x, w, targets, dloss (, slot)
  const Tensor& loss = k.out.back();
  const CrossEntropyOptions o = options_of(k);
  linear_loss_step(head_of(k, k.in[0], k.in[1], k.in[2]),
                   {.losses = if_reduced(loss, o, Reduction::none),
                    .mean = if_reduced(loss, o, Reduction::mean),
                    .sum = if_reduced(loss, o, Reduction::sum)},
                   scale_of(o, k.in[3], nullptr), gradients_of(k, k.in[1], 4));
}

namespace book {
namespace {
// Of either gradient row.
DType gradient_dtype(const TensorSpec& w) { return statistics_dtype(w.dtype); }
}  // namespace
void cross_entropy(Plan& p) {
  const bool reduced = p.params.as<LossParams>().options.reduction != Reduction::none;
  p.workspace = reduced ? checked_multiply(p.in[1].numel(), size_of(statistics_dtype(p.in[0].dtype))) : 0;
}
void linear_cross_entropy(Plan& p) {
  const TensorSpec &x = p.in[0], &w = p.in[1];
  p.workspace = linear_loss_workspace(x.dtype, x.shape.rows(), w.shape[1], w.shape[0], p.profile.lanes);
}
void linear_cross_entropy_back(Plan& p) {
  const TensorSpec &x = p.in[1], &w = p.in[2];
  p.workspace = linear_loss_back_workspace(x.dtype, x.shape.rows(), w.shape[1], w.shape[0], gradient_dtype(w), p.profile.lanes);
  // the logits, once more
  p.flops.matmul = checked_sum({p.flops.matmul, checked_product({2, x.shape.rows(), w.shape[0], w.shape[1]})});
}
void linear_cross_entropy_step(Plan& p) {
  const TensorSpec &x = p.in[0], &w = p.in[1];
  p.workspace = linear_loss_step_workspace(x.dtype, x.shape.rows(), w.shape[1], w.shape[0], gradient_dtype(w), p.profile.lanes);
}
}  // namespace book
}  // namespace reckon::cpu
