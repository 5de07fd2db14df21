// A compiled step that does something else than what was recorded is right all the same, and says what it did.
#include "tests/engine/compile_support.h"

namespace reckon {
namespace {
using CompileFallback = OnCpu;

// A chain whose flow depends on `mode`, which the recording cannot see.
struct Chain {
  enum Mode { recorded, other_op, one_more, one_less, keeps, reads, turned, early_sum };
  mutable Tensor kept;
  mutable std::vector<double> seen;
  Mode mode = recorded;

  Tensors operator()(const Tensors& in) const {
    Tensor a = exp(affine(in[0], 0.5));
    if (mode == keeps) kept = a;
    if (mode == reads && !in[0].device().is_meta()) seen = a.to_vector();
    Tensor b = mode == turned ? mul(a, transpose(in[1])) : mul(a, in[1]);
    a = {};
    if (mode == one_more) b = square(b);
    if (mode == early_sum) return {sum(b), b};
    Tensor c = mode == other_op ? sigmoid(b) : tanh(b);
    b = {};
    if (mode == one_less) return {c, c};
    return {mul(c, in[0]), sum(affine(c, 3), {-1})};
  }
};

TEST_F(CompileFallback, EveryOtherFlowIsRightAndCounted) {
  const Tensor x = normal(*device_, {50, 50}, 1), y = normal(*device_, {50, 50}, 2);
  Chain chain, eager;
  CompiledStep step = compile(*device_, [&](const Tensors& in) { return chain(in); });
  EXPECT_EQ(bytes_of(step({x, y})), bytes_of(eager({x, y})));
  ASSERT_EQ(step.fallbacks(), 0) << step.last_difference();
  ASSERT_GE(step.plan({x, y}).groups[0].unstored, 4 * x.spec().bytes());
  int64_t fallbacks = 0;
  for (const Chain::Mode mode :
       {Chain::other_op, Chain::one_more, Chain::one_less, Chain::keeps, Chain::reads, Chain::turned, Chain::early_sum}) {
    chain.mode = eager.mode = mode;
    EXPECT_EQ(bytes_of(step({x, y})), bytes_of(eager({x, y}))) << mode;
    EXPECT_EQ(step.fallbacks(), ++fallbacks) << mode;
    EXPECT_NE(step.last_difference(), "");
    EXPECT_EQ(bytes_of(chain.kept), bytes_of(eager.kept)) << mode;
    EXPECT_EQ(chain.seen, eager.seen);
    chain.kept = eager.kept = {};
    chain.mode = eager.mode = Chain::recorded;  // a fallback ends the call, not the fusion
    EXPECT_EQ(bytes_of(step({x, y})), bytes_of(eager({x, y})));
    EXPECT_EQ(step.fallbacks(), fallbacks) << step.last_difference();
  }
}

TEST_F(CompileFallback, NamesTheFirstDifferenceOnce) {
  const Tensor x = normal(*device_, {50, 50}, 1), y = normal(*device_, {50, 50}, 2);
  Chain chain;
  CompiledStep step = compile(*device_, [&](const Tensors& in) { return chain(in); });
  step({x, y});
  chain.mode = Chain::other_op;
  testing::internal::CaptureStderr();
  step({x, y});
  step({x, y});
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, HasSubstr("call 3 is sigmoid f32[50, 50], recorded was tanh f32[50, 50]"));
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  chain.mode = Chain::keeps;
  step({x, y});
  EXPECT_THAT(step.last_difference(), HasSubstr("exp f32[50, 50], is held or read"));
  EXPECT_EQ(step.fallbacks(), 3);
}

// What is written between two calls of a chain is read before and after as written; draws and the host's writes count as writing.
TEST_F(CompileFallback, WritesKeepTheirPlace) {
  const std::vector<float> host(64 * 64, 0.5f);
  const auto body = [&](const Tensors& in) -> Tensors {
    Tensor a = affine(exp(in[0]), 2);
    fill_uniform_(in[0], 7);
    Tensor b = mul(affine(std::move(a), 0.5), in[0]);
    in[0].write(host.data(), int64_t(host.size() * 4));
    return {sub(tanh(std::move(b)), in[0])};
  };
  CompiledStep step = compile(*device_, body);
  const Tensor x = normal(*device_, {64, 64}, 1), y = normal(*device_, {64, 64}, 1);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(bytes_of(step({x})), bytes_of(body({y})));
    EXPECT_EQ(bytes_of(x), bytes_of(y));
  }
  EXPECT_EQ(step.fallbacks(), 0) << step.last_difference();
}

TEST_F(CompileFallback, AnErrorInsideLeavesTheStepUsable) {
  bool fails = false;
  const auto body = [&](const Tensors& in) -> Tensors {
    Tensor a = exp(affine(in[0], 2));
    if (fails) fail("enough");
    return {tanh(std::move(a))};
  };
  CompiledStep step = compile(*device_, body);
  const Tensor x = normal(*device_, {64, 64}, 1);
  step({x});
  const int64_t before = live();
  fails = true;
  EXPECT_EQ(error_of([&] { step({x}); }), "enough");
  fails = false;
  EXPECT_EQ(live(), before);
  EXPECT_EQ(bytes_of(step({x})), bytes_of(body({x})));
  EXPECT_EQ(step.fallbacks(), 0);
}

// While every result is searched for NaN, none may wait.
TEST_F(CompileFallback, AFiniteCheckNamesTheOperation) {
  const auto body = [](const Tensors& in) -> Tensors { return {tanh(log(affine(in[0], 0)))}; };
  CompiledStep step = compile(*device_, [&](const Tensors& in) { return body(in); });
  const Tensor x = normal(*device_, {64, 64}, 1);
  step({x});
  const FiniteCheck check;
  EXPECT_THAT(error_of([&] { step({x}); }), HasSubstr("log gave 4096 NaN or infinite values"));
}

TEST_F(CompileFallback, RefusesBeforeItStartsWhatIsOverTheBudget) {
  const auto body = [](const Tensors& in) -> Tensors { return {tanh(exp(affine(in[0], 2)))}; };
  CompiledStep step = compile(*device_, body);
  const Tensor x = normal(*device_, {1000, 1000}, 1);
  device_->allocator().set_budget(device_->allocator().ledger().extent + 1000);
  try {
    step({x});
    FAIL() << "over the budget, and it ran";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), 3) << error.what();
  }
}
}  // namespace
}  // namespace reckon
