// Functions whose results are bfloat16: each of the 65,536 inputs against libm in double, on every instruction set.
#include <functional>

#include "reckon/backend/cpu/activation.h"
#include "reckon/backend/cpu/rows_elementwise.h"
#include "reckon/backend/cpu/unary_more.h"
#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
constexpr int64_t kPatterns = 65536;
const int64_t kDense[] = {1};

Buffer every_bfloat16() {
  Buffer x(DType::bf16, kPatterns);
  for (int64_t i = 0; i < kPatterns; ++i) x.as<uint16_t>()[i] = uint16_t(i);
  return x;
}
// One unit in the last place of bfloat16 at `value`.
double unit_at(double value) { return std::ldexp(1.0, std::max(std::ilogb(std::max(std::abs(value), 0x1p-126)) - 7, -133)); }

using Reference = std::function<double(double)>;
// Half a unit is the rounding; what the float before it may be off is 2^-16 of it at most, and `absolute` where the function crosses zero,
// or where e^-x, of which it is a quotient, is beyond float32.
void expect_nearest(const char* name, const Buffer& x, const Buffer& y, const Reference& f, double absolute = 0) {
  for (int64_t i = 0; i < kPatterns; ++i) {
    const double want = f(x[i]), got = y[i];
    if (std::isnan(want)) {
      ASSERT_TRUE(std::isnan(got)) << name << " of " << x[i] << ": " << got;
    } else if (std::isinf(want) || std::abs(want) >= 0x1.ffp127) {  // rounds to infinity, by the double's bits or by bfloat16's
      ASSERT_EQ(got, want < 0 ? -INFINITY : INFINITY) << name << " of " << x[i];
    } else {
      ASSERT_LE(std::abs(got - want), 0.51 * unit_at(want) + absolute) << name << " of " << x[i] << ": " << got << ", not " << want;
    }
  }
}

double sigmoid(double x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }
double gelu_gate(double x) { return 2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x); }

TEST(RowsNarrow, ActivationsOfEveryBfloat16) {
  const Buffer x = every_bfloat16();
  struct Kind {
    const char* name;
    Activation kind;
    Reference f;
  };
  const Kind kinds[] = {{"tanh", Activation::tanh, [](double v) { return std::tanh(v); }},
                        {"sigmoid", Activation::sigmoid, sigmoid},
                        {"silu", Activation::silu, [](double v) { return std::isinf(v) && v < 0 ? NAN : v * sigmoid(v); }},  // -inf * 0
                        {"gelu", Activation::gelu, [](double v) { return std::isinf(v) && v < 0 ? NAN : v * sigmoid(gelu_gate(v)); }},
                        {"relu", Activation::relu, [](double v) { return v < 0 ? 0.0 : v; }}};
  on_every_target([&] {
    for (const Kind& k : kinds) {
      Buffer y(DType::bf16, kPatterns);
      activation(k.kind, DType::bf16, x.data(), y.data(), kPatterns);
      expect_nearest(k.name, x, y, k.f, 1e-36);
    }
  });
}

TEST(RowsNarrow, SlopesOfEveryBfloat16) {
  const Buffer x = every_bfloat16(), one(DType::bf16, kPatterns, 1);
  const Reference silu = [](double v) { return std::isinf(v) ? double(v > 0) : sigmoid(v) + v * sigmoid(v) * sigmoid(-v); };
  const Reference gelu = [](double v) {
    if (std::abs(v) > 100) return double(v > 0);
    const double s = sigmoid(gelu_gate(v));
    return s + v * s * sigmoid(-gelu_gate(v)) * 2 * std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * v * v);
  };
  on_every_target([&] {
    for (const auto& [kind, f] : {std::pair{Activation::silu, silu}, {Activation::gelu, gelu}}) {
      Buffer dx(DType::bf16, kPatterns);
      activation_back(kind, DType::bf16, one.data(), x.data(), dx.data(), kPatterns);
      expect_nearest(kind == Activation::silu ? "slope of silu" : "slope of gelu", x, dx, f, 0x1p-16);
    }
  });
}

TEST(RowsNarrow, FunctionsOfEveryBfloat16) {
  const Buffer x = every_bfloat16();
  const std::pair<Function, Reference> kinds[] = {{Function::sin, [](double v) { return std::sin(v); }},
                                                  {Function::cos, [](double v) { return std::cos(v); }},
                                                  {Function::erf, [](double v) { return std::erf(v); }}};
  on_every_target([&] {
    for (const auto& [kind, f] : kinds) {
      Buffer y(DType::bf16, kPatterns);
      apply_function(kind, DType::bf16, x.data(), y.data(), kPatterns);
      expect_nearest(kind == Function::sin ? "sin" : kind == Function::cos ? "cos" : "erf", x, y, f);
    }
  });
}

TEST(RowsNarrow, ExponentialsAndLogarithmsOfEveryBfloat16) {
  const Buffer x = every_bfloat16();
  on_every_target([&] {
    Buffer y(DType::bf16, kPatterns);
    unary(Unary::exp, DType::bf16, {kPatterns}, {x.data(), kDense}, y.data(), kDense);
    expect_nearest("exp", x, y, [](double v) { return std::exp(v); });
    unary(Unary::log, DType::bf16, {kPatterns}, {x.data(), kDense}, y.data(), kDense);
    expect_nearest("log", x, y, [](double v) { return std::log(v); });
  });
}

// One element, gaps between elements and dense runs take different ways to the same bits.
TEST(RowsNarrow, ExponentialsHaveTheSameBitsAtEveryStride) {
  const Buffer x = every_bfloat16();
  Buffer spread(DType::bf16, 2 * kPatterns);
  for (int64_t i = 0; i < kPatterns; ++i) spread.as<uint16_t>()[2 * i] = uint16_t(i);
  on_every_target([&] {
    for (const Unary op : {Unary::exp, Unary::log}) {
      Buffer dense(DType::bf16, kPatterns), apart(DType::bf16, kPatterns), single(DType::bf16, kPatterns);
      unary_run(op, DType::bf16, x.data(), dense.data(), kPatterns);
      const int64_t two[] = {2};
      unary(op, DType::bf16, {kPatterns}, {spread.data(), two}, apart.data(), kDense);
      const auto* from = static_cast<const uint16_t*>(x.data());
      for (int64_t i = 0; i < kPatterns; ++i) unary(op, DType::bf16, {1}, {from + i, kDense}, single.as<uint16_t>() + i, kDense);
      const auto bits = [](Buffer& b, int64_t i) { return std::isnan(b[i]) ? 0x7FC0 : int(b.as<uint16_t>()[i]); };
      for (int64_t i = 0; i < kPatterns; ++i) {
        ASSERT_EQ(bits(dense, i), bits(apart, i)) << "operation " << int(op) << " of " << x[i];
        ASSERT_EQ(bits(dense, i), bits(single, i)) << "operation " << int(op) << " of " << x[i];
      }
    }
  });
}

// What is kept by a sign bit alone.
TEST(RowsNarrow, OddFunctionsKeepTheSignOfZero) {
  on_every_target([] {
    Buffer x(DType::bf16, 64, -0.0), y(DType::bf16, 64);
    for (const Function f : {Function::sin, Function::erf}) {
      apply_function(f, DType::bf16, x.data(), y.data(), 64);
      for (int64_t i = 0; i < 64; ++i) EXPECT_TRUE(y[i] == 0 && std::signbit(y[i]));
    }
    activation(Activation::tanh, DType::bf16, x.data(), y.data(), 64);
    for (int64_t i = 0; i < 64; ++i) EXPECT_TRUE(y[i] == 0 && std::signbit(y[i]));
  });
}

// Beyond the caches results are stored past them: the same bits, at every alignment.
TEST(RowsNarrow, StreamedResultsHaveTheSameBits) {
  const int64_t n = (int64_t(12) << 20) + 37;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    Buffer x(dtype, n), y(dtype, n + 64), want(dtype, n);
    for (int64_t i = 0; i < n; ++i) {
      if (dtype == DType::f32) {
        x.as<float>()[i] = float(i % 1021) / 64 - 8;
      } else {
        x.as<uint16_t>()[i] = uint16_t(0x3000 + i % 4096);
      }
    }
    const int64_t bytes = size_of(dtype), part = 1000;
    for (int64_t at = 0; at < n; at += part)
      activation(Activation::silu, dtype, x.as<char>() + at * bytes, want.as<char>() + at * bytes, std::min(part, n - at));
    const int64_t line = int64_t(-reinterpret_cast<uintptr_t>(y.data()) % 64) / bytes;  // where a cache line starts
    for (const int64_t shift : {line, line + 1}) {
      activation(Activation::silu, dtype, x.data(), y.as<char>() + shift * bytes, n);
      EXPECT_EQ(std::memcmp(y.as<char>() + shift * bytes, want.data(), size_t(n * bytes)), 0) << name_of(dtype) << " " << shift;
      std::memcpy(y.as<char>() + shift * bytes, x.data(), size_t(n * bytes));
      activation(Activation::silu, dtype, y.as<char>() + shift * bytes, y.as<char>() + shift * bytes, n);  // in place
      EXPECT_EQ(std::memcmp(y.as<char>() + shift * bytes, want.data(), size_t(n * bytes)), 0) << name_of(dtype) << " in place " << shift;
    }
  }
}
}  // namespace
}  // namespace reckon::cpu
