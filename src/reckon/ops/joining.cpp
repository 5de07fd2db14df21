// ops/joining: concatenation, and what is made of it, of slices and of repeated axes.
#include "reckon/ops/joining.h"

#include <algorithm>

#include "reckon/engine/autocast.h"
#include "reckon/ops/axes.h"
#include "reckon/ops/dtypes.h"
#include "reckon/ops/indexing.h"
#include "reckon/ops/ops.h"
#include "reckon/ops/rows.h"

namespace reckon {
namespace {
constexpr size_t kMostParts = 32;  // bits of the masks that a row has for its inputs

// prefix: what the error begins with.
void check_parts(const TensorSpec& first, const TensorSpec& part, size_t i, int axis, const char* prefix) {
  check(part.dtype == first.dtype, "{}dtypes differ: part 0 is {}, part {} is {}; cast one of them", prefix, first.dtype, i, part.dtype);
  check(part.shape.rank() == first.shape.rank() && part.shape.with(axis, 0) == first.shape.with(axis, 0),
        "{}shapes differ beside axis {}: part 0 is {}, part {} is {}", prefix, axis, first.shape, i, part.shape);
}
// parts -> one after another along the axis
void plan_concatenate(Plan& p) {
  const int axis = p.params.as<AxisParams>().axis;
  const TensorSpec& first = p.in[0];
  check(first.shape.rank() >= 1, "a scalar has no axis to join along; stack() makes one");
  int64_t extent = 0;
  for (size_t i = 0; i < p.in.size(); ++i) {
    check_parts(first, p.in[i], i, axis, "");
    extent = checked_sum({extent, p.in[i].shape[axis]});
  }
  p.output(first.shape.with(axis, extent), first.dtype);
}
Tensors vjp_concatenate(Vjp& v) {
  const int axis = v.as<AxisParams>().axis;
  const std::vector<TensorSpec>& parts = v.node.in_specs();
  Tensors dx(parts.size());
  int64_t at = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const int64_t end = at + parts[i].shape[axis];
    if (v.needs_in(int(i))) dx[i] = slice(v.dy[0], axis, at, end);
    at = end;
  }
  return dx;
}

Tensor concatenate_groups(const Tensors& parts, int axis) {
  if (parts.size() <= kMostParts) return call(op::concatenate, parts, AxisParams{axis})[0];
  Tensors groups;
  for (size_t i = 0; i < parts.size(); i += kMostParts)
    groups.push_back(
        concatenate_groups(Tensors(parts.begin() + int64_t(i), parts.begin() + int64_t(std::min(i + kMostParts, parts.size()))), axis));
  return concatenate_groups(groups, axis);
}

// x `count` times along a new axis before `axis`, which is then part of it.
Tensor repeated(const Tensor& x, int axis, int64_t count) {
  if (count == 1) return x;
  std::vector<int64_t> extents(x.shape().begin(), x.shape().end());
  extents.insert(extents.begin() + axis, count);
  const Shape result = x.shape().with(axis, checked_multiply(x.shape()[axis], count));
  // Eight axes have no room for one more: those before and behind are taken together.
  if (x.rank() < kMaxRank) return reshape(expand(unsqueeze(x, axis), Shape(std::span<const int64_t>(extents))), result);
  int64_t outer = 1, inner = 1;
  for (int i = 0; i < x.rank(); ++i) (i < axis ? outer : inner) *= x.shape()[i];
  return reshape(expand(reshape(x, {outer, 1, inner}), {outer, count, inner}), result);
}
// The parts, defined and of the types that autocast gives to those that are joined.
Tensors joined_parts(const char* name, Tensors parts) {
  check(!parts.empty(), "{}: there are no tensors to join", name);
  for (size_t i = 0; i < parts.size(); ++i) check(parts[i].defined(), "{}: part {} is undefined", name, i);
  if (is_autocast_enabled()) detail::autocast_inputs(op::concatenate, parts);
  return parts;
}
}  // namespace

const OpDef op::concatenate{k_concatenate, "concatenate", plan_concatenate, vjp_concatenate, {}, {.any_stride = ~0u, .float8 = true, .autocast = AutocastPolicy::widest}};

Tensor concatenate(const Tensors& given, int axis) {
  const Tensors parts = joined_parts("concatenate", given);
  check(parts[0].rank() >= 1, "concatenate: a scalar has no axis to join along; stack() makes one");
  axis = axis_of("concatenate", parts[0].shape(), axis);
  // Here, where parts still have their numbers: groups count anew.
  for (size_t i = 1; i < parts.size(); ++i) {
    check_parts(parts[0].spec(), parts[i].spec(), i, axis, "concatenate: ");
    check(&parts[i].device() == &parts[0].device(), "concatenate: part {} lives on another device than part 0", i);
  }
  return concatenate_groups(parts, axis);
}

Tensor stack(const Tensors& given, int axis) {
  const Tensors parts = joined_parts("stack", given);
  const Shape& shape = parts[0].shape();
  const int rank = shape.rank();
  check(axis >= -rank - 1 && axis <= rank,
        "stack: axis {} is out of range: the new axis of parts {} is one of 0 to {}, or -{} to -1 from the end", axis, shape, rank,
        rank + 1);
  check(rank < kMaxRank, "stack: parts {} have no room for a new axis: a tensor has at most {} axes", shape, kMaxRank);
  Tensors longer;
  for (size_t i = 0; i < parts.size(); ++i) {
    check(parts[i].shape() == shape, "stack: shapes differ: part 0 is {}, part {} is {}", shape, i, parts[i].shape());
    check(parts[i].dtype() == parts[0].dtype(), "stack: dtypes differ: part 0 is {}, part {} is {}; cast one of them", parts[0].dtype(), i,
          parts[i].dtype());
    longer.push_back(unsqueeze(parts[i], axis));
  }
  return concatenate(longer, axis);
}

Tensors split(const Tensor& x, std::span<const int64_t> sizes, int axis) {
  axis = axis_of("split", x.shape(), axis);
  int64_t sum = 0;
  for (const int64_t size : sizes) {
    check(size >= 0, "split: a part of negative extent, {}", size);
    sum = checked_sum({sum, size});
  }
  check(sum == x.shape()[axis], "split: the parts have {} elements along axis {}, {} has {}", sum, axis, x.shape(), x.shape()[axis]);
  Tensors parts;
  int64_t at = 0;
  for (const int64_t size : sizes) {
    parts.push_back(slice(x, axis, at, at + size));
    at += size;
  }
  return parts;
}

Tensors split(const Tensor& x, int64_t size, int axis) {
  axis = axis_of("split", x.shape(), axis);
  check(size >= 1, "split: the extent of a part must be at least 1, got {}", size);
  const int64_t extent = x.shape()[axis];
  Tensors parts;
  for (int64_t at = 0; at < std::max<int64_t>(extent, 1); at += std::min(size, std::max<int64_t>(extent, 1)))
    parts.push_back(slice(x, axis, at, size < extent - at ? at + size : extent));
  return parts;
}

Tensors chunk(const Tensor& x, int64_t count, int axis) {
  check(count >= 1, "chunk: the number of parts must be at least 1, got {}", count);
  axis = axis_of("chunk", x.shape(), axis);
  const int64_t extent = x.shape()[axis];
  return split(x, std::max<int64_t>(1, extent / count + (extent % count != 0)), axis);
}

Tensor flip(const Tensor& x, std::initializer_list<int> axes) {
  const uint32_t chosen = axes_of("flip", x.shape(), axes);
  std::vector<Index> items(size_t(x.rank()), Slice{});
  for (int axis = 0; axis < x.rank(); ++axis)
    if (chosen >> axis & 1u) items[size_t(axis)] = Slice{std::nullopt, std::nullopt, -1};
  return index(x, items);
}

Tensor roll(const Tensor& x, int64_t shift, int axis) {
  axis = axis_of("roll", x.shape(), axis);
  const int64_t extent = x.shape()[axis];
  if (extent == 0) return x;
  const int64_t first = (extent - shift % extent) % extent;  // the element that comes first
  if (first == 0) return x;
  return concatenate({slice(x, axis, first, extent), slice(x, axis, 0, first)}, axis);
}

Tensor tile(const Tensor& x, std::span<const int64_t> repeats) {
  check(repeats.size() <= size_t(kMaxRank), "tile: {} axes are repeated, a tensor has at most {}", repeats.size(), kMaxRank);
  Tensor y = x;
  while (size_t(y.rank()) < repeats.size()) y = unsqueeze(y, 0);
  const int lead = y.rank() - int(repeats.size());
  for (size_t i = 0; i < repeats.size(); ++i) {
    check(repeats[i] >= 0, "tile: axis {} of {} is repeated {} times", lead + int(i), y.shape(), repeats[i]);
    y = repeated(y, lead + int(i), repeats[i]);
  }
  return y;
}

Tensor repeat_interleave(const Tensor& x, int64_t count, int axis) {
  axis = axis_of("repeat_interleave", x.shape(), axis);
  check(count >= 0, "repeat_interleave: axis {} of {} is repeated {} times", axis, x.shape(), count);
  if (count == 1) return x;
  const Shape result = x.shape().with(axis, checked_multiply(x.shape()[axis], count));
  int64_t outer = 1, inner = 1;
  for (int i = 0; i < x.rank(); ++i) (i <= axis ? outer : inner) *= x.shape()[i];
  return reshape(expand(reshape(x, {outer, 1, inner}), {outer, count, inner}), result);
}

Tensor pad(const Tensor& x, std::span<const int64_t> before, std::span<const int64_t> after, double value) {
  check(before.size() == size_t(x.rank()) && after.size() == size_t(x.rank()), "pad: {} and {} extents are given, {} has {} axes",
        before.size(), after.size(), x.shape(), x.rank());
  check_holds("pad", x.dtype(), value);
  Tensor y = x, filler;
  for (int axis = 0; axis < x.rank(); ++axis) {
    const int64_t ends[] = {before[size_t(axis)], after[size_t(axis)]};
    check(ends[0] >= 0 && ends[1] >= 0, "pad: axis {} of {} is padded by {} and {}", axis, x.shape(), ends[0], ends[1]);
    Tensors parts{y};
    for (const int end : {0, 1}) {
      if (ends[end] == 0) continue;
      if (!filler.defined()) filler = full(x.device(), {Shape{}, x.dtype()}, value);
      parts.insert(end ? parts.end() : parts.begin(), expand(filler, y.shape().with(axis, ends[end])));
    }
    if (parts.size() > 1) y = concatenate(parts, axis);
  }
  return y;
}
}  // namespace reckon
