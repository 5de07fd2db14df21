// Hooks: what users see and change of gradients on their way.
#include "reckon/engine/hooks.h"

#include "tests/engine/support.h"

namespace reckon {
namespace {

class Hooks : public OnCpu {};

TEST_F(Hooks, ATensorsHookSeesItsWholeGradientOnce) {
  const Tensor x = scalar_leaf(3), y = square(x);
  Values seen;
  register_hook(y, [&](const Tensor& g) { seen.push_back(g.item()); });
  backward(add(affine(y, 5), mul(y, scalar(2))));
  EXPECT_THAT(seen, ElementsAre(7));
  EXPECT_EQ(x.grad().item(), 7 * 6);
}

TEST_F(Hooks, MayReplaceAndBeRemoved) {
  const Tensor x = scalar_leaf(3), y = square(x), z = affine(y, 5);
  const auto keep = register_hook(y, [](const Tensor& g) { return affine(g, 10); });
  HookHandle second = register_hook(y, [](const Tensor& g) { return affine(g, 1, 1); });
  const auto slope = [&] { return grad(z, {x}, {}, {.retain_graph = true})[0].item(); };
  EXPECT_EQ(slope(), (5 * 10 + 1) * 6) << "in the order of their registration";
  second.remove();
  second.remove();
  EXPECT_EQ(slope(), 5 * 10 * 6);
  register_hook(y, [](const Tensor&) { return Tensor(); });
  EXPECT_EQ(slope(), 5 * 10 * 6) << "an undefined tensor changes nothing";
  register_hook(y, [](const Tensor& g) { return cast(g, DType::f32); });
  EXPECT_THAT(error_of(slope), HasSubstr("square: a hook gave f32[] as a gradient of f64[]"));
}

TEST_F(Hooks, ALeafsHookSeesTheSumOfThePass) {
  for (const bool slot : {false, true}) {
    Tensor x = leaf({2, 2}, {1, 2, 3, 4});
    if (slot) x.set_grad_slot(zeros(*device_, x.spec()));
    std::vector<Values> seen, accumulated;
    register_hook(x, [&](const Tensor& g) {
      seen.push_back(g.to_vector());
      return affine(g, 2);
    });
    register_post_accumulate_grad_hook(x, [&](const Tensor& leaf) { accumulated.push_back(leaf.grad().to_vector()); });
    const Tensor id = tensor({2, 2}, {1, 0, 0, 1});
    const auto loss = [&] { return add(sum(linear(id, x)), sum(square(x))); };  // two rules, one of which would write the slot itself
    backward(loss());
    EXPECT_THAT(seen, ElementsAre(Values{3, 5, 7, 9}));
    EXPECT_THAT(accumulated, ElementsAre(Values{6, 10, 14, 18}));
    backward(loss());
    EXPECT_EQ(seen.size(), 2u);
    EXPECT_EQ(accumulated.back(), (Values{12, 20, 28, 36}));
    EXPECT_THAT(grad(loss(), {x})[0].to_vector(), ElementsAre(6, 10, 14, 18)) << "grad() too";
    EXPECT_EQ(accumulated.size(), 2u) << "but it accumulates nothing";
  }
}

TEST_F(Hooks, ALeafInCheckpointsHasOnePass) {
  const Tensor w = scalar_leaf(2), x = scalar_leaf(3);
  Values seen;
  register_hook(w, [&](const Tensor& g) { seen.push_back(g.item()); });
  const auto segment = [&](const Tensors& in) { return mul(in[0], w); };
  backward(mul(checkpoint(segment, {checkpoint(segment, {x})}), w));  // x w^3
  EXPECT_THAT(seen, ElementsAre(3 * 3 * 4));
  EXPECT_EQ(w.grad().item(), 36);
}

TEST_F(Hooks, NodesHaveThemBeforeAndAfter) {
  const Tensor x = scalar_leaf(3), y = square(x), z = affine(y, 5);
  std::vector<std::string> order;
  HookHandle before = register_prehook(*node_of(y), [&](const Node& node, Tensors& dy) {
    order.push_back(std::string("before ") + node.name());
    dy[0] = affine(dy[0], 2);
  });
  register_posthook(*node_of(y), [&](const Node& node, Tensors& dx) {
    order.push_back(std::string("after ") + node.name());
    EXPECT_EQ(dx[0].item(), 60);
    dx[0] = affine(dx[0], 1, 1);
  });
  EXPECT_EQ(grad(z, {x}, {}, {.retain_graph = true})[0].item(), 61);
  EXPECT_THAT(order, ElementsAre("before square", "after square"));
  before.remove();
  register_posthook(*node_of(y), [&](const Node&, Tensors& dx) { EXPECT_EQ(dx[0].item(), 61) << "after the first one"; });
  node_of(y)->add_hook([](const Node&, Tensors& dy, void*) { dy[0] = affine(dy[0], 2); }, nullptr);
  EXPECT_EQ(grad(z, {x})[0].item(), 61);
}

TEST_F(Hooks, MayNotTakeAGradientAway) {
  const Tensor x = scalar_leaf(3), y = square(x);
  register_prehook(*node_of(y), [](const Node&, Tensors& dy) { dy[0] = Tensor(); });
  EXPECT_THAT(error_of([&] { backward(y); }), HasSubstr("square: a hook gave undefined as the gradient of output 0, f64[]"));
}

TEST_F(Hooks, RetainedGradientsOfResults) {
  const Tensor x = scalar_leaf(3);
  Tensor y = square(x);
  EXPECT_FALSE(y.grad().defined());
  retain_grad(y);
  retain_grad(y);
  retain_grad(x);
  const Tensor z = add(affine(y, 5), y);
  EXPECT_FALSE(y.grad().defined());
  backward(z, {}, {.retain_graph = true});
  EXPECT_EQ(y.grad().item(), 6);
  EXPECT_EQ(x.grad().item(), 36);
  backward(z);
  EXPECT_EQ(y.grad().item(), 12) << "it accumulates, as a leaf's does";
  y.zero_grad();
  EXPECT_FALSE(y.grad().defined());
}

TEST_F(Hooks, ARetainedGradientIsNotOverwrittenByWhatFollows) {
  const Tensor x = leaf({64}, Values(64, 0.5));
  const Tensor y = exp(x);
  retain_grad(y);
  backward(sum(affine(y, 3)));
  EXPECT_EQ(y.grad().to_vector(), Values(64, 3));
}

TEST_F(Hooks, MakeNoCycles) {
  const int64_t before = live();
  {
    const Tensor x = leaf({100}, Values(100, 0.5)), y = exp(x);
    retain_grad(y);
    register_hook(y, [](const Tensor& g) { return affine(g, 2); });
    register_hook(x, [](const Tensor& g) { return affine(g, 2); });
    register_post_accumulate_grad_hook(x, [](const Tensor& leaf) { Tensor(leaf).zero_grad(); });
    backward(sum(y));
    EXPECT_FALSE(x.grad().defined());
  }
  EXPECT_EQ(live(), before);
}

TEST_F(Hooks, AreRecordedUnderCreateGraph) {
  const Tensor x = scalar_leaf(3), y = square(x);
  HookHandle hook = register_hook(y, [](const Tensor& g) { return square(g); });
  const Tensor g = grad(mul(y, y), {x}, {}, {.create_graph = true})[0];  // (2 x^2)^2 2 x
  EXPECT_EQ(g.item(), 8 * 243);
  hook.remove();  // or it would see the second pass, too
  EXPECT_EQ(grad(g, {x})[0].item(), 40 * 81);
}

// Its sum was held in 16 bits although the slot has 32: 1 + 2^-9 + 2^-9 was 1.
TEST_F(Hooks, ALeafWithASlotIsSummedInTheSlotsDtype) {
  const auto narrow = [&](const Shape& shape, const Values& values) { return cast(tensor(shape, values), DType::bf16); };
  const Tensor one = narrow({1, 1}, {1}), small = narrow({1, 1}, {0x1p-9});
  const Tensor ids = from_values<int32_t>(*device_, {2}, std::vector<int32_t>{0, 0}), rows = narrow({2, 1}, {1, 0x1p-9});
  const auto slope = [&](bool hooked) {
    Tensor w = Tensor(narrow({1, 1}, {3})).set_requires_grad();
    w.set_grad_slot(zeros(*device_, {{1, 1}, DType::f32}));
    std::vector<DType> seen;
    HookHandle handle;
    if (hooked) handle = register_hook(w, [&](const Tensor& g) { seen.push_back(g.dtype()); });
    backward(add(add(sum(linear(one, w)), sum(linear(small, w))), add(sum(linear(small, w)), sum(mul(embedding(w, ids), rows)))));
    EXPECT_EQ(seen, std::vector<DType>(hooked, DType::f32));
    return w.grad().item();
  };
  EXPECT_EQ(slope(false), 2 + 3 * 0x1p-9);
  EXPECT_EQ(slope(true), slope(false));
}

TEST_F(Hooks, ALeafWhoseHooksAreGoneIsAsBefore) {
  Tensor x = leaf({1, 1}, {2});
  x.set_grad_slot(zeros(*device_, x.spec()));
  HookHandle first = register_hook(x, [](const Tensor&) {}), second = register_post_accumulate_grad_hook(x, [](const Tensor&) {});
  first.remove();
  EXPECT_TRUE(x.state().hooks);
  second.remove();
  EXPECT_FALSE(x.state().hooks);
  int calls = 0;
  HookHandle once;
  once = register_hook(x, [&](const Tensor&) {
    ++calls;
    once.remove();
  });
  for (int pass = 0; pass < 2; ++pass) backward(sum(square(x)));
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(x.grad().item(), 8);
  HookHandle late;
  {
    const Tensor gone = leaf({1}, {1});
    late = register_hook(gone, [](const Tensor&) {});
  }
  late.remove();
}

// The loss's step wrote the slot of a weight with hooks, and none of them was called.
TEST_F(Hooks, ALossThatWritesTheSlotRefusesThem) {
  Tensor w = leaf({2, 1}, {2, 3});
  w.set_grad_slot(zeros(*device_, w.spec()));
  const Tensor x = tensor({1, 1}, {1}), targets = from_values<int32_t>(*device_, {1}, std::vector<int32_t>{1});
  HookHandle hook = register_hook(w, [](const Tensor&) {});
  const auto step = [&] { linear_cross_entropy_step(x, w, targets, scalar(1)); };
  EXPECT_THAT(error_of(step), AllOf(HasSubstr("f64[2, 1] has hooks"), HasSubstr("use linear_cross_entropy")));
  EXPECT_FALSE(w.grad().defined());
  hook.remove();
  EXPECT_EQ(error_of(step), "");
}

// A leaf's gradient under create_graph was the caller's seed itself, and that of another leaf.
TEST_F(Hooks, GradientsShareNoMemory) {
  for (const bool create_graph : {false, true}) {
    const Tensor x = leaf({2}, {1, 2}), y = leaf({2}, {3, 4}), seed = tensor({2}, {5, 6});
    const Tensor u = add(x, y), v = add(x, y), z = add(u, v);
    for (const Tensor& t : {u, v, z}) retain_grad(t);
    backward(z, seed, {.create_graph = create_graph});
    const Tensors all{seed, x.grad(), y.grad(), u.grad(), v.grad(), z.grad()};
    for (size_t i = 0; i < all.size(); ++i)
      for (size_t j = 0; j < i; ++j) EXPECT_FALSE(all[i].same_storage(all[j])) << i << " and " << j;
    EXPECT_THAT(x.grad().to_vector(), ElementsAre(10, 12));
    EXPECT_THAT(u.grad().to_vector(), ElementsAre(5, 6));
    for (Tensor t : {x, y}) t.zero_grad();  // part of a graph that holds the leaf
  }
}

TEST_F(Hooks, ARetainedGradientUnderCreateGraphIsNoCycle) {
  const int64_t before = live();
  {
    Tensor x = leaf({100}, Values(100, 0.5));
    const Tensor y = exp(x);
    retain_grad(y);
    for (int pass = 1; pass <= 2; ++pass) {
      backward(sum(square(y)), {}, {.create_graph = true});
      EXPECT_FALSE(y.grad().requires_grad());
      EXPECT_DOUBLE_EQ(y.grad().to_vector()[0], pass * 2 * y.to_vector()[0]);
    }
    x.zero_grad();
  }
  EXPECT_EQ(live(), before);
}

// Rules may give fewer gradients than there are inputs; a hook wrote beyond the end. What it changed was not looked at but for its shape.
TEST_F(Hooks, APosthookSeesAllInputsAndGivesWhatTheyWant) {
  const Tensor x = leaf({2}, {1, 2});
  const auto error_with = [&](auto change) {
    const Tensor y = checkpoint([](const Tensors& in) { return square(in[0]); }, {x});
    register_posthook(*node_of(y), [&](const Node& node, Tensors& dx) {
      EXPECT_EQ(dx.size(), node.in_specs().size());
      change(dx);
    });
    return error_of([&] { grad(sum(y), {x}); });
  };
  EXPECT_THAT(error_with([&](Tensors& dx) {
                dx[0] = zeros(*device_, {{2}, DType::f32});
              }),
              HasSubstr("checkpoint: a hook gave f32[2] as the gradient of input 0, f64[2]"));
  EXPECT_THAT(error_with([](Tensors& dx) { dx.push_back({}); }), HasSubstr("checkpoint: a hook gave 2 gradients for 1 inputs"));
  const Tensor y = square(x);
  register_posthook(*node_of(y), [](const Node&, Tensors& dx) { dx[0] = Tensor(); });
  EXPECT_THAT(error_of([&] { backward(sum(y)); }), HasSubstr("square: a hook gave undefined as the gradient of input 0, f64[2]"));
}

TEST_F(Hooks, ALeafThatIsAskedForTwiceHasOnePass) {
  const Tensor x = scalar_leaf(3);
  int calls = 0;
  register_hook(x, [&](const Tensor& g) {
    ++calls;
    return affine(g, 10);
  });
  const Tensors g = grad(square(x), {x, x});
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(g[0].item(), 60);
  EXPECT_EQ(g[1].item(), 60);
}

TEST_F(Hooks, NeedAGradient) {
  const Tensor plain = scalar(3);
  EXPECT_THAT(error_of([&] { register_hook(plain, [](const Tensor&) {}); }), HasSubstr("register_hook: f64[] does not require a gradient"));
  EXPECT_THAT(error_of([&] { retain_grad(plain); }), HasSubstr("does not require a gradient"));
  EXPECT_THAT(error_of([&] { register_post_accumulate_grad_hook(square(scalar_leaf(1)), [](const Tensor&) {}); }),
              HasSubstr("is not a leaf"));
}
}  // namespace
}  // namespace reckon
