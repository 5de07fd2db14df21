// The first elements of lines in order, against a stable sort: where they are searched by vectors and where they are not.
#include "reckon/backend/cpu/order.h"

#include <numeric>

#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
constexpr double kInf = std::numeric_limits<double>::infinity(), kNaN = std::numeric_limits<double>::quiet_NaN();

std::vector<int64_t> positions_of(const Buffer& x, int64_t from, int64_t step, int64_t n, bool descending, bool nan_first) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  const auto before = [&](int64_t a, int64_t b) {
    const double u = x[from + a * step], v = x[from + b * step];
    const bool nan_u = std::isnan(u), nan_v = std::isnan(v);
    if (nan_u || nan_v) return nan_u != nan_v && (descending || nan_first ? nan_u : nan_v);
    return descending ? u > v : u < v;
  };
  std::stable_sort(order.begin(), order.end(), before);
  return order;
}

// Lines [lines, n] of x, elements `step` apart.
void expect_order(const Buffer& x, int64_t lines, int64_t n, int64_t step) {
  for (const bool descending : {false, true})
    for (const bool nan_first : {false, true}) {
      std::vector<std::vector<int64_t>> want;
      for (int64_t line = 0; line < lines; ++line) want.push_back(positions_of(x, line * n * step, step, n, descending, nan_first));
      for (const int64_t k : {1, 2, 8, 31, 32, 33}) {
        if (k > n) continue;
        Buffer values(x.dtype(), lines * k), indices(DType::i64, lines * k);
        const int64_t strides[] = {n * step, step};
        Order args{x.dtype(), {lines, n}, 1, descending, nan_first, k, {x.data(), strides}};
        args.values = values.data(), args.indices = indices.as<int64_t>();
        std::vector<uint8_t> workspace(size_t(order_workspace(n, k, 2)) + 1);
        order(args, order_workspace(n, k, 2) ? workspace.data() : nullptr, 2);
        for (int64_t i = 0; i < lines * k; ++i)
          ASSERT_EQ(int64_t(indices[i]), want[size_t(i / k)][size_t(i % k)])
              << name_of(x.dtype()) << " n " << n << " k " << k << " line " << i / k << " place " << i % k
              << (descending ? " descending" : "") << (nan_first ? " nan first" : "");
      }
    }
}

// Lines: random; few different values; all equal; rising; falling; with infinities; with one NaN, late; with many.
Buffer lines_of(DType dtype, int64_t n, int64_t step) {
  Buffer x(dtype, 8 * n * step);
  for (int64_t line = 0; line < 8; ++line)
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t draw = philox(9, uint64_t(line), uint64_t(i))[0];
      const bool floats = is_float(dtype);
      const double random = floats ? double(draw) * 0x1p-31 - 1 : double(draw % 100), few = double(draw % 5) - (floats ? 2 : 0);
      const double values[] = {random,
                               few == 0 && draw % 2 ? -0.0 : few,
                               3,
                               double(i % 120),
                               double(120 - i % 120),
                               floats && draw % 7 == 0 ? (draw % 2 ? kInf : -kInf) : random,
                               floats && i == n - 1 ? kNaN : random,
                               floats && draw % 3 == 0 ? kNaN : few};
      x.set((line * n + i) * step, values[line]);
    }
  return x;
}

TEST(RowsOrder, FindsTheFirstOfAStableSort) {
  on_every_target([] {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::f64, DType::i32, DType::u8})
      for (const int64_t n : {1, 3, 33, 64, 257, 1000, 1024, 2100})
        for (const int64_t step : {1, 2}) {
          if (step == 2 && n > 300) continue;
          expect_order(lines_of(dtype, n, step), 8, n, step);
        }
  });
}

// Beyond the part of a line that is read twice, and with candidates that do not fit their list.
TEST(RowsOrder, FindsThemInLongLines) {
  on_every_target([] {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      const int64_t n = 20003;
      expect_order(lines_of(dtype, n, 1), 8, n, 1);
      Buffer late(dtype, 2 * n);  // the extremes at the very end; and everything in few values
      for (int64_t i = 0; i < n; ++i) late.set(i, double(i) / double(n)), late.set(n + i, double(i % 3));
      late.set(n - 1, 1e4), late.set(n - 2, -1e4);
      expect_order(late, 2, n, 1);
    }
  });
}
}  // namespace
}  // namespace reckon::cpu
