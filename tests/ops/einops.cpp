// Named axes: what is a view, what is copied and booked, what a plan says before it runs, and rearrangements that undo each other.
#include "reckon/ops/einops.h"

#include <algorithm>
#include <map>

#include "reckon/base/philox.h"
#include "reckon/ops/axes.h"
#include "tests/engine/compile_support.h"

namespace reckon {
namespace {
class Einops : public OnCpu {
 protected:
  Tensor counting(const Shape& shape, DType dtype = DType::f64) { return reshape(arange(*device_, shape.numel(), dtype), shape); }
  int64_t allocations() const { return device_->allocator().ledger().allocations; }

  // What f charged, by operation, without the views.
  template <class F>
  std::vector<std::string> work_of(F f) {
    Meter meter;
    {
      const MeterScope scope(meter);
      f();
    }
    std::vector<std::string> calls;
    for (const MeterRow& row : meter.rows())
      if (row.bytes > 0 || row.flops.matmul + row.flops.vector > 0)
        for (int64_t i = 0; i < row.calls; ++i) calls.push_back(row.op);
    return calls;
  }
};

TEST_F(Einops, TheExampleOfTheDocument) {
  const Tensor x = counting({2, 12, 3});
  const Tensor y = rearrange(x, "b (h w) c -> b c h w", {{"h", 4}});
  EXPECT_EQ(y.shape(), (Shape{2, 3, 4, 3}));
  EXPECT_EQ(y.to_vector(), contiguous(permute(view(x, {2, 4, 3, 3}), {0, 3, 1, 2})).to_vector());
  EXPECT_EQ(reduce(counting({2, 4, 6, 1}), "b (h 2) (w 2) c -> b h w c", Reducer::max).to_vector(),
            (Values{7, 9, 11, 19, 21, 23, 31, 33, 35, 43, 45, 47}));
  EXPECT_EQ(repeat(tensor({1, 2}, {1, 2}), "h w -> h (r w)", {{"r", 3}}).to_vector(), (Values{1, 2, 1, 2, 1, 2}));
  EXPECT_EQ(einsum("b i k, b k j -> b i j", {tensor({1, 1, 2}, {1, 2}), tensor({1, 2, 1}, {3, 4})}).to_vector(), (Values{11}));
  const AxisLengths lengths = parse_shape(counting({2, 3, 5, 7}), "b c _ _");
  EXPECT_EQ(lengths.size(), 2u);
  EXPECT_EQ(lengths["b"], 2);
  EXPECT_EQ(lengths["c"], 3);
  EXPECT_EQ(rearrange(counting({700}), "(b c h w) -> b c h w", {{"b", 2}, {"h", 5}, {"w", 7}}).shape(), (Shape{2, 10, 5, 7}));
  EXPECT_EQ(parse_shape(counting({2, 3, 1, 7}), "first ... 1 7")["first"], 2);
}

// It reversed the order of bools by -1 - x, which no bool is.
TEST_F(Einops, TheLeastOfBoolsIsWhetherAllAre) {
  const Tensor x = cast(tensor({2, 3}, {1, 1, 1, 1, 0, 1}), DType::boolean);
  const Tensor least = reduce(x, "a b -> a", Reducer::min);
  EXPECT_EQ(least.dtype(), DType::boolean);
  EXPECT_EQ(least.to_vector(), (Values{1, 0}));
}

// Products of 8-bit floats were those of their whole parts.
TEST_F(Einops, NothingIsReducedIn8BitFloats) {
  const Tensor x = cast(tensor({2}, {1.5, 1.5}), DType::f8e4m3fn);
  for (const Reducer reducer : {Reducer::prod, Reducer::sum, Reducer::max, Reducer::min, Reducer::mean})
    EXPECT_THAT(error_of([&] { reduce(x, "a -> ", reducer); }), HasSubstr("f8e4m3fn")) << int(reducer);
}

TEST_F(Einops, ARearrangementThatIsAViewCopiesNothing) {
  const Tensor x = counting({2, 12, 3, 1});
  const int64_t before = allocations();
  const auto is_view = [&](const Tensor& y) { return y.same_storage(x) && allocations() == before; };
  EXPECT_TRUE(is_view(rearrange(x, "b (h w) c 1 -> w 1 c (b) h", {{"h", 4}})));
  EXPECT_TRUE(is_view(rearrange(x, "... 1 -> (...)")));
  EXPECT_TRUE(is_view(rearrange(x, "b h c d -> (b h) c d")));
  EXPECT_TRUE(is_view(rearrange(x, "b h c d -> c d (b h)")));
  EXPECT_TRUE(is_view(repeat(x, "b h c 1 -> b r h 5 c", {{"r", 1000}})));
  EXPECT_TRUE(is_view(einsum("abcd->dcba", {x})));
  EXPECT_TRUE(is_view(reduce(x, "b h c 1 -> h b c", Reducer::max)));
  EXPECT_TRUE(is_view(diagonal(rearrange(x, "b (h w) c 1 -> b h w c", {{"h", 4}}), 2, 3)));
  const Tensor square = view(x, {8, 9});
  EXPECT_TRUE(is_view(einsum("ii->i", {slice(square, 1, 0, 8)})));
  EXPECT_TRUE(plan_rearrange(x, "b h c d -> c d (b h)").is_view());
  EXPECT_EQ(plan_rearrange(x, "b h c d -> c d (b h)").copied_bytes(), 0);
  EXPECT_EQ(rearrange(x, "a b c d -> a b c d").storage().block().serial, x.storage().block().serial);
}

TEST_F(Einops, ARearrangementThatCopiesBooksOneCopy) {
  const Tensor x = counting({2, 3, 4});
  for (const char* pattern : {"a b c -> (c a) b", "a b c -> (b a) c", "a b c -> (a c) b", "a b c -> (c b a)"}) {
    EXPECT_EQ(work_of([&] { rearrange(x, runtime(pattern)); }), std::vector<std::string>{"contiguous"}) << pattern;
    const int64_t before = allocations();
    const Tensor y = rearrange(x, runtime(pattern));
    EXPECT_EQ(allocations(), before + 1) << pattern;
    EXPECT_FALSE(y.same_storage(x)) << pattern;
    EXPECT_TRUE(y.is_contiguous()) << pattern;
    const Composition plan = plan_rearrange(x, runtime(pattern));
    EXPECT_FALSE(plan.is_view()) << pattern;
    EXPECT_EQ(plan.copied_bytes(), 24 * 8) << pattern;
  }
  EXPECT_EQ(work_of([&] { repeat(x, "a b c -> a (b r) c", {{"r", 5}}); }), std::vector<std::string>{"contiguous"});
  EXPECT_EQ(plan_repeat(x, "a b c -> a (b r) c", {{"r", 5}}).copied_bytes(), 5 * 24 * 8);
}

TEST_F(Einops, APlanSaysItsSteps) {
  const Tensor x = counting({2, 3, 4}, DType::f32);
  EXPECT_EQ(to_string(plan_rearrange(x, "a b c -> c a b")), "permute [2, 3, 4] -> [4, 2, 3]: view");
  EXPECT_EQ(to_string(plan_rearrange(x, "a b c -> (c a) b")),
            "permute [2, 3, 4] -> [4, 2, 3]: view; contiguous [4, 2, 3]: copies 96 B; reshape [4, 2, 3] -> [8, 3]: view");
  EXPECT_EQ(to_string(plan_rearrange(x, "a b c -> a b c")), "nothing to do");
  EXPECT_EQ(to_string(plan_reduce(x, "a b c -> c", Reducer::sum)), "sum [2, 3, 4] -> [4]: 24 FLOPs");
  EXPECT_EQ(to_string(plan_einsum("ij,jk->ik", {counting({2, 3}), counting({3, 5})})), "matmul [2, 3] [3, 5] -> [2, 5]: 60 FLOPs");
}

// What a plan says is what the meter and the allocator see.
TEST_F(Einops, APlanIsWhatRuns) {
  const Tensor x = counting({2, 6, 4}, DType::f32), turned = transpose(x);
  const Composition plans[] = {
      plan_rearrange(turned, "a b (c d) -> (d a) (c b)", {{"d", 3}}), plan_reduce(turned, "a b (c 2) -> c a", Reducer::mean),
      plan_reduce(turned, "a b (c 2) -> c a", Reducer::min),          plan_reduce(turned, "a b c -> b", Reducer::prod),
      plan_repeat(turned, "a b c -> (b r) c a", {{"r", 3}}),
  };
  for (const Composition& plan : plans) {
    Meter meter;
    Tensor y;
    {
      const MeterScope scope(meter);
      y = plan.run({turned});
    }
    EXPECT_EQ(y.spec(), plan.result_spec()) << to_string(plan);
    EXPECT_EQ(meter.total(), plan.flops()) << to_string(plan);
    std::map<std::string, int64_t> planned, called;
    for (const Composition::Step& s : plan.steps()) ++planned[s.row->name];
    for (const MeterRow& row : meter.rows()) called[row.op] += row.calls;
    EXPECT_EQ(called, planned) << to_string(plan);
  }
  EXPECT_THAT(error_of([&] { plans[0].run({x}); }), HasSubstr("was made for"));
}

TEST_F(Einops, MoreAxesThanATensorHasAreMovedInPasses) {
  // Ten axes of 2, reversed: by strides in the test, in passes of at most eight axes there.
  const Tensor x = counting({1024});
  const AxisLengths lengths{{"a", 2}, {"b", 2}, {"c", 2}, {"d", 2}, {"e", 2}, {"f", 2}, {"g", 2}, {"h", 2}, {"i", 2}};
  const Tensor y = rearrange(x, "(a b c d e f g h i j) -> (j i h g f e d c b a)", lengths);
  const Values values = y.to_vector();
  for (int64_t n = 0; n < 1024; ++n) {
    int64_t reversed = 0;
    for (int bit = 0; bit < 10; ++bit) reversed |= (n >> bit & 1) << (9 - bit);
    ASSERT_EQ(values[size_t(n)], double(reversed));
  }
  // Axes that stay neighbours are one: no pass is needed.
  EXPECT_EQ(work_of([&] { rearrange(x, "(a b c d e f g h i j) -> (f g h i j a b c d e)", lengths); }),
            std::vector<std::string>{"contiguous"});
  EXPECT_THAT(error_of([&] { rearrange(x, "(a b c d e f g h i j) -> a b c d e f g h i j", lengths); }),
              HasSubstr("the result has 10 axes, and 8 are the most"));
}

TEST_F(Einops, RearrangingThereAndBackIsNothing) {
  const char* pairs[][2] = {{"a b c d -> d (c a) b", "d (c a) b -> a b c d"},
                            {"a b c d -> (d c b a)", "(d c b a) -> a b c d"},
                            {"a ... d -> (d a) ...", "(d a) ... -> a ... d"},
                            {"a b c d -> c 1 (b d) () a", "c 1 (b d) () a -> a b c d"}};
  for (uint64_t n = 0; n < 40; ++n) {
    const auto draw = philox(n, 1, 2);
    const AxisLengths lengths{{"a", 1 + draw[0] % 4}, {"b", 1 + draw[1] % 4}, {"c", 1 + draw[2] % 4}, {"d", 1 + draw[3] % 4}};
    const Tensor x = counting({lengths["a"], lengths["b"], lengths["c"], lengths["d"]}, n % 2 ? DType::f32 : DType::i64);
    const auto& [there, back] = pairs[n % 4];
    AxisLengths given;
    for (const AxisLength& l : lengths)
      if (std::string(back).find(l.name) != std::string::npos) given.add(l.name, l.length);
    const Tensor again = rearrange(rearrange(x, runtime(there)), runtime(back), given);
    EXPECT_EQ(again.shape(), x.shape()) << there;
    EXPECT_EQ(again.to_vector(), x.to_vector()) << there;
  }
}

TEST_F(Einops, RepeatedAndReducedIsTheTensorAgain) {
  const Tensor x = counting({2, 3, 5});
  for (const Reducer reducer : {Reducer::min, Reducer::max, Reducer::mean}) {
    const Tensor wide = repeat(x, "a b c -> (a 2) b 3 c r", {{"r", 4}});
    EXPECT_EQ(reduce(wide, "(a 2) b 3 c r -> a b c", reducer, {{"r", 4}}).to_vector(), x.to_vector());
  }
}

TEST_F(Einops, WholeNumbersAreReducedExactly) {
  const int64_t least = INT64_MIN;
  const std::vector<int64_t> values{5, least, 3, 7, INT64_MAX, -2};
  const Tensor x = from_values<int64_t>(*device_, {2, 3}, values);
  EXPECT_EQ(reduce(x, "a b -> b", Reducer::min).data<int64_t>()[1], least);
  EXPECT_EQ(reduce(x, "a b -> b", Reducer::max).data<int64_t>()[1], INT64_MAX);
  const std::vector<uint8_t> bytes{0, 200, 255, 1};
  const Tensor u = from_values<uint8_t>(*device_, {2, 2}, bytes);
  EXPECT_THAT(reduce(u, "a b -> b", Reducer::min).to_vector(), ElementsAre(0, 1));
  EXPECT_THAT(reduce(u, "a b -> a", Reducer::sum).to_vector(), ElementsAre(200, 256));
  EXPECT_THAT(reduce(u, "a b -> a", Reducer::prod).to_vector(), ElementsAre(0, 255));
  EXPECT_THAT(reduce(slice(u, 0, 0, 0), "a b -> b", Reducer::prod).to_vector(), ElementsAre(1, 1));
  EXPECT_EQ(reduce(u, "a b -> a", Reducer::prod).dtype(), DType::i64);
  // 300 * 300 does not fit float16, and its product with 1/300 does.
  const Tensor h = cast(tensor({3}, {300, 300, 1.0 / 300}), DType::f16);
  EXPECT_NEAR(reduce(h, "a ->", Reducer::prod).item(), 300, 0.5);
}

TEST_F(Einops, AFunctionMayReduce) {
  const Tensor x = counting({2, 3, 4});
  EXPECT_EQ(reduce(x, "a b (c 2) -> c a",
                   [](const Tensor& t, std::span<const int> axes) {
                     return sum(t, {axes[0], axes[1]});
                   })
                .to_vector(),
            reduce(x, "a b (c 2) -> c a", Reducer::sum).to_vector());
  EXPECT_EQ(reduce(x, "a b c -> b", ReduceFunction([](const Tensor& t, std::span<const int> axes) {
                     return max(t, {axes[0], axes[1]});
                   }))
                .to_vector(),
            (Values{15, 19, 23}));
  EXPECT_THAT(error_of([&] { reduce(x, "a b c -> a", [](const Tensor& t, std::span<const int>) { return t; }); }),
              HasSubstr("the function left [2, 3, 4] of axes [2]"));
  EXPECT_EQ(reduce(counting({3, 2, 2}), "a b c -> a", ReduceFunction([](const Tensor& t, std::span<const int> axes) {
                     return sub(max(t, {axes[0], axes[1]}), neg(max(neg(t), {axes[0], axes[1]})));
                   }))
                .to_vector(),
            (Values{3, 3, 3}));
}

TEST_F(Einops, GradientsOfAViewAreAView) {
  const Tensor x = leaf({2, 3}, {1, 2, 3, 4, 5, 6});
  backward(sum(mul(rearrange(x, "a b -> b a"), tensor({3, 2}, {1, 2, 3, 4, 5, 6}))));
  EXPECT_THAT(x.grad().to_vector(), ElementsAre(1, 3, 5, 2, 4, 6));
}

TEST_F(Einops, GradientsHaveGradients) {
  constexpr BackwardOptions kRecord{.create_graph = true};
  const Tensor x = leaf({2, 4}, {1, 2, 3, 4, 5, 6, 7, 9});
  const Tensor results[] = {rearrange(x, "a (b c) -> (c a) b", {{"b", 2}}), repeat(x, "a b -> (b r) a", {{"r", 2}}),
                            reduce(x, "a (b 2) -> b", Reducer::sum),        reduce(x, "a (b 2) -> b", Reducer::mean),
                            reduce(x, "a (b 2) -> b", Reducer::max),        reduce(x, "a (b 2) -> b", Reducer::min),
                            reduce(x, "a (b 2) -> b", Reducer::prod)};
  for (const Tensor& y : results) {
    const Tensor first = grad(sum(square(y)), {x}, {}, kRecord)[0];
    const Tensor second = grad(sum(first), {x})[0];
    double most = 0;
    for (const double v : second.to_vector()) most = std::max(most, v);
    EXPECT_GT(most, 0) << to_string(y);
  }
  // tr(x^3): the gradient is 3 (x^2)^T, and along D it changes by 3 (x D + D x)^T.
  const Tensor m = leaf({2, 2}, {1, 2, 3, 4}), d = tensor({2, 2}, {1, 0, 0, 0});
  const Tensor first = grad(einsum("ij,jk,ki->", {m, m, m}), {m}, {}, kRecord)[0];
  EXPECT_THAT(first.to_vector(), ElementsAre(21, 45, 30, 66));
  EXPECT_THAT(grad(einsum("ij,ij", {first, d}), {m})[0].to_vector(), ElementsAre(6, 9, 6, 0));
  const Tensor trace = grad(square(einsum("ii", {m})), {m}, {}, kRecord)[0];
  EXPECT_THAT(trace.to_vector(), ElementsAre(10, 0, 0, 10));
  EXPECT_THAT(grad(sum(trace), {m})[0].to_vector(), ElementsAre(4, 0, 0, 4));
}

TEST_F(Einops, ACompiledStepKeepsItsBits) {
  const auto body = [](const Tensors& in) -> Tensors {
    const Tensor x = mul(in[0], in[1]);
    return {rearrange(exp(x), "a b -> (b a)"), reduce(add(x, in[0]), "a (b 2) -> b", Reducer::mean), einsum("ij,kj->ik", {x, neg(x)})};
  };
  const Tensors in{normal(*device_, {6, 8}, 1), normal(*device_, {6, 8}, 2)};
  CompiledStep step = compile(*device_, body);
  EXPECT_EQ(bytes_of(step(in)), bytes_of(body(in)));
  EXPECT_EQ(bytes_of(step(in)), bytes_of(body(in)));
  EXPECT_EQ(step.fallbacks(), 0) << step.last_difference();
}

TEST_F(Einops, WhiteSpaceAndNamesAreFree) {
  const Tensor x = counting({2, 3});
  EXPECT_EQ(rearrange(x, "  for\tclass2 ->\n( class2  for ) ").to_vector(), (Values{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(rearrange(x, "B b->b B").shape(), (Shape{3, 2}));
  EXPECT_EQ(rearrange(x, "a_1 x__y -> (a_1 1 x__y) ()").shape(), (Shape{6, 1}));
}
}  // namespace
}  // namespace reckon
