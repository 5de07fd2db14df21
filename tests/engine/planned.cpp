// A planned step gives the bits of the same step run eagerly, in a region of exactly the planned size, and says where it leaves its plan.
#include "reckon/engine/planned.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "reckon/backend/cpu/device.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/ops/ops.h"

namespace reckon {
namespace {
using testing::HasSubstr;

// Two layers with gradient slots: loss and gradients of a batch of any length.
struct Net {
  explicit Net(Device& device) {
    const CategoryScope category(Category::parameter);
    for (int i = 0; i < 2; ++i) {
      w.push_back(affine(ones(device, {{16, 16}, DType::f32}), 0.1 + i));
      w.back().set_requires_grad();
      slots.push_back(zeros(device, {{16, 16}, DType::f32}));
      w.back().set_grad_slot(slots.back());
    }
  }
  Tensors step(const Tensors& in) const {
    for (Tensor parameter : w) parameter.zero_grad();
    const Tensor hidden = gelu(linear(in[0], w[0]));
    const Tensor loss = mean(mul(linear(hidden, w[1]), in[0]));
    backward(loss);
    return {loss.detached()};
  }
  Tensors w, slots;
};

Tensor batch(Device& device, int64_t rows) { return affine(ones(device, {{rows, 16}, DType::f32}), 0.25); }

std::string error_of(auto f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Planned, GivesTheBitsOfTheEagerStepForEveryLength) {
  const Ref<Device> device = open_cpu(Mode::real);
  const Net net(*device), eager(*device);
  PlannedStep step = planned(*device, [&](const Tensors& in) { return net.step(in); });
  for (const int64_t rows : {33, 7, 33, 1, 64, 7}) {
    const Tensor x = batch(*device, rows);
    const double loss = step({x})[0].item();
    EXPECT_EQ(loss, eager.step({x})[0].item()) << rows;
    for (int i = 0; i < 2; ++i) EXPECT_EQ(net.w[size_t(i)].grad().to_vector(), eager.w[size_t(i)].grad().to_vector());
  }
  EXPECT_EQ(step.plans(), 4u);
  EXPECT_EQ(step.region_bytes(), step.plan({batch(*device, 64)}).placement.bytes);
}

TEST(Planned, ARehearsalLeavesNoTrace) {
  const Ref<Device> device = open_cpu(Mode::real);
  const Net net(*device);
  const Tensor x = batch(*device, 5);
  net.step({x});  // fills the slots
  const std::vector<double> before = net.w[0].grad().to_vector();
  const std::string hash = device->allocator().trace_hash();
  const Ledger ledger = device->allocator().ledger();
  const DryRun run = dry_run(*device, [&](const Tensors& in) { return net.step(in); }, {x});
  EXPECT_EQ(device->allocator().trace_hash(), hash);
  EXPECT_EQ(device->allocator().ledger().live, ledger.live);
  EXPECT_EQ(device->allocator().ledger().allocations, ledger.allocations);
  EXPECT_EQ(device->allocator().ledger().extent, ledger.extent);
  ASSERT_TRUE(net.w[0].grad().defined());
  EXPECT_EQ(net.w[0].grad().to_vector(), before);
  EXPECT_GT(run.flops.matmul, 0);
  EXPECT_EQ(run.calls.size(),
            size_t(std::count_if(run.calls.begin(), run.calls.end(), [](const CallRecord& c) { return c.op != nullptr; })));
  EXPECT_GT(run.step_peak, 0);
}

// The gradient of a checkpointed segment's input arrives at a copy of it, which the rehearsal held to its end: "leaves ... behind".
TEST(Planned, ASegmentsInputIsLetGo) {
  const Ref<Device> device = open_cpu(Mode::real);
  const Net net(*device), eager(*device);
  const auto body = [](const Net& n, const Tensors& in) -> Tensors {
    for (Tensor parameter : n.w) parameter.zero_grad();
    const auto segment = [&](const Tensors& x) { return mul(gelu(linear(x[0], n.w[1])), x[0]); };
    const Tensor loss = mean(checkpoint(segment, {linear(in[0], n.w[0])}));
    backward(loss);
    return {loss.detached()};
  };
  PlannedStep step = planned(*device, [&](const Tensors& in) { return body(net, in); });
  const Tensor x = batch(*device, 9);
  EXPECT_EQ(step({x})[0].item(), body(eager, {x})[0].item());
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(net.w[i].grad().to_vector(), eager.w[i].grad().to_vector());
}

TEST(Planned, MetaAndRealPlansAgree) {
  const Ref<Device> real = open_cpu(Mode::real), meta = open_cpu(Mode::meta);
  const Net a(*real), b(*meta);
  const DryRun on_real = dry_run(*real, [&](const Tensors& in) { return a.step(in); }, {batch(*real, 9)});
  const DryRun on_meta = dry_run(*meta, [&](const Tensors& in) { return b.step(in); }, {batch(*meta, 9)});
  ASSERT_EQ(on_real.events.size(), on_meta.events.size());
  for (size_t i = 0; i < on_real.events.size(); ++i) EXPECT_EQ(difference(on_real.events[i], on_meta.events[i]), "");
  EXPECT_EQ(on_real.placement.bytes, on_meta.placement.bytes);
  EXPECT_EQ(on_real.flops, on_meta.flops);
}

TEST(Planned, AShorterBatchFitsIntoTheRegionOfALonger) {
  const Ref<Device> device = open_cpu(Mode::real);
  const Net net(*device);
  PlannedStep step = planned(*device, [&](const Tensors& in) { return net.step(in); });
  step({batch(*device, 100)});
  const int64_t region = step.region_bytes();
  for (int64_t rows = 1; rows < 100; ++rows) step.plan({batch(*device, rows)});
  EXPECT_EQ(step.region_bytes(), region);
}

TEST(Planned, RefusesBeforeItStartsWhatIsOverTheBudget) {
  const Ref<Device> device = open_cpu(Mode::real);
  const Net net(*device);
  const Tensor shorter = batch(*device, 8), longer = batch(*device, 4096);
  int runs = 0;
  PlannedStep step = planned(*device, [&](const Tensors& in) {
    runs += !in[0].device().is_meta();
    return net.step(in);
  });
  step({shorter});
  device->allocator().set_budget(device->allocator().ledger().extent);
  try {
    step({longer});
    FAIL() << "over the budget, and it ran";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 3);
    EXPECT_THAT(error.what(), HasSubstr("budget"));
  }
  EXPECT_EQ(runs, 1);
  step({shorter});  // the device is as before
  EXPECT_EQ(runs, 2);
}

// A larger region takes the place of the smaller one, so the smaller one does not count against the budget.
TEST(Planned, FitsExactlyIntoWhatItTakesAndAnythingLessIsRefused) {
  const auto run_both = [](int64_t budget) {
    const Ref<Device> device = open_cpu(Mode::real);
    const Net net(*device);
    const Tensor shorter = batch(*device, 8), longer = batch(*device, 512);
    PlannedStep step = planned(*device, [&](const Tensors& in) { return net.step(in); });
    step({shorter});
    device->allocator().set_budget(budget);
    try {
      step({longer});
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), 3) << error.what();
      step({shorter});  // as if nothing had been asked
      return int64_t(-1);
    }
    return device->allocator().ledger().extent;
  };
  const int64_t needed = run_both(0);
  EXPECT_EQ(run_both(needed), needed);
  EXPECT_EQ(run_both(needed - 1), -1);
}

TEST(Planned, NamesTheFirstDifference) {
  const Ref<Device> device = open_cpu(Mode::real);
  bool other = false;
  PlannedStep step = planned(*device, [&](const Tensors& in) -> Tensors { return {other ? relu(in[0]) : gelu(in[0])}; });
  const Tensor x = batch(*device, 3);
  step({x});
  other = true;
  const std::string error = error_of([&] { step({x}); });
  EXPECT_THAT(error, HasSubstr("planned alloc #0 192 B temporary gelu"));
  EXPECT_THAT(error, HasSubstr("got alloc #0 192 B temporary relu"));
  other = false;
  EXPECT_EQ(step({x})[0].numel(), 48);  // an error ends the call, not the step
}

TEST(Planned, WantsResultsToBeLetGoBeforeTheNextCall) {
  const Ref<Device> device = open_cpu(Mode::real);
  PlannedStep step = planned(*device, [](const Tensors& in) -> Tensors { return {gelu(in[0])}; });
  const Tensor x = batch(*device, 3);
  {
    const Tensors held = step({x});
    EXPECT_THAT(error_of([&] { step({x}); }), HasSubstr("still held"));
  }
  step({x});
}

TEST(Planned, RefusesAStepThatLeavesTensorsBehind) {
  const Ref<Device> device = open_cpu(Mode::real);
  Tensor kept;
  PlannedStep keeps = planned(*device, [&](const Tensors& in) -> Tensors {
    kept = gelu(in[0]);
    return {};
  });
  EXPECT_THAT(error_of([&] { keeps({batch(*device, 3)}); }), HasSubstr("leaves 192 B temporary of gelu behind"));
  kept = {};
  Tensor w = ones(*device, {{16, 16}, DType::f32});
  w.set_requires_grad();
  PlannedStep no_slot = planned(*device, [&](const Tensors& in) -> Tensors {
    backward(mean(linear(in[0], w)));
    return {};
  });
  EXPECT_THAT(error_of([&] { no_slot({batch(*device, 3)}); }), HasSubstr("a gradient has a slot"));
  EXPECT_FALSE(w.grad().defined());
}
}  // namespace
}  // namespace reckon
