// backend/cpu/gemm_kernels: micro-kernels and packing of the packed engine, compiled once per instruction set. They see one panel at a
// time and know nothing of tiles, blocks or threads.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/gemm_kernels.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#include <hwy/foreach_target.h>
// after foreach_target: Highway compiles what follows once per target
#include <hwy/highway.h>

#include "reckon/backend/cpu/gemm_packed.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_AVX3
constexpr int kRows = 12, kVectors = 2;  // 24 of 32 registers hold sums
#elif HWY_TARGET == HWY_AVX2
constexpr int kRows = 4, kVectors = 3;  // 12 of 16
#else
constexpr int kRows = 4, kVectors = 4;  // one lane: a compiler without Highway's targets, or a machine without AVX2
#endif

template <class T>
constexpr int kColumns = kVectors* int(hn::MaxLanes(hn::ScalableTag<T>()));

#if HWY_TARGET != HWY_SCALAR
// Four (float) or two (double) consecutive elements, converted.
constexpr hn::Full128<float> d4;
constexpr hn::Full128<double> d2;
HWY_INLINE hn::Vec<decltype(d4)> load_block(const float* p) { return hn::LoadU(d4, p); }
HWY_INLINE hn::Vec<decltype(d2)> load_block(const double* p) { return hn::LoadU(d2, p); }
HWY_INLINE hn::Vec<decltype(d4)> load_block(const bfloat16* p) {
  const hn::Rebind<uint16_t, decltype(d4)> d16;
  const auto wide = hn::PromoteTo(hn::Full128<uint32_t>(), hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p)));
  return hn::BitCast(d4, hn::ShiftLeft<16>(wide));
}
HWY_INLINE hn::Vec<decltype(d4)> load_block(const float16* p) {
  const hn::Rebind<hwy::float16_t, decltype(d4)> d16;
  return hn::PromoteTo(d4, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(p)));
}

// Transposes blocks of four lines by four elements: the lines run along k in memory.
template <int W, class S>
void pack_four_lines(const S* from, int64_t line_stride, int64_t kc, float* out) {
  int64_t k = 0;
  for (; k + 4 <= kc; k += 4, out += 4 * W) {
    const S* p = from + k;
    const auto r0 = load_block(p), r1 = load_block(p + line_stride), r2 = load_block(p + 2 * line_stride),
               r3 = load_block(p + 3 * line_stride);
    const auto low01 = hn::InterleaveLower(d4, r0, r1), low23 = hn::InterleaveLower(d4, r2, r3);
    const auto high01 = hn::InterleaveUpper(d4, r0, r1), high23 = hn::InterleaveUpper(d4, r2, r3);
    hn::StoreU(hn::ConcatLowerLower(d4, low23, low01), d4, out);
    hn::StoreU(hn::ConcatUpperUpper(d4, low23, low01), d4, out + W);
    hn::StoreU(hn::ConcatLowerLower(d4, high23, high01), d4, out + 2 * W);
    hn::StoreU(hn::ConcatUpperUpper(d4, high23, high01), d4, out + 3 * W);
  }
  for (; k < kc; ++k, out += W)
    for (int line = 0; line < 4; ++line) out[line] = float(from[line * line_stride + k]);
}

template <int W>
void pack_four_lines(const double* from, int64_t line_stride, int64_t kc, double* out) {
  int64_t k = 0;
  for (; k + 2 <= kc; k += 2, out += 2 * W) {
    for (int line = 0; line < 4; line += 2) {
      const double* p = from + line * line_stride + k;
      const auto r0 = load_block(p), r1 = load_block(p + line_stride);
      hn::StoreU(hn::InterleaveLower(d2, r0, r1), d2, out + line);
      hn::StoreU(hn::InterleaveUpper(d2, r0, r1), d2, out + W + line);
    }
  }
  if (k < kc)
    for (int line = 0; line < 4; ++line) out[line] = from[line * line_stride + k];
}
#endif

template <int W, class T, class S>
void pack_lines(const S* from, int64_t line_stride, int64_t k_stride, int64_t lines, int64_t kc, T* out) {
  int64_t line = 0;
#if HWY_TARGET != HWY_SCALAR
  constexpr int kBlock = 16 / int(sizeof(T));
  if (lines == W && line_stride == 1) {
    for (int64_t k = 0; k < kc; ++k, out += W, from += k_stride)
      for (int at = 0; at < W; at += kBlock) {
        const auto block = load_block(from + at);
        hn::StoreU(block, hn::DFromV<decltype(block)>(), out + at);
      }
    return;
  }
  if (k_stride == 1)
    for (; line + 4 <= lines; line += 4) pack_four_lines<W>(from + line * line_stride, line_stride, kc, out + line);
  if (line == W) return;
#endif
  for (int64_t k = 0; k < kc; ++k) {
    for (int64_t rest = line; rest < lines; ++rest) out[k * W + rest] = T(from[rest * line_stride + k * k_stride]);
    for (int64_t pad = lines; pad < W; ++pad) out[k * W + pad] = T(0);
  }
}

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

template <class T>
void multiply(int64_t kc, const void* a_panel, const void* b_panel, void* sums, int64_t ld, bool add) {
  const hn::ScalableTag<T> d;
  constexpr int kLanes = kColumns<T> / kVectors;
  const T* a = static_cast<const T*>(a_panel);
  const T* b = static_cast<const T*>(b_panel);
  T* c = static_cast<T*>(sums);
  hn::Vec<decltype(d)> sum[kRows][kVectors];
  for (int i = 0; i < kRows; ++i)  // C comes from far away while the panels are multiplied
    for (int64_t byte = 0; byte < int64_t(kColumns<T> * sizeof(T)); byte += 64)
      __builtin_prefetch(reinterpret_cast<const char*>(c + i * ld) + byte, 1);
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sum[i][v] = hn::Zero(d);
  for (int64_t k = 0; k < kc; ++k, a += kRows, b += kColumns<T>) {
    hn::Vec<decltype(d)> row[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) row[v] = hn::Load(d, b + v * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const auto element = hn::Set(d, a[i]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[i][v] = hn::MulAdd(element, row[v], sum[i][v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      T* to = c + i * ld + v * kLanes;
      hn::StoreU(add ? hn::Add(hn::LoadU(d, to), sum[i][v]) : sum[i][v], d, to);
    }
}

// f32 and f64 take half a mebibyte at most with 444 and 216 rows: 16-bit outputs need room for their sums, and take 216 rows.
PackedKernel kernel_f32() {
  constexpr int kWide = kColumns<float>;
  return {kRows, kWide, kRows == 12 ? 444 : 216, 256, 4, 4, pack_f32<kRows>, pack_f32<kWide>, multiply<float>};
}
PackedKernel kernel_f64() {
  constexpr int kWide = kColumns<double>;
  return {kRows, kWide, 216, 256, 8, 8, pack_f64<kRows>, pack_f64<kWide>, multiply<double>};
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
HWY_INLINE void store_block(hn::Vec<decltype(d4)> x, float* p) { hn::StoreU(x, d4, p); }
HWY_INLINE void store_block(hn::Vec<decltype(d4)> x, bfloat16* p) {
  const hn::Full128<uint32_t> du;
  const auto bits = hn::BitCast(du, x);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
  const auto rounded = hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(du, 0x7FFFu)), odd));
  const auto quiet = hn::Or(hn::ShiftRight<16>(bits), hn::Set(du, 0x40u));
  const auto result = hn::IfThenElse(hn::RebindMask(du, hn::IsNaN(x)), quiet, rounded);
  const hn::Rebind<uint16_t, decltype(du)> d16;
  hn::StoreU(hn::DemoteTo(d16, hn::BitCast(hn::Full128<int32_t>(), result)), d16, reinterpret_cast<uint16_t*>(p));
}
HWY_INLINE void store_block(hn::Vec<decltype(d4)> x, float16* p) {
  const hn::Rebind<hwy::float16_t, decltype(d4)> d16;
  hn::StoreU(hn::DemoteTo(d16, x), d16, reinterpret_cast<hwy::float16_t*>(p));
}
#endif

// bias: `cols` floats rounded up to 4
template <class C>
void finish_rows(int64_t rows, int64_t cols, const float* sums, int64_t ld, C* c, int64_t ldc, bool add_c, const float* bias) {
  for (int64_t i = 0; i < rows; ++i, sums += ld, c += ldc) {
    int64_t j = 0;
#if HWY_TARGET != HWY_SCALAR
    for (; j + 4 <= cols; j += 4) {
      auto x = load_block(sums + j);
      if (add_c) x = hn::Add(load_block(c + j), x);
      if (bias) x = hn::Add(x, load_block(bias + j));
      store_block(x, c + j);
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
void finish_block(int64_t rows, int64_t cols, const float* sums, int64_t ld, void* c, DType c_dtype, int64_t ldc, bool add_c,
                  const float* bias) {
  HWY_DYNAMIC_DISPATCH(finish)(rows, cols, sums, ld, c, c_dtype, ldc, add_c, bias);
}
void transpose_16(const void* from, int64_t ld, int64_t rows, int64_t cols, void* to) {
  HWY_DYNAMIC_DISPATCH(transpose)(static_cast<const uint16_t*>(from), ld, rows, cols, static_cast<uint16_t*>(to));
}
}  // namespace reckon::cpu
#endif
