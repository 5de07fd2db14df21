// backend/cpu/conv: a task unfolds a block of positions into a matrix of patches (a row a channel and tap, a column a position) and
// multiplies it. Tasks are cut by shape alone and none writes what another does: gradients of an input by channels, of a kernel by filters
// and channels.
#include "reckon/backend/cpu/conv.h"

#include <algorithm>
#include <cstring>

#include "reckon/backend/cpu/conv_depthwise.h"
#include "reckon/backend/cpu/convert.h"
#include "reckon/backend/cpu/count.h"
#include "reckon/backend/cpu/gemm_packed.h"
#include "reckon/base/parallel.h"
#include "reckon/tensor/shape.h"

namespace reckon::cpu {
namespace {
constexpr int64_t kPositions = 256;  // columns of one block of patches
constexpr int64_t kRows = 128;       // of patches, about, in one task of a gradient: whole channels
constexpr int64_t kFilters = 256;    // of one task of a kernel's gradient

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t padded_bytes(int64_t elements, DType dtype) { return ceil_div(checked_multiply(elements, size_of(dtype)), 64) * 64; }
const char* at(const void* data, DType dtype, int64_t i) { return static_cast<const char*>(data) + i * size_of(dtype); }
char* at(void* data, DType dtype, int64_t i) { return static_cast<char*>(data) + i * size_of(dtype); }
bool is_half(DType dtype) { return size_of(dtype) == 2; }
// Channels of one task of a gradient.
int64_t channels_each(const Conv& c) { return std::min(c.channels, ceil_div(kRows, c.taps())); }
// Rows of its patches at most. Whole channels fill kRows rows unevenly, the more so the larger the kernel; this bound grows with it.
int64_t rows_bound(const Conv& c) { return std::min(checked_multiply(c.channels, c.taps()), checked_sum({c.taps(), kRows - 1})); }
// Patches that are the image as it lies.
bool is_pointwise(const Conv& c) { return c.taps() == 1 && c.stride[0] == 1 && c.stride[1] == 1 && c.padding[0] == 0 && c.padding[1] == 0; }

// Calls run(column, first pixel or -1, n) for stretches of one row of patches: positions [begin, end) of the output seen
// by one tap. Neighbours of a stretch are stride[1] pixels apart; -1: they lie in the padding.
template <class Run>
void for_stretches(const Conv& c, int64_t tap, int64_t begin, int64_t end, Run run) {
  const int64_t dy = tap / c.kernel[1] * c.dilation[0] - c.padding[0], dx = tap % c.kernel[1] * c.dilation[1] - c.padding[1];
  for (int64_t p = begin; p < end;) {
    const int64_t row = p / c.out[1], col = p % c.out[1], n = std::min(end - p, c.out[1] - col), y = row * c.stride[0] + dy;
    int64_t first = col, last = col + n;  // columns whose pixel is inside
    if (y < 0 || y >= c.in[0]) {
      last = first;
    } else {
      if (dx < 0) first = std::clamp(ceil_div(-dx, c.stride[1]), col, col + n);
      const int64_t room = c.in[1] - dx;  // pixels from the first column's on
      last = std::clamp(room <= 0 ? 0 : ceil_div(room, c.stride[1]), first, col + n);
    }
    if (first > col) run(p - begin, int64_t(-1), first - col);
    if (last > first) run(p - begin + first - col, y * c.in[1] + first * c.stride[1] + dx, last - first);
    if (col + n > last) run(p - begin + last - col, int64_t(-1), col + n - last);
    p += n;
  }
}

// patches[channel and tap][kPositions] of positions [begin, end), of `channels` images at x.
template <class T>
void unfold_as(const Conv& c, const T* x, int64_t channels, int64_t begin, int64_t end, T* patches) {
  for (int64_t channel = 0; channel < channels; ++channel)
    for (int64_t tap = 0; tap < c.taps(); ++tap, patches += kPositions)
      for_stretches(c, tap, begin, end, [&](int64_t column, int64_t pixel, int64_t n) {
        T* to = patches + column;
        if (pixel < 0) {
          std::memset(to, 0, size_t(n) * sizeof(T));
          return;
        }
        const T* from = x + channel * c.pixels() + pixel;
        if (c.stride[1] == 1) {
          std::memcpy(to, from, size_t(n) * sizeof(T));
        } else {
          for (int64_t i = 0; i < n; ++i) to[i] = from[i * c.stride[1]];
        }
      });
}
void unfold(const Conv& c, const void* x, int64_t channels, int64_t begin, int64_t end, void* patches) {
  switch (size_of(c.dtype)) {
    case 2:
      return unfold_as(c, static_cast<const uint16_t*>(x), channels, begin, end, static_cast<uint16_t*>(patches));
    case 4:
      return unfold_as(c, static_cast<const uint32_t*>(x), channels, begin, end, static_cast<uint32_t*>(patches));
    default:
      return unfold_as(c, static_cast<const uint64_t*>(x), channels, begin, end, static_cast<uint64_t*>(patches));
  }
}

// Positions [begin, end) as a matrix, in `patches` if they must be unfolded.
Matrix patches_of(const Conv& c, const void* x, int64_t channels, int64_t begin, int64_t end, void* patches) {
  if (is_pointwise(c)) return {at(x, c.dtype, begin), c.dtype, c.pixels(), 1};
  unfold(c, x, channels, begin, end, patches);
  return {patches, c.dtype, kPositions, 1};
}

// The other way: adds patches to the pixels that they came from.
template <class T>
void fold(const Conv& c, const T* patches, int64_t channels, int64_t begin, int64_t end, T* x) {
  for (int64_t channel = 0; channel < channels; ++channel)
    for (int64_t tap = 0; tap < c.taps(); ++tap, patches += kPositions)
      for_stretches(c, tap, begin, end, [&](int64_t column, int64_t pixel, int64_t n) {
        if (pixel < 0) return;
        T* to = x + channel * c.pixels() + pixel;
        for (int64_t i = 0; i < n; ++i) to[i * c.stride[1]] += patches[column + i];
      });
}

// The same bias for all positions of a filter.
template <class T>
void spread(const T* bias, int64_t filters, int64_t positions, int64_t n, T* y) {
  for (int64_t f = 0; f < filters; ++f)
    for (int64_t i = 0; i < n; ++i) y[f * positions + i] = bias[f];
  RECKON_COUNT_VECTOR(filters * n);
}
void spread_bias(const Conv& c, const void* bias, int64_t n, void* y) {
  switch (size_of(c.dtype)) {
    case 2:
      return spread(static_cast<const uint16_t*>(bias), c.filters, c.positions(), n, static_cast<uint16_t*>(y));
    case 4:
      return spread(static_cast<const uint32_t*>(bias), c.filters, c.positions(), n, static_cast<uint32_t*>(y));
    default:
      return spread(static_cast<const uint64_t*>(bias), c.filters, c.positions(), n, static_cast<uint64_t*>(y));
  }
}

// float32 or float64 to c.dtype.
void round_into(const Conv& c, const void* sums, int64_t n, void* to) { convert(statistics_dtype(c.dtype), sums, c.dtype, to, n); }

int64_t patch_bytes(int64_t rows, DType dtype) { return padded_bytes(checked_multiply(rows, kPositions), dtype); }
int64_t depth_of(const Conv& c) { return checked_multiply(c.channels, c.taps()); }
}  // namespace

int64_t conv_workspace(const Conv& c, int lanes) { return checked_product({lanes, kLaneBytes + patch_bytes(depth_of(c), c.dtype)}); }

void conv(const Conv& c, const void* x, const void* w, const void* bias, void* y, void* workspace, int lanes) {
  const int64_t depth = depth_of(c), positions = c.positions(), blocks = ceil_div(positions, kPositions);
  const int64_t lane_bytes = kLaneBytes + patch_bytes(depth, c.dtype);
  if (is_depthwise(c)) return conv_depthwise(c, x, w, bias, y, workspace, lane_bytes, lanes);
  parallel_for(
      c.batch * c.groups * blocks,
      [&](int64_t task, int lane) {
        char* const scratch = static_cast<char*>(workspace) + lane * lane_bytes;
        char* const patches = scratch + kLaneBytes;
        const int64_t image = task / blocks, group = image % c.groups, begin = task % blocks * kPositions,
                      end = std::min(positions, begin + kPositions);
        char* const to = at(y, c.dtype, image * c.filters * positions + begin);
        if (bias) spread_bias(c, at(bias, c.dtype, group * c.filters), end - begin, to);
        PackedProduct p{c.filters, end - begin, depth};
        p.a = {at(w, c.dtype, group * c.filters * depth), c.dtype, depth, 1};
        p.b = patches_of(c, at(x, c.dtype, image * c.channels * c.pixels()), c.channels, begin, end, patches);
        p.c = to, p.c_dtype = c.dtype, p.ldc = positions;
        p.accumulate = bias != nullptr;  // to the bias, before the sum is rounded
        multiply_packed(p, scratch);
      },
      lanes);
}

namespace {
// Scratch of a lane of conv_back_x: the product's, gradients of patches, and for 16-bit images their sums.
struct BackX {
  DType sums;
  int64_t channels, patches, images;  // bytes of the latter two
  explicit BackX(const Conv& c)
      : sums(statistics_dtype(c.dtype)),
        channels(channels_each(c)),
        patches(patch_bytes(rows_bound(c), sums)),
        images(is_half(c.dtype) ? padded_bytes(checked_multiply(channels, c.pixels()), sums) : 0) {}
  int64_t lane() const { return checked_sum({kLaneBytes, patches, images}); }
};
void fold_patches(const Conv& c, const void* patches, int64_t channels, int64_t begin, int64_t end, void* x) {
  if (c.dtype == DType::f64) return fold(c, static_cast<const double*>(patches), channels, begin, end, static_cast<double*>(x));
  fold(c, static_cast<const float*>(patches), channels, begin, end, static_cast<float*>(x));
}
}  // namespace

int64_t conv_back_x_workspace(const Conv& c, int lanes) { return checked_multiply(lanes, BackX(c).lane()); }

void conv_back_x(const Conv& c, const void* dy, const void* w, void* dx, void* workspace, int lanes) {
  const BackX sizes(c);
  if (is_depthwise_back_x(c)) return conv_depthwise_back_x(c, dy, w, dx, workspace, sizes.lane(), lanes);
  const int64_t depth = c.channels * c.taps(), positions = c.positions(), each = sizes.channels, parts = ceil_div(c.channels, each);
  parallel_for(
      c.batch * c.groups * parts,
      [&](int64_t task, int lane) {
        char* const scratch = static_cast<char*>(workspace) + lane * sizes.lane();
        char* const patches = scratch + kLaneBytes;
        const int64_t image = task / parts, group = image % c.groups, first = task % parts * each;
        const int64_t channels = std::min(each, c.channels - first);
        char* const to = at(dx, c.dtype, (image * c.channels + first) * c.pixels());
        char* const sums = is_half(c.dtype) ? patches + sizes.patches : to;
        std::memset(sums, 0, size_t(channels * c.pixels() * size_of(sizes.sums)));
        for (int64_t begin = 0; begin < positions; begin += kPositions) {
          const int64_t end = std::min(positions, begin + kPositions);
          PackedProduct p{channels * c.taps(), end - begin, c.filters};
          p.a = {at(w, c.dtype, group * c.filters * depth + first * c.taps()), c.dtype, 1, depth};
          p.b = {at(dy, c.dtype, image * c.filters * positions + begin), c.dtype, positions, 1};
          p.c = patches, p.c_dtype = sizes.sums, p.ldc = kPositions;
          multiply_packed(p, scratch);
          fold_patches(c, patches, channels, begin, end, sums);
        }
        if (is_half(c.dtype)) round_into(c, sums, channels * c.pixels(), to);
      },
      lanes);
}

namespace {
// Scratch of a lane of conv_back_w: the product's, patches, and for 16-bit kernels their sums.
struct BackW {
  DType sums;
  int64_t channels, filters, patches, kernels;
  explicit BackW(const Conv& c)
      : sums(statistics_dtype(c.dtype)),
        channels(channels_each(c)),
        filters(std::min(c.filters, kFilters)),
        patches(patch_bytes(rows_bound(c), c.dtype)),
        kernels(is_half(c.dtype) ? padded_bytes(checked_multiply(filters, rows_bound(c)), sums) : 0) {}
  int64_t lane() const { return checked_sum({kLaneBytes, patches, kernels}); }
};
}  // namespace

int64_t conv_back_w_workspace(const Conv& c, int lanes) { return checked_multiply(lanes, BackW(c).lane()); }

void conv_back_w(const Conv& c, const void* dy, const void* x, void* dw, void* workspace, int lanes) {
  const BackW sizes(c);
  const int64_t depth = c.channels * c.taps(), positions = c.positions();
  const int64_t each = sizes.channels, channel_parts = ceil_div(c.channels, each), filter_parts = ceil_div(c.filters, kFilters);
  if (c.batch == 0) return fill_zero(dw, c.groups * c.filters * depth * size_of(c.dtype));
  if (is_depthwise(c)) return conv_depthwise_back_w(c, dy, x, dw, workspace, sizes.lane(), lanes);
  parallel_for(
      c.groups * filter_parts * channel_parts,
      [&](int64_t task, int lane) {
        char* const scratch = static_cast<char*>(workspace) + lane * sizes.lane();
        char* const patches = scratch + kLaneBytes;
        const int64_t channel = task % channel_parts * each, group = task / channel_parts / filter_parts;
        const int64_t filter = task / channel_parts % filter_parts * kFilters;
        const int64_t channels = std::min(each, c.channels - channel), filters = std::min(kFilters, c.filters - filter),
                      width = channels * c.taps();
        char* const to = at(dw, c.dtype, (group * c.filters + filter) * depth + channel * c.taps());
        const bool half = is_half(c.dtype);
        PackedProduct p{filters, width};
        p.c = half ? patches + sizes.patches : to, p.c_dtype = sizes.sums, p.ldc = half ? width : depth;
        for (int64_t b = 0; b < c.batch; ++b) {
          const int64_t image = b * c.groups + group;
          for (int64_t begin = 0; begin < positions; begin += kPositions) {
            const int64_t end = std::min(positions, begin + kPositions);
            p.k = end - begin;
            p.a = {at(dy, c.dtype, (image * c.filters + filter) * positions + begin), c.dtype, positions, 1};
            p.b = patches_of(c, at(x, c.dtype, (image * c.channels + channel) * c.pixels()), channels, begin, end, patches);
            std::swap(p.b.row_stride, p.b.col_stride);
            multiply_packed(p, scratch);
            p.accumulate = true;
          }
        }
        for (int64_t f = 0; half && f < filters; ++f) round_into(c, at(p.c, sizes.sums, f * width), width, at(to, c.dtype, f * depth));
      },
      lanes);
}
}  // namespace reckon::cpu
