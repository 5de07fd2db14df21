// Linear layers in float8: gradients against the definition in double, what is noted of sizes and when, and what 8-bit tensors refuse.
#include "reckon/ops/float8.h"

#include <algorithm>
#include <cmath>

#include "reckon/ops/rows.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {

class Float8 : public OnCpu {
 protected:
  Tensor random(const Shape& shape, uint64_t key, DType dtype = DType::bf16, double std = 1) {
    Tensor x = empty(*device_, {shape, dtype});
    fill_normal_(x, key, 0, std);
    return x;
  }
  Tensor vector_of(const std::vector<float>& values) { return from_values<float>(*device_, {int64_t(values.size())}, values); }
  Float8State state(const std::vector<float>& scales = {0, 0, 0}) {
    Float8State s = Float8State::make(*device_, 4);
    s.scales = vector_of(scales);
    return s;
  }
};

// The nearest value of the format, saturated, at a scale.
Values rounded(DType format, const Values& x, double scale) {
  Values y;
  for (const double v : x) {
    const float cut = float(std::clamp(v * scale, -largest_finite(format), largest_finite(format)));
    y.push_back((format == DType::f8e5m2 ? double(float(float8_e5m2(cut))) : double(float(float8_e4m3fn(cut)))) / scale);
  }
  return y;
}
double largest(const Values& x) {
  double most = 0;
  for (const double v : x) most = std::max(most, std::abs(v));
  return most;
}
double fitting(DType format, const Values& x) { return std::exp2(std::floor(std::log2(largest_finite(format) / largest(x)))); }

// c[i, j] = sum over k of a(i, k) b(k, j)
template <class A, class B>
Values product(int64_t m, int64_t n, int64_t depth, A a, B b) {
  Values c(size_t(m * n));
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j)
      for (int64_t k = 0; k < depth; ++k) c[size_t(i * n + j)] += a(i, k) * b(k, j);
  return c;
}

// Sums in float32 whose errors walk randomly, then one rounding to the type of the result.
void expect_near(const Tensor& got, const Values& want, int64_t depth, const char* what) {
  const Values values = got.to_vector();
  ASSERT_EQ(values.size(), want.size()) << what;
  const double sums = 4 * epsilon(DType::f32) * std::sqrt(double(depth)) * largest(want);
  for (size_t i = 0; i < want.size(); ++i)
    ASSERT_NEAR(values[i], want[i], sums + epsilon(got.dtype()) / 2 * std::abs(want[i])) << what << " " << i;
}

TEST_F(Float8, GradientsAreThoseOfTheRoundedTensors) {
  constexpr int64_t M = 33, N = 17, K = 24;
  for (const DType dtype : {DType::bf16, DType::f32})
    for (const bool known : {false, true})
      for (const bool keep_input : {false, true}) {
        Tensor x = random({M, K}, 1, dtype).set_requires_grad(), w = random({N, K}, 2, dtype, 0.2).set_requires_grad(),
               b = random({N}, 3, dtype).set_requires_grad();
        const Tensor dy = random({M, N}, 4, dtype, 1e-4);
        const Float8State s = state(known ? std::vector<float>{32, 512, 0x1p20f} : std::vector<float>{0, 0, 0});
        const Tensor y = linear_fp8(x, w, b, s, keep_input);
        backward(y, dy);
        const Values xs = x.to_vector(), ws = w.to_vector(), bs = b.to_vector(), gs = dy.to_vector();
        const Values xq = rounded(DType::f8e4m3fn, xs, known ? 32 : fitting(DType::f8e4m3fn, xs)),
                     wq = rounded(DType::f8e4m3fn, ws, known ? 512 : fitting(DType::f8e4m3fn, ws)),
                     gq = rounded(DType::f8e5m2, gs, known ? 0x1p20 : fitting(DType::f8e5m2, gs));
        Values want = product(
            M, N, K, [&](int64_t i, int64_t k) { return xq[size_t(i * K + k)]; },
            [&](int64_t k, int64_t j) { return wq[size_t(j * K + k)]; });
        for (size_t i = 0; i < want.size(); ++i) want[i] += bs[i % N];
        expect_near(y, want, K, "y");
        expect_near(x.grad(),
                    product(
                        M, K, N, [&](int64_t i, int64_t k) { return gq[size_t(i * N + k)]; },
                        [&](int64_t k, int64_t j) { return wq[size_t(k * K + j)]; }),
                    N, "dx");
        expect_near(w.grad(),
                    product(
                        N, K, M, [&](int64_t i, int64_t k) { return gq[size_t(k * N + i)]; },
                        [&](int64_t k, int64_t j) { return xq[size_t(k * K + j)]; }),
                    M, "dw");
        expect_near(b.grad(),
                    product(
                        1, N, M, [&](int64_t, int64_t) { return 1.0; }, [&](int64_t k, int64_t j) { return gs[size_t(k * N + j)]; }),
                    M, "db");
        const Values amax = s.amax.to_vector();
        EXPECT_EQ(amax, (Values{largest(xs), largest(ws), largest(gs)}));
      }
}

TEST_F(Float8, ForwardNotesNothingAndBackwardTheLargestOfAll) {
  const Float8State s = state();
  Tensor w = random({5, 8}, 1).set_requires_grad();
  const Tensor small = random({3, 8}, 2), large = random({3, 8}, 3, DType::bf16, 10);
  {
    const NoGrad guard;
    linear_fp8(large, w, {}, s);
  }
  const Tensor y = linear_fp8(small, w, {}, s);
  EXPECT_EQ(s.amax.to_vector(), Values(3)) << "a segment that runs again has no side effect";
  backward(y, random(y.shape(), 4));
  const Values first = s.amax.to_vector();
  EXPECT_EQ(first[0], largest(small.to_vector()));
  const Tensor z = linear_fp8(large, w, {}, s);
  backward(z, random(z.shape(), 5, DType::bf16, 1e-3));
  EXPECT_EQ(s.amax.to_vector(), (Values{largest(large.to_vector()), first[1], first[2]})) << "the largest of two micro-batches";
  EXPECT_EQ(s.scales.to_vector(), Values(3));
  EXPECT_EQ(s.history.to_vector(), Values(12));
}

TEST_F(Float8, WhatIsComputedAgainHasTheSameBits) {
  const auto run = [&](int how, const std::vector<float>& scales) {
    Tensor x = random({40, 16}, 1).set_requires_grad(), w = random({24, 16}, 2).set_requires_grad(),
           norm = random({16}, 3).set_requires_grad();
    const Float8State s = state(scales);
    const auto segment = [&](const Tensors& in) {
      Tensor h;
      {
        const Recomputed again(how == 1);
        h = rms_norm(in[0], norm);
      }
      return linear_fp8(h, w, {}, s, how == 1 || how == 3);
    };
    const Tensor y = how == 2 ? checkpoint(segment, tensors(x)) : segment(tensors(x));
    backward(y, random(y.shape(), 9, DType::bf16, 1e-3));
    return std::vector<Values>{y.to_vector(), x.grad().to_vector(), w.grad().to_vector(), norm.grad().to_vector(), s.amax.to_vector()};
  };
  for (const std::vector<float>& scales : {std::vector<float>{0, 0, 0}, std::vector<float>{64, 64, 4096}})
    for (const int how : {1, 2, 3}) EXPECT_EQ(run(how, scales), run(0, scales)) << how;
}

TEST_F(Float8, KeepsAByteAnElement) {
  Tensor w = random({8, 64}, 1).set_requires_grad();
  const Float8State s = state();
  const int64_t before = live();
  const Tensor y = linear_fp8(random({32, 64}, 2), w, {}, s);
  EXPECT_EQ(live() - before, 32 * 64 + y.spec().bytes() + 64) << "codes, the result and a few statistics";
}

TEST_F(Float8, InfinitiesAndNansAreSeenBehindTheProducts) {
  for (const double odd : {double(INFINITY), double(NAN)})
    for (const int where : {0, 1, 2}) {
      const auto poked = [&](const Shape& shape, uint64_t key, bool here) {
        Values v = random(shape, key).to_vector();
        if (here) v[3] = odd;
        return cast(tensor(shape, v), DType::bf16);
      };
      Tensor x = poked({4, 8}, 1, where == 0).set_requires_grad(), w = poked({6, 8}, 2, where == 1).set_requires_grad();
      const Float8State s = state({1, 1, 1});
      const Tensor y = linear_fp8(x, w, {}, s);
      backward(y, poked({4, 6}, 3, where == 2));
      const auto is_finite = [](const Tensor& t) {
        const Values v = t.to_vector();
        return std::all_of(v.begin(), v.end(), [](double a) { return std::isfinite(a); });
      };
      EXPECT_FALSE(is_finite(where == 2 ? x.grad() : y));
      EXPECT_FALSE(is_finite(s.amax));
      const std::vector<double> scalars(kStepScalars, 1);  // a step that counts nevertheless, as with frozen weights
      step_fp8_scales_(from_values<double>(*device_, {kStepScalars}, scalars), s);
      EXPECT_TRUE(is_finite(s.history)) << "history is not poisoned";
      EXPECT_TRUE(is_finite(s.scales));
      EXPECT_EQ(s.amax.to_vector(), Values(3));
    }
}

TEST_F(Float8, GivesNoGradientNobodyWants) {
  Tensor x = random({4, 8}, 1), w = random({6, 8}, 2).set_requires_grad();
  Meter meter;
  {
    const MeterScope scope(meter);
    const Tensor y = linear_fp8(x, w, {}, state());
    backward(y, random(y.shape(), 3));
  }
  EXPECT_EQ(meter.total().model, 2 * (2 * 4 * 6 * 8));
  EXPECT_FALSE(x.grad().defined());
}

TEST_F(Float8, RefusesWhatItDoesNotTake) {
  const Float8State s = state();
  const auto f = [&](const Shape& shape, DType dtype) { return ones(*device_, {shape, dtype}); };
  EXPECT_THAT(error_of([&] {
                linear_fp8(f({2, 3}, DType::f64), f({4, 3}, DType::f64), {}, s);
              }),
              HasSubstr("x must be f32 or bf16, got f64[2, 3]"));
  EXPECT_THAT(error_of([&] { linear_fp8(f({2, 3}, DType::f32), f({4, 3}, DType::bf16), {}, s); }), HasSubstr("differ in dtype"));
  EXPECT_THAT(error_of([&] { linear_fp8(f({2, 3}, DType::f32), f({4, 2}, DType::f32), {}, s); }), HasSubstr("inner sizes differ"));
  EXPECT_THAT(error_of([&] { linear_fp8(f({2, 3}, DType::f32), f({4, 3}, DType::f32), f({3}, DType::f32), s); }), HasSubstr("bias"));
  EXPECT_THAT(error_of([&] { quantize_fp8(f({2}, DType::f32), DType::f16, f({1}, DType::f32)); }),
              HasSubstr("must be f8e4m3fn or f8e5m2, got f16"));
  EXPECT_THAT(error_of([&] { Float8State::make(*device_, 0); }), HasSubstr("at least 1"));
  Tensor x = random({2, 3}, 1).set_requires_grad(), w = random({4, 3}, 2).set_requires_grad();
  const Tensor y = linear_fp8(x, w, {}, s);
  EXPECT_THAT(error_of([&] {
                grad(y, {x, w}, random(y.shape(), 3).set_requires_grad(), {.create_graph = true});
              }),
              HasSubstr("quantize_fp8: has no gradient rule"));
}

TEST_F(Float8, NothingIsComputedInIt) {
  for (const DType dtype : {DType::f8e4m3fn, DType::f8e5m2}) {
    const Tensor x = full(*device_, {{2, 3}, dtype}, 1.5), y = transpose(x);
    EXPECT_EQ(to_string(x), std::string(name_of(dtype)) + "[2, 3]");
    EXPECT_EQ(contiguous(y).to_vector(), Values(6, 1.5));
    EXPECT_EQ(cast(slice(y, 0, 1, 3), DType::f64).to_vector(), Values(4, 1.5));
    const std::string way_out =
        std::string(name_of(dtype)) + " is for storage, and nothing is computed in it: cast it to bf16 or f32 first";
    EXPECT_THAT(error_of([&] { add(x, x); }), HasSubstr("add: " + way_out));
    EXPECT_THAT(error_of([&] { matmul(x, y); }), HasSubstr("matmul: " + way_out));
    EXPECT_THAT(error_of([&] { sum(x); }), HasSubstr(way_out));
    EXPECT_THAT(error_of([&] { where(x, x, x); }), HasSubstr(way_out));
    EXPECT_THAT(error_of([&] { fill_uniform_(x, 1); }), HasSubstr(way_out));
    EXPECT_THAT(error_of([&] { arange(*device_, 3, dtype); }), HasSubstr("make the values in f32 and cast them"));
    EXPECT_NE(error_of([&] { Tensor(x).set_requires_grad(); }), "");
    EXPECT_FALSE(cast(leaf({2}, {1, 2}), dtype).requires_grad());
  }
}
}  // namespace
}  // namespace reckon
