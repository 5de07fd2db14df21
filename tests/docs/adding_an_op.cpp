// docs/adding_an_op.md's example: softplus as a user's own operation, and the proof that it is worth what the document says.
// The document quotes the part down to "end of the example"; tests/docs/quotes.cpp compares the two.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/parallel.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/engine/meter.h"
#include "reckon/ops/ops.h"

namespace softplus_example {
using namespace reckon;

struct SoftplusParams {
  double beta;
};

// x -> y = log(1 + exp(beta x)) / beta
void plan_softplus(Plan& p) {
  const TensorSpec x = p.in[0];
  check(x.dtype == DType::f32 || x.dtype == DType::f64, "wants f32 or f64, got {}", x.dtype);
  check(p.params.as<SoftplusParams>().beta > 0, "beta must be above 0, got {}", p.params.as<SoftplusParams>().beta);
  p.output(x);
  p.vector_flops({7, x.numel()});
}

// dy, x -> dx = dy / (1 + exp(-beta x))
void plan_softplus_back(Plan& p) {
  check(p.in[0] == p.in[1], "dy {} does not match x {}", p.in[0], p.in[1]);
  p.output(p.in[1]);
  p.vector_flops({4, p.in[1].numel()});
}

constexpr int64_t kElementsPerTask = 16 << 10;  // work is cut by size alone, so the bits never depend on the threads

template <class T>
void softplus_of(const KernelArgs& k) {
  const T beta = T(k.as<SoftplusParams>().beta);
  const T* x = k.in[0].data<T>();
  T* y = k.out[0].data<T>();
  parallel_range(k.out[0].numel(), kElementsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T z = beta * x[i];
      y[i] = (std::max(z, T(0)) + std::log1p(std::exp(-std::abs(z)))) / beta;  // no overflow for large z
    }
  });
}
void softplus_kernel(const KernelArgs& k) { k.out[0].dtype() == DType::f64 ? softplus_of<double>(k) : softplus_of<float>(k); }

template <class T>
void softplus_back_of(const KernelArgs& k) {
  const T beta = T(k.as<SoftplusParams>().beta);
  const T *dy = k.in[0].data<T>(), *x = k.in[1].data<T>();
  T* dx = k.out[0].data<T>();
  parallel_range(k.out[0].numel(), kElementsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) dx[i] = dy[i] / (T(1) + std::exp(-beta * x[i]));
  });
}
void softplus_back_kernel(const KernelArgs& k) {
  k.out[0].dtype() == DType::f64 ? softplus_back_of<double>(k) : softplus_back_of<float>(k);
}

// s = 1 / (1 + exp(-beta x)): d(dx)/d(dy) = s, d(dx)/dx = dy beta s (1 - s)
Tensors vjp_softplus_back(Vjp& v) {
  const double beta = v.as<SoftplusParams>().beta;
  const Tensor dy = v.in(0), s = sigmoid(affine(v.in(1), beta));
  Tensors d(2);
  if (v.needs_in(0)) d[0] = mul(v.dy[0], s);
  if (v.needs_in(1)) d[1] = mul(mul(v.dy[0], dy), affine(mul(s, affine(s, -1, 1)), beta));
  return d;
}
const OpDef softplus_back_row{
    -1, "softplus_back", plan_softplus_back, vjp_softplus_back, {.in = 0b11}, {.reuse = 0b11, .own_kernel = softplus_back_kernel}};

Tensors vjp_softplus(Vjp& v) { return {call(softplus_back_row, tensors(std::move(v.dy[0]), v.in(0)), v.as<SoftplusParams>())[0]}; }
const OpDef softplus_row{-1, "softplus", plan_softplus, vjp_softplus, {.in = 0b1}, {.reuse = 0b1, .own_kernel = softplus_kernel}};

/// log(1 + exp(beta x)) / beta, a smooth relu; x f32 or f64, any shape. Throws Error for other dtypes and for beta <= 0.
Tensor softplus(Tensor x, double beta = 1) { return call(softplus_row, tensors(std::move(x)), SoftplusParams{beta})[0]; }
// ---- end of the example

constexpr double kBeta = 1.7;
double reference(double x) { return std::log(1 + std::exp(kBeta * x)) / kBeta; }
double slope(double x) { return 1 / (1 + std::exp(-kBeta * x)); }

std::vector<double> inputs() {
  std::vector<double> x;
  for (int i = -40; i <= 40; ++i) x.push_back(0.25 * i);
  return x;
}
Tensor leaf(Device& device, const std::vector<double>& values) {
  return from_values<double>(device, {int64_t(values.size())}, values).set_requires_grad();
}

TEST(AddingAnOp, GivesTheValuesOfItsDefinition) {
  const Ref<Device> cpu = open_cpu(Mode::real);
  const std::vector<double> x = inputs(), y = softplus(leaf(*cpu, x), kBeta).to_vector();
  // Each side takes fewer than ten roundings of values of at most 1 + beta |x|.
  for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(y[i], reference(x[i]), 10 * epsilon(DType::f64) * (1 + kBeta * std::abs(x[i]))) << x[i];
  const std::vector<double> narrow = softplus(cast(leaf(*cpu, x), DType::f32), kBeta).to_vector();
  for (size_t i = 0; i < x.size(); ++i)
    EXPECT_NEAR(narrow[i], reference(x[i]), 10 * epsilon(DType::f32) * (1 + kBeta * std::abs(x[i]))) << x[i];
  EXPECT_EQ(softplus(full(*cpu, {{1}, DType::f32}, 1e4)).item(), 1e4);
}

TEST(AddingAnOp, HasTheGradientOfFiniteDifferences) {
  const Ref<Device> cpu = open_cpu(Mode::real);
  const std::vector<double> x = inputs();
  const Tensor at = leaf(*cpu, x);
  backward(sum(softplus(at, kBeta)));
  const std::vector<double> gradient = at.grad().to_vector();
  // Central differences: h^2 / 6 of the third derivative, which is below beta^2 / 4, and two roundings of y over 2 h.
  const double h = 1e-5;
  for (size_t i = 0; i < x.size(); ++i) {
    const double difference = (reference(x[i] + h) - reference(x[i] - h)) / (2 * h);
    const double tolerance = h * h * kBeta * kBeta / 24 + 10 * epsilon(DType::f64) * (1 + kBeta * std::abs(x[i])) / h;
    EXPECT_NEAR(gradient[i], difference, tolerance) << x[i];
  }
}

TEST(AddingAnOp, HasASecondDerivative) {
  const Ref<Device> cpu = open_cpu(Mode::real);
  const std::vector<double> x = inputs();
  const Tensor at = leaf(*cpu, x);
  const Tensor gradient = grad(sum(softplus(at, kBeta)), {at}, {}, {.create_graph = true})[0];
  const std::vector<double> second = grad(sum(square(gradient)), {at})[0].to_vector();  // of the sum of squared slopes: 2 s s'
  for (size_t i = 0; i < x.size(); ++i) {
    const double s = slope(x[i]);
    EXPECT_NEAR(second[i], 2 * s * kBeta * s * (1 - s), 32 * epsilon(DType::f64) * (1 + kBeta * std::abs(x[i]))) << x[i];
  }
}

// A step whose outcome depends on memory behaviour: reuse, kept tensors, and what backward releases.
Tensor step(Device& device) {
  const Tensor w = ones(device, {{64, 32}, DType::f32}).set_requires_grad();
  const Tensor x = ones(device, {{7, 32}, DType::f32});
  backward(sum(softplus(linear(x, w), 2)));
  return w.grad();
}

TEST(AddingAnOp, LeavesTheSameTraceOnMeta) {
  const Ref<Device> cpu = open_cpu(Mode::real), meta = open_cpu(Mode::meta);
  cpu->allocator().record_events(true);
  meta->allocator().record_events(true);
  Meter real_work, planned_work;
  {
    const MeterScope scope(real_work);
    step(*cpu);
  }
  {
    const MeterScope scope(planned_work);
    step(*meta);
  }
  EXPECT_EQ(cpu->allocator().trace_hash(), meta->allocator().trace_hash());
  EXPECT_EQ(cpu->allocator().ledger().peak, meta->allocator().ledger().peak);
  EXPECT_EQ(real_work.total(), planned_work.total());
  int named = 0;
  for (const AllocationEvent& e : meta->allocator().events()) named += e.is_alloc && std::string(e.op) == "softplus";
  EXPECT_EQ(named, 1);
}

TEST(AddingAnOp, GivesTheSameBitsOnAnyNumberOfThreads) {
  const Ref<Device> cpu = open_cpu(Mode::real);
  const Tensor x = empty(*cpu, {{3 * kElementsPerTask + 17}, DType::f32});
  fill_normal_(x, 1);
  const int threads = thread_count();
  set_thread_count(1);
  const std::vector<double> one = softplus(x, kBeta).to_vector();
  set_thread_count(4);
  const std::vector<double> four = softplus(x, kBeta).to_vector();
  set_thread_count(threads);
  EXPECT_EQ(one, four);
}

TEST(AddingAnOp, TakesItsInputsMemoryOnlyWhenNobodyNeedsIt) {
  const Ref<Device> cpu = open_cpu(Mode::real);
  Tensor x = ones(*cpu, {{1000}, DType::f32});
  const void* storage = x.raw();
  const Tensor held = x;
  const Tensor apart = softplus(x);
  EXPECT_NE(apart.raw(), storage) << "x is still held";
  x = ones(*cpu, {{1000}, DType::f32});
  storage = x.raw();
  EXPECT_EQ(softplus(std::move(x)).raw(), storage) << "nobody holds x";
  Tensor wanted = affine(ones(*cpu, {{1000}, DType::f32}).set_requires_grad(), 2);
  storage = wanted.raw();
  EXPECT_NE(softplus(std::move(wanted)).raw(), storage) << "backward needs x";
}

TEST(AddingAnOp, RefusesInOneLineThatNamesTheOperationAndItsInputs) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  const auto message = [](auto f) -> std::string {
    try {
      f();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(message([&] { softplus(empty(*meta, {{3}, DType::i32})); }), "softplus: wants f32 or f64, got i32  (inputs: i32[3])");
  EXPECT_EQ(message([&] { softplus(empty(*meta, {{3}, DType::f32}), 0); }), "softplus: beta must be above 0, got 0  (inputs: f32[3])");
}
}  // namespace softplus_example
