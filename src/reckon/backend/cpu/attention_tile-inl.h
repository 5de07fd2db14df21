// backend/cpu/attention_tile-inl: the vector pieces of attention, compiled once per instruction set: rows in and out of float32,
// transposition, 2^x, and small matrix products held in registers. It knows nothing of heads, masks or softmax. Include after
// foreach_target.h.
#include <cstdint>
#include <cstring>

#include "reckon/backend/cpu/attention_block.h"
#include "reckon/backend/cpu/vec-inl.h"

// Per-target include guard.
#if defined(RECKON_ATTENTION_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RECKON_ATTENTION_TILE_INL_H_
#undef RECKON_ATTENTION_TILE_INL_H_
#else
#define RECKON_ATTENTION_TILE_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::detail::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using cpu::HWY_NAMESPACE::read_chunk;
using cpu::HWY_NAMESPACE::write_chunk;
using cpu::HWY_NAMESPACE::write_place;

using Floats = hn::CappedTag<float, 16>;
using Vec = hn::Vec<Floats>;
inline constexpr int64_t kLanes = int64_t(hn::MaxLanes(Floats()));
// Accumulators of a product: 6 rows x 4 vectors fill 32 registers, 6 x 2 fill 16.
inline constexpr int kTileRows = 6;
inline constexpr int kTileVecs = HWY_TARGET <= HWY_AVX3 ? 4 : 2;

HWY_INLINE Vec load(const float* p) { return hn::LoadU(Floats(), p); }
HWY_INLINE Vec all(float x) { return hn::Set(Floats(), x); }
HWY_INLINE void store(Vec v, float* p) { hn::StoreU(v, Floats(), p); }

/// 2^x for x <= 0 and a little above; 0 below -126 and at -inf; NaN stays NaN. About one unit in the last place; 2^0 is exactly 1.
HWY_INLINE Vec exp2(Vec x) {
  const Floats d;
  const hn::RebindToSigned<Floats> di;
  // Adding 1.5 * 2^23 rounds to an integer in the low bits; 127 more makes them the exponent field.
  const Vec magic = all(12582912.0f + 127.0f);
  const Vec shifted = hn::Add(x, magic);
  const Vec f = hn::Sub(x, hn::Sub(shifted, magic));  // in [-0.5, 0.5]
  Vec p = hn::MulAdd(all(0.000154531629f), f, all(0.00133908634f));
  p = hn::MulAdd(p, f, all(0.00961808256f));
  p = hn::MulAdd(p, f, all(0.0555035711f));
  p = hn::MulAdd(p, f, all(0.240226508f));
  p = hn::MulAdd(p, f, all(0.693147188f));
  p = hn::MulAdd(p, f, all(1.0f));
  const Vec power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(di, shifted)));
  return hn::IfThenZeroElse(hn::Lt(x, all(-126.0f)), hn::Mul(p, power));
}

/// to[0..n) = from[0..n) as float32, and zeros up to the next multiple of 16.
HWY_INLINE void load_row(DType dtype, const char* from, int64_t n, float* to) {
  if (dtype == DType::f32) {
    const auto* in = reinterpret_cast<const float*>(from);
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(load(in + i), to + i);
    for (; i < n; ++i) to[i] = in[i];
  } else {
    read_chunk(dtype, from, 0, n, to);
  }
  for (int64_t i = n; i < padded(n); ++i) to[i] = 0;
}

/// to[0..n) = factor * from[0..n), rounded to nearest even.
HWY_INLINE void store_row(DType dtype, const float* from, float factor, int64_t n, char* to) {
  float buffer[kMaxHeadDim];
  float* place = write_place(dtype, to, 0, buffer);
  const Vec f = all(factor);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(hn::Mul(load(from + i), f), place + i);
  for (; i < n; ++i) place[i] = from[i] * factor;
  write_chunk(dtype, to, 0, n, buffer);
}

/// to[c][r] = factor * from[r][c] for r < 4, c < 4.
HWY_INLINE void transpose_4x4(const float* from, int64_t from_stride, float factor, float* to, int64_t to_stride) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t r = 0; r < 4; ++r) {
    for (int64_t c = 0; c < 4; ++c) to[c * to_stride + r] = factor * from[r * from_stride + c];
  }
#else
  const hn::FixedTag<float, 4> d;
  const hn::FixedTag<double, 2> dd;
  const auto f = hn::Set(d, factor);
  const auto r0 = hn::Mul(f, hn::LoadU(d, from)), r1 = hn::Mul(f, hn::LoadU(d, from + from_stride));
  const auto r2 = hn::Mul(f, hn::LoadU(d, from + 2 * from_stride)), r3 = hn::Mul(f, hn::LoadU(d, from + 3 * from_stride));
  const auto low01 = hn::BitCast(dd, hn::InterleaveLower(d, r0, r1)), high01 = hn::BitCast(dd, hn::InterleaveUpper(d, r0, r1));
  const auto low23 = hn::BitCast(dd, hn::InterleaveLower(d, r2, r3)), high23 = hn::BitCast(dd, hn::InterleaveUpper(d, r2, r3));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dd, low01, low23)), d, to);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dd, low01, low23)), d, to + to_stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dd, high01, high23)), d, to + 2 * to_stride);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dd, high01, high23)), d, to + 3 * to_stride);
#endif
}

/// to[c][r] = factor * from[r][c]; rows and columns are multiples of 4.
HWY_INLINE void transpose(const float* from, int64_t rows, int64_t columns, int64_t from_stride, float factor, float* to,
                          int64_t to_stride) {
  for (int64_t c = 0; c < columns; c += 4) {
    for (int64_t r = 0; r < rows; r += 4) transpose_4x4(from + r * from_stride + c, from_stride, factor, to + c * to_stride + r, to_stride);
  }
}

/// What a product does with its result: c = ab, c += ab, c = factor[row] * c + ab.
enum class Into { set, add, scale_and_add };

/// One small product c[m][n] (op)= sum over k of a(m, k) * b[k][n].
struct Product {
  const float* a;  // a(m, k) = a[m * a_row + k] if the rows of a run along k, else a[m + k * a_row]
  int64_t a_row;
  const float* b;  // [k][n], stride b_row
  int64_t b_row;
  float* c;  // [m][n], stride c_row
  int64_t c_row;
  int64_t k;
  const float* factor;
};

// Each output element is one chain over k, whatever R and V: how a product is cut into tiles never shows in the bits.
template <int R, int V, bool kAlongK, Into kInto>
HWY_NOINLINE void product_tile(const Product& p) {
  Vec sum[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sum[r][v] = hn::Zero(Floats());
  }
  const float* a = p.a;
  const float* b = p.b;
  const int64_t a_row = kAlongK ? p.a_row : 1, a_step = kAlongK ? 1 : p.a_row, b_row = p.b_row;
  for (int64_t k = p.k; k > 0; --k) {
    Vec bs[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) bs[v] = load(b + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Vec x = all(a[r * a_row]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[r][v] = hn::MulAdd(x, bs[v], sum[r][v]);
    }
    a += a_step;
    b += b_row;
  }
  float* c = p.c;
  const float* factor = p.factor;
  const int64_t c_row = p.c_row;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      float* at = c + r * c_row + v * kLanes;
      if constexpr (kInto == Into::set) store(sum[r][v], at);
      if constexpr (kInto == Into::add) store(hn::Add(load(at), sum[r][v]), at);
      if constexpr (kInto == Into::scale_and_add) store(hn::MulAdd(all(factor[r]), load(at), sum[r][v]), at);
    }
  }
}

template <int R, bool kAlongK, Into kInto>
HWY_INLINE void product_vecs(const Product& p, int vecs) {
  if constexpr (kTileVecs == 4) {
    if (vecs == 4) return product_tile<R, 4, kAlongK, kInto>(p);
    if (vecs == 3) return product_tile<R, 3, kAlongK, kInto>(p);
  }
  return vecs == 2 ? product_tile<R, 2, kAlongK, kInto>(p) : product_tile<R, 1, kAlongK, kInto>(p);
}

template <int R, bool kAlongK, Into kInto>
HWY_INLINE void product_rows(Product& p, int64_t& rows, int vecs) {
  for (; rows >= R; rows -= R) {
    product_vecs<R, kAlongK, kInto>(p, vecs);
    p.a += R * (kAlongK ? p.a_row : 1);
    p.c += R * p.c_row;
    if constexpr (kInto == Into::scale_and_add) p.factor += R;
  }
}

/// The product for `rows` rows and `vecs` vectors of columns.
template <bool kAlongK, Into kInto>
HWY_INLINE void product(Product p, int64_t rows, int64_t vecs) {
  RECKON_COUNT_MATMUL(2 * rows * vecs * kLanes * p.k);
  while (vecs > 0) {
    const int chunk = int(ceil_div(vecs, ceil_div(vecs, kTileVecs)));  // 5 vectors are 3 + 2, not 4 + 1
    Product q = p;
    int64_t left = rows;
    product_rows<kTileRows, kAlongK, kInto>(q, left, chunk);
    product_rows<4, kAlongK, kInto>(q, left, chunk);
    product_rows<2, kAlongK, kInto>(q, left, chunk);
    product_rows<1, kAlongK, kInto>(q, left, chunk);
    p.b += chunk * kLanes;
    p.c += chunk * kLanes;
    vecs -= chunk;
  }
}
}  // namespace reckon::cpu::detail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
