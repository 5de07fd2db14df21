// cli/op_cases: convolution against its loops.
#include "reckon/cli/op_cases.h"
#include "reckon/ops/conv.h"

namespace reckon {
namespace {
struct Convolution {
  Shape x, w;
  Conv2dOptions options = {};
  bool bias = false;
  Lay lay = Lay::plain;
};
// Rows of patches are cut at 256 positions, channels at 16, filters at 64.
std::vector<Convolution> convolutions() {
  return {
      {{1, 1, 1, 1}, {1, 1, 1, 1}},
      {{1, 1, 3, 3}, {1, 1, 3, 3}, {}, true},
      {{2, 3, 5, 4}, {4, 3, 1, 1}, {}, true},
      {{2, 3, 5, 4}, {2, 3, 3, 2}, {}, true},
      {{2, 3, 5, 4}, {2, 3, 3, 3}, {.padding = {1, 1}}, true, Lay::transposed},
      {{2, 2, 7, 6}, {3, 2, 3, 3}, {.stride = {2, 2}}, false, Lay::stepped},
      {{2, 2, 7, 6}, {3, 2, 3, 3}, {.stride = {2, 3}, .padding = {2, 1}}, true},
      {{1, 2, 9, 8}, {3, 2, 3, 2}, {.dilation = {2, 3}}, true, Lay::padded},
      {{1, 2, 9, 8}, {3, 2, 3, 2}, {.stride = {3, 2}, .padding = {2, 3}, .dilation = {3, 2}}, true},
      {{2, 4, 5, 5}, {6, 2, 3, 3}, {.groups = 2}, true, Lay::turned},
      {{2, 4, 5, 5}, {4, 1, 3, 3}, {.padding = {1, 1}, .groups = 4}, true},
      {{2, 3, 4, 4}, {6, 1, 2, 2}, {.stride = {2, 2}, .groups = 3}},
      {{0, 2, 4, 4}, {3, 2, 2, 2}, {}, true},
      {{1, 1, 1, 9}, {2, 1, 1, 3}, {.stride = {1, 4}, .padding = {0, 2}}, true},
      {{1, 1, 9, 1}, {2, 1, 5, 1}, {.padding = {4, 0}}, true},
      {{1, 1, 2, 2}, {1, 1, 5, 5}, {.padding = {3, 3}, .dilation = {1, 1}}, true},  // taps that see padding alone
      {{1, 2, 3, 3}, {2, 2, 2, 2}, {.stride = {5, 5}, .padding = {4, 4}, .dilation = {4, 4}}, true},
      {{1, 17, 4, 5}, {3, 17, 2, 3}, {}, true},
      {{1, 2, 4, 5}, {66, 2, 2, 3}, {.padding = {1, 1}}, true},
      {{1, 2, 17, 19}, {3, 2, 2, 3}, {.padding = {1, 1}}, true},
      {{3, 36, 6, 7}, {70, 18, 3, 3}, {.padding = {1, 1}, .groups = 2}, true},
      {{2, 18, 20, 21}, {8, 18, 3, 3}, {.stride = {1, 2}, .padding = {2, 0}, .dilation = {2, 1}}, false, Lay::shifted},
  };
}

Array convolved(const Arrays& x, const Convolution& c) {
  const auto& o = c.options;
  const Shape &in = c.x, &w = c.w;
  const auto out = [&](int axis) {
    return (in[2 + axis] + 2 * o.padding[axis] - o.dilation[axis] * (w[2 + axis] - 1) - 1) / o.stride[axis] + 1;
  };
  Array y(Shape{in[0], w[0], out(0), out(1)});
  const int64_t filters = w[0] / o.groups;
  for_each_place(y.shape, [&](const Place& p) {
    Real sum = c.bias ? x[2][p[1]] : Real(0);
    for (int64_t k = 0; k < w[1]; ++k)
      for (int64_t i = 0; i < w[2]; ++i)
        for (int64_t j = 0; j < w[3]; ++j) {
          const int64_t row = p[2] * o.stride[0] - o.padding[0] + i * o.dilation[0],
                        col = p[3] * o.stride[1] - o.padding[1] + j * o.dilation[1];
          if (row < 0 || row >= in[2] || col < 0 || col >= in[3]) continue;
          sum += x[0][x[0].index({{p[0], p[1] / filters * w[1] + k, row, col}})] * x[1][x[1].index({{p[1], k, i, j}})];
        }
    y[y.index(p)] = sum;
  });
  return y;
}
}  // namespace

void add_conv_cases(CaseList& list) {
  list.op("conv2d");
  for (const Convolution& c : convolutions()) {
    CaseInputs inputs{CaseInput(c.x, c.lay), CaseInput(c.w, c.lay)};
    if (c.bias) inputs.push_back(CaseInput(Shape{c.w[0]}));
    list.add(
        inputs, [=](const Tensors& x) { return conv2d(x[0], x[1], c.bias ? x[2] : Tensor(), c.options); },
        [=](const Arrays& x) { return convolved(x, c); });
  }
}
}  // namespace reckon
