// Layer and rms norm against a double reference, over shapes, dtypes, layouts, instruction sets and thread counts.
#include "reckon/backend/cpu/norm.h"
#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
struct Case {
  Norm kind;
  DType dtype;
  int64_t rows, cols;
  bool weighted = true;
  std::string name() const {
    return std::string(kind == Norm::layer ? "layer " : "rms ") + to_string(dtype) + " " + std::to_string(rows) + "x" +
           std::to_string(cols);
  }
};

struct Result {
  Buffer y, mean, r, dx, dw, db;
};

struct Inputs {
  Buffer x, w, b, dy;
};

Inputs inputs(const Case& c) {
  return {uniform(c.dtype, c.rows * c.cols, 1, -1, 3), uniform(c.dtype, c.cols, 2, 0.5, 1.5), uniform(c.dtype, c.cols, 3),
          uniform(c.dtype, c.rows * c.cols, 4)};
}

DType sums_dtype(DType dtype) { return statistics_dtype(dtype); }

Result run(const Case& c, const Inputs& in, bool accumulate = false) {
  const DType stat = statistics_dtype(c.dtype);
  Result out{Buffer(c.dtype, c.rows * c.cols),
             Buffer(stat, c.rows),
             Buffer(stat, c.rows),
             Buffer(c.dtype, c.rows * c.cols),
             Buffer(sums_dtype(c.dtype), c.cols, 7),
             Buffer(sums_dtype(c.dtype), c.cols, 7)};
  NormForward f{.kind = c.kind, .dtype = c.dtype, .w_dtype = c.dtype, .rows = c.rows, .cols = c.cols, .eps = 1e-5};
  f.x = in.x.data(), f.y = out.y.data(), f.x_rows = f.y_rows = {c.cols};
  if (c.weighted) f.w = in.w.data(), f.b = in.b.data();
  if (c.kind == Norm::layer) f.mean = out.mean.data();
  f.r = out.r.data();
  norm_forward(f);
  std::vector<double> workspace(size_t(norm_backward_workspace(c.dtype, c.rows, c.cols) / 8 + 1));
  NormBackward g{.kind = c.kind, .dtype = c.dtype, .w_dtype = c.dtype, .dw_dtype = sums_dtype(c.dtype), .rows = c.rows, .cols = c.cols};
  g.dy = in.dy.data(), g.x = in.x.data(), g.mean = f.mean, g.r = f.r, g.w = f.w;
  g.dx = out.dx.data(), g.dw = out.dw.data(), g.db = out.db.data();
  g.dy_rows = g.x_rows = g.dx_rows = {c.cols};
  g.accumulate = accumulate;
  g.workspace = workspace.data();
  norm_backward(g);
  return out;
}

struct Reference {
  std::vector<double> y, mean, r, dx, dw, db;
};

Reference reference(const Case& c, const Inputs& in) {
  Reference ref;
  ref.y.resize(size_t(c.rows * c.cols)), ref.dx = ref.y, ref.mean.resize(size_t(c.rows)), ref.r = ref.mean, ref.dw.resize(size_t(c.cols)),
                                         ref.db = ref.dw;
  const double n = double(c.cols);
  for (int64_t i = 0; i < c.rows; ++i) {
    const auto x = [&](int64_t j) { return in.x[i * c.cols + j]; };
    const auto dy = [&](int64_t j) { return in.dy[i * c.cols + j]; };
    const auto w = [&](int64_t j) { return c.weighted ? in.w[j] : 1.0; };
    double mean = 0, square = 0, sum_g = 0, sum_gx = 0;
    for (int64_t j = 0; j < c.cols && c.kind == Norm::layer; ++j) mean += x(j) / n;
    for (int64_t j = 0; j < c.cols; ++j) square += (x(j) - mean) * (x(j) - mean) / n;
    const double r = 1 / std::sqrt(square + 1e-5);
    for (int64_t j = 0; j < c.cols; ++j) sum_g += dy(j) * w(j), sum_gx += dy(j) * w(j) * (x(j) - mean) * r;
    if (c.kind == Norm::rms) sum_g = 0;
    for (int64_t j = 0; j < c.cols; ++j) {
      const double xhat = (x(j) - mean) * r;
      ref.y[size_t(i * c.cols + j)] = xhat * w(j) + (c.weighted ? in.b[j] : 0);
      ref.dx[size_t(i * c.cols + j)] = r * (dy(j) * w(j) - sum_g / n - xhat * sum_gx / n);
      ref.dw[size_t(j)] += dy(j) * xhat;
      ref.db[size_t(j)] += dy(j);
    }
    ref.mean[size_t(i)] = mean, ref.r[size_t(i)] = r;
  }
  return ref;
}

void check(const Case& c, const Result& got, const Reference& want) {
  // x is within [-1, 3]. A sum of cols terms of one sign, added one by one, is off by up to about eps sqrt(cols) of itself; this is the
  // error of mean and r, and 4 r times it that of xhat, before the factors w <= 1.5 and dy <= 1.
  const double eps = epsilon(sums_dtype(c.dtype)) * (8 + std::sqrt(double(c.cols))) / 8;
  double r = 1;
  for (const double v : want.r) r = std::max(r, v);
  const double xhat = 4 * r, error = 8 * eps * xhat;
  expect_near(got.y, want.y, 3 * error, "y");
  if (c.kind == Norm::layer) expect_near(got.mean, want.mean, 8 * eps, "mean");
  expect_near(got.r, want.r, 8 * eps * r * r * r, "r");
  // The cancellation in dx is between terms of size r |g| xhat^2.
  expect_near(got.dx, want.dx, 16 * eps * r * xhat * xhat, "dx");
  // A sum of `rows` terms: each add rounds the running value, itself a random walk; the terms of dw carry `error` besides.
  const double walk = std::sqrt(double(c.rows) + 1);
  expect_near(got.dw, want.dw, walk * (error + eps * std::max(walk * xhat, max_abs(want.dw))), "dw");
  expect_near(got.db, want.db, walk * eps * std::max(walk, max_abs(want.db)), "db");
}

TEST(RowsNorm, MatchesReference) {
  on_every_target([] {
    for (const Norm kind : {Norm::layer, Norm::rms})
      for (const DType dtype : kFloats)
        for (const auto& [rows, cols] :
             {std::pair<int64_t, int64_t>{0, 5}, {1, 1}, {3, 7}, {5, 64}, {33, 65}, {40, 768}, {4, 2049}, {1, 8192}, {2100, 16}}) {
          for (const bool weighted : {true, false}) {
            if (!weighted && cols > 64) continue;
            const Case c{kind, dtype, rows, cols, weighted};
            SCOPED_TRACE(c.name());
            const Inputs in = inputs(c);
            check(c, run(c, in), reference(c, in));
          }
        }
  });
}

TEST(RowsNorm, SameBytesOnAnyThreads) {
  for (const Norm kind : {Norm::layer, Norm::rms})
    for (const DType dtype : kFloats) {
      const Case c{kind, dtype, 517, 97};
      const Inputs in = inputs(c);
      expect_same_on_any_threads([&] {
        Result out = run(c, in);
        return std::vector<Buffer>{out.y, out.mean, out.r, out.dx, out.dw, out.db};
      });
    }
}

TEST(RowsNorm, AccumulatesWeightGradients) {
  const Case c{Norm::layer, DType::f32, 40, 33};
  const Inputs in = inputs(c);
  Result once = run(c, in), added = run(c, in, true);
  for (int64_t j = 0; j < c.cols; ++j) {
    EXPECT_NEAR(added.dw[j], once.dw[j] + 7, 1e-5);
    EXPECT_NEAR(added.db[j], once.db[j] + 7, 1e-5);
  }
}

// Heads inside packed rows give the bytes of the same rows laid out densely, in place too; what lies between them is untouched.
TEST(RowsNorm, HeadsInsidePackedRows) {
  constexpr int64_t kTokens = 9, kHeads = 3, kDim = 20, kPacked = 100, kOffset = 40;
  for (const DType dtype : kFloats) {
    const Case c{Norm::rms, dtype, kTokens * kHeads, kDim};
    const Inputs in = inputs(c);
    const Result dense = run(c, in);
    Buffer packed(dtype, kTokens * kPacked, 0.25), dpacked(dtype, kTokens * kPacked, 0.25);
    const RowLayout layout{kPacked, kHeads, kDim};
    for (int64_t row = 0; row < c.rows; ++row)
      for (int64_t j = 0; j < kDim; ++j) packed.set(kOffset + layout.at(row) + j, in.x[row * kDim + j]);
    char* x = static_cast<char*>(packed.data()) + kOffset * size_of(dtype);
    char* dx = static_cast<char*>(dpacked.data()) + kOffset * size_of(dtype);
    Buffer r(statistics_dtype(dtype), c.rows), dw(statistics_dtype(dtype), kDim);
    NormForward f{.kind = Norm::rms, .dtype = dtype, .w_dtype = dtype, .rows = c.rows, .cols = kDim, .eps = 1e-5};
    f.x = x, f.x_rows = layout, f.w = in.w.data(), f.b = in.b.data(), f.r = r.data();
    Buffer y(dtype, c.rows * kDim);
    f.y = y.data(), f.y_rows = {kDim};
    norm_forward(f);
    EXPECT_TRUE(y.same_bytes(dense.y));
    std::vector<double> workspace(size_t(norm_backward_workspace(dtype, c.rows, kDim) / 8 + 1));
    NormBackward g{.kind = Norm::rms, .dtype = dtype, .w_dtype = dtype, .dw_dtype = statistics_dtype(dtype), .rows = c.rows, .cols = kDim};
    g.dy = in.dy.data(), g.dy_rows = {kDim}, g.x = x, g.x_rows = layout, g.w = in.w.data(), g.r = r.data();
    g.dx = dx, g.dx_rows = layout, g.dw = dw.data(), g.workspace = workspace.data();
    norm_backward(g);
    EXPECT_TRUE(dw.same_bytes(dense.dw));
    f.y = x, f.y_rows = layout;  // in place
    norm_forward(f);
    int64_t covered = 0;
    for (int64_t row = 0; row < c.rows; ++row)
      for (int64_t j = 0; j < kDim; ++j, ++covered) {
        ASSERT_EQ(packed[kOffset + layout.at(row) + j], dense.y[row * kDim + j]);
        ASSERT_EQ(dpacked[kOffset + layout.at(row) + j], dense.dx[row * kDim + j]);
        packed.set(kOffset + layout.at(row) + j, 0.25), dpacked.set(kOffset + layout.at(row) + j, 0.25);
      }
    for (int64_t i = 0; i < packed.size(); ++i) ASSERT_TRUE(packed[i] == 0.25 && dpacked[i] == 0.25) << i;
  }
}

TEST(RowsNorm, DxMayOverwriteDyOrX) {
  for (const DType dtype : kFloats) {
    const Case c{Norm::layer, dtype, 11, 2500};
    const Inputs in = inputs(c);
    const Result apart = run(c, in);
    for (const bool over_dy : {true, false}) {
      Inputs copy = in;
      NormBackward g{.kind = c.kind, .dtype = dtype, .w_dtype = dtype, .rows = c.rows, .cols = c.cols};
      g.dy = copy.dy.data(), g.x = copy.x.data(), g.w = copy.w.data(), g.mean = apart.mean.data(), g.r = apart.r.data();
      g.dx = over_dy ? copy.dy.data() : copy.x.data();
      g.dy_rows = g.x_rows = g.dx_rows = {c.cols};
      norm_backward(g);
      EXPECT_TRUE((over_dy ? copy.dy : copy.x).same_bytes(apart.dx));
    }
  }
}

TEST(RowsNorm, WorkspaceIsMonotone) {
  for (int64_t rows = 0; rows < 5000; rows += 7) {
    EXPECT_LE(norm_backward_workspace(DType::f32, rows, 64), norm_backward_workspace(DType::f32, rows + 7, 64));
    EXPECT_LE(slices_of(rows).count, slice_bound(rows));
  }
}
}  // namespace
}  // namespace reckon::cpu
