// cli/op_cases: views, copies and casts. Every result is one input element, exactly.
#include <algorithm>

#include "reckon/cli/op_cases.h"

namespace reckon {
namespace {
Array reshaped(const Array& x, const Shape& shape) { return Array(shape, x.values); }
Array swapped(const Array& x, int a, int b) {
  return gather(x, x.shape.with(a, x.shape[b]).with(b, x.shape[a]), [=](Place p) {
    std::swap(p[a], p[b]);
    return p;
  });
}

struct Reshape {
  Arrangement from;
  Shape to;
  bool without_copy;  // view() takes it too
};
const Reshape kReshapes[] = {
    {{{}, Lay::plain}, {1}, true},
    {{{1}, Lay::plain}, {}, true},
    {{{6}, Lay::plain}, {2, 3}, true},
    {{{6}, Lay::stepped}, {3, 2}, true},
    {{{6}, Lay::stepped}, {1, 6, 1}, true},
    {{{2, 3}, Lay::plain}, {6}, true},
    {{{2, 3}, Lay::transposed}, {6}, false},
    {{{2, 3}, Lay::transposed}, {2, 1, 3}, true},
    {{{2, 3}, Lay::padded}, {2, 3, 1}, true},
    {{{2, 6}, Lay::padded}, {2, 2, 3}, true},
    {{{2, 6}, Lay::stepped}, {12}, false},
    {{{3, 4}, Lay::shifted}, {2, 6}, true},
    {{{4, 3}, Lay::expanded}, {2, 2, 3}, true},
    {{{4, 3}, Lay::expanded}, {12}, false},
    {{{0, 3}, Lay::plain}, {5, 0}, true},
    {{{2, 0, 3}, Lay::turned}, {0}, true},
    {{{2, 3, 4}, Lay::turned}, {4, 3, 2}, false},
    {{{2, 3, 4}, Lay::transposed}, {1, 2, 3, 1, 4}, true},
    {{{2, 3, 4}, Lay::transposed}, {6, 4}, false},
    {{{2, 3, 4, 5}, Lay::transposed}, {6, 4, 5}, true},
    {{{1, 1, 4}, Lay::transposed}, {2, 2}, true},
    {{{2, 1, 2, 1, 2, 1, 2, 1}, Lay::plain}, {16}, true},
    {{{16}, Lay::stepped}, {2, 1, 2, 1, 2, 1, 2, 1}, true},
    {{{70, 71}, Lay::transposed}, {71, 70}, false},
    {{{129, 65}, Lay::shifted}, {65, 129}, true},
    {{{64, 300}, Lay::padded}, {64, 3, 100}, true},
};

void add_reshapes(CaseList& list) {
  list.op("reshape");
  for (const Reshape& r : kReshapes)
    list.add(
        {CaseInput(r.from.shape, r.from.lay)}, [to = r.to](const Tensors& x) { return reshape(x[0], to); },
        [to = r.to](const Arrays& x) { return reshaped(x[0], to); });
  list.op("view");
  for (const Reshape& r : kReshapes)
    if (r.without_copy)
      list.add(
          {CaseInput(r.from.shape, r.from.lay)}, [to = r.to](const Tensors& x) { return view(x[0], to); },
          [to = r.to](const Arrays& x) { return reshaped(x[0], to); });
}

void add_transposes(CaseList& list) {
  list.op("transpose");
  for (const Arrangement& a : arrangements())
    if (a.shape.rank() >= 2)
      for (const bool ends : {false, true}) {
        const int first = ends ? 0 : a.shape.rank() - 2, last = a.shape.rank() - 1;
        list.add(
            {CaseInput(a.shape, a.lay)}, [=](const Tensors& x) { return transpose(x[0], first, last); },
            [=](const Arrays& x) { return swapped(x[0], first, last); });
      }
  list.op("permute");
  for (const Shape& s : {Shape{2, 3, 4}, Shape{1, 5, 2}, Shape{3, 0, 2}, Shape{17, 9, 33}, Shape{1, 1, 1}})
    for (const Lay lay : {Lay::plain, Lay::turned, Lay::stepped, Lay::expanded}) {
      // Axis i of the result is axis (i + 1) % 3 of the input.
      list.add(
          {CaseInput(s, lay)},
          [](const Tensors& x) {
            return permute(x[0], {1, 2, -3});
          },
          [s](const Arrays& x) {
            return gather(x[0], {s[1], s[2], s[0]}, [](const Place& p) { return Place{{p[2], p[0], p[1]}}; });
          });
    }
}

void add_slices(CaseList& list) {
  struct Cut {
    int64_t start, stop, step;
  };
  const Cut cuts[] = {{0, 3, 1}, {1, 1000000, 1}, {-2, 1000000, 1}, {0, 1000000, 2}, {1, -1, 3}, {2, 1, 1}};
  list.op("slice");
  size_t i = 0;
  for (const Arrangement& a : arrangements())
    for (int axis = 0; axis < std::min(a.shape.rank(), 2); ++axis) {
      const Cut cut = cuts[i++ % 6];
      list.add(
          {CaseInput(a.shape, a.lay)}, [=](const Tensors& x) { return slice(x[0], axis, cut.start, cut.stop, cut.step); },
          [=](const Arrays& x) {
            const int64_t extent = x[0].shape[axis];
            const auto bound = [&](int64_t at) { return std::clamp<int64_t>(at < 0 ? at + extent : at, 0, extent); };
            int64_t count = 0;
            for (int64_t at = bound(cut.start); at < bound(cut.stop); at += cut.step) ++count;
            return gather(x[0], x[0].shape.with(axis, count), [&](Place p) {
              p[axis] = bound(cut.start) + p[axis] * cut.step;
              return p;
            });
          });
    }
  list.op("select");
  for (const Arrangement& a : arrangements())
    for (int axis = 0; axis < std::min(a.shape.rank(), 2); ++axis) {
      if (a.shape[axis] == 0) continue;
      const int64_t index = a.shape[axis] / 2, signed_index = index % 2 ? index - a.shape[axis] : index;
      list.add(
          {CaseInput(a.shape, a.lay)}, [=](const Tensors& x) { return select(x[0], axis, signed_index); },
          [=](const Arrays& x) {
            return gather(x[0], x[0].shape.without(axis), [&](const Place& p) {
              Place from;
              for (int to = 0, i = 0; to < x[0].shape.rank(); ++to) from[to] = to == axis ? index : p[i++];
              return from;
            });
          });
    }
}

void add_expansions(CaseList& list) {
  struct Expansion {
    Arrangement from;
    Shape to;
  };
  const Expansion expansions[] = {
      {{{}, Lay::plain}, {3}},
      {{{}, Lay::stepped}, {2, 3}},
      {{{1}, Lay::plain}, {5}},
      {{{1}, Lay::shifted}, {4, 5}},
      {{{5}, Lay::plain}, {5}},
      {{{5}, Lay::stepped}, {3, 5}},
      {{{5, 1}, Lay::plain}, {5, 7}},
      {{{5, 1}, Lay::padded}, {2, 5, 7}},
      {{{1, 5}, Lay::transposed}, {7, 5}},
      {{{1, 1}, Lay::plain}, {3, 4}},
      {{{1, 0}, Lay::plain}, {3, 0}},
      {{{1, 1}, Lay::plain}, {0, 4}},
      {{{2, 1, 3}, Lay::turned}, {2, 4, 3}},
      {{{2, 1, 3}, Lay::expanded}, {2, 4, 3}},
      {{{1, 2, 1}, Lay::plain}, {4, 2, 5}},
      {{{3, 4}, Lay::transposed}, {1, 3, 4}},
      {{{3, 4}, Lay::padded}, {2, 2, 3, 4}},
      {{{2}, Lay::plain}, {1, 1, 2, 1, 2, 1, 2, 2}},
      {{{1, 129}, Lay::plain}, {130, 129}},
      {{{127, 1}, Lay::stepped}, {127, 33}},
      {{{1, 1, 2049}, Lay::shifted}, {2, 3, 2049}},
  };
  list.op("expand");
  for (const Expansion& e : expansions)
    list.add(
        {CaseInput(e.from.shape, e.from.lay)}, [to = e.to](const Tensors& x) { return expand(x[0], to); },
        [to = e.to](const Arrays& x) { return map(x[0], Array(to), [](const Real& value, const Real&) { return value; }); });
}

void add_ones(CaseList& list) {
  list.op("unsqueeze");
  for (const Arrangement& a : arrangements()) {
    if (a.shape.rank() == kMaxRank) continue;
    const int axis = a.shape.rank() / 2;
    std::vector<int64_t> e(a.shape.begin(), a.shape.end());
    e.insert(e.begin() + axis, 1);
    const Shape longer{std::span<const int64_t>(e)};
    list.add(
        {CaseInput(a.shape, a.lay)}, [=](const Tensors& x) { return unsqueeze(x[0], axis - x[0].rank() - 1); },
        [=](const Arrays& x) { return reshaped(x[0], longer); });
  }
  list.op("squeeze");
  for (const Shape& s : {Shape{1}, Shape{3, 1}, Shape{1, 4}, Shape{2, 1, 3}, Shape{0, 1}, Shape{1, 1}, Shape{33, 1, 65}})
    for (const Lay lay : {Lay::plain, Lay::padded, Lay::transposed}) {
      const int axis = int(std::find(s.begin(), s.end(), 1) - s.begin());
      list.add(
          {CaseInput(s, lay)}, [=](const Tensors& x) { return squeeze(x[0], axis); },
          [=](const Arrays& x) { return reshaped(x[0], x[0].shape.without(axis)); });
    }
}

// What float to integer and bool conversions do with small whole and half numbers.
double truncated(double value, DType to) {
  if (to == DType::boolean) return value != 0;
  return is_float(to) || is_float8(to) ? value : double(int64_t(value));
}

void add_copies(CaseList& list) {
  const auto same = [](const Arrays& x) { return x[0]; };
  list.op("contiguous");
  for (const Arrangement& a : arrangements())
    list.add(
        {CaseInput(a.shape, a.lay)}, [](const Tensors& x) { return contiguous(x[0]); }, same);
  for (const DType dtype : {DType::i32, DType::i64, DType::u8, DType::boolean}) {
    CaseInput input = CaseInput(Shape{5, 7}, Lay::transposed).held(CaseInput::Hold::ids, 0, 2);
    input.follows = false, input.dtype = dtype;
    list.add(
        {input}, [](const Tensors& x) { return contiguous(x[0]); }, same);
  }
  // Gradients of casts to another type are steps to finite differences; tests/ops has a test of their own.
  list.op("cast", false);
  const DType floats[] = {DType::f32, DType::f64, DType::bf16, DType::f16};
  size_t i = 0;
  for (const Arrangement& a : arrangements())
    for (int k = 0; k < 2; ++k) {
      const DType to = floats[i++ % 4];
      list.add(
          {CaseInput(a.shape, a.lay)}, [=](const Tensors& x) { return cast(x[0], to); }, same);
    }
  for (int from = 0; from < kDTypes; ++from)
    for (int to = 0; to < kDTypes; ++to) {
      std::vector<double> values{0, 1, 2, 1, 0, 1, 3};
      if (is_float(DType(from)) || is_float8(DType(from))) values[2] = 2.5;
      if (DType(from) == DType::boolean) values[2] = values[6] = 1;
      list.add(
          {CaseInput::of({7}, DType(from), values)}, [=](const Tensors& x) { return cast(x[0], DType(to)); },
          [=](const Arrays& x) { return map(x[0], [=](const Real& r) { return Real(truncated(r.value, DType(to))); }); });
    }
}
}  // namespace

void add_view_cases(CaseList& list) {
  add_reshapes(list);
  add_transposes(list);
  add_slices(list);
  add_expansions(list);
  add_ones(list);
  add_copies(list);
}
}  // namespace reckon
