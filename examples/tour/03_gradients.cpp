// Page 3 of the tour, docs/tour/03-gradients.md: the graph that a calculation leaves, and what runs through it backwards.
#include "tour.h"

using namespace tour;

void graph(Device& cpu) {
  const Tensor x = arange(cpu, 3, DType::f32, 1);  // 1, 2, 3
  Tensor w = ones(cpu, {{3}, DType::f32});
  w.set_requires_grad();
  SHOW(cpu, Tensor loss = 0.5 * square(sum(x * w) - 5));
  const Node* node = node_of(loss);
  std::string chain = node->name();
  for (; node->next_functions()[0].node; chain += text(" <- {}", node->name())) node = node->next_functions()[0].node.get();
  say("{}", chain);
  std::printf("%s", print_graph(loss, GraphFormat::text, {{"w", w}}).c_str());
  SHOW(cpu, backward(loss));
  say("loss {}, dw {}", loss.item(), to_text(w.grad()));
  check(w.grad().to_vector() == std::vector<double>{1, 2, 3}, "(6 - 5) x");
}

void matrices(Device& cpu) {
  Tensor a = normal(cpu, {8, 16}, 1), b = normal(cpu, {16, 32}, 2);
  const Tensor dy = normal(cpu, {8, 32}, 3);
  a.set_requires_grad();
  b.set_requires_grad();
  SHOW(cpu, Tensor y = matmul(a, b));
  SHOW(cpu, Tensors d = grad(y, {a, b}, dy));
  check(relative_difference(d[0], matmul(dy, transpose(b))) < 1e-6, "dA = dY B^T");
  check(relative_difference(d[1], matmul(transpose(a), dy)) < 1e-6, "dB = A^T dY");

  const Tensor batch = normal(cpu, {4, 8, 16}, 4), batch_dy = normal(cpu, {4, 8, 32}, 5), batch_y = matmul(batch, b);
  SHOW(cpu, Tensor db = grad(batch_y, {b}, batch_dy)[0]);
  check(relative_difference(db, sum(matmul(transpose(batch), batch_dy), {0})) < 1e-6, "summed over the axis that B has not");
  say("dA is {}, dB is {}; of a batch of four dB is {}", d[0], d[1], db);
}

void accumulation(Device& cpu) {
  Tensor w = full(cpu, {{2}, DType::f32}, 3);
  w.set_requires_grad();
  backward(sum(square(w)));
  say("once   {}", to_text(w.grad()));
  SHOW(cpu, backward(sum(square(w))));
  say("twice  {}", to_text(w.grad()));
  w.zero_grad();
  check(!w.grad().defined(), "zero_grad lets it go");
  const NoGrad guard;
  const Tensor constant = square(w);
  check(constant.is_leaf() && !constant.requires_grad(), "nothing is recorded under NoGrad");
}

void twice(Device& cpu) {
  Tensor x = arange(cpu, 4, DType::f64, 1);
  x.set_requires_grad();
  const Tensor y = sum(x * x * x);
  SHOW(cpu, Tensor first = grad(y, {x}, {}, {.create_graph = true})[0]);
  SHOW(cpu, Tensor second = grad(sum(first), {x})[0]);
  say("3 x^2 = {}", to_text(first));
  say("6 x   = {}", to_text(second));
  const auto cubes = [](const Tensor& t) { return sum(t * t * t); };
  check(relative_difference(hvp(cubes, x, ones(cpu, x.spec())).derivatives[0], second) < 1e-12, "a Hessian times a vector of ones");
}

void attention_by_hand(Device& cpu) {
  const int64_t T = 6, D = 4;
  const double scale = 1 / std::sqrt(double(D));
  Tensor q = normal(cpu, {T, D}, 1), k = normal(cpu, {T, D}, 2), v = normal(cpu, {T, D}, 3);
  for (Tensor* t : {&q, &k, &v}) t->set_requires_grad();
  const Tensor dO = normal(cpu, {T, D}, 4);
  SHOW(cpu, Tensor P = softmax(matmul(q, transpose(k)) * scale));
  SHOW(cpu, Tensor O = matmul(P, v));
  SHOW(cpu, Tensors d = grad(O, {q, k, v}, dO));

  const NoGrad guard;
  const Tensor dP = matmul(dO, transpose(v)), dS = P * (dP - sum(P * dP, {-1}, true));
  check(relative_difference(d[0], matmul(dS, k) * scale) < 1e-5, "dQ = dS K / sqrt(D)");
  check(relative_difference(d[1], matmul(transpose(dS), q) * scale) < 1e-5, "dK = dS^T Q / sqrt(D)");
  check(relative_difference(d[2], matmul(transpose(P), dO)) < 1e-5, "dV = P^T dO");
  say("dP is {}, as P is; dQ is {}, as Q is", dP, d[0]);
}

void softmax_jacobian(Device& cpu) {
  const Tensor z = normal(cpu, {4}, 5, 1, DType::f64), v = normal(cpu, {4}, 6, 1, DType::f64);
  SHOW(cpu, Tensor J = jacobian([](const Tensor& t) { return softmax(t); }, z));
  SHOW(cpu, Tensor product = vjp([](const Tensor& t) { return softmax(t); }, {z}, {v}).derivatives[0]);
  check(relative_difference(J, transpose(J)) < 1e-12, "it is symmetric");
  check(max(abs(sum(J, {1}))).item() < 1e-12, "takes a vector of ones to zero");
  check(sum(v * product).item() > 0, "and is positive semidefinite: v J v >= 0");
  check(relative_difference(product, reshape(matmul(J, unsqueeze(v, 1)), {4})) < 1e-12, "the same product without the matrix");
}

int main() { return run({graph, matrices, accumulation, twice, attention_by_hand, softmax_jacobian}); }
