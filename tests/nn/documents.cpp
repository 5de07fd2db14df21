// Rows that hold several documents: the decoder gives what it gives for each document alone, whatever positions it has, and however it
// attends.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <numeric>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/philox.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/nn/decoder.h"
#include "tests/nn/small_models.h"

namespace reckon {
namespace {
constexpr int64_t kB = 2, kT = 40;
const std::vector<std::vector<int64_t>> kLengths = {{7, 1, 20, 12}, {1, 1, 38}};

ModelConfig architecture(const std::string& name) { return test::architecture(name, 2); }

struct Gradients {
  double loss = 0;  // summed over the tokens
  std::map<std::string, std::vector<double>> of;
};

class Model {
 public:
  explicit Model(const ModelConfig& c, bool plain = false) : device_(open_cpu(Mode::real)), decoder_(c) {
    decoder_.set_plain_attention(plain);
    decoder_.parameters().materialize(*device_, {DType::f64, true}, 5);
    ids_ = test::some_tokens(kB * kT, c.vocab);
    targets_ = test::some_tokens(kB * kT, c.vocab, 3);
    is_learned_ = c.position == PositionKind::learned;
  }

  Gradients alone() {
    decoder_.parameters().zero_grad();
    Gradients g;
    int64_t at = 0;
    for (const auto& row : kLengths)
      for (const int64_t length : row) {
        const auto part = [&](const std::vector<int32_t>& all) {
          return from_values<int32_t>(*device_, {1, length}, std::span(all).subspan(size_t(at), size_t(length)));
        };
        const Tensor loss = decoder_.loss(part(ids_), part(targets_));
        backward(loss, full(*device_, {Shape{}, DType::f64}, double(length)));
        g.loss += loss.item() * double(length);
        at += length;
      }
    return with_gradients(std::move(g));
  }
  Gradients packed(int64_t chunk, const RecomputePolicy& recompute = {}) {
    decoder_.parameters().zero_grad();
    std::vector<int32_t> first, positions;
    for (const auto& row : kLengths) {
      int32_t start = 0;
      for (const int64_t length : row) {
        for (int32_t i = 0; i < length; ++i) first.push_back(start), positions.push_back(i);
        start += int32_t(length);
      }
    }
    Documents documents{from_values<int32_t>(*device_, {kB, kT}, first), {}};
    if (is_learned_) documents.positions = from_values<int32_t>(*device_, {kB, kT}, positions);
    const Tensor tokens = from_values<int32_t>(*device_, {kB, kT}, ids_), targets = from_values<int32_t>(*device_, {kB, kT}, targets_);
    const Tensor seed = full(*device_, {Shape{}, DType::f64}, double(kB * kT));
    Gradients g;
    if (chunk > 0) {
      g.loss = decoder_.loss_and_backward_in_chunks(tokens, targets, seed, chunk, recompute, true, documents).item();
      const double once = decoder_.loss_in_chunks(tokens, targets, chunk, true, documents).item();
      EXPECT_NEAR(once, g.loss, 1e-12 * once);
    } else {
      const Tensor loss = decoder_.loss(tokens, targets, {}, false, documents);
      backward(loss, seed);
      g.loss = loss.item();
    }
    g.loss *= double(kB * kT);
    return with_gradients(std::move(g));
  }

 private:
  Gradients with_gradients(Gradients g) const {
    for (const Parameter& p : const_cast<Decoder&>(decoder_).parameters().all()) g.of[p.name] = p.value.grad().to_vector();
    return g;
  }
  Ref<Device> device_;
  Decoder decoder_;
  std::vector<int32_t> ids_, targets_;
  bool is_learned_ = false;
};

void expect_close(const Gradients& ours, const Gradients& theirs) {
  EXPECT_NEAR(ours.loss, theirs.loss, 1e-12 * theirs.loss);
  for (const auto& [name, want] : theirs.of) {
    double most = 0, worst = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      most = std::max(most, std::abs(want[i]));
      worst = std::max(worst, std::abs(want[i] - ours.of.at(name)[i]));
    }
    EXPECT_GT(most, 0) << name;
    EXPECT_LE(worst, 1e-10 * most) << name;
  }
}

class PackedDocuments : public ::testing::TestWithParam<const char*> {};
TEST_P(PackedDocuments, GiveWhatEachGivesAlone) {
  const ModelConfig c = architecture(GetParam());
  const Gradients alone = Model(c).alone();
  expect_close(Model(c).packed(0), alone);
  expect_close(Model(c, true).packed(0), alone);
  for (const int64_t chunk : {7, 16, 39}) expect_close(Model(c).packed(chunk), alone);
  expect_close(Model(c).packed(16, RecomputePolicy(2, {BlockRecompute::full, 1})), alone);
}
INSTANTIATE_TEST_SUITE_P(Models, PackedDocuments, ::testing::Values("gpt2", "llama", "qwen", "mistral"));

TEST(PackedDecoder, LearnedPositionsMustBeginAnewWithEachDocument) {
  const Ref<Device> device = open_cpu(Mode::meta);
  for (const char* name : {"gpt2", "llama"}) {
    Decoder decoder(architecture(name));
    decoder.parameters().materialize(*device, {DType::f32, true}, 5);
    const Tensor ids = empty(*device, {{1, 8}, DType::i32});
    const bool is_learned = name == std::string("gpt2");
    const Documents right{ids, is_learned ? ids : Tensor()}, wrong{ids, is_learned ? Tensor() : ids};
    decoder.hidden(ids, {}, right);
    EXPECT_THROW(decoder.hidden(ids, {}, wrong), Error);
    EXPECT_THROW(decoder.loss_in_chunks(ids, ids, 3, true, wrong), Error);
  }
}
}  // namespace
}  // namespace reckon
