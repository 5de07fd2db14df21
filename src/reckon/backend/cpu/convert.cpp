// backend/cpu/convert: pairs of float32, bfloat16, float16 and the 8-bit floats are vectors; every other pair takes two plain
// loops, through a chunk of doubles (exact for all floats) or of 64-bit integers (exact for all integers).
#include "reckon/backend/cpu/convert.h"

#include "reckon/backend/cpu/row_tasks.h"
#include "reckon/backend/cpu/stream.h"
#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/convert.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_dense-inl.h"
#include "reckon/backend/cpu/vec_float8-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
// Both types are floats but not f64.
void convert_floats(DType from_dtype, const void* from, DType to_dtype, void* to, const ElementPart& part) {
  const int64_t begin = part.begin, end = part.end;
  if (!is_float8(from_dtype) && !is_float8(to_dtype)) {
    return with_type(from_dtype, [&](auto f) RECKON_VEC {
      with_type(to_dtype, [&](auto t) RECKON_VEC {
        using From = decltype(f);
        using To = decltype(t);
        map1<0>(
            static_cast<const From*>(from) + begin, static_cast<To*>(to) + begin, end - begin, [](V v) RECKON_VEC { return v; },
            part.streams);
      });
    });
  }
  HWY_ALIGN float buffer[kChunk];
  for_chunks(end - begin, [&](int64_t c, int64_t n) RECKON_VEC {
    const int64_t at = begin + c;
    if (to_dtype == DType::f32) {  // straight into place, without the buffer
      read_any_chunk(from_dtype, from, at, n, static_cast<float*>(to) + at);
    } else {
      write_any_chunk(to_dtype, to, at, n, read_any_chunk(from_dtype, from, at, n, buffer));
    }
  });
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <cmath>
#include <limits>

#include "reckon/backend/cpu/rounding.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(convert_floats);

bool is_vector_type(DType dtype) { return is_float8(dtype) || (is_float(dtype) && dtype != DType::f64); }
template <class T>
constexpr bool kIsNarrow =
    std::is_same_v<T, bfloat16> || std::is_same_v<T, float16> || std::is_same_v<T, float8_e4m3fn> || std::is_same_v<T, float8_e5m2>;

constexpr int64_t kPart = 512;  // elements of the intermediate chunk: 4 KiB

template <class To>
To truncate(double value) {
  if (std::isnan(value)) return 0;
  if (value <= double(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
  if (value >= double(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
  return To(value);
}

template <class To, class From>
To convert_one(From value) {
  if constexpr (kIsNarrow<To>) {
    return To(round_to_odd(value));
  } else if constexpr (std::is_same_v<To, bool>) {
    return value != From(0);
  } else if constexpr (std::is_integral_v<To> && std::is_floating_point_v<From>) {
    return truncate<To>(value);
  } else {
    return To(value);
  }
}

template <class From, class Wide>
void read_part(const void* from, int64_t at, int64_t n, Wide* part) {
  const From* source = static_cast<const From*>(from) + at;
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (kIsNarrow<From>) {
      part[i] = Wide(float(source[i]));
    } else {
      part[i] = Wide(source[i]);
    }
  }
}

template <class To, class Wide>
void write_part(void* to, int64_t at, int64_t n, const Wide* part) {
  To* place = static_cast<To*>(to) + at;
  for (int64_t i = 0; i < n; ++i) place[i] = convert_one<To>(part[i]);
}

template <class Wide>
void write_any(DType dtype, void* to, int64_t at, int64_t n, const Wide* part) {
  switch (dtype) {
    case DType::f32:
      return write_part<float>(to, at, n, part);
    case DType::f64:
      return write_part<double>(to, at, n, part);
    case DType::bf16:
      return write_part<bfloat16>(to, at, n, part);
    case DType::f16:
      return write_part<float16>(to, at, n, part);
    case DType::i32:
      return write_part<int32_t>(to, at, n, part);
    case DType::i64:
      return write_part<int64_t>(to, at, n, part);
    case DType::u8:
      return write_part<uint8_t>(to, at, n, part);
    case DType::boolean:
      return write_part<bool>(to, at, n, part);
    case DType::f8e4m3fn:
      return write_part<float8_e4m3fn>(to, at, n, part);
    case DType::f8e5m2:
      return write_part<float8_e5m2>(to, at, n, part);
  }
}

void read_floats(DType dtype, const void* from, int64_t at, int64_t n, double* part) {
  switch (dtype) {
    case DType::f32:
      return read_part<float>(from, at, n, part);
    case DType::f64:
      return read_part<double>(from, at, n, part);
    case DType::bf16:
      return read_part<bfloat16>(from, at, n, part);
    case DType::f8e4m3fn:
      return read_part<float8_e4m3fn>(from, at, n, part);
    case DType::f8e5m2:
      return read_part<float8_e5m2>(from, at, n, part);
    default:
      return read_part<float16>(from, at, n, part);
  }
}

void read_integers(DType dtype, const void* from, int64_t at, int64_t n, int64_t* part) {
  switch (dtype) {
    case DType::i32:
      return read_part<int32_t>(from, at, n, part);
    case DType::i64:
      return read_part<int64_t>(from, at, n, part);
    case DType::u8:
      return read_part<uint8_t>(from, at, n, part);
    default:  // a bool of any byte but 0 is 1
      for (int64_t i = 0; i < n; ++i) part[i] = static_cast<const uint8_t*>(from)[at + i] != 0;
  }
}

void convert_plain(DType from_dtype, const void* from, DType to_dtype, void* to, int64_t begin, int64_t end) {
  for (int64_t at = begin; at < end; at += kPart) {
    const int64_t n = std::min(kPart, end - at);
    if (is_float(from_dtype) || is_float8(from_dtype)) {
      double part[kPart];
      read_floats(from_dtype, from, at, n, part);
      write_any(to_dtype, to, at, n, part);
    } else {
      int64_t part[kPart];
      read_integers(from_dtype, from, at, n, part);
      write_any(to_dtype, to, at, n, part);
    }
  }
}
}  // namespace

namespace {
// put(first byte, end, streams) for the tasks of a result of `bytes` bytes. touched: bytes read and written.
template <class Put>
void for_bytes(int64_t bytes, int64_t touched, Put put) {
  const bool streams = touched > kCachedBytes;
  parallel_range(bytes, streams ? kLongTaskBytes / 2 : kTaskBytes, [&](int64_t begin, int64_t end) {
    put(begin, end, streams);
    if (streams) stream_fence();
  });
}
void copy_run(const void* from, void* to, int64_t bytes, bool streams) {
  streams ? stream_run(from, to, bytes) : void(std::memcpy(to, from, size_t(bytes)));
}
void repeat_pattern(const char* pattern, int64_t length, void* data, int64_t bytes) {
  for_bytes(bytes, bytes, [&](int64_t begin, int64_t end, bool streams) {
    for (int64_t at = begin; at < end; at += length) copy_run(pattern, static_cast<char*>(data) + at, std::min(length, end - at), streams);
  });
}
}  // namespace

void convert(DType from_dtype, const void* from, DType to_dtype, void* to, int64_t n) {
  if (from_dtype == to_dtype && from_dtype != DType::boolean) return copy_bytes(from, to, n * size_of(from_dtype));
  const bool vectors = is_vector_type(from_dtype) && is_vector_type(to_dtype);
  const ElementTasks tasks = element_tasks(n, size_of(from_dtype) + size_of(to_dtype), from == to);
  parallel_range(n, tasks.elements_each, [&](int64_t begin, int64_t end) {
    if (!vectors) return convert_plain(from_dtype, from, to_dtype, to, begin, end);
    HWY_DYNAMIC_DISPATCH(convert_floats)(from_dtype, from, to_dtype, to, {begin, end, tasks.streams});
    if (tasks.streams) stream_fence();
  });
}

void fill(DType dtype, void* data, int64_t n, double value) {
  double part[kPart];
  std::fill(part, part + kPart, value);
  alignas(64) char pattern[kPart * 8];
  write_any(dtype, pattern, 0, kPart, part);
  repeat_pattern(pattern, kPart * size_of(dtype), data, n * size_of(dtype));
}

void fill_zero(void* data, int64_t bytes) {
  alignas(64) static constexpr char kZeros[4096] = {};
  repeat_pattern(kZeros, sizeof kZeros, data, bytes);
}

void copy_bytes(const void* from, void* to, int64_t bytes) {
  for_bytes(bytes, 2 * bytes, [&](int64_t begin, int64_t end, bool streams) {
    copy_run(static_cast<const char*>(from) + begin, static_cast<char*>(to) + begin, end - begin, streams);
  });
}
}  // namespace reckon::cpu
#endif
