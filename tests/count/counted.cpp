// What kernels count in their loops is what the plan of each call says, to the integer: for every case of every operation, and for whole
// training steps. Only in builds with RECKON_COUNT.
#include "reckon/backend/cpu/count.h"

#include <gtest/gtest.h>

#include "reckon/cli/op_cases_judge.h"
#include "reckon/engine/context.h"
#include "reckon/engine/meter.h"
#include "reckon/ops/step_scalars.h"
#include "tests/support/watched_device.h"
#include "tests/train/small_runs.h"

namespace small {
namespace {
struct Launch {
  int id;
  cpu::Counted counted;
  int64_t unseen = 0;  // planned vector FLOPs that the data makes needless, which a plan cannot see
};
std::vector<Launch> launches;

// Rows without a target, and updates that are skipped because a gradient is not finite.
int64_t unseen_of(int id, const KernelArgs& k) {
  if (id == k_cross_entropy_back) {
    int64_t rows = 0;
    for (int64_t i = 0; i < k.in[2].numel(); ++i) rows += k.in[2].data<int32_t>()[i] == kIgnoredTarget;
    return 4 * rows * k.in[1].shape().last();
  }
  return 0;
}

void count(int id, Kernel kernel, const KernelArgs& args) {
  cpu::take_counted();
  const int64_t unseen = unseen_of(id, args);
  kernel(args);
  launches.push_back({id, cpu::take_counted(), unseen});
}

bool is_attention(int id) { return id == k_attention || id == k_attention_back || id == k_attention_cached; }

// Every launch of a meter's records against what was counted. Attention's products are judged with its tiles.
void expect_counted(const Meter& meter) {
  size_t next = 0;
  for (const CallRecord& call : meter.calls()) {
    if (call.op->traits.own_kernel) continue;
    ASSERT_LT(next, launches.size()) << call.op->name;
    const Launch& launch = launches[next++];
    ASSERT_EQ(launch.id, call.op->id) << call.op->name;
    if (is_attention(launch.id)) continue;
    EXPECT_EQ(launch.counted.matmul, call.flops.matmul) << call.op->name;
    EXPECT_EQ(launch.counted.vector + launch.unseen, call.flops.vector) << call.op->name;
  }
  EXPECT_EQ(next, launches.size());
}

TEST(Counted, EveryCaseOfEveryOperation) {
  watched::around = count;
  for (const OpCase& c : op_cases())
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
      if (!c.runs_with(dtype)) continue;
      SCOPED_TRACE(to_string(c) + " " + std::string(name_of(dtype)));
      const Ref<Device> device = watched::open_watched({"cpu", 2});
      launches.clear();
      Meter meter;
      meter.record_calls(true);
      const MeterScope scope(meter);
      bits_of(c, *device, dtype);
      expect_counted(meter);
    }
}

TEST(Counted, WholeTrainingSteps) {
  watched::around = count;
  for (const char* name : {"gpt2", "llama", "qwen", "cruncher"})
    for (const char* precision : {"fp32", "bf16"})
      for (const char* recompute : {"none", "full"}) {
        SCOPED_TRACE(text("{} {} recompute={}", name, precision, recompute));
        const Config c = config(name, {text("train.precision={}", precision), text("train.recompute={}", recompute), "train.grad_accum=2"});
        const Ref<Device> device = watched::open_watched({"cpu", 2});
        TrainStep step(c, *device);
        launches.clear();
        Meter meter;
        meter.record_calls(true);
        const MeterScope scope(meter);
        step.run(0, SyntheticBatches(c.model.vocab, 3));
        expect_counted(meter);
      }
}
}  // namespace
}  // namespace small
