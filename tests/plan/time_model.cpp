// The time of a planned step is a sum over its calls, looked up in tables: exact where something was measured, monotone between, unknown
// where nothing was. No test here looks at a clock.
#include "reckon/plan/time_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "reckon/backend/cpu/device.h"
#include "reckon/engine/context.h"
#include "reckon/plan/calibration.h"
#include "reckon/plan/conventions.h"

namespace reckon {
namespace {
using Overrides = std::vector<std::string>;

RunPlan plan_of(const Overrides& overrides) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  return plan_run(load_config("", overrides), *meta, false);
}

// A machine on which a call takes so many nanoseconds a byte, or a kilo-multiply-add, and some fixed time.
MachineProfile machine(const RunPlan& plan) {
  MachineProfile p{.cpu = "test", .lanes = 2, .f32_flops_per_second = 1e11, .bf16_flops_per_second = 2e11, .copy_bytes_per_second = 1e10};
  std::set<std::string> known;
  for (TimeTable& table : calibration_grid().tables) {
    for (size_t i = 0; i < table.seconds.size(); ++i) {
      double work = 1;
      size_t rest = i;
      for (size_t axis = table.axes.size(); axis-- > 0; rest /= table.axes[axis].size())
        work *= table.axes[axis][rest % table.axes[axis].size()];
      table.seconds[i] = 1e-6 + work * 1e-11;
    }
    known.insert(table.key);
    p.tables.push_back(std::move(table));
  }
  for (const CallRecord& call : plan.calls)
    if (const std::string key = time_key(call).table; known.insert(key).second)
      p.tables.push_back({key, {{1e3, 1e5, 1e8}}, {1e-6, 9e-6, 5e-3}});
  p.call_factor = 1.02;
  p.call_overhead_seconds = 3e-6;
  return p;
}

TEST(TimeTable, IsExactAtItsPointsAndLinearInLogarithmsBetween) {
  const TimeTable table{"x", {{10, 40}, {1, 8, 16}}, {1e-3, 4e-3, 6e-3, 2e-3, 16e-3, 20e-3}};
  for (size_t i = 0; i < 2; ++i)
    for (size_t j = 0; j < 3; ++j) {
      const double at[] = {table.axes[0][i], table.axes[1][j]}, expected = table.seconds[i * 3 + j];
      EXPECT_NEAR(interpolate(table, at), expected, 8 * 2.3e-16 * std::abs(std::log(expected)) * expected);
    }
  const double middle[] = {20, 8};  // half of the way from 10 to 40
  EXPECT_NEAR(interpolate(table, middle), std::sqrt(4e-3 * 16e-3), 1e-15);
}

TEST(TimeTable, GrowsWithTheWorkBeyondItsLastPointAndStaysBelowItsFirst) {
  const TimeTable table{"x", {{10, 40}}, {1e-3, 3e-3}};
  const double far[] = {400}, near[] = {1};
  EXPECT_NEAR(interpolate(table, far), 30e-3, 1e-14);
  EXPECT_NEAR(interpolate(table, near), 1e-3, 1e-15);
  const TimeTable attention{"attention f32", {{1}, {1}, {64}, {32}}, {1e-3}};
  const double longer[] = {1, 1, 192, 64};
  EXPECT_NEAR(interpolate(attention, longer), 2 * 9 * 1e-3, 1e-14);  // quadratic in the tokens
}

TEST(TimeTable, IsMonotoneInEveryExtent) {
  TimeTable table{"x", {{1, 4, 9, 30}, {2, 3, 50}}, {}};
  for (int i = 0; i < 12; ++i) table.seconds.push_back(1e-3 * ((i * 7919) % 13 + 1));  // noise
  make_monotone(table);
  for (double a = 0.5; a < 200; a *= 1.17)
    for (double b = 0.5; b < 200; b *= 1.17) {
      const double at[] = {a, b}, more_a[] = {a * 1.17, b}, more_b[] = {a, b * 1.17};
      const double rounding = 1 - 1e-13;
      EXPECT_GE(interpolate(table, more_a), interpolate(table, at) * rounding) << a << " " << b;
      EXPECT_GE(interpolate(table, more_b), interpolate(table, at) * rounding) << a << " " << b;
    }
}

TEST(TimeModel, StepsTakeTheirCallsAndWhatIsBetween) {
  const RunPlan plan = plan_of({"train.grad_accum=2", "train.recompute=full"});
  const MachineProfile profile = machine(plan);
  const StepTime step = predict_step(plan, profile);
  ASSERT_TRUE(step.seconds) << step.unknown;
  EXPECT_FALSE(step.is_bound);
  ASSERT_EQ(step.calls.size(), plan.calls.size());
  double sum = 0, end = 0;
  for (size_t i = 0; i < step.calls.size(); ++i) {
    EXPECT_NEAR(step.calls[i].seconds, profile.call_factor * predict_seconds(plan.calls[i], profile).value(), 1e-15);
    EXPECT_GE(step.calls[i].start, end) << "spans overlap";
    end = step.calls[i].start + step.calls[i].seconds;
    sum += step.calls[i].seconds;
  }
  const double rounding = 4 * 2.3e-16 * double(plan.calls.size()) * *step.seconds;
  EXPECT_NEAR(sum + step.between_seconds, *step.seconds, rounding);
  EXPECT_NEAR(end, *step.seconds, rounding);
  for (const std::vector<TimeTotal>* totals : {&step.by_op, &step.by_phase, &step.by_module}) {
    double seconds = 0;
    int64_t calls = 0;
    for (const TimeTotal& t : *totals) seconds += t.seconds, calls += t.calls;
    EXPECT_NEAR(seconds, sum, rounding);
    EXPECT_EQ(calls, int64_t(plan.calls.size()));
    EXPECT_GE(totals->front().seconds, totals->back().seconds);
  }
}

TEST(TimeModel, MoreWorkTakesLonger) {
  const RunPlan largest =
      plan_of({"model.layers=3", "model.d_model=256", "model.d_ff=1024", "model.vocab=512", "train.micro_batch=16", "train.seq_len=256"});
  const MachineProfile profile = machine(largest);
  const auto seconds = [&](const Overrides& overrides) { return predict_step(plan_of(overrides), profile).seconds.value(); };
  const double before = seconds({"model.layers=3"});
  for (const char* more : {"train.micro_batch=16", "train.seq_len=256", "model.d_ff=1024", "model.vocab=512", "model.layers=4"})
    EXPECT_GT(seconds({"model.layers=3", more}), before) << more;
}

TEST(TimeModel, TellsWhatBoundsACall) {
  const RunPlan plan = plan_of({"model.d_model=512", "train.micro_batch=16"});
  MachineProfile profile = machine(plan);
  bool products = false, sums = true;
  const StepTime step = predict_step(plan, profile);
  for (size_t i = 0; i < plan.calls.size(); ++i) {
    const std::string_view op = plan.calls[i].op->name;
    if (op == "linear" && plan.calls[i].in[0].shape.last() == 512) products |= step.calls[i].compute_bound;
    if (op == "add") sums &= !step.calls[i].compute_bound;
  }
  EXPECT_TRUE(products);
  EXPECT_TRUE(sums);
}

TEST(TimeModel, FillsTheReportOfAPlan) {
  RunPlan plan = plan_of({"train.precision=bf16"});
  const MachineProfile profile = machine(plan);
  EXPECT_EQ(predict_time(plan, profile), "");
  const RunReport& r = plan.predicted;
  ASSERT_TRUE(r.step_seconds && r.tokens_per_second && r.mfu && r.hfu);
  EXPECT_EQ(*r.step_seconds, *predict_step(plan, profile).seconds);
  EXPECT_DOUBLE_EQ(*r.tokens_per_second * *r.step_seconds, double(tokens_per_step(plan.config)));
  EXPECT_DOUBLE_EQ(*r.mfu * *r.step_seconds * profile.bf16_flops_per_second, double(r.flops_per_step->model));
}

TEST(TimeModel, KnowsNothingWithoutAProfileOrATable) {
  RunPlan plan = plan_of({});
  MachineProfile profile = machine(plan);
  EXPECT_EQ(predict_time(plan, profile), "");
  EXPECT_NE(predict_time(plan, std::nullopt).find("bench device"), std::string::npos);
  EXPECT_FALSE(plan.predicted.step_seconds || plan.predicted.tokens_per_second || plan.predicted.mfu || plan.predicted.hfu);
  std::erase_if(profile.tables, [](const TimeTable& t) { return t.key == "gelu f32"; });
  EXPECT_NE(predict_time(plan, profile).find("gelu f32"), std::string::npos);
  EXPECT_FALSE(plan.predicted.step_seconds);
  EXPECT_EQ(predict_step(plan, profile).unknown, "gelu f32");
  EXPECT_EQ(compare_times(plan.predicted, plan.predicted), "");
}

TEST(TimeModel, BoundsAStepByADataSheet) {
  const RunPlan plan = plan_of({"model.preset=gpt2-124m", "train.precision=bf16"});
  const HardwareProfile& device = find_profile("h100-sxm");
  const StepTime step = bound_step(plan, device);
  ASSERT_TRUE(step.seconds);
  EXPECT_TRUE(step.is_bound);
  EXPECT_EQ(step.between_seconds, 0);
  int64_t bytes = 0;
  for (const CallRecord& call : plan.calls) bytes += call.bytes;
  EXPECT_GE(*step.seconds, double(plan.predicted.flops_per_step->matmul) / device.peak(PeakType::bf16));
  EXPECT_GE(*step.seconds, double(bytes) / device.bandwidth.value * (1 - 1e-12));
}

TEST(TimeModel, BoundsFloat8ProductsByTheirOwnPeak) {
  const HardwareProfile& device = find_profile("h100-sxm");
  const Overrides size = {"model.preset=gpt2-124m", "train.micro_batch=64"};
  const double wide = *bound_step(plan_of({size[0], size[1], "train.precision=bf16"}), device).seconds,
               narrow = *bound_step(plan_of({size[0], size[1], "train.precision=fp8"}), device).seconds;
  EXPECT_LT(narrow, wide);
  EXPECT_THROW(bound_step(plan_of({size[0], "train.precision=fp8"}), find_profile("a100-sxm-40gb")), Error);
}

// A profile knows every call of every configuration: whoever adds an operation to a step adds it to the models of the calibration.
TEST(Calibration, CoversEveryCallOfATrainingStep) {
  std::set<std::string> measured;
  for (const TimeTable& table : calibration_grid().tables) measured.insert(table.key);
  for (const Overrides& model : calibration_models())
    for (const CallRecord& call : plan_of(model).calls) measured.insert(time_key(call).table);
  const std::vector<Overrides> variants = {{},
                                           {"train.recompute=full"},
                                           {"train.grad_accum=2"},
                                           {"train.micro_batch=1", "train.seq_len=16"},
                                           {"optim.name=sgd", "optim.clip_norm=0"},
                                           {"optim.name=momentum", "train.grad_accum=3"},
                                           {"optim.name=adagrad"},
                                           {"optim.name=nesterov"},
                                           {"optim.name=rmsprop"},
                                           {"optim.name=adam"},
                                           {"optim.name=lamb"},
                                           {"optim.name=adamw8bit"},
                                           {"train.loss_scale=128"},
                                           {"train.sequence_chunk=48"},
                                           {"train.attention=plain"},
                                           {"train.fused_kernels=false"}};
  const std::vector<Overrides> models = {{"model.preset=tiny"},
                                         {"model.preset=tiny", "model.norm_bias=false", "model.qkv_bias=false", "model.tied_head=false"},
                                         {"model.preset=tiny", "model.position=rope", "model.mlp=swiglu", "model.kv_heads=2"},
                                         {"model.preset=tiny", "model.norm=rms_norm", "model.qk_norm=true", "model.tied_head=false"},
                                         {"model.preset=cruncher"},
                                         {"model.preset=gpt2-124m"},
                                         {"model.preset=llama-3.2-1b"},
                                         {"model.preset=qwen3-0.6b"}};
  for (const Overrides& model : models)
    for (const Overrides& variant : variants)
      for (const char* precision : {"fp32", "bf16", "fp16", "fp8"}) {
        const bool is_of_decoders =
            !variant.empty() && (variant[0].starts_with("train.sequence") || variant[0].starts_with("train.attention"));
        if (model[0] == "model.preset=cruncher" && is_of_decoders) continue;
        if (precision == std::string("fp8") && !variant.empty() && variant[0].starts_with("train.sequence")) continue;
        Overrides overrides = model;
        overrides.insert(overrides.end(), variant.begin(), variant.end());
        overrides.push_back(std::string("train.precision=") + precision);
        for (const CallRecord& call : plan_of(overrides).calls)
          ASSERT_TRUE(measured.count(time_key(call).table))
              << time_key(call).table << " of " << model.back() << " " << (variant.empty() ? "" : variant[0]);
      }
}

TEST(Calibration, GridsHaveACallForEveryPoint) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  const NoGrad guard;
  const Grid grid = calibration_grid();
  size_t points = 0;
  for (const TimeTable& table : grid.tables) points += table.seconds.size();
  ASSERT_EQ(points, grid.points.size());
  for (const GridPoint& point : grid.points) {
    Tensors in;
    for (const TensorSpec& spec : point.in) in.push_back(Tensor(*meta, spec, Category::temporary, 0, "test"));
    Meter meter;
    const MeterScope scope(meter);
    meter.record_calls(true);
    call(*point.op, in, point.params);
    ASSERT_EQ(meter.calls().size(), 1u);
    // The call is looked up exactly where its time is written.
    const TimeKey key = time_key(meter.calls()[0]);
    TimeTable table = grid.tables[point.table];
    ASSERT_EQ(key.table, table.key);
    table.seconds.assign(table.seconds.size(), 1.0);
    table.seconds[point.index] = 2.0;
    ASSERT_NEAR(interpolate(table, key.at), 2.0, 1e-12) << table.key << " " << point.index;
  }
}
}  // namespace
}  // namespace reckon
