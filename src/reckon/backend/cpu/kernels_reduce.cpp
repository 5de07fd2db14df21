// backend/cpu: reductions, softmax and random fills, from tensors to the plain-pointer kernels.
#include "reckon/backend/cpu/kernels.h"
#include "reckon/backend/cpu/random.h"
#include "reckon/backend/cpu/rows_reduce.h"
#include "reckon/backend/cpu/softmax.h"

namespace reckon::cpu {
namespace {
void reduce_by(const KernelArgs& k, Reduce op) {
  const Tensor &x = k.in[0], &y = k.out[0];
  reduce(op, x.dtype(), x.shape(), {x.raw(), x.layout().strides}, k.as<ReduceParams>().axes, y.dtype(), y.raw(), k.workspace);
}
void softmax_by(const KernelArgs& k, bool log) {
  const Tensor& x = k.in[0];
  cpu::softmax(log, x.dtype(), x.raw(), k.out[0].raw(), x.shape().rows(), x.shape().last());
}
void softmax_back_by(const KernelArgs& k, bool log) {  // in: dy, y
  const Tensor& y = k.in[1];
  cpu::softmax_back(log, y.dtype(), k.in[0].raw(), y.raw(), k.out[0].raw(), y.shape().rows(), y.shape().last());
}
}  // namespace

void kernel::sum(const KernelArgs& k) { reduce_by(k, Reduce::sum); }
void kernel::max(const KernelArgs& k) { reduce_by(k, Reduce::max); }
void kernel::softmax(const KernelArgs& k) { softmax_by(k, false); }
void kernel::log_softmax(const KernelArgs& k) { softmax_by(k, true); }
void kernel::softmax_back(const KernelArgs& k) { softmax_back_by(k, false); }
void kernel::log_softmax_back(const KernelArgs& k) { softmax_back_by(k, true); }

void kernel::linear_back_b(const KernelArgs& k) {  // in: dy (, slot)
  const bool slot = k.in.size() > 1;
  const Tensor &dy = k.in[0], &db = slot ? k.in[1] : k.out[0];
  column_sums(dy.dtype(), dy.raw(), dy.shape().rows(), db.numel(), db.numel(), db.dtype(), db.raw(), slot && k.as<LinearParams>().accumulate, k.workspace);
}
void kernel::sum_of_squares(const KernelArgs& k) {
  cpu::sum_of_squares(k.in[0].dtype(), k.in[0].raw(), k.in[0].numel(), k.out[0].data<double>(), k.workspace);
}
void kernel::random(const KernelArgs& k) {
  const auto p = k.as<RandomParams>();
  const Tensor& x = k.in[0];
  switch (p.kind) {
    case RandomParams::uniform: return fill_uniform(x.dtype(), x.raw(), x.numel(), p.key, 0, p.a, p.b);
    case RandomParams::normal: return fill_normal(x.dtype(), x.raw(), x.numel(), p.key, 0, p.a, p.b);
    case RandomParams::trunc_normal: return fill_truncated_normal(x.dtype(), x.raw(), x.numel(), p.key, 0, 0, p.a, -p.b, p.b);
    case RandomParams::integers: return fill_integers(x.dtype(), x.raw(), x.numel(), p.key, 0, int64_t(p.a), int64_t(p.b));
    case RandomParams::bernoulli: return fill_bernoulli(x.dtype(), x.raw(), x.numel(), p.key, 0, p.a);
  }
}

int64_t count_nonfinite(DType dtype, const void* data, int64_t count) {
  std::vector<std::byte> partial(size_t(flat_reduce_workspace(count)));  // a search after a failure, not a kernel of a step
  int64_t found = 0;
  count_nonfinite(dtype, data, count, &found, partial.data());
  return found;
}

namespace book {
void sum(Plan& p) { p.workspace = reduce_workspace(p.in[0].shape, p.params.as<ReduceParams>().axes); }
void max(Plan& p) { sum(p); }
void linear_back_b(Plan& p) { p.workspace = column_sums_workspace(p.in[0].dtype, p.in[0].shape.rows(), p.in[0].shape.last()); }
void sum_of_squares(Plan& p) { p.workspace = flat_reduce_workspace(p.in[0].numel()); }
}  // namespace book
}  // namespace reckon::cpu
