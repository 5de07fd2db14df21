#include "reckon/ops/dropout.h"

#include "reckon/base/philox.h"
#include "reckon/engine/context.h"
#include "reckon/ops/ops.h"
#include "reckon/ops/rows.h"

namespace reckon {
namespace {
constexpr uint64_t kDropoutSite = 0x64726F706F7574;  // keys of different uses never meet

// in: x [samples, ...], draws i64 [2] -> y
void plan_dropout(Plan& p) {
  const auto d = p.params.as<DropoutParams>();
  check(is_float(p.in[0].dtype), "wants a floating-point tensor, got {}", p.in[0].dtype);
  check(p.in[1] == TensorSpec{{2}, DType::i64}, "draws must be i64[2], got {}", p.in[1]);
  check(d.p >= 0 && d.p < 1, "the probability of dropping must be at least 0 and below 1, got {}", d.p);
  check(d.first >= 0, "x cannot begin {} elements before its samples", -d.first);
  p.output(p.in[0]);
  p.vector_flops({7, p.in[0].numel()});
}
Tensors vjp_dropout(Vjp& v) { return {call(op::dropout, tensors(std::move(v.dy[0]), v.in(1)), v.as<DropoutParams>())[0], Tensor()}; }
}  // namespace

const OpDef op::dropout{k_dropout, "dropout", plan_dropout, vjp_dropout, {.in = 0b10}, {.reuse = 0b1}};

Tensor dropout(Tensor x, double p, const Tensor& draws, uint64_t site, int64_t first) {
  return call(op::dropout, tensors(std::move(x), draws), DropoutParams{p, site, first})[0];
}

Tensor make_dropout_draws(Device& device) {
  const CategoryScope data(Category::data);
  return zeros(device, {{2}, DType::i64});
}

void write_dropout_draws(const Tensor& draws, uint64_t seed, int64_t step, int64_t first_sample) {
  const int64_t host[2] = {int64_t(mix_key(mix_key(seed, kDropoutSite), uint64_t(step))), first_sample};
  draws.write(host, sizeof host);
}

uint64_t dropout_site(std::string_view name) {
  uint64_t key = kDropoutSite;
  for (const char c : name) key = mix_key(key, uint8_t(c));
  return key;
}
}  // namespace reckon
