// Running sums against one sum after the other in double, to the bit: the additions have one order, whatever is converted together.
#include "reckon/backend/cpu/cumsum.h"

#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
constexpr double kInf = std::numeric_limits<double>::infinity(), kNaN = std::numeric_limits<double>::quiet_NaN();

// x with strides, y dense.
Buffer summed(const Shape& shape, int axis, bool reverse, bool exclusive, const Buffer& x, const int64_t* strides) {
  Buffer y(x.dtype(), shape.numel());
  int64_t dense[kMaxRank];
  dense_strides(shape, dense);
  const int64_t length = shape[axis];
  for (int64_t i = 0; i < shape.numel(); ++i) {
    int64_t place = 0;
    bool first = true;
    for (int k = 0; k < shape.rank(); ++k) {
      const int64_t at = i / dense[k] % shape[k];
      place += at * strides[k];
      if (k == axis) first = at == 0;
    }
    if (!first) continue;
    double sum = 0;
    for (int64_t j = 0; j < length; ++j) {
      const int64_t at = reverse ? length - 1 - j : j;
      const double before = sum;
      sum += x[place + at * strides[axis]];
      y.set(i + at * dense[axis], exclusive ? before : sum);
    }
  }
  return y;
}

void expect_sums(const Shape& shape, int axis, const Buffer& x, const int64_t* strides) {
  for (const bool reverse : {false, true})
    for (const bool exclusive : {false, true}) {
      const Buffer want = summed(shape, axis, reverse, exclusive, x, strides);
      Buffer y(x.dtype(), shape.numel());
      cumsum(x.dtype(), shape, axis, reverse, exclusive, {x.data(), strides}, y.data());
      for (int64_t i = 0; i < y.size(); ++i)
        ASSERT_TRUE(y[i] == want[i] || (std::isnan(y[i]) && std::isnan(want[i])))
            << name_of(x.dtype()) << to_string(shape) << " axis " << axis << " reverse " << reverse << " exclusive " << exclusive
            << ", element " << i << ": " << y[i] << ", not " << want[i];
    }
}

TEST(RowsCumsum, IsOneSumAfterTheOtherInDouble) {
  on_every_target([] {
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16, DType::i64})
      for (const Shape& shape : {Shape{1}, Shape{0}, Shape{3, 0}, Shape{0, 3}, Shape{700}, Shape{8, 256}, Shape{9, 257}, Shape{17, 1030},
                                 Shape{5, 1}, Shape{3, 7, 5}, Shape{2, 9, 300}, Shape{2, 3, 1, 600}}) {
        const Buffer x = dtype == DType::i64 ? uniform(dtype, shape.numel(), 1, -1e6, 1e6) : uniform(dtype, shape.numel(), 1, -3, 4);
        int64_t dense[kMaxRank];
        dense_strides(shape, dense);
        for (int axis = 0; axis < shape.rank(); ++axis) expect_sums(shape, axis, x, dense);
      }
  });
}

TEST(RowsCumsum, ReadsAnyStrides) {
  on_every_target([] {
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16, DType::i64}) {
      const Buffer x = uniform(dtype, 40000, 2, -5, 6);
      const int64_t transposed[] = {1, 130}, stepped[] = {600, 2}, repeated[] = {0, 1}, constant[] = {1, 0};
      for (const int64_t* strides : {transposed, stepped, repeated, constant})
        for (const int axis : {0, 1}) expect_sums({60, 290}, axis, x, strides);
    }
  });
}

// Infinities, NaN, sums that no float holds, and sums below the normal floats, which have fewer bits.
TEST(RowsCumsum, RoundsOnceAtTheEdges) {
  on_every_target([] {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
      for (const int64_t n : {40, 41}) {
        Buffer x(dtype, 9 * n);
        for (int64_t i = 0; i < x.size(); ++i) {
          const int64_t line = i / n, at = i % n;
          const double tiny = dtype == DType::f16 ? 0x1.8p-24 : 0x1.8p-133, huge = dtype == DType::f16 ? 60000 : 3e38;
          const double sign = at % 3 == 1 ? -0.5 : 1;
          x.set(i, line == 0   ? at == 7    ? kInf
                                 : at == 20 ? -kInf
                                            : 1
                   : line == 1 ? at == 5 ? kNaN : 2
                   : line == 2 ? huge
                   : line == 3 ? -huge
                   : line == 4 ? tiny * sign
                   : line == 5 ? -0.0
                   : line == 6 ? at == 0 ? 1 : epsilon(dtype) / 2  // halfway, over and over
                   : line == 7 ? at == 0 ? 1 : tiny
                               : sign);
        }
        const int64_t rows[] = {n, 1}, columns[] = {1, n};
        expect_sums({9, n}, 1, x, rows);
        expect_sums({n, 9}, 0, x, columns);
      }
  });
}

TEST(RowsCumsum, MayWriteWhereItReads) {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16, DType::i64})
    for (const int axis : {0, 1})
      for (const bool reverse : {false, true}) {
        const Buffer x = uniform(dtype, 11 * 600, 3, -9, 9);
        const int64_t dense[] = {600, 1};
        Buffer y = x;
        cumsum(dtype, {11, 600}, axis, reverse, true, {y.data(), dense}, y.data());
        EXPECT_TRUE(y.same_bytes(summed({11, 600}, axis, reverse, true, x, dense))) << name_of(dtype) << axis << reverse;
      }
}

TEST(RowsCumsum, IsTheSameOnAnyThreads) {
  for (const int axis : {0, 1}) {
    const Buffer x = uniform(DType::bf16, 130 * 3000, 4);
    expect_same_on_any_threads([&] {
      Buffer y(DType::bf16, x.size());
      const int64_t dense[] = {3000, 1};
      cumsum(DType::bf16, {130, 3000}, axis, false, false, {x.data(), dense}, y.data());
      return std::vector<Buffer>{y};
    });
  }
}
}  // namespace
}  // namespace reckon::cpu
