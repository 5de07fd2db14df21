// backend/cpu/gemm_kernels: micro-kernels and packing of the packed engine, compiled once per instruction set. They see one panel at a
// time and know nothing of tiles, blocks or threads.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/gemm_kernels.cpp"
#include "reckon/backend/cpu/vec_targets.h"
#include <hwy/foreach_target.h>
// after foreach_target: Highway compiles what follows once per target
#include <hwy/highway.h>

#include "reckon/backend/cpu/gemm_packed.h"
#include "reckon/backend/cpu/gemm_packing-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_AVX3
constexpr int kRows = 8, kVectors = 3;  // 24 of 32 registers hold sums
#elif HWY_TARGET == HWY_AVX2
constexpr int kRows = 4, kVectors = 3;  // 12 of 16
#else
constexpr int kRows = 4, kVectors = 4;  // one lane: a compiler without Highway's targets, or a machine without AVX2
#endif

template <class T>
constexpr int kColumns = kVectors* int(hn::MaxLanes(hn::ScalableTag<T>()));

template <int W>
void pack_f32(const void* from, DType dtype, int64_t line_stride, int64_t k_stride, int64_t lines, int64_t kc, void* out) {
  float* to = static_cast<float*>(out);
  if (dtype == DType::bf16) return pack_lines<W>(static_cast<const bfloat16*>(from), line_stride, k_stride, lines, kc, to);
  if (dtype == DType::f16) return pack_lines<W>(static_cast<const float16*>(from), line_stride, k_stride, lines, kc, to);
  pack_lines<W>(static_cast<const float*>(from), line_stride, k_stride, lines, kc, to);
}
template <int W>
void pack_f64(const void* from, DType, int64_t line_stride, int64_t k_stride, int64_t lines, int64_t kc, void* out) {
  pack_lines<W>(static_cast<const double*>(from), line_stride, k_stride, lines, kc, static_cast<double*>(out));
}

// kWide vectors of a row of B, at most kVectors.
template <class T, int kWide, bool kAdd>
void multiply_tile(int64_t kc, const T* a, const T* b, T* c, int64_t ld) {
  const hn::ScalableTag<T> d;
  constexpr int kLanes = kColumns<T> / kVectors;
  for (int i = 0; i < kRows; ++i)  // C comes from far away while the panels are multiplied
    for (int64_t byte = 0; byte < int64_t(kWide * kLanes * sizeof(T)); byte += 64)
      __builtin_prefetch(reinterpret_cast<const char*>(c + i * ld) + byte, 1);
  hn::Vec<decltype(d)> sum[kRows][kWide];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < kWide; ++v) sum[i][v] = hn::Zero(d);
  for (int64_t k = 0; k < kc; ++k, a += kRows, b += kColumns<T>) {
    hn::Vec<decltype(d)> row[kWide];
#pragma GCC unroll 4
    for (int v = 0; v < kWide; ++v) row[v] = hn::Load(d, b + v * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const auto element = hn::Set(d, a[i]);
#pragma GCC unroll 4
      for (int v = 0; v < kWide; ++v) sum[i][v] = hn::MulAdd(element, row[v], sum[i][v]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i, c += ld)
#pragma GCC unroll 4
    for (int v = 0; v < kWide; ++v) {
      T* to = c + v * kLanes;
      hn::StoreU(kAdd ? hn::Add(hn::LoadU(d, to), sum[i][v]) : sum[i][v], d, to);
    }
}
template <class T>
void multiply(int64_t kc, int64_t cols, const void* a, const void* b, void* sums, int64_t ld, bool add) {
  using Tile = void (*)(int64_t, const T*, const T*, T*, int64_t);
  static constexpr Tile kTiles[2][4] = {
      {multiply_tile<T, 1, false>, multiply_tile<T, 2, false>, multiply_tile<T, 3, false>, multiply_tile<T, kVectors, false>},
      {multiply_tile<T, 1, true>, multiply_tile<T, 2, true>, multiply_tile<T, 3, true>, multiply_tile<T, kVectors, true>}};
  constexpr int64_t kLanes = kColumns<T> / kVectors;
  kTiles[add][(cols - 1) / kLanes](kc, static_cast<const T*>(a), static_cast<const T*>(b), static_cast<T*>(sums), ld);
}

PackedKernel kernel_f32() {
  constexpr int kWide = kColumns<float>;
  return {kRows, kWide, kWide / kVectors, 128, 4, 4, pack_f32<kRows>, pack_f32<kWide>, multiply<float>};
}
PackedKernel kernel_f64() {
  constexpr int kWide = kColumns<double>;
  return {kRows, kWide, kWide / kVectors, 128, 8, 8, pack_f64<kRows>, pack_f64<kWide>, multiply<double>};
}

template <int W>
void pack_bf16(const void* from, DType, int64_t line_stride, int64_t k_stride, int64_t lines, int64_t kc, void* out) {
  pack_pairs<W>(static_cast<const bfloat16*>(from), line_stride, k_stride, lines, kc, static_cast<uint32_t*>(out));
}
PackedKernel pairs_bf16() {
  constexpr int kWide = kColumns<float>;
  return {kRows, kWide, kWide / kVectors, 256, 2, 4, pack_bf16<kRows>, pack_bf16<kWide>, nullptr};
}

// ---- transposing 16-bit elements, for oneDNN

#if HWY_TARGET != HWY_SCALAR
void transpose_8x8(const uint16_t* from, int64_t ld, uint16_t* to, int64_t to_ld) {
  const hn::Full128<uint16_t> d;
  const hn::Full128<uint32_t> d32;
  const hn::Full128<uint64_t> d64;
  hn::Vec<decltype(d32)> pairs[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const auto even = hn::LoadU(d, from + 2 * i * ld), odd = hn::LoadU(d, from + (2 * i + 1) * ld);
    pairs[2 * i] = hn::BitCast(d32, hn::InterleaveLower(d, even, odd));
    pairs[2 * i + 1] = hn::BitCast(d32, hn::InterleaveUpper(d, even, odd));
  }
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {  // columns 0-3, then 4-7
    const auto low = hn::BitCast(d64, hn::InterleaveLower(d32, pairs[half], pairs[2 + half]));
    const auto high = hn::BitCast(d64, hn::InterleaveUpper(d32, pairs[half], pairs[2 + half]));
    const auto low4 = hn::BitCast(d64, hn::InterleaveLower(d32, pairs[4 + half], pairs[6 + half]));
    const auto high4 = hn::BitCast(d64, hn::InterleaveUpper(d32, pairs[4 + half], pairs[6 + half]));
    uint16_t* column = to + 4 * half * to_ld;
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, low, low4)), d, column);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, low, low4)), d, column + to_ld);
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(d64, high, high4)), d, column + 2 * to_ld);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(d64, high, high4)), d, column + 3 * to_ld);
  }
}
#endif

void transpose(const uint16_t* from, int64_t ld, int64_t rows, int64_t cols, uint16_t* to) {
  int64_t whole_rows = 0, whole_cols = 0;
#if HWY_TARGET != HWY_SCALAR
  whole_rows = rows / 8 * 8, whole_cols = cols / 8 * 8;
  // 32 columns at a time: each line that is read is used up while it is near
  for (int64_t strip = 0; strip < whole_cols; strip += 32)
    for (int64_t i = 0; i < whole_rows; i += 8)
      for (int64_t j = strip; j < whole_cols && j < strip + 32; j += 8) transpose_8x8(from + i * ld + j, ld, to + j * rows + i, rows);
#endif
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = i < whole_rows ? whole_cols : 0; j < cols; ++j) to[j * rows + i] = from[i * ld + j];
}

// ---- rounding the sums to C

#if HWY_TARGET != HWY_SCALAR
template <class D>
HWY_INLINE void store_lanes(D d, hn::Vec<D> x, float* p) {
  hn::StoreU(x, d, p);
}
template <class D>
HWY_INLINE void store_lanes(D d, hn::Vec<D> x, float16* p) {
  const hn::Rebind<hwy::float16_t, D> d16;
  hn::StoreU(hn::DemoteTo(d16, x), d16, reinterpret_cast<hwy::float16_t*>(p));
}
template <class D>
HWY_INLINE void store_lanes(D, hn::Vec<D> x, bfloat16* p) {  // to nearest even; NaN stays NaN
  const hn::RebindToUnsigned<D> du;
  const auto bits = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(du, 0x7FFFu)), odd));
  const auto quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(du, 0x40u));
  const auto result = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(x)), quiet, rounded);
  const hn::Rebind<uint16_t, D> d16;
  hn::StoreU(hn::TruncateTo(d16, result), d16, reinterpret_cast<uint16_t*>(p));
}
#endif

template <class C>
void finish_rows(int64_t rows, int64_t cols, const float* sums, int64_t ld, C* c, int64_t ldc, bool add_c, const float* bias) {
  for (int64_t i = 0; i < rows; ++i, sums += ld, c += ldc) {
    int64_t j = 0;
#if HWY_TARGET != HWY_SCALAR
    const hn::ScalableTag<float> d;
    for (const int64_t lanes = int64_t(hn::MaxLanes(d)); j + lanes <= cols; j += lanes) {
      auto x = hn::LoadU(d, sums + j);
      if (add_c) x = hn::Add(load_lanes(d, c + j), x);
      if (bias) x = hn::Add(x, hn::LoadU(d, bias + j));
      store_lanes(d, x, c + j);
    }
#endif
    for (; j < cols; ++j) {
      float x = sums[j];
      if (add_c) x = float(c[j]) + x;
      if (bias) x += bias[j];
      c[j] = C(x);
    }
  }
}
void finish(int64_t rows, int64_t cols, const float* sums, int64_t ld, void* c, DType c_dtype, int64_t ldc, bool add_c, const float* bias) {
  if (c_dtype == DType::bf16) return finish_rows(rows, cols, sums, ld, static_cast<bfloat16*>(c), ldc, add_c, bias);
  if (c_dtype == DType::f16) return finish_rows(rows, cols, sums, ld, static_cast<float16*>(c), ldc, add_c, bias);
  finish_rows(rows, cols, sums, ld, static_cast<float*>(c), ldc, add_c, bias);
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reckon::cpu {
HWY_EXPORT(kernel_f32);
HWY_EXPORT(kernel_f64);
HWY_EXPORT(pairs_bf16);
HWY_EXPORT(finish);
HWY_EXPORT(transpose);

const PackedKernel& packed_kernel_f32() {
  static const PackedKernel kernel = HWY_DYNAMIC_DISPATCH(kernel_f32)();
  return kernel;
}
const PackedKernel& packed_kernel_f64() {
  static const PackedKernel kernel = HWY_DYNAMIC_DISPATCH(kernel_f64)();
  return kernel;
}
PackedKernel packing_bf16() { return HWY_DYNAMIC_DISPATCH(pairs_bf16)(); }
void finish_block(int64_t rows, int64_t cols, const float* sums, int64_t ld, void* c, DType c_dtype, int64_t ldc, bool add_c,
                  const float* bias) {
  HWY_DYNAMIC_DISPATCH(finish)(rows, cols, sums, ld, c, c_dtype, ldc, add_c, bias);
}
void transpose_16(const void* from, int64_t ld, int64_t rows, int64_t cols, void* to) {
  HWY_DYNAMIC_DISPATCH(transpose)(static_cast<const uint16_t*>(from), ld, rows, cols, static_cast<uint16_t*>(to));
}
}  // namespace reckon::cpu
#endif
