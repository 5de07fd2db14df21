// Functions whose gradient rule a user writes.
#include "reckon/engine/function.h"

#include <cmath>

#include "reckon/ops/functional.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {

class UserFunction : public OnCpu {};

// x exp(scale x): keeps its input, and its factor as an output of its own.
struct Damped {
  static constexpr const char* name = "damped";
  double scale;
  Tensors forward(FunctionContext& c, const Tensor& x) {
    const Tensor factor = exp(affine(x, scale));
    c.save_for_backward({x, factor});
    return {mul(x, factor), factor};
  }
  Tensor backward(FunctionContext& c, const Tensor& dy, const Tensor& dfactor) {
    const Tensor x = c.saved()[0], factor = c.saved()[1];
    return add(mul(dy, mul(factor, affine(x, scale, 1))), mul(dfactor, affine(factor, scale)));
  }
};

TEST_F(UserFunction, HasValuesAndGradientsOfAnyOrder) {
  const Tensor x = tensor({3}, {0.3, -1, 2});
  const auto f = [](const Tensor& t) { return apply_function(Damped{-0.7}, t)[0]; };
  const Values y = f(x).to_vector();
  for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(y[i], x.to_vector()[i] * std::exp(-0.7 * x.to_vector()[i]), 1e-15);
  EXPECT_EQ(gradcheck(f, {x}), "");
  EXPECT_EQ(gradgradcheck(f, {x}), "");
  EXPECT_EQ(gradgradcheck([](const Tensor& t) { return apply_function(Damped{-0.7}, t); }, {x}), "") << "through both outputs";
}

TEST_F(UserFunction, NodesCarryItsName) {
  const Tensors y = apply_function(Damped{1}, leaf({2}, {1, 2}));
  EXPECT_STREQ(node_of(y[0])->name(), "damped");
  EXPECT_EQ(node_of(y[0]), node_of(y[1]));
}

// Two inputs of which only the wanted ones cost anything; no gradient for ids.
struct Weighted {
  static inline int products = 0;
  Tensor forward(FunctionContext& c, const Tensor& x, const Tensor& w, const Tensor& ids) {
    EXPECT_TRUE(c.needs_input_grad(0));
    EXPECT_FALSE(c.needs_input_grad(1));
    EXPECT_FALSE(c.needs_input_grad(2));
    c.save_for_backward({w, ids});
    return mul(x, w);
  }
  Tensors backward(FunctionContext& c, const Tensors& dy) {
    EXPECT_EQ(c.saved()[1].dtype(), DType::i32);
    products += c.needs_input_grad(0) + c.needs_input_grad(1);
    return {mul(dy[0], c.saved()[0]), Tensor(), Tensor()};
  }
};
TEST_F(UserFunction, SaysWhichGradientsAreWanted) {
  const Tensor x = leaf({2}, {1, 2}), w = tensor({2}, {3, 4}), ids = from_values<int32_t>(*device_, {1}, std::vector<int32_t>{7});
  Weighted::products = 0;
  backward(sum(apply_function(Weighted{}, x, w, ids)));
  EXPECT_THAT(x.grad().to_vector(), ElementsAre(3, 4));
  EXPECT_EQ(Weighted::products, 1);
}

// Its second output says where the maximum is, and has no gradient.
struct Peak {
  Tensors forward(FunctionContext& c, const Tensors& in) {
    const Tensor top = max(in[0], {0}, true), where_top = cast(equal(in[0], top), DType::f64);
    c.mark_non_differentiable({where_top});
    c.save_for_backward({where_top});
    return {top, where_top};
  }
  Tensors backward(FunctionContext& c, const Tensors& dy) {
    EXPECT_FALSE(dy[1].defined());
    return {mul(dy[0], c.saved()[0])};
  }
};
TEST_F(UserFunction, OutputsMayCarryNoGradient) {
  const Tensor x = leaf({3}, {1, 5, 2});
  const Tensors y = apply_function(Peak{}, Tensors{x});
  EXPECT_TRUE(y[0].requires_grad());
  EXPECT_FALSE(y[1].requires_grad());
  backward(sum(y[0]));
  EXPECT_THAT(x.grad().to_vector(), ElementsAre(0, 1, 0));
}

// An output that was marked came back without a graph, and the second derivative was that of a constant factor: 0 instead of 2.
struct MarkedFactor {
  static constexpr const char* name = "marked_factor";
  Tensors forward(FunctionContext& c, const Tensor& x) {
    const Tensor factor = affine(x, 2);
    c.mark_non_differentiable({factor});
    c.save_for_backward({factor});
    return {mul(x, x), factor};
  }
  Tensors backward(FunctionContext& c, const Tensors& dy) { return {mul(dy[0], c.saved()[0])}; }
};
TEST_F(UserFunction, AMarkedOutputIsNotForTheGradientOfTheGradient) {
  const Tensor x = leaf({2}, {1, 2}), y = sum(apply_function(MarkedFactor{}, x)[0]);
  EXPECT_THAT(error_of([&] { grad(y, {x}, {}, {.create_graph = true}); }),
              AllOf(HasSubstr("marked_factor: in its backward: saved tensor 0, f64[2], is an output marked as not differentiable"),
                    HasSubstr("once_differentiable")));
  EXPECT_THAT(grad(y, {x})[0].to_vector(), ElementsAre(2, 4));
}

// The straight-through estimator gives what it was given.
struct Through {
  Tensor forward(FunctionContext&, const Tensor& x) { return x; }
  Tensor backward(FunctionContext&, const Tensor& dy) { return affine(dy, 10); }
};
TEST_F(UserFunction, MayReturnItsInput) {
  const Tensor x = leaf({2}, {1, 2}), plain = tensor({2}, {1, 2});
  const Tensor y = apply_function(Through{}, x);
  EXPECT_TRUE(x.is_leaf());
  EXPECT_FALSE(y.is_leaf());
  backward(sum(y));
  EXPECT_THAT(x.grad().to_vector(), ElementsAre(10, 10));
  EXPECT_FALSE(apply_function(Through{}, plain).requires_grad());
}

struct Square {
  static constexpr const char* name = "square_by_hand";
  Tensor forward(FunctionContext& c, const Tensor& x) {
    c.save_for_backward({x});
    return mul(x, x);
  }
  Tensor backward(FunctionContext& c, const Tensor& dy) { return mul(dy, affine(c.saved()[0], 2)); }
};

TEST_F(UserFunction, RefusesWhatWasChangedSince) {
  const Tensor x = leaf({2}, {1, 2}), y = sum(apply_function(Square{}, x));
  const Values other = {5, 6};
  x.write(other.data(), 16);
  EXPECT_THAT(error_of([&] { backward(y); }), HasSubstr("square_by_hand: in its backward: square_by_hand: input 0 was changed in place"));
}

TEST_F(UserFunction, MakesNoCyclesAndReleasesWhatItSaved) {
  const int64_t before = live();
  {
    const Tensor x = leaf({100}, Values(100, 0.5));
    { const Tensors dropped = apply_function(Damped{1}, x); }
    EXPECT_EQ(live(), before + 832) << "the leaf alone";  // 800 bytes, rounded to 64
    Tensor loss = sum(apply_function(Damped{1}, x)[0]);
    backward(loss);
    EXPECT_EQ(live(), before + 832 + 832 + 64) << "the leaf, its gradient and the loss";
    EXPECT_THAT(error_of([&] { backward(loss); }), HasSubstr("backward ran a second time"));
  }
  EXPECT_EQ(live(), before);
}

TEST_F(UserFunction, KeptBytesAreActivations) {
  const Tensor x = leaf({100}, Values(100, 0.5));
  const int64_t before = live(Category::activation);
  const Tensor y = apply_function(Damped{1}, square(x))[0];
  EXPECT_EQ(live(Category::activation) - before, 3 * 832) << "the square, the factor and the product";
}

struct Once {
  static constexpr bool once_differentiable = true;
  static constexpr const char* name = "once";
  Tensor forward(FunctionContext& c, const Tensor& x) {
    c.save_for_backward({affine(x, 2)});  // neither input nor output
    return mul(x, x);
  }
  Tensor backward(FunctionContext& c, const Tensor& dy) {
    EXPECT_FALSE(is_grad_enabled());
    return mul(dy, c.saved()[0]);
  }
};
struct Twice : Once {
  static constexpr bool once_differentiable = false;
  Tensor backward(FunctionContext& c, const Tensor& dy) { return mul(dy, c.saved()[0]); }
};

TEST_F(UserFunction, OnceDifferentiableRefusesWhereTheSecondIsAsked) {
  const Tensor x = leaf({2}, {1, 2}), scale = scalar_leaf(3), y = sum(mul(apply_function(Once{}, x), scale));
  const Tensors g = grad(y, {x, scale}, {}, {.create_graph = true});
  EXPECT_THAT(g[0].to_vector(), ElementsAre(6, 12)) << "the first is as always";
  EXPECT_THAT(error_of([&] { grad(sum(g[0]), {x}, {}, {.retain_graph = true}); }), HasSubstr("once: its backward is once differentiable"));
  EXPECT_THAT(error_of([&] { grad(sum(g[0]), {scale}, {}, {.retain_graph = true}); }), HasSubstr("once differentiable"));
  EXPECT_THAT(grad(g[1], {x})[0].to_vector(), ElementsAre(2, 4)) << "what does not pass through its backward";
}

TEST_F(UserFunction, AGradientOfTheGradientMustNotMissAnything) {
  const Tensor x = leaf({2}, {1, 2}), y = sum(apply_function(Twice{}, x));
  EXPECT_THAT(
      error_of([&] { grad(y, {x}, {}, {.create_graph = true}); }),
      AllOf(HasSubstr("once: in its backward: saved tensor 0, f64[2], is neither input nor output"), HasSubstr("once_differentiable")));
  EXPECT_THAT(grad(y, {x})[0].to_vector(), ElementsAre(2, 4));
}

TEST_F(UserFunction, WorksInsideACheckpoint) {
  const Tensor x = leaf({3}, {0.3, -1, 2});
  const auto segment = [](const Tensors& in) { return mul(apply_function(Damped{0.5}, in[0])[0], in[0]); };
  backward(sum(segment({x})));
  const Values plain = x.grad().to_vector();
  Tensor(x).zero_grad();
  backward(sum(checkpoint(segment, {x})));
  EXPECT_EQ(x.grad().to_vector(), plain);
  EXPECT_EQ(gradgradcheck([&](const Tensor& t) { return checkpoint(segment, {t}); }, {x}), "");
}

TEST_F(UserFunction, OnMetaItIsTheSame) {
  struct Run {
    int64_t peak;
    std::string hash;
    Flops flops;
  };
  const auto run = [](Mode mode) {
    const Ref<Device> device = open_cpu(mode);
    Meter meter;
    const MeterScope scope(meter);
    const Tensor x = ones(*device, {{64, 8}, DType::f64}).set_requires_grad();
    {
      const Tensors y = apply_function(Damped{-0.7}, affine(x, 2));
      backward(sum(add(y[0], y[1])));
    }
    return Run{device->allocator().ledger().peak, device->allocator().trace_hash(), meter.total()};
  };
  const Run real = run(Mode::real), meta = run(Mode::meta);
  EXPECT_EQ(real.peak, meta.peak);
  EXPECT_EQ(real.hash, meta.hash);
  EXPECT_EQ(real.flops, meta.flops);
}

struct Wrong {
  static constexpr const char* name = "wrong";
  int how;
  Tensors forward(FunctionContext& c, const Tensor& x) {
    if (how == 0) return {Tensor()};
    if (how == 1) c.mark_non_differentiable({x});
    return {square(x)};
  }
  Tensors backward(FunctionContext&, const Tensors& dy) {
    if (how == 2) return {};
    return {how == 3 ? sum(dy[0]) : cast(dy[0], DType::f32)};
  }
};
struct TwoGradients {
  Tensor forward(FunctionContext&, const Tensor& x) { return square(x); }
  Tensor backward(FunctionContext&, const Tensor& a, const Tensor&) { return a; }
};
TEST_F(UserFunction, MistakesAreNamed) {
  const Tensor x = leaf({2}, {1, 2});
  const auto error = [&](int how) { return error_of([&] { backward(sum(apply_function(Wrong{how}, x)[0])); }); };
  EXPECT_THAT(error(0), HasSubstr("wrong: output 0 of forward is undefined"));
  EXPECT_THAT(error(1), HasSubstr("wrong: mark_non_differentiable was given f64[2], which is no output"));
  EXPECT_THAT(error(2), HasSubstr("wrong: backward gave 0 gradients for 1 inputs"));
  EXPECT_THAT(error(3), HasSubstr("wrong: backward gave f64[] as the gradient of input 0, f64[2]"));
  EXPECT_THAT(error(4), HasSubstr("wrong: backward gave f32[2] as the gradient of input 0, f64[2]"));
  EXPECT_THAT(error_of([&] { backward(sum(apply_function(TwoGradients{}, x))); }),
              HasSubstr("forward gave 1 tensors, but backward takes 2 gradients"));
  EXPECT_THAT(error_of([&] { apply_function(Square{}, Tensor()); }), HasSubstr("input 0, undefined, is undefined"));
}
}  // namespace
}  // namespace reckon
