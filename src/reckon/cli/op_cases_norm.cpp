// cli/op_cases: norms, in two passes over each row.
#include "reckon/cli/op_cases.h"

namespace reckon {
namespace {
constexpr double kEps[] = {1e-5, 1e-6, 0.1};

Real mean_square(const Real* x, int64_t cols) {
  Real sum;
  for (int64_t i = 0; i < cols; ++i) sum += x[i] * x[i];
  return sum / Real(double(cols));
}

Array layer_normed(const Array& x, const Array& weight, const Array* bias, double eps) {
  Array y(x.shape);
  const int64_t cols = x.shape.last();
  for (int64_t row = 0; row < x.shape.rows(); ++row) {
    const Real* in = &x.values[size_t(row * cols)];
    Real sum;
    for (int64_t i = 0; i < cols; ++i) sum += in[i];
    const Real mean = sum / Real(double(cols));
    std::vector<Real> centered;
    for (int64_t i = 0; i < cols; ++i) centered.push_back(in[i] - mean);
    const Real spread = sqrt(mean_square(centered.data(), cols) + Real(eps));
    for (int64_t i = 0; i < cols; ++i) {
      Real& out = y[row * cols + i];
      out = centered[size_t(i)] / spread * weight[i];
      if (bias) out += (*bias)[i];
    }
  }
  return y;
}

Array rms_normed(const Array& x, const Array& weight, double eps) {
  Array y(x.shape);
  const int64_t cols = x.shape.last();
  for (int64_t row = 0; row < x.shape.rows(); ++row) {
    const Real* in = &x.values[size_t(row * cols)];
    const Real root = sqrt(mean_square(in, cols) + Real(eps));
    for (int64_t i = 0; i < cols; ++i) y[row * cols + i] = in[i] / root * weight[i];
  }
  return y;
}

void add_layer_norm_cases(CaseList& list) {
  list.op("layer_norm");
  int at = 0;
  for (const Arrangement& a : row_arrangements()) {
    const bool bias = at % 3 != 2, far = at % 5 == 4;  // rows far from 0 show cancellation in the variance
    const double eps = kEps[at++ % 3];
    const int64_t cols = a.shape.last();
    CaseInputs inputs{CaseInput(a.shape, a.lay).range(far ? 5 : -2, far ? 7 : 2), CaseInput(Shape{cols}, Lay::stepped).range(0.5, 1.5)};
    if (bias) inputs.push_back(CaseInput(Shape{cols}));
    list.add(
        inputs, [=](const Tensors& x) { return layer_norm(x[0], x[1], bias ? x[2] : Tensor(), eps); },
        [=](const Arrays& x) { return layer_normed(x[0], x[1], bias ? &x[2] : nullptr, eps); });
  }
}

void add_rms_norm_cases(CaseList& list) {
  list.op("rms_norm");
  int at = 0;
  for (const Arrangement& a : row_arrangements()) {
    const double eps = kEps[at++ % 3];
    const int64_t cols = a.shape.last();
    list.add(
        {CaseInput(a.shape, a.lay).range(-2, 2), CaseInput(Shape{cols}, Lay::shifted).range(0.5, 1.5)},
        [=](const Tensors& x) { return rms_norm(x[0], x[1], eps); }, [=](const Arrays& x) { return rms_normed(x[0], x[1], eps); });
  }
}

// Both results of the operation count: half the sum and its norm.
void add_sums_and_norms(CaseList& list, bool layer) {
  list.op(layer ? "add_layer_norm" : "add_rms_norm");
  int at = 0;
  for (const Arrangement& a : row_arrangements()) {
    const bool bias = layer && at % 3 != 2;
    const double eps = kEps[at++ % 3];
    const int64_t cols = a.shape.last();
    CaseInputs inputs{CaseInput(a.shape, a.lay).range(-2, 2), CaseInput(a.shape).range(-2, 2),
                      CaseInput(Shape{cols}, Lay::stepped).range(0.5, 1.5)};
    if (bias) inputs.push_back(CaseInput(Shape{cols}));
    list.add(
        inputs,
        [=](const Tensors& x) {
          const SumAndNorm both =
              layer ? add_layer_norm(x[0], x[1], x[2], bias ? x[3] : Tensor(), eps) : add_rms_norm(x[0], x[1], x[2], eps);
          return add(affine(both.sum, 0.5), both.norm);
        },
        [=](const Arrays& x) {
          Array sum(x[0].shape);
          for (int64_t i = 0; i < sum.shape.numel(); ++i) sum[i] = store(x[0][i] + x[1][i]);
          Array y = layer ? layer_normed(sum, x[2], bias ? &x[3] : nullptr, eps) : rms_normed(sum, x[2], eps);
          for (int64_t i = 0; i < sum.shape.numel(); ++i) y[i] = store(Real(0.5) * sum[i]) + store(y[i]);
          return y;
        });
  }
}

void add_qk_norm(CaseList& list) {
  struct Heads {
    Shape lead;
    Lay lay;
    int64_t heads, kv_heads, head_dim;
  };
  const Heads sets[] = {
      {{}, Lay::plain, 1, 1, 1},      {{}, Lay::stepped, 2, 1, 4},       {{1}, Lay::plain, 2, 2, 3},
      {{3}, Lay::plain, 4, 2, 2},     {{3}, Lay::transposed, 3, 1, 5},   {{2, 3}, Lay::turned, 2, 1, 4},
      {{2, 3}, Lay::padded, 4, 4, 8}, {{0}, Lay::plain, 2, 1, 4},        {{2, 0}, Lay::plain, 1, 1, 2},
      {{5}, Lay::expanded, 2, 1, 6},  {{4}, Lay::shifted, 6, 3, 2},      {{1, 1}, Lay::plain, 1, 1, 64},
      {{2, 9}, Lay::plain, 4, 2, 16}, {{7}, Lay::stepped, 8, 1, 4},      {{33}, Lay::plain, 2, 1, 17},
      {{3, 5}, Lay::padded, 3, 3, 9}, {{65}, Lay::plain, 2, 2, 33},      {{2, 2, 2}, Lay::turned, 2, 1, 2},
      {{100}, Lay::plain, 4, 2, 24},  {{40}, Lay::transposed, 8, 2, 32}, {{2, 35}, Lay::plain, 3, 1, 64},
      {{600}, Lay::plain, 2, 1, 8},   {{9}, Lay::plain, 16, 8, 128},     {{1, 300}, Lay::shifted, 2, 1, 20},
  };
  list.op("qk_norm");
  for (const Heads& h : sets) {
    const int64_t normed = h.heads + h.kv_heads, width = (normed + h.kv_heads) * h.head_dim;
    const CaseInput weight = CaseInput(Shape{h.head_dim}).range(0.5, 1.5);
    list.add(
        {CaseInput(h.lead.appended(width), h.lay).range(-2, 2), weight, weight},
        [=](const Tensors& x) { return qk_norm(x[0], x[1], x[2], h.heads, h.kv_heads, h.head_dim, 1e-6); },
        [=](const Arrays& x) {
          Array y = x[0];
          for (int64_t row = 0; row < x[0].shape.rows(); ++row)
            for (int64_t head = 0; head < normed; ++head) {
              const int64_t start = row * width + head * h.head_dim;
              const Real root = sqrt(mean_square(&x[0].values[size_t(start)], h.head_dim) + Real(1e-6));
              for (int64_t i = 0; i < h.head_dim; ++i) y[start + i] = x[0][start + i] / root * x[head < h.heads ? 1 : 2][i];
            }
          return y;
        });
  }
}
}  // namespace

void add_norm_cases(CaseList& list) {
  add_layer_norm_cases(list);
  add_rms_norm_cases(list);
  add_sums_and_norms(list, true);
  add_sums_and_norms(list, false);
  add_qk_norm(list);
}
}  // namespace reckon
