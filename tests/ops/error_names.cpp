// Errors name the operation that was called, not one that it is made of, and say what, where and which there are.
#include <cmath>
#include <functional>

#include "reckon/ops/axes.h"
#include "reckon/ops/indexing.h"
#include "reckon/ops/joining.h"
#include "reckon/ops/reductions.h"
#include "reckon/ops/scan.h"
#include "reckon/ops/sorting.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {

class ErrorNames : public OnCpu {
 protected:
  Tensor f(const Shape& s, DType dtype = DType::f32) { return ones(*device_, {s, dtype}); }
};
using Named = std::pair<const char*, std::function<void(const Tensor& x, int axis)>>;

TEST_F(ErrorNames, OfAnAxisThatIsNotThere) {
  const int64_t sizes[] = {1, 1};
  const auto index_of = [](const Tensor& x) { return zeros(x.device(), {x.shape(), DType::i64}); };
  const auto row_of = [](const Tensor& x) { return zeros(x.device(), {{1}, DType::i64}); };
  const Named operations[] = {
      {"sum", [](const Tensor& x, int a) { sum(x, {a}); }},
      {"mean", [](const Tensor& x, int a) { mean(x, {a}); }},
      {"max", [](const Tensor& x, int a) { max(x, {a}); }},
      {"min", [](const Tensor& x, int a) { min(x, {a}); }},
      {"min", [](const Tensor& x, int a) { min(cast(x, DType::i32), {a}); }},
      {"prod", [](const Tensor& x, int a) { prod(x, {a}); }},
      {"any", [](const Tensor& x, int a) { any(cast(x, DType::boolean), {a}); }},
      {"all", [](const Tensor& x, int a) { all(cast(x, DType::boolean), {a}); }},
      {"variance", [](const Tensor& x, int a) { variance(x, {a}); }},
      {"norm", [](const Tensor& x, int a) { norm(x, 1, {a}); }},
      {"norm", [](const Tensor& x, int a) { norm(x, INFINITY, {a}); }},
      {"logsumexp", [](const Tensor& x, int a) { logsumexp(x, {a}); }},
      {"softmax", [](const Tensor& x, int a) { softmax(x, a); }},
      {"log_softmax", [](const Tensor& x, int a) { log_softmax(x, a); }},
      {"cumsum", [](const Tensor& x, int a) { cumsum(x, a); }},
      {"cumprod", [](const Tensor& x, int a) { cumprod(x, a); }},
      {"sort", [](const Tensor& x, int a) { sort(x, a); }},
      {"argsort", [](const Tensor& x, int a) { argsort(x, a); }},
      {"top_k", [](const Tensor& x, int a) { top_k(x, 1, a); }},
      {"argmax", [](const Tensor& x, int a) { argmax(x, a); }},
      {"argmin", [](const Tensor& x, int a) { argmin(x, a); }},
      {"permute",
       [](const Tensor& x, int a) {
         permute(x, {0, a});
       }},
      {"transpose", [](const Tensor& x, int a) { transpose(x, 0, a); }},
      {"diagonal", [](const Tensor& x, int a) { diagonal(x, 0, a); }},
      {"slice", [](const Tensor& x, int a) { slice(x, a, 0, 1); }},
      {"select", [](const Tensor& x, int a) { select(x, a, 0); }},
      {"squeeze", [](const Tensor& x, int a) { squeeze(x, a); }},
      {"concatenate",
       [](const Tensor& x, int a) {
         concatenate({x, x}, a);
       }},
      {"split", [&](const Tensor& x, int a) { split(x, sizes, a); }},
      {"split", [](const Tensor& x, int a) { split(x, 1, a); }},
      {"chunk", [](const Tensor& x, int a) { chunk(x, 2, a); }},
      {"flip", [](const Tensor& x, int a) { flip(x, {a}); }},
      {"roll", [](const Tensor& x, int a) { roll(x, 1, a); }},
      {"repeat_interleave", [](const Tensor& x, int a) { repeat_interleave(x, 2, a); }},
      {"gather", [&](const Tensor& x, int a) { gather(x, a, index_of(x)); }},
      {"take_along_axis", [&](const Tensor& x, int a) { take_along_axis(x, index_of(x), a); }},
      {"index_select", [&](const Tensor& x, int a) { index_select(x, a, row_of(x)); }},
      {"scatter", [&](const Tensor& x, int a) { scatter(x, a, index_of(x), x); }},
      {"scatter_add", [&](const Tensor& x, int a) { scatter_add(x, a, index_of(x), x); }},
      {"index_add", [&](const Tensor& x, int a) { index_add(x, a, row_of(x), x); }},
  };
  for (const auto& [name, run] : operations)
    for (const int axis : {2, -3})
      EXPECT_EQ(error_of([&] {
                  run(f({2, 3}), axis);
                }),
                text("{}: axis {} is out of range for shape [2, 3], whose axes are 0 to 1, or -2 to -1 from the end", name, axis));
  const Named fresh[] = {{"unsqueeze", [](const Tensor& x, int a) { unsqueeze(x, a); }}, {"stack", [](const Tensor& x, int a) {
                                                                                            stack({x, x}, a);
                                                                                          }}};
  for (const auto& [name, run] : fresh)
    for (const int axis : {3, -4}) {
      EXPECT_THAT(error_of([&] { run(f({2, 3}), axis); }), HasSubstr(text("{}: axis {} is out of range", name, axis)));
      EXPECT_THAT(error_of([&] { run(f({2, 3}), axis); }), HasSubstr("is one of 0 to 2, or -3 to -1 from the end"));
    }
  EXPECT_EQ(error_of([&] { sum(f({}), {0}); }), "sum: a scalar has no axis 0");
  EXPECT_EQ(live(), 0);
}

TEST_F(ErrorNames, OfAnAxisThatIsNamedTwice) {
  const Tensor x = f({2, 3});
  const Named operations[] = {{"sum",
                               [](const Tensor& t, int a) {
                                 sum(t, {0, a});
                               }},
                              {"mean",
                               [](const Tensor& t, int a) {
                                 mean(t, {0, a});
                               }},
                              {"max",
                               [](const Tensor& t, int a) {
                                 max(t, {0, a});
                               }},
                              {"variance", [](const Tensor& t, int a) {
                                 variance(t, {0, a});
                               }}};
  for (const auto& [name, run] : operations)
    for (const int again : {0, -2}) {
      const std::string error = error_of([&] { run(x, again); });
      EXPECT_EQ(error, text("{}: axis {} of shape [2, 3] is named twice", name, again));
    }
}

TEST_F(ErrorNames, OfShapesThatDoNotBroadcast) {
  const Tensor x = f({2, 3});
  EXPECT_EQ(error_of([&] { masked_fill(x, f({4}, DType::boolean), 0); }), "masked_fill: mask [4] does not broadcast to x [2, 3]");
  EXPECT_EQ(error_of([&] {
              masked_fill(x, f({2, 2, 3}, DType::boolean), 0);
            }),
            "masked_fill: mask [2, 2, 3] does not broadcast to x [2, 3]");
  EXPECT_EQ(error_of([&] {
              take_along_axis(x, zeros(*device_, {{2, 2}, DType::i64}), 0);
            }),
            "take_along_axis: x [2, 3] and index [2, 2] do not broadcast along axis 1, beside axis 0");
}

TEST_F(ErrorNames, OfAnEmptyAxis) {
  const Tensor x = f({2, 0}), whole = cast(x, DType::i64);
  const std::pair<std::string, std::function<void()>> operations[] = {
      {"max: the maximum", [&] { max(x, {1}); }},
      {"min: the minimum", [&] { min(x, {1}); }},
      {"min: the minimum", [&] { min(whole, {1}); }},
      {"min: the minimum", [&] { min(whole); }},
      {"mean: the mean", [&] { mean(x, {1}); }},
      {"norm: the largest element", [&] { norm(x, INFINITY, {1}); }},
      {"logsumexp: the logarithm of a sum", [&] { logsumexp(x, {1}); }},
  };
  for (const auto& [what, run] : operations) EXPECT_THAT(error_of(run), HasSubstr(what + " over an empty axis of [2, 0] is undefined"));
  EXPECT_EQ(error_of([&] { variance(x, {1}); }), "variance: 0 elements of [2, 0] are too few for a correction of 1");
  // Nothing is asked for where the result is empty, too.
  for (const Tensor& t : {x, whole}) {
    EXPECT_EQ(min(t, {0}).spec(), (TensorSpec{{0}, t.dtype()}));
    EXPECT_EQ(min(t, {0}, true).spec(), (TensorSpec{{1, 0}, t.dtype()}));
    EXPECT_EQ(max(t, {0}).shape(), Shape{0});
  }
  EXPECT_EQ(min(zeros(*device_, {{0, 0}, DType::i32}), {1}).shape(), Shape{0});
}

TEST_F(ErrorNames, OfADtypeThatIsNotTaken) {
  const Tensor whole = f({2}, DType::i32), stored = f({2}, DType::f8e5m2);
  EXPECT_EQ(error_of([&] { mean(whole); }), "mean: i32[2] has no room for a mean of whole numbers; cast it to a float first");
  EXPECT_EQ(error_of([&] { variance(whole); }), "variance: i32[2] has no room for a variance of whole numbers; cast it to a float first");
  const Named operations[] = {
      {"mean", [](const Tensor& x, int) { mean(x); }},         {"min", [](const Tensor& x, int) { min(x); }},
      {"max", [](const Tensor& x, int) { max(x); }},           {"sum", [](const Tensor& x, int) { sum(x); }},
      {"prod", [](const Tensor& x, int) { prod(x); }},         {"norm", [](const Tensor& x, int) { norm(x); }},
      {"variance", [](const Tensor& x, int) { variance(x); }}, {"logsumexp", [](const Tensor& x, int) { logsumexp(x); }}};
  for (const auto& [name, run] : operations) {
    const std::string message = error_of([&] { run(stored, 0); });
    EXPECT_EQ(message.find(std::string(name) + ": "), 0u) << message;
    EXPECT_THAT(message, HasSubstr("f8e5m2"));
    EXPECT_THAT(message, HasSubstr("is for storage, and nothing is computed in it: cast it to bf16 or f32 first"));
  }
}
}  // namespace
}  // namespace reckon
