// tests/onnx/operators_networks: products, convolution, norms and losses.
#include <algorithm>

#include "reckon/ops/conv.h"
#include "reckon/ops/dtypes.h"
#include "reckon/ops/einops.h"
#include "reckon/ops/indexing.h"
#include "reckon/ops/joining.h"
#include "reckon/ops/reductions.h"
#include "reckon/ops/unary.h"
#include "tests/onnx/operators.h"

namespace reckon::onnx {
namespace {
Tensors gemm(const Call& c) {
  const Tensor a = c.whole("transA", 0) ? transpose(c[0]) : c[0], b = c.whole("transB", 0) ? transpose(c[1]) : c[1];
  const Tensor y = affine(matmul(a, b), c.number("alpha", 1));
  return {c.has(2) ? add(y, affine(c[2], c.number("beta", 1))) : y};
}
Tensors matmul_integer(const Call& c) {
  const auto centered = [&](size_t i) {
    const Tensor x = cast(c[i], DType::i32);
    return c.has(i + 2) ? sub(x, cast(c[i + 2], DType::i32)) : x;
  };
  return {matmul(centered(0), centered(1))};
}

Tensors convolution(const Call& c) {
  if (c[0].rank() != 4) throw NotApplicable{"Conv of other than two dimensions"};
  const auto pair = [&](const char* name) {
    const std::vector<int64_t> given = c.list(name);
    return given.empty() ? std::vector<int64_t>{1, 1} : given;
  };
  const std::vector<int64_t> stride = pair("strides"), dilation = pair("dilations");
  std::vector<int64_t> pads = c.list("pads");
  const std::string automatic = c.text("auto_pad", "NOTSET");
  if (pads.empty()) pads.assign(4, 0);
  for (int axis = 0; axis < 2 && automatic.starts_with("SAME"); ++axis) {
    const int64_t in = c[0].shape()[2 + axis], reach = dilation[size_t(axis)] * (c[1].shape()[2 + axis] - 1) + 1;
    const int64_t out = (in + stride[size_t(axis)] - 1) / stride[size_t(axis)];
    const int64_t all = std::max<int64_t>(0, (out - 1) * stride[size_t(axis)] + reach - in), less_half = all / 2;
    pads[size_t(axis)] = automatic == "SAME_LOWER" ? all - less_half : less_half;
    pads[size_t(axis + 2)] = all - pads[size_t(axis)];
  }
  Conv2dOptions o{{stride[0], stride[1]}, {0, 0}, {dilation[0], dilation[1]}, c.whole("group", 1)};
  Tensor x = c[0];
  if (pads[0] == pads[2] && pads[1] == pads[3]) {
    o.padding[0] = pads[0], o.padding[1] = pads[1];
  } else {
    const int64_t before[] = {0, 0, pads[0], pads[1]}, after[] = {0, 0, pads[2], pads[3]};
    x = pad(x, before, after);
  }
  return {conv2d(x, c[1], c.has(2) ? c[2] : Tensor(), o)};
}

Tensors layer_normalization(const Call& c) {
  const Tensor& x = c[0];
  const int axis = front_axis(c.whole("axis", -1), x.rank());
  int64_t width = 1;
  std::vector<int64_t> lead(x.shape().begin(), x.shape().begin() + axis);
  for (int i = axis; i < x.rank(); ++i) width *= x.shape()[i];
  const double eps = c.number("epsilon", 1e-5);
  const Tensor rows = reshape(x, {width ? x.numel() / width : 0, width});
  const Tensor y = layer_norm(rows, reshape(c[1], {width}), c.has(2) ? reshape(c[2], {width}) : Tensor(), eps);
  lead.resize(size_t(x.rank()), 1);
  const Shape statistics{std::span<const int64_t>(lead)};
  return {reshape(y, x.shape()), reshape(mean(rows, {1}), statistics), reshape(rsqrt(affine(variance(rows, {1}, 0), 1, eps)), statistics)};
}

// ---- losses of x [N, C, D...] under targets [N, D...]
Tensor classes_last(const Tensor& x) {
  Tensor y = x;
  for (int i = 1; i + 1 < x.rank(); ++i) y = transpose(y, i, i + 1);
  return y;
}
constexpr int64_t kNothingIgnored = int64_t(1) << 40;

Tensors negative_log_likelihood(const Call& c, const Tensor& log_probabilities, int64_t ignored) {
  const Tensor& targets = c[1];
  const Tensor out = full(c.device, {Shape{}, targets.dtype()}, double(ignored)), kept = not_equal(targets, out);
  const Tensor known = where(kept, targets, affine(targets, 0));
  const Tensor picked = neg(select(gather(log_probabilities, 1, unsqueeze(known, 1)), 1, 0));
  Tensor weight = cast(kept, picked.dtype());
  if (c.has(2)) weight = mul(weight, reshape(index_select(c[2], 0, reshape(known, {known.numel()})), known.shape()));
  const Tensor losses = mul(picked, weight);
  const std::string how = c.text("reduction", "mean");
  return {how == "none" ? losses : how == "sum" ? sum(losses) : div(sum(losses), sum(weight))};
}
Tensors nll_loss(const Call& c) { return negative_log_likelihood(c, c[0], c.whole("ignore_index", kNothingIgnored)); }

// By our own loss where it has the means: classes without weights.
Tensors softmax_cross_entropy(const Call& c) {
  const int64_t ignored = c.whole("ignore_index", kNothingIgnored);
  Tensors y;
  if (c.has(2)) {
    y = negative_log_likelihood(c, log_softmax(c[0], 1), ignored);
  } else {
    const std::string how = c.text("reduction", "mean");
    CrossEntropyOptions o{.reduction = how == "none" ? Reduction::none : how == "sum" ? Reduction::sum : Reduction::mean};
    if (ignored != kNothingIgnored) o.ignore_index = int32_t(ignored);
    y = {cross_entropy(contiguous(classes_last(c[0])), c[1], o)};
  }
  if (c.node.out.size() > 1) y.push_back(log_softmax(c[0], 1));
  return y;
}

Tensors dropout(const Call& c) {
  const double ratio = c.has(1) ? c[1].item() : c.number("ratio", 0.5);
  if (c.has(2) && c[2].item() != 0 && ratio != 0) throw NotApplicable{"Dropout that drops"};
  Tensors y{c[0]};
  if (c.node.out.size() > 1) y.push_back(ones(c.device, {c[0].shape(), DType::boolean}));
  return y;
}
}  // namespace

void add_networks(OperatorTable& t) {
  t["Conv"] = convolution;
  t["Dropout"] = dropout;
  t["Einsum"] = [](const Call& c) { return Tensors{einsum(runtime(c.text("equation", "")), c.in)}; };
  t["Gemm"] = gemm;
  t["LayerNormalization"] = layer_normalization;
  t["MatMul"] = [](const Call& c) { return Tensors{matmul(c[0], c[1])}; };
  t["MatMulInteger"] = matmul_integer;
  t["NegativeLogLikelihoodLoss"] = nll_loss;
  t["SoftmaxCrossEntropyLoss"] = softmax_cross_entropy;
}
}  // namespace reckon::onnx
