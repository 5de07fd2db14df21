// One side of a diagonal, element by element.
#include "reckon/backend/cpu/triangle.h"

#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
void expect_triangle(DType dtype, const Shape& shape, const int64_t* strides, bool in_place) {
  int64_t most = 0;
  for (int i = 0; i < shape.rank(); ++i) most += std::max<int64_t>(0, shape[i] - 1) * strides[i];
  Buffer x(dtype, most + 1);
  for (int64_t i = 0; i < x.size(); ++i) x.set(i, dtype == DType::boolean ? 1 : double(i % 100 + 1));
  if (is_float(dtype)) x.set(0, std::nan("")), x.set(x.size() - 1, -std::numeric_limits<double>::infinity());
  int64_t dense[kMaxRank];
  dense_strides(shape, dense);
  const int64_t rows = shape[-2], columns = shape[-1];
  for (const bool upper : {false, true})
    for (const int64_t shift : {int64_t(0), int64_t(1), int64_t(-1), int64_t(-3), int64_t(40), columns, -rows, columns + 1, -rows - 1}) {
      Buffer y(dtype, shape.numel(), 7);
      if (in_place) y = x;
      triangle(size_of(dtype), shape, {in_place ? y.data() : x.data(), strides}, upper, shift, y.data());
      for (int64_t i = 0; i < shape.numel(); ++i) {
        const int64_t row = i / columns % rows, column = i % columns;
        int64_t place = 0;
        for (int k = 0; k < shape.rank(); ++k) place += i / dense[k] % shape[k] * strides[k];
        const double want = (upper ? column - row >= shift : column - row <= shift) ? x[place] : 0;
        ASSERT_TRUE(y[i] == want || (std::isnan(y[i]) && std::isnan(want)))
            << name_of(dtype) << to_string(shape) << (upper ? " upper " : " lower ") << shift << ", element " << i << ": " << y[i]
            << ", not " << want;
      }
    }
}

TEST(RowsTriangle, KeepsOneSideOfADiagonal) {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::i32, DType::i64, DType::u8, DType::boolean}) {
    for (const Shape& shape : {Shape{1, 1}, Shape{5, 5}, Shape{4, 9}, Shape{9, 4}, Shape{3, 7, 6}, Shape{2, 1, 3, 50}, Shape{70, 300}}) {
      int64_t dense[kMaxRank];
      dense_strides(shape, dense);
      expect_triangle(dtype, shape, dense, false);
      if (dtype != DType::boolean) expect_triangle(dtype, shape, dense, true);
    }
    const int64_t transposed[] = {1, 45}, stepped[] = {100, 3}, repeated[] = {0, 1}, turned[] = {3, 1, 70};
    for (const int64_t* strides : {transposed, stepped, repeated}) expect_triangle(dtype, {30, 33}, strides, false);
    expect_triangle(dtype, {2, 3, 9}, turned, false);
  }
  Buffer none(DType::f32, 0);
  const int64_t strides[] = {4, 1};
  triangle(4, {0, 4}, {none.data(), strides}, false, 0, none.data());
  triangle(4, {4, 0}, {none.data(), strides}, false, 0, none.data());
}
}  // namespace
}  // namespace reckon::cpu
