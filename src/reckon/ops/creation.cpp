// ops/creation: tensors from nothing, from the host and from keyed random numbers.
#include <algorithm>

#include "reckon/ops/ops.h"
#include "reckon/ops/rows.h"
#include "reckon/tensor/dtype_info.h"

namespace reckon {
namespace {
void plan_fill(Plan& p) { p.output(p.params.as<FillParams>().spec()); }
void plan_empty(Plan& p) {
  plan_fill(p);
  p.bytes_moved = 0;  // nobody writes
}
void plan_arange(Plan& p) {
  const auto a = p.params.as<ArangeParams>();
  check(a.count >= 0, "a negative count, {}", a.count);
  check(!is_float8(a.dtype), "{} is for storage: make the values in f32 and cast them", a.dtype);
  const double last = a.start + double(std::max<int64_t>(a.count - 1, 0)) * a.step;
  if (!is_float(a.dtype)) {
    const IntegerInfo info = iinfo(a.dtype);
    check(std::min(a.start, last) > double(info.min) - 1 && std::max(a.start, last) < double(info.max) + 1, "{} does not hold values from {} to {}",
          a.dtype, a.start, last);
  }
  p.output({a.count}, a.dtype);
}
void plan_mask(Plan& p) {
  const auto m = p.params.as<MaskParams>();
  p.output({m.queries, m.keys}, DType::boolean);
}
void plan_random(Plan& p) {
  const auto kind = p.params.as<RandomParams>().kind;
  check(is_float(p.in[0].dtype) || kind == RandomParams::integers || kind == RandomParams::bernoulli,
        "{} takes whole numbers only: see fill_integers_ and fill_bernoulli_", p.in[0].dtype);
  p.vector_flops({10, p.in[0].numel()});
}
// slot, g: slot (+)= g
void plan_accumulate(Plan& p) {
  check(p.in[0].shape == p.in[1].shape, "the gradient {} does not match its slot {}", p.in[1], p.in[0]);
  p.flops.vector = p.params.as<AccumulateParams>().keep ? p.in[0].numel() : 0;
}
}  // namespace

const OpDef op::empty{k_empty, "empty", plan_empty};
const OpDef op::fill{k_fill, "fill", plan_fill};
const OpDef op::arange{k_arange, "arange", plan_arange};
const OpDef op::causal_mask{k_causal_mask, "causal_mask", plan_mask};
const OpDef op::random{k_random, "random", plan_random, nullptr, {}, {.mutates = 0b1}};
const OpDef op::accumulate{k_accumulate, "accumulate", plan_accumulate, nullptr, {}, {.mutates = 0b1}};

Tensor empty(Device& device, const TensorSpec& spec) { return call_on(device, op::empty, {}, FillParams(spec, 0))[0]; }
Tensor full(Device& device, const TensorSpec& spec, double value) { return call_on(device, op::fill, {}, FillParams(spec, value))[0]; }
Tensor zeros(Device& device, const TensorSpec& spec) { return full(device, spec, 0); }
Tensor ones(Device& device, const TensorSpec& spec) { return full(device, spec, 1); }
Tensor arange(Device& device, int64_t count, DType dtype, double start, double step) {
  return call_on(device, op::arange, {}, ArangeParams{count, start, step, dtype})[0];
}
Tensor from_bytes(Device& device, const TensorSpec& spec, const void* host, int64_t bytes) {
  Tensor t = empty(device, spec);
  t.write(host, bytes);
  return t;
}
Tensor causal_mask(Device& device, int64_t queries, int64_t keys, int64_t window) {
  return call_on(device, op::causal_mask, {}, MaskParams{queries, keys, window})[0];
}
void fill_uniform_(const Tensor& x, uint64_t key, double low, double high) {
  call(op::random, {x}, RandomParams{RandomParams::uniform, key, low, high});
}
void fill_normal_(const Tensor& x, uint64_t key, double mean, double std) {
  call(op::random, {x}, RandomParams{RandomParams::normal, key, mean, std});
}
void fill_trunc_normal_(const Tensor& x, uint64_t key, double std, double bound) {
  check(bound > 0 && std > 0, "fill_trunc_normal_: wants std > 0 and bound > 0, got {} and {}", std, bound);
  call(op::random, {x}, RandomParams{RandomParams::trunc_normal, key, std, bound});
}
}  // namespace reckon
