// ops/training: the update of a step, as device operations: gradient norm, clipping, skipping, and one optimizer pass over a flat bucket.
#include "reckon/ops/training.h"

#include "reckon/ops/ops.h"
#include "reckon/ops/rows.h"
#include "reckon/ops/state_blocks.h"

namespace reckon {
namespace {
void plan_sum_of_squares(Plan& p) {
  check(is_float(p.in[0].dtype), "wants a floating-point tensor, got {}", p.in[0].dtype);
  p.output({1}, DType::f64);
  p.vector_flops({2, p.in[0].numel()});
}
// in: step_scalars, loss [], sums of squares [1] ...
void plan_clip(Plan& p) {
  check(p.in.size() >= 3 && p.in.size() <= 32 && p.in[0] == TensorSpec{{kStepScalars}, DType::f64},
        "wants step_scalars, the loss and 1 to 30 sums of squares");
  check(p.in[1].numel() == 1 && is_float(p.in[1].dtype), "the loss must be one float, got {}", p.in[1]);
  for (size_t i = 2; i < p.in.size(); ++i) check(p.in[i] == TensorSpec{{1}, DType::f64}, "sum of squares {} is not f64[1]", p.in[i]);
  p.flops.vector = int64_t(p.in.size());
}
// in: step_scalars, parameters [N], gradients [N], `states` tensors (, what the master weights of 16-bit parameters have besides [N] last:
// the residual plane of bf16, as bf16, or the f32 master of f16). bf16 without one is rounded stochastically: half a random word and a sum
// for each. Shapes but those of the states, work and bytes.
void plan_update(Plan& p, int states, int cost) {
  const auto params = p.params.as<OptimizerParams>();
  const DType dtype = p.in[1].dtype;
  const bool rounded = dtype == DType::bf16 && p.in.size() == size_t(3 + states), split = dtype == DType::bf16 && !rounded,
             copied = dtype == DType::f16;
  check(p.in[0] == TensorSpec{{kStepScalars}, DType::f64}, "wants step_scalars first");
  check(is_float(dtype), "parameters must be f32, f64, bf16 with a residual plane or f16 with a master, got {}", p.in[1]);
  const size_t wanted = size_t(3 + states + (split || copied));
  check(p.in.size() == wanted, "wants {} tensors, got {}", wanted, p.in.size());
  const TensorSpec gradient{p.in[1].shape, statistics_dtype(dtype)};
  check(p.in[2] == gradient, "{} does not match the parameters {}", p.in[2], p.in[1]);
  if (split) check(p.in.back() == p.in[1], "residual plane {} does not match the parameters {}", p.in.back(), p.in[1]);
  if (copied) check(p.in.back() == gradient, "master {} does not match the parameters {}", p.in.back(), p.in[1]);
  p.vector_flops({cost + (rounded ? 6 : 0) + (params.coupled ? 1 : 0), p.in[1].numel()});
  // All but gradients are read and written; a float16 copy is only written.
  p.bytes_moved = 0;
  for (size_t i = 1; i < p.in.size(); ++i)
    p.bytes_moved = checked_sum({p.bytes_moved, checked_multiply(i == 2 || (i == 1 && copied) ? 1 : 2, p.in[i].bytes())});
}
void plan_states(Plan& p, int states, int cost) {
  plan_update(p, states, cost);
  for (size_t i = 3; i < size_t(3 + states); ++i) check(p.in[i] == p.in[2], "{} does not match the parameters {}", p.in[i], p.in[1]);
}
template <int kStates, int kCost>
void plan_step(Plan& p) {
  plan_states(p, kStates, kCost);
}
void plan_adam(Plan& p) {
  check(!p.params.as<OptimizerParams>().coupled, "weight decay is coupled as it is: use adamw_step to choose");
  plan_states(p, 2, 17);
}
// in: step_scalars, parameters, gradients, mean square (, mean) (, velocity) (, residual or master), all [N]
void plan_rmsprop(Plan& p) {
  const auto params = p.params.as<OptimizerParams>();
  plan_states(p, 1 + params.centered + params.momentum, 11 + (params.centered ? 6 : 0) + (params.momentum ? 2 : 0));
}
// What both passes of LAMB take in: step_scalars, parameters [N], `states` more of [N] in f32 or f64, places i64 [S + 1] in the bucket
// (, f64 [S]) (, residual or master). S.
int64_t check_lamb(const Plan& p, size_t states, bool has_ratios) {
  const DType dtype = p.in[1].dtype;
  check(p.in[0] == TensorSpec{{kStepScalars}, DType::f64}, "wants step_scalars first");
  check(is_float(dtype), "parameters must be f32, f64, bf16 or f16 with a master, got {}", p.in[1]);
  const size_t least = 3 + states + has_ratios, wanted = least + (dtype == DType::f16);
  check(p.in.size() == wanted || (dtype == DType::bf16 && p.in.size() == wanted + 1), "wants {} tensors, got {}", wanted, p.in.size());
  const TensorSpec state{p.in[1].shape, statistics_dtype(dtype)};
  for (size_t i = 2; i < 2 + states; ++i) check(p.in[i] == state, "{} does not match the parameters {}", p.in[i], p.in[1]);
  const TensorSpec places = p.in[2 + states];
  check(places.dtype == DType::i64 && places.shape.rank() == 1 && places.numel() >= 1, "places must be i64[S + 1], got {}", places);
  const int64_t S = places.numel() - 1;
  check(p.in[1].numel() % kPlaceAlignment == 0, "{} parameters are no multiple of {}", p.in[1].numel(), kPlaceAlignment);
  check(S > 0 || p.in[1].numel() == 0, "{} are in none of 0 parameter tensors", p.in[1]);
  if (has_ratios) check(p.in[3 + states] == TensorSpec{{S}, DType::f64}, "trust ratios must be f64[{}], got {}", S, p.in[3 + states]);
  if (p.in.size() > least)
    check(p.in.back() == (dtype == DType::f16 ? state : p.in[1]), "{} does not match the parameters {}", p.in.back(), p.in[1]);
  return S;
}
int64_t bytes_of(const Plan& p, std::initializer_list<int64_t> times) {
  int64_t bytes = 0;
  size_t i = 1;
  for (const int64_t t : times) bytes = checked_sum({bytes, checked_multiply(t, p.in[i++].bytes())});
  return bytes;
}
// in: step_scalars, parameters, gradients, m, v, places (, residual or master) -> trust ratio of each parameter tensor
void plan_lamb_moments(Plan& p) {
  const int64_t S = check_lamb(p, 3, false);
  p.output({S}, DType::f64);
  p.flops.vector = checked_sum({checked_product({19, p.in[1].numel()}), checked_multiply(5, S)});
  p.bytes_moved = checked_sum({bytes_of(p, {p.in[1].dtype == DType::f16 ? 0 : 1, 1, 2, 2, 1}), p.out[0].bytes()});
  if (p.in.size() > 6) p.bytes_moved = checked_sum({p.bytes_moved, p.in[6].bytes()});
}
// in: step_scalars, parameters, m, v, places, trust ratios (, residual or master)
void plan_lamb_step(Plan& p) {
  check_lamb(p, 2, true);
  const DType dtype = p.in[1].dtype;
  const bool rounded = dtype == DType::bf16 && p.in.size() == 6;
  p.vector_flops({9 + (rounded ? 6 : 0), p.in[1].numel()});
  p.bytes_moved = bytes_of(p, {dtype == DType::f16 ? 1 : 2, 1, 1, 1, 1});
  if (p.in.size() > 6) p.bytes_moved = checked_sum({p.bytes_moved, checked_multiply(2, p.in[6].bytes())});
}
// in: step_scalars, parameters [N], gradients [N], m u8 [N], its scales f32 [N / kStateBlock], v u8 [N], its scales (, residual or master)
void plan_adamw8bit(Plan& p) {
  plan_update(p, 4, 25);
  const int64_t N = p.in[1].numel();
  check(p.in[1].dtype != DType::f64, "f64 parameters have no 8-bit states: use adamw_step");
  check(N % kStateBlock == 0, "{} parameters are not whole blocks of {}", N, kStateBlock);
  const TensorSpec codes{p.in[1].shape, DType::u8}, scales{{N / kStateBlock}, DType::f32};
  for (const size_t i : {3, 5})
    check(p.in[i] == codes && p.in[i + 1] == scales, "state {} with scales {} does not match the parameters {}", p.in[i], p.in[i + 1],
          p.in[1]);
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
const OpDef op::nesterov_step{k_nesterov_step, "nesterov_step", plan_step<1, 8>, nullptr, {}, {.mutates = 0b11010}};
const OpDef op::rmsprop_step{k_rmsprop_step, "rmsprop_step", plan_rmsprop, nullptr, {}, {.mutates = 0b1111010}};
const OpDef op::adam_step{k_adam_step, "adam_step", plan_adam, nullptr, {}, {.mutates = 0b111010}};
const OpDef op::lamb_moments{k_lamb_moments, "lamb_moments", plan_lamb_moments, nullptr, {}, {.mutates = 0b11000}};
const OpDef op::lamb_step{k_lamb_step, "lamb_step", plan_lamb_step, nullptr, {}, {.mutates = 0b1000010}};
const OpDef op::adagrad_step{k_adagrad_step, "adagrad_step", plan_step<1, 8>, nullptr, {}, {.mutates = 0b11010}};
const OpDef op::adamw_step{k_adamw_step, "adamw_step", plan_step<2, 16>, nullptr, {}, {.mutates = 0b111010}};
const OpDef op::adamw8bit_step{k_adamw8bit_step, "adamw8bit_step", plan_adamw8bit, nullptr, {}, {.mutates = 0b11111010}};
const OpDef op::split_master{k_split_master, "split_master", plan_master, nullptr, {}, {.mutates = 0b110}};
const OpDef op::join_master{k_join_master, "join_master", plan_master, nullptr, {}, {.mutates = 0b1}};

Tensor sum_of_squares(const Tensor& x) { return call(op::sum_of_squares, tensors(x))[0]; }
void clip_(const Tensor& step_scalars, const Tensor& loss, const Tensors& sums) {
  check(!sums.empty(), "clip: wants at least one sum of squares");
  Tensor total = sums[0];  // one, however deep the model: a call's inputs have 32 bits in its row
  for (size_t i = 1; i < sums.size(); ++i) total = add(std::move(total), sums[i]);
  call(op::clip, tensors(step_scalars, loss, total));
}
void split_master_(const Tensor& master, const Tensor& working, const Tensor& residual) {
  call(op::split_master, tensors(master, working, residual));
}
void join_master_(const Tensor& master, const Tensor& working, const Tensor& residual) {
  call(op::join_master, tensors(master, working, residual));
}
}  // namespace reckon
