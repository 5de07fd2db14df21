// Anomaly mode names the line behind the first NaN. This file is compiled with line numbers.
#include "reckon/engine/anomaly.h"

#include "reckon/engine/autocast.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {

class Anomaly : public OnCpu {};

struct Model {
  int line = 0;
  Tensor forward(const Tensor& x) {
    const ModuleScope module("head");
    const Tensor scaled = affine(x, 2);
    line = __LINE__ + 1;
    const Tensor y = log(scaled);
    return sum(y);
  }
};

TEST_F(Anomaly, NamesOperationModuleAndLine) {
  const AnomalyMode scope;
  const Tensor x = leaf({3}, {1, 0, 2});
  Model model;
  const Tensor loss = model.forward(x);
  const std::string message = error_of([&] { backward(loss); });
  EXPECT_THAT(message, HasSubstr("anomaly: the rule of log made a gradient of input 0, f64[3], that has 1 NaN or infinite value of 3"));
  EXPECT_THAT(message, HasSubstr("of module head"));
  EXPECT_THAT(message, HasSubstr("tests/engine/anomaly.cpp:" + std::to_string(model.line)));
  EXPECT_FALSE(x.grad().defined());
}

TEST_F(Anomaly, DetailsAreTheCallsOnTheWay) {
  const AnomalyMode scope;
  Model model;
  const Tensor loss = model.forward(leaf({3}, {1, 0, 2}));
  try {
    backward(loss);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.details(), HasSubstr("log was called by"));
    EXPECT_THAT(error.details(), HasSubstr("TestBody"));
  }
}

TEST_F(Anomaly, CompositionsAreNamedByTheirCaller) {
  const AnomalyMode scope;
  const Tensor x = leaf({2, 2}, {1, 2, 3, 4});
  const int line = __LINE__ + 1;
  const Tensor m = mean(x, {1});  // a sum and a product
  EXPECT_THAT(call_site(*node_of(m)).line, HasSubstr("anomaly.cpp:" + std::to_string(line) + " in "));
}

TEST_F(Anomaly, ALeafsSlotIsLookedAtToo) {
  const AnomalyMode scope;
  Tensor w = leaf({1, 2}, {1e200, 1}), x = tensor({1, 2}, {1e200, 1});
  w.set_grad_slot(zeros(*device_, w.spec()));
  const Tensor y = linear(x, w);
  EXPECT_THAT(error_of([&] {
                backward(y, tensor({1, 1}, {1e200}));
              }),
              HasSubstr("the rule of linear made a gradient of input 1, f64[1, 2], that has 1 NaN"));
}

TEST_F(Anomaly, GradientsThatArriveAreTheirSendersFault) {
  const AnomalyMode scope;
  const Tensor x = leaf({2}, {1, 2}), y = square(x);
  EXPECT_THAT(error_of([&] {
                backward(y, tensor({2}, {1, INFINITY}));
              }),
              HasSubstr("anomaly: at square arrived a gradient of output 0, f64[2], that has 1"));
}

TEST_F(Anomaly, InACheckpointItIsTheLineOfTheSegment) {
  const AnomalyMode scope;
  int line = 0;
  const auto segment = [&](const Tensors& in) {
    line = __LINE__ + 1;
    const Tensor y = sqrt(in[0]);
    return sum(y);
  };
  const Tensor loss = checkpoint(segment, {leaf({2}, {0, 1})});
  EXPECT_THAT(error_of([&] { backward(loss); }), AllOf(HasSubstr("the rule of sqrt"), HasSubstr("anomaly.cpp:" + std::to_string(line))));
}

TEST_F(Anomaly, UnderAutocastItIsTheOperationInItsType) {
  const AnomalyMode scope;
  const Autocast types(DType::bf16);
  const Tensor x = cast(tensor({3}, {1, 0, 2}), DType::bf16).set_requires_grad();
  int line = __LINE__ + 1;
  const Tensor y = log(x);
  EXPECT_THAT(error_of([&] { backward(sum(y)); }),
              AllOf(HasSubstr("the rule of log made a gradient of input 0, f32[3]"), HasSubstr("anomaly.cpp:" + std::to_string(line))));
  // A gradient that the low type does not hold: 70000 is no float16.
  const Autocast half(DType::f16);
  const Tensor b = ones(*device_, {{1, 1}, DType::f32}).set_requires_grad(), p = matmul(b, b);
  line = __LINE__ + 1;
  const Tensor total = sum(p);
  EXPECT_THAT(error_of([&] { backward(affine(total, 70000)); }),
              AllOf(HasSubstr("the rule of cast made a gradient of input 0, f16[1, 1]"), HasSubstr("anomaly.cpp:" + std::to_string(line))));
  EXPECT_THAT(error_of([&] {
                const FiniteCheck finite;
                matmul(full(*device_, {{1, 1}, DType::f32}, 1e5), b);
              }),
              HasSubstr("cast gave 1 NaN or infinite values of 1 in its output f16[1, 1]"));
}

TEST_F(Anomaly, ChangesNothingElse) {
  const auto run = [](bool on) {
    const Ref<Device> device = open_cpu(Mode::real);
    const AnomalyMode scope(on);
    Tensor w = ones(*device, {{8, 8}, DType::f32}).set_requires_grad();
    w.set_grad_slot(zeros(*device, w.spec()));
    const Tensor x = ones(*device, {{4, 8}, DType::f32});
    backward(sum(gelu(linear(gelu(linear(x, w)), w))));
    return std::pair(device->allocator().trace_hash(), w.grad().to_vector());
  };
  EXPECT_EQ(run(false), run(true));
}

TEST_F(Anomaly, OutsideOfItNothingIsNoted) {
  const Tensor x = leaf({2}, {0, 1}), y = log(x);
  backward(sum(y), {}, {.retain_graph = true});
  EXPECT_EQ(call_site(*node_of(y)).line, "an unknown place");
}
}  // namespace
}  // namespace reckon
