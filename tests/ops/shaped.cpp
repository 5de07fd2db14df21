// Shapes written down and checked: what is accepted and bound, and what each mistake says.
#include "reckon/ops/shaped.h"

#include "tests/engine/support.h"

namespace reckon {
namespace {
class Shaped : public OnCpu {
 protected:
  Tensor of(const Shape& shape, DType dtype = DType::f32) { return ones(*device_, {shape, dtype}); }
};

TEST_F(Shaped, NamesKeepTheirSizesAcrossCalls) {
  Dims dims;
  const Tensor q = of({2, 5, 4, 8});
  EXPECT_TRUE(shaped(q, "batch seq heads dim", dims).same_storage(q));
  shaped(of({2, 7, 4, 8}), "batch kv heads dim", dims);
  shaped(of({2, 5, 32}), "batch seq heads*dim", dims);
  EXPECT_EQ(dims["batch"], 2);
  EXPECT_EQ(dims["kv"], 7);
  EXPECT_TRUE(dims.has("dim"));
  EXPECT_FALSE(dims.has("heads*dim"));
  EXPECT_FALSE(dims.has("nothing"));
}

TEST_F(Shaped, EveryKindOfWord) {
  Dims dims{{"c", 3}};
  shaped(of({2, 3}), "2 c", dims);
  shaped(of({2, 3}), "_ _", dims);
  shaped(of({2, 3}), "...", dims);
  shaped(of({}), "", dims);
  shaped(of({}), "...", dims);
  shaped(of({9, 2, 3}), "... c", dims);
  shaped(of({9, 2, 3}), "first ... c", dims);
  EXPECT_EQ(dims["first"], 9);
  shaped(of({9, 1}), "#first #c", dims);
  shaped(of({1, 3}), "#first #3", dims);
  shaped(of({1}), "#unknown", dims);
  EXPECT_FALSE(dims.has("unknown")) << "a 1 that broadcasts says nothing of the name's size";
  shaped(of({4}), "#unknown", dims);
  EXPECT_EQ(dims["unknown"], 4);
  shaped(of({6, 7, 3}), "*lead c", dims);
  shaped(of({6, 7, 5}), "*lead other", dims);
  shaped(of({10, 5, 11, 2}), "c*2+unknown other 2*c+other c-1", dims);
  shaped(of({2, 4}), "x x*2", dims);
  shaped(of({8, 4}), "y*2 y", dims);
  EXPECT_EQ(dims["y"], 4) << "a name that stands alone has its size wherever it stands";
  shaped(of({3}, DType::bf16), "bf16[c]", dims);
  shaped(of({3}, DType::bf16), "float[c]", dims);
  shaped(of({3}, DType::i64), "int[c]", dims);
  shaped(of({3}, DType::boolean), " bool[ c ] ", dims);
}

TEST_F(Shaped, ErrorsNameShapePatternAxisAndFirstPlace) {
  Dims dims{{"given", 3}};
  shaped(of({2, 5}), "batch seq", dims);
  const int line = __LINE__ - 1;
  shaped(of({6, 7, 5}), "*lead seq", dims);
  const auto error = [&](const Shape& shape, const char* pattern, DType dtype = DType::f32) {
    return error_of([&] { shaped(of(shape, dtype), runtime(pattern), dims); });
  };
  EXPECT_EQ(error({2, 6}, "batch seq"),
            text("shaped: axis 1, 'seq', has length 6, but it is 5 since shaped.cpp:{} (\"batch seq\" of f32[2, 5]), in \"batch "
                 "seq\" for f32[2, 6]",
                 line));
  EXPECT_EQ(error({4}, "given"), "shaped: axis 0, 'given', has length 4, but it is 3 since it was given to Dims, in \"given\" for f32[4]");
  EXPECT_EQ(error({7, 6, 5}, "*lead seq"),
            text("shaped: axes '*lead' are [7, 6], but they are [6, 7] since shaped.cpp:{} (\"*lead seq\" of f32[6, 7, 5]), in "
                 "\"*lead seq\" for f32[7, 6, 5]",
                 line + 2));
  EXPECT_EQ(error({2}, "batch seq"), "shaped: the pattern has 2 axes, the tensor has 1, in \"batch seq\" for f32[2]");
  EXPECT_EQ(error({2}, "... batch seq"), "shaped: the pattern has at least 2 axes, the tensor has 1, in \"... batch seq\" for f32[2]");
  EXPECT_EQ(error({2}, "4"), "shaped: axis 0 has length 2, not 4, in \"4\" for f32[2]");
  EXPECT_EQ(error({2}, "#4"), "shaped: axis 0 has length 2, neither 1 nor 4, in \"#4\" for f32[2]");
  EXPECT_THAT(error({4}, "#batch"), HasSubstr("axis 0, 'batch', has length 4, but it is 2 since"));
  EXPECT_EQ(error({2}, "2*seq"), "shaped: axis 0, '2*seq', has length 2, not 10, in \"2*seq\" for f32[2]");
  EXPECT_EQ(error({2}, "2*z"), "shaped: 'z' in '2*z' has no size yet: a name gets it where it stands alone, in \"2*z\" for f32[2]");
  EXPECT_EQ(error({2}, "f64[batch]"), "shaped: the type is f32, not f64, in \"f64[batch]\" for f32[2]");
  EXPECT_EQ(error({2}, "int[batch]"), "shaped: the type is f32, not int, in \"int[batch]\" for f32[2]");
  EXPECT_EQ(error({2}, "float[batch]", DType::i32), "shaped: the type is i32, not float, in \"float[batch]\" for i32[2]");
  EXPECT_EQ(error({2}, "f33[batch]"), "shaped: 'f33' is neither a type nor 'float' nor 'int', in \"f33[batch]\" for f32[2]");
  EXPECT_EQ(error({2}, "f32[batch"),
            "shaped: 'f32[batch' is not a type and axes in brackets, as in f32[batch dim], in \"f32[batch\" for f32[2]");
  EXPECT_EQ(error({2}, "... *x"), "shaped: '*x' is the second of '...' and '*name', and where one ends is open, in \"... *x\" for f32[2]");
  EXPECT_EQ(error({2}, "2**x"), "shaped: '2**x' is not made of names and numbers with + - * between them, in \"2**x\" for f32[2]");
  EXPECT_EQ(error({2}, "x+"), "shaped: 'x+' is not made of names and numbers with + - * between them, in \"x+\" for f32[2]");
  EXPECT_EQ(error({2}, "#"), "shaped: '#' must be '#' and a name or a number, in \"#\" for f32[2]");
  EXPECT_EQ(error({2}, "#_"), "shaped: '#_' must be '#' and a name or a number, in \"#_\" for f32[2]");
  EXPECT_EQ(error({2}, "a/2"), "shaped: '/' is not part of the notation, in \"a/2\" for f32[2]");
  EXPECT_EQ(error({2}, "2x"), "shaped: '2x' is neither a name nor a number, in \"2x\" for f32[2]");
  EXPECT_EQ(error({2}, "x_"), "shaped: axis 'x_' begins or ends with an underscore, in \"x_\" for f32[2]");
  EXPECT_EQ(error({2}, ".."), "shaped: dots stand only in an ellipsis, three of them, at '..', in \"..\" for f32[2]");
  EXPECT_EQ(error({2}, "*"), "shaped: '*' is not part of the notation, in \"*\" for f32[2]");
  EXPECT_EQ(error_of([&] { shaped(Tensor(), "a", dims); }), "shaped: the tensor is undefined, for \"a\"");
  EXPECT_EQ(error_of([&] { (void)dims["none"]; }), "Dims: 'none' has no size");
  EXPECT_EQ(error_of([&] { (void)Dims{{"a b", 1}}; }), "Dims: 'a b' is no name of an axis");
  EXPECT_EQ(error_of([&] { (void)Dims{{"a", -1}}; }), "Dims: 'a' is given the size -1");
  EXPECT_EQ(error_of([&] { (void)Dims{{"a", 1}, {"a", 1}}; }), "Dims: 'a' is given twice");
}

TEST_F(Shaped, AFailedCheckBindsNothing) {
  Dims dims;
  EXPECT_NE(error_of([&] { shaped(of({2, 3}), "a 4", dims); }), "");
  EXPECT_FALSE(dims.has("a"));
  EXPECT_NE(error_of([&] { shaped(of({2, 3}), "a a", dims); }), "");
  EXPECT_FALSE(dims.has("a"));
}

TEST_F(Shaped, ATensorThatIsMovedThroughKeepsOneOwner) {
  Dims dims;
  Tensor x = of({2, 3});
  x = shaped(std::move(x), "a b", dims);
  EXPECT_EQ(x.storage().use_count(), 1u);
}
}  // namespace
}  // namespace reckon
