// Page 9 of the tour, docs/tour/09-precision.md: what few bits can hold, and how training gets by with them.
#include "reckon/ops/training.h"
#include "tour.h"

using namespace tour;

void limits(Device& cpu) {
  say("{:10}{:>6}{:>12}{:>12}{:>12}", "type", "bits", "eps", "largest", "smallest");
  for (const DType type : {DType::f32, DType::bf16, DType::f16, DType::f8e4m3fn, DType::f8e5m2}) {
    const FloatInfo info = finfo(type);
    say("{:10}{:6}{:12.3g}{:12.3g}{:12.3g}", name_of(type), info.bits, info.eps, info.max, info.smallest_subnormal);
  }
  const Tensor small = full(cpu, {{}, DType::f32}, 1e-8);
  SHOW(cpu, Tensor half = cast(small, DType::f16));
  SHOW(cpu, Tensor brain = cast(small, DType::bf16));
  say("1e-8 in float16 {}, in bfloat16 {:.4g}", half.item(), brain.item());
  check(half.item() == 0 && brain.item() > 0, "float16 ends at 6e-8");
}

void adding_up(Device& cpu) {
  const Tensor ones_ = ones(cpu, {{4096}, DType::bf16}), one = ones(cpu, {{}, DType::bf16});
  Tensor total = zeros(cpu, {{}, DType::bf16});
  for (int i = 0; i < 4096; ++i) total = total + one;
  SHOW(cpu, Tensor inside = sum(ones_));
  say("one by one {}, in one operation {}", total.item(), inside.item());
  check(total.item() == 256 && inside.item() == 4096, "257 is no bfloat16; the sum is kept in float32 and rounded once");
}

void master_weights(Device& cpu) {
  Parameters parameters;
  const Parameter& w = parameters.declare("w", {32}, {Init::ones}, false);
  parameters.materialize(cpu, {.dtype = DType::bf16}, 1);
  Optimizer sgd(cpu, parameters, {.name = OptimizerKind::sgd, .lr = 1e-3, .clip_norm = 0});
  Tensor alone = ones(cpu, {{32}, DType::bf16});
  for (int step = 0; step < 100; ++step) {
    parameters.zero_grad();
    backward(sum(w.value));  // a gradient of ones
    sgd.step();
    alone = alone - 1e-3;
  }
  const Tensor master = empty(cpu, {{32}, DType::f32});
  SHOW(cpu, join_master_(master, w.value.detached(), Parameters::view_of(parameters.buckets()[0].residual, w)));
  say("after 100 steps of 0.001: bfloat16 alone {}, master weight {:.3f}, its working copy {:.3f}", select(alone, 0, 0).item(),
      select(master, 0, 0).item(), select(w.value, 0, 0).item());
  check(select(alone, 0, 0).item() == 1, "0.001 is less than half of what bfloat16 can step below 1");
  check(std::abs(select(master, 0, 0).item() - 0.9) < 1e-5, "1 - 100 * 0.001");
}

void autocast(Device& cpu) {
  Tensor w1 = normal(cpu, {64, 64}, 1, 0.125), w2 = normal(cpu, {10, 64}, 2, 0.125);
  w1.set_requires_grad();
  w2.set_requires_grad();
  const Tensor x = normal(cpu, {8, 64}, 3), targets = arange(cpu, 8, DType::i32);
  Tensor loss;
  {
    const Autocast scope(DType::bf16);
    SHOW(cpu, Tensor hidden = gelu(linear(x, w1)));
    SHOW(cpu, Tensor again = gelu(linear(hidden, w1)));
    SHOW(cpu, Tensor logits = linear(again, w2));
    SHOW(cpu, loss = cross_entropy(logits, targets));
    say("hidden is {}, logits are {}, the loss is {}", hidden, logits, loss);
    check(again.dtype() == DType::bf16 && loss.dtype() == DType::f32, "products run in bfloat16, losses in float32");
  }
  SHOW(cpu, backward(loss));
  say("the gradient of w1 is {}", w1.grad());
  check(w1.grad().dtype() == DType::f32, "the cast of w1 is a part of the graph");
}

void loss_scale(Device& cpu) {
  Tensor w = ones(cpu, {{4}, DType::f16});
  w.set_requires_grad();
  const Tensor x = full(cpu, {{4}, DType::f16}, 1e-4);
  const auto loss = [&] { return 1e-4 * sum(w * x); };
  SHOW(cpu, Tensor lost = grad(loss(), {w})[0]);
  SHOW(cpu, Tensor scaled = grad(16384 * loss(), {w})[0]);
  SHOW(cpu, Tensor restored = cast(scaled, DType::f32) / 16384);
  say("gradient {}, scaled {:.3g}, restored {:.3g}", select(lost, 0, 0).item(), select(scaled, 0, 0).item(), select(restored, 0, 0).item());
  check(select(lost, 0, 0).item() == 0 && std::abs(select(restored, 0, 0).item() / 1e-8 - 1) < 0.01, "1e-4 * 1e-4 comes back");
}

void dynamic_scale(Device& cpu) {
  Parameters parameters;
  const Parameter& w = parameters.declare("w", {32}, {Init::ones}, false);
  parameters.materialize(cpu, {.dtype = DType::f16}, 1);
  Optimizer sgd(cpu, parameters, {.name = OptimizerKind::sgd, .lr = 0.5, .clip_norm = 0}, {.start = 65536, .growth_interval = 2000});
  for (int step = 0; step < 2; ++step) {
    parameters.zero_grad();
    backward(sgd.loss_scale().item() * mean(w.value));  // 65536 is above the largest float16
    SHOW(cpu, sgd.step());
    const Optimizer::Outcome outcome = sgd.outcome();
    say("loss scale {}: {}, w = {}", outcome.loss_scale, outcome.updated ? "updated" : "skipped", select(w.value, 0, 0).item());
  }
  check(sgd.outcome().updated && std::abs(select(w.value, 0, 0).item() - (1 - 0.5 / 32)) < 1e-3,
        "the second step is the first that counts");
}

void budget(Device&) {
  const std::pair<const char*, StorageOptions> storages[] = {{"float32", {}},
                                                             {"bfloat16 and a residual plane", {.dtype = DType::bf16}},
                                                             {"float16 and float32 master weights", {.dtype = DType::f16}},
                                                             {"bfloat16 alone", {.dtype = DType::bf16, .master = false}}};
  for (const auto& [name, options] : storages) {
    const Ref<Device> meta = open_cpu(Mode::meta);
    Parameters parameters;
    parameters.declare("w", {1'953'125, 4096}, {Init::normal}, true);  // 8e9 in all
    parameters.materialize(*meta, options, 1);
    const Optimizer adam(*meta, parameters, {.name = OptimizerKind::adam});
    const double bytes = double(meta->allocator().ledger().live);
    say("{:36}{:5.0f} GB, {:2.0f} B a parameter", name, bytes / 1e9, bytes / 8e9);
  }
}

int main() { return run({limits, adding_up, master_weights, autocast, loss_scale, dynamic_scale, budget}); }
