// The trace of small models: every preset in miniature, and every switch that changes what a step allocates.
#include "tests/null/trace.h"

#include "reckon/plan/run_plan.h"

namespace trace {
namespace {
// The architecture of each preset with narrow layers; trace_slow.cpp has them at their own width.
std::vector<std::string> narrow(const std::string& name) {
  const ModelConfig m = model_preset(name);
  if (m.cruncher) return {};
  const int64_t kv = m.heads == m.kv_heads ? 4 : 2;
  return {"model.layers=2", "model.vocab=67", "model.d_model=24", "model.heads=4", text("model.kv_heads={}", kv), "model.head_dim=6", "model.d_ff=40",
          "model.max_seq_len=32"};
}

class Presets : public ::testing::TestWithParam<std::string> {};

TEST_P(Presets, narrow_meta_is_real) {
  for (const char* precision : {"fp32", "bf16", "fp8"})
    for (const char* accumulation : {"1", "3"})
      for (const char* recompute : {"none", "selective", "full", "sqrt"}) {
        SCOPED_TRACE(text("precision={} grad_accum={} recompute={}", precision, accumulation, recompute));
        std::vector<std::string> overrides = narrow(GetParam());
        overrides.insert(overrides.end(), {text("train.precision={}", precision), text("train.grad_accum={}", accumulation), text("train.recompute={}", recompute)});
        expect_meta_is_real(preset(GetParam(), overrides));
      }
}
INSTANTIATE_TEST_SUITE_P(All, Presets, ::testing::ValuesIn(all_presets()), test_name);

TEST(Trace, every_optimizer) {
  for (const std::string_view name : words_of(OptimizerKind()))
    for (const char* precision : {"fp32", "bf16"}) {
      SCOPED_TRACE(text("{} {}", name, precision));
      expect_meta_is_real(preset("tiny", {"model.layers=1", text("optim.name={}", name), text("train.precision={}", precision)}));
    }
}

// Scratch is planned from the profile's lanes, so that a machine with more of them can be planned here.
TEST(Trace, of_another_profile) {
  const Config config = preset("tiny", {"model.layers=1"});
  for (const int lanes : {2, 5}) expect_equal(run(config, Mode::meta, {"cpu", lanes}), run(config, Mode::real, {"cpu", lanes}));
}

TEST(Trace, whole_tiny_and_cruncher) {
  for (const char* name : {"tiny", "cruncher"}) {
    SCOPED_TRACE(name);
    expect_meta_is_real(preset(name));
  }
}

// A hash that ignored the sizes or the order would be equal too often.
TEST(Trace, differs_between_different_steps) {
  const std::string base = run(preset("tiny", {"model.layers=1"}), Mode::meta).hash;
  for (const char* change : {"train.micro_batch=2", "train.recompute=full", "train.precision=bf16", "train.grad_accum=2", "optim.name=sgd", "model.layers=2"})
    EXPECT_NE(run(preset("tiny", {"model.layers=1", change}), Mode::meta).hash, base) << change;
}

TEST(Trace, names_the_first_different_event) {
  const Record a = run(preset("tiny", {"model.layers=1"}), Mode::meta), b = run(preset("tiny", {"model.layers=1", "train.recompute=full"}), Mode::meta);
  const std::string difference = first_difference(a.events, b.events);
  EXPECT_NE(difference.find("meta has"), std::string::npos) << difference;
  EXPECT_NE(difference.find("blocks.0"), std::string::npos) << difference;
}

// Recomputation trades one more forward pass of the blocks for their activations, and model work does not count it.
TEST(Trace, recomputation_saves_activations_and_costs_no_model_work) {
  const std::vector<std::string> sizes = {"model.layers=8", "train.micro_batch=2", "train.seq_len=128"};
  std::vector<std::string> with = sizes;
  with.push_back("train.recompute=full");
  const auto work = [](const Config& config, Ledger& ledger) {
    const Ref<Device> meta = open_cpu(Mode::meta);
    const RunReport report = plan_run(config, *meta).predicted;
    ledger = *report.memory;
    return *report.flops_per_step;
  };
  Ledger kept, again;
  const Flops once = work(preset("tiny", sizes), kept), twice = work(preset("tiny", with), again);
  EXPECT_EQ(once.model, twice.model);
  EXPECT_GT(twice.matmul, once.matmul);
  EXPECT_LT(again.at_peak[size_t(Category::activation)], kept.at_peak[size_t(Category::activation)] / 2);
}

// The deep linear net of the notes: D = 4, L = 2, B = 2. Forward 2 B P = 144, backward 4 B P less the first layer's input gradient 2 B D D.
TEST(Cruncher, counts_of_the_notes) {
  const Config config = preset("cruncher", {"train.micro_batch=2", "optim.name=adagrad"});
  ASSERT_EQ(config.model.d_model, 4);
  ASSERT_EQ(config.model.layers, 2);
  const Ref<Device> device = open_cpu(Mode::meta);
  TrainStep step(config, *device);
  EXPECT_EQ(step.parameters().count(), 36);
  EXPECT_EQ(parameter_count(config.model), 36);
  int64_t states = 0;
  ASSERT_EQ(step.optimizer().states().size(), 1u);
  for (const Parameter& p : step.parameters().all()) {
    states += step.optimizer().states()[0].of(p).numel();
  }
  EXPECT_EQ(states, 36);
  EXPECT_EQ(step.parameters().gradient_bytes(), 3 * 32 * 4);  // matrices of 16, 16 and 4, each padded to 32 elements
  Meter meter;
  {
    const MeterScope scope(meter);
    step.run(0, SyntheticBatches(1, 1));
  }
  EXPECT_EQ(meter.total().model, 368);
  int64_t layers = 0;  // each hands its output [2, 4] to backward: 16 activations
  for (const MeterRow& row : meter.rows())
    if (row.phase == Phase::forward && std::string(row.op) == "linear" && module_path(row.module).starts_with("layers.")) layers += row.calls;
  EXPECT_EQ(layers * 2 * 4, 16);
}

// predict() is what the plan promises; a step of the real run ends with its very hash.
TEST(Predict, is_what_the_run_does) {
  for (const char* more : {"train.precision=fp32", "train.precision=bf16", "train.precision=fp16", "train.precision=fp8", "optim.name=adamw8bit"}) {
    const Config config = preset("tiny", {"model.layers=1", "train.steps=3", more});
    const Ref<Device> real = open_cpu(Mode::real), meta = open_cpu(Mode::meta);
    const TrainOutcome outcome = plan_and_train(config, *real, *meta, {.keep_files = false, .quiet = true});
    EXPECT_FALSE(outcome.predicted.trace_hash.empty());
    EXPECT_EQ(outcome.predicted.trace_hash, outcome.measured.trace_hash);
    EXPECT_EQ(outcome.predicted.memory->peak, outcome.measured.memory->peak);
    EXPECT_EQ(outcome.predicted.memory->at_peak, outcome.measured.memory->at_peak);
    EXPECT_EQ(outcome.predicted.memory->phase_peak, outcome.measured.memory->phase_peak);
    EXPECT_EQ(*outcome.predicted.flops_per_step, *outcome.measured.flops_per_step);
    EXPECT_EQ(outcome.measured.parameters, parameter_count(config.model));
  }
}

// The largest models are planned on any machine.
TEST(Predict, plans_what_no_machine_here_holds) {
  const Config config = preset("llama-3-70b", {"train.precision=bf16", "train.recompute=full", "train.seq_len=8192"});
  const Ref<Device> meta = open_cpu(Mode::meta);
  const RunReport report = plan_run(config, *meta).predicted;
  EXPECT_EQ(report.parameters, parameter_count(config.model));
  // 16 bytes a parameter: bf16 value and residual, float32 gradient, m and v.
  EXPECT_GT(report.memory->peak, 16 * *report.parameters);
  EXPECT_LT(report.memory->peak, 17 * *report.parameters);
}
}  // namespace
}  // namespace trace
