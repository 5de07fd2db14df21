// Sampling: what temperature, top-k and top-p let through and how often; and that a text depends on the seed and on nothing else.
#include "reckon/train/generate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/parallel.h"
#include "reckon/base/philox.h"
#include "reckon/engine/context.h"

namespace reckon {
namespace {
const std::vector<float> kLogits = {0.5f, 2.0f, -1.0f, 2.0f, 1.0f};  // token 1 ties with token 3

// Shares of the tokens over an even grid of draws: exact to one part in `kDraws`.
constexpr int kDraws = 20000;
std::map<int32_t, double> shares(const std::vector<float>& logits, const SamplingOptions& o) {
  std::map<int32_t, double> share;
  for (int i = 0; i < kDraws; ++i) share[sample_token(logits, o, (i + 0.5) / kDraws)] += 1.0 / kDraws;
  return share;
}
std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  for (const float x : logits) p.push_back(std::exp(double(x) / temperature));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= sum;
  return p;
}

TEST(Sampling, temperature_zero_takes_the_likeliest_and_the_lower_of_two) {
  for (const double draw : {0.0, 0.3, 0.999999}) {
    EXPECT_EQ(sample_token(kLogits, {.temperature = 0}, draw), 1);
    EXPECT_EQ(sample_token(kLogits, {.temperature = 0, .top_k = 3, .top_p = 0.1}, draw), 1);
  }
  EXPECT_EQ(sample_token(std::vector<float>{-3.0f}, {.temperature = 0}, 0.5), 0);
}

TEST(Sampling, frequencies_are_the_softmax_at_the_temperature) {
  for (const double temperature : {0.5, 1.0, 3.0}) {
    const std::vector<double> expected = softmax(kLogits, temperature);
    auto got = shares(kLogits, {.temperature = temperature});
    for (size_t i = 0; i < kLogits.size(); ++i) EXPECT_NEAR(got[int32_t(i)], expected[i], 1.0 / kDraws + 1e-12) << "token " << i << " at " << temperature;
  }
}

TEST(Sampling, top_k_lets_the_k_likeliest_through_in_proportion) {
  auto got = shares(kLogits, {.temperature = 1, .top_k = 3});
  EXPECT_EQ(got.size(), 3u);
  const std::vector<double> p = softmax(kLogits, 1);
  const double mass = p[1] + p[3] + p[4];
  for (const int32_t id : {1, 3, 4}) EXPECT_NEAR(got[id], p[size_t(id)] / mass, 1.0 / kDraws + 1e-12);
  const auto one = shares(kLogits, {.temperature = 1, .top_k = 1});
  EXPECT_EQ(one.size(), 1u);
  EXPECT_EQ(one.count(1), 1u);
  EXPECT_EQ(shares(kLogits, {.temperature = 1, .top_k = 2}).size(), 2u);
  EXPECT_EQ(shares(kLogits, {.temperature = 1, .top_k = 100}), shares(kLogits, {.temperature = 1}));
}

TEST(Sampling, top_p_lets_the_smallest_likeliest_set_through_that_reaches_p) {
  const std::vector<double> p = softmax(kLogits, 1);
  const double two = p[1] + p[3], three = two + p[4];
  EXPECT_EQ(shares(kLogits, {.temperature = 1, .top_p = two - 1e-6}).size(), 2u);
  EXPECT_EQ(shares(kLogits, {.temperature = 1, .top_p = two + 1e-6}).size(), 3u);
  EXPECT_EQ(shares(kLogits, {.temperature = 1, .top_p = 1e-9}).size(), 1u) << "the likeliest always stays";
  EXPECT_EQ(shares(kLogits, {.temperature = 1, .top_p = 0}).size(), 1u);
  EXPECT_EQ(shares(kLogits, {.temperature = 1, .top_p = 1}).size(), 5u);
  auto got = shares(kLogits, {.temperature = 1, .top_p = two + 1e-6});
  for (const int32_t id : {1, 3, 4}) EXPECT_NEAR(got[id], p[size_t(id)] / three, 1.0 / kDraws + 1e-12);
  // p is a share of what top-k left.
  const double of_three = p[1] / three;
  EXPECT_EQ(shares(kLogits, {.temperature = 1, .top_k = 3, .top_p = of_three - 1e-6}).size(), 1u);
  EXPECT_EQ(shares(kLogits, {.temperature = 1, .top_k = 3, .top_p = of_three + 1e-6}).size(), 2u);
}

TEST(Sampling, edges) {
  EXPECT_EQ(sample_token(kLogits, {.temperature = 1e-3}, 0.999), 3) << "equally likely: the upper half of the draws";
  EXPECT_EQ(sample_token(kLogits, {.temperature = 1e-3}, 0.001), 1);
  const std::vector<float> extreme = {-1e30f, 3e38f, 0.0f};
  for (const double draw : {0.0, 0.5, 0.99999999}) EXPECT_EQ(sample_token(extreme, {.temperature = 1}, draw), 1);
  const std::vector<float> flat(7, 0.0f);
  EXPECT_EQ(sample_token(flat, {.temperature = 1}, 0.0), 0);
  EXPECT_EQ(sample_token(flat, {.temperature = 1}, std::nextafter(1.0, 0.0)), 6);
}

LoadedModel small_model(Device& device, const std::string& position, DType dtype = DType::f32) {
  LoadedModel m;
  ModelConfig& c = m.config.model;
  c = model_preset(position == "rope" ? "llama-3-8b" : "tiny");
  c.layers = 2;
  c.d_model = 48;
  c.heads = 4, c.kv_heads = position == "rope" ? 2 : 4, c.head_dim = 12;
  c.d_ff = 64;
  c.vocab = 90;
  c.max_seq_len = 24;
  c.init_std = 0.3;
  m.decoder = std::make_unique<Decoder>(c);
  m.decoder->parameters().materialize(device, {dtype, false}, 6);
  return m;
}
std::vector<int32_t> text_of(const LoadedModel& m, Device& device, const std::vector<int32_t>& prompt, int64_t tokens, const SamplingOptions& o) {
  std::vector<int32_t> out;
  const auto sink = [](void* user, int32_t id) {
    static_cast<std::vector<int32_t>*>(user)->push_back(id);
    return true;
  };
  const GenerationResult r = generate(m, device, prompt, tokens, o, sink, &out);
  EXPECT_EQ(r.tokens, int64_t(out.size()));
  return out;
}

// The way without a cache: the logits of the whole text so far, for each token again.
std::vector<int32_t> by_whole_sequences(const LoadedModel& m, Device& device, std::vector<int32_t> text, int64_t tokens, const SamplingOptions& o) {
  const NoGrad guard;
  const size_t prompt = text.size();
  for (int64_t i = 0; i < tokens; ++i) {
    const std::vector<double> all = m.decoder->logits(from_values<int32_t>(device, {1, int64_t(text.size())}, text)).to_vector();
    const std::vector<float> last(all.end() - m.config.model.vocab, all.end());
    const auto words = philox(mix_key(o.seed, 0x73616D706C65), 0, uint64_t(i));
    text.push_back(sample_token(last, o, uniform_double(words[0], words[1])));
  }
  return {text.begin() + long(prompt), text.end()};
}

class Generation : public ::testing::TestWithParam<const char*> {};

TEST_P(Generation, is_what_whole_sequences_give) {
  const Ref<Device> device = open_cpu(Mode::real);
  const LoadedModel m = small_model(*device, GetParam());
  for (const SamplingOptions& o : {SamplingOptions{.temperature = 0}, SamplingOptions{.temperature = 1, .seed = 4}, SamplingOptions{.temperature = 0.7, .top_k = 9, .top_p = 0.8, .seed = 5}})
    EXPECT_EQ(text_of(m, *device, {7, 8, 9}, 20, o), by_whole_sequences(m, *device, {7, 8, 9}, 20, o));
}

TEST_P(Generation, depends_on_the_seed_and_not_on_threads_or_on_how_much_is_asked) {
  const Ref<Device> device = open_cpu(Mode::real);
  const LoadedModel m = small_model(*device, GetParam());
  const SamplingOptions o{.temperature = 1.5, .seed = 3};
  const std::vector<int32_t> base = text_of(m, *device, {1, 2}, 20, o);
  EXPECT_EQ(text_of(m, *device, {1, 2}, 20, o), base);
  SamplingOptions other = o;
  other.seed = 4;
  EXPECT_NE(text_of(m, *device, {1, 2}, 20, other), base);
  const int before = thread_count();
  for (const int threads : {1, 5}) {
    set_thread_count(threads);
    EXPECT_EQ(text_of(m, *device, {1, 2}, 20, o), base) << threads << " threads";
  }
  set_thread_count(before);
  const std::vector<int32_t> shorter = text_of(m, *device, {1, 2}, 8, o);
  EXPECT_TRUE(std::equal(shorter.begin(), shorter.end(), base.begin())) << "the first tokens do not depend on how many follow";
}

TEST_P(Generation, goes_on_beyond_what_the_model_can_see) {
  const Ref<Device> device = open_cpu(Mode::real);
  const LoadedModel m = small_model(*device, GetParam());
  const std::vector<int32_t> out = text_of(m, *device, {1, 2, 3}, 100, {.temperature = 1, .seed = 8});
  EXPECT_EQ(out.size(), 100u);
  for (const int32_t id : out) EXPECT_TRUE(id >= 0 && id < 90);
  EXPECT_EQ(text_of(m, *device, {1, 2, 3}, 100, {.temperature = 1, .seed = 8}), out);
  std::vector<int32_t> long_prompt(60);
  std::iota(long_prompt.begin(), long_prompt.end(), 0);
  EXPECT_EQ(text_of(m, *device, long_prompt, 30, {.temperature = 1, .seed = 8}).size(), 30u);
  // A cut prompt is its end.
  EXPECT_EQ(text_of(m, *device, long_prompt, 1, {.temperature = 0}), text_of(m, *device, {long_prompt.end() - 23, long_prompt.end()}, 1, {.temperature = 0}));
}

TEST_P(Generation, of_one_token_and_a_sink_that_stops) {
  const Ref<Device> device = open_cpu(Mode::real);
  const LoadedModel m = small_model(*device, GetParam(), DType::bf16);
  EXPECT_EQ(text_of(m, *device, {5}, 1, {}).size(), 1u);
  int64_t seen = 0;
  const auto three = [](void* user, int32_t) { return ++*static_cast<int64_t*>(user) < 3; };
  const std::vector<int32_t> prompt = {5};
  EXPECT_EQ(generate(m, *device, prompt, 50, {}, three, &seen).tokens, 3);
  EXPECT_EQ(seen, 3);
}
INSTANTIATE_TEST_SUITE_P(Models, Generation, ::testing::Values("learned", "rope"));

TEST(GenerationErrors, say_what_is_wrong) {
  const Ref<Device> device = open_cpu(Mode::real);
  const LoadedModel m = small_model(*device, "learned");
  const auto refusal = [&](const std::vector<int32_t>& prompt) -> std::string {
    try {
      text_of(m, *device, prompt, 3, {});
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(refusal({}).find("at least one token"), std::string::npos);
  EXPECT_NE(refusal({3, 90}).find("token 90 is outside the model's vocabulary of 90"), std::string::npos);
  EXPECT_NE(refusal({-1}).find("-1"), std::string::npos);
  EXPECT_EQ(refusal({89}), "");

  Parameter& p = *m.decoder->parameters().find("blocks.1.mlp.down.bias");
  const std::vector<float> bad(size_t(p.shape.numel()), NAN);
  p.value.write(bad.data(), int64_t(bad.size() * sizeof(float)));
  EXPECT_NE(refusal({1}).find("not usable"), std::string::npos);
}
}  // namespace
}  // namespace reckon
