// Dropout beyond its cases: the share that is kept, masks that are independent of each other, and the same mask in every dtype, in
// backward, in repeated passes and for any cut of samples and elements.
#include "reckon/ops/dropout.h"

#include <gtest/gtest.h>

#include <cmath>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/parallel.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/ops/ops.h"

namespace reckon {
namespace {
class DropoutMask : public testing::Test {
 protected:
  Tensor draws(uint64_t seed, int64_t step, int64_t first) {
    const Tensor t = make_dropout_draws(*device_);
    write_dropout_draws(t, seed, step, first);
    return t;
  }
  // 1 where an element is kept.
  std::vector<double> mask(const Shape& shape, double p, const Tensor& by, uint64_t site = 1, int64_t first = 0, DType dtype = DType::f32) {
    const Tensor y = dropout(ones(*device_, {shape, dtype}), p, by, site, first);
    std::vector<double> kept = y.to_vector();
    for (double& v : kept) v = v != 0;
    return kept;
  }
  Ref<Device> device_ = open_cpu(Mode::real);
};

// Of n elements n p are dropped, but for five standard deviations: exceeded once in two million times, and the keys are fixed.
TEST_F(DropoutMask, DropsItsShareAndScalesTheRest) {
  const double n = 64 * 4096;
  for (const double p : {0.01, 0.1, 0.5, 0.9}) {
    const std::vector<double> y = dropout(ones(*device_, {{64, 4096}, DType::f64}), p, draws(1, 2, 3), 4).to_vector();
    double dropped = 0;
    for (const double v : y) {
      dropped += v == 0;
      ASSERT_TRUE(v == 0 || v == 1 / (1 - p)) << v;
    }
    EXPECT_NEAR(dropped, n * p, 5 * std::sqrt(n * p * (1 - p))) << p;
  }
}

// Two independent masks agree in p^2 + (1 - p)^2 of their elements.
TEST_F(DropoutMask, IsAnotherForEachSeedStepSampleSiteAndElement) {
  const double n = 8192, agree = 0.5, allowed = 5 * std::sqrt(n * agree * (1 - agree));
  const std::vector<double> base = mask({1, 8192}, 0.5, draws(1, 2, 3), 4);
  const auto same = [&](const std::vector<double>& other) {
    double count = 0;
    for (size_t i = 0; i < base.size(); ++i) count += base[i] == other[i];
    return count;
  };
  EXPECT_EQ(same(mask({1, 8192}, 0.5, draws(1, 2, 3), 4)), n);
  EXPECT_NEAR(same(mask({1, 8192}, 0.5, draws(2, 2, 3), 4)), n * agree, allowed) << "seed";
  EXPECT_NEAR(same(mask({1, 8192}, 0.5, draws(1, 3, 3), 4)), n * agree, allowed) << "step";
  EXPECT_NEAR(same(mask({1, 8192}, 0.5, draws(1, 2, 4), 4)), n * agree, allowed) << "sample";
  EXPECT_NEAR(same(mask({1, 8192}, 0.5, draws(1, 2, 3), 5)), n * agree, allowed) << "site";
  EXPECT_NEAR(same(mask({1, 8192}, 0.5, draws(1, 2, 3), 4, 8192)), n * agree, allowed) << "elements behind";
  EXPECT_NE(dropout_site("blocks.0.attn.dropout"), dropout_site("blocks.1.attn.dropout"));
}

TEST_F(DropoutMask, IsThatOfItsSamplesAndElementsHoweverTheyAreCut) {
  const int64_t B = 7, T = 13, C = 101;
  for (const double p : {0.1, 0.5}) {
    const std::vector<double> whole = mask({B, T, C}, p, draws(5, 1, 20));
    for (int64_t b = 0; b < B; ++b) {
      const std::vector<double> one = mask({1, T, C}, p, draws(5, 1, 20 + b));
      EXPECT_TRUE(std::equal(one.begin(), one.end(), whole.begin() + b * T * C)) << "sample " << b;
    }
    for (const int64_t first : {1, 5, 11, 12}) {
      const std::vector<double> rest = mask({B, T - first, C}, p, draws(5, 1, 20), 1, first * C);
      for (int64_t b = 0; b < B; ++b)
        EXPECT_TRUE(
            std::equal(rest.begin() + b * (T - first) * C, rest.begin() + (b + 1) * (T - first) * C, whole.begin() + (b * T + first) * C))
            << "from token " << first;
    }
    for (const DType dtype : {DType::f64, DType::bf16, DType::f16})
      EXPECT_EQ(mask({B, T, C}, p, draws(5, 1, 20), 1, 0, dtype), whole) << name_of(dtype);
  }
}

TEST_F(DropoutMask, IsTheSameAtAnyNumberOfThreads) {
  const int before = thread_count();
  set_thread_count(1);
  const std::vector<double> one = mask({3, 70001}, 0.3, draws(1, 1, 1)), rows = mask({5000, 9}, 0.3, draws(1, 1, 1));
  for (const int threads : {2, 5}) {
    set_thread_count(threads);
    EXPECT_EQ(mask({3, 70001}, 0.3, draws(1, 1, 1)), one);
    EXPECT_EQ(mask({5000, 9}, 0.3, draws(1, 1, 1)), rows);
  }
  set_thread_count(before);
}

// dx is dy under the same mask, recorded or repeated, and no mask lies in memory between.
TEST_F(DropoutMask, IsDrawnAgainInBackward) {
  const Tensor by = draws(3, 4, 5);
  const std::vector<double> kept = mask({4, 1000}, 0.5, by);
  Tensor x = ones(*device_, {{4, 1000}, DType::f32});
  x.set_requires_grad();
  const auto gradient = [&](auto make) {
    x.zero_grad();
    const Tensor y = make();
    backward(y, ones(*device_, y.spec()));
    std::vector<double> dx = x.grad().to_vector();
    for (double& v : dx) v *= 0.5;
    return dx;
  };
  EXPECT_EQ(gradient([&] { return dropout(x, 0.5, by, 1); }), kept);
  EXPECT_EQ(gradient([&] { return checkpoint([&](const Tensors& in) { return dropout(in[0], 0.5, by, 1); }, {x}); }), kept);
  const int64_t live = device_->allocator().ledger().live;
  const Tensor y = dropout(x, 0.5, by, 1);
  EXPECT_EQ(device_->allocator().ledger().live, live + 4 * 1000 * 4) << "the result, and no mask";
  write_dropout_draws(by, 3, 5, 5);
  EXPECT_THROW(backward(y, ones(*device_, y.spec())), Error) << "another step's draws, before backward was done";
}

TEST_F(DropoutMask, TakesTheStorageOfWhatNobodyHolds) {
  Tensor x = ones(*device_, {{100, 100}, DType::f32});
  const void* place = x.raw();
  EXPECT_EQ(dropout(std::move(x), 0.5, draws(1, 1, 1), 1).raw(), place);
}

TEST_F(DropoutMask, RefusesProbabilitiesAndTypes) {
  const Tensor x = ones(*device_, {{4, 4}, DType::f32}), by = draws(1, 1, 1);
  for (const double p : {-0.1, 1.0, 1.5, double(NAN)}) EXPECT_THROW(dropout(x, p, by, 1), Error) << p;
  EXPECT_THROW(dropout(x, 0.5, x, 1), Error);
  EXPECT_THROW(dropout(arange(*device_, 4), 0.5, by, 1), Error);
  EXPECT_THROW(dropout(x, 0.5, by, 1, -1), Error);
}
}  // namespace
}  // namespace reckon
