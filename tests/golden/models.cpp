// Losses, gradients and ten AdamW steps of GPT-2-, Llama- and Qwen-style models against PyTorch's, as tests/golden/README.md describes.
#include "reckon/backend/cpu/device.h"
#include "reckon/engine/backward.h"
#include "reckon/nn/decoder.h"
#include "reckon/train/optimizer.h"
#include "tests/golden/golden.h"

namespace golden {
namespace {
constexpr double kWide = 1e-9, kNarrow = 1e-5;  // shares of a tensor's maximum, the issue's own numbers
constexpr int kSteps = 10;

// A model with the golden start, on its batch.
struct Model {
  Model(const File& file, DType dtype, const Config& c) : config(c), device(open_cpu(Mode::real)), decoder(config.model) {
    decoder.parameters().materialize(*device, {dtype, true}, 1);
    for (const Parameter& p : decoder.parameters().all()) {
      EXPECT_EQ(file.shape("init/" + p.name), p.shape) << p.name;
      store(p.value, file.values("init/" + p.name));
    }
    tokens = from_values<int32_t>(*device, file.shape("tokens"), file.ids("tokens"));
    targets = from_values<int32_t>(*device, file.shape("targets"), file.ids("targets"));
  }
  // Forward and backward; the loss.
  Tensor differentiate(bool recompute = false) {
    decoder.parameters().zero_grad();
    const Tensor loss = decoder.loss(tokens, targets, recompute);
    backward(loss);
    return loss.detached();
  }
  const Config config;
  Ref<Device> device;
  Decoder decoder;
  Tensor tokens, targets;
};

std::vector<double> part(const std::vector<double>& values, int64_t first, int64_t count) {
  return {values.begin() + first, values.begin() + first + count};
}

// Packed q/k/v tensors are judged part by part, each by its own maximum. The key part of a bias without QK-norm and RoPE is left to
// expect_no_key_bias_gradient: its gradient is mathematically zero, so its golden values are rounding and have no digits to compare.
void expect_gradient(const Parameter& p, const File& file, const std::string& type, const ModelConfig& c, double share) {
  const std::vector<double> ours = p.value.grad().to_vector(), theirs = file.values(type + "/grad/" + p.name);
  if (p.name.find(".attn.qkv.") == std::string::npos) return expect_close(ours, theirs, share, p.name);
  ASSERT_EQ(ours.size(), theirs.size());
  const int64_t columns = p.shape.rank() == 2 ? p.shape[1] : 1, q = c.heads * c.head_dim * columns, kv = c.kv_heads * c.head_dim * columns;
  expect_close(part(ours, 0, q), part(theirs, 0, q), share, p.name + " (queries)");
  expect_close(part(ours, q + kv, kv), part(theirs, q + kv, kv), share, p.name + " (values)");
  const bool vanishes = p.shape.rank() == 1 && !c.qk_norm && c.position == PositionKind::learned;
  if (!vanishes) expect_close(part(ours, q, kv), part(theirs, q, kv), share, p.name + " (keys)");
}

// Softmax ignores a constant added to all scores of a row: only rounding is left, some eps of the gradients beside it.
void expect_no_key_bias_gradient(const Parameter& p, const ModelConfig& c, double share) {
  const std::vector<double> g = p.value.grad().to_vector();
  const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  EXPECT_LE(max_abs(part(g, q, kv)), share * max_abs(part(g, 0, q))) << p.name;
}

class Models : public ::testing::TestWithParam<const char*> {};

void expect_gradients(const char* name, DType dtype, const std::string& type, double share, bool recompute) {
  const File file(name);
  Model model(file, dtype, file.config());
  const double loss = model.differentiate(recompute).item();
  const std::vector<double> losses = file.values(type + "/losses");
  EXPECT_NEAR(loss, losses[0], share * losses[0]);
  EXPECT_EQ(model.decoder.parameters().count(), parameter_count(model.config.model));
  for (const Parameter& p : model.decoder.parameters().all()) {
    ASSERT_TRUE(file.has(type + "/grad/" + p.name)) << p.name;
    expect_gradient(p, file, type, model.config.model, share);
    if (p.name.ends_with("qkv.bias") && !model.config.model.qk_norm) expect_no_key_bias_gradient(p, model.config.model, share);
  }
}

TEST_P(Models, gradients_in_double) { expect_gradients(GetParam(), DType::f64, "f64", kWide, false); }
TEST_P(Models, gradients_in_double_with_recomputation) { expect_gradients(GetParam(), DType::f64, "f64", kWide, true); }
TEST_P(Models, gradients_in_float) { expect_gradients(GetParam(), DType::f32, "f32", kNarrow, false); }

// Gradients in slots add up over two backward passes: what gradient accumulation stands on.
TEST_P(Models, two_backward_passes_double_the_gradient) {
  const File file(GetParam());
  Model model(file, DType::f64, file.config());
  model.differentiate();
  backward(model.decoder.loss(model.tokens, model.targets));
  for (const Parameter& p : model.decoder.parameters().all()) {
    std::vector<double> half = p.value.grad().to_vector();
    for (double& v : half) v /= 2;
    expect_close(half, file.values("f64/grad/" + p.name), kWide, p.name);
  }
}

TEST_P(Models, ten_steps_in_double) {
  const File file(GetParam());
  Model model(file, DType::f64, file.config());
  const Optimizer optimizer(*model.device, model.decoder.parameters(), model.config.optim);
  const std::vector<double> losses = file.values("f64/losses");
  for (int step = 0; step < kSteps; ++step) {
    const Tensor loss = model.differentiate();
    EXPECT_NEAR(loss.item(), losses[size_t(step)], kWide * losses[size_t(step)]) << "step " << step;
    optimizer.write_scalars(step, kSteps);
    optimizer.step(loss);
    EXPECT_TRUE(optimizer.outcome().updated);
    for (const Parameter& p : model.decoder.parameters().all())
      expect_close(p.value.to_vector(), file.values(text("f64/step{}/{}", step + 1, p.name)), kWide, text("step {} {}", step + 1, p.name));
  }
}

TEST_P(Models, ten_clipped_steps_in_double) {
  const File file(GetParam());
  Config config = file.config();
  config.optim.clip_norm = 1;
  Model model(file, DType::f64, config);
  const Optimizer optimizer(*model.device, model.decoder.parameters(), model.config.optim);
  const std::vector<double> losses = file.values("f64/clip/losses"), norms = file.values("f64/clip/grad_norms");
  EXPECT_GT(*std::max_element(norms.begin(), norms.end()), config.optim.clip_norm) << "clipping must act";
  for (int step = 0; step < kSteps; ++step) {
    const Tensor loss = model.differentiate();
    EXPECT_NEAR(loss.item(), losses[size_t(step)], kWide * losses[size_t(step)]) << "step " << step;
    optimizer.write_scalars(step, kSteps);
    optimizer.step(loss);
    EXPECT_NEAR(optimizer.outcome().grad_norm, norms[size_t(step)], kWide * norms[size_t(step)]) << "step " << step;
  }
  for (const Parameter& p : model.decoder.parameters().all())
    expect_close(p.value.to_vector(), file.values(text("f64/clip/step{}/{}", kSteps, p.name)), kWide, p.name);
}

TEST_P(Models, losses_of_ten_steps_in_float) {
  const File file(GetParam());
  Model model(file, DType::f32, file.config());
  const Optimizer optimizer(*model.device, model.decoder.parameters(), model.config.optim);
  std::vector<double> losses;
  for (int step = 0; step < kSteps; ++step) {
    const Tensor loss = model.differentiate();
    losses.push_back(loss.item());
    optimizer.write_scalars(step, kSteps);
    optimizer.step(loss);
  }
  expect_close(losses, file.values("f32/losses"), kNarrow, "losses");
}

INSTANTIATE_TEST_SUITE_P(Golden, Models, ::testing::Values("gpt2", "llama", "qwen"), [](const auto& info) { return std::string(info.param); });
}  // namespace
}  // namespace golden
