// Sorting against the standard library, at the edges of types; selection; running sums; special values of the functions.
#include "reckon/ops/sorting.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "reckon/ops/indexing.h"
#include "reckon/ops/reductions.h"
#include "reckon/ops/scan.h"
#include "reckon/ops/unary.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {
constexpr double kInf = std::numeric_limits<double>::infinity(), kNaN = std::numeric_limits<double>::quiet_NaN();

class Sorting : public OnCpu {};

TEST_F(Sorting, IsStdStableSort) {
  Values values;
  for (int i = 0; i < 3000; ++i) values.push_back(double((i * 7919) % 97) - 48);  // many equal ones
  values[5] = kInf, values[6] = -kInf, values[7] = -0.0, values[8] = 0.0;
  const Tensor x = tensor({3000}, values);
  for (const bool descending : {false, true}) {
    std::vector<int64_t> order(values.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return descending ? values[size_t(a)] > values[size_t(b)] : values[size_t(a)] < values[size_t(b)];
    });
    const ValuesAndIndices got = sort(x, 0, descending);
    const Values at = got.indices.to_vector();
    for (size_t i = 0; i < order.size(); ++i) ASSERT_EQ(int64_t(at[i]), order[i]) << i;
    EXPECT_EQ(got.values.to_vector(), gather(x, 0, argsort(x, 0, descending)).to_vector());
    const ValuesAndIndices some = top_k(x, 700, 0, descending);
    const Values first = some.indices.to_vector();
    for (size_t i = 0; i < 700; ++i) ASSERT_EQ(int64_t(first[i]), order[i]) << i;
  }
}

// What the documents say of scratch is what is booked: none for up to 32 elements of a line, however long that is.
TEST_F(Sorting, FewElementsTakeNoScratch) {
  const auto temporary = [&](int64_t k) {
    const Ref<Device> meta = open_cpu(Mode::meta);
    const Tensor x = zeros(*meta, {{50257}, DType::f32});
    const int64_t before = meta->allocator().ledger().live;
    const ValuesAndIndices some = top_k(x, k);
    return meta->allocator().ledger().peak - before - round_block(some.values.spec().bytes()) - round_block(some.indices.spec().bytes());
  };
  EXPECT_EQ(temporary(1), 0);
  EXPECT_EQ(temporary(32), 0);
  EXPECT_GT(temporary(33), 0);
}

TEST_F(Sorting, NaNIsLargestAndTheExtremeOfBoth) {
  const Tensor x = tensor({5}, {1, kNaN, kInf, kNaN, -kInf});
  EXPECT_THAT(sort(x).indices.to_vector(), ElementsAre(4, 0, 2, 1, 3));
  EXPECT_THAT(sort(x, 0, true).indices.to_vector(), ElementsAre(1, 3, 2, 0, 4));
  EXPECT_THAT(top_k(x, 2, 0, false).indices.to_vector(), ElementsAre(4, 0));
  EXPECT_EQ(argmax(x, 0).item(), 1);
  EXPECT_EQ(argmin(x, 0).item(), 1);
}

TEST_F(Sorting, IntegersBeyondTheDoublesAreSortedExactly) {
  const std::vector<int64_t> values{INT64_MAX, INT64_MAX - 1, INT64_MIN, INT64_MIN + 1, 0, (int64_t(1) << 53) + 1, int64_t(1) << 53};
  const Tensor x = from_values<int64_t>(*device_, {7}, values);
  EXPECT_THAT(argsort(x).to_vector(), ElementsAre(2, 3, 4, 6, 5, 1, 0));
  EXPECT_EQ(sort(x, -1, true).values.data<int64_t>()[1], INT64_MAX - 1);
}

TEST_F(Sorting, RefusesWhatItCannotOrder) {
  const Tensor x = ones(*device_, {{2, 3}, DType::f32});
  EXPECT_THAT(error_of([&] { top_k(x, 4); }), HasSubstr("k must be in [1, 3], the extent of axis 1 of [2, 3], got 4"));
  EXPECT_THAT(error_of([&] { top_k(x, 0); }), HasSubstr("k must be in [1, 3]"));
  EXPECT_THAT(error_of([&] { sort(x, 2); }), HasSubstr("sort: axis 2 is out of range for shape [2, 3]"));
  EXPECT_THAT(error_of([&] { sort(scalar(1)); }), HasSubstr("sort: a scalar has no axis"));
  EXPECT_THAT(error_of([&] { argmax(ones(*device_, {{2, 0}, DType::f32}), 1); }), HasSubstr("axis 1 of [2, 0] is empty"));
  EXPECT_THAT(error_of([&] { cumsum(cast(x, DType::f8e5m2), 0); }), HasSubstr("f8e5m2 is for storage"));
  EXPECT_THAT(error_of([&] { clamp(x, 2, 1); }), HasSubstr("the lower bound 2 is above the upper bound 1"));
  EXPECT_THAT(error_of([&] { sign(ones(*device_, {{2}, DType::boolean})); }), HasSubstr("sign: wants a floating-point tensor, got bool"));
  EXPECT_THAT(error_of([&] { variance(x, {0}, 2); }), HasSubstr("2 elements of [2, 3] are too few for a correction of 2"));
  EXPECT_THAT(error_of([&] { logical_and(x, x); }), HasSubstr("wants bool, got f32[2, 3] and f32[2, 3]"));
  EXPECT_THAT(error_of([&] {
                min(ones(*device_, {{0}, DType::f32}));
              }),
              HasSubstr("min: the minimum over an empty axis of [0] is undefined"));
}

// A sum that does not stop growing where float32 and bfloat16 sums do.
TEST_F(Sorting, RunningSumsAreKeptInDouble) {
  const int64_t n = 40000;
  EXPECT_EQ(index(cumsum(ones(*device_, {{n}, DType::bf16}), 0), {-1}).item(), 39936);  // 40000, rounded once
  const Tensor small = full(*device_, {{n}, DType::f32}, 0.1);
  const double exact = double(0.1f) * double(n);
  EXPECT_NEAR(index(cumsum(small, 0), {-1}).item(), exact, exact * 0x1p-24);
  const Tensor x = from_values<int32_t>(*device_, {2}, std::vector<int32_t>{INT32_MAX, 1});
  EXPECT_THAT(cumsum(x, 0).to_vector(), ElementsAre(INT32_MAX, 2147483648.0));  // i64
}

TEST_F(Sorting, ExtremesOfWholeNumbersAreExact) {
  const std::vector<int64_t> values{INT64_MIN, 7, INT64_MAX, -1};
  const Tensor x = from_values<int64_t>(*device_, {2, 2}, values);
  EXPECT_EQ(min(x).data<int64_t>()[0], INT64_MIN);
  EXPECT_EQ(min(x, {0}, true).data<int64_t>()[1], -1);
  EXPECT_EQ(prod(from_values<int32_t>(*device_, {3}, std::vector<int32_t>{1 << 20, 1 << 20, 3})).item(), 3.0 * double(int64_t(1) << 40));
  EXPECT_THAT(isinf(x).to_vector(), ElementsAre(0, 0, 0, 0));
}

// Around a mean that 8 bits cannot hold beside the differences.
TEST_F(Sorting, ReductionsOfHalvesAreTakenInFloat32) {
  Values values;
  for (int i = 0; i < 100; ++i) values.push_back(200 + i % 2);
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const Tensor x = cast(tensor({100}, values), dtype);
    EXPECT_EQ(variance(x, {}, 0).item(), 0.25);
    EXPECT_EQ(norm(full(*device_, {{10000}, dtype}, 4)).item(), 400);  // in float16 the sum of squares would be infinite
    EXPECT_EQ(logsumexp(full(*device_, {{4096}, dtype}, 0)).item(), cast(scalar(std::log(4096.0)), dtype).item());
  }
}

TEST_F(Sorting, FunctionsAtTheEdgesOfTheirDomains) {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f16}) {
    SCOPED_TRACE(name_of(dtype));
    const Tensor x = cast(tensor({6}, {0, kInf, -kInf, kNaN, -1, 30000}), dtype);
    EXPECT_EQ(erf(x).to_vector()[1], 1);
    EXPECT_EQ(erf(x).to_vector()[2], -1);
    EXPECT_EQ(floor(x).to_vector()[1], kInf);
    EXPECT_EQ(sign(x).to_vector()[2], -1);
    EXPECT_EQ(sign(x).to_vector()[0], 0);
    EXPECT_EQ(log1p(x).to_vector()[0], 0);
    EXPECT_EQ(log1p(x).to_vector()[1], kInf);
    EXPECT_TRUE(std::isnan(log1p(x).to_vector()[2]));
    EXPECT_EQ(log1p(x).to_vector()[4], -kInf);
    EXPECT_EQ(expm1(x).to_vector()[0], 0);
    EXPECT_EQ(expm1(x).to_vector()[1], kInf);
    EXPECT_EQ(expm1(x).to_vector()[2], -1);
    EXPECT_EQ(expm1(x).to_vector()[5], kInf);
    EXPECT_EQ(softplus(x).to_vector()[1], kInf);
    EXPECT_EQ(softplus(x).to_vector()[2], 0);
    for (const auto f : {sin, cos, erf, floor, ceil, round, sign, log1p, expm1, gelu_erf}) EXPECT_TRUE(std::isnan(f(x).to_vector()[3]));
    EXPECT_TRUE(std::isnan(softplus(x).to_vector()[3]));
    EXPECT_TRUE(std::isnan(clamp(x, 0, 1).to_vector()[3]));
    for (const auto f : {sin, cos}) EXPECT_TRUE(std::isnan(f(x).to_vector()[1]));
  }
}
}  // namespace
}  // namespace reckon
