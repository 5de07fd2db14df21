// The decoder as generation sees it: tokens fed through a KV cache, in any pieces, give the logits of the whole sequence.
#include "reckon/nn/decoder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/parallel.h"
#include "reckon/base/philox.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "tests/nn/small_models.h"

namespace reckon {
namespace {
ModelConfig architecture(const std::string& name) { return test::architecture(name, 3); }

using test::some_tokens;

struct Model {
  Model(const ModelConfig& c, DType dtype) : device(open_cpu(Mode::real)), decoder(c) {
    decoder.parameters().materialize(*device, {dtype, false}, 5);
  }
  // [B, T, V]
  std::vector<double> whole(const std::vector<int32_t>& ids, int64_t B = 1) {
    const NoGrad guard;
    return decoder.logits(from_values<int32_t>(*device, {B, int64_t(ids.size()) / B}, ids)).to_vector();
  }
  Ref<Device> device;
  Decoder decoder;
};

// Logits of the last token of each piece of `tokens` [B, T], fed one after another.
std::vector<std::vector<double>> in_pieces(Model& m, const std::vector<int32_t>& ids, int64_t B, const std::vector<int64_t>& pieces,
                                           DType dtype) {
  const NoGrad guard;
  const int64_t T = int64_t(ids.size()) / B;
  KvCache cache(*m.device, m.decoder.config(), B, T + 3, dtype);
  std::vector<std::vector<double>> all;
  int64_t at = 0;
  for (const int64_t n : pieces) {
    std::vector<int32_t> part, places(static_cast<size_t>(n));
    for (int64_t b = 0; b < B; ++b) part.insert(part.end(), ids.begin() + b * T + at, ids.begin() + b * T + at + n);
    std::iota(places.begin(), places.end(), int32_t(at));
    cache.position.write(&at, sizeof at);
    all.push_back(m.decoder.next_logits(from_values<int32_t>(*m.device, {B, n}, part), from_values<int32_t>(*m.device, {n}, places), cache)
                      .to_vector());
    at += n;
  }
  EXPECT_EQ(at, T);
  return all;
}

double max_abs(const std::vector<double>& x) {
  return std::accumulate(x.begin(), x.end(), 0.0, [](double most, double v) { return std::max(most, std::abs(v)); });
}

struct Case {
  const char* model;
  DType dtype;
};
class KvCaches : public ::testing::TestWithParam<Case> {};

// About eight operations of a layer store rounded activations; sums over d_model are rounded in the type of statistics. Both walk randomly.
double tolerance(const ModelConfig& c, DType dtype, const std::vector<double>& logits) {
  const double stored = std::sqrt(8.0 * double(c.layers)) * epsilon(dtype);
  const double summed = 2 * double(c.layers) * std::sqrt(double(c.d_model)) * epsilon(statistics_dtype(dtype));
  return (stored + summed) * max_abs(logits);
}

TEST_P(KvCaches, give_the_logits_of_the_whole_sequence) {
  const ModelConfig c = architecture(GetParam().model);
  Model m(c, GetParam().dtype);
  const int64_t B = 2, T = 29, V = c.vocab;
  const std::vector<int32_t> ids = some_tokens(B * T, V);
  const std::vector<double> expected = m.whole(ids, B);
  const double allowed = tolerance(c, GetParam().dtype, expected);
  EXPECT_LT(allowed, 0.2 * max_abs(expected)) << "a tolerance that would let anything pass";
  for (const std::vector<int64_t>& pieces : {std::vector<int64_t>(size_t(T), 1), {T}, {5, 1, 1, 7, 1, 14}, {28, 1}}) {
    const auto got = in_pieces(m, ids, B, pieces, GetParam().dtype);
    int64_t at = 0;
    for (size_t piece = 0; piece < pieces.size(); ++piece) {
      at += pieces[piece];
      ASSERT_EQ(got[piece].size(), size_t(B * V));
      for (int64_t b = 0; b < B; ++b)
        for (int64_t v = 0; v < V; ++v)
          ASSERT_NEAR(got[piece][size_t(b * V + v)], expected[size_t((b * T + at - 1) * V + v)], allowed)
              << "position " << at - 1 << " of row " << b << ", token " << v;
    }
  }
}

// A position must see the tokens before it, and none after.
TEST_P(KvCaches, logits_depend_on_the_past_only) {
  const ModelConfig c = architecture(GetParam().model);
  Model m(c, GetParam().dtype);
  std::vector<int32_t> ids = some_tokens(20, c.vocab);
  const std::vector<double> before = m.whole(ids);
  ids[11] = (ids[11] + 1) % int32_t(c.vocab);
  const std::vector<double> after = m.whole(ids);
  for (int64_t t = 0; t < 20; ++t) {
    const auto row = [&](const std::vector<double>& all) {
      return std::vector<double>(all.begin() + t * c.vocab, all.begin() + (t + 1) * c.vocab);
    };
    EXPECT_EQ(row(before) == row(after), t < 11) << "position " << t << (t < 11 ? " saw the future" : " does not see token 11");
  }
}
// One layer hands a token on to the window - 1 tokens after it.
TEST(Decoder, a_window_ends_what_a_layer_sees) {
  ModelConfig c = architecture("mistral");
  c.layers = 1;
  Model m(c, DType::f64);
  std::vector<int32_t> ids = some_tokens(20, c.vocab);
  const std::vector<double> before = m.whole(ids);
  ids[3] = (ids[3] + 1) % int32_t(c.vocab);
  const std::vector<double> after = m.whole(ids);
  for (int64_t t = 0; t < 20; ++t) {
    const bool same = std::equal(before.begin() + t * c.vocab, before.begin() + (t + 1) * c.vocab, after.begin() + t * c.vocab);
    EXPECT_EQ(same, t < 3 || t >= 3 + c.sliding_window) << "position " << t;
  }
}
INSTANTIATE_TEST_SUITE_P(Models, KvCaches,
                         ::testing::Values(Case{"mistral", DType::f64}, Case{"mistral", DType::bf16}, Case{"gpt2", DType::f64},
                                           Case{"llama", DType::f64}, Case{"qwen", DType::f64}, Case{"gpt2", DType::f32},
                                           Case{"llama", DType::f32}, Case{"qwen", DType::f32}, Case{"gpt2", DType::bf16},
                                           Case{"llama", DType::bf16}, Case{"qwen", DType::bf16}),
                         [](const auto& info) { return std::string(info.param.model) + "_" + to_string(info.param.dtype); });

TEST(Decoder, refuses_what_its_position_table_cannot_hold) {
  ModelConfig c = architecture("gpt2");
  Model m(c, DType::f32);
  try {
    m.whole(some_tokens(c.max_seq_len + 1, c.vocab));
    FAIL() << "nothing was refused";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("model.max_seq_len"), std::string::npos) << error.what();
  }
  m.whole(some_tokens(c.max_seq_len, c.vocab));
}

// An untrained model of small weights predicts nearly nothing: the loss is off log V by at most the spread of the logits.
TEST(Decoder, starts_near_the_uniform_loss) {
  ModelConfig c = architecture("gpt2");
  c.init_std = 0.001;
  Model m(c, DType::f32);
  const NoGrad guard;
  const std::vector<int32_t> ids = some_tokens(40, c.vocab);
  const double spread = 2 * max_abs(m.whole(ids, 2));
  EXPECT_LT(spread, 0.2);
  const Tensor tokens = from_values<int32_t>(*m.device, {2, 20}, ids);
  EXPECT_NEAR(m.decoder.loss(tokens, tokens).item(), std::log(double(c.vocab)), spread);
}
}  // namespace
}  // namespace reckon
