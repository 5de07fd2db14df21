// Page 4 of the tour, docs/tour/04-function.md: a function with a gradient rule of one's own, which computes again instead of keeping.
#include "tour.h"

using namespace tour;

Tensor plain_mlp(const Tensor& x, const Tensor& up, const Tensor& down) { return matmul(tanh(matmul(x, up)), down); }

struct RecomputedMlp {
  static constexpr const char* name = "recomputed_mlp";
  Tensor forward(FunctionContext& c, const Tensor& x, const Tensor& up, const Tensor& down) {
    c.save_for_backward({x, up, down});  // and not the hidden layer
    return plain_mlp(x, up, down);
  }
  Tensors backward(FunctionContext& c, const Tensor& dy) {
    const Tensor x = c.saved()[0], up = c.saved()[1], down = c.saved()[2];
    const Tensor hidden = tanh(matmul(x, up));                                   // again
    const Tensor before = matmul(dy, transpose(down)) * (1.0 - square(hidden));  // the gradient before tanh
    return {matmul(before, transpose(up)), matmul(transpose(x), before), matmul(transpose(hidden), dy)};
  }
};

void both_ways(Device& cpu) {
  Tensor x = normal(cpu, {64, 32}, 1), up = normal(cpu, {32, 128}, 2, 0.2), down = normal(cpu, {128, 32}, 3, 0.1);
  for (Tensor* t : {&x, &up, &down}) t->set_requires_grad();
  const Tensor dy = normal(cpu, {64, 32}, 4);

  SHOW(cpu, Tensor plain = plain_mlp(x, up, down));
  SHOW(cpu, Tensors kept = grad(plain, {x, up, down}, dy));
  SHOW(cpu, Tensor mine = apply_function(RecomputedMlp{}, x, up, down));
  SHOW(cpu, Tensors again = grad(mine, {x, up, down}, dy));
  check(mine.to_vector() == plain.to_vector(), "the same result");
  for (size_t i = 0; i < 3; ++i) check(relative_difference(again[i], kept[i]) < 1e-5, "and the same gradients, to rounding");
}

void on_paper(Device& cpu) {
  Tensor x = normal(cpu, {64, 32}, 1), up = normal(cpu, {32, 128}, 2, 0.2), down = normal(cpu, {128, 32}, 3, 0.1);
  up.set_requires_grad();
  down.set_requires_grad();
  const GraphNames names = {{"up", up}, {"down", down}};
  std::printf("%s", print_graph(plain_mlp(x, up, down), GraphFormat::text, names).c_str());
  std::printf("%s", print_graph(apply_function(RecomputedMlp{}, x, up, down), GraphFormat::text, names).c_str());
}

void differences(Device& cpu) {
  const auto f = [](const Tensor& x, const Tensor& up, const Tensor& down) { return apply_function(RecomputedMlp{}, x, up, down); };
  const Tensor x = normal(cpu, {3, 4}, 1, 1, DType::f64), up = normal(cpu, {4, 5}, 2, 1, DType::f64);
  const Tensor down = normal(cpu, {5, 2}, 3, 1, DType::f64), v = normal(cpu, {4, 5}, 4, 1, DType::f64);

  const double h = 1e-5;
  SHOW(cpu, Tensor change = (sum(f(x, up + h * v, down)) - sum(f(x, up - h * v, down))) / (2 * h));
  SHOW(cpu, Tensor slope = sum(vjp([&](const Tensor& w) { return sum(f(x, w, down)); }, {up}).derivatives[0] * v));
  say("change {:.4f}, slope {:.4f}", change.item(), slope.item());
  check(std::abs(change.item() / slope.item() - 1) < 1e-8, "the slope along v is the change along v");
  check(gradcheck(f, {x, up, down}).empty(), "so for every element of every input");
  check(gradgradcheck(f, {x, up, down}).empty(), "and for the gradients of the gradients");
}

int main() { return run({both_ways, on_paper, differences}); }
