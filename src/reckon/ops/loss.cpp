// ops/loss: cross-entropy of logits, and of logits that are made and used a tile at a time inside the operation.
#include <cmath>

#include "reckon/engine/autocast.h"
#include "reckon/ops/dtypes.h"
#include "reckon/ops/fallback.h"
#include "reckon/ops/ops.h"

namespace reckon {
namespace {
using Options = CrossEntropyOptions;

void check_options(const Options& o) {
  check(o.label_smoothing >= 0 && o.label_smoothing < 1, "label_smoothing must be in [0, 1), got {}", o.label_smoothing);
  check(o.z_loss >= 0 && o.z_loss <= 1e6, "z_loss must be in [0, 1e6], got {}", o.z_loss);
}
void check_targets(const TensorSpec& targets, const Shape& rows, const TensorSpec& of) {
  check(targets == TensorSpec{rows, DType::i32}, "targets {} do not match {}", targets, of);
}
TensorSpec loss_spec(const Options& o, const TensorSpec& targets, DType dtype) {
  return {o.reduction == Reduction::none ? targets.shape : Shape{}, statistics_dtype(dtype)};
}
// What options add to each of the four operations an element: the sum of the logits, or the share of the smoothed target; the factor of z.
int64_t forward_cost(const Options& o) { return 4 + (o.label_smoothing > 0); }
int64_t backward_cost(const Options& o) { return 4 + (o.label_smoothing > 0) + (o.z_loss != 0); }

// loss, lse [rows], count [] of targets that are not ignored
void output_losses(Plan& p, const Options& o, const TensorSpec& targets, DType dtype) {
  p.output(loss_spec(o, targets, dtype));
  p.output({targets.shape.numel()}, statistics_dtype(dtype));
  p.output(Shape{}, statistics_dtype(dtype));
}

// ---- cross_entropy. in: logits [..., V], targets i32 [...] -> loss, lse, count
void plan_cross_entropy(Plan& p) {
  const Options o = p.params.as<LossParams>().options;
  check_options(o);
  check(is_float(p.in[0].dtype) && p.in[0].shape.rank() >= 1 && p.in[0].shape.last() >= 1,
        "logits must be a floating-point [..., V], got {}", p.in[0]);
  check_targets(p.in[1], p.in[0].shape.without_last(), p.in[0]);
  output_losses(p, o, p.in[1], p.in[0].dtype);
  p.vector_flops({forward_cost(o), p.in[0].numel()});
}
// in: dloss, logits, targets, lse, count -> dlogits
void plan_cross_entropy_back(Plan& p) {
  p.output(p.in[1]);
  p.vector_flops({backward_cost(p.params.as<LossParams>().options), p.in[1].numel()});
}
Tensors vjp_cross_entropy(Vjp& v) {
  Tensor logits = v.in(0);
  Tensors in = tensors(v.dy[0], std::move(logits), v.in(1), v.out(1), v.out(2));
  return {call(op::cross_entropy_back, std::move(in), v.as<LossParams>())[0], Tensor()};
}

// ---- the same by public operations, for gradients of gradients; count [] of targets that are not ignored
Tensor plain_cross_entropy(const Tensor& logits, const Tensor& targets, const Tensor& count, const Options& o) {
  Device& device = logits.device();
  const DType dtype = statistics_dtype(logits.dtype());
  const auto number = [&](double value) { return full(device, {Shape{}, dtype}, value); };
  const auto label = [&](int64_t value) { return full(device, {Shape{}, DType::i32}, double(value)); };
  const int64_t V = logits.shape().last();
  // What an ignored row holds, infinity or NaN perhaps, must not meet the gradient of 0 that comes back to it.
  const Tensor is_ignored = equal(targets, label(o.ignore_index));
  const Tensor x = where(unsqueeze(is_ignored, -1), number(0), cast(logits, dtype)), most = max(x, {-1}, true).detached();
  const Tensor lse = squeeze(add(log(sum(exp(sub(x, most)), {-1}, true)), most), -1);
  const Tensor hot = equal(unsqueeze(targets, -1), arange(device, V, DType::i32));
  Tensor row = sub(lse, affine(sum(where(hot, x, number(0)), {-1}), 1 - o.label_smoothing));
  if (o.label_smoothing > 0) row = sub(row, affine(mean(x, {-1}), o.label_smoothing));
  if (o.z_loss != 0) row = add(row, affine(square(lse), o.z_loss));
  // A target that is no class gives NaN, in the loss and in its gradient; one that is ignored gives nothing.
  const Tensor one = number(1), nan = number(NAN);
  const Tensor factor = where(is_ignored, one, where(less(targets, label(0)), nan, where(less(targets, label(V)), one, nan)));
  row = where(is_ignored, number(0), mul(row, factor));
  if (o.reduction == Reduction::none) return row;
  return o.reduction == Reduction::sum ? sum(row) : div(sum(row), count);
}
Tensors cross_entropy_fallback(Vjp& v) {
  const Options o = v.as<LossParams>().options;
  const Tensor targets = v.in(1), count = v.out(2);
  Tensors d = differentiated({v.in(0)}, v.dy[0], v.needs, [=](const Tensors& in) { return plain_cross_entropy(in[0], targets, count, o); });
  d.resize(2);
  return d;
}

// ---- linear_cross_entropy. x [..., K], w [V, K], targets i32 [...]
struct Extents {
  int64_t rows, classes, width;
};
Extents check_head(const TensorSpec& x, const TensorSpec& w, const TensorSpec& targets) {
  check(x.dtype == w.dtype && is_float(x.dtype), "x and w differ in dtype: {} and {}", x, w);
  check(w.shape.rank() == 2 && w.shape[0] >= 1 && x.shape.rank() >= 1, "wants x [..., K] and w [V, K], got {} and {}", x, w);
  check(x.shape.last() == w.shape[1], "inner sizes differ: x {} and w {}", x, w);
  check_targets(targets, x.shape.without_last(), x);
  return {x.shape.rows(), w.shape[0], w.shape[1]};
}
// Gradients of x and w, bits 0 and 1 of what is needed: outputs in this order, but for w's if there is a slot.
void output_gradients(Plan& p, const TensorSpec& x, const TensorSpec& w, bool slot) {
  const TensorSpec dw{w.shape, statistics_dtype(w.dtype)};
  if (slot) check(p.in.back() == dw, "slot {} is not {}", p.in.back(), dw);
  if (p.needs(0)) p.output(x);
  if (p.needs(1) && !slot) p.output(dw);
}
// in: x, w, targets -> loss, lse, count
void plan_linear_cross_entropy(Plan& p) {
  const Options o = p.params.as<LossParams>().options;
  check_options(o);
  const Extents e = check_head(p.in[0], p.in[1], p.in[2]);
  output_losses(p, o, p.in[2], p.in[0].dtype);
  p.matmul_flops({2, e.rows, e.classes, e.width});
  p.vector_flops({forward_cost(o), e.rows, e.classes});
}
// in: dloss, x, w, targets, lse, count (, slot [V, K]) -> dx, dw
void plan_linear_cross_entropy_back(Plan& p) {
  const Extents e = check_head(p.in[1], p.in[2], p.in[3]);
  output_gradients(p, p.in[1], p.in[2], p.in.size() > 6);
  p.matmul_flops(
      {2 * int64_t(p.needs(0)) + 2 * int64_t(p.needs(1)), e.rows, e.classes, e.width});  // that the logits are made again is the backend's
  p.vector_flops({backward_cost(p.params.as<LossParams>().options), e.rows, e.classes});
}
// in: x, w, targets, dloss (, slot [V, K]) -> dx, if it is needed; loss
void plan_linear_cross_entropy_step(Plan& p) {
  const Options o = p.params.as<LossParams>().options;
  check_options(o);
  const Extents e = check_head(p.in[0], p.in[1], p.in[2]);
  const TensorSpec loss = loss_spec(o, p.in[2], p.in[0].dtype);
  check(p.in[3] == loss, "the seed {} does not match the loss {}", p.in[3], loss);
  check(p.needs(1) == (p.in.size() > 4), "the gradient of w goes into a slot");
  output_gradients(p, p.in[0], p.in[1], p.needs(1));
  p.output(loss);
  p.matmul_flops({2 + 2 * int64_t(p.needs(0)) + 2 * int64_t(p.needs(1)), e.rows, e.classes, e.width});
  p.vector_flops({forward_cost(o) + backward_cost(o), e.rows, e.classes});
}

Tensors vjp_linear_cross_entropy(Vjp& v) {
  Tensors in = tensors(v.dy[0], v.in(0), v.in(1), v.in(2), v.out(1), v.out(2));
  auto params = v.as<LossParams>();
  Tensor slot = v.slot(1);
  if (slot.defined() && slot.dtype() != statistics_dtype(in[2].dtype())) slot = {};  // the kernel adds in that dtype only
  if (slot.defined()) {
    params.accumulate = v.slot_filled(1);
    in.push_back(slot);
  }
  Tensors out = call(op::linear_cross_entropy_back, std::move(in), Params(params, v.needs & 0b11));
  if (slot.defined()) v.filled(1);
  Tensors dx(3);
  size_t next = 0;
  if (v.needs_in(0)) dx[0] = std::move(out[next++]);
  if (v.needs_in(1) && !slot.defined()) dx[1] = cast(out[next], gradient_dtype(v, 1));
  return dx;
}
// While backward is recorded, the logits are made after all.
Tensors linear_cross_entropy_fallback(Vjp& v) {
  const Options o = v.as<LossParams>().options;
  const Tensor targets = v.in(2), count = v.out(2);
  Tensors d = differentiated({v.in(0), v.in(1)}, v.dy[0], v.needs,
                             [=](const Tensors& in) { return plain_cross_entropy(linear(in[0], in[1]), targets, count, o); });
  d.resize(3);
  return d;
}
}  // namespace

const OpDef op::cross_entropy{
    k_cross_entropy,       "cross_entropy", plan_cross_entropy, vjp_cross_entropy, {.in = 0b11, .out = 0b110},
    {.detached_outputs = 0b110, .fallback = cross_entropy_fallback, .autocast = AutocastPolicy::wide}};
const OpDef op::cross_entropy_back{k_cross_entropy_back, "cross_entropy_back", plan_cross_entropy_back, nullptr, {}, {.reuse = 0b10}};
const OpDef op::linear_cross_entropy{k_linear_cross_entropy,   "linear_cross_entropy",      plan_linear_cross_entropy,
                                     vjp_linear_cross_entropy, {.in = 0b111, .out = 0b110},
                                     {.detached_outputs = 0b110, .fallback = linear_cross_entropy_fallback, .autocast = AutocastPolicy::low}};
const OpDef op::linear_cross_entropy_back{
    k_linear_cross_entropy_back, "linear_cross_entropy_back", plan_linear_cross_entropy_back, nullptr, {}, {.mutates = 0b1000000}};
const OpDef op::linear_cross_entropy_step{
    k_linear_cross_entropy_step,       "linear_cross_entropy_step", plan_linear_cross_entropy_step, nullptr, {},
    {.mutates = 0b10000, .reuse = 0b1}};

Tensor cross_entropy(Tensor logits, const Tensor& targets, const CrossEntropyOptions& options) {
  return call(op::cross_entropy, tensors(std::move(logits), to_ids(targets)), LossParams{options, false})[0];
}
Tensor linear_cross_entropy(const Tensor& x, const Tensor& w, const Tensor& targets, const CrossEntropyOptions& options) {
  return call(op::linear_cross_entropy, tensors(x, w, to_ids(targets)), LossParams{options, false})[0];
}

LossAndGradient linear_cross_entropy_step(Tensor x, const Tensor& w, const Tensor& targets, const Tensor& seed,
                                          const CrossEntropyOptions& options, bool x_needs_grad) {
  const NoGrad guard;
  const bool w_needs_grad = w.requires_grad();
  LossParams params{options, false};
  Tensors in = tensors(std::move(x), w, targets, seed);
  if (w_needs_grad) {
    TensorState& leaf = w.state();
    check(w.is_leaf() && leaf.grad_is_slot,
          "linear_cross_entropy_step: w {} requires a gradient but has no slot for it: set_grad_slot, or use linear_cross_entropy", w);
    check(!leaf.hooks,
          "linear_cross_entropy_step: w {} has hooks, which what is added to its slot here would pass by: use linear_cross_entropy", w);
    params.accumulate = leaf.grad_filled;
    in.push_back(w.grad_slot());
  }
  Tensors out = call(op::linear_cross_entropy_step, std::move(in), Params(params, uint32_t(x_needs_grad) | uint32_t(w_needs_grad) << 1));
  if (w_needs_grad) {
    w.state().note_gradient();
    w.state().grad_filled = true;
  }
  Tensor loss = std::move(out.back());
  return {std::move(loss), x_needs_grad ? std::move(out.front()) : Tensor()};
}
Tensor mse_loss(const Tensor& a, const Tensor& b) {
  return mean(square(sub(autocast_input(AutocastPolicy::wide, a), autocast_input(AutocastPolicy::wide, b))));
}
}  // namespace reckon
