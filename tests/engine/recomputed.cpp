// Results that are made again where backward needs them: the same bits, their memory gone in between, each made once for all who need it.
#include <algorithm>

#include "reckon/engine/node.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {
constexpr int64_t kRows = 96, kWidth = 40, kBytes = kRows * kWidth * 4;

Tensor random(Device& device, const Shape& shape, uint64_t key, bool wants_gradient = true) {
  Tensor t = empty(device, {shape, DType::f32});
  fill_normal_(t, key, 0, 0.5);
  if (wants_gradient) t.set_requires_grad();
  return t;
}

struct Result {
  std::vector<Values> gradients;
  int64_t kept = 0, peak = 0;  // bytes: after the forward pass, of the whole
  Flops flops;
  std::vector<MeterRow> rows;
  int64_t calls(const char* op, bool recomputed) const {
    int64_t sum = 0;
    for (const MeterRow& r : rows) sum += std::string_view(r.op) == op && r.recomputed == recomputed ? r.calls : 0;
    return sum;
  }
};

using Model = Tensor (*)(const Tensors& leaves, bool recomputed);

// Gradients of all leaves and what they took; x [rows, width] and weights of all shapes that the models use.
Result run(Model model, bool recomputed, bool in_checkpoint = false) {
  const Ref<Device> device = open_cpu(Mode::real);
  const Tensors leaves = {random(*device, {kRows, kWidth}, 1), random(*device, {kWidth}, 2), random(*device, {kWidth}, 3),
                          random(*device, {kWidth, kWidth}, 4), random(*device, {kWidth, kWidth}, 5)};
  const int64_t before = device->allocator().ledger().live;
  Meter meter;
  Result r;
  {
    const MeterScope scope(meter);
    Tensor loss;
    {
      const PhaseScope phase(*device, Phase::forward);
      loss = in_checkpoint ? checkpoint([=](const Tensors& in) { return model(in, recomputed); }, leaves) : model(leaves, recomputed);
    }
    r.kept = device->allocator().ledger().live - before;
    const PhaseScope phase(*device, Phase::backward);
    backward(loss);
  }
  for (const Tensor& t : leaves) r.gradients.push_back(t.grad().defined() ? t.grad().to_vector() : Values());
  r.peak = device->allocator().ledger().peak;
  r.flops = meter.total();
  r.rows = meter.rows();
  return r;
}

// norm -> two products, which both keep it.
Tensor shared_norm(const Tensors& t, bool recomputed) {
  Tensor y;
  {
    const Recomputed scope(recomputed);
    y = layer_norm(t[0], t[1], t[2], 1e-5);
  }
  const Tensor a = linear(y, t[3]), b = linear(y, t[4]);
  y = Tensor();
  return sum(mul(a, b));
}

// norm -> activation -> product: a chain, whose middle is kept by its own rule too.
Tensor chain(const Tensors& t, bool recomputed) {
  const Tensor x = linear(t[0], t[3]);
  Tensor y;
  {
    const Recomputed scope(recomputed);
    y = gelu(rms_norm(x, t[1], 1e-5));
  }
  return sum(square(linear(y, t[4])));
}

// Rules that read their own output; a view on the way.
Tensor own_output(const Tensors& t, bool recomputed) {
  Tensor y;
  {
    const Recomputed scope(recomputed);
    y = reshape(tanh(softmax(t[0])), {kRows / 2, 2 * kWidth});
  }
  return sum(square(y));
}

// Rules that read an input and an output, which nobody else keeps.
Tensor input_and_output(const Tensors& t, bool recomputed) {
  const Tensor packed = reshape(t[0], {2, kRows / 2, kWidth});
  Tensor y, z;
  {
    const Recomputed scope(recomputed);
    y = attention(packed, 3, 1, kWidth / 5);
    z = max(t[0], {1});
  }
  return add(sum(y), sum(z));
}

void expect_same_gradients(const Result& a, const Result& b) {
  ASSERT_EQ(a.gradients.size(), b.gradients.size());
  for (size_t i = 0; i < a.gradients.size(); ++i) EXPECT_EQ(a.gradients[i], b.gradients[i]) << "of leaf " << i;
}

TEST(Recomputed, GivesTheSameBits) {
  for (const Model model : {shared_norm, chain, own_output, input_and_output})
    for (const bool in_checkpoint : {false, true}) expect_same_gradients(run(model, false, in_checkpoint), run(model, true, in_checkpoint));
}

TEST(Recomputed, IsNotKeptAndMadeOnceForAllWhoNeedIt) {
  const Result kept = run(shared_norm, false), again = run(shared_norm, true);
  EXPECT_EQ(kept.kept - again.kept, kBytes);
  EXPECT_EQ(again.calls("layer_norm", false), 1);
  EXPECT_EQ(again.calls("layer_norm", true), 1) << "two products need it";
  EXPECT_EQ(again.flops.model, kept.flops.model);
  EXPECT_EQ(again.flops.matmul, kept.flops.matmul);
  EXPECT_EQ(again.flops.vector, kept.flops.vector + 8 * kRows * kWidth);
}

TEST(Recomputed, AChainIsMadeFromItsStart) {
  const Result kept = run(chain, false), again = run(chain, true);
  EXPECT_EQ(kept.kept - again.kept, 2 * kBytes) << "the norm's output and the activation's";
  EXPECT_EQ(again.calls("rms_norm", true), 1) << "the activation's rule finds what its recomputation made";
  EXPECT_EQ(again.calls("gelu", true), 1);
  const Result own_kept = run(own_output, false), own_again = run(own_output, true);
  EXPECT_LT(own_again.kept, own_kept.kept);
  EXPECT_EQ(own_again.calls("softmax", true), 1);
  EXPECT_EQ(own_again.calls("tanh", true), 1);
}

class RecomputedOnCpu : public OnCpu {
 protected:
  Tensor x_ = leaf({2, 3}, {1, -2, 3, 0.5, -1, 2}), w_ = leaf({3}, {1, 2, 3});
  Tensor normed() {
    const Recomputed scope;
    return rms_norm(x_, w_, 1e-5);
  }
};

TEST_F(RecomputedOnCpu, AGraphThatStaysHoldsNothingBetweenTwoPasses) {
  const Tensor loss = sum(square(normed()));
  const int64_t before = live();
  backward(loss, {}, {.retain_graph = true});
  const Values once = x_.grad().to_vector();
  EXPECT_EQ(live(), before + 2 * 64) << "two gradients";
  backward(loss);
  Values twice = x_.grad().to_vector();
  for (double& v : twice) v /= 2;
  EXPECT_EQ(once, twice);
}

TEST_F(RecomputedOnCpu, CanBeDifferentiatedAgain) {
  const auto second = [&](bool recomputed) {
    Tensor y;
    {
      const Recomputed scope(recomputed);
      y = exp(square(x_));
    }
    const Tensor first = grad(sum(mul(y, y)), {x_}, {}, {.create_graph = true})[0];
    return grad(sum(first), {x_})[0].to_vector();
  };
  EXPECT_EQ(second(false), second(true));
}

TEST_F(RecomputedOnCpu, WhatWasWrittenSinceIsKeptAsItIs) {
  Tensor y = normed();
  EXPECT_TRUE(is_remade(y));
  const Values other = {1, 1, 1, 2, 2, 2};
  y.write(other.data(), 48);
  EXPECT_FALSE(is_remade(y));
  backward(sum(square(y)));
  EXPECT_TRUE(x_.grad().defined());
}

TEST_F(RecomputedOnCpu, AnInputThatChangedIsRefused) {
  const Tensor loss = sum(square(normed()));
  const Values other = {3, 2, 1};
  w_.write(other.data(), 24);
  EXPECT_THAT(error_of([&] { backward(loss); }), HasSubstr("rms_norm: input 1 was changed in place after it was kept for backward"));
}

TEST_F(RecomputedOnCpu, AGraphThatIsDroppedFreesAll) {
  const int64_t before = live();
  { const Tensor loss = sum(square(normed())); }
  EXPECT_EQ(live(), before);
}

TEST_F(RecomputedOnCpu, WithoutAGraphItDoesNothing) {
  const NoGrad guard;
  EXPECT_FALSE(is_remade(normed()));
}

// ---- segments with effects
TEST_F(RecomputedOnCpu, ASegmentThatWritesWhatIsOlderIsRefused) {
  const Tensor state = zeros(*device_, {{3}, DType::f64});
  const auto segment = [&](const Tensors& in) {
    fill_normal_(state, 1);
    return square(in[0]);
  };
  EXPECT_THAT(
      error_of([&] { checkpoint(segment, {x_}); }),
      AllOf(HasSubstr("random: input 0 was there before the checkpointed segment that writes it"), HasSubstr("move the write out")));
  EXPECT_EQ(state.to_vector(), Values({0, 0, 0})) << "refused before it is written";
  const auto outer = [&](const Tensors& in) { return checkpoint(segment, in); };
  EXPECT_NE(error_of([&] { checkpoint(outer, {x_}); }), "");
  const NoGrad guard;
  checkpoint(segment, {x_});  // it will not run again
  EXPECT_NE(state.to_vector(), Values({0, 0, 0}));
}

TEST_F(RecomputedOnCpu, ASegmentMayWriteItsOwnButNotAnOuterSegments) {
  const auto own = [&](const Tensors& in) {
    const Tensor noise = zeros(*device_, {{2, 3}, DType::f64});
    fill_normal_(noise, 1);
    return mul(in[0], noise);
  };
  backward(sum(checkpoint(own, {x_})));
  EXPECT_TRUE(x_.grad().defined());
  const auto nested = [&](const Tensors& in) {
    const Tensor noise = zeros(*device_, {{2, 3}, DType::f64});
    const auto inner = [noise](const Tensors& t) {
      fill_normal_(noise, 1);
      return mul(t[0], noise);
    };
    return checkpoint(inner, {in[0]});
  };
  EXPECT_THAT(error_of([&] { checkpoint(nested, {x_}); }), HasSubstr("was there before the checkpointed segment"));
}

TEST_F(RecomputedOnCpu, ASegmentThatAppendsToACacheIsRefused) {
  const Tensor k = zeros(*device_, {{1, 1, 4, 2}, DType::f32}), v = zeros(*device_, {{1, 1, 4, 2}, DType::f32});
  const Tensor position = zeros(*device_, {{1}, DType::i64});
  Tensor qkv = zeros(*device_, {{1, 1, 6}, DType::f32});
  const auto segment = [&](const Tensors& in) {
    const NoGrad guard;  // a cache has no gradient
    return attention_with_cache(in[0], k, v, position, 1, 1, 2);
  };
  EXPECT_THAT(error_of([&] { checkpoint(segment, {qkv}); }), HasSubstr("kv_append: input 1 was there before"));
}
}  // namespace
}  // namespace reckon
