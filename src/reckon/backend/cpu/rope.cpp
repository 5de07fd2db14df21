// backend/cpu/rope: the tables of cos and sin, and the rotation by them. Compiled once per instruction set.
#include "reckon/backend/cpu/rope.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "reckon/backend/cpu/vec_targets.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"
#include "reckon/tensor/shape.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/rope.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
namespace {
constexpr int64_t kMaxHalf = 128;

/// Turns the heads of one row: from and to may be equal. cos and sin [head_dim / 2]; sign is -1 to turn back.
void turn_heads(const RopeShape& s, const void* from, void* to, const float* cos, const float* sin, float sign) {
  const int64_t half = s.head_dim / 2;
  HWY_ALIGN float low[kMaxHalf], high[kMaxHalf];
  const V direction = set(sign);
  for (int64_t head = 0; head < s.rotated_heads; ++head) {
    const int64_t at = head * s.head_dim;
    const float* x = read_chunk(s.dtype, from, at, half, low);
    const float* y = read_chunk(s.dtype, from, at + half, half, high);
    float* to_x = write_place(s.dtype, to, at, low);
    float* to_y = write_place(s.dtype, to, at + half, high);
    for_vectors(half, [&](int64_t i, auto part) RECKON_VEC {
      RECKON_COUNT_VECTOR(6 * part.count());  // of two elements
      const V a = part.load(x + i), b = part.load(y + i), c = part.load(cos + i), n = hn::Mul(direction, part.load(sin + i));
      part.store(hn::Sub(hn::Mul(a, c), hn::Mul(b, n)), to_x + i);
      part.store(hn::Add(hn::Mul(b, c), hn::Mul(a, n)), to_y + i);
    });
    write_chunk(s.dtype, to, at, half, low);
    write_chunk(s.dtype, to, at + half, half, high);
  }
}
}  // namespace
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reckon::cpu {
namespace {
HWY_EXPORT(turn_heads);

void turn_heads_f64(const RopeShape& s, const double* from, double* to, const double* cos, const double* sin, double sign) {
  const int64_t half = s.head_dim / 2;
  for (int64_t h = 0; h < s.rotated_heads; ++h, from += s.head_dim, to += s.head_dim) {
    for (int64_t i = 0; i < half; ++i) {
      RECKON_COUNT_VECTOR(6);
      const double x = from[i], y = from[i + half], c = cos[i], n = sign * sin[i];
      to[i] = x * c - y * n;
      to[i + half] = y * c + x * n;
    }
  }
}

// Positions between two anchors are reached by complex multiplication in double: 32 steps lose some 32 * 2^-53, far below float32,
// and cost two multiply-adds instead of a sine. Anchors are absolute, so a position's values never depend on where a call starts.
constexpr int64_t kAnchor = 32;

constexpr int64_t kTogether = 8;  // frequencies advanced side by side, to hide the latency of the chain

/// Fills columns [i, i + n) of the tables for the tokens [first, end), all between two anchors.
void fill_columns(const RopeShape& s, int64_t offset, int64_t first, int64_t end, int64_t i, int64_t n, float* cos, float* sin) {
  const int64_t half = s.head_dim / 2, anchor = (offset + first) / kAnchor * kAnchor;
  double c[kTogether] = {}, d[kTogether] = {}, step_cos[kTogether] = {}, step_sin[kTogether] = {};
  for (int64_t k = 0; k < n; ++k) {
    const double frequency = std::pow(s.theta, -2.0 * double(i + k) / double(s.head_dim));
    step_cos[k] = std::cos(frequency), step_sin[k] = std::sin(frequency);
    c[k] = std::cos(double(anchor) * frequency), d[k] = std::sin(double(anchor) * frequency);
  }
  for (int64_t p = anchor; p < offset + end; ++p) {
    if (p >= offset + first) {
      for (int64_t k = 0; k < n; ++k) {
        cos[(p - offset) * half + i + k] = float(c[k]);
        sin[(p - offset) * half + i + k] = float(d[k]);
      }
    }
    for (int64_t k = 0; k < kTogether; ++k) {
      const double next = c[k] * step_cos[k] - d[k] * step_sin[k];
      d[k] = d[k] * step_cos[k] + c[k] * step_sin[k];
      c[k] = next;
    }
  }
}
void fill_tables(const RopeShape& s, int64_t offset, int64_t first, int64_t end, float* cos, float* sin) {
  for (int64_t i = 0; i < s.head_dim / 2; i += kTogether) {
    fill_columns(s, offset, first, end, i, std::min(kTogether, s.head_dim / 2 - i), cos, sin);
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

int64_t rope_workspace(const RopeShape& s) { return checked_sum({checked_product({s.tokens, s.head_dim, size_of(statistics_dtype(s.dtype))}), 63}) / 64 * 64; }

void rope(const RopeShape& s, const void* from, void* to, const int64_t* position_offset, bool inverse, void* workspace) {
  RECKON_ASSERT(s.rows >= 0 && s.head_dim >= 2 && s.head_dim % 2 == 0 && s.head_dim <= 256 && is_float(s.dtype));
  RECKON_ASSERT(s.rotated_heads >= 0 && s.rotated_heads * s.head_dim <= s.width);
  if (s.rows == 0 || s.width == 0) return;
  const int64_t offset = position_offset ? position_offset[0] : 0, half = s.head_dim / 2;
  RECKON_ASSERT(offset >= 0);
  const int64_t element = size_of(statistics_dtype(s.dtype));
  char* cos = static_cast<char*>(workspace);
  char* sin = cos + s.tokens * half * element;
  const int64_t first_anchor = offset / kAnchor, anchors = (offset + s.tokens - 1) / kAnchor - first_anchor + 1;
  parallel_for(anchors, [&](int64_t task) {
    const int64_t at = (first_anchor + task) * kAnchor - offset;
    const int64_t first = std::max<int64_t>(at, 0), end = std::min(at + kAnchor, s.tokens);
    if (s.dtype == DType::f64) {
      fill_tables_f64(s, offset, first, end, reinterpret_cast<double*>(cos), reinterpret_cast<double*>(sin));
    } else {
      fill_tables(s, offset, first, end, reinterpret_cast<float*>(cos), reinterpret_cast<float*>(sin));
    }
  });
  parallel_range(s.rows, 16, [&](int64_t begin, int64_t end) {
    const int64_t row_bytes = s.width * size_of(s.dtype);
    for (int64_t r = begin; r < end; ++r) {
      const int64_t at = r % s.tokens * half * element;
      turn_row(s, static_cast<const char*>(from) + r * row_bytes, static_cast<char*>(to) + r * row_bytes, cos + at, sin + at, inverse);
    }
  });
}
}  // namespace reckon::cpu
#endif
