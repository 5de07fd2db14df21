// The graph as a structure: what it holds, when it lets go, and how deep it may be.
#include "tests/engine/support.h"

namespace reckon {
namespace {

class Graph : public OnCpu {};

TEST_F(Graph, NodesSayWhatTheyAre) {
  const ModuleScope outer("blocks");
  const ModuleScope inner("3");
  const Tensor x = leaf({2, 3}, Values(6, 1)), w = tensor({3, 4}, Values(12, 1)), y = matmul(x, w);
  const Node& node = *node_of(y);
  EXPECT_STREQ(node.name(), "matmul");
  EXPECT_EQ(module_path(node.module()), "blocks.3");
  ASSERT_EQ(node.next_functions().size(), 2u);
  EXPECT_EQ(node.next_functions()[0].leaf.ref(), x.ref());
  EXPECT_FALSE(node.next_functions()[1].wanted());
  EXPECT_EQ(node.out_specs()[0].shape, (Shape{2, 4}));
  EXPECT_LT(node.sequence(), node_of(affine(y, 2))->sequence());
}

constexpr int kDeep = 100000;

TEST_F(Graph, ADeepChainIsDroppedWithoutRecursion) {
  Tensor x = scalar_leaf(1);
  for (int i = 0; i < kDeep; ++i) x = affine(x, 1, 0);
}

// Nodes that keep their inputs hold the chain twice: by edges and by kept tensors.
TEST_F(Graph, ADeepChainOfKeptTensorsIsDroppedWithoutRecursion) {
  Tensor x = scalar_leaf(1);
  for (int i = 0; i < kDeep; ++i) x = square(x);
}

TEST_F(Graph, ADeepChainRunsBackward) {
  Tensor x = scalar_leaf(1);
  const Tensor minus_one = scalar(-1);
  Tensor y = x;
  for (int i = 0; i < kDeep; ++i) y = i % 2 ? affine(y, -1) : mul(y, minus_one);
  backward(y, {}, {.retain_graph = true});
  EXPECT_EQ(x.grad().item(), 1);
  x.zero_grad();
  backward(y);
  EXPECT_EQ(x.grad().item(), 1);
}

TEST_F(Graph, ADeepRetainedGraphOfGradientsIsDroppedWithoutRecursion) {
  const Tensor x = scalar_leaf(1);
  Tensor y = x;
  for (int i = 0; i < kDeep / 10; ++i) y = mul(y, x);
  const Tensor g = grad(y, {x}, {}, {.create_graph = true})[0];
  EXPECT_EQ(g.item(), kDeep / 10 + 1);
}

TEST_F(Graph, NothingIsLeftWhenTheHandlesGo) {
  const int64_t before = live();
  {
    const Tensor x = leaf({100}, Values(100, 0.5));
    Tensor y = x;
    for (int i = 0; i < 10; ++i) y = exp(affine(y, 0.1));
    const Tensor loss = sum(mul(y, y));
    backward(loss, {}, {.retain_graph = true});
    backward(loss);
  }
  EXPECT_EQ(live(), before);
}

TEST_F(Graph, NothingIsLeftAfterCreateGraphEither) {
  const int64_t before = live();
  {
    const Tensor x = leaf({100}, Values(100, 0.5));
    const Tensor y = sum(mul(exp(x), x));
    const Tensor g = grad(y, {x}, {}, {.create_graph = true})[0];
    EXPECT_TRUE(grad(sum(g), {x})[0].defined());
  }
  EXPECT_EQ(live(), before);
}

struct Watch {
  Device* device;
  std::vector<int64_t> live;
};

TEST_F(Graph, KeptTensorsAreReleasedAsBackwardPassesThem) {
  // Ten activations of 8000 bytes, each kept by the square that follows it; every square's rule makes one gradient and frees one
  // activation.
  constexpr int kLayers = 10;
  constexpr int64_t kBytes = 1000 * 8;
  const Tensor x = leaf({1000}, Values(1000, 0.9));
  Watch watch{device_.get(), {}};
  Tensor y = x;
  for (int i = 0; i < kLayers; ++i) {
    y = square(y);
    node_of(y)->add_hook(
        [](const Node&, Tensors&, void* user) {
          auto* w = static_cast<Watch*>(user);
          w->live.push_back(w->device->allocator().ledger().live);
        },
        &watch);
  }
  Tensor loss = sum(y);
  y = Tensor();
  backward(loss);
  ASSERT_EQ(watch.live.size(), size_t(kLayers));
  // From one node to the next at least its kept input is gone; what is made (the gradient) replaces the gradient before.
  for (int i = 2; i < kLayers; ++i) EXPECT_EQ(watch.live[size_t(i)], watch.live[size_t(i - 1)] - round_block(kBytes)) << "at node " << i;
}

TEST_F(Graph, AnExceptionInBackwardLeavesNothingBehind) {
  const Tensor x = leaf({100}, Values(100, 0.5)), w = tensor({100}, Values(100, 2));
  const int64_t before = live();
  {
    const Tensor y = sum(exp(mul(x, w)));
    fill_uniform_(w, 1);
    EXPECT_THAT(error_of([&] { backward(y); }), HasSubstr("changed in place"));
  }
  EXPECT_EQ(live(), before);
  EXPECT_TRUE(context().grad_enabled);
  EXPECT_EQ(context().module, 0u);
}

TEST_F(Graph, ReusedStorageNeverChangesWhatSomebodyHolds) {
  const Tensor a = tensor({4}, {1, 2, 3, 4});
  const Tensor held = a;
  Tensor mine = affine(a, 1);
  const void* place = mine.raw();
  const Tensor result = affine(std::move(mine), 2);  // nobody else holds it: in place
  EXPECT_EQ(result.raw(), place);
  const Tensor other = affine(Tensor(a), 2);  // a is held
  EXPECT_NE(other.raw(), a.raw());
  EXPECT_THAT(held.to_vector(), ElementsAre(1, 2, 3, 4));

  // A view holds the storage, too.
  Tensor viewed = affine(a, 1);
  const Tensor window = slice(viewed, 0, 1, 3);
  const Tensor doubled = affine(std::move(viewed), 2);
  EXPECT_THAT(window.to_vector(), ElementsAre(2, 3));
  EXPECT_THAT(doubled.to_vector(), ElementsAre(2, 4, 6, 8));

  // So does a node that kept it.
  const Tensor x = leaf({4}, {1, 2, 3, 4});
  Tensor kept = exp(x);
  const Values before = kept.to_vector();
  const Tensor y = sum(affine(std::move(kept), 3));
  backward(y);
  for (size_t i = 0; i < 4; ++i) EXPECT_DOUBLE_EQ(x.grad().to_vector()[i], 3 * before[i]);
}

TEST_F(Graph, CrossEntropyOverwritesLogitsOnlyIfNobodyHoldsThem) {
  const Tensor x = leaf({2, 3}, {1, 2, 3, 4, 5, 7}), targets = from_values<int32_t>(*device_, {2}, std::vector<int32_t>{0, 2});
  const Tensor logits = affine(x, 2);
  const Values before = logits.to_vector();
  backward(cross_entropy(logits, targets));
  EXPECT_EQ(logits.to_vector(), before);
  const Values held = x.grad().to_vector();

  Tensor again = x;
  again.zero_grad();
  const int64_t live_before = live();
  const Tensor loss = cross_entropy(affine(x, 2), targets);
  backward(loss);
  EXPECT_EQ(x.grad().to_vector(), held);
  EXPECT_GE(live_before + 3 * 64, live());
}

TEST_F(Graph, RetainedGraphsGiveTheSameGradientsTwice) {
  const Tensor x = leaf({2, 3}, {1, 2, 3, 4, 5, 7}), targets = from_values<int32_t>(*device_, {2}, std::vector<int32_t>{0, 2});
  const Tensor loss = cross_entropy(affine(x, 2), targets);
  backward(loss, {}, {.retain_graph = true});
  const Values once = x.grad().to_vector();
  Tensor(x).zero_grad();
  backward(loss);
  EXPECT_EQ(x.grad().to_vector(), once) << "the first pass must not have overwritten the kept logits";
}

// The edge keeps the graph, not the result: its storage may be gone, or hold its own gradient.
TEST_F(Graph, BackwardFromAnEdgeNeedsNoResult) {
  const Tensor x = leaf({2}, {1, 2});
  Edge edge;
  {
    const Tensor y = affine(x, 3);
    edge = gradient_edge(y);
  }
  const int64_t before = live();
  backward(edge, tensor({2}, {10, 20}));
  EXPECT_EQ(x.grad().to_vector(), (Values{30, 60}));
  EXPECT_EQ(live(), before + 64) << "the gradient of x";
  backward(gradient_edge(x), tensor({2}, {1, 1}));
  EXPECT_EQ(x.grad().to_vector(), (Values{31, 61})) << "a leaf's own edge";
  EXPECT_THAT(error_of([&] { backward(gradient_edge(tensor({2}, {1, 2})), tensor({2}, {1, 1})); }), HasSubstr("nothing behind this edge"));
  EXPECT_THAT(error_of([&] { backward(gradient_edge(affine(x, 3)), tensor({1}, {1})); }), HasSubstr("seed f64[1] does not match"));
}

TEST_F(Graph, InputsOfTwoDevicesAreRefused) {
  const Ref<Device> other = open_cpu(Mode::real);
  EXPECT_THAT(error_of([&] { add(scalar(1), zeros(*other, {{}, DType::f64})); }), HasSubstr("two devices"));
}

TEST_F(Graph, ErrorsNameTheOperationAndItsInputs) {
  const std::string message = error_of([&] { matmul(tensor({2, 3}, Values(6)), tensor({2, 3}, Values(6))); });
  EXPECT_THAT(message, HasSubstr("matmul: "));
  EXPECT_THAT(message, HasSubstr("f64[2, 3]"));
  const int64_t before = live();
  EXPECT_NE(error_of([&] { add(tensor({2}, {1, 2}), tensor({3}, {1, 2, 3})); }), "");
  EXPECT_EQ(live(), before) << "a refused call takes no memory";
}

TEST_F(Graph, TheFiniteCheckNamesTheOperationAndModule) {
  const FiniteCheck guard;
  const ModuleScope module("head");
  const std::string message = error_of([&] { log(tensor({3}, {1, 0, -1})); });
  EXPECT_THAT(message, HasSubstr("log in head gave 2 NaN or infinite values of 3"));
}
}  // namespace
}  // namespace reckon
