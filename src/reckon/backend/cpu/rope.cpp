// backend/cpu/rope: the tables of cos and sin, and the rotation by them. Compiled once per instruction set.
#include "reckon/backend/cpu/rope.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/rope.cpp"
// clang-format off
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
#include "reckon/backend/cpu/attention_tile-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::detail::HWY_NAMESPACE {
namespace {
/// Turns one head: from and to may be equal. cos and sin [head_dim / 2]; sign is -1 to turn back.
void turn_head(DType dtype, const char* from, char* to, int64_t head_dim, const float* cos, const float* sin, float sign) {
  const int64_t half = head_dim / 2;
  HWY_ALIGN float low[kMaxHeadDim / 2 + 16], high[kMaxHeadDim / 2 + 16];
  load_row(dtype, from, half, low);
  load_row(dtype, from + half * size_of(dtype), half, high);
  const Vec direction = all(sign);
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const Vec x = load(low + i), y = load(high + i), c = load(cos + i), s = hn::Mul(direction, load(sin + i));
    store(hn::Sub(hn::Mul(x, c), hn::Mul(y, s)), low + i);
    store(hn::Add(hn::Mul(y, c), hn::Mul(x, s)), high + i);
  }
  for (; i < half; ++i) {
    const float x = low[i], y = high[i], c = cos[i], s = sign * sin[i];
    low[i] = x * c - y * s;
    high[i] = y * c + x * s;
  }
  store_row(dtype, low, 1.0f, half, to);
  store_row(dtype, high, 1.0f, half, to + half * size_of(dtype));
}
void turn_heads(const RopeShape& s, const char* from, char* to, const float* cos, const float* sin, float sign) {
  const int64_t head_bytes = s.head_dim * size_of(s.dtype);
  for (int64_t h = 0; h < s.rotated_heads; ++h) turn_head(s.dtype, from + h * head_bytes, to + h * head_bytes, s.head_dim, cos, sin, sign);
}
}  // namespace
}  // namespace reckon::cpu::detail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reckon::cpu {
namespace detail {
namespace {
HWY_EXPORT(turn_heads);

void turn_heads_f64(const RopeShape& s, const double* from, double* to, const double* cos, const double* sin, double sign) {
  const int64_t half = s.head_dim / 2;
  for (int64_t h = 0; h < s.rotated_heads; ++h, from += s.head_dim, to += s.head_dim) {
    for (int64_t i = 0; i < half; ++i) {
      const double x = from[i], y = from[i + half], c = cos[i], n = sign * sin[i];
      to[i] = x * c - y * n;
      to[i + half] = y * c + x * n;
    }
  }
}

// Positions between two anchors are reached by complex multiplication in double: 32 steps lose some 32 * 2^-53, far below float32,
// and cost two multiply-adds instead of a sine. Anchors are absolute, so a position's values never depend on where a call starts.
constexpr int64_t kAnchor = 32;

/// Fills the tables of tokens [first, end), all between two anchors, for float32 tables.
void fill_tables(const RopeShape& s, int64_t offset, int64_t first, int64_t end, float* cos, float* sin) {
  const int64_t half = s.head_dim / 2, anchor = (offset + first) / kAnchor * kAnchor;
  for (int64_t i = 0; i < half; ++i) {
    const double frequency = std::pow(s.theta, -2.0 * double(i) / double(s.head_dim));
    const double step_cos = std::cos(frequency), step_sin = std::sin(frequency);
    double c = std::cos(double(anchor) * frequency), n = std::sin(double(anchor) * frequency);
    for (int64_t p = anchor; p < offset + end; ++p) {
      if (p >= offset + first) {
        cos[(p - offset) * half + i] = float(c);
        sin[(p - offset) * half + i] = float(n);
      }
      const double next = c * step_cos - n * step_sin;
      n = n * step_cos + c * step_sin;
      c = next;
    }
  }
}
void fill_tables_f64(const RopeShape& s, int64_t offset, int64_t first, int64_t end, double* cos, double* sin) {
  const int64_t half = s.head_dim / 2;
  for (int64_t t = first; t < end; ++t) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = double(offset + t) * std::pow(s.theta, -2.0 * double(i) / double(s.head_dim));
      cos[t * half + i] = std::cos(angle);
      sin[t * half + i] = std::sin(angle);
    }
  }
}

void turn_row(const RopeShape& s, const char* from, char* to, const void* cos, const void* sin, bool inverse) {
  if (s.dtype == DType::f64) {
    turn_heads_f64(s, reinterpret_cast<const double*>(from), reinterpret_cast<double*>(to), static_cast<const double*>(cos),
                   static_cast<const double*>(sin), inverse ? -1 : 1);
  } else {
    HWY_DYNAMIC_DISPATCH(turn_heads)(s, from, to, static_cast<const float*>(cos), static_cast<const float*>(sin), inverse ? -1.0f : 1.0f);
  }
  const int64_t turned = s.rotated_heads * s.head_dim * size_of(s.dtype), bytes = s.width * size_of(s.dtype);
  if (to != from) std::memcpy(to + turned, from + turned, size_t(bytes - turned));
}
}  // namespace
}  // namespace detail

int64_t rope_workspace(const RopeShape& s) { return detail::ceil_div(2 * s.tokens * (s.head_dim / 2) * size_of(statistics_dtype(s.dtype)), 64) * 64; }

void rope(const RopeShape& s, const void* from, void* to, const int64_t* position_offset, bool inverse, void* workspace) {
  RECKON_ASSERT(s.rows >= 0 && s.head_dim >= 2 && s.head_dim % 2 == 0 && s.head_dim <= detail::kMaxHeadDim && is_float(s.dtype));
  RECKON_ASSERT(s.rotated_heads >= 0 && s.rotated_heads * s.head_dim <= s.width);
  if (s.rows == 0 || s.width == 0) return;
  const int64_t offset = position_offset ? position_offset[0] : 0, half = s.head_dim / 2;
  RECKON_ASSERT(offset >= 0);
  const int64_t element = size_of(statistics_dtype(s.dtype));
  char* cos = static_cast<char*>(workspace);
  char* sin = cos + s.tokens * half * element;
  const int64_t first_anchor = offset / detail::kAnchor, anchors = (offset + s.tokens - 1) / detail::kAnchor - first_anchor + 1;
  parallel_for(anchors, [&](int64_t task) {
    const int64_t at = (first_anchor + task) * detail::kAnchor - offset;
    const int64_t first = std::max<int64_t>(at, 0), end = std::min(at + detail::kAnchor, s.tokens);
    if (s.dtype == DType::f64) {
      detail::fill_tables_f64(s, offset, first, end, reinterpret_cast<double*>(cos), reinterpret_cast<double*>(sin));
    } else {
      detail::fill_tables(s, offset, first, end, reinterpret_cast<float*>(cos), reinterpret_cast<float*>(sin));
    }
  });
  parallel_range(s.rows, 16, [&](int64_t begin, int64_t end) {
    const int64_t row_bytes = s.width * size_of(s.dtype);
    for (int64_t r = begin; r < end; ++r) {
      const int64_t at = r % s.tokens * half * element;
      detail::turn_row(s, static_cast<const char*>(from) + r * row_bytes, static_cast<char*>(to) + r * row_bytes, cos + at, sin + at, inverse);
    }
  });
}
}  // namespace reckon::cpu
#endif
