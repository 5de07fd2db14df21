// Recomputation: the same bits, less memory, and its work counted as hardware work only.
#include <algorithm>
#include <cmath>

#include "reckon/ops/functional.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {

class Checkpoint : public OnCpu {
 protected:
  struct Run {
    std::vector<Values> gradients;
    double loss;
    int64_t peak;
    Flops flops;
  };
  // Four blocks of two matrix products and an activation each.
  static Tensor block(const Tensor& x, const Tensor& w1, const Tensor& w2) { return add(x, matmul(gelu(matmul(x, w1)), w2)); }
  Run run(bool recompute, bool slots) {
    const Ref<Device> device = open_cpu(Mode::real);
    Tensors weights;
    for (uint64_t i = 0; i < 8; ++i) {
      Tensor w = empty(*device, {i % 2 ? Shape{64, 16} : Shape{16, 64}, DType::f32});
      fill_normal_(w, i, 0, 0.2);
      w.set_requires_grad();
      if (slots) w.set_grad_slot(empty(*device, w.spec()));
      weights.push_back(w);
    }
    Tensor x = empty(*device, {{128, 16}, DType::f32});
    fill_normal_(x, 99);
    x.set_requires_grad();
    Meter meter;
    const MeterScope scope(meter);
    Tensor h = x;
    {
      const PhaseScope phase(*device, Phase::forward);
      for (size_t i = 0; i < 8; i += 2) {
        const auto segment = [&, i](const Tensors& in) { return block(in[0], weights[i], weights[i + 1]); };
        h = recompute ? checkpoint(segment, {h}) : segment({h});
      }
    }
    const Tensor loss = mean(square(h));
    h = Tensor();
    {
      const PhaseScope phase(*device, Phase::backward);
      backward(loss);
    }
    Run r{{x.grad().to_vector()}, loss.item(), device->allocator().ledger().peak, meter.total()};
    for (const Tensor& w : weights) r.gradients.push_back(w.grad().to_vector());
    return r;
  }
};

TEST_F(Checkpoint, GivesTheSameBits) {
  for (const bool slots : {false, true}) {
    const Run plain = run(false, slots), again = run(true, slots);
    EXPECT_EQ(plain.loss, again.loss);
    ASSERT_EQ(plain.gradients.size(), again.gradients.size());
    for (size_t i = 0; i < plain.gradients.size(); ++i) EXPECT_EQ(plain.gradients[i], again.gradients[i]) << "gradient " << i;
  }
}

TEST_F(Checkpoint, TakesLessMemory) {
  // Plain keeps two [128, 64] activations a block; recomputed, only one block's exist at a time.
  const int64_t wide = 128 * 64 * 4;
  EXPECT_LE(run(true, true).peak + 4 * wide, run(false, true).peak);
}

TEST_F(Checkpoint, RecomputedWorkIsHardwareWorkOnly) {
  const Run plain = run(false, true), again = run(true, true);
  EXPECT_EQ(again.flops.model, plain.flops.model);
  const int64_t forward = 4 * 2 * (2 * 128 * 16 * 64);
  EXPECT_EQ(again.flops.matmul, plain.flops.matmul + forward);
}

TEST_F(Checkpoint, PassesThroughWithoutGrad) {
  const NoGrad guard;
  const Tensor y = checkpoint([](const Tensors& in) { return square(in[0]); }, {scalar_leaf(3)});
  EXPECT_EQ(y.item(), 9);
  EXPECT_FALSE(y.requires_grad());
}

TEST_F(Checkpoint, SeveralInputsAndIntegers) {
  const Tensor table = leaf({3, 2}, {1, 2, 3, 4, 5, 6}), ids = from_values<int32_t>(*device_, {2}, std::vector<int32_t>{2, 0});
  const Tensor factor = leaf({2}, {10, 100});
  const Tensor y = checkpoint([](const Tensors& in) { return mul(embedding(in[0], in[1]), in[2]); }, {table, ids, factor});
  backward(sum(y));
  EXPECT_THAT(table.grad().to_vector(), ElementsAre(10, 100, 0, 0, 10, 100));
  EXPECT_THAT(factor.grad().to_vector(), ElementsAre(6, 8));
}

TEST_F(Checkpoint, Nests) {
  const Tensor x = scalar_leaf(1.5);
  const Tensor y = checkpoint(
      [](const Tensors& in) { return mul(in[0], checkpoint([](const Tensors& inner) { return exp(inner[0]); }, {in[0]})); }, {x});
  backward(y);
  EXPECT_NEAR(x.grad().item(), std::exp(1.5) * 2.5, 1e-14);
}

TEST_F(Checkpoint, GradPassesThroughToInputsAndToWhatItCaptures) {
  const Tensor x = leaf({2}, {1, 2}), w = leaf({2}, {3, 5}), unused = leaf({2}, {0, 0});
  const Tensor inner = exp(x);  // a result that the segment captures
  const auto segment = [&](const Tensors& in) { return mul(mul(square(in[0]), w), inner); };
  const auto loss = [&](bool recompute) { return sum(recompute ? checkpoint(segment, {affine(x, 2)}) : segment({affine(x, 2)})); };
  const Tensors plain = grad(loss(false), {x, w, inner}, {}, {.retain_graph = true});
  const Tensor root = loss(true);
  const Tensors again = grad(root, {x, w, inner}, {}, {.retain_graph = true});
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(again[i].to_vector(), plain[i].to_vector()) << i;
  EXPECT_FALSE(x.grad().defined() || w.grad().defined());
  EXPECT_THAT(error_of([&] { grad(root, {unused}, {}, {.retain_graph = true}); }), HasSubstr("is not reached"));
  EXPECT_EQ(grad(root, {w})[0].to_vector(), plain[1].to_vector()) << "a captured leaf alone";
}

TEST_F(Checkpoint, CanBeDifferentiatedAgain) {
  const Tensor w = leaf({3}, {0.3, -0.5, 0.7});
  const auto segment = [&](const Tensors& in) { return tanh(mul(in[0], w)); };
  const auto nested = [&](const Tensors& in) { return exp(checkpoint(segment, {square(in[0])})); };
  const Tensor x = tensor({3}, {0.4, 1.1, -0.6});
  for (const bool is_nested : {false, true}) {
    const auto plain = [&](const Tensor& t) { return is_nested ? exp(segment({square(t)})) : segment({t}); };
    const auto recomputed = [&](const Tensor& t) { return is_nested ? checkpoint(nested, {t}) : checkpoint(segment, {t}); };
    EXPECT_EQ(gradgradcheck(recomputed, {x}), "");
    // The penalty on a gradient: its own gradients in the input and in the captured weight.
    const auto penalty = [&](const auto& f) {
      const Tensor at = x.detached().set_requires_grad();
      const Tensor g = grad(sum(f(at)), {at}, {}, {.create_graph = true})[0];
      Values all;
      for (const Tensor& second : grad(sum(square(g)), {at, w}))
        for (const double v : second.to_vector()) all.push_back(v);
      return all;
    };
    // Contributions meet in another order: a few of them, each off by a rounding of the largest.
    const Values again = penalty(recomputed), once = penalty(plain);
    const double largest =
        std::fabs(*std::max_element(once.begin(), once.end(), [](double a, double b) { return std::fabs(a) < std::fabs(b); }));
    for (size_t i = 0; i < once.size(); ++i) EXPECT_NEAR(again[i], once[i], 8 * 0x1p-52 * largest) << i;
  }
}

TEST_F(Checkpoint, LeavesNothingBehindWhenItIsDifferentiatedAgain) {
  const Tensor w = leaf({100}, Values(100, 0.5));
  const int64_t before = live();
  {
    const Tensor x = leaf({100}, Values(100, 0.2));
    const Tensor y = sum(checkpoint([&](const Tensors& in) { return exp(mul(in[0], w)); }, {square(x)}));
    const Tensor g = grad(y, {x}, {}, {.create_graph = true})[0];
    EXPECT_TRUE(grad(sum(g), {w})[0].defined());
  }
  EXPECT_EQ(live(), before);
}

TEST_F(Checkpoint, RecomputedWorkOfGradIsHardwareWorkOnly) {
  const Tensor x = leaf({2, 3}, Values(6, 0.5)), w = leaf({4, 3}, Values(12, 0.2));
  Meter meter;
  {
    const MeterScope scope(meter);
    grad(sum(checkpoint([&](const Tensors& in) { return linear(in[0], w); }, {x})), {x, w});
  }
  const int64_t product = 2 * 2 * 3 * 4;
  EXPECT_EQ(meter.total().model, 3 * product);
  EXPECT_EQ(meter.total().matmul, 4 * product);
}
}  // namespace
}  // namespace reckon
