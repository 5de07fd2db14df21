// ops/training: the update of a step, as device operations: gradient norm, clipping, skipping, and one optimizer pass over a flat bucket.
#include "reckon/ops/training.h"

#include "reckon/ops/rows.h"

namespace reckon {
namespace {
void plan_sum_of_squares(Plan& p) {
  check(is_float(p.in[0].dtype), "wants a floating-point tensor, got {}", p.in[0].dtype);
  p.output({1}, DType::f64);
  p.vector_flops({2, p.in[0].numel()});
}
// in: step_scalars, loss [], sums of squares [1] ...
void plan_clip(Plan& p) {
  check(p.in.size() >= 3 && p.in[0] == TensorSpec{{kStepScalars}, DType::f64}, "wants step_scalars, the loss and at least one sum of squares");
  check(p.in[1].numel() == 1 && is_float(p.in[1].dtype), "the loss must be one float, got {}", p.in[1]);
  for (size_t i = 2; i < p.in.size(); ++i) check(p.in[i] == TensorSpec{{1}, DType::f64}, "sum of squares {} is not f64[1]", p.in[i]);
  p.flops.vector = int64_t(p.in.size());
}
// in: step_scalars, parameters [N], gradients [N], states [N] ... (, residual plane u16 as bf16 [N] last)
template <int kStates, int kCost>
void plan_step(Plan& p) {
  const bool split = p.in[1].dtype == DType::bf16;
  check(p.in[0] == TensorSpec{{kStepScalars}, DType::f64}, "wants step_scalars first");
  check(p.in.size() == size_t(3 + kStates + split), "wants {} tensors, got {}", 3 + kStates + split, p.in.size());
  const DType state = p.in[1].dtype == DType::f64 ? DType::f64 : DType::f32;
  check(p.in[1].dtype == state || split, "parameters must be f32, f64 or bf16 with a residual plane, got {}", p.in[1]);
  for (int i = 2; i < 3 + kStates; ++i) check(p.in[size_t(i)] == TensorSpec{p.in[1].shape, state}, "{} does not match the parameters {}", p.in[size_t(i)], p.in[1]);
  if (split) check(p.in.back() == p.in[1], "residual plane {} does not match the parameters {}", p.in.back(), p.in[1]);
  p.vector_flops({kCost, p.in[1].numel()});
  p.bytes_moved = 0;
  for (size_t i = 1; i < p.in.size(); ++i) p.bytes_moved = checked_sum({p.bytes_moved, checked_multiply(i == 2 ? 1 : 2, p.in[i].bytes())});
}
// in: master f32 [N], working copy bf16 [N], residual plane [N] (16-bit words, held as bf16)
void plan_master(Plan& p) {
  check(p.in[0].dtype == DType::f32 && p.in[1].dtype == DType::bf16 && p.in[2] == p.in[1] && p.in[0].shape == p.in[1].shape,
        "wants f32, bf16 and bf16 of one shape, got {}, {} and {}", p.in[0], p.in[1], p.in[2]);
}
}  // namespace

const OpDef op::sum_of_squares{k_sum_of_squares, "sum_of_squares", plan_sum_of_squares};
const OpDef op::clip{k_clip, "clip", plan_clip, nullptr, {}, {.mutates = 0b1}};
const OpDef op::sgd_step{k_sgd_step, "sgd_step", plan_step<0, 4>, nullptr, {}, {.mutates = 0b1010}};
const OpDef op::momentum_step{k_momentum_step, "momentum_step", plan_step<1, 6>, nullptr, {}, {.mutates = 0b11010}};
const OpDef op::adagrad_step{k_adagrad_step, "adagrad_step", plan_step<1, 8>, nullptr, {}, {.mutates = 0b11010}};
const OpDef op::adamw_step{k_adamw_step, "adamw_step", plan_step<2, 16>, nullptr, {}, {.mutates = 0b111010}};
const OpDef op::split_master{k_split_master, "split_master", plan_master, nullptr, {}, {.mutates = 0b110}};
const OpDef op::join_master{k_join_master, "join_master", plan_master, nullptr, {}, {.mutates = 0b1}};

Tensor sum_of_squares(const Tensor& x) { return call(op::sum_of_squares, tensors(x))[0]; }
void clip_(const Tensor& step_scalars, const Tensor& loss, const Tensors& sums) {
  Tensors in = tensors(step_scalars, loss);
  in.insert(in.end(), sums.begin(), sums.end());
  call(op::clip, std::move(in));
}
void split_master_(const Tensor& master, const Tensor& working, const Tensor& residual) { call(op::split_master, tensors(master, working, residual)); }
void join_master_(const Tensor& master, const Tensor& working, const Tensor& residual) { call(op::join_master, tensors(master, working, residual)); }
}  // namespace reckon
