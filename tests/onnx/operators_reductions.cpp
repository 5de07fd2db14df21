// tests/onnx/operators_reductions: reductions over any axes, one after the other, and softmax.
#include <algorithm>

#include "reckon/ops/dtypes.h"
#include "reckon/ops/reductions.h"
#include "tests/onnx/operators.h"

namespace reckon::onnx {
namespace {
using Function = Tensor (*)(const Tensor&, std::initializer_list<int>, bool);

// Axes that are reduced one by one give what all at once do.
template <Function kFunction>
Tensor reduced(const Call& c, Tensor x) {
  std::vector<int64_t> axes = c.axes(1);
  if (axes.empty() && c.whole("noop_with_empty_axes", 0)) return x;
  if (axes.empty())
    for (int i = 0; i < x.rank(); ++i) axes.push_back(i);
  std::vector<int64_t> extents(x.shape().begin(), x.shape().end());
  for (int64_t& axis : axes) {
    axis = front_axis(axis, x.rank());
    x = kFunction(x, {int(axis)}, true);
  }
  if (c.whole("keepdims", 1)) return x;
  std::vector<int64_t> kept;
  for (int i = 0; i < x.rank(); ++i)
    if (std::find(axes.begin(), axes.end(), i) == axes.end()) kept.push_back(x.shape()[i]);
  return reshape(x, Shape(std::span<const int64_t>(kept)));
}
Tensor min_of(const Tensor& x, std::initializer_list<int> axes, bool keep) { return min(x, axes, keep); }
Tensor logsumexp_of(const Tensor& x, std::initializer_list<int> axes, bool keep) { return logsumexp(x, axes, keep); }
Tensor prod_of(const Tensor& x, std::initializer_list<int> axes, bool keep) { return prod(x, axes, keep); }

Tensors over_spatial(const Call& c, Function function) {
  Tensor x = c[0];
  for (int axis = 2; axis < x.rank(); ++axis) x = function(x, {axis}, true);
  return {x};
}
// Mean 0 and variance 1 over batch and space.
Tensors mean_variance_normalization(const Call& c) {
  const Tensor centered = sub(c[0], mean(c[0], {0, 2, 3}, true));
  return {div(centered, affine(sqrt(mean(square(centered), {0, 2, 3}, true)), 1, 1e-9))};
}
}  // namespace

void add_reductions(OperatorTable& t) {
  t["GlobalAveragePool"] = [](const Call& c) { return over_spatial(c, mean); };
  t["GlobalMaxPool"] = [](const Call& c) { return over_spatial(c, max); };
  t["LogSoftmax"] = [](const Call& c) { return Tensors{log_softmax(c[0], int(c.whole("axis", -1)))}; };
  t["MeanVarianceNormalization"] = mean_variance_normalization;
  t["ReduceL1"] = [](const Call& c) { return Tensors{reduced<sum>(c, abs(c[0]))}; };
  t["ReduceL2"] = [](const Call& c) { return Tensors{sqrt(reduced<sum>(c, square(c[0])))}; };
  t["ReduceLogSum"] = [](const Call& c) { return Tensors{log(reduced<sum>(c, c[0]))}; };
  t["ReduceLogSumExp"] = [](const Call& c) { return Tensors{reduced<logsumexp_of>(c, c[0])}; };
  t["ReduceMax"] = [](const Call& c) { return Tensors{reduced<max>(c, c[0])}; };
  t["ReduceMean"] = [](const Call& c) { return Tensors{reduced<mean>(c, c[0])}; };
  t["ReduceMin"] = [](const Call& c) { return Tensors{reduced<min_of>(c, c[0])}; };
  t["ReduceProd"] = [](const Call& c) { return Tensors{reduced<prod_of>(c, c[0])}; };
  t["ReduceSum"] = [](const Call& c) { return Tensors{reduced<sum>(c, c[0])}; };
  t["ReduceSumSquare"] = [](const Call& c) { return Tensors{reduced<sum>(c, square(c[0]))}; };
  t["Softmax"] = [](const Call& c) { return Tensors{softmax(c[0], int(c.whole("axis", -1)))}; };
}
}  // namespace reckon::onnx
