// backend/cpu/conv: two-dimensional convolution on plain pointers, as products of a kernel and patches of the image.
#pragma once
#include <cstdint>

#include "reckon/tensor/dtype.h"

namespace reckon::cpu {

/// x [batch, groups * channels, in[0], in[1]], w [groups * filters, channels, kernel[0], kernel[1]], y [batch, groups * filters, out[0],
/// out[1]]: all dense, of one float dtype. Index 0 is height, 1 width. Every extent but batch is at least 1.
struct Conv {
  DType dtype = DType::f32;
  int64_t batch = 0, groups = 1, channels = 0, filters = 0;  // channels and filters are those of one group
  int64_t in[2] = {}, kernel[2] = {}, out[2] = {};
  int64_t stride[2] = {}, padding[2] = {}, dilation[2] = {};
  int64_t taps() const { return kernel[0] * kernel[1]; }
  int64_t positions() const { return out[0] * out[1]; }
  int64_t pixels() const { return in[0] * in[1]; }
};

/// Bytes of scratch on at most `lanes` threads. Monotone in every extent, but for one: conv_back_x_workspace of 16-bit images may fall as
/// the kernel grows, because a task then has fewer channels, and holds float32 sums of all their pixels. It needn't be: a kernel belongs to
/// the model, and is the same for the longest batch and the shortest, which are what a plan has to hold.
int64_t conv_workspace(const Conv& c, int lanes);
int64_t conv_back_x_workspace(const Conv& c, int lanes);
int64_t conv_back_w_workspace(const Conv& c, int lanes);

/// y = x * w (+ bias [groups * filters], or null). Sums in float32 (float64 for f64), rounded once.
void conv(const Conv& c, const void* x, const void* w, const void* bias, void* y, void* workspace, int lanes);
/// dx of dy and w; dw of dy and x. Likewise.
void conv_back_x(const Conv& c, const void* dy, const void* w, void* dx, void* workspace, int lanes);
void conv_back_w(const Conv& c, const void* dy, const void* x, void* dw, void* workspace, int lanes);
}  // namespace reckon::cpu
