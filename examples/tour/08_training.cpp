// Page 8 of the tour, docs/tour/08-training.md: a model, a task and a training loop; and the same loop without data.
#include "tour.h"

using namespace tour;

constexpr int64_t kSteps = 300, kMicroBatches = 4, kPoints = 64;  // points of a micro-batch

struct Classifier : nn::Module {
  using Module::Module;
  nn::Linear up{*this, "up", 2, 32};
  nn::FeedForward mlp{*this, "mlp", 32, 128};
  nn::RmsNorm norm{*this, "norm", 32};
  nn::Linear head{*this, "head", 32, 2, false};
  Tensor operator()(const Tensor& x) const {
    const Tensor h = up(x);
    return head(norm(add(h, mlp(h))));
  }
};

// Points of a square, and whether each lies inside a circle.
struct Batch {
  Tensor points, inside;
};
Batch batch(Device& device, uint64_t key, int64_t count) {
  const Tensor points = empty(device, {{count, 2}, DType::f32});
  fill_uniform_(points, key, -1, 1);
  return {points, cast(less(sum(square(points), {1}), full(device, {{}, DType::f32}, 0.6)), DType::i32)};
}

const OptimConfig kOptim{.name = OptimizerKind::adamw, .lr = 0.01, .clip_norm = 1, .schedule = ScheduleKind::cosine, .warmup_steps = 20};

Tensor train_step(Classifier& model, Optimizer& optimizer, Device& device, int64_t step) {
  Tensor loss = zeros(device, {{}, DType::f32});
  model.registry().zero_grad();
  for (int64_t part = 0; part < kMicroBatches; ++part) {
    const Batch b = batch(device, uint64_t(step * kMicroBatches + part), kPoints);
    const Tensor share = cross_entropy(model(b.points), b.inside) / kMicroBatches;
    backward(share);
    loss = add(loss, share.detached());
  }
  optimizer.set_lr(learning_rate(kOptim, step, kSteps));
  optimizer.step();
  return loss;
}

void training(Device& cpu) {
  Parameters parameters;
  Classifier model(parameters);
  model.materialize(cpu);
  Optimizer optimizer(cpu, parameters, kOptim);
  SHOW(cpu, double first = train_step(model, optimizer, cpu, 0).item());
  for (int64_t step = 1; step < kSteps; ++step) train_step(model, optimizer, cpu, step);

  const NoGrad guard;
  const Batch unseen = batch(cpu, 1 << 20, 4096);
  const double right = sum(equal(argmax(model(unseen.points), -1), unseen.inside)).item() / 4096;
  check(right > 0.97, "only {} of the points are judged rightly", right);
  say("{} parameters; first loss {:.2f}; in the end more than 97 % of new points are judged rightly", parameters.count(), first);
}

// The gradients of one batch, all at once or in parts.
Tensors gradients(Device& cpu, int64_t parts) {
  Parameters parameters;
  Classifier model(parameters);
  model.materialize(cpu);
  const Batch whole = batch(cpu, 1, 256);
  const Tensors points = chunk(whole.points, parts, 0), inside = chunk(whole.inside, parts, 0);
  for (size_t i = 0; i < points.size(); ++i) backward(cross_entropy(model(points[i]), inside[i]) / double(parts));
  Tensors all;
  for (const Parameter& p : parameters.all()) all.push_back(contiguous(p.value.grad()));
  return all;
}
void accumulation(Device& cpu) {
  SHOW(cpu, Tensors at_once = gradients(cpu, 1));
  SHOW(cpu, Tensors in_parts = gradients(cpu, 4));
  for (size_t i = 0; i < at_once.size(); ++i)
    check(relative_difference(in_parts[i], at_once[i]) < 1e-5, "a quarter of four losses is the loss of all");
}

struct Books {
  int64_t peak;
  std::string trace;
  Flops flops;
};
Books two_steps(Mode mode) {
  const Ref<Device> device = open_cpu(mode, {.lanes = 2});
  Parameters parameters;
  Classifier model(parameters);
  model.materialize(*device);
  Optimizer optimizer(*device, parameters, kOptim);
  const Cost cost = cost_of(*device, [&] {
    for (int64_t step = 0; step < 2; ++step) train_step(model, optimizer, *device, step);
  });
  return {device->allocator().ledger().peak, device->allocator().trace_hash(), cost.flops};
}
void without_data(Device&) {
  const Books dry = two_steps(Mode::meta), real = two_steps(Mode::real);
  say("without data: peak {} B, {} matmul FLOPs", with_commas(dry.peak), with_commas(dry.flops.matmul));
  say("for real:     peak {} B, {} matmul FLOPs", with_commas(real.peak), with_commas(real.flops.matmul));
  check(dry.peak == real.peak && dry.flops == real.flops, "the same, to the byte and to the FLOP");
  check(dry.trace == real.trace, "and block by block");
}

int main() { return run({training, accumulation, without_data}); }
