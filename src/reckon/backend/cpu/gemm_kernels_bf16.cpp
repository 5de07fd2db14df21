// backend/cpu/gemm_kernels_bf16: the micro-kernel for machines that multiply pairs of bfloat16 (AVX512_BF16), which Highway 1.0.3 does not
// know. A packed element is a pair: depths k and k + 1 of one line. It sees one panel at a time.
#include "reckon/backend/cpu/gemm_packed.h"

#if defined(__x86_64__)
#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
namespace reckon::cpu {
namespace {
constexpr int kRows = 8, kColumns = 48;

template <int kWide, bool kAdd>
void multiply_tile(int64_t kc, const uint32_t* a, const uint32_t* b, float* c, int64_t ld) {
  for (int i = 0; i < kRows; ++i)  // C comes from far away while the panels are multiplied
    for (int v = 0; v < kWide; ++v) __builtin_prefetch(c + i * ld + 16 * v, 1);
  __m512 sum[kRows][kWide];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < kWide; ++v) sum[i][v] = _mm512_setzero_ps();
  for (int64_t k = 0; k < kc; k += 2, a += kRows, b += kColumns) {
    __m512bh row[kWide];
#pragma GCC unroll 4
    for (int v = 0; v < kWide; ++v) row[v] = (__m512bh)_mm512_load_si512(b + 16 * v);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const __m512bh pair = (__m512bh)_mm512_set1_epi32(int(a[i]));
#pragma GCC unroll 4
      for (int v = 0; v < kWide; ++v) sum[i][v] = _mm512_dpbf16_ps(sum[i][v], pair, row[v]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i, c += ld)
#pragma GCC unroll 4
    for (int v = 0; v < kWide; ++v) {
      float* to = c + 16 * v;
      _mm512_storeu_ps(to, kAdd ? _mm512_add_ps(_mm512_loadu_ps(to), sum[i][v]) : sum[i][v]);
    }
}
void multiply(int64_t kc, int64_t cols, const void* a, const void* b, void* sums, int64_t ld, bool add) {
  using Tile = void (*)(int64_t, const uint32_t*, const uint32_t*, float*, int64_t);
  static constexpr Tile kTiles[2][3] = {{multiply_tile<1, false>, multiply_tile<2, false>, multiply_tile<3, false>},
                                        {multiply_tile<1, true>, multiply_tile<2, true>, multiply_tile<3, true>}};
  kTiles[add][(cols - 1) / 16](kc, static_cast<const uint32_t*>(a), static_cast<const uint32_t*>(b), static_cast<float*>(sums), ld);
}
}  // namespace

const PackedKernel* packed_kernel_bf16() {
  static const PackedKernel kernel = [] {
    PackedKernel pairs = packing_bf16();
    const bool shaped = pairs.mr == kRows && pairs.nr == kColumns;  // else packed for a lesser instruction set
    if (shaped && __builtin_cpu_supports("avx512bf16")) pairs.multiply = multiply;
    return pairs;
  }();
  return kernel.multiply ? &kernel : nullptr;
}
}  // namespace reckon::cpu
#pragma GCC pop_options
#else
namespace reckon::cpu {
const PackedKernel* packed_kernel_bf16() { return nullptr; }
}  // namespace reckon::cpu
#endif
