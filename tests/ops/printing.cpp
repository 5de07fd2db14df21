// Tensors as text: what NumPy prints, with dtype and shape behind it.
#include "reckon/ops/printing.h"

#include <cmath>
#include <sstream>

#include "reckon/ops/indexing.h"
#include "reckon/ops/joining.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {
class Printing : public OnCpu {
 protected:
  Tensor as(DType dtype, const Shape& shape, const Values& values) { return cast(tensor(shape, values), dtype); }
};

TEST_F(Printing, AlignsAtThePoint) {
  EXPECT_EQ(to_text(as(DType::f32, {2, 2}, {1, 2.5, -3, 4})), "[[ 1.   2.5]\n [-3.   4. ]]  f32[2, 2]");
  EXPECT_EQ(to_text(as(DType::f32, {3}, {0.1, 100, 0.25})), "[  0.1  100.     0.25]  f32[3]");
  EXPECT_EQ(to_text(as(DType::f64, {2}, {1.0 / 3, 2})), "[0.33333333 2.        ]  f64[2]");
  EXPECT_EQ(to_text(as(DType::f64, {2}, {1.0 / 3, 2}), {.precision = 3, .suffix = false}), "[0.333 2.   ]");
}

TEST_F(Printing, WritesNoMoreDigitsThanTheTypeHas) {
  EXPECT_EQ(to_text(as(DType::bf16, {2}, {0.1, 3.14159})), "[0.1  3.14]  bf16[2]");
  EXPECT_EQ(to_text(as(DType::f16, {1}, {0.1})), "[0.1]  f16[1]");
  EXPECT_EQ(to_text(as(DType::f32, {}, {0.1})), "0.1  f32[]");
}

TEST_F(Printing, IntegersAndBoolsAreExact) {
  const std::vector<int64_t> large{INT64_MAX, -1};
  EXPECT_EQ(to_text(from_values<int64_t>(*device_, {2}, large)), "[9223372036854775807                  -1]  i64[2]");
  EXPECT_EQ(to_text(less(tensor({3}, {1, 2, 3}), scalar(2.5))), "[ true  true false]  bool[3]");
  EXPECT_EQ(to_text(as(DType::u8, {2}, {7, 255})), "[  7 255]  u8[2]");
}

TEST_F(Printing, WideRangesAndSpecialValues) {
  EXPECT_EQ(to_text(tensor({3}, {1e-5, 1, 1e10})), "[1.e-05 1.e+00 1.e+10]  f64[3]");
  EXPECT_EQ(to_text(tensor({2}, {1.5e-9, 2})), "[1.5e-09 2.0e+00]  f64[2]");
  EXPECT_EQ(to_text(tensor({4}, {1, NAN, INFINITY, -INFINITY})), "[  1.  nan  inf -inf]  f64[4]");
}

TEST_F(Printing, NestsAxesAndShowsViews) {
  const Tensor x = reshape(arange(*device_, 8, DType::i32), {2, 2, 2});
  EXPECT_EQ(to_text(x), "[[[0 1]\n  [2 3]]\n\n [[4 5]\n  [6 7]]]  i32[2, 2, 2]");
  EXPECT_EQ(to_text(index(flip(x), {0, ellipsis})), "[[7 6]\n [5 4]]  i32[2, 2]");
  EXPECT_EQ(to_text(transpose(x, 0, 2), {.suffix = false}), "[[[0 4]\n  [2 6]]\n\n [[1 5]\n  [3 7]]]");
  EXPECT_EQ(to_text(zeros(*device_, {{2, 0}, DType::f32})), "[]  f32[2, 0]");
}

TEST_F(Printing, LargeTensorsShowTheirEnds) {
  EXPECT_EQ(to_text(arange(*device_, 2000, DType::i32)), "[   0    1    2 ... 1997 1998 1999]  i32[2000]");
  EXPECT_EQ(to_text(reshape(arange(*device_, 40, DType::i32), {20, 2}), {.summarize_above = 10, .edge = 1, .suffix = false}),
            "[[ 0  1]\n ...\n [38 39]]");
  EXPECT_EQ(to_text(arange(*device_, 30, DType::i32), {.width = 30, .suffix = false}),
            "[ 0  1  2  3  4  5  6  7  8  9\n 10 11 12 13 14 15 16 17 18 19\n 20 21 22 23 24 25 26 27 28 29]");
}

TEST_F(Printing, WithoutValuesItSaysWhy) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  EXPECT_EQ(to_text(zeros(*meta, {{2, 3}, DType::f32})), "f32[2, 3] on meta, without values");
  EXPECT_EQ(to_text(Tensor()), "undefined");
}

TEST_F(Printing, StreamsAndLeavesNoTrace) {
  const Tensor x = tensor({2}, {1, 2});
  const std::string before = device_->allocator().trace_hash();
  std::ostringstream out;
  out << flip(x);
  EXPECT_EQ(out.str(), "[2. 1.]  f64[2]");
  EXPECT_EQ(device_->allocator().trace_hash(), before);
}
}  // namespace
}  // namespace reckon
