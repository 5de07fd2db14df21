// cli/op_cases: embedding, rotary positions and attention.
#include <cmath>

#include "reckon/cli/op_cases.h"

namespace reckon {
namespace {
void add_embedding(CaseList& list) {
  struct Lookup {
    int64_t vocab, cols;
    Lay lay;
    Shape ids;
  };
  const Lookup sets[] = {
      {1, 1, Lay::plain, {}},
      {1, 1, Lay::plain, {1}},
      {5, 3, Lay::plain, {4}},
      {5, 3, Lay::transposed, {2, 3}},
      {5, 4, Lay::stepped, {7}},
      {6, 4, Lay::expanded, {5}},
      {5, 3, Lay::plain, {0}},
      {5, 3, Lay::plain, {2, 0}},
      {7, 5, Lay::padded, {2, 2, 2}},
      {7, 5, Lay::shifted, {1, 9}},
      {3, 8, Lay::plain, {20}},
      {2, 16, Lay::plain, {33}},
      {50, 17, Lay::plain, {3, 5}},
      {50, 33, Lay::transposed, {9}},
      {257, 65, Lay::plain, {2, 17}},
      {100, 1, Lay::plain, {64}},
      {1, 100, Lay::plain, {64}},
      {13, 129, Lay::stepped, {5}},
      {300, 64, Lay::plain, {2, 150}},
      {1000, 24, Lay::plain, {4, 100}},
      {11, 2049, Lay::plain, {3}},
      {17, 48, Lay::padded, {700}},
      {5, 3, Lay::turned, {1, 1, 1, 1, 2, 2, 1}},
  };
  list.op("embedding");
  for (const Lookup& s : sets)
    list.add(
        {CaseInput(Shape{s.vocab, s.cols}, s.lay), CaseInput::ids(s.ids, s.vocab)}, [](const Tensors& x) { return embedding(x[0], x[1]); },
        [cols = s.cols](const Arrays& x) {
          Array y(x[1].shape.appended(cols));
          for (int64_t i = 0; i < y.size(); ++i) y[i] = x[0][int64_t(x[1][i / cols].value) * cols + i % cols];
          return y;
        });
}

void add_rope(CaseList& list) {
  struct Rope {
    Shape x;
    Lay lay;
    int64_t rotated, head_dim;
    double theta;
    int64_t position;  // -1: none is given
  };
  const Rope sets[] = {
      {{1, 1, 2}, Lay::plain, 1, 2, 1e4, -1},      {{1, 1, 2}, Lay::plain, 1, 2, 1e4, 5},
      {{1, 3, 4}, Lay::plain, 1, 4, 1e4, -1},      {{2, 3, 4}, Lay::turned, 1, 4, 1e4, -1},
      {{2, 3, 4}, Lay::transposed, 2, 2, 1e4, 0},  {{2, 5, 12}, Lay::plain, 2, 4, 1e4, -1},
      {{2, 5, 12}, Lay::stepped, 2, 4, 1e4, 7},    {{2, 5, 12}, Lay::padded, 3, 4, 1e6, -1},
      {{3, 4, 10}, Lay::shifted, 1, 6, 100, -1},   {{3, 4, 10}, Lay::expanded, 1, 10, 1e4, 3},
      {{0, 4, 8}, Lay::plain, 1, 4, 1e4, -1},      {{2, 0, 8}, Lay::plain, 2, 4, 1e4, -1},
      {{2, 3, 8}, Lay::plain, 0, 4, 1e4, -1},      {{1, 17, 24}, Lay::plain, 3, 6, 1e4, 1},
      {{1, 65, 20}, Lay::plain, 2, 10, 1e4, -1},   {{2, 33, 40}, Lay::padded, 3, 10, 1e6, 100},
      {{1, 100, 64}, Lay::plain, 1, 64, 1e4, -1},  {{2, 40, 96}, Lay::transposed, 2, 32, 1e4, -1},
      {{1, 9, 384}, Lay::plain, 2, 128, 5e5, 60},  {{4, 70, 24}, Lay::plain, 2, 8, 1e4, -1},
      {{1, 300, 16}, Lay::stepped, 2, 8, 1e4, -1}, {{1, 1, 256}, Lay::plain, 1, 256, 1e4, 511},
      {{3, 129, 12}, Lay::plain, 1, 6, 1e4, 31},
  };
  list.op("rope");
  for (const Rope& r : sets) {
    CaseInputs inputs{CaseInput(r.x, r.lay)};
    if (r.position >= 0) inputs.push_back(CaseInput::of({1}, DType::i64, {double(r.position)}));
    list.add(
        inputs, [r](const Tensors& x) { return rope(x[0], r.rotated, r.head_dim, r.theta, x.size() > 1 ? x[1] : Tensor()); },
        [r](const Arrays& x) {
          Array y = x[0];
          const int64_t width = r.x.last(), half = r.head_dim / 2;
          for (int64_t row = 0; row < r.x.rows(); ++row)
            for (int64_t head = 0; head < r.rotated; ++head)
              for (int64_t i = 0; i < half; ++i) {
                const double position = double(row % r.x[1] + (r.position > 0 ? r.position : 0));
                const Real angle = position * std::pow(r.theta, -2.0 * double(i) / double(r.head_dim)), c = cos(angle), s = sin(angle);
                const int64_t at = row * width + head * r.head_dim + i;
                y[at] = x[0][at] * c - x[0][at + half] * s;
                y[at + half] = x[0][at + half] * c + x[0][at] * s;
              }
          return y;
        });
  }
}

// Query row t of one head over keys and values [count, D], of which it sees the first `seen`. Probabilities may be kept in the tensors'
// type.
void attend(const Real* q, const Real* keys, const Real* values, int64_t seen, int64_t D, double scale, bool stored, Real* out) {
  std::vector<Real> p;
  double most = -INFINITY;
  for (int64_t s = 0; s < seen; ++s) {
    Real score;
    for (int64_t d = 0; d < D; ++d) score += q[d] * keys[s * D + d];
    if (stored)
      score = store(store(score) * Real(scale));
    else
      score = score * Real(scale);
    most = std::max(most, score.value);
    p.push_back(score);
  }
  Real sum;
  for (Real& score : p) sum += score = exp(score - Real(most));
  for (int64_t d = 0; d < D; ++d) out[d] = Real(0);
  for (int64_t s = 0; s < seen; ++s) {
    const Real probability = store(p[size_t(s)] / sum);
    for (int64_t d = 0; d < D; ++d) out[d] += probability * values[s * D + d];
  }
}

struct Heads {
  int64_t B, T;
  Lay lay;
  int64_t heads, kv_heads, head_dim;
  double scale;
  int64_t width() const { return (heads + 2 * kv_heads) * head_dim; }
  double used_scale() const { return scale != 0 ? scale : 1 / std::sqrt(double(head_dim)); }
};
// 64 rows and 64 keys are where the CPU cuts.
const Heads kHeads[] = {
    {1, 1, Lay::plain, 1, 1, 1, 0},    {1, 2, Lay::plain, 1, 1, 2, 0},      {2, 3, Lay::plain, 2, 2, 4, 0},
    {2, 3, Lay::turned, 2, 1, 4, 0},   {2, 5, Lay::transposed, 4, 2, 3, 0}, {2, 5, Lay::stepped, 3, 1, 5, 0.7},
    {1, 7, Lay::padded, 4, 4, 8, 0},   {3, 7, Lay::expanded, 2, 1, 6, 0},   {0, 4, Lay::plain, 2, 1, 4, 0},
    {2, 0, Lay::plain, 2, 1, 4, 0},    {2, 1, Lay::shifted, 6, 2, 2, 0},    {1, 17, Lay::plain, 1, 1, 16, -0.3},
    {1, 33, Lay::plain, 2, 1, 9, 0},   {1, 63, Lay::plain, 1, 1, 8, 0},     {1, 64, Lay::plain, 2, 2, 4, 0},
    {1, 65, Lay::padded, 2, 1, 5, 0},  {2, 66, Lay::plain, 1, 1, 20, 0},    {1, 130, Lay::plain, 2, 1, 7, 0},
    {1, 20, Lay::plain, 2, 1, 64, 0},  {1, 9, Lay::stepped, 2, 2, 128, 0},  {1, 3, Lay::plain, 1, 1, 256, 0},
    {1, 200, Lay::plain, 1, 1, 12, 0},
};

// documents: as attention() takes them, or none.
Array attention_reference(const Array& qkv, const Heads& h, bool causal, int64_t window, bool stored,
                          const std::vector<double>& documents = {}) {
  Array y(Shape{h.B, h.T, h.heads * h.head_dim});
  const int64_t D = h.head_dim, group = h.heads / h.kv_heads;
  std::vector<Real> keys(size_t(h.T * D)), values(size_t(h.T * D));
  for (int64_t b = 0; b < h.B; ++b)
    for (int64_t head = 0; head < h.heads; ++head) {
      const int64_t kv = h.heads + head / group;
      for (int64_t t = 0; t < h.T; ++t)
        for (int64_t d = 0; d < D; ++d) {
          keys[size_t(t * D + d)] = qkv[(b * h.T + t) * h.width() + kv * D + d];
          values[size_t(t * D + d)] = qkv[(b * h.T + t) * h.width() + (kv + h.kv_heads) * D + d];
        }
      for (int64_t t = 0; t < h.T; ++t) {
        int64_t first = window > 0 ? std::max<int64_t>(t + 1 - window, 0) : 0;
        if (!documents.empty()) first = std::max(first, int64_t(documents[size_t(b * h.T + t)]));
        attend(&qkv.values[size_t((b * h.T + t) * h.width() + head * D)], &keys[size_t(first * D)], &values[size_t(first * D)],
               (causal ? t + 1 : h.T) - first, D, h.used_scale(), stored, &y.values[size_t((b * h.T + t) * h.heads * D + head * D)]);
      }
    }
  return y;
}

// Documents of 1, 2, 3, ... tokens in the first row, of 64 in the next, then of 5.
void add_documents(CaseList& list, const Heads& h, int64_t window, bool plain) {
  std::vector<double> documents;
  for (int64_t b = 0; b < h.B; ++b) {
    int64_t length = b == 0 ? 1 : b == 1 ? 64 : 5, start = 0;
    for (int64_t t = 0; t < h.T; ++t) {
      if (t == start + length) start = t, length += b == 0;
      documents.push_back(double(start));
    }
  }
  list.add(
      {CaseInput(Shape{h.B, h.T, h.width()}, h.lay).range(-1.5, 1.5), CaseInput::of({h.B, h.T}, DType::i32, documents)},
      [=](const Tensors& x) {
        return (plain ? attention_plain : attention)(x[0], h.heads, h.kv_heads, h.head_dim, true, h.scale, window, x[1]);
      },
      [=](const Arrays& x) { return attention_reference(x[0], h, true, window, plain, documents); });
}

void add_attention(CaseList& list, bool plain) {
  list.op(plain ? "attention_plain" : "attention");
  int at = 0;
  for (const Heads& h : kHeads) {
    const bool causal = at++ % 4 != 3;
    for (const int64_t window : {int64_t(0), h.T / 3 + 1}) {
      if (window > 0 && !causal) continue;
      list.add(
          {CaseInput(Shape{h.B, h.T, h.width()}, h.lay).range(-1.5, 1.5)},
          [=](const Tensors& x) {
            return (plain ? attention_plain : attention)(x[0], h.heads, h.kv_heads, h.head_dim, causal, h.scale, window, Tensor());
          },
          [=](const Arrays& x) { return attention_reference(x[0], h, causal, window, plain); });
    }
    if (causal) add_documents(list, h, at % 4 == 1 ? h.T / 2 + 1 : 0, plain);
  }
}

void add_attention_with_cache(CaseList& list) {
  list.op("attention_with_cache", false);
  int at = 0;
  for (const Heads& h : kHeads) {
    if (h.B == 0 || h.T == 0 || h.T > 150) continue;
    const int64_t position = at++ % 3 == 0 ? 0 : at * 3, longest = position + h.T + at % 2 * 5, D = h.head_dim;
    const int64_t window = at % 4 == 0 ? h.T / 2 + 2 : 0;
    const CaseInput cache(Shape{h.B, h.kv_heads, longest, D});
    list.add(
        {CaseInput(Shape{h.B, h.T, h.width()}, h.lay).range(-1.5, 1.5), cache, cache, CaseInput::of({1}, DType::i64, {double(position)})},
        [=](const Tensors& x) {
          const Tensor y = attention_with_cache(x[0], x[1], x[2], x[3], h.heads, h.kv_heads, D, h.scale, window);
          return Tensors{y, x[1], x[2]};
        },
        [=](const Arrays& x) {
          Array y(Shape{h.B, h.T, h.heads * D}), k = x[1], v = x[2];
          for (int64_t b = 0; b < h.B; ++b)
            for (int64_t kv = 0; kv < h.kv_heads; ++kv)
              for (int64_t t = 0; t < h.T; ++t)
                for (int64_t d = 0; d < D; ++d) {
                  const int64_t to = ((b * h.kv_heads + kv) * longest + position + t) * D + d, row = (b * h.T + t) * h.width();
                  k[to] = x[0][row + (h.heads + kv) * D + d];
                  v[to] = x[0][row + (h.heads + h.kv_heads + kv) * D + d];
                }
          for (int64_t b = 0; b < h.B; ++b)
            for (int64_t head = 0; head < h.heads; ++head)
              for (int64_t t = 0; t < h.T; ++t) {
                const int64_t end = position + t + 1, first = window > 0 ? std::max<int64_t>(end - window, 0) : 0;
                const size_t start = size_t(((b * h.kv_heads + head / (h.heads / h.kv_heads)) * longest + first) * D);
                attend(&x[0].values[size_t((b * h.T + t) * h.width() + head * D)], &k.values[start], &v.values[start], end - first, D,
                       h.used_scale(), false, &y.values[size_t((b * h.T + t) * h.heads * D + head * D)]);
              }
          return Arrays{y, k, v};
        });
  }
  // One more, long enough to cross the blocks of keys.
  list.add(
      {CaseInput(Shape{1, 2, 24}), CaseInput(Shape{1, 1, 300, 6}), CaseInput(Shape{1, 1, 300, 6}), CaseInput::of({1}, DType::i64, {0})},
      [=](const Tensors& x) { return attention_with_cache(x[0], x[1], x[2], x[3], 2, 1, 6, 0); },
      [=](const Arrays& x) {
        return attention_reference(x[0], {1, 2, Lay::plain, 2, 1, 6, 0}, true, 0, false);
      });
}

void add_chunks(CaseList& list) {
  list.op("store_chunk", false);
  int at = 0;
  for (const Heads& h : kHeads) {
    const int64_t first = at % 3 * 5, T = first + h.T + at % 2 * 3;
    ++at;
    list.add(
        {CaseInput(Shape{h.B, h.T, h.width()}, h.lay), CaseInput(Shape{h.B, T, h.width()})},
        [=](const Tensors& x) {
          store_chunk(x[0], x[1], first);
          return x[1];
        },
        [=](const Arrays& x) {
          Array y = x[1];
          for (int64_t i = 0; i < x[0].size(); ++i) {
            const int64_t row = i / h.width();
            y[(row / h.T * T + first + row % h.T) * h.width() + i % h.width()] = x[0][i];
          }
          return y;
        });
  }
  list.op("store_keys", false);
  at = 0;
  for (const Heads& h : kHeads) {
    const int64_t first = at++ % 3 * 5, D = h.head_dim;
    const CaseInput keys(Shape{h.B, h.kv_heads, first + h.T + at % 2 * 3, D});
    list.add(
        {CaseInput(Shape{h.B, h.T, h.width()}, h.lay), keys, keys},
        [=](const Tensors& x) {
          store_keys(x[0], {x[1], x[2], {}, {}}, first, h.heads, h.kv_heads, D);
          return Tensors{x[1], x[2]};
        },
        [=](const Arrays& x) {
          Array k = x[1], v = x[2];
          for (int64_t b = 0; b < h.B; ++b)
            for (int64_t kv = 0; kv < h.kv_heads; ++kv)
              for (int64_t i = 0; i < h.T * D; ++i) {
                const int64_t to = ((b * h.kv_heads + kv) * x[1].shape[2] + first) * D + i, row = (b * h.T + i / D) * h.width() + i % D;
                k[to] = x[0][row + (h.heads + kv) * D];
                v[to] = x[0][row + (h.heads + h.kv_heads + kv) * D];
              }
          return Arrays{k, v};
        });
  }
  list.op("attention_chunk", false);
  at = 0;
  for (const Heads& h : kHeads) {
    const int64_t first = at++ % 3 * 37, D = h.head_dim, T = first + h.T + at % 2 * 3, window = at % 4 == 0 ? h.T / 2 + 2 : 0;
    const CaseInput keys(Shape{h.B, h.kv_heads, T, D});
    list.add(
        {CaseInput(Shape{h.B, h.T, h.width()}, h.lay).range(-1.5, 1.5), keys, keys},
        [=](const Tensors& x) {
          return attention_chunk(x[0], {x[1], x[2], {}, {}}, first, h.heads, h.kv_heads, D, h.scale, window);
        },
        [=](const Arrays& x) {
          Array y(Shape{h.B, h.T, h.heads * D});
          for (int64_t b = 0; b < h.B; ++b)
            for (int64_t head = 0; head < h.heads; ++head)
              for (int64_t t = 0; t < h.T; ++t) {
                const int64_t end = first + t + 1, start = window > 0 ? std::max<int64_t>(end - window, 0) : 0;
                const size_t key = size_t(((b * h.kv_heads + head / (h.heads / h.kv_heads)) * T + start) * D);
                attend(&x[0].values[size_t((b * h.T + t) * h.width() + head * D)], &x[1].values[key], &x[2].values[key], end - start, D,
                       h.used_scale(), false, &y.values[size_t((b * h.T + t) * h.heads * D + head * D)]);
              }
          return y;
        });
  }
}
}  // namespace

void add_transformer_cases(CaseList& list) {
  add_embedding(list);
  add_rope(list);
  add_attention(list, false);
  add_attention(list, true);
  add_attention_with_cache(list);
  add_chunks(list);
}
}  // namespace reckon
