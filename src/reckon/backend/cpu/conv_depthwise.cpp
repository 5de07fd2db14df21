// backend/cpu/conv_depthwise: a task makes floats of some rows of an image, with the padding around them, over which it moves the kernel a
// vector of positions at a time. Columns of the same remainder by the stride lie together, so that any stride reads whole vectors.
#include "reckon/backend/cpu/conv_depthwise.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/conv_depthwise.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_held-inl.h"

#ifndef RECKON_BACKEND_CPU_CONV_DEPTHWISE_ONCE
#define RECKON_BACKEND_CPU_CONV_DEPTHWISE_ONCE
namespace reckon::cpu {
constexpr int64_t kDepthwiseColumns = 512;  // of one block of positions

// What is moved over: the gradient of an image is the gradient of the result, spread out, under the kernel turned around.
// out[p] = sum over planes and taps of w[tap] * in[p * step + tap * dilation - padding], where places that spread does not divide are 0.
struct Correlation {
  DType dtype;
  int64_t in[2], out[2], kernel[2], step[2], dilation[2], padding[2], spread[2];
  int64_t planes, results;  // planes that are summed, results of which each has kernels of its own
  bool turned;
  int64_t taps() const { return planes * kernel[0] * kernel[1]; }
};
// How it is cut: blocks of rows x columns, over rows of `row` floats, `step` phases of `pitch` each.
struct Cut {
  int64_t rows = 0, columns = 0, pitch = 0, row = 0, seen = 0;  // seen: rows of a plane under one block
  int64_t floats = 0, dy_row = 0;                               // of all planes; of a row of dy
};
// One block.
struct Block {
  int64_t first_row, rows, first_column, columns;
};
}  // namespace reckon::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
HWY_INLINE void read_floats(DType dtype, const void* x, int64_t at, int64_t n, float* to) {
  if (dtype == DType::f32) {
    std::memcpy(to, static_cast<const float*>(x) + at, size_t(n) * sizeof(float));
  } else {
    for_chunks(n, [&](int64_t c, int64_t count) RECKON_VEC { read_chunk(dtype, x, at + c, count, to + c); });
  }
}
HWY_INLINE float read_one(DType dtype, const void* x, int64_t at) {
  if (dtype == DType::f32) return static_cast<const float*>(x)[at];
  return dtype == DType::bf16 ? float(static_cast<const bfloat16*>(x)[at]) : float(static_cast<const float16*>(x)[at]);
}

// n elements from x[at] on, with one between each and the next.
HWY_INLINE void read_every_second(DType dtype, const void* x, int64_t at, int64_t n, float* to) {
  HWY_ALIGN float buffer[kChunk];
  for (int64_t c = 0; c < n; c += kChunk / 2) {
    const int64_t count = n - c < kChunk / 2 ? n - c : kChunk / 2, seen = 2 * count - 1;
    const float* const from = read_chunk(dtype, x, at + 2 * c, seen, buffer);
    int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
    const int64_t N = lanes();
    for (; 2 * (i + N) <= seen; i += N)
      hn::StoreU(hn::ConcatEven(D(), hn::LoadU(D(), from + 2 * i + N), hn::LoadU(D(), from + 2 * i)), D(), to + c + i);
#endif
    for (; i < count; ++i) to[c + i] = from[2 * i];
  }
}

// to[q] = the pixel at `first` + q * step of the row of n that begins at x[at], spread out; 0 where there is none.
HWY_INLINE void fill_row(DType dtype, const void* x, int64_t at, int64_t n, int64_t first, int64_t step, int64_t spread, int64_t pitch,
                         float* to) {
  const auto bound = [&](int64_t pixel) {
    const int64_t q = pixel * spread <= first ? 0 : (pixel * spread - first + step - 1) / step;
    return q < pitch ? q : pitch;
  };
  const int64_t begin = bound(0), end = bound(n);
  if (spread != 1) {
    std::memset(to, 0, size_t(pitch) * sizeof(float));
    for (int64_t pixel = first <= 0 ? 0 : (first + spread - 1) / spread, q = pixel * spread - first; q < end && pixel < n;
         ++pixel, q += spread)
      to[q] = read_one(dtype, x, at + pixel);
    return;
  }
  std::memset(to, 0, size_t(begin) * sizeof(float));
  if (step == 1) {
    if (end > begin) read_floats(dtype, x, at + first + begin, end - begin, to + begin);
  } else if (step == 2) {
    read_every_second(dtype, x, at + first + 2 * begin, end - begin, to + begin);
  } else {
    for (int64_t q = begin; q < end; ++q) to[q] = read_one(dtype, x, at + first + q * step);
  }
  std::memset(to + end, 0, size_t(pitch - end) * sizeof(float));
}

// The rows of all planes under a block.
void fill_block(const Correlation& g, const Cut& cut, const Block& b, const void* x, int64_t at, float* to) {
  const int64_t seen = (b.rows - 1) * g.step[0] + (g.kernel[0] - 1) * g.dilation[0] + 1;
  for (int64_t plane = 0; plane < g.planes; ++plane)
    for (int64_t i = 0; i < seen; ++i) {
      float* const row = to + (plane * cut.seen + i) * cut.row;
      const int64_t place = b.first_row * g.step[0] + i - g.padding[0];
      if (place < 0 || place % g.spread[0] != 0 || place / g.spread[0] >= g.in[0]) {
        std::memset(row, 0, size_t(cut.row) * sizeof(float));
        continue;
      }
      const int64_t from = at + (plane * g.in[0] + place / g.spread[0]) * g.in[1];
      for (int64_t phase = 0; phase < g.step[1]; ++phase)
        fill_row(g.dtype, x, from, g.in[1], b.first_column * g.step[1] + phase - g.padding[1], g.step[1], g.spread[1], cut.pitch,
                 row + phase * cut.pitch);
    }
}

// kCount vectors of positions.
template <int kCount>
HWY_INLINE void move_taps(const float* from, const int64_t* offsets, const float* w, int64_t taps, float bias, float* to) {
  const int64_t N = lanes();
  V a = zero(), b = a, c = a, d = a;
  for (int64_t t = 0; t < taps; ++t) {
    const float* const p = from + offsets[t];
    const V weight = set(w[t]);
    a = hn::MulAdd(weight, hn::LoadU(D(), p), a);
    if constexpr (kCount > 1) b = hn::MulAdd(weight, hn::LoadU(D(), p + N), b);
    if constexpr (kCount > 2) c = hn::MulAdd(weight, hn::LoadU(D(), p + 2 * N), c);
    if constexpr (kCount > 3) d = hn::MulAdd(weight, hn::LoadU(D(), p + 3 * N), d);
  }
  const V more = set(bias);
  hn::StoreU(hn::Add(a, more), D(), to);
  if constexpr (kCount > 1) hn::StoreU(hn::Add(b, more), D(), to + N);
  if constexpr (kCount > 2) hn::StoreU(hn::Add(c, more), D(), to + 2 * N);
  if constexpr (kCount > 3) hn::StoreU(hn::Add(d, more), D(), to + 3 * N);
}

// One result's block: to y[at] on, from planes that fill_block made.
void correlate(const Correlation& g, const Cut& cut, const Block& b, const float* planes, const int64_t* offsets, const float* w,
               float bias, void* y, int64_t at) {
  HWY_ALIGN float sums[kDepthwiseColumns + 4 * hn::MaxLanes(D())];
  const int64_t N = lanes(), taps = g.taps();
  for (int64_t r = 0; r < b.rows; ++r) {
    const float* const from = planes + r * g.step[0] * cut.row;
    for (int64_t c = 0; c < b.columns; c += 4 * N) {
      const int64_t left = b.columns - c;
      if (left > 3 * N) {
        move_taps<4>(from + c, offsets, w, taps, bias, sums + c);
      } else if (left > 2 * N) {
        move_taps<3>(from + c, offsets, w, taps, bias, sums + c);
      } else if (left > N) {
        move_taps<2>(from + c, offsets, w, taps, bias, sums + c);
      } else {
        move_taps<1>(from + c, offsets, w, taps, bias, sums + c);
      }
    }
    const int64_t to = at + (b.first_row + r) * g.out[1] + b.first_column;
    if (g.dtype == DType::f32) {
      std::memcpy(static_cast<float*>(y) + to, sums, size_t(b.columns) * sizeof(float));
    } else {
      narrow_chunk(g.dtype, sums, b.columns, static_cast<uint16_t*>(y) + to);
    }
  }
}

// kCount products of dy's block with what kCount taps see, added to their sums.
template <int kCount>
HWY_INLINE void multiply_taps(const Cut& cut, const Block& b, int64_t row_step, const float* planes, const int64_t* offsets,
                              const float* dy, double* sums) {
  V a = zero(), c = a, d = a, e = a;
  for (int64_t r = 0; r < b.rows; ++r) {
    const float *const from = planes + r * row_step * cut.row, *const times = dy + r * cut.dy_row;
    RECKON_COUNT_MATMUL(2 * kCount * b.columns);
    for_vectors(b.columns, [&](int64_t i, auto part) RECKON_VEC {
      const V v = part.load(times + i);
      a = hn::MulAdd(v, part.load(from + offsets[0] + i), a);
      if constexpr (kCount > 1) {
        c = hn::MulAdd(v, part.load(from + offsets[1] + i), c);
        d = hn::MulAdd(v, part.load(from + offsets[2] + i), d);
        e = hn::MulAdd(v, part.load(from + offsets[3] + i), e);
      }
    });
  }
  sums[0] += double(sum_lanes(a));
  if constexpr (kCount > 1) sums[1] += double(sum_lanes(c)), sums[2] += double(sum_lanes(d)), sums[3] += double(sum_lanes(e));
}
// All taps; dy from dy[at] on, of which `held` gets a copy in floats.
void multiply_block(const Correlation& g, const Cut& cut, const Block& b, const float* planes, const int64_t* offsets, const void* dy,
                    int64_t at, float* held, double* sums) {
  for (int64_t r = 0; r < b.rows; ++r)
    read_floats(g.dtype, dy, at + (b.first_row + r) * g.out[1] + b.first_column, b.columns, held + r * cut.dy_row);
  const int64_t taps = g.taps();
  int64_t t = 0;
  for (; t + 4 <= taps; t += 4) multiply_taps<4>(cut, b, g.step[0], planes, offsets + t, held, sums + t);
  for (; t < taps; ++t) multiply_taps<1>(cut, b, g.step[0], planes, offsets + t, held, sums + t);
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>

#include "reckon/backend/cpu/gemm_packed.h"
#include "reckon/backend/cpu/rows.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(fill_block);
HWY_EXPORT(correlate);
HWY_EXPORT(multiply_block);

constexpr int64_t kMostFilters = 4;                     // more make products of matrices worth their while
constexpr int64_t kBlockFloats = 8 << 10;               // of the rows under a block, about: they stay in an L1 cache
constexpr int64_t kFarthest = 1 << 16, kMostStep = 16;  // beyond these nothing fits anyway, and nothing overflows below

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

Correlation forward_of(const Conv& c) {
  return {.dtype = c.dtype,
          .in = {c.in[0], c.in[1]},
          .out = {c.out[0], c.out[1]},
          .kernel = {c.kernel[0], c.kernel[1]},
          .step = {c.stride[0], c.stride[1]},
          .dilation = {c.dilation[0], c.dilation[1]},
          .padding = {c.padding[0], c.padding[1]},
          .spread = {1, 1},
          .planes = 1,
          .results = c.filters,
          .turned = false};
}
Correlation back_x_of(const Conv& c) {
  Correlation g = forward_of(c);
  for (const int axis : {0, 1}) {
    g.in[axis] = c.out[axis], g.out[axis] = c.in[axis];
    g.step[axis] = 1, g.spread[axis] = c.stride[axis];
    g.padding[axis] = c.dilation[axis] * (c.kernel[axis] - 1) - c.padding[axis];
  }
  g.planes = c.filters, g.results = 1, g.turned = true;
  return g;
}

bool is_near(const Correlation& g) {
  for (const int axis : {0, 1})
    if (g.kernel[axis] > kFarthest || g.dilation[axis] > kFarthest || g.kernel[axis] * g.dilation[axis] > kFarthest ||
        g.step[axis] > kMostStep)
      return false;
  return true;
}
Cut cut_of(const Correlation& g) {
  Cut cut;
  cut.columns = std::min(g.out[1], kDepthwiseColumns);
  // Vectors may begin at any tap and end beyond the last column.
  cut.pitch = ceil_div(cut.columns + (g.kernel[1] - 1) * g.dilation[1] / g.step[1] + 1, 16) * 16 + 64;
  cut.row = g.step[1] * cut.pitch;
  cut.dy_row = ceil_div(cut.columns, 16) * 16;
  const int64_t reach = (g.kernel[0] - 1) * g.dilation[0] + 1, together = kBlockFloats / cut.row / g.planes;
  cut.rows = std::clamp<int64_t>(together < reach ? 1 : (together - reach) / g.step[0] + 1, 1, g.out[0]);
  cut.seen = (cut.rows - 1) * g.step[0] + reach;
  cut.floats = g.planes * cut.seen * cut.row;
  return cut;
}

// What lies in the scratch of a lane: floats under a block and of dy, kernels, where taps look, sums of taps.
struct Scratch {
  float *planes, *dy, *w;
  int64_t* offsets;
  double* sums;
  static int64_t dy_floats(const Cut& cut) { return cut.rows * cut.dy_row; }
  static int64_t bytes(const Correlation& g, const Cut& cut) {
    return (cut.floats + dy_floats(cut)) * 4 + ceil_div(g.results * g.taps(), 16) * 64 + g.taps() * 16;
  }
  Scratch(const Correlation& g, const Cut& cut, char* at)
      : planes(reinterpret_cast<float*>(at)),
        dy(planes + cut.floats),
        w(dy + dy_floats(cut)),
        offsets(reinterpret_cast<int64_t*>(w + ceil_div(g.results * g.taps(), 16) * 16)),
        sums(reinterpret_cast<double*>(offsets + g.taps())) {
    int64_t t = 0;
    for (int64_t plane = 0; plane < g.planes; ++plane)
      for (int64_t i = 0; i < g.kernel[0]; ++i)
        for (int64_t j = 0; j < g.kernel[1]; ++j, ++t) {
          const int64_t column = j * g.dilation[1];
          offsets[t] = (plane * cut.seen + i * g.dilation[0]) * cut.row + column % g.step[1] * cut.pitch + column / g.step[1];
        }
  }
  // The kernels of a group, which begin at w[at].
  void read_kernels(const Correlation& g, const void* from, int64_t at) {
    const int64_t all = g.results * g.taps(), each = g.kernel[0] * g.kernel[1];
    for (int64_t t = 0; t < all; ++t) w[t] = float(load_float(g.dtype, from, at + (g.turned ? t / each * each + each - 1 - t % each : t)));
  }
};
bool fits(const Correlation& g) { return is_near(g) && g.taps() <= kFarthest && Scratch::bytes(g, cut_of(g)) <= kLaneBytes; }

// body(image and group, block, lane) for each block of each group of each image.
template <class Body>
void for_blocks(const Conv& c, const Correlation& g, const Cut& cut, int lanes, Body body) {
  const int64_t down = ceil_div(g.out[0], cut.rows), across = ceil_div(g.out[1], cut.columns);
  parallel_for(
      c.batch * c.groups * down * across,
      [&](int64_t task, int lane) {
        const int64_t row = task / across % down * cut.rows, column = task % across * cut.columns;
        body(task / across / down, Block{row, std::min(cut.rows, g.out[0] - row), column, std::min(cut.columns, g.out[1] - column)}, lane);
      },
      lanes);
}
}  // namespace

bool is_depthwise(const Conv& c) { return c.channels == 1 && c.filters <= kMostFilters && c.dtype != DType::f64 && fits(forward_of(c)); }
bool is_depthwise_back_x(const Conv& c) {
  constexpr int64_t kMostSpread = 4;  // zeros are multiplied, too
  return is_depthwise(c) && c.stride[0] * c.stride[1] <= kMostSpread && fits(back_x_of(c));
}

void conv_depthwise(const Conv& c, const void* x, const void* w, const void* bias, void* y, void* workspace, int64_t lane_bytes,
                    int lanes) {
  const Correlation g = forward_of(c);
  const Cut cut = cut_of(g);
  for_blocks(c, g, cut, lanes, [&](int64_t image, const Block& b, int lane) {
    Scratch s(g, cut, static_cast<char*>(workspace) + lane * lane_bytes);
    const int64_t filter = image % c.groups * c.filters;
    s.read_kernels(g, w, filter * c.taps());
    HWY_DYNAMIC_DISPATCH(fill_block)(g, cut, b, x, image * c.pixels(), s.planes);
    for (int64_t f = 0; f < c.filters; ++f) {
      RECKON_COUNT_MATMUL(2 * c.taps() * b.rows * b.columns);
      if (bias) RECKON_COUNT_VECTOR(b.rows * b.columns);
      const float more = bias ? float(load_float(c.dtype, bias, filter + f)) : 0.0f;
      HWY_DYNAMIC_DISPATCH(correlate)
      (g, cut, b, s.planes, s.offsets, s.w + f * c.taps(), more, y, (image * c.filters + f) * c.positions());
    }
  });
}

void conv_depthwise_back_x(const Conv& c, const void* dy, const void* w, void* dx, void* workspace, int64_t lane_bytes, int lanes) {
  const Correlation g = back_x_of(c);
  const Cut cut = cut_of(g);
  for_blocks(c, g, cut, lanes, [&](int64_t image, const Block& b, int lane) {
    // Needed are the products of dy: the zeros around and between its elements are not.
    if (b.first_row == 0 && b.first_column == 0) RECKON_COUNT_MATMUL(2 * c.filters * c.positions() * c.taps());
    Scratch s(g, cut, static_cast<char*>(workspace) + lane * lane_bytes);
    s.read_kernels(g, w, image % c.groups * c.filters * c.taps());
    HWY_DYNAMIC_DISPATCH(fill_block)(g, cut, b, dy, image * c.filters * c.positions(), s.planes);
    HWY_DYNAMIC_DISPATCH(correlate)(g, cut, b, s.planes, s.offsets, s.w, 0.0f, dx, image * c.pixels());
  });
}

void conv_depthwise_back_w(const Conv& c, const void* dy, const void* x, void* dw, void* workspace, int64_t lane_bytes, int lanes) {
  const Correlation g = forward_of(c);
  const Cut cut = cut_of(g);
  parallel_for(
      c.groups * c.filters,
      [&](int64_t filter, int lane) {
        Scratch s(g, cut, static_cast<char*>(workspace) + lane * lane_bytes);
        std::fill(s.sums, s.sums + c.taps(), 0.0);
        for (int64_t image = 0; image < c.batch; ++image)
          for (int64_t row = 0; row < g.out[0]; row += cut.rows)
            for (int64_t column = 0; column < g.out[1]; column += cut.columns) {
              const Block b{row, std::min(cut.rows, g.out[0] - row), column, std::min(cut.columns, g.out[1] - column)};
              HWY_DYNAMIC_DISPATCH(fill_block)(g, cut, b, x, (image * c.groups + filter / c.filters) * c.pixels(), s.planes);
              HWY_DYNAMIC_DISPATCH(multiply_block)
              (g, cut, b, s.planes, s.offsets, dy, (image * c.groups * c.filters + filter) * c.positions(), s.dy, s.sums);
            }
        for (int64_t t = 0; t < c.taps(); ++t) store_float(c.dtype, dw, filter * c.taps() + t, s.sums[t]);
      },
      lanes);
}
}  // namespace reckon::cpu
#endif
