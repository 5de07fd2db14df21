// Page 5 of the tour, docs/tour/05-costs.md: bytes and FLOPs of each line, on a device that has no memory.
#include "tour.h"

using namespace tour;

void sizes(Device& meta) {
  SHOW(meta, Tensor activations = zeros(meta, {{1, 4096, 4096}, DType::bf16}));
  SHOW(meta, Tensor a = zeros(meta, {{32, 32}, DType::f32}), b = zeros(meta, {{32, 32}, DType::f32}));
  check(activations.spec().bytes() == 33'554'432, "1 x 4096 x 4096 numbers of two bytes");
  check(a.spec().bytes() + b.spec().bytes() == 8'192, "2 x 32 x 32 numbers of four bytes");
  say("{}", activations.spec());
  say("{}", refusal([&] { max(a).item(); }));
}

void product(Device& meta) {
  const int64_t B = 16384, D = 32768, K = 8192;
  const Tensor x = empty(meta, {{B, D}, DType::f32}), w = empty(meta, {{D, K}, DType::f32});
  SHOW(meta, Tensor y = matmul(x, w));
  SHOW(meta, Tensor z = tanh(y));
  const Cost cost = cost_of(meta, [&] { matmul(x, w); });
  check(cost.flops.matmul == 2 * B * D * K, "2 B D K");
  say("2 B D K = {:.4g}; {:.0f} FLOPs a byte moved", double(cost.flops.matmul), double(cost.flops.matmul) / double(cost.bytes_moved));
  say("live by the ledger: {}", human_bytes(meta.allocator().ledger().live));
}

void stack(Device& meta) {
  const int64_t B = 64, D = 256, P = 2 * D * D;
  Tensor x = empty(meta, {{B, D}, DType::f32}), w1 = empty(meta, {{D, D}, DType::f32}), w2 = empty(meta, {{D, D}, DType::f32});
  w1.set_requires_grad();
  w2.set_requires_grad();
  const Tensor dy = empty(meta, {{B, D}, DType::f32});
  SHOW(meta, Tensor y = linear(linear(x, w1), w2));
  SHOW(meta, Tensors d = grad(y, {w1, w2}, dy));
  x.set_requires_grad();
  SHOW(meta, Tensors all = grad(linear(linear(x, w1), w2), {x, w1, w2}, dy));

  const auto matmul_flops = [&](const Tensors& inputs) {
    const Tensor result = linear(linear(x, w1), w2);
    return cost_of(meta, [&] { grad(result, inputs, dy); }).flops.matmul;
  };
  check(cost_of(meta, [&] { linear(linear(x, w1), w2); }).flops.matmul == 2 * B * P, "forward: 2 B P");
  check(matmul_flops({x, w1, w2}) == 4 * B * P, "backward with the gradient of x: 4 B P");
  check(matmul_flops({w1, w2}) == 6 * B * D * D, "without it: 6 B D^2");
  say("2 B P = {}, 4 B P = {}, 6 B D^2 = {}", with_commas(2 * B * P), with_commas(4 * B * P), with_commas(6 * B * D * D));
}

// A deep linear net with one output: L layers of D x D, and D x 1.
void cruncher(Device& meta) {
  const int64_t B = 2, D = 4, L = 2;
  Parameters parameters;
  for (int64_t i = 0; i < L; ++i) parameters.declare(text("layers.{}", i), {D, D}, {Init::normal}, true);
  parameters.declare("last", {1, D}, {Init::normal}, true);
  parameters.materialize(meta, {}, 1);
  Optimizer optimizer(meta, parameters, {.name = OptimizerKind::adagrad, .clip_norm = 0});

  int64_t activations = 0, gradients = 0, states = 0;
  Tensor x = zeros(meta, {{B, D}, DType::f32});
  const auto forward = [&] {
    Tensor h = x;
    for (int64_t i = 0; i < L; ++i, activations += h.numel()) h = linear(h, parameters.find(text("layers.{}", i))->value);
    return sum(linear(h, parameters.at("last").value));
  };
  SHOW(meta, Tensor loss = forward());
  SHOW(meta, backward(loss));
  SHOW(meta, optimizer.step());
  for (const Parameter& p : parameters.all()) {
    gradients += p.value.grad().numel();
    for (const Optimizer::State& state : optimizer.states()) states += state.of(p).numel();
  }
  const int64_t all = parameters.count() + activations + gradients + states;
  const auto row = [&](const char* name, int64_t count) {
    say("{:12}{:4}{:6} B{:6.1f} %", name, count, 4 * count, 100.0 * double(count) / double(all));
  };
  row("parameters", parameters.count());
  row("activations", activations);
  row("gradients", gradients);
  row("states", states);
  row("all", all);
  check(parameters.count() == 36 && activations == 16 && gradients == 36 && states == 36 && 4 * all == 496, "36, 16, 36 and 36 numbers");
  const int64_t exact = cost_of(meta, [&] { backward(forward()); }).flops.matmul;
  say("6 B P = {}, exactly {}", 6 * B * parameters.count(), exact);
  check(exact == 6 * B * parameters.count() - 2 * B * D * D, "without the gradient of the data");
}

int main() { return run({sizes, product, stack, cruncher}, Mode::meta); }
