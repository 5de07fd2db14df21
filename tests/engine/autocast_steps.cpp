// Autocast together with what runs a piece of a program twice, or elsewhere: checkpoints, planned and compiled steps, meta, functions,
// packed tensors.
#include <algorithm>
#include <cmath>

#include "reckon/engine/compile.h"
#include "reckon/engine/function.h"
#include "reckon/engine/saved_tensors.h"
#include "reckon/ops/dtypes.h"
#include "tests/engine/autocast_support.h"

namespace reckon {
namespace {

class AutocastSteps : public OnCpu {};

struct Blocks {
  explicit Blocks(Device& d) : x(drawn_leaf(d, {8, 16}, 50)) {
    for (uint64_t i = 0; i < 3; ++i) {
      up.push_back(drawn_leaf(d, {16, 32}, 2 * i));
      down.push_back(drawn_leaf(d, {32, 16}, 2 * i + 1));
    }
  }
  // Inputs and results that are no parameters are used twice by products, and cast twice, in a checkpoint too.
  Tensor loss(bool is_checkpointed) const {
    Tensor h = x;
    for (size_t i = 0; i < 3; ++i) {
      const auto block = [this, i](const Tensors& in) {
        const Tensor gate = matmul(in[0], up[i]), value = gelu(matmul(in[0], up[i])), mixed = mul(softmax(gate), value);
        return add(in[0], add(matmul(mixed, down[i]), matmul(mixed, down[i])));
      };
      h = is_checkpointed ? checkpoint(block, {h}) : block({h});
    }
    return mean(square(h));
  }
  std::vector<Values> gradients() const {
    std::vector<Values> all{x.grad().to_vector()};
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(up[i].grad().dtype(), DType::f32);
      all.push_back(up[i].grad().to_vector());
      all.push_back(down[i].grad().to_vector());
    }
    return all;
  }
  Tensor x;
  Tensors up, down;
};

TEST_F(AutocastSteps, ACheckpointRunsAgainAsItRan) {
  const Blocks plain(*device_), after(*device_), inside(*device_), elsewhere(*device_);
  Tensor loss, other;
  {
    const Autocast guard(DType::bf16);
    const Tensor expected = plain.loss(false);
    loss = after.loss(true);
    other = elsewhere.loss(true);
    EXPECT_EQ(loss.item(), expected.item());
    backward(expected);
    backward(inside.loss(true));
  }
  backward(loss);
  {
    const Autocast guard(DType::f16);
    backward(other);
  }
  EXPECT_EQ(after.gradients(), plain.gradients()) << "after the scope";
  EXPECT_EQ(inside.gradients(), plain.gradients()) << "inside";
  EXPECT_EQ(elsewhere.gradients(), plain.gradients()) << "in another scope";
  // And a segment that ran outside of a scope runs outside again.
  const Blocks wide(*device_), again(*device_);
  backward(wide.loss(false));
  loss = again.loss(true);
  const Autocast guard(DType::bf16);
  backward(loss);
  EXPECT_EQ(again.gradients(), wide.gradients());
}

TEST_F(AutocastSteps, BothRunsOfACheckpointMakeTheSameCasts) {
  const Blocks net(*device_);
  const Autocast guard(DType::bf16);
  Meter meter;
  {
    const MeterScope scope(meter);
    backward(net.loss(true));
  }
  int64_t first = 0, again = 0;
  for (const MeterRow& row : meter.rows())
    if (std::string(row.op) == "cast") (row.recomputed ? again : first) += row.calls;
  // All casts of the forward pass lie in segments: the loss is given f32.
  const int64_t forward = casts_in([&] { net.loss(true); });
  EXPECT_EQ(again, forward);
  EXPECT_GT(first, forward) << "the gradients of the casts are casts";
}

TEST_F(AutocastSteps, GradPassesThroughACheckpoint) {
  const Blocks plain(*device_), net(*device_);
  const auto second = [](const Blocks& b, bool is_checkpointed) {
    Tensor loss;
    {
      const Autocast guard(DType::bf16);
      loss = b.loss(is_checkpointed);
    }
    return sum(square(grad(loss, {b.up[1]}, {}, {.create_graph = true})[0]));
  };
  const Tensor expected = second(plain, false), got = second(net, true);
  EXPECT_EQ(got.item(), expected.item());
  // Contributions of 16 bits meet in another order: a few of them, each off by a rounding of the largest.
  const Values again = grad(got, {net.down[0]})[0].to_vector(), once = grad(expected, {plain.down[0]})[0].to_vector();
  double largest = 0;
  for (const double v : once) largest = std::max(largest, std::abs(v));
  ASSERT_GT(largest, 0);
  for (size_t i = 0; i < once.size(); ++i) EXPECT_NEAR(again[i], once[i], 4 * epsilon(DType::bf16) * largest) << i;
}

std::string hash_of(Mode mode) {
  const Ref<Device> device = open_cpu(mode);
  {
    const TwoLayers net(*device);
    const Blocks blocks(*device);
    const Autocast guard(DType::bf16);
    backward(net.loss());
    backward(blocks.loss(true));
    const Autocast half(DType::f16);
    backward(add(net.loss(), blocks.loss(false)));
    const Autocast off;
    backward(net.loss());
  }
  EXPECT_EQ(device->allocator().ledger().live, 0);
  return device->allocator().trace_hash();
}
TEST_F(AutocastSteps, MetaMakesTheSameTrace) { EXPECT_EQ(hash_of(Mode::meta), hash_of(Mode::real)); }

// Two layers with gradient slots, and a batch.
struct Step {
  explicit Step(Device& device) {
    const CategoryScope category(Category::parameter);
    for (uint64_t i = 0; i < 2; ++i) {
      w.push_back(drawn_leaf(device, {16, 16}, i));
      w.back().set_grad_slot(zeros(device, {{16, 16}, DType::f32}));
    }
  }
  Tensors operator()(const Tensors& in) const {
    for (Tensor t : w) t.zero_grad();
    const Tensor hidden = tanh(linear(gelu(linear(in[0], w[0])), w[0]));
    const Tensor loss = mse_loss(linear(hidden, w[1]), in[0]);
    backward(loss);
    return {loss.detached()};
  }
  std::vector<Values> gradients() const { return {w[0].grad().to_vector(), w[1].grad().to_vector()}; }
  Tensors w;
};

template <class Runner>
void expect_one_plan_a_type(Device& device, Runner& step, const Step& net, const Step& eager) {
  const Tensor x = drawn(device, {5, 16}, 9);
  const auto expect_equal = [&] {
    const double loss = step({x})[0].item();
    EXPECT_EQ(loss, eager({x})[0].item());
    EXPECT_EQ(net.gradients(), eager.gradients());
    return loss;
  };
  const double wide = expect_equal();
  double low = 0;
  for (int i = 0; i < 2; ++i) {
    const Autocast guard(DType::bf16);
    // A cast that the scope made before is not the step's: its plan would miss it.
    linear(x, net.w[1]);
    low = expect_equal();
    EXPECT_EQ(expect_equal(), low);
  }
  EXPECT_NE(low, wide);
  {
    const Autocast guard(DType::f16);
    expect_equal();
    const Autocast off;
    EXPECT_EQ(expect_equal(), wide);
  }
  EXPECT_EQ(step.plans(), 3u) << "f32, bf16 and f16";
}

TEST_F(AutocastSteps, APlannedStepHasOnePlanAType) {
  const Step net(*device_), eager(*device_);
  PlannedStep step = planned(*device_, [&](const Tensors& in) { return net(in); });
  expect_one_plan_a_type(*device_, step, net, eager);
}

TEST_F(AutocastSteps, ACompiledStepHasOnePlanAType) {
  const Step net(*device_), eager(*device_);
  CompiledStep step = compile(*device_, [&](const Tensors& in) { return net(in); });
  expect_one_plan_a_type(*device_, step, net, eager);
  EXPECT_EQ(step.fallbacks(), 0) << step.last_difference();
}

TEST_F(AutocastSteps, AScopeInsideOfAPlannedStep) {
  const Step net(*device_), eager(*device_);
  const auto scoped = [](const Step& s) {
    return [&s](const Tensors& in) {
      const Autocast guard(DType::bf16);
      return s(in);
    };
  };
  PlannedStep step = planned(*device_, scoped(net));
  for (const int64_t rows : {7, 3, 7}) {
    const Tensor x = drawn(*device_, {rows, 16}, 9);
    EXPECT_EQ(step({x})[0].item(), scoped(eager)({x})[0].item());
    EXPECT_EQ(net.gradients(), eager.gradients());
  }
  EXPECT_EQ(step.plans(), 2u);
}

TEST_F(AutocastSteps, ADryRunIsTheRun) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  const Step real(*device_), planned_only(*meta);
  const auto run = [](Device& device, const Step& net) {
    const Autocast guard(DType::bf16);
    return dry_run(device, [&](const Tensors& in) { return net(in); }, {drawn(device, {5, 16}, 9)});
  };
  const DryRun a = run(*device_, real), b = run(*meta, planned_only);
  ASSERT_EQ(a.events.size(), b.events.size());
  for (size_t i = 0; i < a.events.size(); ++i) EXPECT_EQ(difference(a.events[i], b.events[i]), "");
  EXPECT_EQ(a.flops, b.flops);
  int64_t casts = 0;
  for (const CallRecord& c : a.calls) casts += std::string(c.op->name) == "cast";
  // Forward: x, w0 once, the input of the second product is bf16, w1; the two sides of the loss are one bf16, one f32.
  // Backward: the gradients of w0 and w1, and of the loss's bf16 side.
  EXPECT_EQ(casts, 4 + 3);
}

// Its rule is given a bf16 dy and an f32 x, as forward saved it.
struct Product {
  static constexpr const char* name = "product";
  Tensor forward(FunctionContext& c, const Tensor& x, const Tensor& w) {
    c.save_for_backward({x, w});
    return matmul(x, w);
  }
  Tensors backward(FunctionContext& c, const Tensor& dy) {
    EXPECT_EQ(is_autocast_enabled(), dy.dtype() == DType::bf16);
    const Tensors saved = c.saved();
    return {matmul(dy, transpose(saved[1])), matmul(transpose(saved[0]), dy)};
  }
};
TEST_F(AutocastSteps, AUsersFunctionDifferentiatesAsItRan) {
  const Tensor x = drawn_leaf(*device_, {3, 4}, 1), w = drawn_leaf(*device_, {4, 5}, 2);
  const Tensor x2 = drawn_leaf(*device_, {3, 4}, 1), w2 = drawn_leaf(*device_, {4, 5}, 2);
  Tensor y, z;
  {
    const Autocast guard(DType::bf16);
    y = apply_function(Product{}, x, w);
    z = matmul(x2, w2);
  }
  EXPECT_EQ(y.dtype(), DType::bf16);
  EXPECT_EQ(y.to_vector(), z.to_vector());
  backward(sum(y));
  backward(sum(z));
  EXPECT_EQ(x.grad().dtype(), DType::f32);
  EXPECT_EQ(x.grad().to_vector(), x2.grad().to_vector());
  EXPECT_EQ(w.grad().to_vector(), w2.grad().to_vector());
  const Autocast guard(DType::bf16);
  const Autocast off;
  backward(sum(apply_function(Product{}, x, w)));  // the rule looks that nothing is cast
}

TEST_F(AutocastSteps, RecomputedResultsAreMadeAsTheyWere) {
  const TwoLayers plain(*device_), net(*device_);
  Tensor loss;
  {
    const Autocast guard(DType::bf16);
    backward(plain.loss());
    const Recomputed scope;
    loss = net.loss();
  }
  const Autocast guard(DType::f16);
  backward(loss);
  EXPECT_EQ(net.gradients(), plain.gradients());
}

// pack and unpack see the low types, and compute as if there were no scope.
TEST_F(AutocastSteps, PackedTensorsAreTheCastOnes) {
  const TwoLayers plain(*device_), net(*device_);
  std::vector<DType> seen;
  Tensor loss;
  const Autocast guard(DType::bf16);
  backward(plain.loss());
  {
    const auto pack = [&](const Tensor& t) {
      seen.push_back(t.dtype());
      EXPECT_EQ(matmul(net.w1, transpose(net.w1)).dtype(), DType::f32);
      return t;
    };
    const SavedTensorHooks scope(pack, [](const Tensor& t) {
      EXPECT_FALSE(is_autocast_enabled());
      return t;
    });
    loss = net.loss();
  }
  backward(loss);
  EXPECT_EQ(net.gradients(), plain.gradients());
  EXPECT_GE(std::count(seen.begin(), seen.end(), DType::bf16), 5) << "x, w1, the activation's input, the norm's result, w2";
}

// What steps of an optimizer write is written as it is.
TEST_F(AutocastSteps, RowsThatWriteAreNeverCast) {
  static const OpDef shift{-1,
                           "shift",
                           [](Plan&) {},
                           nullptr,
                           {},
                           {.mutates = 0b1,
                            .own_kernel = [](const KernelArgs& k) { k.in[0].data<float>()[0] += k.in[1].data<float>()[0]; },
                            .autocast = AutocastPolicy::low}};
  const Tensor x = full(*device_, {{1}, DType::f32}, 2), one = full(*device_, {{1}, DType::f32}, 1);
  const Autocast guard(DType::bf16);
  EXPECT_EQ(casts_in([&] { call(shift, tensors(x, one)); }), 0);
  EXPECT_EQ(x.item(), 3);
}
TEST_F(AutocastSteps, AUsersRowHasAPolicy) {
  static const OpDef twice{-1,
                           "twice",
                           [](Plan& p) { p.output(p.in[0]); },
                           nullptr,
                           {},
                           {.own_kernel = [](const KernelArgs& k) { k.out[0].data<float>()[0] = 2 * k.in[0].data<float>()[0]; },
                            .autocast = AutocastPolicy::wide}};
  const Tensor x = full(*device_, {{1}, DType::bf16}, 3);
  const Autocast guard(DType::f16);
  const Tensor y = call(twice, tensors(x))[0];
  EXPECT_EQ(y.dtype(), DType::f32);
  EXPECT_EQ(y.item(), 6);
}
}  // namespace
}  // namespace reckon
