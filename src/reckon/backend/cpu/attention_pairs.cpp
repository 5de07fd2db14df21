// backend/cpu/attention_pairs: the kernels, with intrinsics: Highway 1.0.3 does not know AVX512_BF16.
#include "reckon/backend/cpu/attention_pairs.h"

#include <cstring>

#include "reckon/backend/cpu/attention_block.h"
#include "reckon/base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
namespace reckon::cpu::detail {
namespace {
constexpr int kStripRows = 6, kStripVecs = 4;  // 24 of 32 registers hold sums

// Each output element is one chain over k, whatever R and V: how a product is cut into tiles never shows in the bits.
template <int R, int V, PairsInto kInto>
[[gnu::noinline]] void tile(const PairProduct& p) {
  __m512 sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sum[r][v] = _mm512_setzero_ps();
  const uint32_t *a = p.a, *b = p.b;
  const int64_t a_row = p.a_row, a_step = p.a_step, b_row = p.b_row;
  for (int64_t k = p.pairs; k > 0; --k, a += a_step, b += b_row) {
    __m512bh row[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) row[v] = (__m512bh)_mm512_loadu_si512(b + 16 * v);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512bh pair = (__m512bh)_mm512_set1_epi32(int(a[r * a_row]));
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], pair, row[v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const __m512 factor = _mm512_set1_ps(kInto == PairsInto::scale ? p.factor : kInto == PairsInto::scale_and_add ? p.factors[r] : 0.0f);
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      float* at = p.c + r * p.c_row + 16 * v;
      if constexpr (kInto == PairsInto::scale) _mm512_storeu_ps(at, _mm512_mul_ps(sum[r][v], factor));
      if constexpr (kInto == PairsInto::add) _mm512_storeu_ps(at, _mm512_add_ps(_mm512_loadu_ps(at), sum[r][v]));
      if constexpr (kInto == PairsInto::scale_and_add) _mm512_storeu_ps(at, _mm512_fmadd_ps(factor, _mm512_loadu_ps(at), sum[r][v]));
    }
  }
}

template <int R, PairsInto kInto>
void strips(PairProduct& p, int64_t& rows, int vecs) {
  for (; rows >= R; rows -= R) {
    if (vecs == 4) tile<R, 4, kInto>(p);
    if (vecs == 3) tile<R, 3, kInto>(p);
    if (vecs == 2) tile<R, 2, kInto>(p);
    if (vecs == 1) tile<R, 1, kInto>(p);
    p.a += R * p.a_row;
    p.c += R * p.c_row;
    if constexpr (kInto == PairsInto::scale_and_add) p.factors += R;
  }
}

template <PairsInto kInto>
void product(PairProduct p, int64_t rows, int64_t vecs) {
  RECKON_COUNT_MATMUL(2 * rows * vecs * 16 * 2 * p.pairs);
  while (vecs > 0) {
    const int chunk = int(ceil_div(vecs, ceil_div(vecs, kStripVecs)));  // 5 vectors are 3 + 2, not 4 + 1
    PairProduct q = p;
    int64_t left = rows;
    strips<kStripRows, kInto>(q, left, chunk);
    strips<4, kInto>(q, left, chunk);
    strips<2, kInto>(q, left, chunk);
    strips<1, kInto>(q, left, chunk);
    p.b += chunk * 16;
    p.c += chunk * 16;
    vecs -= chunk;
  }
}

// With a full mask: what GCC 12 makes of the plain forms warns of an uninitialized value.
constexpr __mmask16 kAll = 0xFFFF;
__m512i words(__m256i halves) { return _mm512_maskz_cvtepu16_epi32(kAll, halves); }
__m512i pairs_of(__m256i low, __m256i high) { return _mm512_or_si512(words(low), _mm512_maskz_slli_epi32(kAll, words(high), 16)); }
}  // namespace

bool multiplies_pairs() {
  static const bool has = __builtin_cpu_supports("avx512bf16");
  return has && attention_vector_floats() == 16;
}

void pair_product(PairsInto into, const PairProduct& p, int64_t rows, int64_t vecs) {
  switch (into) {
    case PairsInto::scale:
      return product<PairsInto::scale>(p, rows, vecs);
    case PairsInto::add:
      return product<PairsInto::add>(p, rows, vecs);
    case PairsInto::scale_and_add:
      return product<PairsInto::scale_and_add>(p, rows, vecs);
  }
}

void round_to_pairs(const float* first, const float* second, int64_t n, uint32_t* to) {
  for (int64_t i = 0; i < n; i += 16) {
    const __m256bh low = _mm512_cvtneps_pbh(_mm512_loadu_ps(first + i)), high = _mm512_cvtneps_pbh(_mm512_loadu_ps(second + i));
    _mm512_storeu_si512(to + i, pairs_of((__m256i)low, (__m256i)high));
  }
}

void round_to_row(const float* from, int64_t n, uint16_t* to) {
  for (int64_t i = 0; i < n; i += 16)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + i)));
}

void pair_rows(const uint16_t* first, const uint16_t* second, int64_t n, uint32_t* to) {
  for (int64_t i = 0; i < n; i += 16) {
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(first + i));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(second + i));
    _mm512_storeu_si512(to + i, pairs_of(low, high));
  }
}

void transpose_words(const uint32_t* from, int64_t rows, int64_t columns, int64_t from_row, uint32_t* to, int64_t to_row) {
  for (int64_t c = 0; c < columns; c += 4)
    for (int64_t r = 0; r < rows; r += 4) {
      const auto line = [&](int64_t i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + (r + i) * from_row + c)); };
      const __m128i r0 = line(0), r1 = line(1), r2 = line(2), r3 = line(3);
      const __m128i low01 = _mm_unpacklo_epi32(r0, r1), high01 = _mm_unpackhi_epi32(r0, r1);
      const __m128i low23 = _mm_unpacklo_epi32(r2, r3), high23 = _mm_unpackhi_epi32(r2, r3);
      const auto put = [&](int64_t i, __m128i x) { _mm_storeu_si128(reinterpret_cast<__m128i*>(to + (c + i) * to_row + r), x); };
      put(0, _mm_unpacklo_epi64(low01, low23));
      put(1, _mm_unpackhi_epi64(low01, low23));
      put(2, _mm_unpacklo_epi64(high01, high23));
      put(3, _mm_unpackhi_epi64(high01, high23));
    }
}
}  // namespace reckon::cpu::detail
#pragma GCC pop_options
#else
namespace reckon::cpu::detail {
bool multiplies_pairs() { return false; }
void pair_product(PairsInto, const PairProduct&, int64_t, int64_t) { RECKON_ASSERT(false); }
void round_to_pairs(const float*, const float*, int64_t, uint32_t*) { RECKON_ASSERT(false); }
void round_to_row(const float*, int64_t, uint16_t*) { RECKON_ASSERT(false); }
void pair_rows(const uint16_t*, const uint16_t*, int64_t, uint32_t*) { RECKON_ASSERT(false); }
void transpose_words(const uint32_t*, int64_t, int64_t, int64_t, uint32_t*, int64_t) { RECKON_ASSERT(false); }
}  // namespace reckon::cpu::detail
#endif
