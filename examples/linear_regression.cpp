// Fits y = 3 x0 - 2 x1 + 0.5 by gradient descent: tensors, automatic differentiation and a training loop by hand.
#include <cmath>
#include <cstdio>

#include "reckon/backend/cpu/device.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/ops/ops.h"

using namespace reckon;

int main() {
  const Ref<Device> cpu = open_cpu(Mode::real);

  // 256 samples with known weights and a little noise. Element i of a random fill is a function of (key, i), so every run is the same.
  const Tensor x = empty(*cpu, {{256, 2}, DType::f32}), noise = empty(*cpu, {{256, 1}, DType::f32});
  fill_normal_(x, 1);
  fill_normal_(noise, 2, 0, 0.01);
  const float truth[] = {3, -2}, offset[] = {0.5f};
  const Tensor y = add(linear(x, from_values<float>(*cpu, {1, 2}, truth), from_values<float>(*cpu, {1}, offset)), noise);

  Tensor w = zeros(*cpu, {{1, 2}, DType::f32}), b = zeros(*cpu, {{1}, DType::f32});
  for (int step = 0; step <= 100; ++step) {
    w.set_requires_grad();
    b.set_requires_grad();
    const Tensor loss = mse_loss(linear(x, w, b), y);
    if (step % 20 == 0) std::printf("step %3d  loss %.6f\n", step, loss.item());
    backward(loss);

    const NoGrad guard;  // the update is not part of any graph
    const double rate = 0.1;
    w = sub(w, affine(w.grad(), rate));
    b = sub(b, affine(b.grad(), rate));
  }

  const std::vector<double> weights = w.to_vector();
  std::printf("y = %.3f x0 + %.3f x1 + %.3f\n", weights[0], weights[1], b.item());
  const double error = std::abs(weights[0] - 3) + std::abs(weights[1] + 2) + std::abs(b.item() - 0.5);
  return error < 0.01 ? 0 : 1;  // 256 samples with noise 0.01: each weight is known to about 0.01 / sqrt(256)
}
