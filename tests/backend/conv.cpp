// Scratch of convolutions: a plan of the largest sizes holds all smaller ones. Their values are judged by the cases of conv2d.
#include "reckon/backend/cpu/conv.h"

#include <gtest/gtest.h>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/philox.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/meter.h"
#include "reckon/engine/planned.h"
#include "reckon/ops/conv.h"
#include "reckon/ops/ops.h"

namespace reckon::cpu {
namespace {
using Workspace = int64_t (*)(const Conv&, int);
struct Direction {
  const char* name;
  Workspace bytes;
};
constexpr Direction kDirections[] = {
    {"conv", conv_workspace}, {"conv_back_x", conv_back_x_workspace}, {"conv_back_w", conv_back_w_workspace}};
constexpr DType kFloats[] = {DType::f32, DType::f64, DType::bf16, DType::f16};

class Random {
 public:
  explicit Random(uint64_t seed) : seed_(seed) {}
  // In [low, high], small ones as often as large ones.
  int64_t between(int64_t low, int64_t high) {
    const auto draw = philox(seed_, 0, count_++);
    const int64_t most = low + int64_t(draw[0] % uint64_t(high - low + 1));
    return low + int64_t(draw[1] % uint64_t(most - low + 1));
  }

 private:
  uint64_t seed_, count_ = 0;
};
Conv some(Random& random, DType dtype) {
  Conv c{dtype, random.between(0, 64), 1, random.between(1, 700), random.between(1, 700)};
  for (const int axis : {0, 1}) {
    c.kernel[axis] = random.between(1, 40);
    c.in[axis] = c.kernel[axis] + random.between(0, 100);
    c.out[axis] = c.in[axis] - c.kernel[axis] + 1;
    c.stride[axis] = c.dilation[axis] = 1;
  }
  return c;
}
// The extents that may grow beside the kernel's; the output follows the input.
void grow(Conv& c, int which, int64_t by) {
  switch (which) {
    case 0:
      c.batch += by;
      break;
    case 1:
      c.channels += by;
      break;
    case 2:
      c.filters += by;
      break;
    default:
      c.in[which - 3] += by, c.out[which - 3] += by;
  }
}

TEST(ConvWorkspace, GrowsWithEveryExtentButTheKernel) {
  Random random(1);
  for (int n = 0; n < 20000; ++n) {
    const Conv small = some(random, kFloats[n % 4]);
    Conv large = small;
    grow(large, n / 4 % 5, random.between(1, 300));
    for (const Direction& d : kDirections) {
      ASSERT_LE(d.bytes(small, 3), d.bytes(large, 3)) << d.name << " " << n;
      ASSERT_LE(d.bytes(small, 3), d.bytes(small, 4)) << d.name << " " << n;
    }
  }
}

// Every kernel up to 40 x 40 against its neighbours, for channels around those of a task.
TEST(ConvWorkspace, GrowsWithTheKernelButForSumsOfHalfImages) {
  int falls = 0;
  for (const DType dtype : kFloats)
    for (const int64_t channels : {1, 2, 3, 7, 8, 15, 16, 64, 127, 128, 129, 500})
      for (int64_t height = 1; height <= 40; ++height)
        for (int64_t width = 1; width <= 40; ++width) {
          const auto with = [&](int64_t h, int64_t w) {
            return Conv{dtype, 2, 1, channels, 32, {60, 60}, {h, w}, {61 - h, 61 - w}, {1, 1}, {0, 0}, {1, 1}};
          };
          for (const Direction& d : kDirections) {
            const int64_t before = d.bytes(with(height, width), 2);
            for (const Conv& larger : {with(height + 1, width), with(height, width + 1)}) {
              if (d.bytes == conv_back_x_workspace && size_of(dtype) == 2) {
                falls += d.bytes(larger, 2) < before;
              } else {
                ASSERT_LE(before, d.bytes(larger, 2))
                    << d.name << " " << name_of(dtype) << " " << channels << " channels, " << height << " x " << width;
              }
            }
          }
        }
  EXPECT_GT(falls, 0) << "conv.h says that they may";
}

// The sums' share is all that may fall: without it the rest is that of float32 images.
TEST(ConvWorkspace, OfHalfImagesIsThatOfFloat32AndTheirSums) {
  Random random(2);
  for (int n = 0; n < 2000; ++n) {
    const Conv half = some(random, DType::bf16);
    Conv single = half;
    single.dtype = DType::f32;
    const int64_t each = std::min(half.channels, (128 + half.taps() - 1) / half.taps());
    const int64_t sums = (each * half.pixels() * 4 + 63) / 64 * 64;
    ASSERT_EQ(conv_back_x_workspace(half, 5), conv_back_x_workspace(single, 5) + 5 * sums);
  }
}

// The promise itself: steps on smaller and fewer images run in the region of the largest.
TEST(ConvWorkspace, APlanOfTheLargestBatchHoldsTheOthers) {
  const Ref<Device> device = open_cpu(Mode::real);
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Tensor w = empty(*device, {{20, 6, 5, 3}, dtype});
    fill_uniform_(w, 1, -1, 1);
    const auto body = [&](const Tensors& in) {
      Tensor kernel = w.detached(), x = in[0].detached();
      kernel.set_requires_grad(), x.set_requires_grad();
      const Tensor loss = mean(square(conv2d(x, kernel, {}, {.stride = {1, 2}, .padding = {2, 1}, .groups = 2})));
      const Tensors g = grad(loss, {x, kernel});
      return Tensors{sum(g[0]), sum(g[1])};
    };
    PlannedStep step = planned(*device, body);
    int64_t region = 0;
    for (const Shape& shape : {Shape{3, 12, 40, 37}, {3, 12, 39, 37}, {1, 12, 40, 20}, {2, 12, 9, 3}, {3, 12, 40, 37}, {1, 12, 1, 2}}) {
      const Tensor x = empty(*device, {shape, dtype});
      fill_uniform_(x, 2, -1, 1);
      const Tensors got = step({x}), want = body({x});
      for (size_t i = 0; i < 2; ++i) EXPECT_EQ(got[i].item(), want[i].item()) << to_string(shape);
      if (region == 0) region = step.region_bytes();
      EXPECT_EQ(step.region_bytes(), region) << to_string(shape);
    }
  }
}
}  // namespace
}  // namespace reckon::cpu
