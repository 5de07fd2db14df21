// cli/op_cases: named axes. References know no parentheses: merged axes lie in memory as their parts do, so that an element's place follows
// from the names alone, each with its extent.
#include <algorithm>
#include <map>

#include "reckon/base/philox.h"
#include "reckon/cli/op_cases.h"
#include "reckon/ops/axes.h"
#include "reckon/ops/einops.h"

namespace reckon {
namespace {
using Names = std::string;  // a letter an axis
using Extents = std::map<char, int64_t>;

// The place of coordinates among all of these axes, in row-major order.
int64_t flat(const Names& names, const Extents& extents, const std::map<char, int64_t>& at) {
  int64_t index = 0;
  for (const char name : names) index = index * extents.at(name) + at.at(name);
  return index;
}
// Calls body(coordinates) for all coordinates of these axes.
template <class Body>
void for_each_coordinate(const Names& names, const Extents& extents, Body body) {
  std::map<char, int64_t> at;
  int64_t count = 1;
  for (const char name : names) {
    at[name] = 0;
    count *= extents.at(name);
  }
  for (int64_t n = 0; n < count; ++n) {
    body(at);
    for (size_t i = names.size(); i-- > 0 && ++at[names[i]] == extents.at(names[i]);) at[names[i]] = 0;
  }
}

struct Arranged {
  const char* pattern;
  AxisLengths lengths;
  Arrangement x;
  Names left, right;  // the elementary axes
  Extents extents;
  Shape result;
};
// x at the coordinates of each element of the result; axes that only the right has repeat it.
Array arranged(const Array& x, const Arranged& c) {
  Array y(c.result);
  for_each_coordinate(c.right, c.extents, [&](const auto& at) { y[flat(c.right, c.extents, at)] = x[flat(c.left, c.extents, at)]; });
  return y;
}
Array reduced(const Array& x, const Arranged& c, Reducer reducer) {
  Array y(c.result);
  std::vector<bool> seen(size_t(y.size()), false);
  for_each_coordinate(c.left, c.extents, [&](const auto& at) {
    const int64_t to = flat(c.right, c.extents, at);
    Real &sum = y[to], value = x[flat(c.left, c.extents, at)];
    const bool first = !seen[size_t(to)];
    seen[size_t(to)] = true;
    if (reducer == Reducer::prod)
      sum = first ? value : store(sum * value);
    else if (reducer == Reducer::max)
      sum = first || value.value > sum.value ? value : sum;
    else if (reducer == Reducer::min)
      sum = first || value.value < sum.value ? value : sum;
    else
      sum += value;
  });
  const double share = x.size() ? double(y.size()) / double(x.size()) : 0;
  if (reducer == Reducer::mean)
    for (Real& r : y.values) r = store(r) * Real(share, share, 0, 0);
  return y;
}

void add_rearrange(CaseList& list) {
  const Extents e{{'b', 2}, {'h', 3}, {'w', 4}, {'c', 5}, {'i', 2}, {'j', 3}};
  const Arranged cases[] = {
      {"a b -> b a", {}, {{3, 4}, Lay::plain}, "hw", "wh", e, {4, 3}},
      {"a b -> a b", {}, {{3, 4}, Lay::stepped}, "hw", "hw", e, {3, 4}},
      {"b h w c -> b (h w) c", {}, {{2, 3, 4, 5}, Lay::plain}, "bhwc", "bhwc", e, {2, 12, 5}},
      {"b h w c -> b (h w) c", {}, {{2, 3, 4, 5}, Lay::transposed}, "bhwc", "bhwc", e, {2, 12, 5}},
      {"b h w c -> b c h w", {}, {{2, 3, 4, 5}, Lay::turned}, "bhwc", "bchw", e, {2, 5, 3, 4}},
      {"b h w c -> (b h) (w c)", {}, {{2, 3, 4, 5}, Lay::padded}, "bhwc", "bhwc", e, {6, 20}},
      {"b h w c -> (c w h b)", {}, {{2, 3, 4, 5}, Lay::plain}, "bhwc", "cwhb", e, {120}},
      {"b h w c -> h (b w) c", {}, {{2, 3, 4, 5}, Lay::shifted}, "bhwc", "hbwc", e, {3, 8, 5}},
      {"b (h w) c -> b c h w", {{"h", 3}}, {{2, 12, 5}, Lay::plain}, "bhwc", "bchw", e, {2, 5, 3, 4}},
      {"b (h w) c -> b c h w", {{"w", 4}}, {{2, 12, 5}, Lay::stepped}, "bhwc", "bchw", e, {2, 5, 3, 4}},
      {"b (h w) c -> (h b) w c", {{"h", 3}}, {{2, 12, 5}, Lay::transposed}, "bhwc", "hbwc", e, {6, 4, 5}},
      {"(b h w) -> w h b", {{"b", 2}, {"w", 4}}, {{24}, Lay::stepped}, "bhw", "whb", e, {4, 3, 2}},
      {"... c -> c ...", {}, {{2, 3, 4, 5}, Lay::plain}, "bhwc", "cbhw", e, {5, 2, 3, 4}},
      {"b ... c -> c (b ...)", {}, {{2, 3, 4, 5}, Lay::plain}, "bhwc", "cbhw", e, {5, 24}},
      {"b ... -> (...) b", {}, {{2, 3, 4}, Lay::turned}, "bhw", "hwb", e, {12, 2}},
      {"... -> ...", {}, {{}, Lay::plain}, "", "", e, {}},
      {"... -> 1 (...)", {}, {{}, Lay::stepped}, "", "", e, {1, 1}},
      {"b 1 h -> h () b", {}, {{2, 1, 3}, Lay::plain}, "bh", "hb", e, {3, 1, 2}},
      {"b h 1 -> (b 1 h) 1", {}, {{2, 3, 1}, Lay::expanded}, "bh", "bh", e, {6, 1}},
      {"b h -> h b", {}, {{3, 4}, Lay::expanded}, "hw", "wh", e, {4, 3}},
      {"(b i) (h j) -> b h (i j)", {{"i", 2}, {"j", 3}}, {{4, 9}, Lay::plain}, "bihj", "bhij", e, {2, 3, 6}},
      {"a b c d e f g h -> h g f e d c b a", {}, {{2, 1, 3, 1, 2, 1, 1, 4}, Lay::plain}, "bhiw", "wihb", e, {4, 1, 1, 2, 1, 3, 1, 2}},
      {"(a b c) (d e f) (g h i) -> (a d g) (b e h) (c f i)",
       {{"a", 2}, {"b", 2}, {"d", 2}, {"e", 2}, {"g", 2}, {"h", 2}},
       {{8, 8, 8}, Lay::plain},
       "abcdefghi",
       "adgbehcfi",
       {{'a', 2}, {'b', 2}, {'c', 2}, {'d', 2}, {'e', 2}, {'f', 2}, {'g', 2}, {'h', 2}, {'i', 2}},
       {8, 8, 8}},
      {"a b -> b a", {}, {{0, 4}, Lay::plain}, "aw", "wa", {{'a', 0}, {'w', 4}}, {4, 0}},
      {"a b c -> (c a) b", {}, {{33, 5, 65}, Lay::plain}, "xyz", "zxy", {{'x', 33}, {'y', 5}, {'z', 65}}, {2145, 5}},
  };
  list.op("rearrange");
  for (const Arranged& c : cases)
    list.add(
        {CaseInput(c.x.shape, c.x.lay)}, [c](const Tensors& x) { return rearrange(x[0], runtime(c.pattern), c.lengths); },
        [c](const Arrays& x) { return arranged(x[0], c); });
}

void add_repeat(CaseList& list) {
  const Extents e{{'h', 3}, {'w', 4}, {'c', 2}, {'r', 3}, {'s', 2}};
  const Arranged cases[] = {
      {"h w -> h w r", {{"r", 3}}, {{3, 4}, Lay::plain}, "hw", "hwr", e, {3, 4, 3}},
      {"h w -> r h w", {{"r", 3}}, {{3, 4}, Lay::transposed}, "hw", "rhw", e, {3, 3, 4}},
      {"h w -> h (r w)", {{"r", 3}}, {{3, 4}, Lay::plain}, "hw", "hrw", e, {3, 12}},
      {"h w -> h (w r)", {{"r", 3}}, {{3, 4}, Lay::plain}, "hw", "hwr", e, {3, 12}},
      {"h w -> (r h) w", {{"r", 3}}, {{3, 4}, Lay::padded}, "hw", "rhw", e, {9, 4}},
      {"h w -> (h s) (w r)", {{"r", 3}, {"s", 2}}, {{3, 4}, Lay::plain}, "hw", "hswr", e, {6, 12}},
      {"h w -> (2 h) (3 w)", {}, {{3, 4}, Lay::turned}, "hw", "shrw", e, {6, 12}},
      {"h w -> w 3 h 2", {}, {{3, 4}, Lay::stepped}, "hw", "wrhs", e, {4, 3, 3, 2}},
      {"h w c -> (c r w) h", {{"r", 3}}, {{3, 4, 2}, Lay::plain}, "hwc", "crwh", e, {24, 3}},
      {"h w c -> (c r w) h", {{"r", 3}}, {{3, 4, 2}, Lay::turned}, "hwc", "crwh", e, {24, 3}},
      {"... -> r ... 2", {{"r", 3}}, {{3, 4}, Lay::plain}, "hw", "rhws", e, {3, 3, 4, 2}},
      {"... -> (... r)", {{"r", 3}}, {{3, 4}, Lay::shifted}, "hw", "hwr", e, {36}},
      {"-> r s", {{"r", 3}, {"s", 2}}, {{}, Lay::plain}, "", "rs", e, {3, 2}},
      {"... -> ... r", {{"r", 3}}, {{}, Lay::stepped}, "", "r", e, {3}},
      {"h 1 -> h (1 r)", {{"r", 3}}, {{3, 1}, Lay::plain}, "h", "hr", e, {3, 3}},
      {"(h w) -> w r h", {{"r", 3}, {"h", 3}}, {{12}, Lay::plain}, "hw", "wrh", e, {4, 3, 3}},
      {"h w -> h w", {}, {{3, 4}, Lay::expanded}, "hw", "hw", e, {3, 4}},
      {"h w -> h w r", {{"r", 3}}, {{3, 4}, Lay::expanded}, "hw", "hwr", e, {3, 4, 3}},
      {"h w -> (h w 1) r", {{"r", 1}}, {{3, 4}, Lay::transposed}, "hw", "hw", e, {12, 1}},
      {"h w -> h r w", {{"r", 3}}, {{0, 4}, Lay::plain}, "aw", "arw", {{'a', 0}, {'w', 4}, {'r', 3}}, {0, 3, 4}},
      {"h w -> h r w", {{"r", 65}}, {{33, 17}, Lay::plain}, "xy", "xzy", {{'x', 33}, {'y', 17}, {'z', 65}}, {33, 65, 17}},
      {"a b c d e -> (a 2) (b 2) (c 2) (d 2) e",
       {},
       {{2, 2, 2, 2, 2}, Lay::plain},
       "abcde",
       "aibjckdle",
       {{'a', 2}, {'b', 2}, {'c', 2}, {'d', 2}, {'e', 2}, {'i', 2}, {'j', 2}, {'k', 2}, {'l', 2}},
       {4, 4, 4, 4, 2}},
  };
  list.op("repeat");
  for (const Arranged& c : cases)
    list.add(
        {CaseInput(c.x.shape, c.x.lay)}, [c](const Tensors& x) { return repeat(x[0], runtime(c.pattern), c.lengths); },
        [c](const Arrays& x) { return arranged(x[0], c); });
}

void add_reduce(CaseList& list) {
  const Extents e{{'b', 2}, {'h', 3}, {'w', 4}, {'i', 2}};
  const Arranged cases[] = {
      {"b h w -> b w", {}, {{2, 3, 4}, Lay::plain}, "bhw", "bw", e, {2, 4}},
      {"b h w -> w b", {}, {{2, 3, 4}, Lay::turned}, "bhw", "wb", e, {4, 2}},
      {"b (h 2) w -> b h w", {}, {{2, 6, 4}, Lay::plain}, "bhiw", "bhw", e, {2, 3, 4}},
      {"b (i h) w -> (w b) 1 i", {{"i", 2}}, {{2, 6, 4}, Lay::transposed}, "bihw", "wbi", e, {8, 1, 2}},
      {"b ... -> b", {}, {{2, 3, 4}, Lay::stepped}, "bhw", "b", e, {2}},
      {"... -> ", {}, {{2, 3}, Lay::plain}, "bh", "", e, {}},
      {"... w -> () (...)", {}, {{2, 3, 4}, Lay::padded}, "bhw", "bh", e, {1, 6}},
      {"b 1 h -> h b", {}, {{2, 1, 3}, Lay::expanded}, "bh", "hb", e, {3, 2}},
  };
  list.op("reduce");
  for (const Arranged& c : cases)
    for (const Reducer reducer : {Reducer::sum, Reducer::mean, Reducer::max, Reducer::min, Reducer::prod}) {
      const bool ordered = reducer == Reducer::max || reducer == Reducer::min;
      if (ordered && c.x.lay == Lay::expanded) continue;  // equal values: the maximum has no derivative
      const CaseInput plain(c.x.shape, c.x.lay);
      list.add(
          {ordered                    ? plain.held(CaseInput::Hold::distinct)
           : reducer == Reducer::prod ? plain.range(0.5, 1.5)
                                      : plain},
          [c, reducer](const Tensors& x) { return reduce(x[0], runtime(c.pattern), reducer, c.lengths); },
          [c, reducer](const Arrays& x) { return reduced(x[0], c, reducer); });
    }
}

void add_diagonal(CaseList& list) {
  struct Pair {
    Shape shape;
    int first, second;
  };
  list.op("diagonal");
  for (const Pair& p : {Pair{{3, 3}, 0, 1}, Pair{{3, 3}, 1, 0}, Pair{{2, 3, 3}, 1, 2}, Pair{{3, 2, 3}, 0, -1}, Pair{{3, 3, 2}, 1, 0},
                        Pair{{1, 4, 1}, 2, 0}, Pair{{0, 0}, 0, 1}, Pair{{33, 5, 33}, 0, 2}})
    for (const Lay lay : {Lay::plain, Lay::stepped, Lay::transposed}) {
      const int a = p.shape.resolve(p.first), b = p.shape.resolve(p.second);
      list.add(
          {CaseInput(p.shape, lay)}, [p](const Tensors& x) { return diagonal(x[0], p.first, p.second); },
          [=](const Arrays& x) {
            const Shape rest = p.shape.without(std::max(a, b)).without(std::min(a, b));
            return gather(x[0], rest.appended(p.shape[a]), [&](const Place& y) {
              Place from;
              for (int axis = 0, to = 0; axis < p.shape.rank(); ++axis) from[axis] = axis == a || axis == b ? y[rest.rank()] : y[to++];
              return from;
            });
          });
    }
}

// Operands and output as letters, and their extents; an extent of 1 in a shape broadcasts.
struct Summed {
  std::string pattern;
  std::vector<Names> in;
  Names out;
  std::vector<Arrangement> x;
};
Array summed(const Arrays& x, const Summed& c) {
  Extents extents;
  Names all = c.out;
  std::map<char, int> operands;
  for (size_t i = 0; i < c.in.size(); ++i)
    for (size_t axis = 0; axis < c.in[i].size(); ++axis) {
      const char name = c.in[i][axis];
      extents[name] = std::max(extents[name], x[i].shape[int(axis)]);
      if (x[i].shape[int(axis)] == 0) extents[name] = 0;
      if (all.find(name) == Names::npos) all += name;
      if (c.in[i].find(name) == axis) ++operands[name];
    }
  // What is kept as a tensor between two calls is rounded: sums of one operand, and products when more follow.
  bool in_steps = c.in.size() > 2;
  for (const auto& [name, count] : operands) in_steps |= c.in.size() > 1 && count == 1 && c.out.find(name) == Names::npos;
  std::vector<int64_t> shape;
  for (const char name : c.out) shape.push_back(extents.at(name));
  Array y{Shape(std::span<const int64_t>(shape))};
  for_each_coordinate(all, extents, [&](const auto& at) {
    Real product;
    for (size_t i = 0; i < c.in.size(); ++i) {
      int64_t index = 0;
      for (size_t axis = 0; axis < c.in[i].size(); ++axis)
        index = index * x[i].shape[int(axis)] + std::min(at.at(c.in[i][axis]), x[i].shape[int(axis)] - 1);
      const Real factor = in_steps ? store(x[i][index]) : x[i][index];
      product = i == 0 ? factor : in_steps ? store(product * factor) : product * factor;
    }
    y[flat(c.out, extents, at)] += product;
  });
  return y;
}

// A pattern of one to four operands with up to four axes each of six, and an output of some of them.
Summed random_einsum(uint64_t number) {
  uint64_t draws = 0;
  const auto below = [&](uint32_t bound) { return philox(mix_key(7, number), 0, draws++)[0] % bound; };
  const std::map<char, int64_t> extents{{'a', 2}, {'b', 3}, {'c', 4}, {'d', 1}, {'e', 5}, {'f', 2}};
  Summed c;
  Names used;
  const uint32_t operands = 1 + below(4);
  for (uint32_t i = 0; i < operands; ++i) {
    Names names;
    for (uint32_t axes = below(operands == 1 ? 5 : 4); names.size() < axes;) names += char('a' + below(6));
    std::vector<int64_t> shape;
    for (const char name : names) shape.push_back(extents.at(name));
    constexpr Lay kLays[] = {Lay::plain, Lay::plain, Lay::transposed, Lay::stepped, Lay::turned, Lay::padded};
    c.in.push_back(names);
    c.x.push_back({Shape(std::span<const int64_t>(shape)), kLays[below(6)]});
    c.pattern += (i ? "," : "") + names;
    for (const char name : names)
      if (used.find(name) == Names::npos) used += name;
  }
  while (!used.empty()) {
    const size_t at = below(uint32_t(used.size()));
    if (below(2)) c.out += used[at];
    used.erase(at, 1);
  }
  c.pattern += "->" + c.out;
  return c;
}

void add_einsum(CaseList& list) {
  std::vector<Summed> cases = {
      {"ij,jk->ik", {"ij", "jk"}, "ik", {{{3, 4}, Lay::plain}, {{4, 5}, Lay::plain}}},
      {"i j, j k -> k i", {"ij", "jk"}, "ki", {{{3, 4}, Lay::transposed}, {{4, 5}, Lay::stepped}}},
      {"bij,bjk->bik", {"bij", "bjk"}, "bik", {{{2, 3, 4}, Lay::plain}, {{2, 4, 5}, Lay::transposed}}},
      {"b i k, b k j -> b i j", {"bik", "bkj"}, "bij", {{{2, 3, 4}, Lay::padded}, {{2, 4, 5}, Lay::plain}}},
      {"batch query head dim, batch key head dim -> batch head query key",
       {"bqhd", "bkhd"},
       "bhqk",
       {{{2, 3, 2, 4}, Lay::plain}, {{2, 5, 2, 4}, Lay::plain}}},
      {"...ij,...jk->...ik", {"xyij", "yjk"}, "xyik", {{{2, 1, 3, 4}, Lay::plain}, {{5, 4, 2}, Lay::plain}}},
      {"...ij,jk", {"xij", "jk"}, "xik", {{{2, 3, 4}, Lay::plain}, {{4, 5}, Lay::plain}}},
      {"ij,...jk->...ik", {"ij", "xjk"}, "xik", {{{3, 4}, Lay::plain}, {{2, 4, 5}, Lay::plain}}},
      {"... i, ... i -> ...", {"xyi", "yi"}, "xy", {{{2, 3, 4}, Lay::plain}, {{1, 4}, Lay::plain}}},
      {"ii->i", {"ii"}, "i", {{{4, 4}, Lay::transposed}}},
      {"ii", {"ii"}, "", {{{4, 4}, Lay::plain}}},
      {"iji->j", {"iji"}, "j", {{{3, 2, 3}, Lay::plain}}},
      {"iii->i", {"iii"}, "i", {{{3, 3, 3}, Lay::stepped}}},
      {"i,j->ij", {"i", "j"}, "ij", {{{3}, Lay::plain}, {{4}, Lay::stepped}}},
      {"i,i", {"i", "i"}, "", {{{5}, Lay::plain}, {{5}, Lay::stepped}}},
      {"ij,ij->ij", {"ij", "ij"}, "ij", {{{3, 4}, Lay::plain}, {{3, 4}, Lay::transposed}}},
      {"bij,bij->b", {"bij", "bij"}, "b", {{{2, 3, 4}, Lay::plain}, {{2, 3, 4}, Lay::plain}}},
      {"ij,jk,kl->il", {"ij", "jk", "kl"}, "il", {{{2, 3}, Lay::plain}, {{3, 4}, Lay::plain}, {{4, 2}, Lay::plain}}},
      {"ij,ij,ij->i", {"ij", "ij", "ij"}, "i", {{{2, 3}, Lay::plain}, {{2, 3}, Lay::transposed}, {{2, 3}, Lay::plain}}},
      {"ij,jk->ik", {"ij", "jk"}, "ik", {{{3, 0}, Lay::plain}, {{0, 2}, Lay::plain}}},
      {"ij,jk->ik", {"ij", "jk"}, "ik", {{{0, 3}, Lay::plain}, {{3, 2}, Lay::plain}}},
      {"ij,kj->ik", {"ij", "kj"}, "ik", {{{65, 33}, Lay::plain}, {{17, 33}, Lay::plain}}},
      {"ij,j->i", {"ij", "j"}, "i", {{{7, 129}, Lay::plain}, {{129}, Lay::plain}}},
  };
  for (uint64_t i = 0; i < 60; ++i) cases.push_back(random_einsum(i));
  list.op("einsum");
  for (const Summed& c : cases) {
    CaseInputs inputs;
    for (const Arrangement& a : c.x) inputs.push_back(CaseInput(a.shape, a.lay));
    list.add(
        inputs, [pattern = c.pattern](const Tensors& x) { return einsum(runtime(pattern), x); },
        [c](const Arrays& x) { return summed(x, c); });
  }
}
}  // namespace

void add_named_cases(CaseList& list) {
  add_rearrange(list);
  add_reduce(list);
  add_repeat(list);
  add_diagonal(list);
  add_einsum(list);
}
}  // namespace reckon
