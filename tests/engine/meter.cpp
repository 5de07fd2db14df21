// The meter's records of single calls: what the plans said, in order, the same on meta; they sum to the meter's rows.
#include "tests/engine/support.h"

namespace reckon {
namespace {
class Records : public OnCpu {
 protected:
  // y = sum(gelu(x w)) and its gradient of w; three launches forward, views left out.
  static void work(Device& device, Meter& meter) {
    const MeterScope metered(meter);
    const Tensor x = full(device, {{6, 8}, DType::f32}, 0.5), w = Tensor(full(device, {{8, 4}, DType::f32}, 0.25)).set_requires_grad();
    const PhaseScope phase(device, Phase::forward);
    const ModuleScope module("net");
    const Tensor y = gelu(matmul(x, w));
    const PhaseScope back(device, Phase::backward);
    const Tensor loss = sum(reshape(y, {24}));
    backward(loss);
  }
};

TEST_F(Records, NothingIsKeptUnlessAsked) {
  Meter meter;
  work(*device_, meter);
  EXPECT_TRUE(meter.calls().empty());
  EXPECT_FALSE(meter.rows().empty());
}

TEST_F(Records, SumToTheRowsAndSayWhatThePlansSaid) {
  Meter meter;
  meter.record_calls(true);
  work(*device_, meter);
  Flops sum;
  double end = 0, seconds = 0;
  for (const CallRecord& c : meter.calls()) {
    sum += c.flops;
    EXPECT_GE(c.start, end) << c.op->name;  // one stream: calls never overlap
    end = c.start + c.seconds;
    seconds += c.seconds;
    EXPECT_EQ(c.op->traits.view, nullptr);
  }
  EXPECT_EQ(sum, meter.total());
  EXPECT_GT(seconds, 0);
  EXPECT_LE(end, meter.clock());
  double in_rows = 0;
  for (const MeterRow& row : meter.rows()) in_rows += row.seconds;
  EXPECT_DOUBLE_EQ(in_rows, seconds);

  const CallRecord& product = meter.calls()[2];
  EXPECT_STREQ(product.op->name, "matmul");
  EXPECT_EQ(product.in, (std::vector<TensorSpec>{{{6, 8}, DType::f32}, {{8, 4}, DType::f32}}));
  EXPECT_EQ(product.out, (std::vector<TensorSpec>{{{6, 4}, DType::f32}}));
  EXPECT_EQ(product.flops.matmul, 2 * 6 * 8 * 4);
  EXPECT_EQ(product.bytes, 4 * (6 * 8 + 8 * 4 + 6 * 4));
  EXPECT_EQ(product.phase, Phase::forward);
  EXPECT_EQ(module_path(product.module), "net");

  meter.record_calls(false);
  const size_t count = meter.calls().size();
  work(*device_, meter);
  EXPECT_EQ(meter.calls().size(), count);
  meter.record_calls(true);
  EXPECT_TRUE(meter.calls().empty());
}

TEST_F(Records, AreTheSameOnMetaButForTime) {
  Meter real, planned;
  real.record_calls(true);
  planned.record_calls(true);
  const Ref<Device> meta = open_cpu(Mode::meta);
  meta->allocator().record_events(true);
  work(*device_, real);
  work(*meta, planned);
  ASSERT_EQ(real.calls().size(), planned.calls().size());
  for (size_t i = 0; i < real.calls().size(); ++i) {
    const CallRecord &a = real.calls()[i], &b = planned.calls()[i];
    EXPECT_TRUE(a.op == b.op && a.phase == b.phase && a.module == b.module && a.in == b.in && a.out == b.out &&
                a.params == b.params && a.flops == b.flops && a.bytes == b.bytes && a.workspace == b.workspace)
        << i << " " << a.op->name;
    EXPECT_EQ(b.seconds, 0);
    EXPECT_EQ(a.events, 0u);
    // The next event is the first block of the call, unless it takes over its input's or only writes.
    ASSERT_LE(b.events, meta->allocator().events().size());
    EXPECT_GE(b.events, planned.calls()[i > 0 ? i - 1 : 0].events);
  }
  const std::vector<AllocationEvent>& events = meta->allocator().events();
  const AllocationEvent& block = events[planned.calls()[2].events];
  EXPECT_TRUE(block.is_alloc);
  EXPECT_STREQ(block.op, "matmul");
}
}  // namespace
}  // namespace reckon
