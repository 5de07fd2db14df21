// backend/cpu/float8: one pass for the largest magnitude, one to quantize, and products by gemm on what the codes stand for.
#include "reckon/backend/cpu/float8.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/float8.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_float8-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
// Magnitudes are compared as integers: NaN is above infinity, and no order of comparisons changes the result.
uint32_t magnitude_part(DType dtype, const void* x, int64_t begin, int64_t end) {
  HWY_ALIGN float buffer[kChunk];
  const DI di;
  const auto mask = hn::Set(di, 0x7FFFFFFF);
  auto most = hn::Zero(di);
  for_chunks(end - begin, [&](int64_t c, int64_t n) RECKON_VEC {
    const float* from = read_chunk(dtype, x, begin + c, n, buffer);
    RECKON_COUNT_VECTOR(2 * n);
    for_vectors(n, [&](int64_t i, auto part) RECKON_VEC { most = hn::Max(most, hn::And(hn::BitCast(di, part.load(from + i)), mask)); });
  });
  return uint32_t(hn::GetLane(hn::MaxOfLanes(di, most)));
}

// x * scale, finite values cut at the largest that the format has: limit is the bits of that, divided by the scale.
HWY_INLINE void scale_chunk(const float* x, int64_t n, float scale, uint32_t limit, float* to) {
  const DU du;
  const DI di;
  const V factor = set(scale);
  RECKON_COUNT_VECTOR(3 * n);
  for_vectors(n, [&](int64_t i, auto part) RECKON_VEC {
    const auto u = hn::BitCast(du, part.load(x + i));
    const auto magnitude = hn::BitCast(di, hn::And(u, hn::Set(du, 0x7FFFFFFFu)));
    const auto is_finite = hn::Lt(magnitude, hn::Set(di, 0x7F800000));
    const auto cut = hn::IfThenElse(is_finite, hn::Min(magnitude, hn::Set(di, int32_t(limit))), magnitude);
    const auto sign = hn::And(u, hn::Set(du, 0x80000000u));
    part.store(hn::Mul(hn::BitCast(D(), hn::Or(hn::BitCast(du, cut), sign)), factor), to + i);
  });
}
HWY_INLINE void restore_chunk(DType format, const uint8_t* q, int64_t n, float inverse, bfloat16* wide) {
  HWY_ALIGN float buffer[kChunk];
  read_any_chunk(format, q, 0, n, buffer);
  const V factor = set(inverse);
  RECKON_COUNT_VECTOR(n);
  for_vectors(n, [&](int64_t i, auto part) RECKON_VEC { part.store(hn::Mul(part.load(buffer + i), factor), buffer + i); });
  write_chunk(DType::bf16, wide, 0, n, buffer);
}

// Elements [begin, end) into q, into wide, or both; one may be null.
void quantize_part(DType dtype, const void* x, DType format, float scale, float inverse, uint32_t limit, uint8_t* q, bfloat16* wide,
                   int64_t begin, int64_t end) {
  HWY_ALIGN float buffer[kChunk], scaled[kChunk];
  HWY_ALIGN uint8_t codes[kChunk];
  for_chunks(end - begin, [&](int64_t c, int64_t n) RECKON_VEC {
    const int64_t at = begin + c;
    uint8_t* const to = q ? q + at : codes;
    scale_chunk(read_chunk(dtype, x, at, n, buffer), n, scale, limit, scaled);
    write_any_chunk(format, to, 0, n, scaled);
    if (wide) restore_chunk(format, to, n, inverse, wide + at);
  });
}
void restore_part(DType format, const uint8_t* q, float inverse, bfloat16* wide, int64_t begin, int64_t end) {
  for_chunks(end - begin, [&](int64_t c, int64_t n) RECKON_VEC { restore_chunk(format, q + begin + c, n, inverse, wide + begin + c); });
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <cmath>

#include "reckon/backend/cpu/gemm.h"
#include "reckon/backend/cpu/rows.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"
#include "reckon/tensor/shape.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(magnitude_part);
HWY_EXPORT(quantize_part);
HWY_EXPORT(restore_part);

constexpr int64_t kBlockRows = 2048;  // widened at a time
constexpr int64_t kMaxSlicesOfMagnitude = 256;

int64_t round_up(int64_t bytes) { return (bytes + 63) / 64 * 64; }
int64_t wide_bytes(int64_t rows, int64_t cols) { return round_up(checked_product({rows, cols, 2})); }

void quantize_to(DType dtype, const void* x, DType format, float scale, uint8_t* q, bfloat16* wide, int64_t n) {
  RECKON_ASSERT(is_float8(format) && (dtype == DType::f32 || dtype == DType::bf16));
  const float inverse = 1 / scale, most = std::bit_cast<float>(float8_format(format).largest) * inverse;
  parallel_range(n, kTaskElements, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(quantize_part)(dtype, x, format, scale, inverse, std::bit_cast<uint32_t>(most), q, wide, begin, end);
  });
}

// Rows [row, row + rows) as bfloat16.
void widen(const Float8Matrix& x, int64_t cols, int64_t row, int64_t rows, void* to) {
  bfloat16* const wide = static_cast<bfloat16*>(to);
  if (x.codes) return restore(x.format, x.codes + row * cols, x.scale, wide, rows * cols);
  const char* from = static_cast<const char*>(x.wide) + row * cols * size_of(x.wide_dtype);
  round_through(x.wide_dtype, from, x.format, x.scale, wide, rows * cols);
}

GemmShape forward_shape(const Float8Linear& s, int64_t rows, bool bias) {
  return {
      .m = rows, .n = s.n, .k = s.k, .a = DType::bf16, .b = DType::bf16, .c = s.out, .trans_b = true, .bias = bias, .bias_dtype = s.out};
}
GemmShape back_x_shape(const Float8Linear& s, int64_t rows) {
  return {.m = rows, .n = s.k, .k = s.n, .a = DType::bf16, .b = DType::bf16, .c = s.out};
}
GemmShape back_w_shape(const Float8Linear& s, int64_t rows, bool accumulate) {
  return {.m = s.n, .n = s.k, .k = rows, .a = DType::bf16, .b = DType::bf16, .c = s.out, .trans_a = true, .accumulate = accumulate};
}
// A bf16 dw holds no partial sums.
int64_t back_w_rows(const Float8Linear& s) { return s.out == DType::f32 ? std::min(s.m, kBlockRows) : s.m; }

// f(row, rows) for the blocks of m rows; once if there are none.
template <class F>
void for_blocks(int64_t m, int64_t each, F f) {
  int64_t row = 0;
  do {
    f(row, std::min(each, m - row));
    row += each;
  } while (row < m);
}
}  // namespace

int64_t float8_workspace(int64_t n) { return std::min(kMaxSlicesOfMagnitude, (n + kTaskElements - 1) / kTaskElements) * 8; }

float largest_magnitude(DType dtype, const void* x, int64_t n, void* workspace) {
  RECKON_ASSERT(dtype == DType::f32 || dtype == DType::bf16);
  const int64_t bound = float8_workspace(n) / 8, each = bound ? (n + bound - 1) / bound : 1, slices = (n + each - 1) / each;
  uint32_t* const part = static_cast<uint32_t*>(workspace);
  parallel_for(slices, [&](int64_t s) { part[s] = HWY_DYNAMIC_DISPATCH(magnitude_part)(dtype, x, s * each, std::min(n, (s + 1) * each)); });
  uint32_t most = 0;
  for (int64_t s = 0; s < slices; ++s) most = std::max(most, part[s]);
  return std::bit_cast<float>(most);
}

float float8_scale(DType format, float magnitude) {
  constexpr int kFarthest = 100;  // codes times 2^+-100 are normal numbers of bfloat16
  if (!(magnitude > 0) || std::isinf(magnitude)) return 1;
  int of_magnitude = 0, of_largest = 0;
  const float fraction = std::frexp(magnitude, &of_magnitude),
              room = std::frexp(std::bit_cast<float>(float8_format(format).largest), &of_largest);
  return std::ldexp(1.0f, std::clamp(of_largest - of_magnitude - (fraction > room), -kFarthest, kFarthest));
}

void quantize(DType dtype, const void* x, DType format, float scale, uint8_t* q, int64_t n) {
  quantize_to(dtype, x, format, scale, q, nullptr, n);
}
void round_through(DType dtype, const void* x, DType format, float scale, bfloat16* wide, int64_t n) {
  quantize_to(dtype, x, format, scale, nullptr, wide, n);
}
void restore(DType format, const uint8_t* q, float scale, bfloat16* wide, int64_t n) {
  RECKON_ASSERT(is_float8(format));
  parallel_range(n, kTaskElements, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(restore_part)(format, q, 1 / scale, wide, begin, end);
  });
}

int64_t float8_linear_workspace(const Float8Linear& s, bool bias, int lanes) {
  const int64_t rows = std::min(s.m, kBlockRows);
  return wide_bytes(s.n, s.k) + wide_bytes(rows, s.k) + gemm_workspace(forward_shape(s, rows, bias), lanes);
}
int64_t float8_linear_back_x_workspace(const Float8Linear& s, int lanes) {
  const int64_t rows = std::min(s.m, kBlockRows);
  return wide_bytes(s.n, s.k) + wide_bytes(rows, s.n) + gemm_workspace(back_x_shape(s, rows), lanes);
}
int64_t float8_linear_back_w_workspace(const Float8Linear& s, int lanes) {
  const int64_t rows = back_w_rows(s);
  // Sized as if it accumulated: the first micro-batch, which overwrites, must fit where the later ones run.
  const int64_t product = std::max(gemm_workspace(back_w_shape(s, rows, true), lanes), gemm_workspace(back_w_shape(s, rows, false), lanes));
  return wide_bytes(rows, s.n) + wide_bytes(rows, s.k) + product;
}

void float8_linear(const Float8Linear& s, const Float8Matrix& x, const Float8Matrix& w, void* y, const void* bias, void* workspace,
                   int lanes) {
  char* const wide_w = static_cast<char*>(workspace);
  char* const wide_x = wide_w + wide_bytes(s.n, s.k);
  char* const scratch = wide_x + wide_bytes(std::min(s.m, kBlockRows), s.k);
  widen(w, s.k, 0, s.n, wide_w);
  for_blocks(s.m, kBlockRows, [&](int64_t row, int64_t rows) {
    widen(x, s.k, row, rows, wide_x);
    gemm(forward_shape(s, rows, bias), wide_x, wide_w, static_cast<char*>(y) + row * s.n * size_of(s.out), bias, scratch, lanes);
  });
}

void float8_linear_back_x(const Float8Linear& s, const Float8Matrix& dy, const Float8Matrix& w, void* dx, void* workspace, int lanes) {
  char* const wide_w = static_cast<char*>(workspace);
  char* const wide_dy = wide_w + wide_bytes(s.n, s.k);
  char* const scratch = wide_dy + wide_bytes(std::min(s.m, kBlockRows), s.n);
  widen(w, s.k, 0, s.n, wide_w);
  for_blocks(s.m, kBlockRows, [&](int64_t row, int64_t rows) {
    widen(dy, s.n, row, rows, wide_dy);
    gemm(back_x_shape(s, rows), wide_dy, wide_w, static_cast<char*>(dx) + row * s.k * size_of(s.out), nullptr, scratch, lanes);
  });
}

void float8_linear_back_w(const Float8Linear& s, const Float8Matrix& dy, const Float8Matrix& x, void* dw, bool accumulate, void* workspace,
                          int lanes) {
  const int64_t each = back_w_rows(s);
  char* const wide_dy = static_cast<char*>(workspace);
  char* const wide_x = wide_dy + wide_bytes(each, s.n);
  char* const scratch = wide_x + wide_bytes(each, s.k);
  for_blocks(s.m, std::max<int64_t>(each, 1), [&](int64_t row, int64_t rows) {
    widen(dy, s.n, row, rows, wide_dy);
    widen(x, s.k, row, rows, wide_x);
    gemm(back_w_shape(s, rows, accumulate || row > 0), wide_dy, wide_x, dw, nullptr, scratch, lanes);
  });
}

void step_float8_scales(int64_t tensors, int64_t window, bool ok, float* amax, float* history, float* scales) {
  for (int64_t t = 0; t < tensors; ++t) {
    float* const row = history + t * window;
    float most = amax[t];
    RECKON_COUNT_VECTOR(window);
    for (int64_t i = 0; i + 1 < window; ++i) most = std::max(most, row[i]);
    if (ok && std::isfinite(amax[t])) {
      std::copy_backward(row, row + window - 1, row + window);
      row[0] = amax[t];
      scales[t] = most > 0 ? float8_scale(t + 1 == tensors ? DType::f8e5m2 : DType::f8e4m3fn, most) : 0;
    }
    amax[t] = 0;
  }
}
}  // namespace reckon::cpu
#endif
