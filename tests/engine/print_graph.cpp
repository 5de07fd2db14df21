// The printed graph: what it says of each node, that meta says the same, and that Graphviz reads it where it is installed.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "reckon/engine/cost.h"
#include "reckon/engine/function.h"
#include "reckon/engine/graph.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {

struct Example {
  Tensor x, w, b, loss;
};
Example example(Device& device) {
  Example e{ones(device, {{4, 8}, DType::f32}), ones(device, {{16, 8}, DType::f32}), ones(device, {{16}, DType::f32}), {}};
  e.w.set_requires_grad();
  e.b.set_requires_grad();
  const ModuleScope module("mlp");
  e.loss = sum(gelu(linear(e.x, e.w, e.b)));
  return e;
}

constexpr const char* kText =
    "#2 sum [mlp]  f32[] = 4 B  keeps 0 B  64 FLOPs  <- #1\n"
    "#1 gelu [mlp]  f32[4, 16] = 256 B  keeps 256 B  576 FLOPs  <- #0\n"
    "#0 linear [mlp]  f32[4, 16] = 256 B  keeps 128 B  1,088 FLOPs  <- -, w, leaf 1\n"
    "3 nodes, 2 leaves; kept for backward: 384 B; forward: 1,728 FLOPs\n";

class PrintGraph : public OnCpu {};

TEST_F(PrintGraph, AsText) {
  const Example e = example(*device_);
  EXPECT_EQ(print_graph(e.loss, GraphFormat::text, {{"w", e.w}}), kText);
}

TEST_F(PrintGraph, OneFlopIsNotSeveral) {
  const Tensor x = scalar_leaf(2);
  EXPECT_EQ(print_graph(exp(x)),
            "#0 exp  f64[] = 8 B  keeps 8 B  1 FLOP  <- leaf 0\n1 node, 1 leaf; kept for backward: 8 B; forward: 1 FLOP\n");
  EXPECT_EQ(to_string(Cost{1, {0, 1, 0}, 16, 64}), "1 FLOP, moves 16 B, holds 64 B");
  EXPECT_EQ(to_string(Cost{1, {2, 1, 0}, 16, 64}), "2 matmul and 1 other FLOPs, moves 16 B, holds 64 B");
  EXPECT_EQ(to_string(Cost{1, {0, 0, 0}, 16, 64}), "0 FLOPs, moves 16 B, holds 64 B");
}

TEST_F(PrintGraph, OnMetaItIsTheSame) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  const Example e = example(*meta);
  EXPECT_EQ(print_graph(e.loss, GraphFormat::text, {{"w", e.w}}), kText);
}

TEST_F(PrintGraph, ForGraphviz) {
  const Example e = example(*device_);
  const std::string dot = print_graph(e.loss, GraphFormat::dot, {{"the \"first\"\\weight", e.w}});
  EXPECT_THAT(dot, HasSubstr("digraph reckon {"));
  EXPECT_THAT(dot, HasSubstr("leaf0 [label=\"the \\\"first\\\"\\\\weight\\nf32[16, 8]\", shape=ellipse"));
  EXPECT_THAT(dot, HasSubstr("n1 [label=\"gelu [mlp]\\nf32[4, 16] = 256 B\\nkeeps 256 B\\n576 FLOPs\"];"));
  EXPECT_THAT(dot, HasSubstr("  leaf0 -> n0;\n"));
  EXPECT_THAT(dot, HasSubstr("  n0 -> n1;\n"));
  EXPECT_THAT(dot, HasSubstr("label=\"3 nodes, 2 leaves; kept for backward: 384 B; forward: 1,728 FLOPs\""));
  EXPECT_EQ(std::count(dot.begin(), dot.end(), '{'), std::count(dot.begin(), dot.end(), '}'));
  if (std::system("command -v dot >/dev/null 2>&1") != 0) return;
  FILE* pipe = popen("dot -Tsvg >/dev/null", "w");
  ASSERT_NE(pipe, nullptr);
  std::fputs(dot.c_str(), pipe);
  EXPECT_EQ(pclose(pipe), 0);
}

TEST_F(PrintGraph, SharedKeepsCountOnceInTheTotal) {
  const Tensor x = leaf({32}, Values(32, 1)), y = exp(x), z = sum(mul(y, square(y)));
  const std::string lines = print_graph(z, GraphFormat::text, {{"x", x}});
  EXPECT_THAT(lines, HasSubstr("#0 exp  f64[32] = 256 B  keeps 256 B  32 FLOPs  <- x\n"));
  EXPECT_THAT(lines, HasSubstr("#1 square  f64[32] = 256 B  keeps 256 B"));
  EXPECT_THAT(lines, HasSubstr("#2 mul  f64[32] = 256 B  keeps 512 B"));
  EXPECT_THAT(lines, HasSubstr("4 nodes, 1 leaf; kept for backward: 512 B"));
}

TEST_F(PrintGraph, FrozenParametersAreNotKeptForBackward) {
  const Tensor x = leaf({32}, Values(32, 1));
  Tensor frozen;
  {
    const CategoryScope scope(Category::parameter);
    frozen = ones(*device_, {{32}, DType::f64});
  }
  const std::string lines = print_graph(sum(mul(square(x), frozen)));  // mul keeps the square too
  EXPECT_THAT(lines, HasSubstr("mul  f64[32] = 256 B  keeps 256 B"));
  EXPECT_THAT(lines, HasSubstr("kept for backward: 256 B"));
}

struct Same {
  static constexpr const char* name = "same";
  Tensor forward(FunctionContext&, const Tensor& x) { return x; }
  Tensor backward(FunctionContext&, const Tensor& dy) { return dy; }
};
TEST_F(PrintGraph, SegmentsFunctionsAndWhatIsMadeAgain) {
  const Tensor x = leaf({32}, Values(32, 1));
  Tensor y;
  {
    const Recomputed scope;
    y = exp(x);
  }
  const Tensor z = checkpoint([](const Tensors& in) { return square(in[0]); }, {apply_function(Same{}, exp(y))});
  const std::string lines = print_graph(z);
  EXPECT_THAT(lines, HasSubstr("checkpoint  f64[32] = 256 B  keeps 256 B  - FLOPs"));
  EXPECT_THAT(lines, HasSubstr("same  f64[32] = 256 B  keeps 0 B  - FLOPs"));
  EXPECT_THAT(lines, HasSubstr("#0 exp  f64[32] = 256 B  keeps 0 B, 1 recomputed  32 FLOPs  <- leaf 0"));
}

TEST_F(PrintGraph, RefusesWhatHasNone) {
  EXPECT_THAT(error_of([&] { print_graph(scalar(1)); }), HasSubstr("print_graph: f64[] is not the result of a recorded operation"));
  const Tensor y = square(scalar_leaf(2));
  backward(y);
  EXPECT_THAT(error_of([&] { print_graph(y); }), HasSubstr("released graph"));
}
}  // namespace
}  // namespace reckon
