// check signals on a net small enough to do by hand: each result is paired with the gradient of that very result, also where one module
// calls an operation several times, where a call is not recorded, where results overwrite each other, and where one is used twice.
#include "reckon/cli/signals.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "reckon/engine/context.h"
#include "reckon/ops/ops.h"

namespace reckon {
namespace {
using Values = std::vector<double>;

Values sum_of(const Values& a, const Values& b) {
  Values s;
  for (size_t i = 0; i < a.size(); ++i) s.push_back(a[i] + b[i]);
  return s;
}
Values product_of(const Values& a, const Values& b) {
  Values p;
  for (size_t i = 0; i < a.size(); ++i) p.push_back(a[i] * b[i]);
  return p;
}

void expect_moments(const Moments& got, const Values& x, const std::string& what) {
  double mean = 0, variance = 0, largest = 0;
  for (const double v : x) mean += v / double(x.size()), largest = std::max(largest, std::abs(v));
  for (const double v : x) variance += (v - mean) * (v - mean) / double(x.size());
  // A handful of roundings of numbers up to the largest, and of its square.
  const double eps = 64 * epsilon(DType::f64);
  EXPECT_EQ(got.count, int64_t(x.size())) << what;
  EXPECT_EQ(got.bad, 0) << what;
  EXPECT_NEAR(got.mean, mean, eps * largest) << what;
  EXPECT_NEAR(got.variance, variance, eps * largest * largest) << what;
  EXPECT_NEAR(got.max_abs, largest, eps * largest) << what;
}

// In module a: h = x u^T [2, 3], another product that nobody differentiates, z = h w^T [2, 2]. In module b: s = z + r and its RMS norm n
// with weight g. The loss is sum(c n) + sum(d s) + sum(e h).
const Values kU{1, 0, 0, 2, 1, -1}, kW{1, 1, 0, 0, 1, 1}, kR{1, -1, 2, 0}, kG{2, 0.5};
const Values kC{1, -2, 0.5, 3}, kD{0.25, 1, -1, 2}, kE{3, 1, -1, 0, 2, 5};

Tensor net(Device& device, void*) {
  const auto make = [&](const Shape& shape, const Values& v, bool learns = false) {
    Tensor t = from_values<double>(device, shape, v);
    if (learns) t.set_requires_grad();
    return t;
  };
  const Tensor x = make({2, 2}, {1, 2, 3, 4}), u = make({3, 2}, kU, true), w = make({2, 3}, kW, true), g = make({2}, kG, true);
  Tensor h, z;
  {
    const ModuleScope a("a");
    h = linear(x, u);
    {
      const NoGrad guard;
      linear(x, affine(u, -1));
    }
    z = linear(h, w);
  }
  SumAndNorm both;
  {
    const ModuleScope b("b");
    both = add_rms_norm(std::move(z), make({2, 2}, kR), g, 1e-6);
  }
  const ModuleScope end("loss");
  const Tensor first = sum(mul(both.norm, make({2, 2}, kC)));
  const Tensor second = sum(mul(both.sum, make({2, 2}, kD)));
  const Tensor third = sum(mul(h, make({2, 3}, kE)));
  return add(add(first, second), third);
}

TEST(Signals, OfANetDoneByHand) {
  const Signals signals = measure_signals(net, nullptr);
  // Forward.
  const Values h{1, 4, -1, 3, 8, -1}, z{5, 3, 11, 7}, s = sum_of(z, kR);
  Values n(4), ds = kD;
  for (size_t row = 0; row < 2; ++row) {
    const double *x = &s[2 * row], *c = &kC[2 * row];
    const double r = 1 / std::sqrt((x[0] * x[0] + x[1] * x[1]) / 2 + 1e-6);
    const double along = (kG[0] * c[0] * x[0] + kG[1] * c[1] * x[1]) * r * r * r / 2;
    for (size_t i = 0; i < 2; ++i) {
      n[2 * row + i] = x[i] * r * kG[i];
      ds[2 * row + i] += kG[i] * c[i] * r - x[i] * along;  // back through the norm
    }
  }
  // Backward: dz = ds, and h goes into the loss by itself, too.
  Values dh = kE;
  for (size_t row = 0; row < 2; ++row)
    for (size_t k = 0; k < 3; ++k) dh[3 * row + k] += ds[2 * row] * kW[k] + ds[2 * row + 1] * kW[3 + k];

  struct Row {
    const char *module, *operation;
    Values output;
    Values gradient;  // none: not recorded
  };
  const Values one(4, 1);
  const Values cn = product_of(kC, n), dsum = product_of(kD, s), eh = product_of(kE, h);
  const auto total = [](const Values& v) {
    double t = 0;
    for (const double x : v) t += x;
    return Values{t};
  };
  const Values a = total(cn), b = total(dsum), c = total(eh), ab = sum_of(a, b), loss = sum_of(ab, c);
  const Row rows[] = {{"a", "linear", h, dh},
                      {"a", "affine", product_of(kU, Values(6, -1)), {}},
                      {"a", "linear", product_of(h, Values(6, -1)), {}},
                      {"a", "linear", z, ds},
                      {"b", "add_rms_norm, output 0", s, kD},  // what the norm adds is its own rule's
                      {"b", "add_rms_norm, output 1", n, kC},
                      {"loss", "mul", cn, one},
                      {"loss", "sum", a, {1}},
                      {"loss", "mul", dsum, one},
                      {"loss", "sum", b, {1}},
                      {"loss", "mul", eh, Values(6, 1)},
                      {"loss", "sum", c, {1}},
                      {"loss", "add", ab, {1}},
                      {"loss", "add", loss, {1}}};
  ASSERT_EQ(signals.rows.size(), std::size(rows));
  EXPECT_NEAR(signals.loss, loss[0], 64 * epsilon(DType::f64) * 64);
  for (size_t i = 0; i < signals.rows.size(); ++i) {
    const Signal& got = signals.rows[i];
    const std::string what = text("{} {}, row {}", got.module, got.operation, i);
    EXPECT_EQ(got.module, rows[i].module);
    EXPECT_EQ(got.operation, rows[i].operation);
    expect_moments(got.output, rows[i].output, what);
    ASSERT_EQ(got.gradient.has_value(), !rows[i].gradient.empty()) << what;
    if (got.gradient) expect_moments(*got.gradient, rows[i].gradient, what + ", gradient");
  }
}
}  // namespace
}  // namespace reckon
