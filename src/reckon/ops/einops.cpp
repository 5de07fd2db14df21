// ops/einops: rearrange, reduce, repeat and parse_shape: a pattern, resolved for a shape, as calls.
#include "reckon/ops/einops.h"

#include "reckon/engine/autocast.h"
#include "reckon/ops/axes.h"
#include "reckon/ops/einops_axes.h"
#include "reckon/ops/ops.h"

namespace reckon {
namespace {
PatternPlace place_of(const char* function, std::string_view pattern, const Tensor& x) {
  check(x.defined(), "{}: the tensor is undefined, for \"{}\"", function, pattern);
  return {function, pattern, to_string(x)};
}
Composition plan_arrow(PatternOf what, const char* function, std::string_view pattern, const Tensor& x, Reducer reducer,
                       const AxisLengths& lengths) {
  const PatternPlace place = place_of(function, pattern, x);
  const ResolvedPattern resolved = resolve(what, place, x.shape(), lengths);
  try {
    Composition calls({x});
    transform(calls, 0, resolved, reducer);
    return calls;
  } catch (const Error& error) {
    place.fail(error.kind(), error.what());
  }
}
}  // namespace

Composition plan_rearrange(const Tensor& x, RearrangePattern pattern, const AxisLengths& lengths) {
  return plan_arrow(PatternOf::rearrange, "rearrange", pattern.text(), x, Reducer::sum, lengths);
}
Composition plan_reduce(const Tensor& x, ReducePattern pattern, Reducer reducer, const AxisLengths& lengths) {
  return plan_arrow(PatternOf::reduce, "reduce", pattern.text(), x, reducer, lengths);
}
Composition plan_repeat(const Tensor& x, RepeatPattern pattern, const AxisLengths& lengths) {
  return plan_arrow(PatternOf::repeat, "repeat", pattern.text(), x, Reducer::sum, lengths);
}

Tensor rearrange(const Tensor& x, RearrangePattern pattern, const AxisLengths& lengths) {
  return plan_rearrange(x, pattern, lengths).run({x});
}
Tensor reduce(const Tensor& x, ReducePattern pattern, Reducer reducer, const AxisLengths& lengths) {
  const Tensor in = reducer == Reducer::prod ? autocast_input(AutocastPolicy::wide, x) : x;  // its last step is a cast to x's type
  return plan_reduce(in, pattern, reducer, lengths).run({in});
}
Tensor repeat(const Tensor& x, RepeatPattern pattern, const AxisLengths& lengths) { return plan_repeat(x, pattern, lengths).run({x}); }

// The function sees the elementary axes of the left; what it leaves is arranged as the right says.
Tensor reduce(const Tensor& x, ReducePattern pattern, ReduceFunction reducer, const AxisLengths& lengths) {
  const PatternPlace place = place_of("reduce", pattern.text(), x);
  ResolvedPattern resolved = resolve(PatternOf::reduce, place, x.shape(), lengths);
  place.check(resolved.lengths.size() <= size_t(kMaxRank), "the left has {} axes, and {} are the most that a function reduces",
              resolved.lengths.size(), kMaxRank);
  std::vector<int> reduced, new_number(resolved.lengths.size(), -1);
  std::vector<int64_t> kept;
  for (int axis = 0; axis < resolved.given; ++axis) {
    bool named = false;
    for (const std::vector<int>& group : resolved.right)
      for (const int other : group) named |= other == axis;
    if (named) {
      new_number[size_t(axis)] = int(kept.size());
      kept.push_back(resolved.lengths[size_t(axis)]);
    } else {
      reduced.push_back(axis);
    }
  }
  Tensor y = reshape(x, Shape(std::span<const int64_t>(resolved.lengths)));
  if (!reduced.empty()) y = reducer(y, reduced);
  place.check(y.shape() == Shape(std::span<const int64_t>(kept)), "the function left {} of axes {}", y.shape(),
              Shape(std::span<const int64_t>(kept)));
  for (std::vector<int>& group : resolved.right)
    for (int& axis : group) axis = new_number[size_t(axis)];
  resolved.lengths = kept;
  resolved.given = int(kept.size());
  Composition calls({y});
  transform(calls, 0, resolved, Reducer::sum);
  return calls.run({y});
}

AxisLengths parse_shape(const Tensor& x, ShapePattern pattern) {
  const PatternPlace place = place_of("parse_shape", pattern.text(), x);
  PatternSide side;
  place.check(detail::read_shape_pattern(pattern.text(), side));
  int named = 0;
  bool ellipsis = false;
  for (const PatternGroup& group : side) {
    const bool is_ellipsis = !group.empty() && group[0].kind == PatternAxis::Kind::ellipsis;
    ellipsis |= is_ellipsis;
    named += !is_ellipsis;
  }
  place.check(ellipsis ? named <= x.rank() : named == x.rank(), "the pattern has {}{} {}, the tensor has {}", ellipsis ? "at least " : "",
              named, named == 1 ? "axis" : "axes", x.rank());
  AxisLengths lengths;
  int axis = 0;
  for (const PatternGroup& group : side) {
    if (!group.empty() && group[0].kind == PatternAxis::Kind::ellipsis) {
      axis += x.rank() - named;
      continue;
    }
    const int64_t extent = x.shape()[axis];
    if (group.empty())
      place.check(extent == 1, "axis {} has length {}, and the pattern says 1", axis, extent);
    else if (group[0].kind == PatternAxis::Kind::number)
      place.check(extent == group[0].length, "axis {} has length {}, and the pattern says {}", axis, extent, group[0].length);
    else if (group[0].kind == PatternAxis::Kind::named)
      lengths.add(group[0].name, extent);
    ++axis;
  }
  return lengths;
}
}  // namespace reckon
