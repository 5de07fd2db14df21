// Packing: what comes out is what went in, by views; and what is said of tensors that do not fit.
#include "reckon/ops/packing.h"

#include "reckon/ops/joining.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {
class Packing : public OnCpu {
 protected:
  Tensor counting(const Shape& shape, double start = 0) {
    return reshape(affine(arange(*device_, shape.numel(), DType::f64), 1, start), shape);
  }
};

TEST_F(Packing, TheExampleOfEinops) {
  const Tensors inputs{counting({2, 3, 5}), counting({2, 3, 7, 5}, 100), counting({2, 3, 7, 9, 5}, 1000)};
  const Packed packed = pack(inputs, "i j * k");
  EXPECT_EQ(packed.tensor.shape(), (Shape{2, 3, 71, 5}));
  EXPECT_EQ(packed.shapes, (PackedShapes{{}, {7}, {7, 9}}));
  const Tensors back = unpack(packed.tensor, packed.shapes, "i j * k");
  ASSERT_EQ(back.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(back[i].shape(), inputs[i].shape());
    EXPECT_EQ(back[i].to_vector(), inputs[i].to_vector());
    EXPECT_TRUE(back[i].same_storage(packed.tensor));
  }
}

TEST_F(Packing, CopiesOnceAndUnpacksWithoutACopy) {
  const Tensors inputs{counting({2, 3}), counting({2})};
  const int64_t before = device_->allocator().ledger().allocations;
  const Packed packed = pack(inputs, "b *");
  EXPECT_EQ(device_->allocator().ledger().allocations, before + 1);
  unpack(packed.tensor, packed.shapes, "b *");
  EXPECT_EQ(device_->allocator().ledger().allocations, before + 1);
}

TEST_F(Packing, OneShapeMayBeLeftOpen) {
  const Tensor x = counting({2, 10});
  const Tensors parts = unpack(x, {{1}, {-1, 3}, {2, 1}, {}}, "b *");
  ASSERT_EQ(parts.size(), 4u);
  EXPECT_EQ(parts[1].shape(), (Shape{2, 2, 3}));
  EXPECT_THAT(parts[1].to_vector(), ElementsAre(1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16));
  EXPECT_THAT(parts[3].to_vector(), ElementsAre(9, 19));
  EXPECT_EQ(unpack(counting({4}), {{-1}}, "*")[0].shape(), (Shape{4}));
  EXPECT_EQ(unpack(counting({0, 3}), {{0}, {2, 0}}, "* c")[1].shape(), (Shape{2, 0, 3}));
}

TEST_F(Packing, GradientsComeBackToTheirTensors) {
  const Tensor a = leaf({2, 2}, {1, 2, 3, 4}), b = leaf({2}, {5, 6});
  const Packed packed = pack({a, b}, "* c");
  backward(sum(mul(packed.tensor, tensor({3, 2}, {1, 2, 3, 4, 5, 6}))));
  EXPECT_THAT(a.grad().to_vector(), ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(b.grad().to_vector(), ElementsAre(5, 6));
}

TEST_F(Packing, AListIsATensorWithALeadingAxis) {
  const Tensors list{counting({2, 3}), counting({2, 3}, 6), counting({2, 3}, 12)};
  const Tensor whole = counting({3, 2, 3});
  EXPECT_EQ(rearrange(list, "b h w -> h (b w)").to_vector(), rearrange(whole, "b h w -> h (b w)").to_vector());
  EXPECT_EQ(rearrange(list, "... -> (...)").to_vector(), whole.to_vector());
  EXPECT_EQ(reduce(list, "b ... w -> (...)", Reducer::min).to_vector(), reduce(whole, "b ... w -> (...)", Reducer::min).to_vector());
  EXPECT_EQ(repeat(list, "... -> b (...)", {{"b", 3}}).to_vector(), repeat(whole, "... -> b (...)", {{"b", 3}}).to_vector());
}

TEST_F(Packing, ErrorsNameAxisPatternAndShapes) {
  const auto of = [&](const Shape& shape) { return ones(*device_, {shape, DType::f32}); };
  const auto packing = [&](const std::vector<Shape>& shapes, const char* pattern) {
    Tensors x;
    for (const Shape& s : shapes) x.push_back(of(s));
    return error_of([&] { pack(x, runtime(pattern)); });
  };
  EXPECT_EQ(packing({{2, 3}}, "a b"), "pack: there is no '*' where the axes are packed, in \"a b\" for f32[2, 3]");
  EXPECT_EQ(packing({{2, 3}}, "a * *"), "pack: there is more than one '*', in \"a * *\" for f32[2, 3]");
  EXPECT_EQ(packing({{2, 3}}, "a a *"), "pack: axis 'a' is named twice on one side, in \"a a *\" for f32[2, 3]");
  EXPECT_EQ(packing({{2, 3}}, "a (b *)"), "pack: parentheses are not part of this notation; rearrange first, in \"a (b *)\" for f32[2, 3]");
  EXPECT_EQ(packing({{2, 3}}, "... *"),
            "pack: an ellipsis is not part of this notation; '*' stands for any number of axes, in \"... *\" for f32[2, 3]");
  EXPECT_EQ(packing({{2, 3}}, "2 *"), "pack: '2' is a length, and axes have names here, in \"2 *\" for f32[2, 3]");
  EXPECT_EQ(packing({{2, 3}}, "_ *"), "pack: '_' names no axis; only parse_shape and shaped know it, in \"_ *\" for f32[2, 3]");
  EXPECT_EQ(packing({{2, 3}}, "a* b"), "pack: '*' is not part of the notation, in \"a* b\" for f32[2, 3]");
  EXPECT_EQ(packing({{2, 3}, {2}}, "a b *"), "pack: tensor 1 has 1 axis, the pattern names 2, in \"a b *\" for f32[2, 3], f32[2]");
  EXPECT_EQ(packing({{2, 3}, {4, 3}}, "a * b"),
            "pack: axis 'a' has length 2 in tensor 0 and 4 in tensor 1, in \"a * b\" for f32[2, 3], f32[4, 3]");
  EXPECT_EQ(packing({{2, 3}, {2, 9, 4}}, "a * b"),
            "pack: axis 'b' has length 3 in tensor 0 and 4 in tensor 1, in \"a * b\" for f32[2, 3], f32[2, 9, 4]");
  EXPECT_EQ(packing({}, "a *"), "pack: no tensor is given, for \"a *\"");
  EXPECT_EQ(error_of([&] {
              pack({of({2}), ones(*device_, {{2}, DType::f64})}, "*");
            }),
            "pack: tensors 0 and 1 differ in dtype: f32 and f64; cast one of them, in \"*\" for f32[2], f64[2]");
  EXPECT_EQ(error_of([&] { pack({Tensor()}, "*"); }), "pack: a tensor is undefined, for \"*\"");
  const auto unpacking = [&](const PackedShapes& shapes, const char* pattern) {
    return error_of([&] { unpack(of({2, 10}), shapes, runtime(pattern)); });
  };
  EXPECT_EQ(unpacking({{4}}, "b *"), "unpack: the shapes hold 4 along '*', the tensor has 10, in \"b *\" for f32[2, 10]");
  EXPECT_EQ(unpacking({{-1}, {2, -1}}, "b *"), "unpack: the shapes hold more than one -1, in \"b *\" for f32[2, 10]");
  EXPECT_EQ(unpacking({{-2}}, "b *"), "unpack: a shape holds the length -2, in \"b *\" for f32[2, 10]");
  EXPECT_EQ(unpacking({{4}, {-1, 4}}, "b *"),
            "unpack: the tensor has 10 along '*', of which 6 are left for the shape with -1, and they are no multiple of 4, in \"b *\" for "
            "f32[2, 10]");
  EXPECT_EQ(unpacking({{4}}, "a b *"), "unpack: the pattern has 3 axes, the tensor has 2, in \"a b *\" for f32[2, 10]");
  EXPECT_EQ(unpacking({{1, 1, 1, 1, 1, 1, 1, 10}}, "a *"), "unpack: tensor 0 has 9 axes, and 8 are the most, in \"a *\" for f32[2, 10]");
}
}  // namespace
}  // namespace reckon
