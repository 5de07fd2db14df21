// backend/cpu/attention_f64: attention in double, by the obvious loops, one row of scores at a time. Only pairs that count are computed.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "reckon/backend/cpu/attention_block.h"

namespace reckon::cpu::detail {
namespace {
/// The address of query row `row` (token by token, head by head) in q, out or their gradients.
template <class Pointer>
Pointer query_row(const HeadGroup& g, const char* base, int64_t stride, int64_t row) {
  return reinterpret_cast<Pointer>(const_cast<char*>(base) + (row / g.group * stride + row % g.group * g.head_dim) * g.element);
}
const double* key_row(const HeadGroup& g, const char* base, int64_t key) {
  return reinterpret_cast<const double*>(base) + key * g.kv_stride;
}
double* lse_of(const HeadGroup& g, int64_t row) {
  return reinterpret_cast<double*>(g.lse) + row % g.group * g.query_tokens + row / g.group;
}
double dot(const double* a, const double* b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}
void add_scaled(double* to, double factor, const double* from, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += factor * from[i];
}
}  // namespace

void forward_rows_f64(const HeadGroup& g, int64_t row, int64_t rows, double* scores) {
  const int64_t D = g.head_dim, end = std::min(row + rows, row_count(g));
  for (; row < end; ++row) {
    const double* q = query_row<const double*>(g, g.q, g.q_stride, row);
    double* out = query_row<double*>(g, g.out, g.out_stride, row);
    const int64_t first = first_key(g, row), keys = last_key(g, row) + 1;
    RECKON_COUNT_MATMUL(4 * (keys - first) * D);
    RECKON_COUNT_VECTOR(5 * (keys - first));
    for (int64_t j = first; j < keys; ++j) scores[j] = g.scale * dot(q, key_row(g, g.k, j), D);
    const double largest = *std::max_element(scores + first, scores + keys);
    double sum = 0;
    for (int64_t j = first; j < keys; ++j) sum += scores[j] = std::exp(scores[j] - largest);
    std::fill(out, out + D, 0.0);
    for (int64_t j = first; j < keys; ++j) add_scaled(out, scores[j] / sum, key_row(g, g.v, j), D);
    if (g.lse) *lse_of(g, row) = largest + std::log(sum);
  }
}

void backward_f64(const HeadGroup& g, const HeadGroupBack& back, double* dk_sum, double* dv_sum, int64_t stride) {
  const int64_t D = g.head_dim;
  for (int64_t row = 0; row < row_count(g); ++row) {
    const double* q = query_row<const double*>(g, g.q, g.q_stride, row);
    const double* dout = query_row<const double*>(g, back.dout, g.out_stride, row);
    double* dq = query_row<double*>(g, back.dq, g.q_stride, row);
    const double delta = dot(dout, query_row<const double*>(g, g.out, g.out_stride, row), D), lse = *lse_of(g, row);
    std::fill(dq, dq + D, 0.0);
    const int64_t first = first_key(g, row), end = last_key(g, row) + 1;
    RECKON_COUNT_MATMUL(10 * (end - first) * D);
    RECKON_COUNT_VECTOR(8 * (end - first));
    for (int64_t j = first; j < end; ++j) {
      const double* k = key_row(g, g.k, j);
      const double p = std::exp(g.scale * dot(q, k, D) - lse);
      const double ds = g.scale * p * (dot(dout, key_row(g, g.v, j), D) - delta);
      add_scaled(dq, ds, k, D);
      add_scaled(dk_sum + j * stride, ds, q, D);
      add_scaled(dv_sum + j * stride, p, dout, D);
    }
  }
}
}  // namespace reckon::cpu::detail
