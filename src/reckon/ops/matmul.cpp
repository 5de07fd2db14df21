// ops/matmul: matrix products and the linear layer.
#include "reckon/ops/attention_rows.h"
#include "reckon/ops/ops.h"

namespace reckon {

DType gradient_dtype(const Vjp& v, int i) {
  const Tensor& leaf = v.node.next_functions()[size_t(i)].leaf;
  const bool has_hooks = v.use_slots && leaf.defined() && leaf.state().hooks && leaf.state().grad_is_slot;
  return has_hooks ? leaf.grad_slot().dtype() : v.node.in_specs()[size_t(i)].dtype;
}

Tensor parameter_gradient(Vjp& v, const OpDef& row, int i, Tensors in) {
  if (!v.needs_in(i)) return {};
  const Tensor slot = v.slot(i);
  if (!slot.defined()) return call(row, std::move(in), LinearParams{false, gradient_dtype(v, i)})[0];
  in.push_back(slot);
  call(row, std::move(in), LinearParams{v.slot_filled(i), slot.dtype()});
  v.filled(i);
  return {};
}

namespace {
struct MatmulExtents {
  int64_t m, n, k;
  Shape batch;
};
MatmulExtents extents(const Plan& p) {
  const auto q = p.params.as<MatmulParams>();
  const Shape &a = p.in[0].shape, &b = p.in[1].shape;
  check(p.in[0].dtype == p.in[1].dtype && p.in[0].dtype != DType::boolean, "wants two matrices of one dtype other than bool, got {} and {}; cast one of them", p.in[0], p.in[1]);
  check(a.rank() >= 2 && b.rank() >= 2, "wants at least two axes each, got {} and {}", a, b);
  const int64_t k = a[q.transpose_a ? -2 : -1], k2 = b[q.transpose_b ? -1 : -2];
  check(k == k2, "inner sizes differ: {} times {}", a, b);
  return {a[q.transpose_a ? -1 : -2], b[q.transpose_b ? -2 : -1], k, broadcast(a.first(a.rank() - 2), b.first(b.rank() - 2))};
}
void plan_matmul(Plan& p) {
  const MatmulExtents e = extents(p);
  p.output(e.batch.appended(e.m).appended(e.n), p.in[0].dtype);
  p.matmul_flops({2, e.batch.numel(), e.m, e.n, e.k});
  if (const int64_t needed = p.params.as<MatmulParams>().needed) {
    p.flops.model = checked_multiply(2, needed);
    check(p.flops.model <= p.flops.matmul, "{} multiply-adds are said to be needed, of {}", needed, p.flops.matmul / 2);
  }
}
Tensor matmul_by(const Tensor& a, const Tensor& b, bool ta, bool tb, int64_t needed) {
  return call(op::matmul, tensors(a, b), MatmulParams{ta, tb, needed})[0];
}

// Y = op(A) op(B): dA = dY op(B)^T (transposed if A was), dB = op(A)^T dY, each summed over broadcast axes. What is masked in one product
// is masked in all three.
Tensors vjp_matmul(Vjp& v) {
  const auto q = v.as<MatmulParams>();
  const Tensor a = v.in(0), b = v.in(1), dy = v.dy[0];
  const auto product = [&](const Tensor& x, const Tensor& y, bool tx, bool ty) { return matmul_by(x, y, tx, ty, q.needed); };
  Tensors dx(2);
  if (v.needs_in(0)) dx[0] = sum_to(q.transpose_a ? product(b, dy, q.transpose_b, true) : product(dy, b, false, !q.transpose_b), a.shape());
  if (v.needs_in(1)) dx[1] = sum_to(q.transpose_b ? product(dy, a, true, q.transpose_a) : product(a, dy, !q.transpose_a, false), b.shape());
  return dx;
}

// ---- linear: x [..., K], w [N, K], bias [N]
void plan_linear(Plan& p) {
  const Shape &x = p.in[0].shape, &w = p.in[1].shape;
  check(p.in[0].dtype == p.in[1].dtype && is_float(p.in[0].dtype), "x and w differ in dtype: {} and {}", p.in[0], p.in[1]);
  check(w.rank() == 2 && x.rank() >= 1, "wants x [..., K] and w [N, K], got {} and {}", x, w);
  check(x.last() == w.last(), "inner sizes differ: x {} and w {}", x, w);
  const int64_t m = x.rows(), n = w[0], k = w[1];
  const bool bias = p.in.size() > 2;
  if (bias) check(p.in[2] == TensorSpec{{n}, p.in[0].dtype}, "bias {} does not match w {}", p.in[2], p.in[1]);
  p.output(x.with(-1, n), p.in[0].dtype);
  p.matmul_flops({2, m, n, k});
  if (bias) p.vector_flops({m, n});
}
// dy [..., N], w [N, K] -> dx [..., K]
void plan_linear_back_x(Plan& p) {
  const Shape &dy = p.in[0].shape, &w = p.in[1].shape;
  check(w.rank() == 2 && dy.rank() >= 1 && dy.last() == w[0], "dy {} does not match w {}", dy, w);
  const int64_t m = dy.rows(), n = w[0], k = w[1];
  p.output(dy.with(-1, k), p.in[0].dtype);
  p.matmul_flops({2, m, n, k});
}
// dy [..., N], x [..., K] (, slot [N, K]) -> dw [N, K], or into the slot
void plan_linear_back_w(Plan& p) {
  const auto q = p.params.as<LinearParams>();
  const Shape &dy = p.in[0].shape, &x = p.in[1].shape;
  check(dy.rank() == x.rank() && dy.rows() == x.rows(), "dy {} and x {} have different rows", dy, x);
  const int64_t m = dy.rows(), n = dy.last(), k = x.last();
  const bool slot = p.in.size() > 2;
  if (slot) {
    check(p.in[2].shape == Shape{n, k}, "slot {} is not [{}, {}]", p.in[2], n, k);
  } else {
    p.output({n, k}, q.out);
  }
  p.matmul_flops({2, m, n, k});
}
// dy [..., N] (, slot [N]) -> db [N]: column sums
void plan_linear_back_b(Plan& p) {
  const auto q = p.params.as<LinearParams>();
  const int64_t n = p.in[0].shape.last();
  if (p.in.size() > 1) {
    check(p.in[1].shape == Shape{n}, "slot {} is not [{}]", p.in[1], n);
  } else {
    p.output({n}, q.out);
  }
  p.flops.vector = p.in[0].numel();
}

Tensors vjp_linear(Vjp& v) {
  const size_t inputs = v.node.in_specs().size();
  Tensors dx(inputs);
  const Tensor dy = std::move(v.dy[0]);
  if (inputs > 2) dx[2] = parameter_gradient(v, op::linear_back_b, 2, tensors(dy));
  if (v.needs_in(1)) dx[1] = parameter_gradient(v, op::linear_back_w, 1, tensors(dy, v.in(0)));
  if (v.needs_in(0)) dx[0] = call(op::linear_back_x, tensors(dy, v.in(1)))[0];
  return dx;
}

// The three products of a linear layer are each other's gradients. g: the gradient of what a backward row gives. A row that writes a slot is
// outside of graphs.
Tensors vjp_linear_back_x(Vjp& v) {  // dx = dy w
  const Tensor dy = v.in(0), w = v.in(1), g = v.dy[0];
  Tensors d(2);
  if (v.needs_in(0)) d[0] = linear(g, w);
  if (v.needs_in(1)) d[1] = call(op::linear_back_w, tensors(dy, g), LinearParams{false, w.dtype()})[0];
  return d;
}
Tensors vjp_linear_back_w(Vjp& v) {  // dw = dy^T x
  const Tensor dy = v.in(0), x = v.in(1), g = cast(v.dy[0], x.dtype());
  Tensors d(v.node.in_specs().size());
  if (v.needs_in(0)) d[0] = linear(x, g);
  if (v.needs_in(1)) d[1] = call(op::linear_back_x, tensors(dy, g))[0];
  return d;
}
Tensors vjp_linear_back_b(Vjp& v) {  // db = the sum of dy's rows
  const TensorSpec dy = v.node.in_specs()[0];
  Tensors d(v.node.in_specs().size());
  d[0] = expand(cast(v.dy[0], dy.dtype), dy.shape);
  return d;
}
}  // namespace

const OpDef op::matmul{k_matmul, "matmul", plan_matmul, vjp_matmul, {.in = 0b11}, {.autocast = AutocastPolicy::low}};
const OpDef op::linear{k_linear, "linear", plan_linear, vjp_linear, {.in = 0b11}, {.autocast = AutocastPolicy::low}};
const OpDef op::linear_back_x{k_linear_back_x, "linear_back_x", plan_linear_back_x, vjp_linear_back_x, {.in = 0b11}};
const OpDef op::linear_back_w{k_linear_back_w, "linear_back_w", plan_linear_back_w, vjp_linear_back_w, {.in = 0b11}, {.mutates = 0b100}};
const OpDef op::linear_back_b{k_linear_back_b, "linear_back_b", plan_linear_back_b, vjp_linear_back_b, {}, {.mutates = 0b10}};

namespace {
// A matrix whose last two axes are swapped views of contiguous ones is passed as "transposed" instead of being copied.
struct Operand {
  Tensor tensor;
  bool transposed = false;
};
Operand operand(const Tensor& t) {
  if (t.rank() < 2 || t.is_contiguous()) return {t};
  const Tensor swapped = transpose(t);
  return swapped.is_contiguous() ? Operand{swapped, true} : Operand{t};
}
}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b) { return matmul_of_pairs(a, b, 0); }
Tensor matmul_of_pairs(const Tensor& a, const Tensor& b, int64_t needed) {
  const Operand x = operand(a), y = operand(b);
  return matmul_by(x.tensor, y.tensor, x.transposed, y.transposed, needed);
}
Tensor linear(const Tensor& x, const Tensor& w, const Tensor& bias) {
  return call(op::linear, bias.defined() ? tensors(x, w, bias) : tensors(x, w))[0];
}
}  // namespace reckon
