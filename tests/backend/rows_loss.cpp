// Cross entropy against a double reference: shapes, dtypes, options, tiles, ignored and invalid targets, in place, threads.
#include <limits>

#include "reckon/backend/cpu/loss.h"
#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
struct Result {
  Buffer loss, lse, mean, count, dlogits;
};

Result run(const Buffer& logits, const std::vector<int32_t>& targets, bool in_place = false) {
  const DType dtype = logits.dtype(), stat = statistics_dtype(dtype);
  const int64_t rows = int64_t(targets.size()), classes = rows ? logits.size() / rows : 0;
  Result out{Buffer(stat, rows), Buffer(stat, rows), Buffer(stat, 1), Buffer(stat, 1), in_place ? logits : Buffer(dtype, logits.size())};
  CrossEntropy f{.dtype = dtype, .rows = rows, .classes = classes, .logits = logits.data(), .targets = targets.data()};
  f.loss = out.loss.data(), f.lse = out.lse.data(), f.mean = out.mean.data(), f.count = out.count.data();
  cross_entropy(f);
  Buffer scale(stat, 1, 0.75);
  CrossEntropyBack b{.dtype = dtype, .rows = rows, .classes = classes, .targets = targets.data(), .lse = out.lse.data()};
  b.logits = in_place ? out.dlogits.data() : logits.data();
  b.scale = scale.data(), b.count = out.count.data(), b.dlogits = out.dlogits.data();
  cross_entropy_back(b);
  return out;
}

std::vector<int32_t> some_targets(int64_t rows, int64_t classes) {
  std::vector<int32_t> t;
  for (int64_t i = 0; i < rows; ++i) t.push_back(i % 5 == 3 ? kIgnoreIndex : int32_t(philox(11, 0, uint64_t(i))[0] % uint64_t(classes)));
  return t;
}

void compare(const Buffer& logits, const std::vector<int32_t>& targets, const Result& got) {
  const int64_t rows = int64_t(targets.size()), classes = logits.size() / rows;
  const double eps = epsilon(statistics_dtype(logits.dtype()));
  std::vector<double> loss, lse, grad;
  double sum = 0, count = 0;
  for (const int32_t t : targets) count += t != kIgnoreIndex;
  for (int64_t i = 0; i < rows; ++i) {
    double most = -std::numeric_limits<double>::infinity();
    long double total = 0;
    for (int64_t j = 0; j < classes; ++j) most = std::max(most, logits[i * classes + j]);
    for (int64_t j = 0; j < classes; ++j) total += std::exp(logits[i * classes + j] - most);
    lse.push_back(most + double(std::log(total)));
    const bool kept = targets[size_t(i)] != kIgnoreIndex;
    loss.push_back(kept ? lse.back() - logits[i * classes + targets[size_t(i)]] : 0);
    sum += loss.back();
    for (int64_t j = 0; j < classes; ++j)
      grad.push_back(kept ? (std::exp(logits[i * classes + j] - lse.back()) - (j == targets[size_t(i)])) * 0.75 / count : 0);
  }
  // A sum of positive terms, in vectors of f32 (one by one for f64), and its log; lse and loss round once more at their own size.
  const double largest = 1 + max_abs(lse) + max_abs(values(logits)), walk = logits.dtype() == DType::f64 ? std::sqrt(double(classes)) : 4;
  expect_near(got.lse, lse, eps * (walk + largest), "lse");
  expect_near(got.loss, loss, eps * (walk + 2 * largest), "loss");
  expect_near(got.mean, {sum / count}, eps * (walk + 2 * largest), "mean");
  EXPECT_EQ(got.count[0], count);
  // exp turns the absolute error of x - lse into a relative one; the largest gradient is 0.75 / count.
  expect_near(got.dlogits, grad, 0.75 / count * eps * (walk + 2 * largest) + 1e-37, "dlogits");
}

TEST(RowsLoss, MatchesReference) {
  on_every_target([] {
    for (const DType dtype : kFloats)
      for (const auto& [rows, classes] : {std::pair<int64_t, int64_t>{1, 1}, {2, 5}, {40, 256}, {7, 2049}, {33, 100}, {2, 50257}}) {
        SCOPED_TRACE(to_string(dtype) + " " + std::to_string(rows) + "x" + std::to_string(classes));
        const Buffer logits = uniform(dtype, rows * classes, 5, -8, 12);
        const auto targets = some_targets(rows, classes);
        compare(logits, targets, run(logits, targets));
      }
  });
}

TEST(RowsLoss, NoRows) {
  const Result r = run(Buffer(DType::f32, 0), {});
  EXPECT_TRUE(std::isnan(r.mean[0]));
  EXPECT_EQ(r.count[0], 0);
}

TEST(RowsLoss, InPlaceIsTheSame) {
  for (const DType dtype : kFloats) {
    const Buffer logits = uniform(dtype, 3 * 20000, 5, -8, 12);
    const auto targets = some_targets(3, 20000);
    EXPECT_TRUE(run(logits, targets, true).dlogits.same_bytes(run(logits, targets).dlogits));
  }
}

TEST(RowsLoss, SameBytesOnAnyThreads) {
  for (const DType dtype : kFloats) {
    const Buffer logits = uniform(dtype, 37 * 40000, 5, -8, 12);
    const auto targets = some_targets(37, 40000);
    expect_same_on_any_threads([&] {
      Result r = run(logits, targets);
      return std::vector<Buffer>{r.loss, r.lse, r.mean, r.count, r.dlogits};
    });
  }
}

TEST(RowsLoss, InvalidTargetIsNaNAndStaysInBounds) {
  on_every_target([] {
    for (const DType dtype : kFloats) {
      const Buffer logits = uniform(dtype, 3 * 9, 5);
      for (const int32_t bad : {-1, 9, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()}) {
        const Result r = run(logits, {2, bad, kIgnoreIndex});
        EXPECT_TRUE(std::isfinite(r.loss[0]) && std::isnan(r.loss[1]) && r.loss[2] == 0 && std::isnan(r.mean[0]));
        EXPECT_EQ(r.count[0], 2);
        for (int64_t j = 0; j < 9; ++j) EXPECT_TRUE(std::isfinite(r.dlogits[j]) && std::isnan(r.dlogits[9 + j]) && r.dlogits[18 + j] == 0);
      }
    }
  });
}

// Logits far from 0, rows with -inf (masked classes), and NaN or +inf, which must reach the loss.
TEST(RowsLoss, ExtremeLogits) {
  const double inf = std::numeric_limits<double>::infinity();
  on_every_target([&] {
    for (const DType dtype : kFloats) {
      Buffer logits = uniform(dtype, 4 * 3000, 5);
      for (int64_t j = 0; j < 3000; ++j) logits.set(j, j < 2900 ? -inf : 30000.0), logits.set(3000 + j, -30000.0 + double(j % 2));
      logits.set(6000 + 17, std::nan(""));
      logits.set(9000 + 2500, inf);
      const Result r = run(logits, {2999, 5, 0, 0});
      EXPECT_NEAR(r.loss[0], std::log(100), 0.005);
      EXPECT_EQ(r.dlogits[0], 0);
      EXPECT_TRUE(std::isfinite(r.loss[1]) && std::isnan(r.loss[2]) && !std::isfinite(r.loss[3]));
    }
  });
}

// With every option, tile by tile, against the definition; and the tiles' losses have the bits of whole rows.
TEST(RowsLoss, OptionsInTiles) {
  on_every_target([] {
    for (const DType dtype : kFloats)
      for (const int64_t classes : {3, 100, 2048, 5000})
        for (const LossTerms terms : {LossTerms{0.1, 0}, LossTerms{0, 0.01}, LossTerms{0.3, 0.01, 2}}) {
          SCOPED_TRACE(to_string(dtype) + " " + std::to_string(classes));
          const int64_t rows = 5;
          const DType stat = statistics_dtype(dtype);
          const Buffer logits = uniform(dtype, rows * classes, 5, -8, 12);
          const std::vector<int32_t> targets = {1, int32_t(classes) - 1, terms.ignore_index, 0, 2};
          Buffer loss(stat, rows), lse(stat, rows), sum(stat, 1), count(stat, 1);
          CrossEntropy f{
              .dtype = dtype, .rows = rows, .classes = classes, .logits = logits.data(), .targets = targets.data(), .terms = terms};
          f.loss = loss.data(), f.lse = lse.data(), f.sum = sum.data(), f.count = count.data();
          cross_entropy(f);
          std::vector<double> want, gradient;
          double total = 0;
          for (int64_t i = 0; i < rows; ++i) {
            long double exps = 0, logit_sum = 0;
            for (int64_t j = 0; j < classes; ++j) exps += std::exp(logits[i * classes + j]), logit_sum += logits[i * classes + j];
            const double s = terms.label_smoothing, z = terms.z_loss, l = double(std::log(exps)), factor = 0.5 + double(i);
            const bool kept = targets[size_t(i)] != terms.ignore_index;
            want.push_back(
                kept ? l - (1 - s) * logits[i * classes + targets[size_t(i)]] - s * double(logit_sum) / double(classes) + z * l * l : 0);
            total += want.back();
            for (int64_t j = 0; j < classes; ++j) {
              const double p = std::exp(logits[i * classes + j] - l) * (1 + 2 * z * l);
              gradient.push_back(kept ? factor * (p - (j == targets[size_t(i)] ? 1 - s : 0) - s / double(classes)) : 0);
            }
          }
          const double walk = dtype == DType::f64 ? std::sqrt(double(classes)) : 4, tolerance = epsilon(stat) * (walk + 4 * 20);
          expect_near(loss, want, tolerance, "loss");
          expect_near(sum, {total}, double(rows) * tolerance, "sum");
          EXPECT_EQ(count[0], double(std::count_if(targets.begin(), targets.end(), [&](int32_t t) { return t != terms.ignore_index; })));

          Buffer scale(stat, rows), tiled_loss(stat, rows), tiled_lse(stat, rows);
          for (int64_t i = 0; i < rows; ++i) scale.set(i, 0.5 + double(i));
          std::vector<RowSums> sums(rows);
          double tiled_sum = 0;
          for (const bool backward : {false, true})
            for (int64_t first = 0; first < classes; first += kLogitColumns) {
              LogitTile tile{dtype, rows, std::min(kLogitColumns, classes - first), first, classes};
              Buffer part(dtype, rows * tile.cols);
              for (int64_t i = 0; i < part.size(); ++i) part.set(i, logits[i / tile.cols * classes + first + i % tile.cols]);
              tile.logits = part.data(), tile.targets = targets.data(), tile.terms = terms;
              if (!backward) {
                add_logits(tile, sums.data());
                if (first + tile.cols == classes) finish_losses(tile, sums.data(), tiled_loss.data(), tiled_lse.data(), tiled_sum);
                continue;
              }
              logits_to_gradient(tile, tiled_lse.data(), {0, scale.data()});
              std::vector<double> here;
              for (int64_t i = 0; i < part.size(); ++i) here.push_back(gradient[size_t(i / tile.cols * classes + first + i % tile.cols)]);
              expect_near(part, here, 5 * tolerance, "gradient");
            }
          EXPECT_TRUE(tiled_loss.same_bytes(loss) && tiled_lse.same_bytes(lse));
          EXPECT_EQ(float(tiled_sum), float(sum[0]));
        }
  });
}

TEST(RowsLoss, PerRowScale) {
  for (const DType dtype : kFloats) {
    const DType stat = statistics_dtype(dtype);
    const Buffer logits = uniform(dtype, 2 * 6, 5);
    const std::vector<int32_t> targets = {1, 4};
    const Result mean = run(logits, targets);
    Buffer scale(stat, 2, 0.375), dlogits(dtype, 12);
    CrossEntropyBack b{.dtype = dtype, .rows = 2, .classes = 6, .logits = logits.data(), .targets = targets.data(), .lse = mean.lse.data()};
    b.scale = scale.data(), b.per_row = true, b.dlogits = dlogits.data();
    cross_entropy_back(b);
    EXPECT_TRUE(dlogits.same_bytes(mean.dlogits));
  }
}
}  // namespace
}  // namespace reckon::cpu
