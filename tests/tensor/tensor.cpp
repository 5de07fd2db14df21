// Tensors: ranks and sizes at the limits, reading and writing, and meta, which has no data.
#include <cmath>
#include <cstring>

#include "tests/engine/support.h"

namespace reckon {
namespace {

class TensorTest : public OnCpu {};

TEST_F(TensorTest, EightAxesAreTheLimit) {
  EXPECT_EQ(zeros(*device_, {{1, 1, 1, 1, 1, 1, 1, 2}, DType::f32}).rank(), 8);
  EXPECT_NE(error_of([&] { zeros(*device_, {{1, 1, 1, 1, 1, 1, 1, 1, 2}, DType::f32}); }), "");
  EXPECT_NE(error_of([&] { zeros(*device_, {{1, 1, 1, 1, 1, 1, 1, 1, 1, 2}, DType::f32}); }), "");
  EXPECT_NE(error_of([&] { unsqueeze(zeros(*device_, {{1, 1, 1, 1, 1, 1, 1, 2}, DType::f32}), 0); }), "");
  // Nor may broadcasting or a product get there.
  const Tensor deep = zeros(*device_, {{1, 1, 1, 1, 1, 1, 1, 2}, DType::f32});
  EXPECT_EQ(matmul(transpose(deep), deep).rank(), 8);
}

TEST_F(TensorTest, SizesThatDoNotFitAreRefused) {
  const int64_t big = int64_t(1) << 40;
  EXPECT_NE(error_of([&] { zeros(*device_, {{big, big}, DType::u8}); }), "");
  EXPECT_NE(error_of([&] { zeros(*device_, {{-1}, DType::u8}); }), "");
  // The elements fit in 63 bits, their bytes do not.
  EXPECT_NE(error_of([&] { zeros(*device_, {{int64_t(1) << 61}, DType::f64}); }), "");
  EXPECT_NE(error_of([&] { zeros(*device_, {{INT64_MAX}, DType::u8}); }), "") << "rounding up to a block overflows";
  // An axis of 0 makes room for others of any extent.
  EXPECT_EQ(zeros(*device_, {{0, big}, DType::f64}).numel(), 0);
  // Nor may an operation get there.
  const Ref<Device> meta = open_cpu(Mode::meta);
  const Tensor column = empty(*meta, {{big, 1}, DType::u8}), row = empty(*meta, {{1, big}, DType::u8});
  EXPECT_NE(error_of([&] { equal(column, row); }), "");
  EXPECT_NE(error_of([&] { expand(row, {big, big}); }), "");
  EXPECT_EQ(live(), 0);
}

TEST_F(TensorTest, ItemWantsOneElement) {
  EXPECT_EQ(scalar(2.5).item(), 2.5);
  EXPECT_EQ(tensor({1, 1}, {2.5}).item(), 2.5);
  EXPECT_THAT(error_of([&] { tensor({2}, {1, 2}).item(); }), HasSubstr("exactly one element"));
  EXPECT_THAT(error_of([&] { tensor({0}, {}).item(); }), HasSubstr("exactly one element"));
}

TEST_F(TensorTest, DataIsTyped) {
  const Tensor x = tensor({2}, {1, 2});
  EXPECT_EQ(x.data<double>()[1], 2);
  EXPECT_THAT(error_of([&] { x.data<float>(); }), HasSubstr("holds f64, not f32"));
  EXPECT_EQ(slice(x, 0, 1, 2).data<double>()[0], 2);
}

TEST_F(TensorTest, MetaHasNoData) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  const Tensor x = ones(*meta, {{3}, DType::f32});
  EXPECT_THAT(error_of([&] { sum(x).item(); }), HasSubstr("must not branch on values"));
  EXPECT_THAT(error_of([&] { x.to_vector(); }), HasSubstr("no data"));
  EXPECT_THAT(error_of([&] { x.data<float>(); }), HasSubstr("no data"));
  EXPECT_EQ(x.raw(), nullptr);
  const std::vector<float> values{1, 2, 3};
  const uint64_t version = x.version();
  x.write(values.data(), 12);
  EXPECT_GT(x.version(), version);
  EXPECT_GT(meta->allocator().ledger().live, 0);
}

TEST_F(TensorTest, MetaPlansWhatNoMachineHolds) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  const Tensor a = empty(*meta, {{1 << 20, 1 << 20}, DType::f32});
  const Tensor b = matmul(a, a);
  EXPECT_EQ(b.shape(), (Shape{1 << 20, 1 << 20}));
  EXPECT_GE(meta->allocator().ledger().peak, int64_t(8) << 40);
}

TEST_F(TensorTest, WritesWantTheRightSize) {
  const Tensor x = tensor({2}, {1, 2});
  const Values v{5, 6, 7};
  EXPECT_THAT(error_of([&] { x.write(v.data(), 24); }), HasSubstr("wants 16 contiguous bytes"));
  x.write(v.data(), 16);
  EXPECT_THAT(x.to_vector(), ElementsAre(5, 6));
  EXPECT_THAT(error_of([&] { from_values<double>(*device_, {4}, v); }), HasSubstr("from_values: shape [4] holds 4 elements, 3 are given"));
}

TEST_F(TensorTest, ListsStandInTheProgram) {
  const Tensor whole = from_values(*device_, {1, 2, 3}), square = from_values(*device_, {2, 2}, {1.5f, 2.f, -3.f, 4.f});
  EXPECT_EQ(whole.spec(), (TensorSpec{{3}, DType::i32}));
  EXPECT_THAT(whole.to_vector(), ElementsAre(1, 2, 3));
  EXPECT_EQ(square.spec(), (TensorSpec{{2, 2}, DType::f32}));
  EXPECT_THAT(square.to_vector(), ElementsAre(1.5, 2, -3, 4));
  EXPECT_EQ(from_values(*device_, {0.5, 1.0}).dtype(), DType::f64);
  EXPECT_EQ(from_values(*device_, {true, false}).dtype(), DType::boolean);
  EXPECT_EQ(from_values(*device_, {int64_t(1), int64_t(2)}).dtype(), DType::i64);
  EXPECT_EQ(from_values<double>(*device_, {1, 2, 3}).dtype(), DType::f64);
  EXPECT_EQ(from_values<float>(*device_, {3, 1}, {1, 2, 3}).spec(), (TensorSpec{{3, 1}, DType::f32}));
  EXPECT_EQ(from_values(*device_, {}, {7}).item(), 7) << "a scalar";
  EXPECT_EQ(error_of([&] { from_values(*device_, {2, 2}, {1, 2, 3}); }), "from_values: shape [2, 2] holds 4 elements, 3 are given");
  const Ref<Device> meta = open_cpu(Mode::meta);
  EXPECT_EQ(from_values(*meta, {1, 2, 3}).shape(), Shape{3});
}

TEST_F(TensorTest, UndefinedTensorsSayNothingAndAreRefused) {
  EXPECT_FALSE(Tensor().defined());
  EXPECT_EQ(to_string(Tensor()), "undefined");
  EXPECT_THAT(error_of([&] { add(Tensor(), scalar(1)); }), HasSubstr("undefined"));
  EXPECT_THAT(error_of([&] { add(scalar(1), Tensor()); }), HasSubstr("undefined"));
}

TEST_F(TensorTest, PrintsItsType) { EXPECT_EQ(to_string(zeros(*device_, {{2, 3}, DType::bf16})), "bf16[2, 3]"); }

// ---- sixteen bits, all of them
std::vector<uint16_t> every_pattern() {
  std::vector<uint16_t> bits(65536);
  for (size_t i = 0; i < bits.size(); ++i) bits[i] = uint16_t(i);
  return bits;
}
// What the bits of a binary float mean, by its definition.
double meaning(uint16_t bits, int exponent_bits, int fraction_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1, exponent = bits >> fraction_bits & ((1 << exponent_bits) - 1),
            fraction = bits & ((1 << fraction_bits) - 1);
  const double sign = bits >> 15 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return fraction ? NAN : sign * INFINITY;
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
  return sign * std::ldexp((1 << fraction_bits) + fraction, exponent - bias - fraction_bits);
}
bool same_number(double a, double b) { return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b); }

TEST_F(TensorTest, EverySixteenBitPatternConvertsAndComesBack) {
  const std::vector<uint16_t> bits = every_pattern();
  struct Format {
    DType dtype;
    int exponent_bits, fraction_bits;
  };
  for (const Format& f : {Format{DType::bf16, 8, 7}, Format{DType::f16, 5, 10}}) {
    const Tensor x = from_bytes(*device_, {{65536}, f.dtype}, bits.data(), 131072);
    for (const DType wide : {DType::f32, DType::f64}) {
      const Tensor up = cast(x, wide);
      const Values values = up.to_vector(), direct = x.to_vector();
      const Tensor down = cast(up, f.dtype);
      const auto* back = static_cast<const uint16_t*>(down.raw());
      for (size_t i = 0; i < bits.size(); ++i) {
        const double want = meaning(bits[i], f.exponent_bits, f.fraction_bits);
        ASSERT_TRUE(same_number(values[i], want))
            << name_of(f.dtype) << " to " << name_of(wide) << ", bits " << i << ": " << values[i] << ", not " << want;
        ASSERT_TRUE(same_number(direct[i], want)) << i;
        if (std::isnan(want)) {
          ASSERT_TRUE(std::isnan(meaning(back[i], f.exponent_bits, f.fraction_bits))) << i;
        } else {
          ASSERT_EQ(back[i], bits[i]) << name_of(f.dtype) << " from " << name_of(wide);
        }
      }
    }
  }
}

TEST_F(TensorTest, BetweenSixteenBitPatternsTheNearestIsTakenAndTiesGoToEven) {
  const std::vector<uint16_t> bits = every_pattern();
  struct Format {
    DType dtype;
    int exponent_bits, fraction_bits;
    uint16_t infinity;
  };
  for (const Format& f : {Format{DType::bf16, 8, 7, 0x7F80}, Format{DType::f16, 5, 10, 0x7C00}})
    for (const DType wide : {DType::f32, DType::f64}) {
      // Below, at and above the middle of each pair of neighbours. Halves of an f16 are exact in f32; so are those of a bf16 but
      // subnormals' quarters.
      Values points;
      std::vector<uint16_t> want;
      for (uint16_t i = 0; i + 1 < f.infinity; ++i) {
        const double low = meaning(i, f.exponent_bits, f.fraction_bits), high = meaning(uint16_t(i + 1), f.exponent_bits, f.fraction_bits),
                     middle = (low + high) / 2;
        points.insert(points.end(), {middle - (high - low) / 8, middle, middle + (high - low) / 8});
        want.insert(want.end(), {i, uint16_t(i % 2 ? i + 1 : i), uint16_t(i + 1)});
      }
      const Tensor x = cast(tensor({int64_t(points.size())}, points), wide);
      ASSERT_EQ(x.to_vector(), points) << "the points must be exact";
      const Tensor positive = cast(x, f.dtype), negative = cast(neg(x), f.dtype);
      for (size_t i = 0; i < want.size(); ++i) {
        ASSERT_EQ(static_cast<const uint16_t*>(positive.raw())[i], want[i])
            << name_of(wide) << " " << points[i] << " to " << name_of(f.dtype);
        ASSERT_EQ(static_cast<const uint16_t*>(negative.raw())[i], want[i] | 0x8000);
      }
    }
}
}  // namespace
}  // namespace reckon
