// Autocast: which types operations are given, that written-out casts give the same bits, and what a scope keeps.
#include <thread>

#include "reckon/ops/conv.h"
#include "reckon/ops/einops.h"
#include "reckon/ops/joining.h"
#include "reckon/ops/reductions.h"
#include "reckon/ops/scan.h"
#include "reckon/ops/unary.h"
#include "tests/engine/autocast_support.h"

namespace reckon {
namespace {

class AutocastTest : public OnCpu {
 protected:
  Tensor of(DType dtype, const Shape& shape = {4, 4}) { return drawn(*device_, shape, 11, dtype); }
};

TEST_F(AutocastTest, ProductsRunInTheLowType) {
  const Tensor a = of(DType::f32), image = of(DType::f32, {1, 2, 5, 5}), kernel = of(DType::f32, {3, 2, 3, 3});
  for (const DType low : {DType::bf16, DType::f16}) {
    const Autocast guard(low);
    EXPECT_EQ(matmul(a, a).dtype(), low);
    EXPECT_EQ(linear(a, a, of(DType::f32, {4})).dtype(), low);
    EXPECT_EQ(conv2d(image, kernel, of(DType::f32, {3})).dtype(), low);
    EXPECT_EQ(attention(of(DType::f32, {1, 4, 12}), 2, 2, 2).dtype(), low);
    EXPECT_EQ(attention_plain(of(DType::f32, {1, 4, 12}), 2, 2, 2).dtype(), low);
    EXPECT_EQ(matmul(of(DType::bf16), of(DType::f16)).dtype(), low) << "any float but f64 is brought to it";
    EXPECT_EQ(einsum("i j, j k -> i k", {a, of(DType::bf16)}).dtype(), low);
    const Tensor ids = from_values<int32_t>(*device_, {4}, std::vector<int32_t>{0, 1, 2, 3});
    EXPECT_EQ(linear_cross_entropy(a, a, ids).dtype(), DType::f32) << "a loss";
  }
  EXPECT_EQ(matmul(a, a).dtype(), DType::f32);
}

TEST_F(AutocastTest, SumsAndExponentialsRunInFloat32) {
  const Autocast guard(DType::bf16);
  const Tensor x = of(DType::bf16), w = of(DType::bf16, {4}), ids = from_values<int32_t>(*device_, {4}, std::vector<int32_t>{0, 1, 2, 3});
  for (const Tensor& y : {exp(x),
                          log(abs(x)),
                          pow(abs(x), x),
                          square(x),
                          rsqrt(abs(x)),
                          reciprocal(x),
                          log1p(abs(x)),
                          expm1(x),
                          softplus(x),
                          softplus(x, 2),
                          sum(x),
                          mean(x),
                          variance(x),
                          norm(x),
                          logsumexp(x),
                          prod(x),
                          cumsum(x, 0),
                          cumprod(x, 0),
                          softmax(x),
                          log_softmax(x),
                          softmax(x, 0),
                          layer_norm(x, w, w),
                          rms_norm(x, of(DType::f32, {4})),
                          add_rms_norm(x, of(DType::f32), w).norm,
                          cross_entropy(x, ids),
                          mse_loss(x, x),
                          mse_loss(x, of(DType::f32)),
                          reduce(x, "a b -> a", Reducer::prod),
                          reduce(x, "a b -> a", Reducer::mean)})
    EXPECT_EQ(y.dtype(), DType::f32);
}

TEST_F(AutocastTest, WhatJoinsTensorsTakesTheWidestType) {
  const Autocast guard(DType::bf16);
  const Tensor low = of(DType::bf16), half = of(DType::f16), wide = of(DType::f32), twice = of(DType::f64);
  EXPECT_EQ(concatenate({low, wide}, 0).dtype(), DType::f32);
  EXPECT_EQ(concatenate({low, low}, 0).dtype(), DType::bf16);
  EXPECT_EQ(concatenate({low, half}, 0).dtype(), DType::f32) << "neither holds the other";
  EXPECT_EQ(concatenate({low, twice, wide}, 0).dtype(), DType::f64);
  EXPECT_EQ(stack({low, wide}).dtype(), DType::f32);
  EXPECT_EQ(concatenate(Tensors(40, low), 0).dtype(), DType::bf16);
  Tensors many(40, low);
  many.back() = wide;
  EXPECT_EQ(concatenate(many, 0).dtype(), DType::f32) << "more parts than one call takes";
  EXPECT_EQ(add(low, wide).dtype(), DType::f32);
  EXPECT_EQ(add(low, low).dtype(), DType::bf16);
  // The row itself, which refuses two types otherwise.
  EXPECT_EQ(call(op::add, tensors(low, wide))[0].dtype(), DType::f32);
  const Tensor scaled = mul(low, full(*device_, {{}, DType::f32}, 3));
  EXPECT_EQ(scaled.dtype(), DType::bf16) << "a tensor without axes does not widen, as ever";
}

TEST_F(AutocastTest, OthersComputeInWhatTheyAreGiven) {
  const Autocast guard(DType::bf16);
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32, DType::f64})
    for (const Tensor& y : {gelu(of(dtype)), relu(of(dtype)), tanh(of(dtype)), sqrt(abs(of(dtype))), affine(of(dtype), 2),
                            max(of(dtype), {1}), transpose(of(dtype)), contiguous(transpose(of(dtype)))})
      EXPECT_EQ(y.dtype(), dtype);
}

TEST_F(AutocastTest, LeavesDoublesAndWholeNumbersAlone) {
  const Autocast guard(DType::bf16);
  const Tensor wide = of(DType::f64), counts = cast(of(DType::f32), DType::i32), flags = less(of(DType::f32), of(DType::bf16));
  EXPECT_EQ(casts_in([&] {
              EXPECT_EQ(matmul(wide, wide).dtype(), DType::f64);
              EXPECT_EQ(softmax(wide).dtype(), DType::f64);
              EXPECT_EQ(matmul(counts, counts).dtype(), DType::i32);
              EXPECT_EQ(sum(counts).dtype(), DType::i64);
              EXPECT_EQ(concatenate({flags, flags}, 0).dtype(), DType::boolean);
              EXPECT_EQ(where(flags, wide, wide).dtype(), DType::f64);
            }),
            0);
  // Beside f64 nothing is cast: the error shows what the caller gave.
  EXPECT_THAT(error_of([&] { matmul(wide, of(DType::f32)); }), HasSubstr("(inputs: f64[4, 4] f32[4, 4])"));
  EXPECT_THAT(error_of([&] { matmul(cast(of(DType::f32), DType::f8e5m2), of(DType::f32)); }), HasSubstr("storage"));
}

TEST_F(AutocastTest, GivesTheBitsOfCastsWrittenOut) {
  for (const DType low : {DType::bf16, DType::f16}) {
    const TwoLayers ours(*device_), theirs(*device_);
    Tensor loss;
    const int64_t casts = casts_in([&] {
      const Autocast guard(low);
      loss = ours.loss();
    });
    const Tensor expected = theirs.hand(low);
    EXPECT_EQ(casts, casts_in([&] { theirs.hand(low); }));
    EXPECT_EQ(loss.dtype(), DType::f32);
    EXPECT_EQ(loss.item(), expected.item());
    backward(loss);
    backward(expected);
    EXPECT_EQ(ours.gradients(), theirs.gradients());
    EXPECT_NE(loss.item(), ours.loss().item()) << "in f32 it is another number";
  }
}

TEST_F(AutocastTest, BackwardRunsOutside) {
  const TwoLayers inside(*device_), outside(*device_);
  Tensor loss;
  {
    const Autocast guard(DType::bf16);
    loss = outside.loss();
    backward(inside.loss());
  }
  backward(loss);
  EXPECT_EQ(inside.gradients(), outside.gradients());
  // Rules sum and multiply gradients in 16 bits; nothing is cast but what forward cast.
  const Autocast guard(DType::bf16);
  const TwoLayers net(*device_);
  const int64_t forward = casts_in([&] { loss = net.loss(); });
  EXPECT_EQ(casts_in([&] { backward(loss); }), forward - 1) << "each cast has one gradient, but x wants none";
}

TEST_F(AutocastTest, GradientsOfGradients) {
  const auto penalty = [](const Tensor& x, const Tensor& w, bool is_autocast) {
    const auto product = [&](const Tensor& a, const Tensor& b) {
      return is_autocast ? matmul(a, b) : matmul(cast(a, DType::bf16), cast(b, DType::bf16));
    };
    const auto wide = [&](const Tensor& a) { return is_autocast ? a : cast(a, DType::f32); };
    const Tensor y = sum(square(wide(tanh(product(x, w)))));
    const Tensor g = grad(y, {w}, {}, {.create_graph = true})[0];
    return sum(square(wide(product(g, g))));
  };
  const Tensor x = of(DType::f32), a = drawn_leaf(*device_, {4, 4}, 5), b = drawn_leaf(*device_, {4, 4}, 5);
  {
    const Autocast guard(DType::bf16);
    backward(penalty(x, a, true));
  }
  backward(penalty(x, b, false));
  EXPECT_EQ(a.grad().dtype(), DType::f32);
  EXPECT_EQ(a.grad().to_vector(), b.grad().to_vector());
}

TEST_F(AutocastTest, ScopesNest) {
  const Tensor a = of(DType::f32);
  const auto type = [&] { return matmul(a, a).dtype(); };
  EXPECT_FALSE(is_autocast_enabled());
  const Autocast outer(DType::bf16);
  {
    const Autocast inner(DType::f16);
    EXPECT_EQ(type(), DType::f16);
    {
      const Autocast off;
      EXPECT_FALSE(is_autocast_enabled());
      EXPECT_EQ(type(), DType::f32);
      const Autocast on(DType::bf16);
      EXPECT_EQ(type(), DType::bf16);
    }
    EXPECT_EQ(type(), DType::f16);
    const Autocast disabled(DType::bf16, false);
    EXPECT_EQ(type(), DType::f32);
  }
  EXPECT_EQ(type(), DType::bf16);
}

TEST_F(AutocastTest, WantsSixteenBits) {
  for (const DType dtype : {DType::f32, DType::f64, DType::f8e4m3fn, DType::i32}) {
    try {
      const Autocast guard(dtype);
      FAIL() << name_of(dtype) << " was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), 2);
      EXPECT_THAT(error.what(), HasSubstr("products run in bf16 or f16, not in " + to_string(dtype)));
    }
    EXPECT_FALSE(is_autocast_enabled());
  }
}

TEST_F(AutocastTest, ExceptionsPutTheContextBackAndLetTheCastsGo) {
  const Tensor w = drawn_leaf(*device_, {4, 4}, 1);
  const int64_t before = live();
  EXPECT_THAT(error_of([&] {
                const Autocast guard(DType::bf16);
                const NoGrad nothing;
                matmul(w, w);
                EXPECT_GT(live(), before) << "the scope keeps it";
                matmul(w, of(DType::f32, {3, 3}));
              }),
              HasSubstr("inner sizes differ"));
  EXPECT_FALSE(is_autocast_enabled());
  EXPECT_EQ(context().casts, nullptr);
  EXPECT_EQ(live(), before);
}

TEST_F(AutocastTest, HoldsForItsThread) {
  const Autocast guard(DType::bf16);
  DType other = DType::boolean, nested = DType::boolean;
  std::thread([&] {
    const Ref<Device> device = open_cpu(Mode::real);
    const Tensor a = drawn(*device, {4, 4}, 1);
    other = matmul(a, a).dtype();
    const Autocast own(DType::f16);
    nested = matmul(a, a).dtype();
  }).join();
  EXPECT_EQ(other, DType::f32);
  EXPECT_EQ(nested, DType::f16);
  EXPECT_EQ(matmul(of(DType::f32), of(DType::f32)).dtype(), DType::bf16);
}

// ---- what a scope keeps
TEST_F(AutocastTest, AParameterIsCastOnceInAScope) {
  const Tensor w = drawn_leaf(*device_, {4, 4}, 1), frozen = of(DType::f32), x = of(DType::bf16);
  const auto thrice = [&](const Tensor& t) {
    for (int i = 0; i < 3; ++i) matmul(x, t);
  };
  EXPECT_EQ(casts_in([&] {
              const Autocast guard(DType::bf16);
              thrice(w);
              const Autocast inner(DType::bf16);
              thrice(w);
              const Autocast off;
              const Autocast again(DType::bf16);
              thrice(w);
            }),
            1)
      << "nested scopes share it";
  EXPECT_EQ(casts_in([&] {
              for (int i = 0; i < 2; ++i) {
                const Autocast guard(DType::bf16);
                thrice(w);
              }
            }),
            2)
      << "another scope casts again";
  EXPECT_EQ(casts_in([&] {
              const Autocast guard(DType::bf16);
              einsum("i j, k j -> k i", {x, w}), einsum("i j, j k -> i k", {w, x});
            }),
            1)
      << "before it is rearranged";
  const Autocast guard(DType::bf16);
  EXPECT_EQ(casts_in([&] { thrice(frozen); }), 3) << "no parameter";
  EXPECT_EQ(casts_in([&] { thrice(affine(w, 2)); }), 3) << "a result";
  EXPECT_EQ(casts_in([&] {
              thrice(w);
              const Autocast other(DType::f16);
              thrice(w);
            }),
            1 + 3 + 1)
      << "a cast for each type; x is brought to f16 each time";
}

TEST_F(AutocastTest, AWriteOrAReleasedGraphHasItCastAgain) {
  const Tensor w = drawn_leaf(*device_, {4, 4}, 1), x = of(DType::bf16);
  const Autocast guard(DType::bf16);
  const auto use = [&] { return matmul(x, w); };
  EXPECT_EQ(casts_in([&] { use(), use(); }), 1);
  fill_normal_(w, 2);
  Tensor y;
  EXPECT_EQ(casts_in([&] { use(), y = use(); }), 1);
  EXPECT_EQ(y.to_vector(), matmul(x, cast(w, DType::bf16)).to_vector()) << "the new values";
  backward(sum(y));  // what led from the cast to w is gone
  EXPECT_EQ(casts_in([&] { y = use(); }), 1);
  backward(sum(y), {}, {.retain_graph = true});
  EXPECT_EQ(casts_in([&] { use(); }), 0);
}

// What was cast under NoGrad is no part of a graph: a gradient through it would be lost.
TEST_F(AutocastTest, ACastOutsideOfTheGraphIsNotUsedInIt) {
  const Tensor w = drawn_leaf(*device_, {4, 4}, 1), x = of(DType::bf16);
  const Autocast guard(DType::bf16);
  {
    const NoGrad evaluation;
    EXPECT_EQ(casts_in([&] { matmul(x, w), matmul(x, w); }), 1);
  }
  Tensor y;
  EXPECT_EQ(casts_in([&] { y = matmul(x, w); }), 1);
  {
    const NoGrad evaluation;
    EXPECT_EQ(casts_in([&] { EXPECT_FALSE(matmul(x, w).requires_grad()); }), 0) << "the other way round it serves";
  }
  backward(sum(y));
  EXPECT_EQ(w.grad().dtype(), DType::f32);
}

TEST_F(AutocastTest, AKeptCastEndsWithTheScope) {
  const Tensor w = drawn_leaf(*device_, {64, 64}, 1), x = of(DType::bf16, {4, 64});
  const NoGrad evaluation;
  const int64_t before = live();
  {
    const Autocast guard(DType::bf16);
    matmul(x, w);
    EXPECT_EQ(live() - before, 64 * 64 * 2);
    fill_normal_(w, 2);
    matmul(x, w);
    EXPECT_EQ(live() - before, 64 * 64 * 2) << "the cast of the new values took its place";
    const Autocast inner(DType::f16);
    matmul(x, w);
    EXPECT_EQ(live() - before, 2 * 64 * 64 * 2);
  }
  EXPECT_EQ(live(), before);
}
}  // namespace
}  // namespace reckon
