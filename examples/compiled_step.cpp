// A step compiled: its element-wise chains run fused, with the same bits, in less memory. Prints what was fused.
#include <cstdio>

#include "reckon/backend/cpu/device.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/compile.h"
#include "reckon/engine/context.h"
#include "reckon/ops/ops.h"

using namespace reckon;

namespace {
// Swish of one product times another, of primitives.
Tensor gated(const Tensor& x, const Tensor& w_gate, const Tensor& w_up) {
  const Tensor gate = linear(x, w_gate), up = linear(x, w_up);
  return mul(mul(gate, sigmoid(gate)), up);
}
}  // namespace

int main() {
  const Ref<Device> cpu = open_cpu(Mode::real);
  Tensors w;
  for (int i = 0; i < 3; ++i) {
    w.push_back(empty(*cpu, {{64, 64}, DType::f32}));
    fill_normal_(w.back(), uint64_t(i), 0, 0.125);
    w.back().set_requires_grad();
    w.back().set_grad_slot(zeros(*cpu, w.back().spec()));  // gradients outlive the step, so they have a place
  }

  const auto step = [&](const Tensors& in) -> Tensors {
    for (Tensor& parameter : w) parameter.zero_grad();
    const Tensor y = linear(gated(in[0], w[0], w[1]), w[2]);
    const Tensor loss = mean(square(sub(y, in[1])));
    backward(loss);
    return {loss.detached()};
  };
  CompiledStep compiled = compile(*cpu, step);

  const Tensor x = empty(*cpu, {{256, 64}, DType::f32}), target = empty(*cpu, {{256, 64}, DType::f32});
  fill_normal_(x, 10);
  fill_normal_(target, 11);
  const double eager = step({x, target})[0].item(), fused = compiled({x, target})[0].item();
  std::printf("%s", to_string(compiled.plan({x, target})).c_str());
  std::printf("loss %.6f eager, %.6f compiled, fallbacks %lld\n", eager, fused, static_cast<long long>(compiled.fallbacks()));
  return eager == fused && compiled.fallbacks() == 0 && !compiled.plan({x, target}).groups.empty() ? 0 : 1;
}
