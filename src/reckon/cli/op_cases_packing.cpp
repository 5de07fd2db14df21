// cli/op_cases: tensors that are packed along an axis, and the way back.
#include <algorithm>

#include "reckon/cli/op_cases.h"
#include "reckon/ops/packing.h"

namespace reckon {
namespace {
struct Packing {
  const char* pattern;
  int before, after;  // named axes
  std::vector<Arrangement> tensors;
};
const Packing kPackings[] = {
    {"*", 0, 0, {{{3}, Lay::plain}, {{2, 2}, Lay::transposed}}},
    {"*", 0, 0, {{{}, Lay::plain}, {{4}, Lay::stepped}, {{}, Lay::stepped}}},
    {"b *", 1, 0, {{{2, 3}, Lay::plain}, {{2, 2, 2}, Lay::plain}}},
    {"b *", 1, 0, {{{2}, Lay::plain}, {{2, 5}, Lay::transposed}, {{2, 1, 3}, Lay::turned}}},
    {"* c", 0, 1, {{{2, 3, 4}, Lay::plain}, {{4}, Lay::shifted}, {{2, 4}, Lay::padded}}},
    {"* c", 0, 1, {{{2, 3}, Lay::transposed}, {{1, 3}, Lay::expanded}}},
    {"i j * k", 2, 1, {{{2, 3, 5}, Lay::plain}, {{2, 3, 2, 5}, Lay::turned}, {{2, 3, 2, 2, 5}, Lay::plain}}},
    {"b * c", 1, 1, {{{2, 4, 3}, Lay::plain}, {{2, 3}, Lay::plain}}},
    {"b * c", 1, 1, {{{2, 4, 3}, Lay::stepped}, {{2, 3}, Lay::stepped}}},
    {"b * c", 1, 1, {{{2, 2, 2, 3}, Lay::transposed}}},
    {"h w *", 2, 0, {{{2, 3, 3}, Lay::plain}, {{2, 3}, Lay::transposed}, {{2, 3, 1}, Lay::plain}}},
    {"* h w c", 0, 3, {{{2, 3, 2, 3}, Lay::plain}, {{3, 2, 3}, Lay::padded}}},
    {"b *", 1, 0, {{{2, 0}, Lay::plain}, {{2, 3}, Lay::plain}}},
    {"b *", 1, 0, {{{0, 3}, Lay::plain}, {{0, 2, 2}, Lay::plain}}},
    {"* c", 0, 1, {{{0, 3}, Lay::plain}, {{2, 3}, Lay::plain}}},
    {"a b c d e f *", 6, 0, {{{1, 2, 1, 2, 1, 2, 2}, Lay::plain}, {{1, 2, 1, 2, 1, 2, 2, 2}, Lay::transposed}}},
    {"b *", 1, 0, {{{33, 65}, Lay::transposed}, {{33, 3, 5}, Lay::plain}}},
    {"* c", 0, 1, {{{65, 33}, Lay::padded}, {{3, 5, 33}, Lay::plain}}},
    {"b * c", 1, 1, {{{5, 17, 9}, Lay::turned}, {{5, 9}, Lay::plain}, {{5, 2, 3, 9}, Lay::shifted}}},
    {"b *", 1, 0, {{{2}, Lay::plain}}},
};
// The extents [outer, at the star, inner].
struct Flat {
  int64_t outer = 1, middle = 1, inner = 1;
};
Flat flat_of(const Shape& shape, const Packing& p) {
  Flat f;
  for (int axis = 0; axis < shape.rank(); ++axis)
    (axis < p.before ? f.outer : axis >= shape.rank() - p.after ? f.inner : f.middle) *= shape[axis];
  return f;
}
Shape packed_shape(const Packing& p) {
  std::vector<int64_t> extents;
  const Shape& first = p.tensors[0].shape;
  for (int axis = 0; axis < p.before; ++axis) extents.push_back(first[axis]);
  int64_t middle = 0;
  for (const Arrangement& a : p.tensors) middle += flat_of(a.shape, p).middle;
  extents.push_back(middle);
  for (int axis = first.rank() - p.after; axis < first.rank(); ++axis) extents.push_back(first[axis]);
  return Shape(std::span<const int64_t>(extents));
}
// Calls body(tensor, its element, element of the packed one).
template <class Body>
void for_each_element(const Packing& p, Body body) {
  const int64_t all = packed_shape(p)[p.before];
  int64_t start = 0;
  for (size_t i = 0; i < p.tensors.size(); ++i) {
    const Flat f = flat_of(p.tensors[i].shape, p);
    for (int64_t o = 0; o < f.outer; ++o)
      for (int64_t m = 0; m < f.middle; ++m)
        for (int64_t n = 0; n < f.inner; ++n) body(i, (o * f.middle + m) * f.inner + n, (o * all + start + m) * f.inner + n);
    start += f.middle;
  }
}
}  // namespace

void add_packing_cases(CaseList& list) {
  list.op("pack");
  for (const Packing& p : kPackings) {
    CaseInputs inputs;
    for (const Arrangement& a : p.tensors) inputs.push_back(CaseInput(a.shape, a.lay));
    list.add(
        inputs, [p](const Tensors& x) { return pack(x, runtime(p.pattern)).tensor; },
        [p](const Arrays& x) {
          Array y(packed_shape(p));
          for_each_element(p, [&](size_t i, int64_t from, int64_t to) { y[to] = x[i][from]; });
          return y;
        });
  }
  list.op("unpack");
  constexpr Lay kLays[] = {Lay::plain, Lay::transposed, Lay::stepped, Lay::padded};
  size_t turn = 0;
  for (const Packing& p : kPackings) {
    PackedShapes shapes;
    for (const Arrangement& a : p.tensors) shapes.emplace_back(a.shape.begin() + p.before, a.shape.end() - p.after);
    list.add(
        {CaseInput(packed_shape(p), kLays[turn++ % 4])}, [p, shapes](const Tensors& x) { return unpack(x[0], shapes, runtime(p.pattern)); },
        [p](const Arrays& x) {
          Arrays y;
          for (const Arrangement& a : p.tensors) y.emplace_back(a.shape);
          for_each_element(p, [&](size_t i, int64_t to, int64_t from) { y[i][to] = x[0][from]; });
          return y;
        });
  }
}
}  // namespace reckon
