// cli/op_cases: joining and cutting, views by lists of items, repetition and padding.
#include "reckon/cli/op_cases.h"
#include "reckon/ops/indexing.h"
#include "reckon/ops/joining.h"

namespace reckon {
namespace {
// Arrangements with an axis, small enough that several inputs of them are no burden; each with an axis, from the front or from the end.
template <class Add>
void each_axis(Add add) {
  int i = 0;
  for (const Arrangement& a : arrangements()) {
    if (a.shape.rank() == 0) continue;
    const int axis = i++ % a.shape.rank();
    add(a, axis, i % 2 ? axis : axis - a.shape.rank());
  }
}

Array joined(const Arrays& parts, int axis) {
  int64_t extent = 0;
  for (const Array& part : parts) extent += part.shape[axis];
  Array y(parts[0].shape.with(axis, extent));
  int64_t at = 0;
  for (const Array& part : parts) {
    for_each_place(part.shape, [&](const Place& p) {
      Place to = p;
      to[axis] += at;
      y[y.index(to)] = part[part.index(p)];
    });
    at += part.shape[axis];
  }
  return y;
}
// Elements [begin, begin + count) along an axis.
Array part_of(const Array& x, int axis, int64_t begin, int64_t count) {
  return gather(x, x.shape.with(axis, count), [&](Place p) {
    p[axis] += begin;
    return p;
  });
}

void add_concatenate(CaseList& list) {
  list.op("concatenate");
  each_axis([&](const Arrangement& a, int axis, int given) {
    list.add(
        {CaseInput(a.shape, a.lay), CaseInput(a.shape.with(axis, 3)), CaseInput(a.shape.with(axis, 1), a.lay)},
        [=](const Tensors& x) { return concatenate(x, given); }, [=](const Arrays& x) { return joined(x, axis); });
  });
  list.add(
      {CaseInput(Shape{2, 3})}, [](const Tensors& x) { return concatenate({x[0]}, 1); }, [](const Arrays& x) { return x[0]; });
  list.add(
      {CaseInput(Shape{2, 3}), CaseInput(Shape{2, 1})},
      [](const Tensors& x) {
        return concatenate({x[0], x[1], x[0]}, 1);
      },
      [](const Arrays& x) {
        return joined({x[0], x[1], x[0]}, 1);
      });
  list.add(  // more parts than one call takes
      {CaseInput(Shape{2, 3}), CaseInput(Shape{2, 2}, Lay::transposed)},
      [](const Tensors& x) {
        Tensors parts;
        for (int i = 0; i < 70; ++i) parts.push_back(x[size_t(i % 2)]);
        return concatenate(parts, -1);
      },
      [](const Arrays& x) {
        Arrays parts;
        for (int i = 0; i < 70; ++i) parts.push_back(x[size_t(i % 2)]);
        return joined(parts, 1);
      });
  for (const DType dtype : {DType::i32, DType::i64, DType::u8, DType::boolean})
    list.add(
        {CaseInput::of({2, 2}, dtype, {1, 0, 0, 1}), CaseInput::of({1, 2}, dtype, {1, 1})},
        [](const Tensors& x) { return concatenate(x, 0); }, [](const Arrays& x) { return joined(x, 0); });
  list.op("stack");
  for (const Arrangement& a : arrangements()) {
    if (a.shape.rank() == kMaxRank) continue;
    const int axis = a.shape.rank() / 2;
    list.add(
        {CaseInput(a.shape, a.lay), CaseInput(a.shape)}, [=](const Tensors& x) { return stack(x, axis - x[0].rank() - 1); },
        [=](const Arrays& x) {
          std::vector<int64_t> e(x[0].shape.begin(), x[0].shape.end());
          e.insert(e.begin() + axis, 1);
          Arrays longer = x;
          for (Array& one : longer) one.shape = Shape(std::span<const int64_t>(e));
          return joined(longer, axis);
        });
  }
}

void add_split(CaseList& list) {
  list.op("split");
  each_axis([&](const Arrangement& a, int axis, int given) {
    const int64_t extent = a.shape[axis], first = extent / 3;
    list.add(
        {CaseInput(a.shape, a.lay)},
        [=](const Tensors& x) {
          const int64_t sizes[] = {first, 0, extent - first};
          return split(x[0], sizes, given);
        },
        [=](const Arrays& x) {
          return Arrays{part_of(x[0], axis, 0, first), part_of(x[0], axis, first, 0), part_of(x[0], axis, first, extent - first)};
        });
  });
  list.op("chunk");
  each_axis([&](const Arrangement& a, int axis, int given) {
    const int64_t extent = a.shape[axis], size = std::max<int64_t>(1, (extent + 2) / 3);
    list.add(
        {CaseInput(a.shape, a.lay)}, [=](const Tensors& x) { return chunk(x[0], 3, given); },
        [=](const Arrays& x) {
          Arrays parts{part_of(x[0], axis, 0, std::min(size, extent))};
          for (int64_t at = size; at < extent; at += size) parts.push_back(part_of(x[0], axis, at, std::min(size, extent - at)));
          return parts;
        });
  });
}

// Python's slice: the places that it visits along an axis.
std::vector<int64_t> visited(const Slice& s, int64_t extent) {
  const int64_t low = s.step < 0 ? -1 : 0, high = s.step < 0 ? extent - 1 : extent;
  const auto cut = [&](int64_t at) { return std::min(std::max(at < 0 ? at + extent : at, low), high); };
  const int64_t start = s.start ? cut(*s.start) : s.step < 0 ? high : low, stop = s.stop ? cut(*s.stop) : s.step < 0 ? low : high;
  std::vector<int64_t> all;
  for (int64_t at = start; s.step < 0 ? at > stop : at < stop; at += s.step) all.push_back(at);
  return all;
}

void add_index(CaseList& list) {
  list.op("index");
  const Slice cuts[] = {{1, -1, 2}, {{}, {}, -1}, {-1, {}, -2}, {5, 1, -3}, {{}, 100, 3}, {-100, -1, 1}, {2, 1, 1}};
  size_t i = 0;
  each_axis([&](const Arrangement& a, int axis, int) {
    for (int k = 0; k < 2; ++k) {
      const Slice cut = cuts[i++ % 7];
      list.add(
          {CaseInput(a.shape, a.lay)},
          [=](const Tensors& x) {
            std::vector<Index> items(size_t(axis), Slice{});
            items.push_back(cut);
            items.push_back(ellipsis);
            return index(x[0], items);
          },
          [=](const Arrays& x) {
            const std::vector<int64_t> places = visited(cut, x[0].shape[axis]);
            return gather(x[0], x[0].shape.with(axis, int64_t(places.size())), [&](Place p) {
              p[axis] = places[size_t(p[axis])];
              return p;
            });
          });
    }
  });
  for (const Lay lay : {Lay::plain, Lay::turned, Lay::stepped, Lay::padded})
    list.add(  // x[::-1, -2, ..., None, 1:3]
        {CaseInput(Shape{3, 4, 2, 5}, lay)},
        [](const Tensors& x) {
          return index(x[0], {Slice{{}, {}, -1}, -2, ellipsis, newaxis, Slice{1, 3}});
        },
        [](const Arrays& x) {
          return gather(x[0], {3, 2, 1, 2}, [](const Place& p) { return Place{{2 - p[0], 2, p[1], p[3] + 1}}; });
        });
  list.op("flip");
  each_axis([&](const Arrangement& a, int axis, int given) {
    list.add(
        {CaseInput(a.shape, a.lay)}, [=](const Tensors& x) { return flip(x[0], {given}); },
        [=](const Arrays& x) {
          return gather(x[0], x[0].shape, [&](Place p) {
            p[axis] = x[0].shape[axis] - 1 - p[axis];
            return p;
          });
        });
    list.add(
        {CaseInput(a.shape, a.lay)}, [](const Tensors& x) { return flip(x[0]); },
        [](const Arrays& x) {
          return gather(x[0], x[0].shape, [&](Place p) {
            for (int i = 0; i < x[0].shape.rank(); ++i) p[i] = x[0].shape[i] - 1 - p[i];
            return p;
          });
        });
  });
  list.op("roll");
  each_axis([&](const Arrangement& a, int axis, int given) {
    for (const int64_t shift : {2, -7})
      list.add(
          {CaseInput(a.shape, a.lay)}, [=](const Tensors& x) { return roll(x[0], shift, given); },
          [=](const Arrays& x) {
            return gather(x[0], x[0].shape, [&](Place p) {
              const int64_t extent = x[0].shape[axis];
              p[axis] = ((p[axis] - shift) % extent + extent) % extent;
              return p;
            });
          });
  });
}

void add_repetitions(CaseList& list) {
  struct Repetition {
    Arrangement x;
    std::vector<int64_t> times;
  };
  static const Repetition sets[] = {
      {{{}, Lay::plain}, {}},
      {{{}, Lay::stepped}, {3}},
      {{{}, Lay::plain}, {2, 3}},
      {{{4}, Lay::plain}, {2}},
      {{{4}, Lay::stepped}, {1}},
      {{{4}, Lay::shifted}, {0}},
      {{{0}, Lay::plain}, {3}},
      {{{4}, Lay::plain}, {2, 1, 3}},
      {{{2, 3}, Lay::plain}, {2}},
      {{{2, 3}, Lay::transposed}, {2, 2}},
      {{{2, 3}, Lay::padded}, {1, 3}},
      {{{2, 3}, Lay::expanded}, {3, 1}},
      {{{2, 1, 3}, Lay::turned}, {1, 4, 2}},
      {{{3, 0, 2}, Lay::turned}, {2, 2, 2}},
      {{{2, 3, 2, 2}, Lay::transposed}, {2, 1, 1, 3}},
      {{{2, 1, 2, 1, 1, 2, 1, 2}, Lay::plain}, {1, 2, 2, 1, 1, 1, 2, 2}},
      {{{65}, Lay::plain}, {33}},
      {{{1, 129}, Lay::padded}, {7, 2}},
      {{{127, 3}, Lay::transposed}, {2, 2}},
      {{{2049}, Lay::plain}, {3}},
  };
  list.op("tile");
  for (const Repetition& r : sets)
    list.add(
        {CaseInput(r.x.shape, r.x.lay)}, [times = r.times](const Tensors& x) { return tile(x[0], times); },
        [times = r.times](const Arrays& x) {
          const int rank = std::max(x[0].shape.rank(), int(times.size())), lead = rank - x[0].shape.rank(), skip = rank - int(times.size());
          std::vector<int64_t> e(size_t(rank), 1);
          for (int i = 0; i < rank; ++i) e[size_t(i)] = (i < lead ? 1 : x[0].shape[i - lead]) * (i < skip ? 1 : times[size_t(i - skip)]);
          return gather(x[0], Shape(std::span<const int64_t>(e)), [&](const Place& p) {
            Place from;
            for (int i = lead; i < rank; ++i) from[i - lead] = p[i] % x[0].shape[i - lead];
            return from;
          });
        });
  list.op("repeat_interleave");
  each_axis([&](const Arrangement& a, int axis, int given) {
    for (const int64_t count : {3, 1})
      list.add(
          {CaseInput(a.shape, a.lay)}, [=](const Tensors& x) { return repeat_interleave(x[0], count, given); },
          [=](const Arrays& x) {
            return gather(x[0], x[0].shape.with(axis, x[0].shape[axis] * count), [&](Place p) {
              p[axis] /= count;
              return p;
            });
          });
  });
  list.op("pad");
  int i = 0;
  each_axis([&](const Arrangement& a, int axis, int) {
    const double value = i++ % 2 ? -1.5 : 0;
    std::vector<int64_t> before(size_t(a.shape.rank())), after = before;
    before[size_t(axis)] = 2;
    after.back() = 1;
    list.add(
        {CaseInput(a.shape, a.lay)}, [=](const Tensors& x) { return pad(x[0], before, after, value); },
        [=](const Arrays& x) {
          Shape whole = x[0].shape;
          for (int k = 0; k < whole.rank(); ++k) whole = whole.with(k, whole[k] + before[size_t(k)] + after[size_t(k)]);
          Array y(whole);
          for (Real& r : y.values) r = Real(value);
          for_each_place(x[0].shape, [&](Place p) {
            const Real r = x[0][x[0].index(p)];
            for (int k = 0; k < whole.rank(); ++k) p[k] += before[size_t(k)];
            y[y.index(p)] = r;
          });
          return y;
        });
  });
}
}  // namespace

void add_joining_cases(CaseList& list) {
  add_concatenate(list);
  add_split(list);
  add_index(list);
  add_repetitions(list);
}
}  // namespace reckon
