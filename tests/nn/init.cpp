// How parameters start: the statistics of each rule, and that a value depends on (seed, name, element) and on nothing else.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/parallel.h"
#include "reckon/engine/context.h"
#include "reckon/nn/decoder.h"
#include "reckon/ops/training.h"

namespace reckon {
namespace {
struct Moments {
  double mean = 0, variance = 0, largest = 0;
  int64_t count = 0;
};
Moments moments(const std::vector<double>& x) {
  Moments m;
  m.count = int64_t(x.size());
  for (const double v : x) m.mean += v / double(x.size()), m.largest = std::max(m.largest, std::abs(v));
  for (const double v : x) m.variance += (v - m.mean) * (v - m.mean) / double(x.size());
  return m;
}

// Mean and variance of n draws have standard deviations s / sqrt(n) and s^2 sqrt((kurtosis - 1) / n); five of them are exceeded once in
// two million times, and the keys are fixed. Normal: kurtosis 3; cut normals have less.
void expect_moments(const Tensor& t, double std, const std::string& what) {
  const Moments m = moments(t.to_vector());
  const double n = double(m.count);
  EXPECT_LE(std::abs(m.mean), 5 * std / std::sqrt(n)) << what;
  EXPECT_LE(std::abs(m.variance - std * std), 5 * std * std * std::sqrt(2 / n)) << what;
}

std::vector<double> filled(const Init& init, const Shape& shape, uint64_t seed = 1) {
  const Ref<Device> device = open_cpu(Mode::real);
  Parameters p;
  Parameter& w = p.declare("w", shape, init, true);
  p.materialize(*device, {}, seed);
  return w.value.to_vector();
}

TEST(Init, standard_deviations_of_the_rules) {
  EXPECT_DOUBLE_EQ(init_std({Init::normal, 0.02, 1}, 10, 20), 0.02);
  EXPECT_DOUBLE_EQ(init_std({Init::normal, 0.02, 0.5}, 10, 20), 0.01);
  EXPECT_DOUBLE_EQ(init_std({Init::xavier, 0.02, 1}, 32, 16384), std::sqrt(2.0 / (32 + 16384)));
  EXPECT_DOUBLE_EQ(init_std({Init::kaiming, 0.02, 1}, 32, 16384), std::sqrt(2.0 / 16384));
  EXPECT_DOUBLE_EQ(init_std({Init::kaiming, 0.02, 3}, 32, 200), 0.3);
  EXPECT_DOUBLE_EQ(init_std({Init::trunc_normal, 0.3, 2}, 1, 1), 0.6);
}

TEST(Init, moments_of_the_rules) {
  const Ref<Device> device = open_cpu(Mode::real);
  Parameters p;
  p.declare("normal", {300, 200}, {Init::normal, 0.3, 1}, true);
  p.declare("scaled", {300, 200}, {Init::normal, 0.3, 0.25}, true);
  p.declare("xavier", {300, 200}, {Init::xavier}, true);
  p.declare("kaiming", {300, 200}, {Init::kaiming}, true);
  p.declare("vector", {60000}, {Init::normal, 2, 1}, false);
  p.materialize(*device, {}, 7);
  const double stds[] = {0.3, 0.075, std::sqrt(2.0 / 500), std::sqrt(2.0 / 200), 2};
  for (size_t i = 0; i < 5; ++i) expect_moments(p.all()[i].value, stds[i], p.all()[i].name);
}

// Each tap of a kernel counts, as in PyTorch: 48 x 6 inputs of a filter, 80 x 6 outputs of a channel.
TEST(Init, kernels_of_convolutions) {
  const Ref<Device> device = open_cpu(Mode::real);
  Parameters p;
  p.declare("xavier", {80, 48, 3, 2}, {Init::xavier}, true);
  p.declare("kaiming", {80, 48, 3, 2}, {Init::kaiming}, true);
  p.declare("normal", {80, 48, 3, 2}, {Init::normal, 0.3, 1}, true);
  p.materialize(*device, {}, 7);
  const double stds[] = {std::sqrt(2.0 / (80 * 6 + 48 * 6)), std::sqrt(2.0 / (48 * 6)), 0.3};
  for (size_t i = 0; i < 3; ++i) expect_moments(p.all()[i].value, stds[i], p.all()[i].name);
}

// Cut at three standard deviations: nothing beyond, and the variance of what is left is 1 - 6 phi(3) / (2 Phi(3) - 1) of the whole.
TEST(Init, truncated_normal_is_cut_and_keeps_its_shape) {
  const Ref<Device> device = open_cpu(Mode::real);
  Parameters p;
  const double std = 0.4;
  Parameter& w = p.declare("w", {500, 400}, {Init::trunc_normal, std, 1}, true);
  p.materialize(*device, {}, 3);
  const Moments m = moments(w.value.to_vector());
  EXPECT_LE(m.largest, 3 * std * (1 + epsilon(DType::f32)));
  EXPECT_GT(m.largest, 2.9 * std) << "200,000 draws come near the cut";
  const double density = std::exp(-4.5) / std::sqrt(2 * std::numbers::pi), inside = std::erf(3 / std::numbers::sqrt2);
  const double cut = std * std::sqrt(1 - 6 * density / inside);
  expect_moments(w.value, cut, "trunc_normal");
}

TEST(Init, zeros_and_ones) {
  for (const double v : filled({Init::zeros}, {7, 9})) ASSERT_EQ(v, 0);
  for (const double v : filled({Init::ones}, {7, 9})) ASSERT_EQ(v, 1);
  for (const double v : filled({Init::normal, 0, 1}, {7, 9})) ASSERT_EQ(v, 0) << "a standard deviation of 0";
}

// What 16384 inputs of unit variance become: std 128 with N(0, 1) weights, 1 with 1 / sqrt(fan_in).
TEST(Init, keeps_the_scale_of_a_wide_layer) {
  const Ref<Device> device = open_cpu(Mode::real);
  const int64_t in = 16384, out = 64, rows = 16;
  Parameters p;
  Parameter& wide = p.declare("wide", {out, in}, {Init::normal, 1, 1}, true);
  Parameter& scaled = p.declare("scaled", {out, in}, {Init::normal, 1 / std::sqrt(double(in)), 1}, true);
  p.materialize(*device, {}, 5);
  const Tensor x = empty(*device, {{rows, in}, DType::f32});
  fill_normal_(x, 99);
  const NoGrad guard;
  // rows * out outputs: their standard deviation is known to 1 / sqrt(2 n) of itself.
  const double share = 5 / std::sqrt(2.0 * double(rows * out));
  EXPECT_NEAR(std::sqrt(moments(linear(x, wide.value).to_vector()).variance), 128, 128 * share);
  EXPECT_NEAR(std::sqrt(moments(linear(x, scaled.value).to_vector()).variance), 1, share);
}

ModelConfig model(const std::string& preset, InitKind init) {
  ModelConfig c = model_preset(preset);
  c.layers = 3;
  c.d_model = 96;
  c.heads = 4, c.kv_heads = 2, c.head_dim = 24;
  c.d_ff = 256;
  c.vocab = 300;
  c.max_seq_len = 128;
  c.init = init;
  c.init_std = 0.05;
  return c;
}

TEST(Init, decoder_follows_its_configuration) {
  const Ref<Device> device = open_cpu(Mode::real);
  for (const InitKind init : {InitKind::normal, InitKind::xavier, InitKind::kaiming})
    for (const bool residual_scaling : {false, true}) {
      ModelConfig c = model("tiny", init);
      c.residual_scaling = residual_scaling;
      Decoder decoder(c);
      decoder.parameters().materialize(*device, {DType::f32, false}, 11);
      for (const Parameter& p : decoder.parameters().all()) {
        const std::string what = to_string(init) + " " + p.name;
        if (p.shape.rank() == 1) {
          const double expected = p.name.ends_with("weight") ? 1 : 0;
          for (const double v : p.value.to_vector()) ASSERT_EQ(v, expected) << what;
          continue;
        }
        const bool table = p.name == "embed.weight" || p.name == "positions.weight";
        double std = c.init_std;
        if (!table && init == InitKind::xavier) std = std::sqrt(2.0 / double(p.shape[0] + p.shape[1]));
        if (!table && init == InitKind::kaiming) std = std::sqrt(2.0 / double(p.shape[1]));
        const bool into_residual = p.name.ends_with("attn.proj.weight") || p.name.ends_with("mlp.down.weight");
        if (into_residual && residual_scaling) std /= std::sqrt(2.0 * double(c.layers));
        expect_moments(p.value, std, what);
      }
    }
}

// name -> values
std::map<std::string, std::vector<double>> values(Parameters& p) {
  std::map<std::string, std::vector<double>> all;
  for (const Parameter& x : p.all()) all[x.name] = x.value.to_vector();
  return all;
}

TEST(Init, depends_on_seed_name_and_element_only) {
  const Ref<Device> device = open_cpu(Mode::real);
  const auto made = [&](bool reversed, bool decay, uint64_t seed, bool with_more) {
    Parameters p;
    std::vector<std::string> names = {"a.weight", "b.weight", "c.weight"};
    if (reversed) std::reverse(names.begin(), names.end());
    if (with_more) p.declare("another.weight", {33, 5}, {Init::normal}, true);
    for (const std::string& name : names) p.declare(name, {45, 61}, {Init::normal}, decay);
    p.materialize(*device, {}, seed);
    auto all = values(p);
    all.erase("another.weight");
    return all;
  };
  const auto base = made(false, true, 1, false);
  EXPECT_EQ(base, made(true, true, 1, false)) << "the order of declaration";
  EXPECT_EQ(base, made(false, false, 1, false)) << "the bucket";
  EXPECT_EQ(base, made(false, true, 1, true)) << "another parameter";
  for (const auto& [name, other] : made(false, true, 2, false)) EXPECT_NE(base.at(name), other) << "the seed";
  EXPECT_NE(base.at("a.weight"), base.at("b.weight")) << "the name";
  // No draw is used twice: a tensor of 2745 normals has as many different values, but for chance meetings in 24 bits.
  std::vector<double> sorted = base.at("a.weight");
  sorted.insert(sorted.end(), base.at("b.weight").begin(), base.at("b.weight").end());
  std::sort(sorted.begin(), sorted.end());
  const auto repeated = sorted.end() - std::unique(sorted.begin(), sorted.end());
  EXPECT_LT(repeated, 20);
}

TEST(Init, is_the_same_at_any_number_of_threads) {
  const int before = thread_count();
  std::map<std::string, std::vector<double>> one;
  for (const int threads : {1, 2, 5}) {
    set_thread_count(threads);
    const Ref<Device> device = open_cpu(Mode::real);
    Decoder decoder(model("llama-3-8b", InitKind::trunc_normal));
    decoder.parameters().materialize(*device, {DType::f32, false}, 4);
    if (threads == 1) one = values(decoder.parameters());
    EXPECT_TRUE(values(decoder.parameters()) == one) << threads << " threads";
  }
  set_thread_count(before);
}

// With split storage the same float32 values are there, exactly, and the model computes with the nearest bf16.
TEST(Init, split_storage_holds_the_float32_start) {
  const Ref<Device> device = open_cpu(Mode::real);
  const ModelConfig c = model("tiny", InitKind::normal);
  Decoder wide(c), split(c), narrow(c);
  wide.parameters().materialize(*device, {DType::f32, true}, 9);
  split.parameters().materialize(*device, {DType::bf16, true}, 9);
  narrow.parameters().materialize(*device, {DType::bf16, false}, 9);
  for (size_t b = 0; b < wide.parameters().buckets().size(); ++b) {
    const Bucket &w = wide.parameters().buckets()[b], &s = split.parameters().buckets()[b];
    const Tensor joined = empty(*device, {{s.numel}, DType::f32});
    join_master_(joined, s.values, s.residual);
    EXPECT_TRUE(joined.to_vector() == w.values.to_vector());
    const std::vector<double> low = s.values.to_vector(), plain = narrow.parameters().buckets()[b].values.to_vector(), high = w.values.to_vector();
    for (size_t i = 0; i < low.size(); ++i) {
      ASSERT_LE(std::abs(low[i] - high[i]), epsilon(DType::bf16) / 2 * std::abs(high[i]));
      ASSERT_LE(std::abs(plain[i] - high[i]), epsilon(DType::bf16) * std::abs(high[i])) << "without training there is no residual plane";
    }
  }
}
}  // namespace
}  // namespace reckon
