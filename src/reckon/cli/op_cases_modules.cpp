// cli/op_cases: dropout, and the ways between tokens and experts.
#include <algorithm>

#include "reckon/base/philox.h"
#include "reckon/cli/op_cases.h"
#include "reckon/ops/dropout.h"
#include "reckon/ops/routing.h"

namespace reckon {
namespace {
// As the documentation of the kernel says it: which elements of a sample stay.
bool is_kept(uint64_t key, uint64_t site, int64_t sample, int64_t e, double p) {
  const auto words = philox(mix_key(mix_key(key, site), uint64_t(sample)), 0, uint64_t(e / 2048 * 256 + e % 256));
  const uint32_t word = words[size_t(e / 256 % 4)], half = e / 1024 % 2 == 0 ? word % 65536 : word / 65536;
  return double(half) >= p * 0x1p16;
}

void add_dropout(CaseList& list) {
  constexpr uint64_t kKey = 123456789, kSite = 77;
  constexpr int64_t kSample = 5;
  const double ps[] = {0.125, 0, 0.5, 0.875};  // exact in 16 bits
  list.op("dropout");
  int index = 0;
  for (const Arrangement& a : arrangements()) {
    const double p = ps[index % 4];
    const int64_t first = index % 3 == 2 ? 1021 * index : 0;
    ++index;
    list.add(
        {CaseInput(a.shape, a.lay), CaseInput::of({2}, DType::i64, {double(kKey), double(kSample)})},
        [=](const Tensors& x) { return dropout(x[0], p, x[1], kSite, first); },
        [=](const Arrays& x) {
          Array y(x[0].shape);
          const int64_t samples = x[0].shape.rank() > 0 ? x[0].shape[0] : 1, each = samples > 0 ? y.size() / samples : 0;
          const double scale = 1 / (1 - p);
          for (int64_t i = 0; i < y.size(); ++i)
            if (is_kept(kKey, kSite, kSample + i / each, first + i % each, p)) y[i] = x[0][i] * Real(scale);
          return y;
        });
  }
}

// ---- experts
struct Sizes {
  int64_t N, k, E, R, C;  // tokens, choices, experts, places of one, width
  Lay lay = Lay::plain;
};
const Sizes kSizes[] = {
    {1, 1, 1, 1, 1},
    {1, 1, 2, 1, 3},
    {1, 2, 2, 1, 3},
    {5, 1, 3, 2, 4},
    {5, 2, 3, 2, 4, Lay::transposed},
    {7, 2, 4, 9, 5, Lay::stepped},
    {8, 3, 3, 1, 6, Lay::padded},
    {9, 4, 4, 3, 129},
    {16, 3, 8, 5, 33, Lay::turned},
    {33, 2, 5, 10, 65, Lay::shifted},
    {3, 1, 1, 2, 2049},
    {40, 2, 6, 20, 17},
    {64, 8, 64, 8, 12},
    {130, 2, 7, 30, 40, Lay::transposed},
};

void add_routes(CaseList& list) {
  list.op("route_top_k", false);
  for (const Sizes& s : kSizes)
    for (const auto hold : {CaseInput::Hold::grid, CaseInput::Hold::distinct}) {  // a grid has many ties
      if (s.N * s.E > 600 && hold == CaseInput::Hold::distinct) continue;
      list.add(
          {CaseInput(Shape{s.N, s.E}, s.lay).held(hold, 0, 1)},
          [s](const Tensors& x) {
            const Routing r = route_top_k(x[0], s.k, s.R);
            return Tensors{r.experts, r.slots, r.rows, r.load, r.dropped};
          },
          [s](const Arrays& x) {
            Array experts({s.N, s.k}), slots({s.N, s.k}), rows({s.E, s.R}), load(Shape{s.E}), dropped(Shape{1});
            std::fill(rows.values.begin(), rows.values.end(), Real(-1));
            for (int64_t n = 0; n < s.N; ++n) {
              std::vector<int64_t> order(static_cast<size_t>(s.E));
              for (int64_t e = 0; e < s.E; ++e) order[size_t(e)] = e;
              std::stable_sort(order.begin(), order.end(),
                               [&](int64_t a, int64_t b) { return x[0][n * s.E + a].value > x[0][n * s.E + b].value; });
              for (int64_t j = 0; j < s.k; ++j) experts[n * s.k + j] = double(order[size_t(j)]);
            }
            for (int64_t j = 0; j < s.k; ++j)
              for (int64_t n = 0; n < s.N; ++n) {
                const int64_t choice = n * s.k + j, e = int64_t(experts[choice].value), place = int64_t(load[e].value);
                load[e] = double(place + 1);
                slots[choice] = place < s.R ? double(e * s.R + place) : -1.0;
                if (place < s.R) rows[e * s.R + place] = double(choice);
                if (place >= s.R) dropped[0] = dropped[0].value + 1;
              }
            return Arrays{experts, slots, rows, load, dropped};
          });
    }
}

// Choices at random and where they find room.
struct Sent {
  std::vector<double> experts, slots, rows;
  explicit Sent(const Sizes& s) : rows(size_t(s.E * s.R), -1) {
    std::vector<int64_t> load(static_cast<size_t>(s.E));
    for (int64_t n = 0; n < s.N; ++n) {
      const int64_t start = int64_t(philox(9, uint64_t(s.C), uint64_t(n))[0] % uint64_t(s.E));
      for (int64_t j = 0; j < s.k; ++j) {
        const int64_t e = (start + j) % s.E, place = load[size_t(e)]++;
        experts.push_back(double(e));
        slots.push_back(place < s.R ? double(e * s.R + place) : -1.0);
        if (place < s.R) rows[size_t(e * s.R + place)] = double(n * s.k + j);
      }
    }
  }
};
Routing routing_of(const Tensor& slots, const Tensor& rows) { return {{}, slots, rows, {}, {}}; }

void add_picks(CaseList& list) {
  list.op("pick_experts");
  for (const Sizes& s : kSizes)
    for (const Lay lay : {s.lay, Lay::padded})
      list.add(
          {CaseInput(Shape{s.N, s.E}, lay), CaseInput::of({s.N, s.k}, DType::i32, Sent(s).experts)},
          [](const Tensors& x) { return pick_experts(x[0], x[1]); },
          [s](const Arrays& x) {
            Array y({s.N, s.k});
            for (int64_t i = 0; i < y.size(); ++i) y[i] = x[0][i / s.k * s.E + int64_t(x[1][i].value)];
            return y;
          });
}

// in: x, slots, rows (, weights)
CaseInputs exchanged(const Sizes& s, const Shape& x, bool weighted) {
  const Sent sent(s);
  CaseInputs in = {CaseInput(x, s.lay), CaseInput::of({s.N, s.k}, DType::i32, sent.slots),
                   CaseInput::of({s.E, s.R}, DType::i32, sent.rows)};
  if (weighted) in.push_back(CaseInput(Shape{s.N, s.k}));
  return in;
}

void add_exchanges(CaseList& list) {
  const auto weights_of = [](const Tensors& x) { return x.size() > 3 ? x[3] : Tensor(); };
  list.op("moe_dispatch");
  for (const Sizes& s : kSizes)
    for (const bool weighted : {false, true})
      list.add(
          exchanged(s, {s.N, s.C}, weighted),
          [weights_of](const Tensors& x) { return moe_dispatch(x[0], routing_of(x[1], x[2]), weights_of(x)); },
          [s, weighted](const Arrays& x) {
            Array y({s.E, s.R, s.C});
            for (int64_t i = 0; i < y.size(); ++i) {
              const int64_t choice = int64_t(x[2][i / s.C].value);
              if (choice < 0) continue;
              const Real& value = x[0][choice / s.k * s.C + i % s.C];
              y[i] = weighted ? x[3][choice] * value : value;
            }
            return y;
          });
  list.op("moe_combine");
  for (const Sizes& s : kSizes)
    for (const bool weighted : {false, true})
      list.add(
          exchanged(s, {s.E, s.R, s.C}, weighted),
          [weights_of](const Tensors& x) { return moe_combine(x[0], routing_of(x[1], x[2]), weights_of(x)); },
          [s, weighted](const Arrays& x) {
            Array y({s.N, s.C});
            for (int64_t n = 0; n < s.N; ++n)
              for (int64_t j = 0; j < s.k; ++j) {
                const int64_t slot = int64_t(x[1][n * s.k + j].value);
                if (slot < 0) continue;
                for (int64_t c = 0; c < s.C; ++c)
                  y[n * s.C + c] += weighted ? x[3][n * s.k + j] * x[0][slot * s.C + c] : x[0][slot * s.C + c];
              }
            return y;
          });
}
}  // namespace

void add_module_cases(CaseList& list) {
  add_dropout(list);
  add_routes(list);
  add_picks(list);
  add_exchanges(list);
}
}  // namespace reckon
