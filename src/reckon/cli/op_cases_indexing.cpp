// cli/op_cases: gather, scatter and what is made of them, masks.
#include "reckon/cli/op_cases.h"
#include "reckon/ops/indexing.h"

namespace reckon {
namespace {
// Arrangements of x with an axis that is not empty and the extent of index along it.
struct Indexed {
  Arrangement x;
  int axis;
  int64_t count;
  DType ids;
};
std::vector<Indexed> indexed() {
  std::vector<Indexed> sets;
  int i = 0;
  for (const Arrangement& a : arrangements()) {
    if (a.shape.rank() == 0 || a.shape.numel() == 0) continue;
    const int axis = i % a.shape.rank();
    const int64_t counts[] = {a.shape[axis] + 3, std::max<int64_t>(1, a.shape[axis] / 2), 5};
    sets.push_back({a, axis, counts[i % 3], i % 2 ? DType::i64 : DType::i32});
    ++i;
  }
  const Arrangement row{{6, 33}, Lay::padded}, column{{33, 6}, Lay::transposed};
  sets.push_back({row, 0, 4, DType::i32});
  sets.push_back({row, 1, 40, DType::i64});
  sets.push_back({column, 0, 50, DType::i64});
  sets.push_back({column, -1, 0, DType::i32});
  sets.push_back({{{40, 7, 3}, Lay::plain}, 1, 9, DType::i32});
  return sets;
}
CaseInput ids(const Shape& shape, int64_t count, DType dtype, Lay lay = Lay::plain) {
  CaseInput input = CaseInput::ids(shape, count);
  input.dtype = dtype;
  input.lay = lay;
  return input;
}
// The element of x at p, with the axis at what index says there.
template <class Id>
Array picked(const Array& x, const Shape& shape, int axis, Id id) {
  return gather(x, shape, [&](Place p) {
    p[axis] = id(p);
    return p;
  });
}

void add_gather(CaseList& list) {
  list.op("gather");
  for (const Indexed& s : indexed()) {
    const int axis = s.x.shape.resolve(s.axis);
    const Shape shape = s.x.shape.with(axis, s.count);
    const auto reference = [=](const Arrays& x) {
      return picked(x[0], x[1].shape, axis, [&](const Place& p) { return int64_t(x[1][x[1].index(p)].value); });
    };
    const auto run = [axis = s.axis](const Tensors& x) { return gather(x[0], axis, x[1]); };
    list.add({CaseInput(s.x.shape, s.x.lay), ids(shape, s.x.shape[axis], s.ids, s.x.lay)}, run, reference);
    // index may be shorter beside the axis
    Shape shorter = shape;
    for (int i = 0; i < shape.rank(); ++i)
      if (i != axis) shorter = shorter.with(i, (shape[i] + 1) / 2);
    list.add({CaseInput(s.x.shape, s.x.lay), ids(shorter, s.x.shape[axis], s.ids)}, run, reference);
  }
  for (const DType dtype : {DType::i32, DType::i64, DType::u8, DType::boolean})
    list.add(
        {CaseInput::of({4}, dtype, {1, 0, 0, 1}), ids({7}, 4, DType::i32)}, [](const Tensors& x) { return gather(x[0], 0, x[1]); },
        [](const Arrays& x) { return picked(x[0], x[1].shape, 0, [&](const Place& p) { return int64_t(x[1][p[0]].value); }); });
  list.op("take_along_axis");
  for (const Indexed& s : indexed()) {
    const int axis = s.x.shape.resolve(s.axis);
    Shape shape = s.x.shape.with(axis, s.count);
    if (shape.rank() > 1) shape = shape.with(axis == 0 ? 1 : 0, 1);
    list.add(
        {CaseInput(s.x.shape, s.x.lay), ids(shape, s.x.shape[axis], s.ids)},
        [axis](const Tensors& x) { return take_along_axis(x[0], x[1], axis); },
        [=](const Arrays& x) {
          const Shape whole = x[0].shape.with(axis, s.count);
          return picked(x[0], whole, axis, [&](const Place& p) { return int64_t(x[1].seen_from(p, whole).value); });
        });
  }
  list.op("index_select");
  for (const Indexed& s : indexed()) {
    const int axis = s.x.shape.resolve(s.axis);
    list.add(
        {CaseInput(s.x.shape, s.x.lay), ids({s.count}, s.x.shape[axis], s.ids, Lay::stepped)},
        [axis = s.axis](const Tensors& x) { return index_select(x[0], axis, x[1]); },
        [=](const Arrays& x) {
          return picked(x[0], x[0].shape.with(axis, s.count), axis, [&](const Place& p) { return int64_t(x[1][p[axis]].value); });
        });
  }
}

// put(y, src) at each place that index names, in order along the axis.
template <class Put>
Array scattered(const Arrays& x, int axis, Put put) {
  Array y = x[0];
  for_each_place(x[1].shape, [&](const Place& p) {
    Place to = p;
    to[axis] = int64_t(x[1][x[1].index(p)].value);
    put(y[y.index(to)], x[2][x[2].index(p)]);
  });
  return y;
}

void add_scatter(CaseList& list) {
  const auto place = [](Real& to, const Real& from) { to = from; };
  const auto plus = [](Real& to, const Real& from) { to += from; };
  for (const bool adds : {false, true}) {
    list.op(adds ? "scatter_add" : "scatter");
    for (const Indexed& s : indexed()) {
      const int axis = s.x.shape.resolve(s.axis);
      const Shape shape = s.x.shape.with(axis, s.count), longer = shape.with(-1, shape.last() + 2);
      const auto run = [=](const Tensors& x) { return adds ? scatter_add(x[0], axis, x[1], x[2]) : scatter(x[0], axis, x[1], x[2]); };
      const auto reference = [=](const Arrays& x) { return adds ? scattered(x, axis, plus) : scattered(x, axis, place); };
      list.add({CaseInput(s.x.shape, s.x.lay), ids(shape, s.x.shape[axis], s.ids), CaseInput(shape, s.x.lay)}, run, reference);
      list.add({CaseInput(s.x.shape), ids(shape, s.x.shape[axis], s.ids, s.x.lay), CaseInput(longer)}, run,
               reference);  // src may be longer
    }
    for (const DType dtype : {DType::i32, DType::i64, DType::u8})
      list.add(
          {CaseInput::of({4}, dtype, {1, 200, 3, 4}), ids({5}, 4, DType::i32), CaseInput::of({5}, dtype, {5, 6, 7, 8, 9})},
          [=](const Tensors& x) { return adds ? scatter_add(x[0], 0, x[1], x[2]) : scatter(x[0], 0, x[1], x[2]); },
          [=](const Arrays& x) { return adds ? scattered(x, 0, plus) : scattered(x, 0, place); });
  }
  list.op("index_add");
  for (const Indexed& s : indexed()) {
    const int axis = s.x.shape.resolve(s.axis);
    list.add(
        {CaseInput(s.x.shape, s.x.lay), ids({s.count}, s.x.shape[axis], s.ids), CaseInput(s.x.shape.with(axis, s.count), s.x.lay)},
        [axis = s.axis](const Tensors& x) { return index_add(x[0], axis, x[1], x[2]); },
        [=](const Arrays& x) {
          Array y = x[0];
          for_each_place(x[2].shape, [&](Place p) {
            const Real& from = x[2][x[2].index(p)];
            p[axis] = int64_t(x[1][p[axis]].value);
            y[y.index(p)] += from;
          });
          return y;
        });
  }
}

void add_masks(CaseList& list) {
  list.op("masked_fill");
  for (const ArrangedPair& pair : arranged_pairs()) {
    const Shape whole = broadcast(pair.a.shape, pair.b.shape);
    for (const Arrangement& mask : {pair.a, pair.b})
      list.add(
          {CaseInput(whole, pair.b.lay), CaseInput::mask(mask.shape, mask.lay)},
          [](const Tensors& x) { return masked_fill(x[0], x[1], -2); },
          [](const Arrays& x) { return map(x[0], x[1], [](const Real& v, const Real& m) { return m.value != 0 ? Real(-2) : v; }); });
  }
  for (const bool upper : {false, true}) {
    list.op(upper ? "triu" : "tril");
    int64_t i = 0;
    for (const Arrangement& a : arrangements()) {
      if (a.shape.rank() < 2) continue;
      const int64_t k = i++ % 5 - 2;
      for (const int64_t shift : {k, k * 1000})
        list.add(
            {CaseInput(a.shape, a.lay)}, [=](const Tensors& x) { return upper ? triu(x[0], shift) : tril(x[0], shift); },
            [=](const Arrays& x) {
              Array y = x[0];
              for_each_place(y.shape, [&](const Place& p) {
                const int64_t row = p[y.shape.rank() - 2], column = p[y.shape.rank() - 1];
                if (upper ? column < row + shift : column > row + shift) y[y.index(p)] = Real(0);
              });
              return y;
            });
    }
  }
  list.op("one_hot", false);
  for (const Shape& shape : {Shape{}, Shape{1}, Shape{7}, Shape{0}, Shape{2, 3}, Shape{2, 0, 3}, Shape{65}, Shape{2, 1, 2, 1, 2, 1, 2}})
    for (const int64_t classes : {1, 5, 130})
      list.add(
          {ids(shape, classes + 1, classes == 5 ? DType::i64 : DType::i32)},
          [=](Device&, DType dtype, const Tensors& x) { return one_hot(x[0], classes, dtype); },
          [=](const Arrays& x) {
            Array y(x[0].shape.appended(classes));
            for (int64_t i = 0; i < y.size(); ++i) y[i] = Real(x[0][i / classes].value == double(i % classes));
            return y;
          });
}
}  // namespace

void add_indexing_cases(CaseList& list) {
  add_gather(list);
  add_scatter(list);
  add_masks(list);
}
}  // namespace reckon
