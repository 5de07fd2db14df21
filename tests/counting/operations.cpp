// What kernels count in their loops is what the plan of each call says, to the integer: for every case of every operation, and for whole
// training steps.
#include <gtest/gtest.h>

#include "reckon/backend/cpu/count.h"
#include "reckon/cli/op_cases_judge.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/engine/meter.h"
#include "reckon/ops/ops.h"
#include "reckon/ops/step_scalars.h"
#include "tests/support/watched_device.h"
#include "tests/train/small_runs.h"

namespace small {
namespace {
struct Launch {
  int id;
  cpu::Counted counted;
  int64_t unseen = 0;    // planned vector FLOPs of rows without a target, or of dropped choices, which a plan cannot see
  bool skipped = false;  // an update that is not made because a gradient is not finite
};
std::vector<Launch> launches;

// Work of choices that found no room with an expert.
int64_t unseen_choices(int id, const KernelArgs& k) {
  const bool is_moved = id == k_moe_dispatch || id == k_moe_combine;
  if (!is_moved && id != k_moe_weights_back) return 0;
  const bool weighted = is_moved && k.in.size() > 3;
  const int64_t each = id == k_moe_dispatch ? weighted : id == k_moe_combine ? 1 + weighted : 2;
  int64_t dropped = 0;
  for (int64_t i = 0; i < k.in[1].numel(); ++i) dropped += k.in[1].data<int32_t>()[i] < 0;
  return each * dropped * k.in[0].shape().last();
}
int64_t unseen_of(int id, const KernelArgs& k) {
  if (const int64_t work = unseen_choices(id, k); work > 0) return work;
  size_t targets = 0;
  int64_t classes = 0;
  if (id == k_cross_entropy_back) targets = 2, classes = k.in[1].shape().last();
  if (id == k_linear_cross_entropy_back) targets = 3, classes = k.in[2].shape()[0];
  if (id == k_linear_cross_entropy_step) targets = 2, classes = k.in[1].shape()[0];
  if (targets == 0) return 0;
  const CrossEntropyOptions o = k.as<LossParams>().options;
  int64_t rows = 0;
  for (int64_t i = 0; i < k.in[targets].numel(); ++i) rows += k.in[targets].data<int32_t>()[i] == o.ignore_index;
  return (4 + (o.label_smoothing > 0) + (o.z_loss != 0)) * rows * classes;
}
bool is_update(int id) {
  for (const int update : {k_sgd_step, k_momentum_step, k_nesterov_step, k_adagrad_step, k_rmsprop_step, k_adam_step, k_adamw_step,
                           k_adamw8bit_step, k_lamb_moments, k_lamb_step})
    if (id == update) return true;
  return false;
}

void count(int id, Kernel kernel, const KernelArgs& args) {
  cpu::take_counted();
  Launch launch{id, {}, unseen_of(id, args), is_update(id) && args.in[0].data<double>()[kOk] == 0};
  kernel(args);
  launch.counted = cpu::take_counted();
  launches.push_back(launch);
}

bool sees_documents(const CallRecord& call) {
  if (call.op->id == k_attention) return call.in.size() > 1;
  if (call.op->id == k_attention_back) return call.in.size() > 4;
  return (call.op->id == k_attention_chunk || call.op->id == k_attention_chunk_back) &&
         call.params.as<AttentionChunkParams>().has_documents;
}

// Every launch of a meter's records against what was counted.
void expect_counted(const Meter& meter) {
  size_t next = 0;
  for (const CallRecord& call : meter.calls()) {
    if (call.op->traits.own_kernel) continue;
    ASSERT_LT(next, launches.size()) << call.op->name;
    const Launch& launch = launches[next++];
    ASSERT_EQ(launch.id, call.op->id) << call.op->name;
    if (launch.id == k_attention_cached || sees_documents(call)) {  // the plan has a bound: the longest cache, one document a row
      if (launch.id != k_attention_cached) {
        EXPECT_LE(launch.counted.matmul, call.flops.matmul);
      }
      EXPECT_LE(launch.counted.vector, call.flops.vector);
      EXPECT_EQ(launch.counted.vector > 0, call.flops.vector > 0);
      continue;
    }
    EXPECT_EQ(launch.counted.matmul, call.flops.matmul) << call.op->name;
    EXPECT_EQ(launch.counted.vector + launch.unseen, launch.skipped ? 0 : call.flops.vector) << call.op->name;
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

// Work is not done, nor planned, for gradients that nobody wants.
TEST(Counted, NormsOfWhichOnlySomeGradientsAreWanted) {
  watched::around = count;
  const Ref<Device> device = watched::open_watched({"cpu", 2});
  const auto run = [&](const std::vector<Shape>& shapes, auto norm) {
    for (uint32_t wanted = 1; wanted < 1u << shapes.size(); ++wanted) {
      SCOPED_TRACE(text("wanted {:#b}", wanted));
      Tensors in;
      for (size_t i = 0; i < shapes.size(); ++i) {
        in.push_back(empty(*device, {shapes[i], DType::f32}));
        fill_normal_(in.back(), i);
        if (wanted >> i & 1u) in.back().set_requires_grad();
      }
      launches.clear();
      Meter meter;
      meter.record_calls(true);
      const MeterScope scope(meter);
      const Tensor y = norm(in);
      backward(y, zeros(*device, y.spec()));
      expect_counted(meter);
    }
  };
  run({{3, 21}, {21}, {21}}, [](const Tensors& in) { return layer_norm(in[0], in[1], in[2], 1e-5); });
  run({{3, 21}, {21}}, [](const Tensors& in) { return layer_norm(in[0], in[1], Tensor(), 1e-5); });
  run({{3, 21}, {21}}, [](const Tensors& in) { return rms_norm(in[0], in[1], 1e-5); });
  const auto both = [](const SumAndNorm& s) { return mul(s.sum, s.norm); };
  run({{3, 21}, {3, 21}, {21}, {21}}, [&](const Tensors& in) { return both(add_layer_norm(in[0], in[1], in[2], in[3], 1e-5)); });
  run({{3, 21}, {3, 21}, {21}}, [&](const Tensors& in) { return both(add_layer_norm(in[0], in[1], in[2], Tensor(), 1e-5)); });
  run({{3, 21}, {3, 21}, {21}}, [&](const Tensors& in) { return both(add_rms_norm(in[0], in[1], in[2], 1e-5)); });
  run({{3, 7 * 5}, {5}, {5}}, [](const Tensors& in) { return qk_norm(in[0], in[1], in[2], 3, 2, 5, 1e-5); });
}

TEST(Counted, WholeTrainingSteps) {
  watched::around = count;
  for (const char* name : {"gpt2", "llama", "qwen", "cruncher"})
    for (const char* precision : {"fp32", "bf16", "fp16", "fp8"})
      for (const char* variant :
           {"train.recompute=none", "train.recompute=selective", "train.recompute=full optim.name=adamw8bit", "train.fused_loss=false",
            "train.sequence_chunk=16", "train.attention=plain", "train.fused_kernels=false", "data.documents=separate model.vocab=11", "model.dropout=0.2",
            "data.documents=separate model.vocab=11 train.sequence_chunk=10", "train.recompute=full train.sequence_chunk=10",
            "train.recompute=sqrt train.sequence_chunk=10", "optim.name=lamb", "optim.name=rmsprop optim.centered=true optim.weight_decay_kind=coupled"}) {
        SCOPED_TRACE(text("{} {} {}", name, precision, variant));
        const std::string v = variant;
        if (name == std::string("cruncher") && (v.find("sequence") != v.npos || v.find("attention") != v.npos || v.find("data.") != v.npos || v.find("dropout") != v.npos))
          continue;
        if (precision == std::string("fp8") && v.find("sequence_chunk") != v.npos) continue;
        Overrides o = {text("train.precision={}", precision), "train.grad_accum=2"};
        for (size_t at = 0, end; at < v.size(); at = end + 1) {
          end = std::min(v.find(' ', at), v.size());
          o.push_back(v.substr(at, end - at));
        }
        const Config c = config(name, o);
        const Ref<Device> device = watched::open_watched({"cpu", 2});
        TrainStep step(c, *device);
        launches.clear();
        Meter meter;
        meter.record_calls(true);
        const MeterScope scope(meter);
        step.run(0, SyntheticBatches(c.model.vocab, 3, 7));
        expect_counted(meter);
      }
}
}  // namespace
}  // namespace small
