// cli/op_cases: linear layers in 8-bit floats. Scales are powers of two, so that what a tensor is rounded to is known exactly, and only the
// sums of the products are not.
#include <algorithm>
#include <cmath>

#include "reckon/cli/op_cases.h"
#include "reckon/ops/rows.h"

namespace reckon {
namespace {
constexpr uint32_t kWideTypes = 1u << int(DType::f32) | 1u << int(DType::bf16);

// The formats by their definition: bits of fraction, the smallest normal exponent, the largest value.
struct Format {
  DType dtype;
  int fraction, least;
  double largest;
};
constexpr Format kForward{DType::f8e4m3fn, 3, -6, 448}, kGradient{DType::f8e5m2, 2, -14, 57344};

double rounded(const Format& f, double x) {
  if (x == 0) return x;
  const double unit = std::ldexp(1.0, std::max(std::ilogb(x), f.least) - f.fraction);
  return std::clamp(std::nearbyint(x / unit) * unit, -f.largest, f.largest);
}
double largest(const Array& x) {
  double most = 0;
  for (const Real& r : x.values) most = std::max(most, magnitude(r.value));
  return most;
}
// Doubled or halved until it fits.
double fitting(const Format& f, double most) {
  double scale = 1;
  while (most > 0 && most * scale > f.largest) scale /= 2;
  while (most > 0 && most * scale * 2 <= f.largest) scale *= 2;
  return scale;
}
double scale_of(const Format& f, const Array& x, double given) { return given > 0 ? given : fitting(f, largest(x)); }
Array codes_of(const Format& f, const Array& x, double scale) {
  return map(x, [&](const Real& r) { return Real(rounded(f, r.value * scale)); });
}
Array restored(const Array& codes, double scale) {
  return map(codes, [=](const Real& r) { return Real(r.value / scale); });
}

std::vector<double> drawn(int64_t count, uint64_t key, double size) {
  std::vector<double> v = random_values(count, key, 17);
  for (double& x : v) x *= size;
  return v;
}
CaseInput numbers(const Shape& shape, std::vector<double> values) { return CaseInput::of(shape, DType::f32, std::move(values)); }

void add_quantize(CaseList& list) {
  list.op("quantize_fp8", false, kWideTypes);
  for (const Arrangement& a : arrangements())
    for (const Format& f : {kForward, kGradient})
      for (const double given : {0.0, 0.25, 4096.0})  // fits, small, cuts off
        list.add(
            {CaseInput(a.shape, a.lay).range(-30, 30), numbers({1}, {given})},
            [=](const Tensors& x) {
              const QuantizedFp8 q = quantize_fp8(x[0], f.dtype, x[1]);
              return Tensors{q.codes, q.stats};
            },
            [=](const Arrays& x) {
              const double scale = scale_of(f, x[0], given);
              return Arrays{codes_of(f, x[0], scale), Array(Shape{2}, {largest(x[0]), scale})};
            });
}

struct Extents {
  Shape x;
  int64_t n;
  Lay lay;
};
// 2048 rows are widened at a time.
const Extents kLayers[] = {{{1}, 1, Lay::plain},        {{5}, 3, Lay::plain},         {{2, 5}, 3, Lay::transposed},
                           {{4, 3, 6}, 7, Lay::padded}, {{0, 5}, 3, Lay::plain},      {{3, 0}, 2, Lay::plain},
                           {{3, 4}, 0, Lay::plain},     {{65, 33}, 17, Lay::plain},   {{3, 43, 64}, 96, Lay::plain},
                           {{2050, 9}, 5, Lay::plain},  {{7, 1100}, 30, Lay::stepped}};

// y = x w^T by three loops.
Array product(const Array& x, const Array& w) {
  const int64_t n = w.shape[0], k = w.shape[1];
  Array y(x.shape.with(-1, n));
  for (int64_t row = 0; row < x.shape.rows(); ++row)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t c = 0; c < k; ++c) y[row * n + j] += x[row * k + c] * w[j * k + c];
  return y;
}

void add_forward(CaseList& list, const char* name, const OpDef& row) {
  list.op(name, false, kWideTypes);
  const bool keeps_codes = &row == &op::linear_fp8;
  for (const Extents& e : kLayers)
    for (const bool bias : {false, true})
      for (const double given : {0.0, 16.0}) {
        CaseInputs inputs{CaseInput(e.x, e.lay).range(-3, 3), CaseInput(Shape{e.n, e.x.last()}).range(-0.5, 0.5),
                          numbers({3}, {given, 2 * given, 1}), numbers({3}, {0, 0, 0})};
        if (bias) inputs.push_back(CaseInput(Shape{e.n}));
        list.add(
            inputs, [&row](const Tensors& x) { return call(row, x); },
            [=](const Arrays& x) {
              const double scale_x = scale_of(kForward, x[0], given), scale_w = scale_of(kForward, x[1], 2 * given);
              const Array codes = codes_of(kForward, x[0], scale_x);
              Array y = product(restored(codes, scale_x), restored(codes_of(kForward, x[1], scale_w), scale_w));
              for (int64_t i = 0; bias && i < y.size(); ++i) y[i] += x[4][i % e.n];
              Arrays results{y, Array(Shape{4}, {largest(x[0]), largest(x[1]), scale_x, scale_w})};
              if (keeps_codes) results.push_back(codes);
              return results;
            });
      }
}

void add_back_x(CaseList& list) {
  list.op("linear_fp8_back_x", false, kWideTypes);
  constexpr double kWeightScale = 64;
  for (const Extents& e : kLayers)
    for (const double scale : {512.0, 0x1p-20}) {
      const Shape dy = e.x.with(-1, e.n);
      list.add(
          {CaseInput::of(dy, DType::f8e5m2, drawn(dy.numel(), 5, 100)), CaseInput(Shape{e.n, e.x.last()}).range(-0.5, 0.5),
           numbers({2}, {0.1, scale}), numbers({4}, {1, 1, 8, kWeightScale})},
          [](const Tensors& x) { return call(op::linear_fp8_back_x, x); },
          [=](const Arrays& x) {
            const Array w = restored(codes_of(kForward, x[1], kWeightScale), kWeightScale);
            const Array turned = gather(w, Shape{w.shape[1], w.shape[0]}, [](Place p) {
              std::swap(p[0], p[1]);
              return p;
            });
            return product(restored(x[0], scale), turned);
          });
    }
}

void add_back_w(CaseList& list) {
  list.op("linear_fp8_back_w", false, kWideTypes);
  constexpr double kScale = 512, kInputScale = 32;
  for (const Extents& e : kLayers)
    for (const int slot : {0, 1, 2}) {  // none, overwritten, added to
      const int64_t n = e.n, k = e.x.last();
      const Shape dy = e.x.with(-1, n);
      CaseInputs inputs{CaseInput::of(dy, DType::f8e5m2, drawn(dy.numel(), 7, 100)),
                        CaseInput::of(e.x, DType::f8e4m3fn, drawn(e.x.numel(), 9, 100)), numbers({2}, {0.1, kScale}),
                        numbers({4}, {1, 1, kInputScale, 64})};
      if (slot) inputs.push_back(CaseInput(Shape{n, k}).range(-0.5, 0.5));
      list.add(
          inputs,
          [slot](Device&, DType dtype, const Tensors& x) {
            Tensors out = call(op::linear_fp8_back_w, x, LinearParams{slot == 2, dtype});
            return slot ? Tensors{x[4]} : out;
          },
          [=](const Arrays& x) {
            const Array g = restored(x[0], kScale), in = restored(x[1], kInputScale);
            Array dw(Shape{n, k});
            for (int64_t row = 0; row < in.shape.rows(); ++row)
              for (int64_t j = 0; j < n; ++j)
                for (int64_t c = 0; c < k; ++c) dw[j * k + c] += g[row * n + j] * in[row * k + c];
            for (int64_t i = 0; slot == 2 && i < dw.size(); ++i) dw[i] += x[4][i];
            return dw;
          });
    }
}

void add_records(CaseList& list) {
  list.op("record_fp8_amax", false, 1u << int(DType::f32));
  const double sizes[] = {0, 1e-30, 1.5, double(INFINITY), double(NAN)};
  // The largest, and NaN above all.
  const auto larger = [](double a, double b) { return std::isnan(a) || std::isnan(b) ? double(NAN) : std::max(a, b); };
  for (const double before : sizes)
    for (const double seen : sizes)
      list.add(
          {numbers({3}, {before, 2, 3}), numbers({4}, {seen, 1, 8, 8}), numbers({2}, {seen, 16})},
          [](const Tensors& x) {
            call(op::record_fp8_amax, x);
            return x[0];
          },
          [=](const Arrays&) {
            return Array(Shape{3}, {larger(float(before), float(seen)), 2.0, larger(3, float(seen))});
          });
}

void add_scale_steps(CaseList& list) {
  list.op("step_fp8_scales", false, 1u << int(DType::f32));
  for (const int64_t window : {1, 2, 5})
    for (const double first : {0.0, 3.0, 500.0, double(INFINITY), double(NAN)})
      for (const bool ok : {true, false}) {
        std::vector<double> s(kStepScalars), before = drawn(3 * window, 3, 1);
        s[kOk] = ok;
        for (double& x : before) x = first == 0 ? 0 : magnitude(x);
        list.add(
            {CaseInput::of({kStepScalars}, DType::f64, s), numbers({3}, {first, 0, 1e-5}), numbers({3, window}, before),
             numbers({3}, {1, 2, 4})},
            [](const Tensors& x) {
              step_fp8_scales_(x[0], {x[3], x[1], x[2]});
              return Tensors{x[1], x[2], x[3]};
            },
            [=](const Arrays& x) {
              Array history = x[2], scales = x[3];
              for (int64_t t = 0; t < 3; ++t) {
                const double amax = x[1][t].value;
                if (!ok || !std::isfinite(amax)) continue;
                double most = 0;
                for (int64_t i = window; i-- > 0;) {
                  history[t * window + i] = i > 0 ? x[2][t * window + i - 1] : Real(amax);
                  most = std::max(most, history[t * window + i].value);
                }
                scales[t] = most > 0 ? fitting(t < 2 ? kForward : kGradient, most) : 0;
              }
              return Arrays{Array(Shape{3}), history, scales};
            });
      }
}
}  // namespace

void add_float8_cases(CaseList& list) {
  add_quantize(list);
  add_forward(list, "linear_fp8", op::linear_fp8);
  add_forward(list, "linear_fp8_again", op::linear_fp8_again);
  add_back_x(list);
  add_back_w(list);
  add_records(list);
  add_scale_steps(list);
}
}  // namespace reckon
