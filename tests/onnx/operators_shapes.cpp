// tests/onnx/operators_shapes: views, parts, positions and order.
#include <algorithm>
#include <cmath>

#include "reckon/ops/axes.h"
#include "reckon/ops/dtypes.h"
#include "reckon/ops/einops.h"
#include "reckon/ops/indexing.h"
#include "reckon/ops/joining.h"
#include "reckon/ops/scan.h"
#include "reckon/ops/sorting.h"
#include "reckon/ops/unary.h"
#include "tests/onnx/operators.h"

namespace reckon::onnx {
namespace {
Shape shape_of(const std::vector<int64_t>& extents) { return Shape(std::span<const int64_t>(extents)); }
std::vector<int64_t> extents_of(const Tensor& x) { return {x.shape().begin(), x.shape().end()}; }
Tensor list_of(Device& device, const std::vector<int64_t>& values) {
  return from_values<int64_t>(device, {int64_t(values.size())}, values);
}

Tensors reshape_by(const Call& c) {
  std::vector<int64_t> wanted = c.has(1) ? c.numbers(1) : c.list("shape");
  int64_t known = 1;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (wanted[i] == 0 && !c.whole("allowzero", 0)) wanted[i] = c[0].shape()[int(i)];
    if (wanted[i] != -1) known *= wanted[i];
  }
  for (int64_t& extent : wanted)
    if (extent == -1) extent = c[0].numel() / known;
  return {reshape(c[0], shape_of(wanted))};
}
Tensors flatten(const Call& c) {
  const int axis = front_axis(c.whole("axis", 1), c[0].rank());
  int64_t rows = 1;
  for (int i = 0; i < axis; ++i) rows *= c[0].shape()[i];
  return {reshape(c[0], {rows, rows ? c[0].numel() / rows : 0})};
}
Tensors squeeze_by(const Call& c) {
  std::vector<int> axes;
  for (const int64_t axis : c.axes(1)) axes.push_back(front_axis(axis, c[0].rank()));
  std::vector<int64_t> kept;
  for (int i = 0; i < c[0].rank(); ++i) {
    const bool goes = axes.empty() ? c[0].shape()[i] == 1 : std::find(axes.begin(), axes.end(), i) != axes.end();
    if (!goes) kept.push_back(c[0].shape()[i]);
  }
  return {reshape(c[0], shape_of(kept))};
}
Tensors unsqueeze_by(const Call& c) {
  const std::vector<int64_t> given = c.axes(1);
  const int rank = c[0].rank() + int(given.size());
  std::vector<int> axes;
  for (const int64_t axis : given) axes.push_back(front_axis(axis, rank));
  std::sort(axes.begin(), axes.end());
  Tensor y = c[0];
  for (const int axis : axes) y = unsqueeze(y, axis);
  return {y};
}
Tensors transpose_by(const Call& c) {
  const std::vector<int64_t> order = c.list("perm");
  std::vector<int> axes;
  for (int i = 0; i < c[0].rank(); ++i) axes.push_back(order.empty() ? c[0].rank() - 1 - i : int(order[size_t(i)]));
  return {permute(c[0], std::span<const int>(axes))};
}
Tensors expand_by(const Call& c) { return {expand(c[0], broadcast(c[0].shape(), shape_of(c.numbers(1))))}; }
Tensors slice_by(const Call& c) {
  const std::vector<int64_t> starts = c.numbers(1), stops = c.numbers(2);
  const std::vector<int64_t> steps = c.has(4) ? c.numbers(4) : std::vector<int64_t>(starts.size(), 1);
  std::vector<Index> items(size_t(c[0].rank()), Slice{});
  for (size_t i = 0; i < starts.size(); ++i) {
    const int axis = c.has(3) ? front_axis(c.numbers(3)[i], c[0].rank()) : int(i);
    const int64_t extent = c[0].shape()[axis];
    Slice s{starts[i], stops[i], steps[i]};
    if (s.stop && *s.stop < -extent) s.stop.reset();  // beyond the first element
    items[size_t(axis)] = s;
  }
  return {index(c[0], std::span<const Index>(items))};
}
Tensors split_by(const Call& c) {
  const int axis = front_axis(c.whole("axis", 0), c[0].rank());
  const std::vector<int64_t> sizes = c.has(1) ? c.numbers(1) : c.list("split");
  if (!sizes.empty()) return split(c[0], sizes, axis);
  const int64_t each = c[0].shape()[axis] / int64_t(c.node.out.size());
  return split(c[0], std::vector<int64_t>(c.node.out.size(), each), axis);
}
Tensors shape_by(const Call& c) {
  const std::vector<int64_t> all = extents_of(c[0]);
  const auto bound = [&](int64_t at) { return std::clamp<int64_t>(at < 0 ? at + c[0].rank() : at, 0, c[0].rank()); };
  const int64_t start = bound(c.whole("start", 0)), end = std::max(start, bound(c.whole("end", c[0].rank())));
  return {list_of(c.device, {all.begin() + start, all.begin() + end})};
}
Tensors range(const Call& c) {
  const double start = c[0].item(), limit = c[1].item(), step = c[2].item();
  const int64_t count = std::max<int64_t>(0, int64_t(std::ceil((limit - start) / step)));
  return {arange(c.device, count, c[0].dtype(), start, step)};
}
Tensors constant(const Call& c) {
  const auto at = c.node.attributes.find("value");
  if (at != c.node.attributes.end() && at->second.tensor) return {tensor_of(c.device, *at->second.tensor)};
  const Attribute& given = c.node.attributes.begin()->second;
  const std::string& name = c.node.attributes.begin()->first;
  if (name == "value_int") return {reshape(list_of(c.device, {given.whole}), {})};
  if (name == "value_ints") return {list_of(c.device, given.list)};
  if (name == "value_float") return {full(c.device, {Shape{}, DType::f32}, given.number)};
  if (name == "value_floats") return {cast(from_values<double>(c.device, {int64_t(given.numbers.size())}, given.numbers), DType::f32)};
  throw NotApplicable{"type string"};
}
Tensors constant_of_shape(const Call& c) {
  const auto at = c.node.attributes.find("value");
  const Tensor value = at == c.node.attributes.end() ? zeros(c.device, {{1}, DType::f32}) : tensor_of(c.device, *at->second.tensor);
  return {full(c.device, {shape_of(c.numbers(0)), value.dtype()}, value.item())};
}
Tensors eye_like(const Call& c) {
  const DType dtype = c.has_attribute("dtype") ? dtype_of(int(c.whole("dtype", 1))).value() : c[0].dtype();
  const Tensor rows = arange(c.device, c[0].shape()[0], DType::i64, double(c.whole("k", 0))), columns = arange(c.device, c[0].shape()[1]);
  return {cast(equal(unsqueeze(rows, 1), columns), dtype)};
}
Tensors pad_by(const Call& c) {
  if (c.text("mode", "constant") != "constant") throw NotApplicable{"Pad by " + c.text("mode", "")};
  const std::vector<int64_t> both = c.numbers(1);
  const auto half = both.begin() + int64_t(both.size() / 2);
  return {pad(c[0], std::vector<int64_t>(both.begin(), half), std::vector<int64_t>(half, both.end()), c.has(2) ? c[2].item() : 0)};
}

// Indices that count from the end, from the front.
Tensor from_front(const Tensor& index, int64_t extent) {
  return where(less(index, full(index.device(), {Shape{}, index.dtype()}, 0)), affine(index, 1, double(extent)), index);
}
Tensors gather_slices(const Call& c) {
  const int axis = front_axis(c.whole("axis", 0), c[0].rank());
  const Tensor ids = from_front(c[1], c[0].shape()[axis]);
  const Tensor rows = index_select(c[0], axis, reshape(ids, {ids.numel()}));
  std::vector<int64_t> extents = extents_of(c[0]);
  extents.erase(extents.begin() + axis);
  extents.insert(extents.begin() + axis, ids.shape().begin(), ids.shape().end());
  return {reshape(rows, shape_of(extents))};
}
Tensors gather_elements(const Call& c) {
  const int axis = front_axis(c.whole("axis", 0), c[0].rank());
  return {gather(c[0], axis, from_front(c[1], c[0].shape()[axis]))};
}
Tensors scatter_elements(const Call& c) {
  const int axis = front_axis(c.whole("axis", 0), c[0].rank());
  const Tensor ids = from_front(c[1], c[0].shape()[axis]);
  const std::string how = c.text("reduction", "none");
  check(how == "none" || how == "add", "ScatterElements by {}", how);
  return {how == "add" ? scatter_add(c[0], axis, ids, c[2]) : scatter(c[0], axis, ids, c[2])};
}
Tensors one_hot_by(const Call& c) {
  const int64_t depth = c.numbers(1)[0];
  const int axis = front_axis(c.whole("axis", -1), c[0].rank() + 1);
  const Tensor ids = unsqueeze(from_front(cast(c[0], DType::i64), depth), axis);
  std::vector<int64_t> extents(size_t(c[0].rank() + 1), 1);
  extents[size_t(axis)] = depth;
  const Tensor hit = equal(ids, reshape(arange(c.device, depth), shape_of(extents)));
  return {where(hit, select(c[2], 0, 1), select(c[2], 0, 0))};
}
template <bool kLargest>
Tensors arg_extremum(const Call& c) {
  const int axis = front_axis(c.whole("axis", 0), c[0].rank());
  const bool last = c.whole("select_last_index", 0) != 0, keep = c.whole("keepdims", 1) != 0;
  const Tensor x = last ? flip(c[0], {axis}) : c[0];
  const Tensor at = kLargest ? argmax(x, axis, keep) : argmin(x, axis, keep);
  return {last ? affine(at, -1, double(c[0].shape()[axis] - 1)) : at};
}
Tensors hardmax(const Call& c) {
  const int axis = front_axis(c.whole("axis", -1), c[0].rank());
  std::vector<int64_t> extents(size_t(c[0].rank()), 1);
  extents[size_t(axis)] = c[0].shape()[axis];
  return {cast(equal(argmax(c[0], axis, true), reshape(arange(c.device, c[0].shape()[axis]), shape_of(extents))), c[0].dtype())};
}
Tensors top(const Call& c) {
  const auto [values, indices] = top_k(c[0], c.numbers(1)[0], front_axis(c.whole("axis", -1), c[0].rank()), c.whole("largest", 1) != 0);
  return {values, indices};
}
Tensors running_sum(const Call& c) {
  return {cumsum(c[0], front_axis(c.numbers(1)[0], c[0].rank()), c.whole("reverse", 0) != 0, c.whole("exclusive", 0) != 0)};
}
Tensors triangle(const Call& c) {
  const int64_t k = c.has(1) ? c.numbers(1)[0] : 0;
  return {c.whole("upper", 1) ? triu(c[0], k) : tril(c[0], k)};
}
Tensors depth_to_space(const Call& c) {
  const AxisLengths lengths{{"p", c.whole("blocksize", 0)}, {"q", c.whole("blocksize", 0)}};
  return {c.text("mode", "DCR") == "DCR" ? rearrange(c[0], "b (p q c) h w -> b c (h p) (w q)", lengths)
                                         : rearrange(c[0], "b (c p q) h w -> b c (h p) (w q)", lengths)};
}
Tensors space_to_depth(const Call& c) {
  return {rearrange(c[0], "b c (h p) (w q) -> b (p q c) h w", {{"p", c.whole("blocksize", 0)}, {"q", c.whole("blocksize", 0)}})};
}
}  // namespace

void add_shapes(OperatorTable& t) {
  t["ArgMax"] = arg_extremum<true>;
  t["ArgMin"] = arg_extremum<false>;
  t["Concat"] = [](const Call& c) { return Tensors{concatenate(c.in, front_axis(c.whole("axis", 0), c[0].rank()))}; };
  t["Constant"] = constant;
  t["ConstantOfShape"] = constant_of_shape;
  t["CumSum"] = running_sum;
  t["DepthToSpace"] = depth_to_space;
  t["Expand"] = expand_by;
  t["EyeLike"] = eye_like;
  t["Flatten"] = flatten;
  t["Gather"] = gather_slices;
  t["GatherElements"] = gather_elements;
  t["Hardmax"] = hardmax;
  t["OneHot"] = one_hot_by;
  t["Pad"] = pad_by;
  t["Range"] = range;
  t["Reshape"] = reshape_by;
  t["Scatter"] = scatter_elements;
  t["ScatterElements"] = scatter_elements;
  t["Shape"] = shape_by;
  t["Size"] = [](const Call& c) { return Tensors{reshape(list_of(c.device, {c[0].numel()}), {})}; };
  t["Slice"] = slice_by;
  t["SpaceToDepth"] = space_to_depth;
  t["Split"] = split_by;
  t["Squeeze"] = squeeze_by;
  t["Tile"] = [](const Call& c) { return Tensors{tile(c[0], c.numbers(1))}; };
  t["TopK"] = top;
  t["Transpose"] = transpose_by;
  t["Trilu"] = triangle;
  t["Unsqueeze"] = unsqueeze_by;
}
}  // namespace reckon::onnx
