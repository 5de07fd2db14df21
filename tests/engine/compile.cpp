// A compiled step gives the bits of the eager step, in exactly the planned memory, which lacks what only a group reads.
#include "reckon/base/parallel.h"
#include "reckon/ops/rows.h"
#include "tests/engine/compile_support.h"

namespace reckon {
namespace {
// GELU, SwiGLU and a softmax of primitives.
Tensor gelu_of_parts(const Tensor& x) {
  const Tensor inner = affine(add(x, affine(mul(square(x), x), 0.044715)), 0.7978845608);
  return mul(affine(x, 0.5), affine(tanh(inner), 1, 1));
}
Tensor swiglu_of_parts(const Tensor& gate, const Tensor& up) { return mul(mul(gate, sigmoid(gate)), up); }
Tensor softmax_of_parts(const Tensor& x) {
  const Tensor e = exp(sub(x, max(x, {-1}, true)));
  return div(e, sum(e, {-1}, true));
}

// Forward and backward; everything between the products is element-wise.
struct Net {
  explicit Net(Device& device) : w(leaves(device, {{24, 16}, {24, 16}, {24, 24}, {24}, {16, 24}})) {}
  Tensors step(const Tensors& in) const {
    for (Tensor t : w) t.zero_grad();
    const Tensor hidden = swiglu_of_parts(linear(in[0], w[0]), linear(in[0], w[1]));
    const Tensor y = gelu_of_parts(add(linear(hidden, w[2]), w[3]));
    const Tensor p = softmax_of_parts(linear(y, w[4]));
    const Tensor loss = mean(square(sub(p, in[0])));
    backward(loss);
    return {loss.detached(), p.detached()};
  }
  Tensors w;
};

using Compile = OnCpu;

TEST_F(Compile, GivesTheBitsOfTheEagerStepForEveryLength) {
  const Net net(*device_), eager(*device_);
  CompiledStep step = compile(*device_, [&](const Tensors& in) { return net.step(in); });
  for (const int64_t rows : {33, 7, 33, 1, 300, 7}) {
    const Tensor x = normal(*device_, {rows, 16}, 5);
    const std::vector<Bytes> got = bytes_of(step({x})), want = bytes_of(eager.step({x}));
    EXPECT_EQ(got, want) << rows;
    EXPECT_EQ(gradients(net.w), gradients(eager.w)) << rows;
    EXPECT_FALSE(step.plan({x}).groups.empty());
  }
  EXPECT_EQ(step.plans(), 4u);
  EXPECT_EQ(step.fallbacks(), 0) << step.last_difference();
}

TEST_F(Compile, TakesExactlyWhatWasPlannedOnBothDevices) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  const Net net(*device_), on_meta(*meta);
  CompiledStep step = compile(*device_, [&](const Tensors& in) { return net.step(in); });
  CompiledStep planned_only = compile(*meta, [&](const Tensors& in) { return on_meta.step(in); });
  for (const int64_t rows : {5, 129}) {
    const Tensor x = normal(*device_, {rows, 16}, 5);
    expect_planned(*device_, step, {x});
    const CompiledPlan &a = step.plan({x}), &b = planned_only.plan({empty(*meta, x.spec())});
    ASSERT_EQ(a.run.events.size(), b.run.events.size());
    for (size_t i = 0; i < a.run.events.size(); ++i) EXPECT_EQ(difference(a.run.events[i], b.run.events[i]), "");
    EXPECT_EQ(a.run.placement.bytes, b.run.placement.bytes);
    EXPECT_EQ(a.run.flops, a.unfused.flops) << "the work of a group is that of its calls";
    EXPECT_EQ(to_string(a), to_string(b));
  }
}

// A chain without a graph: all it takes is its result, and tiles.
TEST_F(Compile, WhatOnlyAGroupReadsHasNoMemory) {
  const auto chain = [](const Tensors& in) -> Tensors { return {mul(tanh(add(exp(in[0]), in[1])), in[0])}; };
  CompiledStep step = compile(*device_, chain);
  const Tensor x = normal(*device_, {300, 1000}, 1), y = normal(*device_, {300, 1000}, 2);
  const CompiledPlan& plan = step.plan({x, y});
  const int64_t block = x.spec().bytes();
  ASSERT_EQ(plan.groups.size(), 1u);
  EXPECT_EQ(plan.groups[0].ops.size(), 4u);
  EXPECT_EQ(plan.groups[0].unstored, 3 * block);
  EXPECT_EQ(plan.groups[0].traffic_before, 10 * block);
  EXPECT_EQ(plan.groups[0].traffic_after, 3 * block);
  EXPECT_EQ(plan.unfused.step_peak, 3 * block);  // exp's result, which add overwrites, tanh's and mul's
  EXPECT_EQ(plan.run.step_peak, block + workspace_of(plan.run));
  EXPECT_LE(workspace_of(plan.run), 256 << 10);
  expect_planned(*device_, step, {x, y});
  EXPECT_EQ(bytes_of(step({x, y})), bytes_of(chain({x, y})));
}

// tanh keeps its result for backward, and the product its factors; what lies before has no memory.
TEST_F(Compile, WhatBackwardKeepsStays) {
  const Tensors w = leaves(*device_, {{64, 64}});
  CompiledStep step = compile(*device_, [&](const Tensors& in) -> Tensors {
    Tensor(w[0]).zero_grad();
    const Tensor y = tanh(affine(affine(mul(in[0], w[0]), 0.5, 0.25), 2));
    const Tensor loss = sum(matmul(y, y));
    backward(loss);
    return {loss.detached()};
  });
  const Tensor x = normal(*device_, {64, 64}, 1);
  const CompiledPlan& plan = step.plan({x});
  ASSERT_GE(plan.groups.size(), 1u);
  const FusedGroup& forward = plan.groups[0];
  EXPECT_EQ(forward.ops.size(), 4u) << to_string(plan);
  EXPECT_EQ(forward.unstored, 3 * x.spec().bytes());
  expect_planned(*device_, step, {x});
}

// Where forward and backward meet without a product between them, they are one pass, and tanh's result is gone when it runs.
TEST_F(Compile, AWholeTrainingStepMayBeOneGroup) {
  const Tensors w = leaves(*device_, {{300, 300}}), eager = leaves(*device_, {{300, 300}});
  const auto body = [](const Tensors& weights, const Tensor& x) -> Tensors {
    Tensor(weights[0]).zero_grad();
    const Tensor loss = sum(affine(tanh(affine(mul(x, weights[0]), 0.5, 0.25)), 3));
    backward(loss);
    return {loss.detached()};
  };
  CompiledStep step = compile(*device_, [&](const Tensors& in) { return body(w, in[0]); });
  const Tensor x = normal(*device_, {300, 300}, 1);
  const CompiledPlan& plan = step.plan({x});
  ASSERT_EQ(plan.groups.size(), 1u) << to_string(plan);
  EXPECT_EQ(plan.run.step_peak, round_block(x.spec().bytes()) + 128 + workspace_of(plan.run));  // the gradient; loss and seed
  EXPECT_EQ(bytes_of(step({x})), bytes_of(body(eager, x)));
  EXPECT_EQ(gradients(w), gradients(eager));
  expect_planned(*device_, step, {x});
}

TEST_F(Compile, WhatTheCallerHoldsStays) {
  const auto body = [](const Tensors& in) -> Tensors {
    const Tensor a = exp(in[0]), b = affine(a, 2), c = tanh(b);
    return {matmul(c, c)};
  };
  CompiledStep step = compile(*device_, body);
  const Tensor x = normal(*device_, {40, 40}, 1);
  const CompiledPlan& plan = step.plan({x});
  ASSERT_EQ(plan.groups.size(), 1u);
  EXPECT_EQ(plan.groups[0].unstored, 0) << "all three are variables that live when the group runs";
  EXPECT_EQ(bytes_of(step({x})), bytes_of(body({x})));
  EXPECT_EQ(step.fallbacks(), 0);
}

// A result may take the place of an input that nobody needs any more, as without fusion.
TEST_F(Compile, ReusesWhatDiesInTheGroup) {
  const auto body = [](const Tensors& in) -> Tensors {
    Tensor h = matmul(in[0], in[0]);
    return {affine(affine(affine(std::move(h), 2), 0.5, 1), 3)};
  };
  CompiledStep step = compile(*device_, body);
  const Tensor x = normal(*device_, {100, 100}, 1);
  const CompiledPlan& plan = step.plan({x});
  ASSERT_EQ(plan.groups.size(), 1u);
  EXPECT_LE(plan.run.step_peak, plan.unfused.step_peak + workspace_of(plan.run));
  EXPECT_EQ(bytes_of(step({x})), bytes_of(body({x})));
  expect_planned(*device_, step, {x});
}

// Nobody holds gelu's input when gelu is called, but its node will keep it for backward.
TEST_F(Compile, DoesNotOverwriteWhatBackwardWillKeep) {
  const auto body = [](const Tensors& w, const Tensor& x) -> Tensors {
    for (Tensor t : w) t.zero_grad();
    Tensor h = linear(x, w[0]);
    const Tensor y = call(op::gelu, tensors(std::move(h)))[0];
    const Tensor loss = sum(matmul(y, affine(y, 2)));
    backward(loss);
    return {loss.detached()};
  };
  const Tensors w = leaves(*device_, {{32, 32}}), eager = leaves(*device_, {{32, 32}});
  CompiledStep step = compile(*device_, [&](const Tensors& in) { return body(w, in[0]); });
  const Tensor x = normal(*device_, {32, 32}, 1);
  EXPECT_EQ(bytes_of(step({x})), bytes_of(body(eager, x)));
  EXPECT_EQ(gradients(w), gradients(eager));
  EXPECT_FALSE(step.plan({x}).groups.empty());
}

// Long and short rows, many and few of them, and one sum of everything: the order of the sum's own kernel.
TEST_F(Compile, TrailingSumsKeepTheirOrder) {
  struct Case {
    Shape shape;
    std::initializer_list<int> axes;
  };
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16})
    for (const Case& c : {Case{{3, 5}, {-1}},
                          {{2500, 33}, {-1}},
                          {{7, 5000}, {-1}},
                          {{2100, 4099}, {-1}},
                          {{70001}, {}},
                          {{5, 7, 300}, {}},
                          {{6, 40, 90}, {1, 2}},
                          {{1, 4097}, {-1}},
                          {{9, 1}, {-1}}}) {
      if (dtype != DType::f32 && c.shape.numel() > 1000000) continue;
      const auto body = [&](const Tensors& in) -> Tensors {
        const Tensor t = affine(square(in[0]), 0.5, 0.1);
        return {sum(t, c.axes), sum(exp(affine(t, -1)), c.axes)};
      };
      CompiledStep step = compile(*device_, body);
      const Tensor x = normal(*device_, c.shape, 3, dtype);
      EXPECT_FALSE(step.plan({x}).groups.empty());
      EXPECT_EQ(bytes_of(step({x})), bytes_of(body({x}))) << to_string(x);
      expect_planned(*device_, step, {x});
    }
}

TEST_F(Compile, TheNumberOfThreadsChangesNoBit) {
  const auto body = [](const Tensors& in) -> Tensors {
    const Tensor t = gelu_of_parts(in[0]);
    return {mul(t, in[1]), sum(t, {-1}), mean(mul(t, t))};
  };
  CompiledStep step = compile(*device_, body);
  const Tensor x = normal(*device_, {311, 517}, 1), row = normal(*device_, {517}, 2);
  const int threads = thread_count();
  std::vector<std::vector<Bytes>> got;
  for (const int n : {1, 2, 5}) {
    set_thread_count(n);
    got.push_back(bytes_of(step({x, row})));
  }
  set_thread_count(threads);
  EXPECT_EQ(got[0], got[1]);
  EXPECT_EQ(got[0], got[2]);
  EXPECT_EQ(got[0], bytes_of(body({x, row})));
}

// Above this many bytes results go past the caches.
TEST_F(Compile, StreamedResultsAreTheSame) {
  const auto body = [](const Tensors& in) -> Tensors { return {mul(affine(exp(in[0]), 2, 1), in[0])}; };
  CompiledStep step = compile(*device_, body);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor x = normal(*device_, {9'000'003}, 1, dtype);
    EXPECT_EQ(bytes_of(step({x})), bytes_of(body({x})));
    EXPECT_EQ(step.fallbacks(), 0);
  }
}

// Results that are made again in backward are made in groups again; halves of packed rows are inputs with gaps.
TEST_F(Compile, CheckpointsAndRecomputedResults) {
  const auto body = [](const Tensors& w, const Tensor& x) -> Tensors {
    for (Tensor t : w) t.zero_grad();
    const Tensor packed = checkpoint([&](const Tensors& in) { return gelu_of_parts(add(linear(in[0], w[0]), w[1])); }, {mul(x, w[3])});
    Tensor hidden;
    {
      const Recomputed scope;
      hidden = swiglu_of_parts(slice(packed, -1, 0, 40), slice(packed, -1, 40, 80));
    }
    const Tensor loss = mean(square(linear(hidden, w[2])));
    backward(loss);
    return {loss.detached()};
  };
  const std::vector<Shape> shapes = {{80, 16}, {80}, {16, 40}, {16}};
  const Tensors w = leaves(*device_, shapes), eager = leaves(*device_, shapes);
  CompiledStep step = compile(*device_, [&](const Tensors& in) { return body(w, in[0]); });
  const Tensor x = normal(*device_, {700, 16}, 1);
  EXPECT_EQ(bytes_of(step({x})), bytes_of(body(eager, x)));
  EXPECT_EQ(gradients(w), gradients(eager));
  EXPECT_EQ(step.fallbacks(), 0) << step.last_difference();
  EXPECT_GE(step.plan({x}).groups.size(), 4u) << to_string(step.plan({x}));
  expect_planned(*device_, step, {x});
}

// A shorter batch must fit where a longer one does.
TEST(CompilePlan, ScratchNeverShrinks) {
  const auto chain = [](const Tensors& in) -> Tensors { return {tanh(affine(in[0], 2))}; };
  const auto with_row = [](const Tensors& in) -> Tensors { return {mul(tanh(add(in[0], in[1])), in[1])}; };
  const auto with_sums = [](const Tensors& in) -> Tensors {
    const Tensor t = mul(tanh(in[0]), in[1]);
    return {sum(t, {-1}), sum(square(t), {-1}), where(less(t, in[0]), t, in[1])};
  };
  for (const auto& body : std::vector<Tensors (*)(const Tensors&)>{chain, with_row, with_sums})
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16}) {
      const Ref<Device> meta = open_cpu(Mode::meta);
      CompiledStep step = compile(*meta, body);
      int64_t last = 0;
      for (int64_t rows = 1; rows < 200'000; rows += rows / 3 + 1) {
        const int64_t scratch = workspace_of(step.plan({empty(*meta, {{rows, 100}, dtype}), empty(*meta, {{100}, dtype})}).run);
        EXPECT_GE(scratch, last) << rows;
        last = scratch;
      }
      EXPECT_GT(last, 0);
    }
}

// Every element-wise row, in every dtype that it takes, between others of a group.
TEST_F(Compile, EveryElementwiseRowKeepsItsBits) {
  const std::vector<const OpDef*> unary = {&op::affine,  &op::cast,  &op::contiguous, &op::neg,        &op::exp, &op::log,
                                           &op::sqrt,    &op::rsqrt, &op::square,     &op::reciprocal, &op::abs, &op::tanh,
                                           &op::sigmoid, &op::relu,  &op::gelu,       &op::silu};
  int cases = 0;
  for (const OpDef* row : all_ops()) {
    if (!row->traits.pointwise) continue;
    const size_t arity = row == &op::where ? 3 : std::count(unary.begin(), unary.end(), row) ? 1 : 2;
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16, DType::i32, DType::i64}) {
      const Params params = row == &op::affine ? Params(AffineParams{1.5, -0.25}) : Params(CastParams{DType(int(dtype) ^ 1)});
      const auto body = [&](const Tensors& in) -> Tensors {
        const Tensor a = mul(in[0], in[1]), b = sub(in[0], in[2]);
        Tensors args = {a, b};
        if (arity == 3) args.insert(args.begin(), less(b, a));
        args.resize(arity);
        const Tensor y = call(*row, args, params)[0];
        return {where(equal(y, y), a, b), y};
      };
      const Tensor x = cast(affine(normal(*device_, {33, 70}, 1), 9), dtype), row_vector = cast(normal(*device_, {70}, 2), dtype),
                   one = cast(normal(*device_, {1, 1}, 3), dtype);
      std::vector<Bytes> want;
      try {
        want = bytes_of(body({x, row_vector, one}));
      } catch (const Error&) {
        EXPECT_FALSE(is_float(dtype)) << row->name;  // integers have no transcendental functions and no gradients
        continue;
      }
      CompiledStep step = compile(*device_, body);
      EXPECT_EQ(bytes_of(step({x, row_vector, one})), want) << row->name << " " << name_of(dtype);
      EXPECT_EQ(step.fallbacks(), 0) << step.last_difference();
      EXPECT_EQ(step.plan({x, row_vector, one}).groups.size(), 1u) << row->name;
      ++cases;
    }
  }
  EXPECT_GT(cases, 120);
}

// Values whose exponential and logarithm depend on how accurate the function is before it is rounded.
TEST_F(Compile, OneElementKeepsItsBits) {
  for (const Shape& shape : {Shape{}, Shape{1}, Shape{1, 1}}) {
    const auto of_exp = [](const Tensors& in) -> Tensors { return {neg(affine(exp(in[0]), 1, 0))}; };
    const auto of_log = [](const Tensors& in) -> Tensors { return {neg(affine(log(in[0]), 1, 0))}; };
    const auto of = [&](uint16_t bits) {
      bfloat16 value;
      value.bits = bits;
      return full(*device_, {shape, DType::bf16}, double(float(value)));
    };
    CompiledStep exps = compile(*device_, of_exp), logs = compile(*device_, of_log);
    EXPECT_EQ(bytes_of(exps({of(0x3CDD)})), bytes_of(of_exp({of(0x3CDD)}))) << "rank " << shape.rank();
    EXPECT_EQ(bytes_of(logs({of(0x3F35)})), bytes_of(of_log({of(0x3F35)}))) << "rank " << shape.rank();
  }
}
}  // namespace
}  // namespace reckon
