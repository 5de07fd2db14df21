// Copies, running sums and additions by index of tensors beyond the caches, whose results are stored past them, against a few rows at a
// time.
#include <cstring>

#include "reckon/ops/indexing.h"
#include "reckon/ops/ops.h"
#include "reckon/ops/scan.h"
#include "reckon/ops/sorting.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {
class LargePlaces : public OnCpu {
 protected:
  // Not all rows of these begin where a cache line does.
  static constexpr int64_t kWidths[] = {4096, 4104, 4099};
  static constexpr DType kTypes[] = {DType::f32, DType::bf16};
  static int64_t rows_of(int64_t width) { return (int64_t(18) << 20) / width; }  // above 32 MB of traffic in both types

  Tensor random(const Shape& shape, DType dtype, uint64_t key) {
    const Tensor x = empty(*device_, {shape, dtype});
    fill_normal_(x, key);
    return x;
  }
  // Rows [begin, end) of y are those of `part`.
  static void expect_rows(const Tensor& y, const Tensor& part, int64_t begin, int64_t end, const char* name) {
    ASSERT_EQ(part.shape()[0], end - begin);
    const int64_t row = y.spec().bytes() / y.shape()[0];
    ASSERT_EQ(std::memcmp(static_cast<const std::byte*>(y.raw()) + begin * row, part.raw(), size_t((end - begin) * row)), 0)
        << name << " of " << name_of(y.dtype()) << " " << to_string(y.shape()) << ", rows from " << begin;
  }
  static Tensor part(const Tensor& x, int64_t begin, int64_t end) { return contiguous(slice(x, 0, begin, end)); }
};

TEST_F(LargePlaces, RowsAreThoseOfFewOfThem) {
  for (const DType dtype : kTypes)
    for (const int64_t width : kWidths) {
      const int64_t rows = rows_of(width);
      const Tensor x = random({rows, width}, dtype, 1), other = random({rows, width}, dtype, 2);
      const Tensor sums = cumsum(x, -1), back = cumsum(x, -1, true, true), low = tril(x, 5), high = triu(x, -900);
      std::vector<int32_t> ids(static_cast<size_t>(rows));
      for (int64_t i = 0; i < rows; ++i) ids[size_t(i)] = int32_t(i % 5 == 3 ? 7 : i * 7919 % rows);  // many meet in row 7
      const Tensor index = from_values<int32_t>(*device_, {rows}, ids);
      const Tensor chosen = embedding(x, index), selected = index_select(x, 0, index);
      const Tensor added = index_add(x, 0, index, other);
      for (const int64_t begin : {int64_t(0), rows - 8}) {
        const int64_t end = begin + 8;
        expect_rows(sums, cumsum(part(x, begin, end), -1), begin, end, "cumsum");
        expect_rows(back, cumsum(part(x, begin, end), -1, true, true), begin, end, "cumsum backwards");
        expect_rows(low, tril(part(x, begin, end), 5 + begin), begin, end, "tril");
        expect_rows(high, triu(part(x, begin, end), -900 + begin), begin, end, "triu");
        expect_rows(chosen, embedding(x, part(index, begin, end)), begin, end, "embedding");
        expect_rows(selected, index_select(x, 0, part(index, begin, end)), begin, end, "index_select");
        const Tensor shifted = sub(index, full(*device_, {Shape{}, DType::i32}, double(begin)));
        expect_rows(added, index_add(part(x, begin, end), 0, shifted, other), begin, end, "index_add");
      }
    }
}

TEST_F(LargePlaces, TransposesOfTransposesAreTheSame) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64, DType::u8})
    for (const int64_t width : {4096, 4104}) {
      const int64_t rows = rows_of(width) + 32 - rows_of(width) % 32 + (width == 4104 ? 5 : 0);
      const Tensor x =
          dtype == DType::u8 ? cast(affine(random({rows, width}, DType::f32, 3), 30, 100), dtype) : random({rows, width}, dtype, 3);
      const Tensor turned = contiguous(transpose(x)), again = contiguous(transpose(turned));
      expect_rows(again, x, 0, rows, "transposed twice");
      for (const int64_t at : {int64_t(0), width / 2, width - 1})
        expect_rows(turned, contiguous(transpose(slice(x, 1, at, at + 1))), at, at + 1, "transposed");
    }
}
}  // namespace
}  // namespace reckon
