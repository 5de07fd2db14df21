// Optimizer steps against a scalar double run, the bf16 planes against the float32 run bit by bit, skipping, clipping, threads.
#include <limits>

#include "reckon/backend/cpu/optimizer.h"
#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
const Optimizer kKinds[] = {Optimizer::adamw,    Optimizer::sgd,     Optimizer::momentum,         Optimizer::adagrad,
                            Optimizer::nesterov, Optimizer::rmsprop, Optimizer::rmsprop_momentum, Optimizer::rmsprop_centered,
                            Optimizer::rmsprop_centered_momentum};
bool is_centered(Optimizer kind) { return kind == Optimizer::rmsprop_centered || kind == Optimizer::rmsprop_centered_momentum; }
bool is_rmsprop(Optimizer kind) { return kind == Optimizer::rmsprop || kind == Optimizer::rmsprop_momentum || is_centered(kind); }
constexpr double kDecay = 0.1;

std::vector<double> scalars(int step) {
  std::vector<double> s(kStepScalars);
  s[kLearningRate] = 0.01 / step, s[kBeta1] = 0.9, s[kBeta2] = 0.95, s[kEpsilon] = 1e-8;
  s[kBiasFactor1] = 1 - std::pow(0.9, step), s[kBiasFactor2] = 1 - std::pow(0.95, step);
  s[kClip] = 0.5, s[kOk] = 1, s[kLossScale] = 1;
  return s;
}

struct State {
  Buffer p, residual, m, v, mean;
  Buffer master = Buffer(DType::f32, 0);
};

Buffer gradient(DType dtype, int64_t n, int step) { return uniform(statistics_dtype(dtype), n, 100 + uint64_t(step)); }

void run_step(Optimizer kind, State& s, const Buffer& g, const std::vector<double>& scalars, bool coupled = false) {
  OptimizerStep a{.kind = kind, .dtype = s.p.dtype(), .n = s.p.size(), .p = s.p.data(), .g = g.data(), .m = s.m.data(), .v = s.v.data()};
  if (s.p.dtype() == DType::bf16) a.residual = s.residual.as<uint16_t>();
  if (s.p.dtype() == DType::f16) a.master = s.master.as<float>();
  if (is_centered(kind)) a.mean = s.mean.data();
  a.weight_decay = kDecay, a.coupled = coupled, a.scalars = scalars.data();
  optimizer_step(a);
}

State start(DType dtype, int64_t n) {
  const Buffer master = uniform(DType::f32, n, 9);
  State s{Buffer(dtype, n), Buffer(DType::bf16, n), Buffer(statistics_dtype(dtype), n), Buffer(statistics_dtype(dtype), n), Buffer(statistics_dtype(dtype), n)};
  for (int64_t i = 0; i < n; ++i) s.p.set(i, master[i]);
  Buffer copy = master;
  if (dtype == DType::bf16) split_master(copy.as<float>(), s.p.data(), s.residual.as<uint16_t>(), n);
  if (dtype == DType::f16) s.master = master;
  return s;
}

TEST(RowsOptimizer, MatchesDoubleRun) {
  on_every_target([] {
    for (const Optimizer kind : kKinds)
      for (const DType dtype : {DType::f32, DType::f64})
        for (const int64_t n : {0, 1, 15, 33, 20000}) {
          const bool coupled = n % 2 == 1;
          State s = start(dtype, n);
          std::vector<double> p = values(s.p), m(size_t(n), 0), v(size_t(n), 0), mean(size_t(n), 0);
          double largest = 0;
          for (int step = 1; step <= 5; ++step) {
            const Buffer g = gradient(dtype, n, step);
            const auto sc = scalars(step);
            run_step(kind, s, g, sc, coupled);
            for (size_t i = 0; i < size_t(n); ++i) {
              const double lr = sc[kLearningRate], grad = g[int64_t(i)] * 0.5 + (coupled ? kDecay * p[i] : 0);
              if (!coupled) p[i] *= 1 - lr * kDecay;
              if (kind == Optimizer::adamw) {
                m[i] += 0.1 * (grad - m[i]), v[i] += 0.05 * (grad * grad - v[i]);
                p[i] -= lr * (m[i] / sc[kBiasFactor1]) / (std::sqrt(v[i] / sc[kBiasFactor2]) + 1e-8);
              } else if (kind == Optimizer::sgd) {
                p[i] -= lr * grad;
              } else if (kind == Optimizer::momentum) {
                m[i] = 0.9 * m[i] + grad, p[i] -= lr * m[i];
              } else if (kind == Optimizer::nesterov) {
                m[i] = 0.9 * m[i] + grad, p[i] -= lr * (grad + 0.9 * m[i]);
              } else if (is_rmsprop(kind)) {
                v[i] = 0.95 * v[i] + 0.05 * grad * grad;
                if (is_centered(kind)) mean[i] = 0.95 * mean[i] + 0.05 * grad;
                const double quotient = grad / (std::sqrt(v[i] - mean[i] * mean[i]) + 1e-8);
                const bool has_velocity = kind == Optimizer::rmsprop_momentum || kind == Optimizer::rmsprop_centered_momentum;
                if (has_velocity) m[i] = 0.9 * m[i] + quotient;
                p[i] -= lr * (has_velocity ? m[i] : quotient);
              } else {
                v[i] += grad * grad, p[i] -= lr * grad / (std::sqrt(v[i]) + 1e-8);
              }
              largest = std::max(largest, std::abs(m[i]));
            }
          }
          // Five steps of a few roundings each, of values of size 1, but for velocities.
          const double eps = epsilon(dtype);
          expect_near(s.p, p, 5 * 4 * std::max(1.0, 0.03 * largest) * eps, "p");
          expect_near(s.m, m, 5 * 4 * std::max(2.5, 2 * largest) * eps, "m");
          expect_near(s.v, v, 5 * 4 * eps, "v");
          expect_near(s.mean, mean, 5 * 4 * eps, "mean");
        }
  });
}

TEST(RowsOptimizer, HalvesAreTheFloatRunBitByBit) {
  on_every_target([] {
    for (const Optimizer kind : kKinds)
      for (const int64_t n : {1, 31, 17003}) {
        State whole = start(DType::f32, n), halves = start(DType::bf16, n);
        Buffer joined(DType::f32, n);
        for (int step = 1; step <= 4; ++step) {
          const Buffer g = gradient(DType::f32, n, step);
          run_step(kind, whole, g, scalars(step));
          run_step(kind, halves, g, scalars(step));
        }
        join_master(halves.p.data(), halves.residual.as<uint16_t>(), joined.as<float>(), n);
        EXPECT_TRUE(joined.same_bytes(whole.p) && halves.m.same_bytes(whole.m) && halves.v.same_bytes(whole.v) && halves.mean.same_bytes(whole.mean));
        for (int64_t i = 0; i < n; ++i) ASSERT_LE(std::abs(halves.p[i] - joined[i]), std::abs(joined[i]) * 0x1p-8);
      }
  });
}

TEST(RowsOptimizer, MastersOfFloat16AreTheFloatRunBitByBit) {
  on_every_target([] {
    for (const Optimizer kind : kKinds)
      for (const int64_t n : {0, 1, 31, 17003}) {
        State whole = start(DType::f32, n), copied = start(DType::f16, n);
        for (int step = 1; step <= 4; ++step) {
          const Buffer g = gradient(DType::f32, n, step);
          run_step(kind, whole, g, scalars(step));
          run_step(kind, copied, g, scalars(step));
        }
        EXPECT_TRUE(copied.master.same_bytes(whole.p) && copied.m.same_bytes(whole.m) && copied.v.same_bytes(whole.v) && copied.mean.same_bytes(whole.mean));
        for (int64_t i = 0; i < n; ++i) ASSERT_EQ(copied.p[i], double(float(float16(float(whole.p[i]))))) << i;
      }
  });
}

TEST(RowsOptimizer, SplitAndJoinAreInverse) {
  Buffer master(DType::f32, 1 << 18), p(DType::bf16, 1 << 18), residual(DType::bf16, 1 << 18), joined(DType::f32, 1 << 18);
  for (int64_t i = 0; i < master.size(); ++i) master.as<uint32_t>()[i] = uint32_t(i << 14) + uint32_t(i * 2654435761u % 16384u);
  split_master(master.as<float>(), p.data(), residual.as<uint16_t>(), master.size());
  join_master(p.data(), residual.as<uint16_t>(), joined.as<float>(), master.size());
  EXPECT_TRUE(joined.same_bytes(master));
}

TEST(RowsOptimizer, SkipsWhenNotOk) {
  for (const Optimizer kind : kKinds)
    for (const DType dtype : kFloats) {
      State s = start(dtype, 100);
      const State before = s;
      Buffer g = gradient(dtype, 100, 1);
      g.set(3, std::nan(""));
      auto sc = scalars(1);
      sc[kOk] = 0;
      run_step(kind, s, g, sc);
      EXPECT_TRUE(s.p.same_bytes(before.p) && s.residual.same_bytes(before.residual) && s.m.same_bytes(before.m) &&
                  s.v.same_bytes(before.v) && s.mean.same_bytes(before.mean) && s.master.same_bytes(before.master));
    }
}

// What a group's factor does to the learning rate is what another learning rate does; decoupled decay follows it.
TEST(RowsOptimizer, AFactorIsAnotherLearningRate) {
  for (const Optimizer kind : kKinds)
    for (const DType dtype : kFloats) {
      State scaled = start(dtype, 1001), plain = start(dtype, 1001);
      const Buffer g = gradient(dtype, 1001, 1);
      auto sc = scalars(1);
      OptimizerStep a{.kind = kind, .dtype = dtype, .n = 1001, .p = scaled.p.data(), .g = g.data(), .m = scaled.m.data(), .v = scaled.v.data()};
      if (dtype == DType::bf16) a.residual = scaled.residual.as<uint16_t>();
      if (dtype == DType::f16) a.master = scaled.master.as<float>();
      if (is_centered(kind)) a.mean = scaled.mean.data();
      a.weight_decay = kDecay, a.lr_scale = 0.25, a.scalars = sc.data();
      optimizer_step(a);
      auto quarter = sc;
      quarter[kLearningRate] *= 0.25;
      run_step(kind, plain, g, quarter);
      EXPECT_TRUE(scaled.p.same_bytes(plain.p) && scaled.residual.same_bytes(plain.residual) && scaled.m.same_bytes(plain.m) && scaled.master.same_bytes(plain.master));
    }
}

// A variance is never below 0, whatever rounding makes of it: gradients that do not change have none.
TEST(RowsOptimizer, AVarianceOfNothingIsZero) {
  for (const Optimizer kind : {Optimizer::rmsprop_centered, Optimizer::rmsprop_centered_momentum})
    for (const DType dtype : kFloats) {
      State s = start(dtype, 77);
      Buffer g(statistics_dtype(dtype), 77, 0.3);
      auto sc = scalars(1);
      sc[kEpsilon] = 1e-3;
      for (int step = 0; step < 2000; ++step) run_step(kind, s, g, sc);
      for (int64_t i = 0; i < 77; ++i) ASSERT_TRUE(std::isfinite(s.p[i])) << name_of(dtype);
    }
}

// Where an element lies, in a whole vector, a rest or another task, is nothing to its step.
TEST(RowsOptimizer, AnElementDoesNotSeeItsPlace) {
  on_every_target([] {
    for (const Optimizer kind : kKinds)
      for (const DType dtype : kFloats)
        for (const bool coupled : {false, true}) {
          const int64_t n = 16421;
          const auto reversed = [](const Buffer& b) {
            Buffer back = b;
            const size_t size = size_t(size_of(b.dtype()));
            for (int64_t i = 0; i < b.size(); ++i)
              std::memcpy(back.as<char>() + size_t(i) * size, static_cast<const char*>(b.data()) + size_t(b.size() - 1 - i) * size, size);
            return back;
          };
          State forward = start(dtype, n);
          State backward{reversed(forward.p), reversed(forward.residual), forward.m, forward.v, forward.mean, reversed(forward.master)};
          for (int step = 1; step <= 2; ++step) {
            const Buffer g = gradient(dtype, n, step);
            run_step(kind, forward, g, scalars(step), coupled);
            run_step(kind, backward, reversed(g), scalars(step), coupled);
          }
          EXPECT_TRUE(forward.p.same_bytes(reversed(backward.p)) && forward.residual.same_bytes(reversed(backward.residual)) &&
                      forward.m.same_bytes(reversed(backward.m)) && forward.v.same_bytes(reversed(backward.v)) &&
                      forward.mean.same_bytes(reversed(backward.mean)) && forward.master.same_bytes(reversed(backward.master)))
              << int(kind) << " " << name_of(dtype);
        }
  });
}

TEST(RowsOptimizer, SameBytesOnAnyThreads) {
  for (const Optimizer kind : kKinds)
    for (const DType dtype : kFloats) {
      const Buffer g = gradient(dtype, 100003, 1);
      expect_same_on_any_threads([&] {
        State s = start(dtype, g.size());
        run_step(kind, s, g, scalars(1));
        return std::vector<Buffer>{s.p, s.residual, s.m, s.v, s.mean, s.master};
      });
    }
}

TEST(RowsOptimizer, ClipCoefficient) {
  const double inf = std::numeric_limits<double>::infinity();
  const float loss = 2, bad = std::nanf("");
  auto s = scalars(1);
  const double squares[] = {9, 16, 0};
  s[kMaxNorm] = 1;
  clip_coefficient(squares, 3, DType::f32, &loss, s.data());
  EXPECT_EQ(s[kGradNorm], 5);
  EXPECT_DOUBLE_EQ(s[kClip], 1 / (5 + 1e-6));
  EXPECT_EQ(s[kOk], 1);
  s[kMaxNorm] = 6;
  clip_coefficient(squares, 3, DType::f32, &bad, s.data());
  EXPECT_EQ(s[kClip], 1);
  EXPECT_EQ(s[kOk], 0);
  s[kMaxNorm] = 0, s[kLossScale] = 4;
  clip_coefficient(squares, 3, DType::f32, nullptr, s.data());
  EXPECT_EQ(s[kGradNorm], 1.25);
  EXPECT_EQ(s[kClip], 0.25);
  EXPECT_EQ(s[kOk], 1);
  clip_coefficient(&inf, 1, DType::f32, &loss, s.data());
  EXPECT_EQ(s[kOk], 0);
  EXPECT_EQ(s[kLossScale], 4) << "without an interval the scale is static";
  EXPECT_EQ(s[kGoodSteps], 0);
}

// Steps of +: finite gradients, -: infinite ones, !: a loss that is not a number.
TEST(RowsOptimizer, LossScaleFollowsTheSteps) {
  struct Course {
    const char* steps;
    double start, end, good;
  };
  for (const Course& c :
       {Course{"+", 8, 8, 1}, Course{"++", 8, 8, 2}, Course{"+++", 8, 16, 0}, Course{"+++++++", 8, 32, 1}, Course{"++-", 8, 4, 0},
        Course{"++-++", 8, 4, 2}, Course{"++!+++", 8, 8, 0}, Course{"----", 8, 1, 0}, Course{"-----", 8, 1, 0}, Course{"-", 1.5, 1, 0}}) {
    SCOPED_TRACE(c.steps);
    auto s = scalars(1);
    s[kLossScale] = c.start, s[kGrowthInterval] = 3, s[kMaxNorm] = 0;
    for (const char* step = c.steps; *step; ++step) {
      const double before = s[kLossScale], squares = *step == '-' ? std::numeric_limits<double>::infinity() : before * before * 9;
      const float loss = *step == '!' ? std::nanf("") : 2;
      clip_coefficient(&squares, 1, DType::f32, &loss, s.data());
      EXPECT_EQ(s[kOk], *step == '+');
      EXPECT_EQ(s[kUsedScale], before);
      if (*step != '+') continue;
      EXPECT_DOUBLE_EQ(s[kGradNorm], 3);
      EXPECT_DOUBLE_EQ(s[kClip], 1 / before);
    }
    EXPECT_EQ(s[kLossScale], c.end);
    EXPECT_EQ(s[kGoodSteps], c.good);
  }
}
}  // namespace
}  // namespace reckon::cpu
