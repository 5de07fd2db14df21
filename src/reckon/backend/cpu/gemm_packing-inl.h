// backend/cpu/gemm_packing-inl: copies lines of a matrix into panels, converting and transposing on the way. Included once per instruction
// set by gemm_kernels.cpp; it knows nothing of multiplication.
#if defined(RECKON_GEMM_PACKING_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef RECKON_GEMM_PACKING_INL
#undef RECKON_GEMM_PACKING_INL
#else
#define RECKON_GEMM_PACKING_INL
#endif
#include <hwy/highway.h>

#include <cstring>

#include "reckon/tensor/dtype.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Two bfloat16 of one line at depths k and k + 1: packed and transposed as one 32-bit word, which is never computed with here.
struct Bf16Pair {
  bfloat16 first, second;
  explicit operator float() const { return std::bit_cast<float>(*this); }
};

// Strides of lines are in bytes: a line of pairs may begin between two pairs.
template <class S>
const S* step(const S* p, int64_t bytes) {
  return reinterpret_cast<const S*>(reinterpret_cast<const char*>(p) + bytes);
}

#if HWY_TARGET != HWY_SCALAR
// A vector of consecutive elements, converted to T's lanes.
template <class D>
HWY_INLINE hn::Vec<D> load_lanes(D d, const float* p) {
  return hn::LoadU(d, p);
}
template <class D>
HWY_INLINE hn::Vec<D> load_lanes(D d, const double* p) {
  return hn::LoadU(d, p);
}
template <class D>
HWY_INLINE hn::Vec<D> load_lanes(D d, const Bf16Pair* p) {
  return hn::LoadU(d, reinterpret_cast<const float*>(p));
}
template <class D>
HWY_INLINE hn::Vec<D> load_lanes(D d, const bfloat16* p) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::RebindToUnsigned<D> d32;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, reinterpret_cast<const uint16_t*>(p)))));
}
template <class D>
HWY_INLINE hn::Vec<D> load_lanes(D d, const float16* p) {
  const hn::Rebind<hwy::float16_t, D> d16;
  return hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(p)));
}

// Transposes inside each 128-bit block: x[i] block b holds line i, elements 4 b and on; then x[c] block b holds element 4 b + c of all
// lines.
template <class D>
HWY_INLINE void transpose_in_blocks(D d, float, hn::Vec<D>* x) {
  const auto low01 = hn::InterleaveLower(d, x[0], x[1]), low23 = hn::InterleaveLower(d, x[2], x[3]);
  const auto high01 = hn::InterleaveUpper(d, x[0], x[1]), high23 = hn::InterleaveUpper(d, x[2], x[3]);
  const hn::RepartitionToWide<D> wide;
  const auto pairs = [&](auto v) { return hn::BitCast(wide, v); };
  x[0] = hn::BitCast(d, hn::InterleaveLower(wide, pairs(low01), pairs(low23)));
  x[1] = hn::BitCast(d, hn::InterleaveUpper(wide, pairs(low01), pairs(low23)));
  x[2] = hn::BitCast(d, hn::InterleaveLower(wide, pairs(high01), pairs(high23)));
  x[3] = hn::BitCast(d, hn::InterleaveUpper(wide, pairs(high01), pairs(high23)));
}
template <class D>
HWY_INLINE void transpose_in_blocks(D d, double, hn::Vec<D>* x) {
  const auto low = hn::InterleaveLower(d, x[0], x[1]);
  x[1] = hn::InterleaveUpper(d, x[0], x[1]);
  x[0] = low;
}

// Transposes the matrix of 128-bit blocks whose rows are x[0], x[step], ...: as many rows as D has blocks (one, two or four).
template <class D>
HWY_INLINE void transpose_blocks(D d, hn::Vec<D>* x, int step) {
  constexpr int kBlocks = int(hn::MaxLanes(D()) * sizeof(hn::TFromD<D>) / 16);
  if constexpr (kBlocks == 4) {
    const auto low02 = hn::ConcatLowerLower(d, x[2 * step], x[0]), low13 = hn::ConcatLowerLower(d, x[3 * step], x[step]);
    const auto high02 = hn::ConcatUpperUpper(d, x[2 * step], x[0]), high13 = hn::ConcatUpperUpper(d, x[3 * step], x[step]);
    x[0] = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(low13), low02);
    x[step] = hn::OddEvenBlocks(low13, hn::SwapAdjacentBlocks(low02));
    x[2 * step] = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(high13), high02);
    x[3 * step] = hn::OddEvenBlocks(high13, hn::SwapAdjacentBlocks(high02));
  } else if constexpr (kBlocks == 2) {
    const auto low = hn::ConcatLowerLower(d, x[step], x[0]);
    x[step] = hn::ConcatUpperUpper(d, x[step], x[0]);
    x[0] = low;
  }
}

// Packs kLines lines that run along k, at most as many as D has lanes, over a depth that is a multiple of the lanes. Whole vectors are
// stored: with fewer lines they reach into the next row, which must be written later.
template <int W, int kLines, class D, class S, class T>
void pack_square(D d, const S* from, int64_t line_bytes, int64_t depth, T* out) {
  constexpr int kLanes = int(hn::MaxLanes(D())), kBlock = 16 / int(sizeof(T));
  for (int64_t k = 0; k < depth; k += kLanes, out += kLanes * W) {
    hn::Vec<D> x[kLanes];
#pragma GCC unroll 16
    for (int line = 0; line < kLanes; ++line) x[line] = line < kLines ? load_lanes(d, step(from, line * line_bytes) + k) : hn::Zero(d);
#pragma GCC unroll 16
    for (int line = 0; line < kLines; line += kBlock) transpose_in_blocks(d, T(), x + line);
#pragma GCC unroll 4
    for (int c = 0; c < kBlock; ++c) transpose_blocks(d, x + c, kBlock);
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) hn::StoreU(x[i], d, out + i * W);
  }
}
#endif

template <int W, class T, class S>
void pack_element_by_element(const S* from, int64_t line_bytes, int64_t k_bytes, int64_t lines, int64_t depth, T* out) {
  for (int64_t k = 0; k < depth; ++k)
    for (int64_t line = 0; line < lines; ++line) out[k * W + line] = T(*step(from, line * line_bytes + k * k_bytes));
}

// Lines that run along memory, over the depth, by squares as large as fit.
template <int W, class T, class S>
void pack_along_k(const S* from, int64_t line_bytes, int64_t lines, int64_t depth, T* out) {
  int64_t line = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<T> wide;
  const hn::Full128<T> narrow;
  constexpr int kWide = int(hn::MaxLanes(hn::ScalableTag<T>())), kNarrow = 16 / int(sizeof(T));
  constexpr int kPart = W % kWide;
  const int64_t wide_depth = depth / kWide * kWide, done = depth / kNarrow * kNarrow;
  const int64_t wide_lines = lines == W ? W : lines / kWide * kWide;
  if constexpr (kPart != 0)  // first, because it reaches into the next rows
    if (lines == W) pack_square<W, kPart>(wide, step(from, (W - kPart) * line_bytes), line_bytes, wide_depth, out + W - kPart);
  for (; line + kWide <= wide_lines; line += kWide)
    pack_square<W, kWide>(wide, step(from, line * line_bytes), line_bytes, wide_depth, out + line);
  for (line = 0; line + kNarrow <= lines; line += kNarrow) {
    const int64_t k = line < wide_lines ? wide_depth : 0;
    pack_square<W, kNarrow>(narrow, step(from, line * line_bytes) + k, line_bytes, done - k, out + k * W + line);
  }
  pack_element_by_element<W>(from + done, line_bytes, sizeof(S), line, depth - done, out + done * W);
#endif
  pack_element_by_element<W>(step(from, line * line_bytes), line_bytes, sizeof(S), lines - line, depth, out + line);
}

// A full panel whose lines lie side by side in memory.
template <int W, class T, class S>
void pack_across(const S* from, int64_t k_stride, int64_t depth, T* out) {
#if HWY_TARGET != HWY_SCALAR
  constexpr int kWide = int(hn::MaxLanes(hn::ScalableTag<T>())), kLanes = W % kWide == 0 ? kWide : 16 / int(sizeof(T));
  const hn::CappedTag<T, kLanes> d;
  for (int64_t k = 0; k < depth; ++k, out += W, from += k_stride)
#pragma GCC unroll 8
    for (int at = 0; at < W; at += kLanes) hn::StoreU(load_lanes(d, from + at), d, out + at);
#else
  pack_element_by_element<W>(from, sizeof(S), k_stride * int64_t(sizeof(S)), W, depth, out);
#endif
}

template <int W, class T>
void pad_lines(int64_t lines, int64_t depth, T* out) {
  for (int64_t k = 0; lines < W && k < depth; ++k)
    for (int64_t line = lines; line < W; ++line) out[k * W + line] = T(0);
}

/// out[depth][W] = lines of `from`, zero from `lines` on; strides in elements.
template <int W, class T, class S>
void pack_lines(const S* from, int64_t line_stride, int64_t k_stride, int64_t lines, int64_t depth, T* out) {
  constexpr int64_t kBytes = sizeof(S);
  if (line_stride == 1 && lines == W) return pack_across<W>(from, k_stride, depth, out);
  if (k_stride == 1)
    pack_along_k<W>(from, line_stride * kBytes, lines, depth, out);
  else
    pack_element_by_element<W>(from, line_stride * kBytes, k_stride * kBytes, lines, depth, out);
  pad_lines<W>(lines, depth, out);
}

/// out[ceil(depth / 2)][W] = pairs of `from`; an odd depth ends in a pair with zero.
template <int W>
void pack_pairs(const bfloat16* from, int64_t line_stride, int64_t k_stride, int64_t lines, int64_t depth, uint32_t* out) {
  const auto pair = [&](int64_t line, int64_t k) {
    const bfloat16* p = from + line * line_stride + k * k_stride;
    return uint32_t(p[0].bits) | (k + 1 < depth ? uint32_t(p[k_stride].bits) << 16 : 0u);
  };
  int64_t k = 0;
  if (k_stride == 1) {
    pack_along_k<W>(reinterpret_cast<const Bf16Pair*>(from), line_stride * 2, lines, depth / 2, reinterpret_cast<float*>(out));
    k = depth / 2 * 2;
  }
#if HWY_TARGET != HWY_SCALAR
  constexpr int kWide = int(hn::MaxLanes(hn::ScalableTag<uint32_t>())), kLanes = W % kWide == 0 ? kWide : 4;
  const hn::CappedTag<uint32_t, kLanes> d;
  const hn::Rebind<uint16_t, decltype(d)> d16;
  for (; line_stride == 1 && lines == W && k + 2 <= depth; k += 2)
    for (int at = 0; at < W; at += kLanes) {
      const uint16_t* p = &from[k * k_stride + at].bits;
      const auto first = hn::PromoteTo(d, hn::LoadU(d16, p)), second = hn::PromoteTo(d, hn::LoadU(d16, p + k_stride));
      hn::StoreU(hn::Or(first, hn::ShiftLeft<16>(second)), d, out + k / 2 * W + at);
    }
#endif
  for (; k < depth; k += 2)
    for (int64_t line = 0; line < lines; ++line) out[k / 2 * W + line] = pair(line, k);
  pad_lines<W>(lines, (depth + 1) / 2, out);
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
