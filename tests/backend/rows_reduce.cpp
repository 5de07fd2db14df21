// Reductions over any axes and strides against an index-by-index sum in long double; column sums; norms; threads.
#include "reckon/backend/cpu/rows_reduce.h"

#include <limits>

#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
struct Case {
  Shape shape;
  std::vector<int64_t> strides;  // empty: dense
  uint32_t axes;
};

const Case kCases[] = {
    {{}, {}, 0},
    {{7}, {}, 1},
    {{7}, {}, 0},
    {{0, 3}, {}, 1},
    {{3, 0}, {}, 1},
    {{5, 33}, {}, 2},
    {{5, 33}, {}, 1},
    {{5, 33}, {}, 3},
    {{5, 33}, {1, 5}, 2},
    {{5, 33}, {1, 5}, 1},
    {{5, 33}, {0, 1}, 1},
    {{2, 3, 4, 5}, {}, 0b0101},
    {{2, 3, 4, 5}, {}, 0b1010},
    {{2, 3, 4, 5}, {1, 40, 2, 8}, 0b0110},
    {{1, 6, 1, 9}, {}, 0b0011},
    {{90, 1100}, {}, 1},
    {{90, 1100}, {}, 2},
    {{20000}, {}, 1},
    {{20000}, {3}, 1},
    {{300, 250}, {}, 3},
    {{9000, 3}, {}, 1},
    {{3, 9000}, {}, 2},
    {{3000, 40}, {}, 2},
};

std::vector<int64_t> strides_of(const Case& c) {
  std::vector<int64_t> strides(c.strides);
  if (strides.empty()) strides.resize(size_t(c.shape.rank())), dense_strides(c.shape, strides.data());
  return strides;
}

struct Reference {
  std::vector<long double> sum;
  std::vector<double> most;
  int64_t count = 1;  // elements of one output
};

Reference reference(const Case& c, const Buffer& x) {
  int64_t outputs = 1, count = 1;
  for (int axis = 0; axis < c.shape.rank(); ++axis) (c.axes >> axis & 1 ? count : outputs) *= c.shape[axis];
  Reference ref{std::vector<long double>(size_t(outputs), 0),
                std::vector<double>(size_t(outputs), -std::numeric_limits<double>::infinity()), count};
  const auto strides = strides_of(c);
  for (int64_t i = 0; i < c.shape.numel(); ++i) {
    int64_t at = 0, out = 0, step = 1, rest = i;
    for (int axis = c.shape.rank() - 1; axis >= 0; --axis) {
      const int64_t index = rest % c.shape[axis];
      rest /= c.shape[axis];
      at += index * strides[size_t(axis)];
      if ((c.axes >> axis & 1) == 0) out += index * step, step *= c.shape[axis];
    }
    ref.sum[size_t(out)] += x[at];
    double& most = ref.most[size_t(out)];
    if (!std::isnan(most)) most = std::isnan(x[at]) ? x[at] : std::max(most, x[at]);
  }
  return ref;
}

Buffer run(Reduce op, const Case& c, const Buffer& x, DType out_dtype, size_t outputs) {
  Buffer out(out_dtype, int64_t(outputs));
  const auto strides = strides_of(c);
  std::vector<double> workspace(size_t(reduce_workspace(c.shape, c.axes) / 8));
  reduce(op, x.dtype(), c.shape, {x.data(), strides.data()}, c.axes, out_dtype, out.data(), workspace.data());
  return out;
}

TEST(RowsReduce, MatchesReference) {
  on_every_target([] {
    for (const Case& c : kCases)
      for (const DType dtype : kFloats) {
        SCOPED_TRACE(to_string(dtype) + to_string(c.shape) + " over axes " + std::to_string(c.axes));
        int64_t span = 1;
        const auto strides = strides_of(c);
        for (int axis = 0; axis < c.shape.rank(); ++axis) span += std::max<int64_t>(c.shape[axis] - 1, 0) * strides[size_t(axis)];
        const Buffer x = uniform(dtype, span, 4);
        const Reference ref = reference(c, x);
        // f32 within runs of at most 128 adds, each rounding a running value up to the root of 128; double beyond. f64 adds one by one.
        const double eps = epsilon(statistics_dtype(dtype)), n = double(ref.count), walk = dtype == DType::f64 ? n : std::sqrt(128 * n);
        std::vector<double> sum, mean;
        for (const long double s : ref.sum) sum.push_back(double(s)), mean.push_back(ref.count ? double(s) / n : std::nan(""));
        expect_near(run(Reduce::sum, c, x, statistics_dtype(dtype), sum.size()), sum, eps * walk, "sum");
        expect_near(run(Reduce::sum, c, x, dtype, sum.size()), sum, eps * walk, "sum in the input's type");
        expect_near(run(Reduce::mean, c, x, dtype, sum.size()), mean, eps * walk / std::max(n, 1.0), "mean");
        expect_near(run(Reduce::max, c, x, dtype, sum.size()), ref.most, 0, "max");
      }
  });
}

TEST(RowsReduce, MaximumKeepsNaN) {
  on_every_target([] {
    for (const DType dtype : kFloats)
      for (const Case& c :
           {Case{{40, 50}, {}, 1}, Case{{40, 50}, {}, 2}, Case{{40, 50}, {}, 3}, Case{{40, 50}, {1, 40}, 2}, Case{{200, 100}, {}, 3}})
        for (const int64_t at : {0, 17, 1999}) {
          Buffer x = uniform(dtype, c.shape.numel(), 4);
          x.set(at, std::nan(""));
          const Reference ref = reference(c, x);
          expect_near(run(Reduce::max, c, x, dtype, ref.most.size()), ref.most, 0, "max");
        }
  });
}

TEST(RowsReduce, SameBytesOnAnyThreads) {
  for (const DType dtype : kFloats) {
    const Buffer x = uniform(dtype, 200000, 4);
    expect_same_on_any_threads([&] {
      std::vector<Buffer> out;
      for (const Case& c : {Case{{200000}, {}, 1}, Case{{400, 500}, {}, 1}, Case{{400, 500}, {}, 2}, Case{{500, 400}, {1, 500}, 2},
                            Case{{100000, 2}, {}, 1}})
        out.push_back(run(Reduce::sum, c, x, DType::f64, reference(c, x).sum.size()));
      Buffer columns(DType::f32, 100), norm(DType::f64, 1), bad(DType::i64, 1);
      std::vector<double> workspace(size_t(column_sums_workspace(dtype, 2000, 100) / 8 + flat_reduce_workspace(x.size()) / 8));
      column_sums(dtype, x.data(), 2000, 100, 100, DType::f32, columns.data(), false, workspace.data());
      sum_of_squares(dtype, x.data(), x.size(), norm.as<double>(), workspace.data());
      count_nonfinite(dtype, x.data(), x.size(), bad.as<int64_t>(), workspace.data());
      out.push_back(columns), out.push_back(norm), out.push_back(bad);
      return out;
    });
  }
}

TEST(RowsReduce, ColumnSums) {
  on_every_target([] {
    for (const DType dtype : kFloats)
      for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{0, 3}, {1, 1}, {31, 7}, {33, 130}, {2500, 65}, {5, 5000}})
        for (const bool accumulate : {false, true}) {
          const int64_t stride = cols + 4;
          const DType stat = statistics_dtype(dtype);
          const Buffer x = uniform(dtype, rows * stride, 4);
          Buffer out(stat, cols, 2);
          std::vector<double> workspace(size_t(column_sums_workspace(dtype, rows, cols) / 8 + 1)), want(size_t(cols), accumulate ? 2 : 0);
          column_sums(dtype, x.data(), rows, cols, stride, stat, out.data(), accumulate, workspace.data());
          for (int64_t i = 0; i < rows; ++i)
            for (int64_t c = 0; c < cols; ++c) want[size_t(c)] += x[i * stride + c];
          const double walk = std::sqrt(double(rows));
          expect_near(out, want, walk * epsilon(stat) * std::max(walk, max_abs(want)), "column sums");
        }
  });
}

TEST(RowsReduce, SumOfSquaresAndNonFinite) {
  on_every_target([] {
    for (const DType dtype : kFloats)
      for (const int64_t n : {0, 1, 31, 5000, 100001}) {
        Buffer x = uniform(dtype, n, 4);
        double got = -1;
        int64_t bad = -1;
        long double want = 0;
        for (int64_t i = 0; i < n; ++i) want += static_cast<long double>(x[i]) * x[i];
        std::vector<double> workspace(size_t(flat_reduce_workspace(n) / 8));
        sum_of_squares(dtype, x.data(), n, &got, workspace.data());
        EXPECT_NEAR(got, double(want), double(want) * 0x1p-53 * (4 + std::sqrt(double(n))));
        count_nonfinite(dtype, x.data(), n, &bad, workspace.data());
        EXPECT_EQ(bad, 0);
        if (n < 31) continue;
        x.set(0, std::nan("")), x.set(17, std::numeric_limits<double>::infinity()), x.set(n - 1, -std::numeric_limits<double>::infinity());
        count_nonfinite(dtype, x.data(), n, &bad, workspace.data());
        EXPECT_EQ(bad, 3);
        sum_of_squares(dtype, x.data(), n, &got, workspace.data());
        EXPECT_TRUE(std::isnan(got));
      }
  });
}

// Squares that overflow or vanish in float32 still count.
TEST(RowsReduce, SumOfSquaresHasTheRangeOfDouble) {
  Buffer x(DType::f32, 100, 1e30);
  double got = 0, workspace[1];
  sum_of_squares(DType::f32, x.data(), 100, &got, workspace);
  EXPECT_NEAR(got / 1e62, 1, 1e-6);
  for (int64_t i = 0; i < 100; ++i) x.set(i, 1e-30);
  sum_of_squares(DType::f32, x.data(), 100, &got, workspace);
  EXPECT_NEAR(got / 1e-58, 1, 1e-6);
}

TEST(RowsReduce, WorkspaceIsMonotone) {
  for (int64_t a = 0; a < 30000; a += 613)
    for (int64_t b = 0; b < 5000; b += 411)
      for (const uint32_t axes : {0u, 1u, 2u, 3u}) {
        EXPECT_LE(reduce_workspace({a, b}, axes), reduce_workspace({a + 613, b}, axes));
        EXPECT_LE(reduce_workspace({a, b}, axes), reduce_workspace({a, b + 411}, axes));
      }
}
}  // namespace
}  // namespace reckon::cpu
