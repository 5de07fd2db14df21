#include "reckon/backend/cpu/assign.h"

#include <algorithm>
#include <cstring>

#include "reckon/backend/cpu/convert.h"
#include "reckon/backend/cpu/rows.h"
#include "reckon/backend/cpu/rows_elementwise.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
constexpr int64_t kPart = 512;  // elements that are gathered, converted and spread at a time: 4 KiB on either side

template <class T>
void move_as(const void* from, int64_t from_stride, void* to, int64_t to_stride, int64_t n) {
  for (int64_t i = 0; i < n; ++i) static_cast<T*>(to)[i * to_stride] = static_cast<const T*>(from)[i * from_stride];
}
void move_strided(int64_t bytes, const void* from, int64_t from_stride, void* to, int64_t to_stride, int64_t n) {
  switch (bytes) {
    case 1:
      return move_as<uint8_t>(from, from_stride, to, to_stride, n);
    case 2:
      return move_as<uint16_t>(from, from_stride, to, to_stride, n);
    case 4:
      return move_as<uint32_t>(from, from_stride, to, to_stride, n);
    default:
      return move_as<uint64_t>(from, from_stride, to, to_stride, n);
  }
}

struct Side {
  DType dtype;
  int64_t stride;
  int64_t bytes() const { return size_of(dtype); }
};
// One run: neighbours that are dense go by themselves, others through a dense buffer.
void convert_run(const Side& source, const char* from, const Side& place, char* to, int64_t n) {
  if (source.stride == 1 && place.stride == 1) return convert(source.dtype, from, place.dtype, to, n);
  alignas(64) char gathered[kPart * 8], converted[kPart * 8];
  for (int64_t i = 0; i < n; i += kPart) {
    const int64_t count = std::min(kPart, n - i);
    const char* dense = from + i * source.stride * source.bytes();
    char* const target = to + i * place.stride * place.bytes();
    if (source.stride != 1) {
      move_strided(source.bytes(), dense, source.stride, gathered, 1, count);
      dense = gathered;
    }
    convert(source.dtype, dense, place.dtype, place.stride == 1 ? target : converted, count);
    if (place.stride != 1) move_strided(place.bytes(), converted, 1, target, place.stride, count);
  }
}
}  // namespace

void assign(const Shape& shape, DType from_dtype, Strided from, DType to_dtype, void* to, const int64_t* to_strides) {
  if (from_dtype == to_dtype) return copy_strided(size_of(to_dtype), shape, from, to, to_strides);
  const int64_t* strides[] = {to_strides, from.strides};
  const Loop loop = make_loop(shape, 2, strides);
  const Side source{from_dtype, loop.inner_stride(1)}, place{to_dtype, loop.inner_stride(0)};
  parallel_range(loop.total, kTaskElements, [&](int64_t begin, int64_t end) {
    walk(loop, begin, end, [&](int64_t n, const int64_t* at) {
      convert_run(source, static_cast<const char*>(from.data) + at[1] * source.bytes(), place,
                  static_cast<char*>(to) + at[0] * place.bytes(), n);
    });
  });
}

void assign(const Shape& shape, double value, DType to_dtype, void* to, const int64_t* to_strides) {
  const int64_t* strides[] = {to_strides};
  const Loop loop = make_loop(shape, 1, strides);
  const int64_t bytes = size_of(to_dtype), stride = loop.inner_stride(0);
  alignas(64) char values[kPart * 8];
  fill(to_dtype, values, kPart, value);
  parallel_range(loop.total, kTaskElements, [&](int64_t begin, int64_t end) {
    walk(loop, begin, end, [&](int64_t n, const int64_t* at) {
      char* const run = static_cast<char*>(to) + at[0] * bytes;
      for (int64_t i = 0; i < n; i += kPart) {
        const int64_t count = std::min(kPart, n - i);
        if (stride == 1) {
          std::memcpy(run + i * bytes, values, size_t(count * bytes));
        } else {
          move_strided(bytes, values, 1, run + i * stride * bytes, stride, count);
        }
      }
    });
  });
}
}  // namespace reckon::cpu
