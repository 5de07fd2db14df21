// backend/cpu/rows_copy: strided copies. Runs that are dense on both sides are memcpy; a transpose (another axis is dense in the source)
// goes by blocks that are turned in registers into whole vectors of the result; anything else is a strided loop.
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

#if HWY_TARGET != HWY_SCALAR
// One stage: pairs row i with row i + half, at ever wider lanes.
template <class Lane, class D, class V>
HWY_INLINE void interleave(D d, V a, V b, V& low, V& high) {
  const hn::Repartition<Lane, D> dl;
  low = hn::BitCast(d, hn::InterleaveLower(dl, hn::BitCast(dl, a), hn::BitCast(dl, b)));
  high = hn::BitCast(d, hn::InterleaveUpper(dl, hn::BitCast(dl, a), hn::BitCast(dl, b)));
}

// 16 bytes of each of the rows 0, `apart`, 2 * apart, ..., side by side. Interleaving works within each 16 bytes.
template <class D, class T>
HWY_INLINE hn::Vec<D> load_rows(D d, const T* from, int64_t apart) {
  if constexpr (hn::MaxLanes(D()) * sizeof(T) == 16) {
    return hn::LoadU(d, from);
  } else {
    const hn::Half<D> half;
    constexpr int64_t kRows = int64_t(hn::MaxLanes(hn::Half<D>()) * sizeof(T)) / 16;
    return hn::Combine(d, load_rows(half, from + kRows * apart, apart), load_rows(half, from, apart));
  }
}

template <bool kStream, class D, class T>
HWY_INLINE void put(hn::Vec<D> v, D d, T* to) {
  if constexpr (kStream) {
    hn::Stream(v, d, to);
  } else {
    hn::StoreU(v, d, to);
  }
}

// to[j * to_stride + k] = from[k * from_stride + j] for as many j as 16 bytes hold and as many k as a vector holds. Written out, without
// arrays of vectors: those would live on the stack.
template <bool kStream>
HWY_INLINE void turn(const uint64_t* from, int64_t from_stride, uint64_t* to, int64_t to_stride) {
  const hn::ScalableTag<uint64_t> d;
  hn::Vec<decltype(d)> a, b;
  interleave<uint64_t>(d, load_rows(d, from, 2 * from_stride), load_rows(d, from + from_stride, 2 * from_stride), a, b);
  put<kStream>(a, d, to);
  put<kStream>(b, d, to + to_stride);
}
template <bool kStream>
HWY_INLINE void turn(const uint32_t* from, int64_t from_stride, uint32_t* to, int64_t to_stride) {
  const hn::ScalableTag<uint32_t> d;
  const auto row = [&](int64_t i) HWY_ATTR { return load_rows(d, from + i * from_stride, 4 * from_stride); };
  hn::Vec<decltype(d)> a0, a1, b0, b1, c0, c1, c2, c3;
  interleave<uint32_t>(d, row(0), row(1), a0, a1);
  interleave<uint32_t>(d, row(2), row(3), b0, b1);
  interleave<uint64_t>(d, a0, b0, c0, c1);
  interleave<uint64_t>(d, a1, b1, c2, c3);
  put<kStream>(c0, d, to);
  put<kStream>(c1, d, to + to_stride);
  put<kStream>(c2, d, to + 2 * to_stride);
  put<kStream>(c3, d, to + 3 * to_stride);
}

// Rows i .. i + 3 of blocks of 8 x 8, turned: columns 2q and 2q + 1 in the low and the high half of the 16 bytes of out_q.
template <class D, class V>
HWY_INLINE void turn_half(D d, const uint16_t* from, int64_t from_stride, V& out0, V& out1, V& out2, V& out3) {
  const auto row = [&](int64_t i) HWY_ATTR { return load_rows(d, from + i * from_stride, 8 * from_stride); };
  V a0, a1, b0, b1;
  interleave<uint16_t>(d, row(0), row(1), a0, a1);
  interleave<uint16_t>(d, row(2), row(3), b0, b1);
  interleave<uint32_t>(d, a0, b0, out0, out1);
  interleave<uint32_t>(d, a1, b1, out2, out3);
}
template <bool kStream>
HWY_INLINE void turn(const uint16_t* from, int64_t from_stride, uint16_t* to, int64_t to_stride) {
  const hn::ScalableTag<uint16_t> d;
  hn::Vec<decltype(d)> u0, u1, u2, u3, v0, v1, v2, v3;
  turn_half(d, from, from_stride, u0, u1, u2, u3);
  turn_half(d, from + 4 * from_stride, from_stride, v0, v1, v2, v3);
  const auto store = [&](auto u, auto v, uint16_t* at) HWY_ATTR __attribute__((always_inline)) {
    hn::Vec<decltype(d)> low, high;
    interleave<uint64_t>(d, u, v, low, high);
    put<kStream>(low, d, at);
    put<kStream>(high, d, at + to_stride);
  };
  store(u0, v0, to);
  store(u1, v1, to + 2 * to_stride);
  store(u2, v2, to + 4 * to_stride);
  store(u3, v3, to + 6 * to_stride);
}

// The part of a tile that is whole vectors of the result.
template <bool kStream, class T>
HWY_INLINE void turn_blocks(const T* from, int64_t from_stride, T* to, int64_t to_stride, int64_t rows, int64_t cols) {
  constexpr int64_t kTurned = 16 / int64_t(sizeof(T)), kLine = 64 / int64_t(sizeof(T));
  const int64_t N = int64_t(hn::Lanes(hn::ScalableTag<T>()));
  for (int64_t k = 0; k < cols; k += N) {
    for (int64_t next = k + N; next < k + 2 * N && next < cols; ++next)
      for (int64_t j = 0; j < rows; j += kLine) __builtin_prefetch(from + next * from_stride + j);
    for (int64_t j = 0; j < rows; j += kTurned) turn<kStream>(from + k * from_stride + j, from_stride, to + j * to_stride + k, to_stride);
  }
}
#endif

template <class T>
void transpose_tile(const T* from, int64_t from_stride, T* to, int64_t to_stride, int64_t rows, int64_t cols,
                    [[maybe_unused]] bool streams) {
  int64_t whole_rows = 0, whole_cols = 0;
#if HWY_TARGET != HWY_SCALAR
  if constexpr (sizeof(T) > 1) {
    const int64_t kTurned = 16 / int64_t(sizeof(T)), N = int64_t(hn::Lanes(hn::ScalableTag<T>()));
    whole_rows = rows / kTurned * kTurned, whole_cols = cols / N * N;
    if (streams && N * int64_t(sizeof(T)) == 64) {  // halves of lines would leave for memory apart
      turn_blocks<true>(from, from_stride, to, to_stride, whole_rows, whole_cols);
    } else {
      turn_blocks<false>(from, from_stride, to, to_stride, whole_rows, whole_cols);
    }
  }
#endif
  transpose_plain(from + whole_cols * from_stride, from_stride, to + whole_cols, to_stride, whole_rows, cols - whole_cols);
  transpose_plain(from + whole_rows, from_stride, to + whole_rows * to_stride, to_stride, rows - whole_rows, cols);
}

void transpose(int64_t element_bytes, const void* from, int64_t from_stride, void* to, int64_t to_stride, int64_t rows, int64_t cols,
               bool streams) {
  switch (element_bytes) {
    case 1:
      return transpose_tile(static_cast<const uint8_t*>(from), from_stride, static_cast<uint8_t*>(to), to_stride, rows, cols, false);
    case 2:
      return transpose_tile(static_cast<const uint16_t*>(from), from_stride, static_cast<uint16_t*>(to), to_stride, rows, cols, streams);
    case 4:
      return transpose_tile(static_cast<const uint32_t*>(from), from_stride, static_cast<uint32_t*>(to), to_stride, rows, cols, streams);
    default:
      return transpose_tile(static_cast<const uint64_t*>(from), from_stride, static_cast<uint64_t*>(to), to_stride, rows, cols, streams);
  }
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "reckon/backend/cpu/row_tasks.h"
#include "reckon/backend/cpu/stream.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(transpose);

constexpr int64_t kTileBytes = 512, kTileCols = 1024;  // bytes of each row of the source

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
  const int64_t tile_rows = kTileBytes / bytes, down = (rows + tile_rows - 1) / tile_rows, across = (cols + kTileCols - 1) / kTileCols;
  // Vectors of the result are cache lines or halves of them: past the caches they must begin where lines do.
  const bool streams = loop.total > kCachedBytes / 2 / bytes && to_stride * bytes % 64 == 0 && reinterpret_cast<uintptr_t>(to) % 64 == 0;
  parallel_for(outer.total * down, [&](int64_t task) {
    const int64_t j = task % down * tile_rows;
    walk(outer, task / down, task / down + 1, [&](int64_t, const int64_t* at) {
      for (int64_t tile = 0; tile < across; ++tile) {
        const int64_t k = tile * kTileCols;
        HWY_DYNAMIC_DISPATCH(transpose)
        (bytes, static_cast<const char*>(from) + (at[1] + j + k * from_stride) * bytes, from_stride,
         static_cast<char*>(to) + (at[0] + j * to_stride + k) * bytes, to_stride, std::min(tile_rows, rows - j),
         std::min(kTileCols, cols - k), streams && at[0] * bytes % 64 == 0);
      }
    });
    if (streams) stream_fence();
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
