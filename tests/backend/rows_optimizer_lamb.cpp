// LAMB's passes: the float32 run's bits in every storage, norms that do not depend on neighbours, skipping, threads.
#include "reckon/backend/cpu/optimizer_lamb.h"
#include "reckon/ops/state_blocks.h"
#include "tests/backend/rows_support.h"

namespace reckon::cpu {
namespace {
std::vector<double> scalars(int step) {
  std::vector<double> s(kStepScalars);
  s[kLearningRate] = 0.01, s[kBeta1] = 0.9, s[kBeta2] = 0.95, s[kEpsilon] = 1e-6;
  s[kBiasFactor1] = 1 - std::pow(0.9, step), s[kBiasFactor2] = 1 - std::pow(0.95, step);
  s[kClip] = 0.5, s[kOk] = 1, s[kLossScale] = 1;
  return s;
}

struct State {
  Buffer p, residual, m, v, master, ratios;
  std::vector<int64_t> places;
  State(DType dtype, std::vector<int64_t> starts)
      : p(dtype, starts.back() - starts.front()),
        residual(DType::bf16, p.size()),
        m(statistics_dtype(dtype), p.size()),
        v(statistics_dtype(dtype), p.size()),
        master(uniform(DType::f32, p.size(), 9)),
        ratios(DType::f64, int64_t(starts.size()) - 1),
        places(std::move(starts)) {
    for (int64_t i = 0; i < p.size(); ++i) p.set(i, master[i]);
    if (dtype == DType::bf16) split_master(master.as<float>(), p.data(), residual.as<uint16_t>(), p.size());
  }
  void run(Buffer g, const std::vector<double>& s) {
    LambStep l{.step = {.dtype = p.dtype(), .n = p.size(), .p = p.data(), .g = g.data(), .m = m.data(), .v = v.data()}};
    if (p.dtype() == DType::bf16) l.step.residual = residual.as<uint16_t>();
    if (p.dtype() == DType::f16) l.step.master = master.as<float>();
    l.step.weight_decay = 0.1, l.step.scalars = s.data(), l.step.first = places[0];
    l.parameters = int64_t(places.size()) - 1, l.places = places.data(), l.ratios = ratios.as<double>();
    l.phi_high = 10;
    std::vector<std::byte> workspace(size_t(lamb_workspace(p.size(), l.parameters)));
    lamb_moments(l, workspace.data());
    lamb_step(l);
  }
  bool same(const State& o) const {
    return p.same_bytes(o.p) && residual.same_bytes(o.residual) && m.same_bytes(o.m) && v.same_bytes(o.v) && master.same_bytes(o.master) &&
           ratios.same_bytes(o.ratios);
  }
};
Buffer gradient(DType dtype, int64_t n, int step) { return uniform(statistics_dtype(dtype), n, 100 + uint64_t(step)); }
const std::vector<int64_t> kStarts = {64, 96, 96, 96 + 32 * 700, 96 + 32 * 701, 96 + 32 * 1213};

TEST(RowsLamb, HalvesAndMastersAreTheFloatRunBitByBit) {
  on_every_target([] {
    State whole(DType::f32, kStarts), halves(DType::bf16, kStarts), copied(DType::f16, kStarts);
    Buffer joined(DType::f32, whole.p.size());
    for (int64_t i = 0; i < whole.p.size(); ++i) whole.p.set(i, whole.master[i]);
    for (int step = 1; step <= 4; ++step)
      for (State* s : {&whole, &halves, &copied}) s->run(gradient(DType::f32, whole.p.size(), step), scalars(step));
    join_master(halves.p.data(), halves.residual.as<uint16_t>(), joined.as<float>(), joined.size());
    EXPECT_TRUE(joined.same_bytes(whole.p) && halves.m.same_bytes(whole.m) && halves.v.same_bytes(whole.v) &&
                halves.ratios.same_bytes(whole.ratios));
    EXPECT_TRUE(copied.master.same_bytes(whole.p) && copied.m.same_bytes(whole.m) && copied.ratios.same_bytes(whole.ratios));
    for (int64_t i = 0; i < whole.p.size(); ++i) ASSERT_EQ(copied.p[i], double(float(float16(float(whole.p[i]))))) << i;
  });
}

// A parameter is stepped alike alone and between others: gradients come in runs, and which ones may change.
TEST(RowsLamb, AParameterDoesNotSeeItsNeighbours) {
  for (const DType dtype : kFloats) {
    State all(dtype, kStarts);
    const Buffer g = gradient(dtype, all.p.size(), 1);
    State before = all;
    all.run(g, scalars(3));
    for (size_t k = 0; k + 1 < kStarts.size(); ++k) {
      State one(dtype, {kStarts[k], kStarts[k + 1]});
      const int64_t at = kStarts[k] - kStarts[0];
      Buffer part(g.dtype(), one.p.size());
      for (int64_t i = 0; i < one.p.size(); ++i) {
        part.set(i, g[at + i]), one.p.set(i, before.p[at + i]), one.master.set(i, before.master[at + i]);
        one.residual.as<uint16_t>()[i] = before.residual.as<uint16_t>()[at + i];
      }
      one.run(part, scalars(3));
      EXPECT_EQ(one.ratios[0], all.ratios[int64_t(k)]) << name_of(dtype) << " " << k;
      for (int64_t i = 0; i < one.p.size(); ++i) ASSERT_EQ(one.p[i], all.p[at + i]) << name_of(dtype) << " " << k << " " << i;
    }
  }
}

TEST(RowsLamb, RatiosAreThoseOfDoubleNorms) {
  on_every_target([] {
    for (const DType dtype : {DType::f32, DType::f64}) {
      State s(dtype, kStarts);
      const std::vector<double> p = values(s.p);
      const Buffer g = gradient(dtype, s.p.size(), 1);
      const auto sc = scalars(1);
      s.run(g, sc);
      for (size_t k = 0; k + 1 < kStarts.size(); ++k) {
        double weights = 0, steps = 0;
        for (int64_t i = kStarts[k] - kStarts[0]; i < kStarts[k + 1] - kStarts[0]; ++i) {
          const double grad = g[i] * 0.5, u = grad / (std::abs(grad) + 1e-6) + 0.1 * p[size_t(i)];
          weights += p[size_t(i)] * p[size_t(i)], steps += u * u;
        }
        const double want = weights > 0 ? std::min(10.0, std::sqrt(weights)) / std::sqrt(steps) : 1;
        // Each u is right to a few roundings, and the roundings of sums in double, whichever their order, walk randomly: so is the ratio.
        const double n = double(kStarts[k + 1] - kStarts[k]), tolerance = 8 * epsilon(dtype) + std::sqrt(n) * epsilon(DType::f64);
        EXPECT_NEAR(s.ratios[int64_t(k)], want, tolerance * want) << k;
      }
    }
  });
}

TEST(RowsLamb, SkipsWhenNotOk) {
  for (const DType dtype : kFloats) {
    State s(dtype, kStarts);
    State before = s;
    auto sc = scalars(1);
    sc[kOk] = 0;
    s.run(gradient(dtype, s.p.size(), 1), sc);
    for (int64_t k = 0; k < s.ratios.size(); ++k) before.ratios.set(k, 1);
    EXPECT_TRUE(s.same(before));
  }
}

TEST(RowsLamb, SameBytesOnAnyThreads) {
  for (const DType dtype : kFloats)
    expect_same_on_any_threads([&] {
      State s(dtype, {32, 32 + 32 * 3000, 32 + 32 * 3001});
      s.run(gradient(dtype, s.p.size(), 1), scalars(1));
      return std::vector<Buffer>{s.p, s.residual, s.m, s.v, s.master, s.ratios};
    });
}
}  // namespace
}  // namespace reckon::cpu
