// Properties of joining, cutting and indexing: what undoes each other, what is a view, and what is refused.
#include "reckon/ops/joining.h"

#include <algorithm>
#include <cmath>

#include "reckon/ops/conv.h"
#include "reckon/ops/indexing.h"
#include "tests/engine/compile_support.h"

namespace reckon {
namespace {

class Joining : public OnCpu {
 protected:
  Tensor counted(const Shape& shape) { return reshape(arange(*device_, shape.numel(), DType::f64), shape); }
  Tensor ids(const std::vector<int64_t>& values) { return from_values<int64_t>(*device_, {int64_t(values.size())}, values); }
};

TEST_F(Joining, SplitUndoesConcatenate) {
  const Tensor a = counted({2, 3, 4}), b = affine(counted({2, 5, 4}), -1), c = counted({2, 0, 4});
  const int64_t sizes[] = {3, 5, 0};
  const Tensors parts = split(concatenate({a, b, c}, 1), sizes, -2);
  ASSERT_EQ(parts.size(), 3u);
  const Tensors whole{a, b, c};
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(parts[i].shape(), whole[i].shape());
    EXPECT_EQ(parts[i].to_vector(), whole[i].to_vector());
  }
  EXPECT_EQ(concatenate(chunk(a, 2, 2), 2).to_vector(), a.to_vector());
  EXPECT_EQ(index(stack({a, affine(a, 2)}, 1), {ellipsis, 1, Slice{}, Slice{}}).to_vector(), affine(a, 2).to_vector());
}

TEST_F(Joining, PartsAndIndexedTensorsAreViews) {
  const Tensor x = counted({6, 5});
  const int64_t before = live();
  const Tensors parts = split(x, 4, 0);
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[1].shape(), (Shape{2, 5}));
  const Tensor y = index(x, {Slice{{}, {}, -2}, newaxis, Slice{1, -1}}), back = flip(x);
  for (const Tensor& t : {parts[0], parts[1], y, back}) EXPECT_TRUE(t.same_storage(x));
  EXPECT_EQ(live(), before);
  EXPECT_EQ(y.stride(0), -10);
  EXPECT_THAT(y.to_vector(), ElementsAre(26, 27, 28, 16, 17, 18, 6, 7, 8));
  x.data<double>()[29] = 100;  // a view sees what is written
  EXPECT_EQ(back.to_vector()[0], 100);
  EXPECT_EQ(contiguous(back).to_vector(), back.to_vector());
}

// A fused group reads backwards what it is given so.
TEST_F(Joining, CompiledStepsTakeViewsThatGoBackwards) {
  const auto step = [](const Tensors& in) -> Tensors {
    const Tensor rows = flip(in[0], {0}), all = flip(in[0]);
    return {affine(mul(square(rows), affine(rows, 2, 1)), 3), affine(mul(square(all), affine(in[0], 2, 1)), 3)};
  };
  CompiledStep compiled = compile(*device_, step);
  for (const int64_t n : {40, 7}) {
    const Tensor x = normal(*device_, {n, 300}, 3);
    EXPECT_EQ(bytes_of(compiled({x})), bytes_of(step({x})));
    EXPECT_FALSE(compiled.plan({x}).groups.empty());
  }
  EXPECT_EQ(compiled.fallbacks(), 0) << compiled.last_difference();
}

TEST_F(Joining, SlicesFollowPython) {
  const Tensor x = counted({5});
  EXPECT_THAT(index(x, {Slice{1, -1, 2}}).to_vector(), ElementsAre(1, 3));
  EXPECT_THAT(index(x, {Slice{-2, {}}}).to_vector(), ElementsAre(3, 4));
  EXPECT_THAT(index(x, {Slice{{}, 1, -2}}).to_vector(), ElementsAre(4, 2));
  EXPECT_THAT(index(x, {Slice{100, -100, -3}}).to_vector(), ElementsAre(4, 1));
  EXPECT_THAT(index(x, {Slice{3, 1}}).to_vector(), ElementsAre());
  EXPECT_THAT(index(x, {Slice{1, 3, -1}}).to_vector(), ElementsAre());
  EXPECT_THAT(index(x, {Slice{{}, {}, INT64_MAX}}).to_vector(), ElementsAre(0));
  EXPECT_THAT(index(x, {Slice{{}, {}, INT64_MIN}}).to_vector(), ElementsAre(4));
  EXPECT_EQ(index(x, {-1}).shape(), Shape{});
  EXPECT_EQ(index(x, {-1}).item(), 4);
  EXPECT_EQ(index(counted({2, 3, 4}), {1, ellipsis, 2}).shape(), Shape{3});
}

TEST_F(Joining, WhatIsRefusedNamesBothSides) {
  const Tensor x = counted({2, 3});
  EXPECT_THAT(error_of([&] { concatenate({}, 0); }), HasSubstr("no tensors"));
  EXPECT_THAT(error_of([&] {
                concatenate({x, counted({3, 3})}, 1);
              }),
              HasSubstr("shapes differ beside axis 1: part 0 is [2, 3], part 1 is [3, 3]"));
  EXPECT_THAT(error_of([&] { concatenate({x, cast(x, DType::f32)}, 0); }), HasSubstr("part 0 is f64, part 1 is f32"));
  EXPECT_THAT(error_of([&] { concatenate({x, x}, 2); }), HasSubstr("concatenate: axis 2 is out of range for shape [2, 3]"));
  EXPECT_THAT(error_of([&] { concatenate({scalar(1)}, 0); }), HasSubstr("stack()"));
  EXPECT_THAT(error_of([&] { stack({x, counted({3, 2})}, 0); }), HasSubstr("part 0 is [2, 3], part 1 is [3, 2]"));
  const int64_t sizes[] = {1, 1};
  EXPECT_THAT(error_of([&] { split(x, sizes, 1); }), HasSubstr("the parts have 2 elements along axis 1, [2, 3] has 3"));
  EXPECT_THAT(error_of([&] { index(x, {0, 0, 0}); }), HasSubstr("3 axes are indexed, [2, 3] has 2"));
  EXPECT_THAT(error_of([&] { index(x, {ellipsis, ellipsis}); }), HasSubstr("2 ellipses"));
  EXPECT_THAT(error_of([&] { index(x, {Slice{0, 1, 0}}); }), HasSubstr("the step along axis 0 of [2, 3] is 0"));
  EXPECT_THAT(error_of([&] { index(x, {0, 3}); }), HasSubstr("index: index 3 is out of range for axis 1 of [2, 3]"));
  EXPECT_THAT(error_of([&] { slice(x, 0, 0, 2, -1); }), HasSubstr("at least 1, got -1"));
  EXPECT_THAT(error_of([&] { gather(x, 0, x); }), HasSubstr("indices must be i32 or i64, got f64"));
  EXPECT_THAT(error_of([&] { gather(x, 0, ids({1})); }), HasSubstr("index [1] and x [2, 3] differ in rank"));
  EXPECT_THAT(error_of([&] {
                gather(x, 0, zeros(*device_, {{2, 4}, DType::i32}));
              }),
              HasSubstr("index [2, 4] is longer than x [2, 3] along axis 1"));
  EXPECT_THAT(error_of([&] { index_select(x, 0, zeros(*device_, {{1, 1}, DType::i32})); }), HasSubstr("index must be [N], got i32[1, 1]"));
  EXPECT_THAT(error_of([&] {
                scatter(x, 0, zeros(*device_, {{2, 3}, DType::i32}), counted({2, 2}));
              }),
              HasSubstr("src [2, 2] does not match index [2, 3]"));
  EXPECT_THAT(error_of([&] { index_add(x, 0, ids({0, 1}), counted({3, 3})); }), HasSubstr("does not name the 3 slices"));
  EXPECT_THAT(error_of([&] { index_add(x, 0, ids({0}), counted({1, 4})); }), HasSubstr("src [1, 4] and x [2, 3] differ beside axis 0"));
  EXPECT_THAT(error_of([&] {
                masked_fill(x, equal(counted({2, 2, 3}), counted({2, 2, 3})), 0);
              }),
              HasSubstr("mask [2, 2, 3] does not broadcast to x [2, 3]"));
  EXPECT_THAT(error_of([&] { masked_fill(x, x, 0); }), HasSubstr("the mask is f64[2, 3], not bool"));
  EXPECT_THAT(error_of([&] { tril(counted({3})); }), HasSubstr("at least two axes, got [3]"));
}

// The result counts, not what comes before it: an axis that is made may stand in the list before one that goes.
TEST_F(Joining, IndexGivesEveryResultOfEightAxes) {
  const Tensor x = counted({2, 1, 3, 1, 2, 1, 2, 2});
  const Tensor a = index(x, {newaxis, 1, ellipsis});
  EXPECT_EQ(a.shape(), (Shape{1, 1, 3, 1, 2, 1, 2, 2}));
  EXPECT_EQ(a.to_vector(), select(x, 0, 1).to_vector());
  const Tensor b = index(x, {newaxis, newaxis, Slice{1, {}}, 0, newaxis, Slice{{}, {}, -2}, 0, newaxis, ellipsis, 0, -1});
  EXPECT_EQ(b.shape(), (Shape{1, 1, 1, 1, 2, 1, 2, 1}));
  Values want;
  for (const int64_t k : {2, 0})
    for (const int64_t l : {0, 1}) want.push_back(double((3 + k) * 8 + l * 4 + 1));
  EXPECT_EQ(b.to_vector(), want);
  const Tensor w = leaf({2, 1, 1, 1, 1, 1, 1, 3}, {1, 2, 3, 4, 5, 6});
  backward(index(w, {newaxis, 1, ellipsis, newaxis, 2}), ones(*device_, {{1, 1, 1, 1, 1, 1, 1, 1}, DType::f64}));
  EXPECT_THAT(w.grad().to_vector(), ElementsAre(0, 0, 0, 0, 0, 1));
}

TEST_F(Joining, TooManyAxesAndElementsAreRefusedWithTheLimit) {
  const Tensor x = reshape(counted({1}), {1, 1, 1, 1, 1, 1, 1, 1});
  EXPECT_THAT(error_of([&] { stack({x, x}, 0); }), HasSubstr("at most 8 axes"));
  EXPECT_THAT(
      error_of([&] {
        index(x, {newaxis, ellipsis});
      }),
      HasSubstr(
          "index: [1, 1, 1, 1, 1, 1, 1, 1] with 1 new axes, and without 0 that have a number, would have 9; a tensor has at most 8 axes"));
  EXPECT_THAT(error_of([&] {
                index(x, {newaxis, 0, newaxis});
              }),
              HasSubstr("with 2 new axes, and without 1 that have a number, would have 9"));
  EXPECT_THAT(error_of([&] { unsqueeze(x, 0); }), HasSubstr("unsqueeze: [1, 1, 1, 1, 1, 1, 1, 1] has no room for a new axis"));
  EXPECT_THAT(error_of([&] {
                zeros(*device_, {{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, DType::f32});
              }),
              HasSubstr("at most 8 axes, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1] has 10"));
  const Ref<Device> meta = open_cpu(Mode::meta);
  const Tensor unit = empty(*meta, {{1, 1}, DType::u8}), huge = expand(unit, {int64_t(1) << 32, int64_t(1) << 30});
  EXPECT_THAT(error_of([&] { concatenate({huge, huge}, 0); }), HasSubstr("2^63 - 1"));
  EXPECT_THAT(error_of([&] { concatenate({expand(unit, {INT64_MAX, 1}), unit}, 0); }), HasSubstr("2^63 - 1"));
  EXPECT_THAT(error_of([&] { repeat_interleave(huge, int64_t(1) << 40, 0); }), HasSubstr("2^63 - 1"));
  const int64_t times[] = {4, 1};
  EXPECT_THAT(error_of([&] { tile(huge, times); }), HasSubstr("2^63 - 1"));
}

// <scatter_add(0, index, u), y> = <u, gather(y, index)>: each is the other's transpose.
TEST_F(Joining, GatherAndScatterAddAreAdjoint) {
  const Tensor at = from_values<int32_t>(*device_, {3, 4}, std::vector<int32_t>{0, 4, 2, 2, 1, 4, 4, 0, 3, 3, 0, 4});
  const Tensor u = affine(counted({3, 4}), 0.5, -3), y = square(affine(counted({5, 4}), 0.25, -1));
  const Tensor added = scatter_add(zeros(*device_, {{5, 4}, DType::f64}), 0, at, u);
  EXPECT_EQ(sum(mul(added, y)).item(), sum(mul(u, gather(y, 0, at))).item());  // short fractions: exact
}

TEST_F(Joining, AnIndexOutOfRangeReadsNaNAndWritesNothing) {
  const Tensor x = leaf({3, 2}, {1, 2, 3, 4, 5, 6}), at = ids({1, 3, -1, INT64_MAX, INT64_MIN, 0});
  const Tensor y = index_select(x, 0, at);
  const Values v = y.to_vector();
  for (size_t i = 0; i < v.size(); ++i) EXPECT_EQ(std::isnan(v[i]), i >= 2 && i < 10) << i;
  backward(y, ones(*device_, y.spec()));
  EXPECT_THAT(x.grad().to_vector(), ElementsAre(1, 1, 1, 1, 0, 0));
  const Tensor whole = from_values<int32_t>(*device_, {3}, std::vector<int32_t>{7, 8, 9});
  EXPECT_THAT(index_select(whole, 0, ids({2, 3, -1})).to_vector(), ElementsAre(9, 0, 0));

  const Tensor base = leaf({3}, {1, 2, 3}), src = leaf({4}, {10, 20, 30, 40});
  for (const bool adds : {true, false}) {
    const Tensor where_to = ids({1, 3, -5, 1}), z = adds ? scatter_add(base, 0, where_to, src) : scatter(base, 0, where_to, src);
    EXPECT_THAT(z.to_vector(), adds ? ElementsAre(1, 52, 3) : ElementsAre(1, 40, 3));
    const Tensors d = grad(z, {base, src}, tensor({3}, {1, 2, 3}));
    EXPECT_THAT(d[0].to_vector(), adds ? ElementsAre(1, 2, 3) : ElementsAre(1, 0, 3));
    EXPECT_THAT(d[1].to_vector(), adds ? ElementsAre(2, 0, 0, 2) : ElementsAre(0, 0, 0, 2));
  }
}

// Above 32 parts groups are joined first; errors count the parts as they were given.
TEST_F(Joining, PartsOfALongListKeepTheirNumbers) {
  const Tensor x = counted({2, 3});
  const auto with = [&](size_t at, const Tensor& other) {
    Tensors parts(70, x);
    parts[at] = other;
    return parts;
  };
  EXPECT_THAT(error_of([&] {
                concatenate(with(65, counted({2, 4})), 0);
              }),
              HasSubstr("concatenate: shapes differ beside axis 0: part 0 is [2, 3], part 65 is [2, 4]"));
  EXPECT_THAT(error_of([&] { concatenate(with(33, cast(x, DType::f32)), 0); }),
              HasSubstr("concatenate: dtypes differ: part 0 is f64, part 33 is f32; cast one of them"));
  EXPECT_THAT(error_of([&] { concatenate(with(40, {}), 0); }), HasSubstr("concatenate: part 40 is undefined"));
  EXPECT_THAT(error_of([&] { concatenate(with(64, zeros(*open_cpu(Mode::meta), x.spec())), 0); }),
              HasSubstr("concatenate: part 64 lives on another device than part 0"));
  EXPECT_THAT(error_of([&] {
                stack(with(50, counted({3, 2})), 0);
              }),
              HasSubstr("stack: shapes differ: part 0 is [2, 3], part 50 is [3, 2]"));
  EXPECT_THAT(error_of([&] { stack(with(50, cast(x, DType::i64)), 0); }), HasSubstr("stack: dtypes differ: part 0 is f64, part 50 is i64"));
  EXPECT_THAT(error_of([&] { stack(with(50, {}), 0); }), HasSubstr("stack: part 50 is undefined"));
}

// 16-bit values are added in float32: ones beyond 256 would otherwise stop counting.
TEST_F(Joining, SumsOfHalvesAreKeptInFloat32) {
  const Tensor none = zeros(*device_, {{1}, DType::bf16}), many = ones(*device_, {{1000}, DType::bf16});
  EXPECT_EQ(index_add(none, 0, zeros(*device_, {{1000}, DType::i32}), many).item(), 1000);
}

TEST_F(Joining, ConvolutionsRefuseWhatDoesNotFit) {
  const auto f = [&](const Shape& s) { return ones(*device_, {s, DType::f32}); };
  EXPECT_THAT(error_of([&] { conv2d(f({2, 3, 4}), f({1, 3, 2, 2})); }), HasSubstr("got [2, 3, 4] and [1, 3, 2, 2]"));
  EXPECT_THAT(error_of([&] {
                conv2d(f({2, 3, 4, 4}), f({1, 2, 2, 2}));
              }),
              HasSubstr("w [1, 2, 2, 2] takes 2 channels a group, x [2, 3, 4, 4] has 3"));
  EXPECT_THAT(error_of([&] {
                conv2d(f({2, 3, 4, 4}), f({1, 3, 5, 2}));
              }),
              HasSubstr("the kernel reaches over 5 elements along height, the padded input has 4"));
  EXPECT_THAT(error_of([&] { conv2d(f({2, 4, 4, 4}), f({3, 2, 2, 2}), {}, {.groups = 2}); }), HasSubstr("2 groups do not divide"));
  EXPECT_THAT(error_of([&] {
                conv2d(f({2, 4, 4, 4}), f({3, 4, 2, 2}), f({4}));
              }),
              HasSubstr("bias f32[4] does not match w f32[3, 4, 2, 2]"));
  EXPECT_THAT(error_of([&] {
                conv2d(f({2, 4, 4, 4}), f({3, 4, 2, 2}), {}, {.stride = {0, 1}});
              }),
              HasSubstr("the stride must be in [1, 2^30], got 0"));
  EXPECT_THAT(error_of([&] {
                conv2d(f({1, 1, 2, 2}), ones(*device_, {{1, 1, 2, 2}, DType::f64}));
              }),
              HasSubstr("got f32[1, 1, 2, 2] and f64[1, 1, 2, 2]"));
  EXPECT_EQ(live(), 0);
}
}  // namespace
}  // namespace reckon
