// Flat buckets: where each parameter lies, what is refused, and how gradients are emptied.
#include "reckon/nn/parameters.h"

#include <gtest/gtest.h>

#include <array>
#include <set>

#include "reckon/backend/cpu/device.h"
#include "reckon/engine/backward.h"
#include "reckon/nn/decoder.h"

namespace reckon {
namespace {
TEST(Parameters, lie_in_two_aligned_buckets_in_module_order) {
  const Ref<Device> device = open_cpu(Mode::meta);
  Parameters p;
  p.declare("a.weight", {3, 5}, {}, true);
  p.declare("a.bias", {3}, {}, false);
  p.declare("b.weight", {2, 32}, {}, true);
  p.declare("b.bias", {2}, {}, false);
  p.declare("c.weight", {1, 1}, {}, true);
  EXPECT_EQ(p.count(), 15 + 3 + 64 + 2 + 1);
  p.materialize(*device, {}, 1);
  ASSERT_EQ(p.buckets().size(), 2u);
  EXPECT_TRUE(p.buckets()[0].decay);
  EXPECT_FALSE(p.buckets()[1].decay);
  EXPECT_EQ(p.buckets()[0].numel, 32 + 64 + 32);
  EXPECT_EQ(p.buckets()[1].numel, 32 + 32);
  EXPECT_EQ(p.find("a.weight")->offset, 0);
  EXPECT_EQ(p.find("b.weight")->offset, 32);
  EXPECT_EQ(p.find("c.weight")->offset, 96);
  EXPECT_EQ(p.find("b.bias")->offset, 32);
  EXPECT_EQ(p.find("b.bias")->bucket, 1);
  EXPECT_EQ(p.find("d"), nullptr);
  EXPECT_EQ(&p.at("c.weight"), p.find("c.weight"));
  try {
    p.at("c.weihgt");
    ADD_FAILURE() << "found what is not there";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("'c.weight'"), std::string::npos) << e.what();
  }
  for (const Parameter& x : p.all()) {
    EXPECT_EQ(x.value.shape(), x.shape);
    EXPECT_TRUE(x.value.is_contiguous());
    EXPECT_TRUE(x.value.same_storage(p.buckets()[size_t(x.bucket)].values));
    EXPECT_EQ(x.offset % kParameterAlignment, 0);
    EXPECT_TRUE(x.value.requires_grad());
  }
}

// Parameters whose optimizer states are cut into blocks are whole blocks, in buckets of their own.
TEST(Parameters, that_are_large_lie_in_quantized_buckets) {
  const Ref<Device> device = open_cpu(Mode::meta);
  Parameters p;
  p.declare("small.weight", {5, 7}, {}, true);
  p.declare("a.weight", {64, 64}, {}, true);
  p.declare("a.bias", {4096}, {}, false);
  p.declare("b.weight", {83, 50}, {}, true);
  p.declare("b.bias", {4095}, {}, false);
  p.materialize(*device, {.quantized_from = 4096}, 1);
  ASSERT_EQ(p.buckets().size(), 4u);
  const std::vector<std::array<int64_t, 3>> expected = {
      {true, true, 4096 + 4352}, {true, false, 64}, {false, true, 4096}, {false, false, 4096}};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(p.buckets()[i].decay, bool(expected[i][0])) << i;
    EXPECT_EQ(p.buckets()[i].quantized, bool(expected[i][1])) << i;
    EXPECT_EQ(p.buckets()[i].numel, expected[i][2]) << i;
  }
  EXPECT_EQ(p.find("b.weight")->offset, 4096);
  EXPECT_EQ(p.find("b.weight")->padded, 4352);
  EXPECT_EQ(p.find("small.weight")->padded, 64);
}

TEST(Parameters, take_the_memory_of_their_storage) {
  struct Row {
    DType dtype;
    bool training;
    int64_t parameter, gradient, master;  // bytes an element
    bool keeps_master = true;
  };
  for (const Row& row : {Row{DType::f32, true, 4, 4, 0}, Row{DType::f64, true, 8, 8, 0}, Row{DType::bf16, true, 2, 4, 2},
                         Row{DType::bf16, false, 2, 0, 0}, Row{DType::f16, true, 2, 4, 4}, Row{DType::f16, false, 2, 0, 0},
                         Row{DType::f32, false, 4, 0, 0}, Row{DType::bf16, true, 2, 4, 0, false}}) {
    const Ref<Device> device = open_cpu(Mode::meta);
    Parameters p;
    p.declare("w", {64, 64}, {Init::normal}, true);
    p.materialize(*device, {row.dtype, row.training, row.keeps_master}, 1);
    const Ledger& ledger = device->allocator().ledger();
    EXPECT_EQ(ledger.live_by_category[size_t(Category::parameter)], 4096 * row.parameter);
    EXPECT_EQ(ledger.live_by_category[size_t(Category::gradient)], 4096 * row.gradient);
    EXPECT_EQ(ledger.live_by_category[size_t(Category::master)], 4096 * row.master);
    EXPECT_EQ(ledger.live, 4096 * (row.parameter + row.gradient + row.master));
    EXPECT_EQ(p.dtype(), row.dtype);
    EXPECT_EQ(p.find("w")->value.requires_grad(), row.training);
  }
}

template <class Body>
std::string refusal(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Parameters, refuse_doubles_late_comers_and_early_questions) {
  const Ref<Device> device = open_cpu(Mode::meta);
  Parameters p;
  p.declare("w", {2}, {}, true);
  EXPECT_NE(refusal([&] { p.declare("w", {3}, {}, true); }).find("w is declared twice"), std::string::npos);
  EXPECT_NE(refusal([&] { p.dtype(); }).find("no storage"), std::string::npos);
  p.materialize(*device, {}, 1);
  EXPECT_NE(refusal([&] { p.declare("late", {3}, {}, true); }).find("late is declared after"), std::string::npos);
}

// zero_grad keeps the memory and forgets the contents: the next backward pass overwrites, the one after adds.
TEST(Parameters, empty_gradients_are_overwritten_and_filled_ones_added_to) {
  const Ref<Device> device = open_cpu(Mode::real);
  Parameters p;
  Parameter& w = p.declare("w", {2, 3}, {Init::ones}, true);
  p.materialize(*device, {}, 1);
  const std::vector<float> numbers = {1, 2, 3};
  const Tensor x = from_values<float>(*device, {1, 3}, numbers);
  const auto once = [&] { backward(sum(linear(x, w.value))); };
  once();
  const std::vector<double> one = {1, 2, 3, 1, 2, 3}, two = {2, 4, 6, 2, 4, 6};
  EXPECT_EQ(w.value.grad().to_vector(), one);
  EXPECT_TRUE(w.value.grad().same_storage(p.buckets()[0].gradients));
  once();
  EXPECT_EQ(w.value.grad().to_vector(), two);
  p.zero_grad();
  once();
  EXPECT_EQ(w.value.grad().to_vector(), one);
}

TEST(Decoder, declares_every_parameter_the_configuration_counts) {
  for (const std::string& name : model_preset_names()) {
    const ModelConfig c = model_preset(name);
    if (c.cruncher) {
      EXPECT_EQ(Cruncher(c).parameters().count(), parameter_count(c));
      continue;
    }
    Decoder decoder(c);
    EXPECT_EQ(decoder.parameters().count(), parameter_count(c)) << name;
    std::set<std::string> names;
    for (const Parameter& p : decoder.parameters().all()) {
      EXPECT_TRUE(names.insert(p.name).second) << p.name;
      EXPECT_EQ(p.decay, p.shape.rank() == 2) << p.name;
    }
    EXPECT_EQ(names.count("head.weight"), c.tied_head ? 0u : 1u) << name;
    EXPECT_EQ(names.count("positions.weight"), c.position == PositionKind::learned ? 1u : 0u) << name;
    EXPECT_EQ(names.count("blocks.0.attn.q_norm.weight"), c.qk_norm ? 1u : 0u) << name;
  }
}
}  // namespace
}  // namespace reckon
