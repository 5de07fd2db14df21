// cli/op_cases: matrix products by three loops.
#include "reckon/cli/op_cases.h"

namespace reckon {
namespace {
Array product(const Array& a, const Array& b) {
  const int64_t m = a.shape[-2], k = a.shape[-1], n = b.shape[-1];
  const Shape lead = broadcast(a.shape.first(a.shape.rank() - 2), b.shape.first(b.shape.rank() - 2));
  Array y(lead.appended(m).appended(n));
  const Array matrices_a(a.shape.first(a.shape.rank() - 2)), matrices_b(b.shape.first(b.shape.rank() - 2));
  for_each_place(lead, [&](const Place& p) {
    // Which matrix of each operand this place of the batch sees.
    const int64_t at_a = &matrices_a.seen_from(p, lead) - matrices_a.values.data(),
                  at_b = &matrices_b.seen_from(p, lead) - matrices_b.values.data();
    Real* out = y.values.data() + Array(lead).index(p) * m * n;
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j)
        for (int64_t c = 0; c < k; ++c) out[i * n + j] += a[(at_a * m + i) * k + c] * b[(at_b * k + c) * n + j];
  });
  return y;
}

// 512 rows and a depth of 1024 are where the CPU cuts; 8 rows and fewer take another path.
void add_matmul(CaseList& list) {
  const ArrangedPair sets[] = {
      {{{1, 1}, Lay::plain}, {{1, 1}, Lay::plain}},
      {{{2, 3}, Lay::plain}, {{3, 4}, Lay::plain}},
      {{{2, 3}, Lay::transposed}, {{3, 4}, Lay::plain}},
      {{{2, 3}, Lay::plain}, {{3, 4}, Lay::transposed}},
      {{{5, 7}, Lay::transposed}, {{7, 3}, Lay::transposed}},
      {{{5, 7}, Lay::stepped}, {{7, 3}, Lay::padded}},
      {{{6, 4}, Lay::expanded}, {{4, 5}, Lay::shifted}},
      {{{1, 9}, Lay::plain}, {{9, 1}, Lay::plain}},
      {{{9, 1}, Lay::plain}, {{1, 9}, Lay::plain}},
      {{{0, 3}, Lay::plain}, {{3, 2}, Lay::plain}},
      {{{2, 3}, Lay::plain}, {{3, 0}, Lay::plain}},
      {{{2, 0}, Lay::plain}, {{0, 3}, Lay::plain}},
      {{{0, 2, 3}, Lay::plain}, {{3, 2}, Lay::plain}},
      {{{3, 2, 4}, Lay::plain}, {{3, 4, 5}, Lay::plain}},
      {{{3, 2, 4}, Lay::transposed}, {{3, 4, 5}, Lay::transposed}},
      {{{3, 2, 4}, Lay::turned}, {{4, 5}, Lay::plain}},
      {{{2, 4}, Lay::plain}, {{3, 4, 5}, Lay::expanded}},
      {{{2, 1, 3, 4}, Lay::plain}, {{1, 3, 4, 2}, Lay::plain}},
      {{{2, 1, 3, 4}, Lay::transposed}, {{3, 4, 2}, Lay::transposed}},
      {{{3, 65, 33}, Lay::plain}, {{33, 17}, Lay::plain}},
      {{{4, 31, 17}, Lay::padded}, {{1, 17, 66}, Lay::plain}},
      {{{130, 70}, Lay::plain}, {{70, 129}, Lay::transposed}},
      {{{600, 24}, Lay::plain}, {{24, 50}, Lay::plain}},
      {{{30, 1100}, Lay::transposed}, {{1100, 20}, Lay::plain}},
      {{{1, 513}, Lay::plain}, {{513, 260}, Lay::transposed}},
  };
  list.op("matmul");
  for (const ArrangedPair& s : sets)
    list.add(
        {CaseInput(s.a.shape, s.a.lay), CaseInput(s.b.shape, s.b.lay)}, [](const Tensors& x) { return matmul(x[0], x[1]); },
        [](const Arrays& x) { return product(x[0], x[1]); });
}

void add_linear(CaseList& list) {
  const ArrangedPair sets[] = {
      // x [..., K], w [N, K]
      {{{1}, Lay::plain}, {{1, 1}, Lay::plain}},
      {{{5}, Lay::plain}, {{3, 5}, Lay::plain}},
      {{{2, 5}, Lay::plain}, {{3, 5}, Lay::transposed}},
      {{{2, 5}, Lay::transposed}, {{3, 5}, Lay::plain}},
      {{{4, 3, 5}, Lay::turned}, {{7, 5}, Lay::padded}},
      {{{6, 4}, Lay::expanded}, {{5, 4}, Lay::shifted}},
      {{{0, 5}, Lay::plain}, {{3, 5}, Lay::plain}},
      {{{2, 5}, Lay::plain}, {{0, 5}, Lay::plain}},
      {{{2, 2, 2, 2, 3}, Lay::stepped}, {{9, 3}, Lay::plain}},
      {{{65, 33}, Lay::plain}, {{17, 33}, Lay::plain}},
      {{{3, 43, 64}, Lay::padded}, {{130, 64}, Lay::plain}},
      {{{600, 17}, Lay::plain}, {{40, 17}, Lay::plain}},
      {{{7, 1100}, Lay::plain}, {{30, 1100}, Lay::plain}},
  };
  list.op("linear");
  for (const ArrangedPair& s : sets)
    for (const bool bias : {false, true}) {
      const int64_t n = s.b.shape[0], k = s.b.shape[1];
      CaseInputs inputs{CaseInput(s.a.shape, s.a.lay), CaseInput(s.b.shape, s.b.lay)};
      if (bias) inputs.push_back(CaseInput(Shape{n}, s.a.lay == Lay::plain ? Lay::plain : Lay::stepped));
      list.add(
          inputs, [bias](const Tensors& x) { return linear(x[0], x[1], bias ? x[2] : Tensor()); },
          [=](const Arrays& x) {
            Array y(x[0].shape.with(-1, n));
            for (int64_t row = 0; row < x[0].shape.rows(); ++row)
              for (int64_t j = 0; j < n; ++j) {
                Real& out = y[row * n + j];
                for (int64_t c = 0; c < k; ++c) out += x[0][row * k + c] * x[1][j * k + c];
                if (bias) out += x[2][j];
              }
            return y;
          });
    }
}
}  // namespace

void add_matmul_cases(CaseList& list) {
  add_matmul(list);
  add_linear(list);
}
}  // namespace reckon
