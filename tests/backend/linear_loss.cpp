// The head and its loss without the logits, against products and losses in double, and against the pair of operations that it replaces:
// every dtype, one tile and many, options, reductions; the same bits on any threads; scratch that is a tile and no more.
#include "reckon/backend/cpu/linear_loss.h"

#include "reckon/backend/cpu/gemm.h"
#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
struct Size {
  int64_t rows, width, classes;
};
// 256 rows and 4096 classes are a tile, 512 rows at most one of the step.
const Size kSizes[] = {{1, 1, 1}, {7, 5, 3}, {0, 4, 6}, {300, 24, 33}, {19, 8, 4100}, {530, 9, 40}, {260, 3, 4100}};

struct Scratch {
  explicit Scratch(int64_t bytes) : data(std::aligned_alloc(64, size_t((bytes + 127) / 64 * 64))) {}
  ~Scratch() { std::free(data); }
  Scratch(const Scratch&) = delete;
  void* data;
};

struct Problem {
  DType dtype;
  Size size;
  LossTerms terms;
  bool per_row;
  Buffer x, w, seed;
  std::vector<int32_t> targets;

  Problem(DType t, const Size& s, const LossTerms& l = {}, bool each = false)
      : dtype(t),
        size(s),
        terms(l),
        per_row(each),
        x(uniform(t, s.rows * s.width, 1, -2, 2)),
        w(uniform(t, s.classes * s.width, 2)),
        seed(uniform(stat(), each ? s.rows : 1, 3, 0.5, 1)) {
    for (int64_t i = 0; i < s.rows; ++i)
      targets.push_back(i % 5 == 3 ? l.ignore_index : int32_t(philox(7, 0, uint64_t(i))[0] % uint64_t(s.classes)));
  }
  DType stat() const { return statistics_dtype(dtype); }
  LinearLoss head(void* workspace, int lanes) const {
    return {dtype, size.rows, size.width, size.classes, x.data(), w.data(), targets.data(), terms, workspace, lanes};
  }
};

struct Result {
  Buffer losses, mean, dx, dw;
  explicit Result(const Problem& p)
      : losses(p.stat(), p.size.rows),
        mean(p.stat(), 1),
        dx(p.dtype, p.size.rows * p.size.width),
        dw(p.stat(), p.size.classes * p.size.width, 0.5) {}
  HeadGradients gradients(bool accumulate) { return {dx.data(), dw.data(), dw.dtype(), accumulate}; }
};

Result forward_and_back(const Problem& p, bool accumulate, int lanes = 2) {
  const Size& s = p.size;
  Result r(p);
  Buffer lse(p.stat(), s.rows), count(p.stat(), 1);
  const Scratch a(linear_loss_workspace(p.dtype, s.rows, s.width, s.classes, lanes));
  linear_loss(p.head(a.data, lanes), {.losses = r.losses.data(), .lse = lse.data(), .mean = r.mean.data(), .count = count.data()});
  const Scratch b(linear_loss_back_workspace(p.dtype, s.rows, s.width, s.classes, r.dw.dtype(), lanes));
  linear_loss_back(p.head(b.data, lanes), {p.seed.data(), p.per_row ? nullptr : count.data(), p.per_row}, lse.data(),
                   r.gradients(accumulate));
  return r;
}

Result step(const Problem& p, bool accumulate, int lanes = 2) {
  const Size& s = p.size;
  Result r(p);
  r.dx = p.x;  // over x, as the trainer does
  const Scratch a(linear_loss_step_workspace(p.dtype, s.rows, s.width, s.classes, r.dw.dtype(), lanes));
  LinearLoss head = p.head(a.data, lanes);
  head.x = r.dx.data();
  linear_loss_step(head, {.losses = r.losses.data(), .mean = p.per_row ? nullptr : r.mean.data()}, {p.seed.data(), nullptr, p.per_row},
                   r.gradients(accumulate));
  return r;
}

// The operations that it replaces.
Result pair(const Problem& p, bool accumulate) {
  const Size& s = p.size;
  Result r(p);
  const GemmShape forward{.m = s.rows, .n = s.classes, .k = s.width, .a = p.dtype, .b = p.dtype, .c = p.dtype, .trans_b = true};
  const GemmShape dx{.m = s.rows, .n = s.width, .k = s.classes, .a = p.dtype, .b = p.dtype, .c = p.dtype};
  const GemmShape dw{
      .m = s.classes, .n = s.width, .k = s.rows, .a = p.dtype, .b = p.dtype, .c = r.dw.dtype(), .trans_a = true, .accumulate = accumulate};
  const Scratch scratch(std::max({gemm_workspace(forward, 2), gemm_workspace(dx, 2), gemm_workspace(dw, 2)}));
  Buffer logits(p.dtype, s.rows * s.classes), lse(p.stat(), s.rows), count(p.stat(), 1);
  gemm(forward, p.x.data(), p.w.data(), logits.data(), nullptr, scratch.data, 2);
  CrossEntropy f{
      .dtype = p.dtype, .rows = s.rows, .classes = s.classes, .logits = logits.data(), .targets = p.targets.data(), .terms = p.terms};
  f.loss = r.losses.data(), f.lse = lse.data(), f.mean = r.mean.data(), f.count = count.data();
  cross_entropy(f);
  CrossEntropyBack b{
      .dtype = p.dtype, .rows = s.rows, .classes = s.classes, .logits = logits.data(), .targets = p.targets.data(), .terms = p.terms};
  b.lse = lse.data(), b.scale = p.seed.data(), b.count = p.per_row ? nullptr : count.data(), b.per_row = p.per_row,
  b.dlogits = logits.data();
  cross_entropy_back(b);
  gemm(dw, logits.data(), p.x.data(), r.dw.data(), nullptr, scratch.data, 2);
  gemm(dx, logits.data(), p.w.data(), r.dx.data(), nullptr, scratch.data, 2);
  return r;
}

// In double from the definition.
struct Truth {
  std::vector<double> losses, dx, dw, dx_terms, dw_terms;  // terms: the magnitudes that are summed
  double mean = 0, largest_logit = 0;
};
Truth truth(const Problem& p, double dw_before) {
  const auto [rows, K, V] = p.size;
  const double s = p.terms.label_smoothing, z = p.terms.z_loss, count = double(count_targets(p.targets.data(), rows, p.terms));
  Truth t{{},
          std::vector<double>(size_t(rows * K)),
          std::vector<double>(size_t(V * K), dw_before),
          std::vector<double>(size_t(rows * K)),
          std::vector<double>(size_t(V * K), dw_before)};
  const std::vector<double> x = values(p.x), w = values(p.w);
  for (int64_t i = 0; i < rows; ++i) {
    std::vector<double> logits(static_cast<size_t>(V));
    double exps = 0, sum = 0;
    for (int64_t j = 0; j < V; ++j) {
      for (int64_t c = 0; c < K; ++c) logits[size_t(j)] += x[size_t(i * K + c)] * w[size_t(j * K + c)];
      exps += std::exp(logits[size_t(j)]);
      sum += logits[size_t(j)];
      t.largest_logit = std::max(t.largest_logit, std::abs(logits[size_t(j)]));
    }
    const int32_t target = p.targets[size_t(i)];
    const bool kept = target != p.terms.ignore_index;
    const double lse = std::log(exps);
    t.losses.push_back(kept ? lse - (1 - s) * logits[size_t(target)] - s * sum / double(V) + z * lse * lse : 0);
    t.mean += t.losses.back() / count;
    const double factor = p.per_row ? p.seed[i] : p.seed[0] / count;
    for (int64_t j = 0; kept && j < V; ++j) {
      const double g = factor * (std::exp(logits[size_t(j)] - lse) * (1 + 2 * z * lse) - (j == target ? 1 - s : 0) - s / double(V));
      // what of it rounds: p and the target's share apart
      const double size = factor * (std::exp(logits[size_t(j)] - lse) * (1 + 2 * z * lse) + (j == target ? 1 - s : 0) + s / double(V));
      for (int64_t c = 0; c < K; ++c) {
        t.dx[size_t(i * K + c)] += g * w[size_t(j * K + c)];
        t.dw[size_t(j * K + c)] += g * x[size_t(i * K + c)];
        t.dx_terms[size_t(i * K + c)] += size * std::abs(w[size_t(j * K + c)]);
        t.dw_terms[size_t(j * K + c)] += size * std::abs(x[size_t(i * K + c)]);
      }
    }
  }
  return t;
}

void expect_close(const Buffer& got, const std::vector<double>& want, const std::vector<double>& terms, double share, const char* what,
                  double least = 0) {
  ASSERT_EQ(got.size(), int64_t(want.size()));
  for (int64_t i = 0; i < got.size(); ++i)
    ASSERT_LE(std::abs(got[i] - want[size_t(i)]), share * terms[size_t(i)] + epsilon(got.dtype()) * std::abs(want[size_t(i)]) + least)
        << what << ", element " << i << ": got " << got[i] << ", want " << want[size_t(i)];
}

void compare(const Problem& p, const Truth& t, const Result& got) {
  // A logit is a sum of K products, rounded once to the dtype: an absolute error of the exponent, so a relative one of each probability.
  // Gradients are rounded to the dtype, too, and sums of them over classes or rows in the type of statistics.
  const double stat = epsilon(p.stat()), logit = t.largest_logit * (epsilon(p.dtype) / 2 + stat * std::sqrt(double(p.size.width)));
  const double z = 1 + 2 * p.terms.z_loss * (t.largest_logit + 10);
  const double share = 3 * logit + epsilon(p.dtype) / 2 + stat * (8 + t.largest_logit + std::sqrt(double(p.size.rows + p.size.classes)));
  const double loss = z * (2 * logit + stat * (8 + 2 * t.largest_logit + std::sqrt(double(p.size.classes))));
  expect_near(got.losses, t.losses, loss, "loss");
  if (!p.per_row && p.size.rows > 0) expect_near(got.mean, {t.mean}, loss, "mean");
  // Gradients of float16 below its normal numbers round to multiples of 2^-24, and factors are at most 1 (w) and 2 (x).
  const double least = p.dtype == DType::f16 ? 0x1p-25 : 0;
  expect_close(got.dx, t.dx, t.dx_terms, share, "dx", least * double(p.size.classes + 1));
  expect_close(got.dw, t.dw, t.dw_terms, share, "dw", least * 2 * double(p.size.rows));
}

TEST(LinearLoss, IsWhatTheDefinitionSays) {
  for (const DType dtype : kFloats)
    for (const Size& size : kSizes)
      for (const bool plain : {true, false}) {
        SCOPED_TRACE(to_string(dtype) + " " + std::to_string(size.rows) + "x" + std::to_string(size.width) + "x" +
                     std::to_string(size.classes));
        const Problem p(dtype, size, plain ? LossTerms{} : LossTerms{0.2, 0.01}, !plain);
        const Truth t = truth(p, plain ? 0 : 0.5);
        compare(p, t, forward_and_back(p, !plain));
        compare(p, t, step(p, !plain));
      }
}

// The loss has the bits of the pair, and so have the gradients that are not summed over tiles; the others differ by the order of sums.
TEST(LinearLoss, IsThePair) {
  for (const DType dtype : kFloats)
    for (const Size& size : {Size{200, 16, 33}, {1100, 16, 50}, {48, 8, 4608}}) {
      SCOPED_TRACE(to_string(dtype) + " " + std::to_string(size.rows) + " rows of " + std::to_string(size.classes));
      const Problem p(dtype, size, {0.1, 0.001});
      const Result one = pair(p, true), made = forward_and_back(p, true), at_once = step(p, true);
      for (const Result* r : {&made, &at_once}) EXPECT_TRUE(r->losses.same_bytes(one.losses) && r->mean.same_bytes(one.mean));
      EXPECT_TRUE(at_once.dx.same_bytes(one.dx));
      if (size.classes <= kTileColumns) {
        EXPECT_TRUE(made.dx.same_bytes(one.dx));
      }
      const Truth t = truth(p, 0.5);
      for (const Result* r : {&made, &at_once}) {
        const double sums = epsilon(p.stat()) * std::sqrt(double(size.rows + size.classes));
        expect_close(r->dw, values(one.dw), t.dw_terms, sums, "dw");
        expect_close(r->dx, values(one.dx), t.dx_terms, sums, "dx");
      }
    }
}

TEST(LinearLoss, FrozenParts) {
  const Problem p(DType::f32, {300, 24, 33});
  const Result whole = step(p, false);
  for (const bool only_dx : {false, true}) {
    Result r(p);
    const Scratch a(linear_loss_step_workspace(p.dtype, 300, 24, 33, DType::f32, 2));
    HeadGradients g = r.gradients(false);
    (only_dx ? g.dw : g.dx) = nullptr;
    linear_loss_step(p.head(a.data, 2), {.mean = r.mean.data()}, {p.seed.data()}, g);
    EXPECT_TRUE(r.mean.same_bytes(whole.mean));
    EXPECT_TRUE(only_dx ? r.dx.same_bytes(whole.dx) : r.dw.same_bytes(whole.dw));
  }
}

TEST(LinearLoss, SameBytesOnAnyThreadsAndLanes) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Size& size : {Size{1100, 16, 100}, {40, 8, 4608}}) {
      const Problem p(dtype, size, {0.1, 0.001});
      expect_same_on_any_threads([&] {
        Result a = forward_and_back(p, true), b = step(p, true);
        return std::vector<Buffer>{a.losses, a.mean, a.dx, a.dw, b.losses, b.mean, b.dx, b.dw};
      });
      const Result two = step(p, true), five = step(p, true, 5);
      EXPECT_TRUE(two.dx.same_bytes(five.dx) && two.dw.same_bytes(five.dw) && two.mean.same_bytes(five.mean));
    }
}

// The scratch of a product, a tile, and at most 1 MiB.
TEST(LinearLoss, ScratchIsATile) {
  constexpr int64_t kMiB = 1 << 20;
  for (const DType dtype : kFloats)
    for (const int64_t rows : {1, 100, 256, 257, 4096, 100000})
      for (const int64_t width : {128, 768, 1024})
        for (const int64_t classes : {256, 4096, 4097, 50304, 151936}) {
          const DType stat = statistics_dtype(dtype);
          const int64_t m = std::min(rows, kTileRows), n = std::min(classes, kTileColumns), tile = m * n * size_of(dtype);
          int64_t product = 0;
          for (const GemmShape& s :
               {GemmShape{.m = m, .n = n, .k = width, .a = dtype, .b = dtype, .c = dtype, .trans_b = true},
                GemmShape{.m = m, .n = width, .k = n, .a = dtype, .b = dtype, .c = dtype},
                GemmShape{.m = n, .n = width, .k = m, .a = dtype, .b = dtype, .c = stat, .trans_a = true, .accumulate = true}})
            product = std::max(product, gemm_workspace(s, 2));
          EXPECT_LE(linear_loss_workspace(dtype, rows, width, classes, 2), product + tile + kMiB);
          EXPECT_LE(linear_loss_back_workspace(dtype, rows, width, classes, stat, 2), product + tile + kMiB);
          // The step's tile has whole rows: 64 MiB, or 128 rows of a vocabulary so large that they take more.
          const int64_t most = std::max(kStepTileBytes, kLeastStepRows * classes * size_of(dtype)),
                        step_rows = linear_loss_step_rows(dtype, rows, classes);
          EXPECT_LE(linear_loss_step_workspace(dtype, rows, width, classes, stat, 2),
                    product + 2 * kMiB + std::min(most, rows * classes * size_of(dtype)));
          EXPECT_LE(step_rows * classes * size_of(dtype), most);
          EXPECT_GE(step_rows, std::min(rows, kLeastStepRows / 2));
        }
}

TEST(LinearLoss, ScratchIsMonotoneInEveryExtent) {
  const std::vector<int64_t> rows = {0, 1, 15, 16, 127, 128, 129, 255, 256, 257, 400, 511, 512, 513, 1000, 5000}, widths = {1, 64, 770},
                             classes = {1, 100, 2048, 4096, 4097, 30000, 32768, 32769, 65536, 65537, 100000, 131072, 131073, 200000};
  for (const DType dtype : kFloats) {
    const auto bytes = [&](int64_t m, int64_t k, int64_t v) {
      const DType stat = statistics_dtype(dtype);
      return std::array{linear_loss_workspace(dtype, m, k, v, 2), linear_loss_back_workspace(dtype, m, k, v, stat, 2),
                        linear_loss_step_workspace(dtype, m, k, v, stat, 2)};
    };
    for (size_t i = 0; i < rows.size(); ++i)
      for (size_t j = 0; j < widths.size(); ++j)
        for (size_t k = 0; k < classes.size(); ++k) {
          const auto here = bytes(rows[i], widths[j], classes[k]);
          const auto expect_more = [&](const std::array<int64_t, 3>& more) {
            for (size_t f = 0; f < 3; ++f)
              EXPECT_GE(more[f], here[f]) << "function " << f << " at " << rows[i] << " " << widths[j] << " " << classes[k];
          };
          if (i + 1 < rows.size()) expect_more(bytes(rows[i + 1], widths[j], classes[k]));
          if (j + 1 < widths.size()) expect_more(bytes(rows[i], widths[j + 1], classes[k]));
          if (k + 1 < classes.size()) expect_more(bytes(rows[i], widths[j], classes[k + 1]));
        }
  }
}
}  // namespace
}  // namespace reckon::cpu
