// A step whose loss or gradient is not finite changes nothing, and the replay names the operation and layer where it began.
#include <cmath>
#include <cstring>
#include <limits>

#include "reckon/base/error.h"
#include "reckon/plan/run_plan.h"
#include "reckon/train/saved_run.h"
#include "tests/support/gradient_watcher.h"
#include "tests/train/small_runs.h"

namespace small {
namespace {
// The message of find_nonfinite; "" if it found nothing.
std::string finding(TrainStep& step, int64_t at, const BatchSource& batches) {
  try {
    step.find_nonfinite(at, batches);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Failure::failed);
    return error.what();
  }
  return "";
}
void poke(const Parameter& p, int64_t element, float value) {
  std::string bytes = bytes_of(p.value);
  if (p.value.dtype() == DType::bf16) {
    const bfloat16 narrow(value);
    std::memcpy(bytes.data() + 2 * element, &narrow, 2);
  } else if (p.value.dtype() == DType::f16) {
    const float16 narrow(value);
    std::memcpy(bytes.data() + 2 * element, &narrow, 2);
  } else {
    std::memcpy(bytes.data() + 4 * element, &value, 4);
  }
  p.value.write(bytes.data(), int64_t(bytes.size()));
}
void expect_contains(const std::string& message, const std::string& part) {
  EXPECT_NE(message.find(part), std::string::npos) << "'" << message << "' lacks '" << part << "'";
}

struct Poison {
  const char* parameter;
  const char* op;
  const char* layer;
};
TEST(Nonfinite, a_nan_parameter_is_found_where_it_is_used_first) {
  const Poison poisons[] = {{"blocks.1.mlp.up.weight", "linear", "blocks.1.mlp"},
                            {"blocks.0.norm1.weight", "layer_norm", "blocks.0.norm1"},
                            {"blocks.0.attn.proj.bias", "linear", "blocks.0.attn"},
                            {"norm.bias", "layer_norm", "norm"}};
  for (const char* precision : {"fp32", "bf16", "fp8"})
    for (const char* recompute : {"none", "selective", "full"})
      for (const Poison& poison : poisons) {
        SCOPED_TRACE(text("{} {} {}", poison.parameter, precision, recompute));
        const Config c =
            config("gpt2", {text("train.precision={}", precision), text("train.recompute={}", recompute), "train.grad_accum=2"});
        const Ref<Device> device = open_cpu(Mode::real);
        TrainStep step(c, *device);
        const SyntheticBatches batches(c.model.vocab, 3);
        ASSERT_TRUE(step.run(0, batches).updated);
        poke(*step.parameters().find(poison.parameter), 3, std::numeric_limits<float>::quiet_NaN());
        const State before = state_of(step);
        EXPECT_FALSE(step.run(1, batches).updated);
        expect_same(before, state_of(step));
        const std::string message = finding(step, 1, batches);
        expect_contains(message, poison.op);
        expect_contains(message, std::string("in ") + poison.layer + " ");
        expect_contains(message, "forward pass");
        expect_same(before, state_of(step));
      }
}

TEST(Nonfinite, every_optimizer_skips) {
  for (const std::string_view name : words_of(OptimizerKind()))
    for (const char* precision : {"fp32", "bf16", "fp16", "fp8"})
      for (const char* clip : {"0", "1"}) {
        SCOPED_TRACE(text("{} {} clip {}", name, precision, clip));
        const Config c = config("cruncher", {text("optim.name={}", name), text("train.precision={}", precision),
                                             text("optim.clip_norm={}", clip), "train.loss_scale=64", "model.d_model=70"});
        const Ref<Device> device = open_cpu(Mode::real);
        TrainStep step(c, *device);
        const SyntheticBatches none(1, 1);
        ASSERT_TRUE(step.run(0, none).updated);
        poke(step.parameters().all()[1], 5, std::numeric_limits<float>::infinity());
        const State before = state_of(step);
        EXPECT_FALSE(step.run(1, none).updated);
        expect_same(before, state_of(step));
      }
}

// A dynamic loss scale is what may be at fault as long as it can fall; a static one never is.
TEST(LossScale, falls_while_it_can_and_then_the_step_is_at_fault) {
  for (const bool is_dynamic : {true, false}) {
    const Config c = config("gpt2", {"train.precision=fp16", is_dynamic ? "train.loss_scale_start=8" : "train.loss_scale=8"});
    const Ref<Device> device = open_cpu(Mode::real);
    TrainStep step(c, *device);
    const SyntheticBatches batches(c.model.vocab, 3);
    ASSERT_TRUE(step.run(0, batches).updated);
    poke(*step.parameters().find("blocks.1.mlp.up.weight"), 3, std::numeric_limits<float>::infinity());
    const State before = state_of(step);
    for (const double scale : {8, 4, 2, 1, 1}) {
      const TrainStep::Result r = step.run(1, batches);
      EXPECT_FALSE(r.updated);
      EXPECT_EQ(r.loss_scale, is_dynamic ? scale : 8);
      EXPECT_EQ(r.rescaled, is_dynamic && scale > 1);
      expect_same(before, state_of(step));
    }
    expect_contains(finding(step, 1, batches), "linear in blocks.1.mlp");
  }
}

// Gradients that are too large for float16, though the loss is not: the steps are skipped until they fit, and the run goes on.
TEST(LossScale, a_run_survives_gradients_that_overflow) {
  const Folder folder;
  Config c = config("gpt2", {"train.precision=fp16", "train.loss_scale_start=16777216", "train.steps=12"});
  c.run_dir = folder / "run";
  const Ref<Device> device = open_cpu(Mode::real), meta = open_cpu(Mode::meta);
  const TrainOutcome outcome = plan_and_train(c, *device, *meta, {.quiet = true});
  EXPECT_EQ(outcome.step_seconds.size(), 12u);
  EXPECT_EQ(outcome.predicted.trace_hash, outcome.measured.trace_hash);
  const std::string metrics = get(folder / "run/metrics.jsonl");
  expect_contains(metrics, "\"grad_norm\":null,\"loss_scale\":16777216.0,");
  expect_contains(metrics.substr(metrics.rfind("\"step\"")), "\"grad_norm\":");
  EXPECT_EQ(metrics.substr(metrics.rfind("\"step\"")).find("null"), std::string::npos) << metrics;
}

// The same run with a static scale ends at its first step, and the memory that new gradients get is not to blame.
TEST(LossScale, a_static_one_that_overflows_ends_the_run) {
  Config c = config("gpt2", {"train.precision=fp16", "train.loss_scale=16777216", "model.d_model=64", "model.heads=2", "model.head_dim=32",
                             "model.d_ff=128", "model.vocab=128"});
  const Ref<Device> device = open_cpu(Mode::real), meta = open_cpu(Mode::meta);
  try {
    plan_and_train(c, *device, *meta, {.keep_files = false, .quiet = true});
    ADD_FAILURE() << "the run did not fail";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 1);
    expect_contains(error.what(), "step 1 is not finite");
    expect_contains(error.what(), "backward pass");
    EXPECT_EQ(std::string(error.what()).find("empty in"), std::string::npos) << error.what();
  }
}

// Scaled by a power of two and unscaled again, a gradient is what it was but for what float16 loses at its lower end: with so many
// micro-batches, that of a logit is below 1e-6, some sixteen of the smallest float16.
TEST(LossScale, leaves_the_gradient_as_it_is_and_saves_its_small_parts) {
  const auto gradients = [](Overrides more) {
    more.insert(more.end(), {"train.micro_batch=1", "train.grad_accum=256"});
    const Config c = config("gpt2", more);
    const Ref<Device> device = open_cpu(Mode::real);
    TrainStep step(c, *device);
    std::vector<double> all(1);
    const test::WatchGradients watcher(step, [&](const Parameters& parameters) {
      for (const Parameter& p : parameters.all())
        for (const double g : p.value.grad().to_vector()) all.push_back(g);
    });
    const TrainStep::Result r = step.run(0, SyntheticBatches(c.model.vocab, 3));
    EXPECT_TRUE(r.updated);
    for (double& g : all) g /= r.loss_scale;
    all[0] = r.grad_norm;
    return all;
  };
  const std::vector<double> exact = gradients({"train.precision=fp32"});
  const auto error = [&](const Overrides& more) {
    const std::vector<double> got = gradients(more);
    double sum = 0;
    for (size_t i = 1; i < exact.size(); ++i) sum += (got[i] - exact[i]) * (got[i] - exact[i]);
    return std::sqrt(sum) / exact[0];
  };
  const double plain = error({"train.precision=fp16", "train.loss_scale=1"}),
               scaled = error({"train.precision=fp16", "train.loss_scale=1024"}), dynamic = error({"train.precision=fp16"}),
               wide = error({"train.precision=bf16"});
  EXPECT_LT(scaled, plain / 2) << "small gradients are lost without a scale";
  EXPECT_LT(scaled, wide / 2) << "float16 has three bits more than bfloat16";
  EXPECT_LT(dynamic, wide / 2);
  std::printf("error of the gradient: fp16 %.2e, scaled %.2e, dynamically %.2e; bf16 %.2e\n", plain, scaled, dynamic, wide);
}

TEST(Nonfinite, a_healthy_step_has_nothing_to_find) {
  const Config c = config("llama");
  const Ref<Device> device = open_cpu(Mode::real);
  TrainStep step(c, *device);
  const SyntheticBatches batches(c.model.vocab, 3);
  const State before = state_of(step);
  EXPECT_EQ(finding(step, 0, batches), "");
  expect_same(before, state_of(step));
}

// The whole run: the largest learning rate throws the weights so far that the loss is beyond float32. It ends with exit code 1, and the
// state before the step is on disk.
TEST(Nonfinite, a_diverging_run_saves_the_state_before) {
  const Folder folder;
  Config c = config("cruncher", {"model.layers=6", "optim.name=sgd", "optim.clip_norm=0", "optim.schedule=constant", "optim.warmup_steps=0",
                                 "optim.lr=1000"});
  c.run_dir = folder / "run";
  const Ref<Device> device = open_cpu(Mode::real), meta = open_cpu(Mode::meta);
  std::string message;
  try {
    plan_and_train(c, *device, *meta, {.quiet = true});
    ADD_FAILURE() << "the run did not fail";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 1);
    message = error.what();
  }
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  expect_contains(message, "square in loss");
  expect_contains(message, "forward pass");
  const std::string saved = latest_checkpoint(c.run_dir);
  ASSERT_FALSE(saved.empty());
  expect_contains(message, saved);

  const CheckpointReader reader(saved);
  const int64_t done = reader.state().step;
  EXPECT_GT(done, 0);
  EXPECT_LT(done, c.train.steps);
  const Ref<Device> fresh = open_cpu(Mode::real);
  TrainStep step(c, *fresh);
  EXPECT_EQ(load_checkpoint(step, reader), done);
  for (const Parameter& p : step.parameters().all())
    for (const double v : p.value.to_vector()) ASSERT_TRUE(std::isfinite(v)) << p.name;
  EXPECT_FALSE(step.run(done, SyntheticBatches(1, 1)).updated) << "the saved state is the one before the step that fails";
}
}  // namespace
}  // namespace small
