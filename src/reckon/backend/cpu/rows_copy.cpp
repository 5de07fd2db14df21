// backend/cpu/rows_copy: strided copies. Runs that are dense on both sides are memcpy; a transpose (another axis is dense in the source)
// goes by tiles whose 4 x 4 or 8 x 8 blocks are turned in registers; anything else is a strided loop.
#include "reckon/backend/cpu/rows_elementwise.h"
#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/rows_copy.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// to[j * to_stride + k] = from[k * from_stride + j] for j < rows, k < cols.
template <class T>
HWY_INLINE void transpose_plain(const T* from, int64_t from_stride, T* to, int64_t to_stride, int64_t rows, int64_t cols) {
  for (int64_t j = 0; j < rows; ++j)
    for (int64_t k = 0; k < cols; ++k) to[j * to_stride + k] = from[k * from_stride + j];
}

#if HWY_TARGET == HWY_SCALAR
template <class T>
HWY_INLINE void transpose_block(const T* from, int64_t from_stride, T* to, int64_t to_stride) {
  transpose_plain(from, from_stride, to, to_stride, 16 / int64_t(sizeof(T)), 16 / int64_t(sizeof(T)));
}
#else
// One stage: pairs row i with row i + half, at ever wider lanes.
template <class Lane, class D, class V>
HWY_INLINE void interleave(D d, V a, V b, V& low, V& high) {
  const hn::Repartition<Lane, D> dl;
  low = hn::BitCast(d, hn::InterleaveLower(dl, hn::BitCast(dl, a), hn::BitCast(dl, b)));
  high = hn::BitCast(d, hn::InterleaveUpper(dl, hn::BitCast(dl, a), hn::BitCast(dl, b)));
}

HWY_INLINE void transpose_block(const uint32_t* from, int64_t from_stride, uint32_t* to, int64_t to_stride) {
  const hn::FixedTag<uint32_t, 4> d;
  hn::Vec<decltype(d)> r[4], s[4];
  for (int k = 0; k < 4; ++k) r[k] = hn::LoadU(d, from + k * from_stride);
  for (int k = 0; k < 2; ++k) interleave<uint32_t>(d, r[2 * k], r[2 * k + 1], s[2 * k], s[2 * k + 1]);
  for (int k = 0; k < 2; ++k) interleave<uint64_t>(d, s[k], s[k + 2], r[2 * k], r[2 * k + 1]);
  for (int j = 0; j < 4; ++j) hn::StoreU(r[j], d, to + j * to_stride);
}

HWY_INLINE void transpose_block(const uint16_t* from, int64_t from_stride, uint16_t* to, int64_t to_stride) {
  const hn::FixedTag<uint16_t, 8> d;
  hn::Vec<decltype(d)> r[8], s[8];
  for (int k = 0; k < 8; ++k) r[k] = hn::LoadU(d, from + k * from_stride);
  for (int k = 0; k < 4; ++k) interleave<uint16_t>(d, r[2 * k], r[2 * k + 1], s[k], s[k + 4]);  // s[k + 4 h]: rows 2k, 2k+1; columns 4h..
  for (int h = 0; h < 2; ++h)
    for (int k = 0; k < 2; ++k) interleave<uint32_t>(d, s[4 * h + 2 * k], s[4 * h + 2 * k + 1], r[4 * h + k], r[4 * h + k + 2]);
  for (int q = 0; q < 4; ++q) interleave<uint64_t>(d, r[2 * q], r[2 * q + 1], s[2 * q], s[2 * q + 1]);  // q: columns 2q, 2q+1
  for (int j = 0; j < 8; ++j) hn::StoreU(s[j], d, to + j * to_stride);
}
#endif

template <class T>
void transpose_tile(const T* from, int64_t from_stride, T* to, int64_t to_stride, int64_t rows, int64_t cols) {
  if constexpr (sizeof(T) == 2 || sizeof(T) == 4) {
    constexpr int64_t kBlock = 16 / int64_t(sizeof(T));
    const int64_t whole_rows = rows / kBlock * kBlock, whole_cols = cols / kBlock * kBlock;
    // A cache line of the source is used up before it is left: at strides of a power of two, few lines fit in the cache at once.
    constexpr int64_t kLine = 64 / int64_t(sizeof(T));
    for (int64_t line = 0; line < whole_rows; line += kLine)
      for (int64_t k = 0; k < whole_cols; k += kBlock)
        for (int64_t j = line; j < whole_rows && j < line + kLine; j += kBlock)
          transpose_block(from + k * from_stride + j, from_stride, to + j * to_stride + k, to_stride);
    transpose_plain(from + whole_cols * from_stride, from_stride, to + whole_cols, to_stride, whole_rows, cols - whole_cols);
    transpose_plain(from + whole_rows, from_stride, to + whole_rows * to_stride, to_stride, rows - whole_rows, cols);
  } else {
    transpose_plain(from, from_stride, to, to_stride, rows, cols);
  }
}

void transpose(int64_t element_bytes, const void* from, int64_t from_stride, void* to, int64_t to_stride, int64_t rows, int64_t cols) {
  switch (element_bytes) {
    case 1:
      return transpose_tile(static_cast<const uint8_t*>(from), from_stride, static_cast<uint8_t*>(to), to_stride, rows, cols);
    case 2:
      return transpose_tile(static_cast<const uint16_t*>(from), from_stride, static_cast<uint16_t*>(to), to_stride, rows, cols);
    case 4:
      return transpose_tile(static_cast<const uint32_t*>(from), from_stride, static_cast<uint32_t*>(to), to_stride, rows, cols);
    default:
      return transpose_tile(static_cast<const uint64_t*>(from), from_stride, static_cast<uint64_t*>(to), to_stride, rows, cols);
  }
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "reckon/backend/cpu/rows.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(transpose);

constexpr int64_t kTileRows = 128, kTileCols = 256;  // measured: 40 GB/s at 4 bytes on two cores, against 15 at 64 x 64

template <class T>
void copy_run(const void* from, int64_t at, int64_t stride, void* to, int64_t to_at, int64_t to_stride, int64_t n) {
  const T* source = static_cast<const T*>(from) + at;
  T* place = static_cast<T*>(to) + to_at;
  for (int64_t i = 0; i < n; ++i) place[i * to_stride] = source[i * stride];
}

void copy_part(int64_t bytes, const Loop& loop, const void* from, void* to, int64_t begin, int64_t end) {
  const int64_t st = loop.inner_stride(0), sf = loop.inner_stride(1);
  walk(loop, begin, end, [&](int64_t n, const int64_t* at) {
    if (st == 1 && sf == 1) {
      std::memcpy(static_cast<char*>(to) + at[0] * bytes, static_cast<const char*>(from) + at[1] * bytes, size_t(n * bytes));
      return;
    }
    switch (bytes) {
      case 1:
        return copy_run<uint8_t>(from, at[1], sf, to, at[0], st, n);
      case 2:
        return copy_run<uint16_t>(from, at[1], sf, to, at[0], st, n);
      case 4:
        return copy_run<uint32_t>(from, at[1], sf, to, at[0], st, n);
      default:
        return copy_run<uint64_t>(from, at[1], sf, to, at[0], st, n);
    }
  });
}

// The axis along which the source is dense, if that is not the innermost one; -1 if there is none.
int transposed_axis(const Loop& loop) {
  if (loop.inner_stride(0) != 1 || loop.inner_stride(1) == 1) return -1;
  for (int axis = loop.rank - 2; axis >= 0; --axis)
    if (loop.stride[1][axis] == 1) return axis;
  return -1;
}

// Tiles of axis (rows j, dense in the source) by the innermost axis (columns k, dense in the destination); the other axes are walked.
void copy_tiles(int64_t bytes, const Loop& loop, int axis, const void* from, void* to) {
  const int last = loop.rank - 1;
  const int64_t rows = loop.extent[axis], cols = loop.extent[last], to_stride = loop.stride[0][axis], from_stride = loop.stride[1][last];
  Loop outer = loop;  // the same nest with both axes reduced to one element
  outer.extent[axis] = outer.extent[last] = 1;
  outer.total = loop.total / rows / cols;
  const int64_t down = (rows + kTileRows - 1) / kTileRows, across = (cols + kTileCols - 1) / kTileCols;
  parallel_for(outer.total * down, [&](int64_t task) {
    const int64_t j = task % down * kTileRows;
    walk(outer, task / down, task / down + 1, [&](int64_t, const int64_t* at) {
      for (int64_t tile = 0; tile < across; ++tile) {
        const int64_t k = tile * kTileCols;
        HWY_DYNAMIC_DISPATCH(transpose)
        (bytes, static_cast<const char*>(from) + (at[1] + j + k * from_stride) * bytes, from_stride,
         static_cast<char*>(to) + (at[0] + j * to_stride + k) * bytes, to_stride, std::min(kTileRows, rows - j),
         std::min(kTileCols, cols - k));
      }
    });
  });
}
}  // namespace

void copy_strided(int64_t element_bytes, const Shape& shape, Strided from, void* to, const int64_t* to_strides) {
  RECKON_ASSERT(element_bytes == 1 || element_bytes == 2 || element_bytes == 4 || element_bytes == 8);
  const int64_t* strides[] = {to_strides, from.strides};
  const Loop loop = make_loop(shape, 2, strides);
  if (loop.total == 0) return;
  if (const int axis = transposed_axis(loop); axis >= 0) return copy_tiles(element_bytes, loop, axis, from.data, to);
  parallel_range(loop.total, kTaskElements, [&](int64_t begin, int64_t end) { copy_part(element_bytes, loop, from.data, to, begin, end); });
}
}  // namespace reckon::cpu
#endif
