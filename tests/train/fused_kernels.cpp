// Steps with fused norms, activations and residual sums against steps that compose them of element-wise operations.
#include <cmath>

#include "tests/support/gradient_watcher.h"
#include "tests/train/small_runs.h"

namespace small {
namespace {
struct Step {
  double loss = 0;
  std::map<std::string, std::vector<double>> gradients;
};
Step run_step(const char* model, const Overrides& more) {
  const Config c = config(model, more);
  const Ref<Device> device = open_cpu(Mode::real);
  TrainStep step(c, *device);
  Step s;
  const test::WatchGradients watcher(step, [&](const Parameters& parameters) {
    for (const Parameter& p : parameters.all()) s.gradients[p.name] = p.value.grad().to_vector();
  });
  s.loss = step.run(0, SyntheticBatches(c.model.vocab, 3)).loss;
  return s;
}

// Some dozen roundings a layer, of values and of gradients, whose errors walk randomly over the tokens.
TEST(FusedKernels, GiveTheNumbersOfTheOperationsTheyReplace) {
  for (const char* model : {"gpt2", "llama", "qwen"})
    for (const char* precision : {"fp32", "bf16"}) {
      SCOPED_TRACE(text("{} {}", model, precision));
      const Config c = config(model);
      const double unit = epsilon(precision == std::string("bf16") ? DType::bf16 : DType::f32);
      const double tokens = double(c.train.micro_batch * c.train.seq_len);
      const Step fused = run_step(model, {text("train.precision={}", precision)});
      const Step composed = run_step(model, {text("train.precision={}", precision), "train.fused_kernels=false"});
      EXPECT_NEAR(fused.loss, composed.loss, 4 * unit * fused.loss);
      ASSERT_EQ(fused.gradients.size(), composed.gradients.size());
      for (const auto& [name, ours] : fused.gradients) {
        const std::vector<double>& theirs = composed.gradients.at(name);
        double most = 0, worst = 0;
        for (size_t i = 0; i < ours.size(); ++i) {
          most = std::max(most, std::abs(ours[i]));
          worst = std::max(worst, std::abs(ours[i] - theirs[i]));
        }
        EXPECT_LE(worst, 4 * unit * std::sqrt(tokens) * most) << name;
        EXPECT_GT(most, 0) << name;
      }
    }
}

// What composition keeps of a block is more than what the fused operations keep.
TEST(FusedKernels, TakeLessMemory) {
  for (const char* model : {"gpt2", "llama"}) {
    const auto peak = [&](const char* fused) {
      const Ref<Device> meta = open_cpu(Mode::meta);
      TrainStep step(config(model, {text("train.fused_kernels={}", fused)}), *meta);
      step.run(0, SyntheticBatches(step.config().model.vocab, 3));
      return meta->allocator().ledger().peak;
    };
    EXPECT_LT(peak("true"), peak("false"));
  }
}
}  // namespace
}  // namespace small
