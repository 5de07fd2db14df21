// Softmax and log-softmax, forward and backward, against a double reference.
#include <limits>

#include "reckon/backend/cpu/softmax.h"
#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
struct Result {
  Buffer y, dx;
};

Result run(bool log, const Buffer& x, const Buffer& dy, int64_t rows, int64_t cols) {
  Result r{Buffer(x.dtype(), x.size()), Buffer(x.dtype(), x.size())};
  softmax(log, x.dtype(), x.data(), r.y.data(), rows, cols);
  softmax_back(log, x.dtype(), dy.data(), r.y.data(), r.dx.data(), rows, cols);
  return r;
}

TEST(RowsSoftmax, MatchesReference) {
  on_every_target([] {
    for (const bool log : {false, true})
      for (const DType dtype : kFloats)
        for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{0, 4}, {1, 1}, {3, 7}, {300, 65}, {4, 5000}}) {
          SCOPED_TRACE(to_string(dtype) + " " + std::to_string(rows) + "x" + std::to_string(cols) + (log ? " log" : ""));
          const Buffer x = uniform(dtype, rows * cols, 3, -10, 10), dy = uniform(dtype, rows * cols, 4);
          const Result got = run(log, x, dy, rows, cols);
          std::vector<double> y, dx;
          double most_dx = 1;
          for (int64_t i = 0; i < rows; ++i) {
            long double total = 0, sum = 0;
            for (int64_t j = 0; j < cols; ++j) total += std::exp(static_cast<long double>(x[i * cols + j]));
            for (int64_t j = 0; j < cols; ++j) {
              const long double p = std::exp(static_cast<long double>(x[i * cols + j])) / total;
              y.push_back(double(log ? std::log(p) : p));
              sum += dy[i * cols + j] * (log ? 1 : got.y[i * cols + j]);  // backward starts from the rounded y
            }
            most_dx = std::max(most_dx, std::abs(double(sum)));
            for (int64_t j = 0; j < cols; ++j) {
              const double v = got.y[i * cols + j], d = dy[i * cols + j];
              dx.push_back(double(log ? d - std::exp(v) * sum : v * (d - sum)));
            }
          }
          const double eps = epsilon(statistics_dtype(dtype)), walk = dtype == DType::f64 ? std::sqrt(double(cols)) : 8;
          // log: x, the maximum and the logarithm are of size 20; else every y is at most 1 and its error relative.
          expect_near(got.y, y, log ? 20 * 4 * eps + walk * eps : walk * eps, "y");
          expect_near(got.dx, dx, walk * eps * most_dx * 4, "dx");
        }
  });
}

TEST(RowsSoftmax, SumsToOneAndKeepsOrderFarFromZero) {
  on_every_target([] {
    for (const double shift : {-1e4, 0.0, 1e4}) {
      const Buffer x = uniform(DType::f32, 3000, 3, shift - 5, shift + 5);
      Buffer y(DType::f32, 3000);
      softmax(false, DType::f32, x.data(), y.data(), 1, 3000);
      double sum = 0;
      for (const double p : values(y)) sum += p;
      EXPECT_NEAR(sum, 1, 1e-6);
    }
  });
}

TEST(RowsSoftmax, MaskedAndBrokenRows) {
  const double inf = std::numeric_limits<double>::infinity();
  on_every_target([&] {
    for (const DType dtype : kFloats) {
      Buffer x(dtype, 3 * 3000, 0), y(dtype, 3 * 3000);
      for (int64_t j = 0; j < 3000; ++j) {
        if (j < 2990) x.set(j, -inf);
        x.set(3000 + j, -inf);
      }
      x.set(6000 + 2500, std::nan(""));
      softmax(false, dtype, x.data(), y.data(), 3, 3000);
      EXPECT_EQ(y[0], 0);
      EXPECT_NEAR(y[2995], 0.1, 0.1 * epsilon(dtype));
      EXPECT_TRUE(std::isnan(y[3000]) && std::isnan(y[5999]) && std::isnan(y[6000]));
    }
  });
}

TEST(RowsSoftmax, InPlaceAndAnyThreads) {
  for (const bool log : {false, true})
    for (const DType dtype : kFloats) {
      constexpr int64_t kRows = 77, kCols = 2500;
      const Buffer x = uniform(dtype, kRows * kCols, 3, -10, 10), dy = uniform(dtype, kRows * kCols, 4);
      const Result apart = run(log, x, dy, kRows, kCols);
      expect_same_on_any_threads([&] {
        Buffer y = x, over_dy = dy, over_y = apart.y;
        softmax(log, dtype, y.data(), y.data(), kRows, kCols);
        softmax_back(log, dtype, over_dy.data(), y.data(), over_dy.data(), kRows, kCols);
        softmax_back(log, dtype, dy.data(), over_y.data(), over_y.data(), kRows, kCols);
        EXPECT_TRUE(y.same_bytes(apart.y) && over_dy.same_bytes(apart.dx) && over_y.same_bytes(apart.dx));
        return std::vector<Buffer>{y, over_dy, over_y};
      });
    }
}
}  // namespace
}  // namespace reckon::cpu
