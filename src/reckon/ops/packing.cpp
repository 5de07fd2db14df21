#include "reckon/ops/packing.h"

#include <algorithm>

#include "reckon/ops/einops_axes.h"
#include "reckon/ops/joining.h"
#include "reckon/ops/ops.h"

namespace reckon {
namespace {
using Extents = std::vector<int64_t>;

std::string print(const Tensors& tensors) {
  std::string printed;
  for (const Tensor& t : tensors) printed += (printed.empty() ? "" : ", ") + to_string(t);
  return printed;
}
// Axes before the star and behind it.
struct Star {
  std::vector<std::string_view> names;  // with the star
  int before, after;
};
Star read_star(const PatternPlace& place) {
  Star star{};
  place.check(detail::read_pack_pattern(place.pattern, star.names));
  star.before = int(std::find(star.names.begin(), star.names.end(), "*") - star.names.begin());
  star.after = int(star.names.size()) - star.before - 1;
  return star;
}
// The shape with other extents at the star.
Shape with_middle(const Shape& shape, const Star& star, std::span<const int64_t> middle) {
  Extents extents(shape.begin(), shape.begin() + star.before);
  extents.insert(extents.end(), middle.begin(), middle.end());
  extents.insert(extents.end(), shape.end() - star.after, shape.end());
  return Shape(std::span<const int64_t>(extents));
}
// Axes of the first tensor and of another that have one name have one length.
void check_named(const PatternPlace& place, const Star& star, const Shape& first, const Shape& shape, size_t at) {
  for (size_t i = 0; i < star.names.size(); ++i) {
    if (int(i) == star.before) continue;
    const int axis = int(i) < star.before ? int(i) : int(i) - int(star.names.size());
    place.check(first[axis] == shape[axis], "axis '{}' has length {} in tensor 0 and {} in tensor {}", star.names[i], first[axis],
                shape[axis], at);
  }
}

int64_t product(const Extents& extents) {
  int64_t n = 1;
  for (const int64_t extent : extents) n = checked_multiply(n, extent);
  return n;
}
// The shapes with the -1 replaced.
PackedShapes completed(const PatternPlace& place, const PackedShapes& shapes, int64_t extent) {
  PackedShapes whole = shapes;
  int64_t known = 0, beside = 1;
  int64_t* open = nullptr;
  for (Extents& shape : whole) {
    int64_t* here = nullptr;
    for (int64_t& e : shape) {
      place.check(e >= -1, "a shape holds the length {}", e);
      if (e >= 0) continue;
      place.check(!open, "the shapes hold more than one -1");
      open = here = &e;
    }
    if (here) {
      *here = 1;
      beside = product(shape);
    } else {
      known = checked_sum({known, product(shape)});
    }
  }
  if (!open) {
    place.check(known == extent, "the shapes hold {} along '*', the tensor has {}", known, extent);
    return whole;
  }
  place.check(known <= extent && beside > 0 && (extent - known) % beside == 0,
              "the tensor has {} along '*', of which {} are left for the shape with -1, and they are no multiple of {}", extent,
              extent - known, beside);
  *open = (extent - known) / beside;
  return whole;
}
}  // namespace

Packed pack(const Tensors& tensors, PackPattern pattern) {
  check(!tensors.empty(), "pack: no tensor is given, for \"{}\"", pattern.text());
  for (const Tensor& t : tensors) check(t.defined(), "pack: a tensor is undefined, for \"{}\"", pattern.text());
  const PatternPlace place{"pack", pattern.text(), print(tensors)};
  const Star star = read_star(place);
  const int named = star.before + star.after;
  PackedShapes shapes;
  Tensors parts;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Shape& shape = tensors[i].shape();
    place.check(shape.rank() >= named, "tensor {} has {} {}, the pattern names {}", i, shape.rank(), shape.rank() == 1 ? "axis" : "axes",
                named);
    check_named(place, star, tensors[0].shape(), shape, i);
    place.check(tensors[i].dtype() == tensors[0].dtype(), "tensors 0 and {} differ in dtype: {} and {}; cast one of them", i,
                tensors[0].dtype(), tensors[i].dtype());
    shapes.emplace_back(shape.begin() + star.before, shape.end() - star.after);
    parts.push_back(reshape(tensors[i], with_middle(shape, star, Extents{product(shapes.back())})));
  }
  return {concatenate(parts, star.before), shapes};
}

Tensors unpack(const Tensor& packed, const PackedShapes& shapes, PackPattern pattern) {
  check(packed.defined(), "unpack: the tensor is undefined, for \"{}\"", pattern.text());
  const PatternPlace place{"unpack", pattern.text(), to_string(packed)};
  const Star star = read_star(place);
  place.check(packed.rank() == star.before + 1 + star.after, "the pattern has {} axes, the tensor has {}", star.before + 1 + star.after,
              packed.rank());
  Tensors parts;
  int64_t start = 0;
  for (const Extents& shape : completed(place, shapes, packed.shape()[star.before])) {
    const int64_t stop = start + product(shape);
    place.check(star.before + star.after + int(shape.size()) <= kMaxRank, "tensor {} has {} axes, and {} are the most", parts.size(),
                star.before + star.after + int(shape.size()), kMaxRank);
    parts.push_back(view(slice(packed, star.before, start, stop), with_middle(packed.shape(), star, shape)));
    start = stop;
  }
  return parts;
}

Tensor rearrange(const Tensors& list, RearrangePattern pattern, const AxisLengths& lengths) {
  return rearrange(stack(list, 0), pattern, lengths);
}
Tensor reduce(const Tensors& list, ReducePattern pattern, Reducer reducer, const AxisLengths& lengths) {
  return reduce(stack(list, 0), pattern, reducer, lengths);
}
Tensor repeat(const Tensors& list, RepeatPattern pattern, const AxisLengths& lengths) { return repeat(stack(list, 0), pattern, lengths); }
}  // namespace reckon
