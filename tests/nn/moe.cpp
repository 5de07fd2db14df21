// Mixtures of experts against a plain double reference that goes from token to token, with full experts, ties and every option; gradients
// by finite differences; the same plan on meta.
#include "reckon/nn/moe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/parallel.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/meter.h"

namespace reckon {
namespace {
using testing::HasSubstr;
using Values = std::vector<double>;

constexpr int64_t kWidth = 6, kInner = 5;

struct Model : nn::Module {
  nn::MoE moe;
  Model(Parameters& p, const nn::MoeOptions& o) : Module(p), moe(*this, "moe", kWidth, kInner, o) {}
};

struct Expected {
  Values y;
  double balance = 0, z = 0;
  std::vector<int64_t> load;
  int64_t dropped = 0;
};
double silu_of(double x) { return x / (1 + std::exp(-x)); }
double gelu_of(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

// x [N, width], router [E, width], up [E, U, width], down [E, width, inner].
Expected expected(const Values& x, const Values& router, const Values& up, const Values& down, const nn::MoeOptions& o) {
  const int64_t N = int64_t(x.size()) / kWidth, E = o.experts, k = o.top_k, capacity = nn::moe_capacity(N, o);
  const bool gated = o.kind == MlpKind::swiglu;
  const int64_t U = gated ? 2 * kInner : kInner;
  Expected r;
  r.y.resize(x.size());
  r.load.resize(size_t(E));
  std::vector<Values> p(static_cast<size_t>(N), Values(size_t(E)));
  std::vector<std::vector<int64_t>> order(static_cast<size_t>(N));
  Values mean(static_cast<size_t>(E));
  for (int64_t n = 0; n < N; ++n) {
    Values& pn = p[size_t(n)];
    double sum = 0;
    for (int64_t e = 0; e < E; ++e) {
      double logit = 0;
      for (int64_t c = 0; c < kWidth; ++c) logit += x[size_t(n * kWidth + c)] * router[size_t(e * kWidth + c)];
      sum += pn[size_t(e)] = std::exp(logit);
    }
    r.z += std::log(sum) * std::log(sum) / double(N);
    for (int64_t e = 0; e < E; ++e) mean[size_t(e)] += (pn[size_t(e)] /= sum) / double(N);
    auto& on = order[size_t(n)];
    on.resize(size_t(E));
    std::iota(on.begin(), on.end(), 0);
    std::stable_sort(on.begin(), on.end(), [&](int64_t a, int64_t b) { return pn[size_t(a)] > pn[size_t(b)]; });
  }
  for (int64_t j = 0; j < k; ++j)
    for (int64_t n = 0; n < N; ++n) {
      const int64_t e = order[size_t(n)][size_t(j)];
      if (r.load[size_t(e)]++ >= capacity) {
        ++r.dropped;
        continue;
      }
      double weight = p[size_t(n)][size_t(e)], chosen = 0;
      for (int64_t i = 0; i < k; ++i) chosen += p[size_t(n)][size_t(order[size_t(n)][size_t(i)])];
      if (o.renormalize) weight /= chosen;
      Values inner(static_cast<size_t>(U));
      for (int64_t u = 0; u < U; ++u)
        for (int64_t c = 0; c < kWidth; ++c) inner[size_t(u)] += up[size_t((e * U + u) * kWidth + c)] * x[size_t(n * kWidth + c)];
      for (int64_t c = 0; c < kWidth; ++c)
        for (int64_t f = 0; f < kInner; ++f) {
          const double h = gated ? silu_of(inner[size_t(f)]) * inner[size_t(kInner + f)] : gelu_of(inner[size_t(f)]);
          r.y[size_t(n * kWidth + c)] += weight * down[size_t((e * kWidth + c) * kInner + f)] * h;
        }
    }
  for (int64_t e = 0; e < E; ++e) r.balance += double(E) * mean[size_t(e)] * double(r.load[size_t(e)]) / double(N * k);
  return r;
}

struct Built {
  Ref<Device> device = open_cpu(Mode::real);
  Parameters parameters;
  Model model;
  Tensor x;
  Built(const nn::MoeOptions& o, int64_t N, uint64_t seed = 1, DType dtype = DType::f64) : model(parameters, o) {
    model.materialize(*device, {.dtype = dtype}, seed);
    fill_normal_(model.moe.router.weight.value.detached(), 77 + seed, 0, 0.7);  // so that experts differ
    x = empty(*device, {{N, kWidth}, dtype});
    fill_normal_(x, 100 + seed);
  }
  Expected reference() const {
    const nn::MoE& m = model.moe;
    return expected(x.to_vector(), m.router.weight.value.to_vector(), m.up.value.to_vector(), m.down.value.to_vector(), m.options);
  }
};
double largest(const Values& v) {
  return std::accumulate(v.begin(), v.end(), 0.0, [](double most, double x) { return std::max(most, std::abs(x)); });
}
void expect_near(const Values& got, const Values& want, double allowed, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], want[i], allowed) << what << " element " << i;
}

struct Case {
  const char* name;
  nn::MoeOptions options;
  int64_t tokens;
  bool full;  // some choices find no room
};
const Case kCases[] = {
    {"one", {.experts = 1, .top_k = 1, .capacity_factor = 1}, 5, false},
    {"switch", {.experts = 4, .top_k = 1, .capacity_factor = 4, .renormalize = false, .kind = MlpKind::gelu}, 13, false},
    {"switch_full", {.experts = 4, .top_k = 1, .capacity_factor = 0.8, .renormalize = false, .kind = MlpKind::gelu}, 13, true},
    {"mixtral", {.experts = 8, .top_k = 2, .capacity_factor = 4}, 19, false},
    {"mixtral_full", {.experts = 8, .top_k = 2, .capacity_factor = 0.75}, 19, true},
    {"all_of_three", {.experts = 3, .top_k = 3, .capacity_factor = 0.5}, 9, true},
    {"a_token", {.experts = 5, .top_k = 2}, 1, false},
};
class MixtureOfExperts : public testing::TestWithParam<Case> {};

TEST_P(MixtureOfExperts, IsTheLoopOverTokens) {
  const Case& c = GetParam();
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    const Built s(c.options, c.tokens, seed);
    const nn::MoE::Result got = s.model.moe(s.x);
    const Expected want = s.reference();
    // A handful of roundings, and sums over width, inner and choices that walk randomly.
    const double relative = 16 * epsilon(DType::f64) * std::sqrt(double(kWidth * kInner * c.options.top_k));
    expect_near(got.y.to_vector(), want.y, relative * std::max(1.0, largest(want.y)), "y");
    EXPECT_NEAR(got.balance_loss.item(), want.balance, relative * want.balance);
    EXPECT_NEAR(got.z_loss.item(), want.z, relative * std::max(1.0, want.z));
    EXPECT_EQ(int64_t(got.dropped.item()), want.dropped);
    for (size_t e = 0; e < want.load.size(); ++e) EXPECT_EQ(int64_t(got.load.to_vector()[e]), want.load[e]);
    EXPECT_EQ(want.dropped > 0, c.full) << "a case that is not what it says";
  }
}

// Along every parameter and the input, in float64, where no choice is near a tie.
TEST_P(MixtureOfExperts, HasTheGradientOfItsDifferences) {
  const Case& c = GetParam();
  Built s(c.options, c.tokens);
  s.x.set_requires_grad();
  const Tensor weights = empty(*s.device, s.x.spec());
  fill_normal_(weights, 5);
  const auto objective = [&] {
    const nn::MoE::Result r = s.model.moe(s.x);
    return add(sum(mul(r.y, weights)), add(affine(r.balance_loss, 0.3), affine(r.z_loss, 0.2)));
  };
  backward(objective());
  std::vector<std::pair<std::string, Tensor>> leaves = {{"x", s.x}};
  for (const auto& p : s.model.named_parameters()) leaves.emplace_back(p.name, p.parameter->value);
  const NoGrad guard;
  for (const auto& [name, leaf] : leaves) {
    const Values gradient = leaf.grad().to_vector(), values = leaf.to_vector();
    const double most = largest(gradient);
    constexpr double h = 1e-4;
    const auto at = [&](size_t i, double distance) {
      Values moved = values;
      moved[i] += distance;
      leaf.detached().write(moved.data(), int64_t(moved.size() * sizeof(double)));
      return objective().item();
    };
    for (size_t k = 0; k < std::min<size_t>(values.size(), 40); ++k) {
      const size_t i = k * 7919 % values.size();
      const double difference = (8 * (at(i, h) - at(i, -h)) - (at(i, 2 * h) - at(i, -2 * h))) / (12 * h);
      // The differences lose eps / h of the objective, some tens at most.
      EXPECT_NEAR(gradient[i], difference, 1e-6 * most + 100 * epsilon(DType::f64) / h) << name << " element " << i;
    }
    at(0, 0);
  }
}

// Equal probabilities go to the first experts, whose room ends.
TEST(MixtureOfExpertsTies, GoToTheFirstExpertsInOrder) {
  Built s({.experts = 4, .top_k = 2, .capacity_factor = 1}, 10);
  const Values zeros(4 * kWidth);
  s.model.moe.router.weight.value.detached().write(zeros.data(), int64_t(zeros.size() * sizeof(double)));
  const nn::MoE::Result r = s.model.moe(s.x);
  EXPECT_EQ(r.load.to_vector(), Values({10, 10, 0, 0}));
  EXPECT_EQ(r.dropped.item(), 2 * 10 - 2 * 5);
  expect_near(r.y.to_vector(), s.reference().y, 64 * epsilon(DType::f64) * std::max(1.0, largest(s.reference().y)), "y");
  const Values y = r.y.to_vector();
  for (size_t i = 5 * kWidth; i < y.size(); ++i) EXPECT_EQ(y[i], 0) << "a token that found no room";
  EXPECT_DOUBLE_EQ(r.balance_loss.item(), 1) << "equal probabilities, whatever the choices";
  EXPECT_NEAR(r.z_loss.item(), std::log(4.0) * std::log(4.0), 4 * epsilon(DType::f64));
}

TEST(MixtureOfExpertsCapacity, IsTheShareTimesTheFactor) {
  EXPECT_EQ(nn::moe_capacity(64, {.experts = 8, .top_k = 2, .capacity_factor = 1}), 16);
  EXPECT_EQ(nn::moe_capacity(64, {.experts = 8, .top_k = 2, .capacity_factor = 1.25}), 20);
  EXPECT_EQ(nn::moe_capacity(3, {.experts = 8, .top_k = 1, .capacity_factor = 1}), 1);
  EXPECT_EQ(nn::moe_capacity(10, {.experts = 2, .top_k = 2, .capacity_factor = 9}), 10) << "no expert can have more than all";
}

TEST_P(MixtureOfExperts, IsPlannedAsItRuns) {
  const Case& c = GetParam();
  for (const DType dtype : {DType::f32, DType::bf16}) {
    struct Books {
      std::string hash;
      int64_t peak;
      Flops flops;
    };
    const auto books = [&](Mode mode) {
      const Ref<Device> device = open_cpu(mode);
      Parameters p;
      Model model(p, c.options);
      model.materialize(*device, {.dtype = dtype}, 1);
      Tensor x = empty(*device, {{1, c.tokens, kWidth}, dtype});
      fill_normal_(x, 3);
      x.set_requires_grad();
      Meter meter;
      const MeterScope scope(meter);
      const nn::MoE::Result r = model.moe(x);
      backward(add(sum(r.y), cast(r.balance_loss, dtype)));
      return Books{device->allocator().trace_hash(), device->allocator().ledger().peak, meter.total()};
    };
    const Books real = books(Mode::real), meta = books(Mode::meta);
    EXPECT_EQ(real.hash, meta.hash);
    EXPECT_EQ(real.peak, meta.peak);
    EXPECT_EQ(real.flops, meta.flops);
  }
}

// Every place is multiplied; needed are as many as there are choices.
TEST_P(MixtureOfExperts, ExecutesEveryPlaceAndNeedsEveryChoice) {
  const Case& c = GetParam();
  const nn::MoeOptions& o = c.options;
  Built s(o, c.tokens);
  Meter meter;
  {
    const MeterScope scope(meter);
    s.model.moe(s.x);
  }
  const int64_t N = c.tokens, up = o.kind == MlpKind::swiglu ? 2 * kInner : kInner, row = 2 * kWidth * (up + kInner);
  const int64_t router = 2 * N * kWidth * o.experts, places = o.experts * nn::moe_capacity(N, o);
  EXPECT_EQ(meter.total().matmul, router + places * row);
  EXPECT_EQ(meter.total().model, router + std::min(places, N * o.top_k) * row);
}

TEST_P(MixtureOfExperts, HasTheSameBitsAtAnyNumberOfThreads) {
  const Case& c = GetParam();
  const int before = thread_count();
  Values one;
  for (const int threads : {1, 2, 5}) {
    set_thread_count(threads);
    Built s(c.options, c.tokens * 20, 1, DType::f32);
    s.x.set_requires_grad();
    const nn::MoE::Result r = s.model.moe(s.x);
    backward(add(sum(square(r.y)), r.balance_loss));
    Values all = r.y.to_vector();
    for (const auto& p : s.model.named_parameters())
      for (const double g : p.parameter->value.grad().to_vector()) all.push_back(g);
    for (const double g : s.x.grad().to_vector()) all.push_back(g);
    if (threads == 1) one = all;
    EXPECT_TRUE(all == one) << threads << " threads";
  }
  set_thread_count(before);
}

// A checkpoint runs the forward pass twice: the same tokens go the same ways.
TEST_P(MixtureOfExperts, IsTheSameWhereItRunsAgain) {
  const Case& c = GetParam();
  Built s(c.options, c.tokens, 1, DType::f32);
  s.x.set_requires_grad();
  const auto gradients = [&](bool again) {
    s.parameters.zero_grad();
    s.x.zero_grad();
    const auto run = [&](const Tensors& in) {
      const nn::MoE::Result r = s.model.moe(in[0]);
      return add(sum(square(r.y)), r.balance_loss);
    };
    backward(again ? checkpoint(run, {s.x}) : run({s.x}));
    Values all = s.x.grad().to_vector();
    for (const auto& p : s.model.named_parameters())
      for (const double g : p.parameter->value.grad().to_vector()) all.push_back(g);
    return all;
  };
  EXPECT_EQ(gradients(true), gradients(false));
}

INSTANTIATE_TEST_SUITE_P(Options, MixtureOfExperts, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

// A loss of balance falls when it is trained on: choices spread.
TEST(MixtureOfExpertsTraining, TheBalanceLossSpreadsTheChoices) {
  Built s({.experts = 4, .top_k = 1, .capacity_factor = 4, .renormalize = false}, 64, 2);
  // Constant inputs push all tokens to one expert.
  Values x = s.x.to_vector();
  for (size_t i = 0; i < x.size(); i += size_t(kWidth)) x[i] = 3;
  s.x.write(x.data(), int64_t(x.size() * sizeof(double)));
  const auto most = [&] { return largest(s.model.moe(s.x).load.to_vector()); };
  const double before = most();
  Parameter& router = s.model.moe.router.weight;
  for (int step = 0; step < 200; ++step) {
    s.parameters.zero_grad();
    backward(s.model.moe(s.x).balance_loss);
    Values w = router.value.to_vector();
    const Values g = router.value.grad().to_vector();
    for (size_t i = 0; i < w.size(); ++i) w[i] -= 0.5 * g[i];
    router.value.detached().write(w.data(), int64_t(w.size() * sizeof(double)));
  }
  EXPECT_LT(most(), before);
  EXPECT_LT(s.model.moe(s.x).balance_loss.item(), 1.1);
}

TEST(MixtureOfExpertsRefuses, WhatCannotBeRouted) {
  Parameters p;
  EXPECT_THROW(Model(p, {.experts = 2, .top_k = 3}), Error);
  EXPECT_THROW(Model(p, {.experts = 2, .top_k = 0}), Error);
  EXPECT_THROW(Model(p, {.experts = 2, .capacity_factor = 0}), Error);
  Built s({.experts = 2, .top_k = 1}, 3);
  EXPECT_THROW(s.model.moe(zeros(*s.device, {{3, kWidth + 1}, DType::f64})), Error);
  EXPECT_THROW(s.model.moe(zeros(*s.device, {{0, kWidth}, DType::f64})), Error);
}

// What is read from memory is not trusted: places beyond the tensors count as empty, and NaNs are routed somewhere.
TEST(RoutingBounds, AreCheckedByTheKernels) {
  const Ref<Device> device = open_cpu(Mode::real, local_cpu_profile(), Guard::mapping);
  const std::vector<int32_t> slots = {0, 99, -7, 3}, rows = {0, 12345, -1, 3};
  const Routing r{{}, from_values<int32_t>(*device, {4, 1}, slots), from_values<int32_t>(*device, {2, 2}, rows), {}, {}};
  const Tensor x = ones(*device, {{4, 3}, DType::f32});
  EXPECT_EQ(moe_dispatch(x, r).to_vector(), Values({1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1}));
  EXPECT_EQ(moe_combine(ones(*device, {{2, 2, 3}, DType::f32}), r).to_vector(), Values({1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1}));
  const std::vector<int32_t> ids = {2, -1, 5, 0};
  const Values picked = pick_experts(x, from_values<int32_t>(*device, {4, 1}, ids)).to_vector();
  EXPECT_EQ(picked[0], 1);
  EXPECT_TRUE(std::isnan(picked[1]) && std::isnan(picked[2]));
  const Routing of_nan = route_top_k(full(*device, {{5, 3}, DType::f32}, NAN), 2, 4);
  EXPECT_EQ(of_nan.experts.to_vector(), Values({0, 1, 0, 1, 0, 1, 0, 1, 0, 1}));
  EXPECT_EQ(of_nan.load.to_vector(), Values({5, 5, 0}));
  EXPECT_EQ(of_nan.dropped.item(), 2);
}
}  // namespace
}  // namespace reckon
