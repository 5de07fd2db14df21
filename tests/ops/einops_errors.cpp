// Every class of malformed pattern: one line that names the axis, the pattern and the shape.
#include "reckon/ops/einops.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {
class EinopsErrors : public OnCpu {
 protected:
  Tensor of(const Shape& shape, DType dtype = DType::f32) { return ones(*device_, {shape, dtype}); }

  struct Row {
    const char* pattern;
    AxisLengths lengths;
    Shape shape;
    const char* says;
  };
  template <class Run>
  void expect(const char* function, const std::vector<Row>& rows, Run run) {
    for (const Row& row : rows) {
      const std::string error = error_of([&] { run(of(row.shape), runtime(row.pattern), row.lengths); });
      EXPECT_EQ(error, text("{}: {}, in \"{}\" for f32{}", function, row.says, row.pattern, row.shape));
      EXPECT_EQ(error.find('\n'), std::string::npos);
    }
    EXPECT_EQ(live(), 0);
  }
};

TEST_F(EinopsErrors, OfTheNotation) {
  expect("rearrange",
         {
             {"a b", {}, {2, 3}, "there is no '->' between what is given and what is wanted"},
             {"a -> b -> a", {}, {2}, "there is more than one '->'"},
             {"(a b -> a b", {}, {2, 3}, "a parenthesis has no partner at '(a b '"},
             {"a b) -> a b", {}, {2, 3}, "a parenthesis has no partner at 'a b)'"},
             {"a b -> (a b", {}, {2, 3}, "a parenthesis has no partner at '(a b'"},
             {"(a (b c)) -> a b c", {}, {2, 3}, "parentheses are nested at '(a (', and one level is all there is"},
             {"a, b -> b a", {}, {2, 3}, "',' is not part of the notation"},
             {"a-b -> b a", {}, {2, 3}, "'-' is not part of the notation"},
             {"a \xC3\xA9 -> a", {}, {2, 3}, "'\xC3' is not part of the notation"},
             {"a 2b -> 2b a", {}, {2, 3}, "'2b' is neither a name nor a number"},
             {"a _b -> _b a", {}, {2, 3}, "axis '_b' begins or ends with an underscore"},
             {"a b_ -> b_ a", {}, {2, 3}, "axis 'b_' begins or ends with an underscore"},
             {"a _ -> a _", {}, {2, 3}, "'_' names no axis; only parse_shape and shaped know it"},
             {"a .. -> a ..", {}, {2, 3}, "dots stand only in an ellipsis, three of them, at '.'"},
             {"a .... -> a", {}, {2, 3}, "dots stand only in an ellipsis, three of them, at '....'"},
             {"a ... ... -> ... a", {}, {2, 3}, "'a ... ...' has two ellipses, and which axes each stands for is open"},
             {"a ... -> ... a ...", {}, {2, 3}, "'... a ...' has two ellipses, and which axes each stands for is open"},
             {"(...) a -> a ...", {}, {2, 3}, "the ellipsis on the left is in parentheses: an axis has no unknown number of parts"},
             {"(b ...) a -> a b ...", {}, {2, 3}, "the ellipsis on the left is in parentheses: an axis has no unknown number of parts"},
             {"a b -> a b ...", {}, {2, 3}, "the ellipsis is on the right only"},
             {"a ... -> a", {}, {2, 3}, "the ellipsis is on the left only"},
             {"a a -> a", {}, {2, 2}, "axis 'a' is named twice on one side"},
             {"a b -> b a b", {}, {2, 3}, "axis 'b' is named twice on one side"},
             {"a b -> a", {}, {2, 3}, "axis 'b' is on the left only"},
             {"a b -> b c a", {}, {2, 3}, "axis 'c' is on the right only"},
             {"a (b 2) -> a b", {}, {2, 4}, "the axis of length 2 has no name, so that it is on one side only"},
             {"a b -> a b 3", {}, {2, 4}, "the axis of length 3 has no name, so that it is on one side only"},
             {"a 0 -> a", {}, {2, 4}, "length '0' must be at least 1"},
             {"a 1234567890123456 -> a", {}, {2, 4}, "length '1234567890123456' has more than 15 digits"},
             {"a * -> a *", {}, {2, 3}, "'*' is not part of this notation"},
         },
         [](const Tensor& x, const RuntimePattern& p, const AxisLengths& l) { rearrange(x, p, l); });
}

TEST_F(EinopsErrors, OfLengthsAndShapes) {
  expect("rearrange",
         {
             {"a b -> b a", {}, {2, 3, 4}, "the left has 2 axes, the tensor has 3"},
             {"a -> a", {}, {}, "the left has 1 axis, the tensor has 0"},
             {"a b ... c -> a b c ...", {}, {2, 3}, "the left has at least 3 axes, the tensor has 2"},
             {"a (b c) -> a b c", {}, {2, 6}, "the lengths of 'b' and 'c' in (b c) are both unknown; give one of them"},
             {"a (b c) -> a b c", {{"b", 4}}, {2, 6}, "axis 1, '(b c)', has length 6, which is not divisible by 4"},
             {"a (b c) -> a b c", {{"b", 4}, {"c", 2}}, {2, 6}, "axis 1, '(b c)', has length 6, not 8"},
             {"a (b c) -> a b c", {{"b", 0}}, {2, 6}, "the length of 'c' in (b c) cannot be found beside a length of 0"},
             {"a b -> b a", {{"b", 4}}, {2, 3}, "axis 1, 'b', has length 3, not 4"},
             {"a 1 -> a", {}, {2, 3}, "axis 1 has length 3, and the pattern says 1"},
             {"() a -> a", {}, {2, 3}, "axis 0 has length 2, and the pattern says 1"},
             {"a b -> b a", {{"c", 4}}, {2, 3}, "axis 'c' is given a length, but the pattern does not name it"},
             {"a b -> b a", {{"b", 3}, {"b", 4}}, {2, 3}, "axis 'b' is given two lengths, 3 and 4"},
             {"a b -> b a", {{"b", -1}}, {2, 3}, "axis 'b' is given the length -1"},
             {"a b -> b a", {{"b c", 3}}, {2, 3}, "'b c' is given a length, but is no name of an axis"},
             {"a b -> b a", {{"", 3}}, {2, 3}, "'' is given a length, but is no name of an axis"},
             {"(a b c d e f g h i) -> a b c d e f g h i",
              {{"a", 1}, {"b", 1}, {"c", 1}, {"d", 1}, {"e", 1}, {"f", 1}, {"g", 1}, {"h", 1}},
              {6},
              "the result has 9 axes, and 8 are the most"},
         },
         [](const Tensor& x, const RuntimePattern& p, const AxisLengths& l) { rearrange(x, p, l); });
}

TEST_F(EinopsErrors, OfReduce) {
  expect("reduce",
         {
             {"a b -> a c", {}, {2, 3}, "axis 'c' is on the right only"},
             {"a b -> a 3", {}, {2, 3}, "the axis of length 3 has no name, so that it is on one side only"},
             {"a b -> a ...", {}, {2, 3}, "the ellipsis is on the right only"},
             {"a (b 2) -> a b", {}, {2, 3}, "axis 1, '(b 2)', has length 3, which is not divisible by 2"},
             {"a b -> a", {}, {2, 0}, "max: the maximum over an empty axis of [2, 0] is undefined"},
         },
         [](const Tensor& x, const RuntimePattern& p, const AxisLengths& l) { reduce(x, p, Reducer::max, l); });
  EXPECT_EQ(error_of([&] {
              reduce(of({2, 0}), "a b -> a", Reducer::mean);
            }),
            "reduce: the mean over an empty axis of [2, 0] is undefined, in \"a b -> a\" for f32[2, 0]");
  EXPECT_EQ(error_of([&] {
              reduce(of({2, 3}, DType::i32), "a b -> a", Reducer::mean);
            }),
            "reduce: the mean of i32 is no whole number; cast it to a float first, in \"a b -> a\" for i32[2, 3]");
  EXPECT_THAT(error_of([&] { reduce(of({2, 3}, DType::boolean), "a b -> a", Reducer::mean); }), HasSubstr("in \"a b -> a\" for bool[2, 3]"));
}

TEST_F(EinopsErrors, OfRepeat) {
  expect("repeat",
         {
             {"a b -> a", {}, {2, 3}, "axis 'b' is on the left only"},
             {"a ... -> a", {}, {2, 3}, "the ellipsis is on the left only"},
             {"a b 2 -> a b", {}, {2, 3, 2}, "the axis of length 2 has no name, so that it is on one side only"},
             {"a b -> a b r", {}, {2, 3}, "the new axis 'r' has no length; give it one"},
             {"a b -> a b r", {{"r", -2}}, {2, 3}, "axis 'r' is given the length -2"},
             {"a b -> a ... b", {}, {2, 3}, "the ellipsis is on the right only"},
         },
         [](const Tensor& x, const RuntimePattern& p, const AxisLengths& l) { repeat(x, p, l); });
}

TEST_F(EinopsErrors, OfSizesThatNoIntegerHolds) {
  const int64_t huge = int64_t(1) << 40;
  const auto kind_of = [&](const char* pattern, const AxisLengths& lengths, const Shape& shape) {
    try {
      repeat(of(shape), runtime(pattern), lengths);
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr(text("in \"{}\" for f32{}", pattern, shape)));
      return error.kind();
    }
    return Failure::corrupt;
  };
  EXPECT_EQ(kind_of("a -> a r s", {{"r", huge}, {"s", huge}}, {2}), Failure::usage);
  EXPECT_EQ(kind_of("a -> (a r s)", {{"r", huge}, {"s", huge}}, {2}), Failure::usage);
  EXPECT_EQ(kind_of("a b c d e -> (a r) (b s) (c t) (d u) e", {{"r", huge}, {"s", huge}, {"t", 2}, {"u", 2}}, {2, 2, 2, 2, 2}),
            Failure::usage);
  EXPECT_THAT(error_of([&] {
                rearrange(of({6}), "(a b c) -> a b c", {{"a", huge}, {"b", huge}});
              }),
              HasSubstr("has length 6, which is not divisible by"));
  EXPECT_EQ(live(), 0);
}

TEST_F(EinopsErrors, OfParseShape) {
  expect("parse_shape",
         {
             {"a (b c)", {}, {2, 6}, "parentheses are not part of this notation; rearrange first"},
             {"a b c", {}, {2, 6}, "the pattern has 3 axes, the tensor has 2"},
             {"a ... b c", {}, {2, 6}, "the pattern has at least 3 axes, the tensor has 2"},
             {"a a", {}, {2, 6}, "axis 'a' is named twice on one side"},
             {"a 5", {}, {2, 6}, "axis 1 has length 6, and the pattern says 5"},
             {"1 a", {}, {2, 6}, "axis 0 has length 2, and the pattern says 1"},
             {"... a ...", {}, {2, 6}, "'... a ...' has two ellipses, and which axes each stands for is open"},
             {"a -> b", {}, {2, 6}, "'-' is not part of the notation"},
         },
         [](const Tensor& x, const RuntimePattern& p, const AxisLengths&) { parse_shape(x, p); });
  EXPECT_EQ(error_of([] { AxisLengths({{"a", 2}})["b"]; }), "there is no length of an axis 'b'");
}

TEST_F(EinopsErrors, OfEinsum) {
  struct Sum {
    const char* pattern;
    std::vector<Shape> shapes;
    const char* says;
  };
  const Sum rows[] = {
      {"ij,jk->ik->ki", {{2, 3}, {3, 4}}, "there is more than one '->'"},
      {"ij,jk->ik", {{2, 3}}, "the pattern has 2 operands, 1 is given"},
      {"ij->ji", {{2, 3}, {2, 3}}, "the pattern has 1 operand, 2 are given"},
      {"ij,jk->iz", {{2, 3}, {3, 4}}, "axis 'z' of the output is in no input"},
      {"ij,jk->ii", {{2, 3}, {3, 4}}, "axis 'i' is named twice in the output"},
      {"ij,jk->ik", {{2, 3}, {4, 5}}, "axis 'j' has length 3 in operand 0 and 4 in operand 1"},
      {"rows inner, inner cols -> rows cols", {{2, 3}, {1, 5}}, "axis 'inner' has length 3 in operand 0 and 1 in operand 1"},
      {"ii->i", {{2, 3}}, "axis 'i' has length 2 in operand 0 and 3 in operand 0"},
      {"ijk->i", {{2, 3}}, "operand 0 has 3 axes in the pattern, the tensor [2, 3] has 2"},
      {"i...j->ij...", {{2}}, "operand 0 has at least 2 axes in the pattern, the tensor [2] has 1"},
      {"...i,...i->...", {{2, 5}, {3, 5}}, "axes '...[-1]' do not broadcast: they have length 2 in operand 0 and 3 in operand 1"},
      {"...i->i", {{2, 5}}, "the ellipsis is on the left only"},
      {"i->...i", {{2}}, "the ellipsis is on the right only"},
      {"...i...->i", {{2}}, "'...i...' has two ellipses, and which axes each stands for is open"},
      {"i.j->ij", {{2, 3}}, "dots stand only in an ellipsis, three of them, at 'i.j'"},
      {"(a b) c -> a b c", {{4, 3}}, "parentheses are not part of this notation; rearrange first"},
      {"i()->i", {{2, 1}}, "parentheses are not part of this notation; rearrange first"},
      {"a 2 -> a", {{4, 2}}, "'2' is a length, and axes have names here"},
      {"a _ -> a", {{4, 2}}, "'_' names no axis; only parse_shape and shaped know it"},
      {"a 2b -> a", {{4, 2}}, "'2b' is neither a name nor a number"},
      {"b1,b1->b1", {{4, 1}, {4, 1}}, "'1' is not a letter; axes of several characters are separated by spaces"},
      {"i;j->ij", {{4, 2}}, "';' is not part of the notation"},
      {"a+b c -> c", {{4, 2}}, "'+' is not part of the notation"},
  };
  for (const Sum& row : rows) {
    Tensors operands;
    std::string printed;
    for (const Shape& shape : row.shapes) {
      operands.push_back(of(shape));
      printed += (printed.empty() ? "f32" : ", f32") + to_string(shape);
    }
    EXPECT_EQ(error_of([&] { einsum(runtime(row.pattern), operands); }),
              text("einsum: {}, in \"{}\" for {}", row.says, row.pattern, printed));
  }
  EXPECT_EQ(error_of([&] {
              einsum("i,i->i", {of({2}), of({2}, DType::f64)});
            }),
            "einsum: operands 0 and 1 differ in dtype: f32 and f64; cast one of them, in \"i,i->i\" for f32[2], f64[2]");
  EXPECT_THAT(error_of([&] {
                einsum("i,i->", {of({2}, DType::boolean), of({2}, DType::boolean)});
              }),
              HasSubstr("in \"i,i->\" for bool[2], bool[2]"));
  EXPECT_EQ(error_of([&] { einsum("i,i->", {}); }), "einsum: no operand is given, for \"i,i->\"");
  EXPECT_EQ(error_of([&] { einsum("i,i->", {of({2}), Tensor()}); }), "einsum: an operand is undefined, for \"i,i->\"");
  EXPECT_EQ(error_of([&] {
              einsum("abcde,fghij,ek,jk->abcdfghi", {of({2, 2, 2, 2, 3}), of({2, 2, 2, 2, 3}), of({3, 2}), of({3, 2})});
            }),
            "");
  EXPECT_EQ(
      error_of([&] {
        einsum("abcde,fghij->abcdefghij", {of({2, 2, 2, 2, 2}), of({2, 2, 2, 2, 2})});
      }),
      "einsum: the result has 10 axes, and 8 are the most, in \"abcde,fghij->abcdefghij\" for f32[2, 2, 2, 2, 2], f32[2, 2, 2, 2, 2]");
  EXPECT_EQ(error_of([&] {
              einsum("abcde,fghij,ajabcdefghi->", {of({2, 2, 2, 2, 2})});
            }).substr(0, 45),
            "einsum: the pattern has 3 operands, 1 is give");
}

TEST_F(EinopsErrors, OfMoreLabelsThanABitMaskHas) {
  std::string pattern;
  Tensors operands;
  for (int i = 0; i < 9; ++i) {
    pattern += i ? ", " : "";
    for (int axis = 0; axis < 8; ++axis) pattern += text("a{} ", 8 * i + axis);
    operands.push_back(of({1, 1, 1, 1, 1, 1, 1, 1}));
  }
  EXPECT_THAT(error_of([&] { einsum(runtime(pattern + "->"), operands); }), HasSubstr("there are more than 64 different axes"));
  operands.pop_back();
  EXPECT_EQ(einsum(runtime(pattern.substr(0, pattern.rfind(',')) + "->"), operands).item(), 1);
}

TEST_F(EinopsErrors, OfUndefinedTensorsAndDevices) {
  EXPECT_EQ(error_of([] { rearrange(Tensor(), "a b -> b a"); }), "rearrange: the tensor is undefined, for \"a b -> b a\"");
  const Ref<Device> other = open_cpu(Mode::real);
  EXPECT_EQ(error_of([&] {
              einsum("i,i->", {of({2}), ones(*other, {{2}, DType::f32})});
            }),
            "einsum: inputs live on two devices, in \"i,i->\" for f32[2], f32[2]");
}
}  // namespace
}  // namespace reckon
