// backend/cpu/indexing: gather walks its result, in runs that share an index where there are any. Scatters give each task columns of its
// own, along which it goes in order: no locks, and the same bits at any number of threads.
#include "reckon/backend/cpu/indexing.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "reckon/backend/cpu/count.h"
#include "reckon/backend/cpu/row_tasks.h"
#include "reckon/backend/cpu/stream.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
constexpr int64_t kLeastColumns = 128;  // of one task of a scatter: some cache lines

// Strides with that of one axis taken out.
struct Strides {
  int64_t beside[kMaxRank] = {};
  int64_t along = 0;
  Strides(const int64_t* strides, const Shape& shape, int axis) {
    std::copy(strides, strides + shape.rank(), beside);
    along = strides[axis];
    beside[axis] = 0;
  }
};

template <class T>
void gather_run(const T* x, int64_t sx, int64_t along, int64_t extent, T missing, const Indices& index, int64_t at, int64_t si, T* y,
                int64_t sy, int64_t n, bool streams) {
  constexpr int64_t kLeastRun = 2048;  // bytes: shorter ones end in too many lines that are stored by parts
  if (si == 0 || n == 1) {             // one index for the whole run
    const int64_t id = index[at];
    const bool inside = id >= 0 && id < extent;
    if (inside && sx == 1 && sy == 1) {
      const int64_t bytes = n * int64_t(sizeof(T));
      return streams && bytes >= kLeastRun ? stream_run(x + id * along, y, bytes) : void(std::memcpy(y, x + id * along, size_t(bytes)));
    }
    for (int64_t i = 0; i < n; ++i) y[i * sy] = inside ? x[i * sx + id * along] : missing;
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    const int64_t id = index[at + i * si];
    y[i * sy] = id >= 0 && id < extent ? x[i * sx + id * along] : missing;
  }
}

template <class T>
void gather_as(uint64_t missing_bits, const Shape& shape, int axis, Strided x, int64_t extent, Indices index, void* y) {
  T missing;
  std::memcpy(&missing, &missing_bits, sizeof missing);  // little-endian: the low bytes
  int64_t dense[kMaxRank];
  dense_strides(shape, dense);
  const Strides from(x.strides, shape, axis);
  const int64_t* strides[] = {dense, from.beside, index.at.strides};
  const Loop loop = make_loop(shape, 3, strides);
  const bool streams = loop.total > kCachedBytes / 2 / int64_t(sizeof(T));  // the result is beyond the caches
  parallel_range(loop.total, kTaskElements, [&](int64_t begin, int64_t end) {
    walk(loop, begin, end, [&](int64_t n, const int64_t* at) {
      gather_run(static_cast<const T*>(x.data) + at[1], loop.inner_stride(1), from.along, extent, missing, index, at[2],
                 loop.inner_stride(2), static_cast<T*>(y) + at[0], loop.inner_stride(0), n, streams);
    });
    if (streams) stream_fence();
  });
}

// put(y element, src element) for each index that is in range, in order along the axis; a task has columns of its own.
template <class To, class From, class Put>
void scatter_as(const Shape& shape, int axis, Indices index, Strided src, const Shape& y_shape, void* y, Put put) {
  const int64_t length = shape[axis], extent = y_shape[axis];
  int64_t dense[kMaxRank];
  dense_strides(y_shape, dense);
  const Strides to(dense, shape, axis), ids(index.at.strides, shape, axis), from(src.strides, shape, axis);
  const int64_t* strides[] = {to.beside, ids.beside, from.beside};
  const Loop loop = make_loop(shape.with(axis, 1), 3, strides);
  const int64_t sy = loop.inner_stride(0), si = loop.inner_stride(1), ss = loop.inner_stride(2);
  // Element j along the axis of n columns from `at` on.
  const auto row = [&](const int64_t* at, int64_t first, int64_t n, int64_t j) {
    To* const rows = static_cast<To*>(y) + at[0] + first * sy;
    const From* const values = static_cast<const From*>(src.data) + at[2] + first * ss + j * from.along;
    const int64_t place = at[1] + first * si + j * ids.along;
    if (si != 0 && n > 1) {
      for (int64_t i = 0; i < n; ++i)
        if (const int64_t id = index[place + i * si]; id >= 0 && id < extent) put(rows[i * sy + id * to.along], values[i * ss]);
      return;
    }
    const int64_t id = index[place];  // one index for the whole row
    if (id < 0 || id >= extent) return;
    To* const chosen = rows + id * to.along;
    if (sy == 1 && ss == 1) {
      for (int64_t i = 0; i < n; ++i) put(chosen[i], values[i]);
    } else {
      for (int64_t i = 0; i < n; ++i) put(chosen[i * sy], values[i * ss]);
    }
  };
  const int64_t grain = std::max<int64_t>(kLeastColumns, kTaskElements / std::max<int64_t>(length, 1));
  parallel_range(length == 0 ? 0 : loop.total, grain, [&](int64_t begin, int64_t end) {
    walk(loop, begin, end, [&](int64_t n, const int64_t* at) {
      const int64_t together = sy == 1 ? n : 1;  // columns that lie side by side go row by row
      for (int64_t i = 0; i < n; i += together)
        for (int64_t j = 0; j < length; ++j) row(at, i, together, j);
    });
  });
}
template <class T>
void place_as(const Shape& shape, int axis, Indices index, Strided src, const Shape& y_shape, void* y) {
  scatter_as<T, T>(shape, axis, index, src, y_shape, y, [](T& to, T from) { to = from; });
}
template <class To, class From>
void add_as(const Shape& shape, int axis, Indices index, Strided src, const Shape& y_shape, void* y) {
  scatter_as<To, From>(shape, axis, index, src, y_shape, y, [](To& to, From from) {
    if constexpr (std::is_integral_v<To>) {
      using U = std::make_unsigned_t<To>;
      to = To(U(to) + U(from));
    } else {
      to += To(from);
    }
  });
  RECKON_COUNT_VECTOR(shape.numel());
}
}  // namespace

void gather(int64_t element_bytes, uint64_t missing, const Shape& shape, int axis, Strided x, int64_t extent, Indices index, void* y) {
  switch (element_bytes) {
    case 1:
      return gather_as<uint8_t>(missing, shape, axis, x, extent, index, y);
    case 2:
      return gather_as<uint16_t>(missing, shape, axis, x, extent, index, y);
    case 4:
      return gather_as<uint32_t>(missing, shape, axis, x, extent, index, y);
    default:
      RECKON_ASSERT(element_bytes == 8);
      return gather_as<uint64_t>(missing, shape, axis, x, extent, index, y);
  }
}

void scatter(int64_t element_bytes, const Shape& shape, int axis, Indices index, Strided src, const Shape& y_shape, void* y) {
  switch (element_bytes) {
    case 1:
      return place_as<uint8_t>(shape, axis, index, src, y_shape, y);
    case 2:
      return place_as<uint16_t>(shape, axis, index, src, y_shape, y);
    case 4:
      return place_as<uint32_t>(shape, axis, index, src, y_shape, y);
    default:
      RECKON_ASSERT(element_bytes == 8);
      return place_as<uint64_t>(shape, axis, index, src, y_shape, y);
  }
}

void scatter_add(DType src_dtype, const Shape& shape, int axis, Indices index, Strided src, const Shape& y_shape, void* y) {
  switch (src_dtype) {
    case DType::f32:
      return add_as<float, float>(shape, axis, index, src, y_shape, y);
    case DType::f64:
      return add_as<double, double>(shape, axis, index, src, y_shape, y);
    case DType::bf16:
      return add_as<float, bfloat16>(shape, axis, index, src, y_shape, y);
    case DType::f16:
      return add_as<float, float16>(shape, axis, index, src, y_shape, y);
    case DType::i32:
      return add_as<int32_t, int32_t>(shape, axis, index, src, y_shape, y);
    case DType::i64:
      return add_as<int64_t, int64_t>(shape, axis, index, src, y_shape, y);
    case DType::u8:
      return add_as<uint8_t, uint8_t>(shape, axis, index, src, y_shape, y);
    default:
      fail("scatter_add: {} is not added", name_of(src_dtype));
  }
}
}  // namespace reckon::cpu
