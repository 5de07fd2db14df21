// backend/cpu: optimizer steps, embeddings and activations, from tensors to the plain-pointer kernels.
#include "reckon/backend/cpu/activation.h"
#include "reckon/backend/cpu/embedding.h"
#include "reckon/backend/cpu/kernels.h"
#include "reckon/backend/cpu/optimizer.h"
#include "reckon/backend/cpu/optimizer_8bit.h"
#include "reckon/backend/cpu/optimizer_lamb.h"

namespace reckon::cpu {
namespace {
void activate(const KernelArgs& k, Activation kind) { activation(kind, k.in[0].dtype(), k.in[0].raw(), k.out[0].raw(), k.in[0].numel()); }
// in: dy, kept
void activate_back(const KernelArgs& k, Activation kind) {
  activation_back(kind, k.in[1].dtype(), k.in[0].raw(), k.in[1].raw(), k.out[0].raw(), k.in[1].numel());
}
// in: step_scalars, parameters, gradients, states ... (, residual or master); bf16 without a residual is rounded stochastically
OptimizerStep step_of(const KernelArgs& k, Optimizer kind, size_t states) {
  const Tensor& p = k.in[1];
  OptimizerStep s{.kind = kind, .dtype = p.dtype(), .n = p.numel(), .p = p.raw(), .g = k.in[2].raw()};
  if (p.dtype() == DType::bf16 && k.in.size() > 3 + states) s.residual = static_cast<uint16_t*>(k.in.back().raw());
  if (p.dtype() == DType::f16) s.master = k.in.back().data<float>();
  const auto params = k.as<OptimizerParams>();
  s.weight_decay = params.weight_decay;
  s.lr_scale = params.lr_scale;
  s.coupled = params.coupled;
  s.first = params.first;
  s.bucket = params.bucket;
  s.scalars = k.in[0].data<double>();
  return s;
}
void step(const KernelArgs& k, Optimizer kind, bool has_m, bool has_v, bool coupled = false) {
  OptimizerStep s = step_of(k, kind, size_t(has_m) + size_t(has_v));
  s.coupled |= coupled;
  size_t at = 3;
  if (has_m) s.m = k.in[at++].raw();
  if (has_v) s.v = k.in[at++].raw();
  optimizer_step(s);
}
// in: step_scalars, parameters, gradients or nothing, m, v, places, ratios or nothing (, residual or master)
LambStep lamb_of(const KernelArgs& k, bool first, const Tensor& ratios) {
  const size_t m = first ? 3 : 2;
  LambStep s{.step = step_of(k, Optimizer::adamw, 3)};
  s.step.m = k.in[m].raw();
  s.step.v = k.in[m + 1].raw();
  s.parameters = k.in[m + 2].numel() - 1;
  s.places = k.in[m + 2].data<int64_t>();
  s.ratios = ratios.data<double>();
  s.phi_low = k.as<OptimizerParams>().phi_low;
  s.phi_high = k.as<OptimizerParams>().phi_high;
  return s;
}
}  // namespace

void kernel::gelu(const KernelArgs& k) { activate(k, Activation::gelu); }
void kernel::relu(const KernelArgs& k) { activate(k, Activation::relu); }
void kernel::silu(const KernelArgs& k) { activate(k, Activation::silu); }
void kernel::sigmoid(const KernelArgs& k) { activate(k, Activation::sigmoid); }
void kernel::tanh(const KernelArgs& k) { activate(k, Activation::tanh); }
void kernel::gelu_back(const KernelArgs& k) { activate_back(k, Activation::gelu); }
void kernel::relu_back(const KernelArgs& k) { activate_back(k, Activation::relu); }
void kernel::silu_back(const KernelArgs& k) { activate_back(k, Activation::silu); }
void kernel::sigmoid_back(const KernelArgs& k) { activate_back(k, Activation::sigmoid); }
void kernel::tanh_back(const KernelArgs& k) { activate_back(k, Activation::tanh); }
void kernel::swiglu(const KernelArgs& k) {
  cpu::swiglu(k.in[0].dtype(), k.in[0].raw(), k.out[0].raw(), k.out[0].shape().rows(), k.out[0].shape().last());
}
void kernel::swiglu_back(const KernelArgs& k) {
  cpu::swiglu_back(k.in[1].dtype(), k.in[0].raw(), k.in[1].raw(), k.out[0].raw(), k.in[0].shape().rows(), k.in[0].shape().last());
}

void kernel::embedding(const KernelArgs& k) {
  const Tensor& table = k.in[0];
  cpu::embedding({.table_dtype = table.dtype(),
                  .y_dtype = table.dtype(),
                  .rows = k.in[1].numel(),
                  .vocab = table.shape()[0],
                  .cols = table.shape()[1],
                  .ids = k.in[1].data<int32_t>(),
                  .table = table.raw(),
                  .y = k.out[0].raw()});
}
void kernel::embedding_back(const KernelArgs& k) {  // in: dy, ids (, slot)
  const auto e = k.as<EmbeddingParams>();
  const bool slot = k.in.size() > 2;
  const Tensor& table = slot ? k.in[2] : k.out[0];
  cpu::embedding_back({.dtype = k.in[0].dtype(),
                       .rows = k.in[1].numel(),
                       .vocab = e.vocab,
                       .cols = table.shape()[1],
                       .ids = k.in[1].data<int32_t>(),
                       .dy = k.in[0].raw(),
                       .dtable = table.raw(),
                       .accumulate = slot && e.accumulate});
}

void kernel::sgd_step(const KernelArgs& k) { step(k, Optimizer::sgd, false, false); }
void kernel::momentum_step(const KernelArgs& k) { step(k, Optimizer::momentum, true, false); }
void kernel::adagrad_step(const KernelArgs& k) { step(k, Optimizer::adagrad, false, true); }
void kernel::nesterov_step(const KernelArgs& k) { step(k, Optimizer::nesterov, true, false); }
void kernel::rmsprop_step(const KernelArgs& k) {  // states: mean square (, mean) (, velocity)
  const auto params = k.as<OptimizerParams>();
  const Optimizer kind = params.centered ? (params.momentum ? Optimizer::rmsprop_centered_momentum : Optimizer::rmsprop_centered)
                                         : (params.momentum ? Optimizer::rmsprop_momentum : Optimizer::rmsprop);
  OptimizerStep s = step_of(k, kind, size_t(1 + params.centered + params.momentum));
  s.v = k.in[3].raw();
  if (params.centered) s.mean = k.in[4].raw();
  if (params.momentum) s.m = k.in[params.centered ? 5 : 4].raw();
  optimizer_step(s);
}
void kernel::adam_step(const KernelArgs& k) { step(k, Optimizer::adamw, true, true, true); }
void kernel::lamb_moments(const KernelArgs& k) { cpu::lamb_moments(lamb_of(k, true, k.out[0]), k.workspace); }
void kernel::lamb_step(const KernelArgs& k) { cpu::lamb_step(lamb_of(k, false, k.in[5])); }
void kernel::adamw_step(const KernelArgs& k) { step(k, Optimizer::adamw, true, true); }
void kernel::adamw8bit_step(const KernelArgs& k) {
  const States8bit states{k.in[3].data<uint8_t>(), k.in[4].data<float>(), k.in[5].data<uint8_t>(), k.in[6].data<float>()};
  cpu::adamw8bit_step(step_of(k, Optimizer::adamw, 4), states);
}
void kernel::split_master(const KernelArgs& k) {
  cpu::split_master(k.in[0].data<float>(), k.in[1].raw(), static_cast<uint16_t*>(k.in[2].raw()), k.in[0].numel());
}
void kernel::join_master(const KernelArgs& k) {
  cpu::join_master(k.in[1].raw(), static_cast<const uint16_t*>(k.in[2].raw()), k.in[0].data<float>(), k.in[0].numel());
}
void kernel::clip(const KernelArgs& k) {  // in: step_scalars, loss, sums of squares [1] ...
  double squares[30];
  RECKON_ASSERT(k.in.size() - 2 <= 30);
  for (size_t i = 2; i < k.in.size(); ++i) squares[i - 2] = *k.in[i].data<double>();
  clip_coefficient(squares, int64_t(k.in.size()) - 2, k.in[1].dtype(), k.in[1].raw(), k.in[0].data<double>());
}

namespace book {
void lamb_moments(Plan& p) { p.workspace = lamb_workspace(p.in[1].numel(), p.in[5].numel() - 1); }
}  // namespace book
}  // namespace reckon::cpu
