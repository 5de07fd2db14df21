// backend/cpu/conv_depthwise: convolutions of groups of one channel, of which products of matrices make little.
#pragma once
#include "reckon/backend/cpu/conv.h"

namespace reckon::cpu {

/// Whether the functions below take a convolution: one channel a group, few filters, and rows of an image that fit their scratch. By
/// shapes and dtype alone.
bool is_depthwise(const Conv& c);
/// Whether conv_back_x does: strides are small, too.
bool is_depthwise_back_x(const Conv& c);

/// As conv() and its gradients; the scratch of each lane is kLaneBytes of every lane_bytes.
void conv_depthwise(const Conv& c, const void* x, const void* w, const void* bias, void* y, void* workspace, int64_t lane_bytes, int lanes);
void conv_depthwise_back_x(const Conv& c, const void* dy, const void* w, void* dx, void* workspace, int64_t lane_bytes, int lanes);
void conv_depthwise_back_w(const Conv& c, const void* dy, const void* x, void* dw, void* workspace, int64_t lane_bytes, int lanes);
}  // namespace reckon::cpu
