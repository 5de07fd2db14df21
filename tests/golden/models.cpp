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
  Tensor differentiate(bool recompute = false, bool fused = false) {
    decoder.parameters().zero_grad();
    const RecomputePolicy policy = recompute ? RecomputePolicy(size_t(config.model.layers), {BlockRecompute::full, 1}) : RecomputePolicy();
    if (fused) {
      Tensor hidden = decoder.hidden(tokens, policy);
      const Tensor seed = ones(*device, {Shape{}, statistics_dtype(hidden.dtype())});
      return decoder.loss_and_backward(std::move(hidden), targets, seed);
    }
    const Tensor loss = decoder.loss(tokens, targets, policy);
    backward(loss);
    return loss.detached();
  }
  const std::deque<Parameter>& decoder_parameters() const { return const_cast<Decoder&>(decoder).parameters().all(); }
  const Config config;
  Ref<Device> device;
  Decoder decoder;
  Tensor tokens, targets;
};

std::vector<double> part(const std::vector<double>& values, int64_t first, int64_t count) {
  return {values.begin() + first, values.begin() + first + count};
}

// The part of a packed q/k/v bias that adds a constant to all scores of a row, which softmax ignores: its gradient is mathematically zero,
// what is left of it is rounding, and Adam divides that rounding by its own size. Such a key part has no digits to compare.
bool has_idle_key_bias(const Parameter& p, const ModelConfig& c) {
  return p.name.ends_with(".attn.qkv.bias") && !c.qk_norm && c.position == PositionKind::learned;
}

// A tensor against the golden one, packed q/k/v part by part, each by its own maximum; an idle key bias is left to the caller.
void expect_parts(const Parameter& p, const ModelConfig& c, const std::vector<double>& ours, const std::vector<double>& theirs, double share, const std::string& what) {
  if (p.name.find(".attn.qkv.") == std::string::npos) return expect_close(ours, theirs, share, what);
  ASSERT_EQ(ours.size(), theirs.size());
  const int64_t columns = p.shape.rank() == 2 ? p.shape[1] : 1, q = c.heads * c.head_dim * columns, kv = c.kv_heads * c.head_dim * columns;
  expect_close(part(ours, 0, q), part(theirs, 0, q), share, what + " (queries)");
  expect_close(part(ours, q + kv, kv), part(theirs, q + kv, kv), share, what + " (values)");
  if (!has_idle_key_bias(p, c)) expect_close(part(ours, q, kv), part(theirs, q, kv), share, what + " (keys)");
}

std::vector<double> key_part(const std::vector<double>& packed, const ModelConfig& c) { return part(packed, c.heads * c.head_dim, c.kv_heads * c.head_dim); }

class Models : public ::testing::TestWithParam<const char*> {};

void expect_gradients(const char* name, DType dtype, const std::string& type, double share, bool recompute, bool fused = false) {
  const File file(name);
  Model model(file, dtype, file.config());
  const ModelConfig& c = model.config.model;
  const double loss = model.differentiate(recompute, fused).item();
  const std::vector<double> losses = file.values(type + "/losses");
  EXPECT_NEAR(loss, losses[0], share * losses[0]);
  EXPECT_EQ(model.decoder.parameters().count(), parameter_count(c));
  for (const Parameter& p : model.decoder.parameters().all()) {
    ASSERT_TRUE(file.has(type + "/grad/" + p.name)) << p.name;
    const std::vector<double> ours = p.value.grad().to_vector();
    expect_parts(p, c, ours, file.values(type + "/grad/" + p.name), share, p.name);
    if (has_idle_key_bias(p, c)) { EXPECT_LE(max_abs(key_part(ours, c)), share * max_abs(ours)) << p.name << " (keys) must be rounding"; }
  }
}

// Parameters after some steps. Rounding of an idle key bias, some eps of the gradients beside it, moves it by up to rounding / optim.eps of
// the learning rate in each step.
void expect_parameters(const Model& model, const File& file, const std::string& prefix, int64_t steps) {
  const Config& c = model.config;
  for (const Parameter& p : model.decoder_parameters()) {
    const std::vector<double> ours = p.value.to_vector(), theirs = file.values(prefix + p.name);
    expect_parts(p, c.model, ours, theirs, kWide, prefix + p.name);
    if (!has_idle_key_bias(p, c.model)) continue;
    const double rounding = 4 * epsilon(DType::f64) * max_abs(file.values("f64/grad/" + p.name));
    const double tolerance = kWide * max_abs(theirs) + double(steps) * c.optim.lr * rounding / c.optim.eps;
    const std::vector<double> a = key_part(ours, c.model), b = key_part(theirs, c.model);
    for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], tolerance) << prefix << p.name << " (keys) [" << i << "]";
  }
}

TEST_P(Models, gradients_in_double) { expect_gradients(GetParam(), DType::f64, "f64", kWide, false); }
TEST_P(Models, gradients_in_double_with_recomputation) { expect_gradients(GetParam(), DType::f64, "f64", kWide, true); }
TEST_P(Models, gradients_in_double_without_logits) { expect_gradients(GetParam(), DType::f64, "f64", kWide, false, true); }
TEST_P(Models, gradients_in_float_without_logits) { expect_gradients(GetParam(), DType::f32, "f32", kNarrow, true, true); }
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
    expect_parts(p, model.config.model, half, file.values("f64/grad/" + p.name), kWide, p.name);
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
    expect_parameters(model, file, text("f64/step{}/", step + 1), step + 1);
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
  expect_parameters(model, file, text("f64/clip/step{}/", kSteps), kSteps);
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
