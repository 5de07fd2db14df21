// Convolutions of groups of one channel against their loops, and that those of other shapes are left to products of matrices.
#include "reckon/backend/cpu/conv_depthwise.h"

#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
struct Case {
  int64_t batch, groups, filters, in[2], kernel[2];
  int64_t stride[2] = {1, 1}, padding[2] = {0, 0}, dilation[2] = {1, 1};
};
Conv conv_of(const Case& k, DType dtype) {
  Conv c{.dtype = dtype, .batch = k.batch, .groups = k.groups, .channels = 1, .filters = k.filters};
  for (const int axis : {0, 1}) {
    c.in[axis] = k.in[axis], c.kernel[axis] = k.kernel[axis];
    c.stride[axis] = k.stride[axis], c.padding[axis] = k.padding[axis], c.dilation[axis] = k.dilation[axis];
    c.out[axis] = (k.in[axis] + 2 * k.padding[axis] - k.dilation[axis] * (k.kernel[axis] - 1) - 1) / k.stride[axis] + 1;
  }
  return c;
}
const Case kCases[] = {
    {1, 1, 1, {1, 1}, {1, 1}},
    {2, 3, 1, {7, 9}, {3, 3}, {1, 1}, {1, 1}},
    {2, 3, 2, {7, 70}, {3, 5}, {1, 1}, {1, 2}},
    {1, 2, 4, {20, 33}, {2, 3}},
    {2, 2, 1, {56, 56}, {3, 3}, {1, 1}, {1, 1}},
    {2, 2, 1, {57, 41}, {3, 3}, {2, 2}, {1, 1}},
    {1, 2, 3, {11, 40}, {5, 4}, {2, 1}, {3, 4}},
    {1, 2, 1, {23, 90}, {3, 3}, {3, 4}, {2, 2}},  // beyond the strides whose gradient is taken so
    {1, 2, 1, {30, 50}, {3, 4}, {2, 3}, {4, 6}, {4, 5}},
    {1, 2, 2, {9, 1200}, {3, 7}, {1, 1}, {1, 3}},  // several blocks of columns
    {1, 1, 1, {300, 40}, {5, 3}, {1, 2}, {2, 1}},  // and of rows
    {3, 1, 1, {6, 6}, {3, 3}, {1, 1}, {6, 5}},     // taps that see padding alone
    {2, 2, 1, {4, 5}, {2, 2}, {5, 5}, {4, 4}, {4, 4}},
    {0, 2, 1, {5, 5}, {3, 3}},
    {1, 3, 1, {1, 100}, {1, 100}},
};

// Scratch that begins where a cache line does.
class Scratch {
 public:
  explicit Scratch(int64_t bytes) : bytes_(size_t(bytes) + 64) {}
  char* data() { return bytes_.data() + (64 - reinterpret_cast<uintptr_t>(bytes_.data()) % 64); }

 private:
  std::vector<char> bytes_;
};

class Sums {
 public:
  Sums(const Case& k, DType dtype)
      : c(conv_of(k, dtype)),
        x(uniform(dtype, c.batch * c.groups * c.pixels(), 1)),
        w(uniform(dtype, c.groups * c.filters * c.taps(), 2)),
        bias(uniform(dtype, c.groups * c.filters, 3)),
        dy(uniform(dtype, c.batch * c.groups * c.filters * c.positions(), 4)) {}
  // f(element of x, of w, of y) for each product.
  template <class F>
  void each_product(F f) const {
    for (int64_t image = 0; image < c.batch * c.groups; ++image)
      for (int64_t filter = 0; filter < c.filters; ++filter)
        for (int64_t p = 0; p < c.positions(); ++p)
          for (int64_t t = 0; t < c.taps(); ++t) {
            const int64_t row = p / c.out[1] * c.stride[0] + t / c.kernel[1] * c.dilation[0] - c.padding[0];
            const int64_t column = p % c.out[1] * c.stride[1] + t % c.kernel[1] * c.dilation[1] - c.padding[1];
            if (row < 0 || row >= c.in[0] || column < 0 || column >= c.in[1]) continue;
            f((image * c.in[0] + row) * c.in[1] + column, (image % c.groups * c.filters + filter) * c.taps() + t,
              (image * c.filters + filter) * c.positions() + p);
          }
  }
  Conv c;
  Buffer x, w, bias, dy;
};

TEST(ConvDepthwise, IsItsLoops) {
  on_every_target([] {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
      for (const Case& k : kCases) {
        const Sums s(k, dtype);
        const Conv& c = s.c;
        SCOPED_TRACE(testing::Message() << name_of(dtype) << " case " << &k - kCases);
        ASSERT_TRUE(is_depthwise(c));
        for (const bool biased : {false, true}) {
          std::vector<double> want(size_t(s.dy.size()));
          for (size_t i = 0; i < want.size(); ++i) want[i] = biased ? s.bias[int64_t(i) / c.positions() % (c.groups * c.filters)] : 0;
          s.each_product([&](int64_t x, int64_t w, int64_t y) { want[size_t(y)] += s.x[x] * s.w[w]; });
          Buffer y(dtype, s.dy.size());
          Scratch scratch(conv_workspace(c, 2));
          conv(c, s.x.data(), s.w.data(), biased ? s.bias.data() : nullptr, y.data(), scratch.data(), 2);
          expect_near(y, want, epsilon(DType::f32) * double(c.taps() + 1), "y");
        }
        std::vector<double> dx_want(size_t(s.x.size())), dw_want(size_t(s.w.size()));
        s.each_product([&](int64_t x, int64_t w, int64_t y) {
          dx_want[size_t(x)] += s.dy[y] * s.w[w];
          dw_want[size_t(w)] += s.dy[y] * s.x[x];
        });
        Buffer dx(dtype, s.x.size()), dw(dtype, s.w.size());
        Scratch scratch(std::max(conv_back_x_workspace(c, 2), conv_back_w_workspace(c, 2)));
        conv_back_x(c, s.dy.data(), s.w.data(), dx.data(), scratch.data(), 2);
        conv_back_w(c, s.dy.data(), s.x.data(), dw.data(), scratch.data(), 2);
        expect_near(dx, dx_want, epsilon(DType::f32) * double(c.taps() * c.filters), "dx");
        const double walk = epsilon(DType::f32) * std::sqrt(double(c.batch * c.positions()));
        expect_near(dw, dw_want, walk * std::max(1.0, max_abs(dw_want)), "dw");
      }
  });
}

// A kernel over padding is multiplied by zeros, as in a product of matrices: 0 * inf is NaN. What lies beyond a row is not.
TEST(ConvDepthwise, SeesZerosOnlyInThePadding) {
  on_every_target([] {
    Sums s({1, 1, 1, {6, 37}, {3, 3}, {1, 1}, {1, 1}}, DType::f32);
    const double inf = std::numeric_limits<double>::infinity();
    for (int64_t row = 0; row < 6; ++row) s.x.set(row * 37 + 36, inf);
    for (int64_t t = 0; t < 9; ++t) s.w.set(t, 1);
    Buffer y(DType::f32, s.dy.size());
    Scratch scratch(conv_workspace(s.c, 1));
    conv(s.c, s.x.data(), s.w.data(), nullptr, y.data(), scratch.data(), 1);
    for (int64_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isinf(y[i]), i % 37 >= 35) << i;
    s.w.set(0, inf);
    for (int64_t row = 0; row < 6; ++row) s.x.set(row * 37 + 36, 1);
    conv(s.c, s.x.data(), s.w.data(), nullptr, y.data(), scratch.data(), 1);
    for (int64_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isnan(y[i]), i < 37 || i % 37 == 0) << i;
  });
}

TEST(ConvDepthwise, IsTheSameOnAnyThreads) {
  const Sums s({3, 4, 2, {40, 70}, {3, 3}, {1, 1}, {1, 1}}, DType::bf16);
  expect_same_on_any_threads([&] {
    const int lanes = 5;
    Buffer y(DType::bf16, s.dy.size()), dx(DType::bf16, s.x.size()), dw(DType::bf16, s.w.size());
    Scratch scratch(std::max({conv_workspace(s.c, lanes), conv_back_x_workspace(s.c, lanes), conv_back_w_workspace(s.c, lanes)}));
    conv(s.c, s.x.data(), s.w.data(), s.bias.data(), y.data(), scratch.data(), lanes);
    conv_back_x(s.c, s.dy.data(), s.w.data(), dx.data(), scratch.data(), lanes);
    conv_back_w(s.c, s.dy.data(), s.x.data(), dw.data(), scratch.data(), lanes);
    return std::vector<Buffer>{y, dx, dw};
  });
}

TEST(ConvDepthwise, LeavesOtherShapesToProducts) {
  const auto with = [](auto change) {
    Conv c = conv_of({1, 2, 1, {20, 20}, {3, 3}}, DType::f32);
    EXPECT_TRUE(is_depthwise(c) && is_depthwise_back_x(c));
    change(c);
    return c;
  };
  EXPECT_FALSE(is_depthwise(with([](Conv& c) { c.channels = 2; })));
  EXPECT_FALSE(is_depthwise(with([](Conv& c) { c.filters = 5; })));
  EXPECT_FALSE(is_depthwise(with([](Conv& c) { c.dtype = DType::f64; })));
  EXPECT_FALSE(is_depthwise(with([](Conv& c) { c.stride[1] = 1 << 30; })));
  EXPECT_FALSE(is_depthwise(with([](Conv& c) { c.dilation[0] = 1 << 30; })));
  EXPECT_FALSE(is_depthwise(with([](Conv& c) { c.dilation[0] = 5000; }))) << "rows under one block of positions exceed the scratch";
  EXPECT_FALSE(is_depthwise_back_x(with([](Conv& c) { c.stride[0] = c.stride[1] = 3; })));
}
}  // namespace
}  // namespace reckon::cpu
