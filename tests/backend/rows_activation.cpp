// Activations against libm in double, over the whole range of floats, all dtypes and instruction sets.
#include <limits>

#include "reckon/backend/cpu/activation.h"
#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
const Activation kKinds[] = {Activation::gelu, Activation::relu, Activation::silu, Activation::sigmoid, Activation::tanh};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

double value(Activation kind, double x) {
  switch (kind) {
    case Activation::gelu:
      return x * sigmoid(2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
    case Activation::relu:
      return std::max(x, 0.0);
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::sigmoid:
      return sigmoid(x);
    case Activation::tanh:
      return std::tanh(x);
  }
  return 0;
}

// By its definition; a central difference checks it below.
double slope(Activation kind, double x) {
  const double s = sigmoid(x), t = std::tanh(x);
  switch (kind) {
    case Activation::gelu: {
      const double k = 2 * std::sqrt(2 / M_PI), u = k * (x + 0.044715 * x * x * x);
      return sigmoid(u) + x * sigmoid(u) * sigmoid(-u) * k * (1 + 3 * 0.044715 * x * x);
    }
    case Activation::relu:
      return x > 0;
    case Activation::silu:
      return s + x * s * sigmoid(-x);
    case Activation::sigmoid:
      return s * sigmoid(-x);
    case Activation::tanh:
      return 1 - t * t;
  }
  return 0;
}

// Error of f(x) from the rounding of the argument of exp inside: its size times eps, relative to the result; and a few roundings.
double inner(Activation kind, double x) {
  const double u = kind == Activation::gelu ? 1.6 * (std::abs(x) + 0.045 * std::abs(x * x * x)) : 0;
  return std::min(8 + 3 * u, 400.0);
}

TEST(RowsActivation, ReferenceSlopesAreSlopes) {
  for (const Activation kind : kKinds)
    for (double x = -4.05; x < 5; x += 0.1) EXPECT_NEAR(slope(kind, x), (value(kind, x + 1e-5) - value(kind, x - 1e-5)) / 2e-5, 1e-8);
}

TEST(RowsActivation, MatchesReference) {
  on_every_target([] {
    for (const Activation kind : kKinds)
      for (const DType dtype : kFloats) {
        const double eps = epsilon(statistics_dtype(dtype));
        for (const int64_t n : {0, 1, 17, 20001}) {
          for (const double range : {1e-3, 3.0, 200.0}) {
            const Buffer x = uniform(dtype, n, 3, -range, range), dy = uniform(dtype, n, 4);
            Buffer y(dtype, n), dx(dtype, n);
            activation(kind, dtype, x.data(), y.data(), n);
            const bool from_y = kind == Activation::sigmoid || kind == Activation::tanh;
            activation_back(kind, dtype, dy.data(), from_y ? y.data() : x.data(), dx.data(), n);
            for (int64_t i = 0; i < n; ++i) {
              const double want = value(kind, x[i]), round = epsilon(dtype) / 2;
              const double tolerance = eps * inner(kind, x[i]);
              ASSERT_NEAR(y[i], want, std::abs(want) * (tolerance + round) + 1e-36 + (dtype == DType::f16 ? 0x1p-25 : 0))
                  << int(kind) << " " << x[i];
              // Slopes from y: 1 - y cancels, so y's own rounding counts in full.
              const double dwant = dy[i] * (kind == Activation::sigmoid ? y[i] * (1 - y[i])
                                            : kind == Activation::tanh  ? 1 - y[i] * y[i]
                                                                        : slope(kind, x[i]));
              const double size = std::abs(dwant) + std::abs(dy[i]) * (from_y ? 1 : std::abs(want) + sigmoid(x[i]));
              ASSERT_NEAR(dx[i], dwant, size * tolerance + round * std::abs(dwant) + 1e-36 + (dtype == DType::f16 ? 0x1p-25 : 0))
                  << int(kind) << " " << x[i];
            }
          }
        }
      }
  });
}

// The accuracy that the header of the vector math claims: about 2 units in the last place, everywhere.
TEST(RowsActivation, SigmoidAndTanhWithinTwoUnits) {
  on_every_target([] {
    for (const Activation kind : {Activation::sigmoid, Activation::tanh}) {
      constexpr int64_t n = 200000;
      Buffer x(DType::f32, n), y(DType::f32, n);
      for (int64_t i = 0; i < n; ++i) x.set(i, (i % 2 ? 1 : -1) * std::exp2(-20 + 26.3 * double(i) / n));
      activation(kind, DType::f32, x.data(), y.data(), n);
      for (int64_t i = 0; i < n; ++i) {
        const double want = value(kind, x[i]);
        ASSERT_NEAR(y[i], want, 2.5 * 0x1p-23 * std::abs(want)) << x[i];
      }
    }
  });
}

TEST(RowsActivation, Extremes) {
  const double inf = std::numeric_limits<double>::infinity();
  on_every_target([&] {
    for (const DType dtype : kFloats) {
      Buffer x(dtype, 4), y(dtype, 4);
      x.set(0, 60000), x.set(1, -60000), x.set(2, std::nan("")), x.set(3, inf);
      for (const Activation kind : kKinds) {
        activation(kind, dtype, x.data(), y.data(), 4);
        const bool bounded = kind == Activation::sigmoid || kind == Activation::tanh;
        EXPECT_EQ(y[0], bounded ? 1 : x[0]);
        EXPECT_EQ(y[1], kind == Activation::tanh ? -1 : 0);
        EXPECT_TRUE(std::isnan(y[2])) << int(kind);
        EXPECT_EQ(y[3], bounded ? 1 : inf);
      }
    }
  });
}

TEST(RowsActivation, SwigluMatchesReference) {
  on_every_target([] {
    for (const DType dtype : kFloats)
      for (const auto& [rows, width] : {std::pair<int64_t, int64_t>{0, 4}, {1, 1}, {3, 7}, {5, 2050}, {200, 96}}) {
        const Buffer x = uniform(dtype, rows * 2 * width, 3, -6, 6), dy = uniform(dtype, rows * width, 4);
        Buffer y(dtype, rows * width), dx(dtype, rows * 2 * width), over = x;
        swiglu(dtype, x.data(), y.data(), rows, width);
        swiglu_back(dtype, dy.data(), x.data(), dx.data(), rows, width);
        swiglu_back(dtype, dy.data(), over.data(), over.data(), rows, width);
        EXPECT_TRUE(over.same_bytes(dx));
        std::vector<double> want, dwant(size_t(rows * 2 * width));
        for (int64_t i = 0; i < rows * width; ++i) {
          const int64_t at = i / width * 2 * width + i % width;
          want.push_back(value(Activation::silu, x[at]) * x[at + width]);
          dwant[size_t(at)] = dy[i] * x[at + width] * slope(Activation::silu, x[at]);
          dwant[size_t(at + width)] = dy[i] * value(Activation::silu, x[at]);
        }
        const double eps = epsilon(statistics_dtype(dtype));
        expect_near(y, want, 36 * 8 * eps, "y");
        expect_near(dx, dwant, 6 * 8 * eps, "dx");
      }
  });
}

TEST(RowsActivation, InPlaceAndAnyThreads) {
  for (const Activation kind : kKinds)
    for (const DType dtype : kFloats) {
      const Buffer x = uniform(dtype, 70001, 3, -4, 4), dy = uniform(dtype, 70001, 4);
      Buffer y(dtype, x.size()), dx(dtype, x.size());
      activation(kind, dtype, x.data(), y.data(), x.size());
      activation_back(kind, dtype, dy.data(), x.data(), dx.data(), x.size());
      expect_same_on_any_threads([&] {
        Buffer a = x, b = dy, c = x;
        activation(kind, dtype, a.data(), a.data(), x.size());
        activation_back(kind, dtype, b.data(), x.data(), b.data(), x.size());
        activation_back(kind, dtype, dy.data(), c.data(), c.data(), x.size());
        EXPECT_TRUE(a.same_bytes(y) && b.same_bytes(dx) && c.same_bytes(dx));
        return std::vector<Buffer>{a, b, c};
      });
    }
}
}  // namespace
}  // namespace reckon::cpu
