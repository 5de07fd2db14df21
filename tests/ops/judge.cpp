// The judge itself: it must refuse an operation whose value, gradient, trace or threading is wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/parallel.h"
#include "reckon/cli/op_cases_judge.h"
#include "reckon/engine/node.h"

namespace reckon {
namespace {
using testing::HasSubstr;

class Judge : public testing::Test {
 protected:
  template <class Run, class Reference>
  OpCase one(CaseInputs inputs, Run run, Reference reference) {
    std::vector<OpCase> cases;
    CaseList(cases).op("stand_in").add(std::move(inputs), run, reference);
    return cases[0];
  }
  DevicePair devices_{open_cpu(Mode::real), open_cpu(Mode::meta)};
  Device& real_ = *devices_.real;
};
const auto kSame = [](const Arrays& x) { return x[0]; };

TEST_F(Judge, AcceptsWhatIsRight) {
  const OpCase c = one(
      {CaseInput(Shape{3, 40}, Lay::transposed)}, [](const Tensors& x) { return mul(x[0], exp(x[0])); },
      [](const Arrays& x) { return map(x[0], [](const Real& r) { return r * exp(r); }); });
  for (const DType dtype : {DType::f64, DType::f32}) {
    EXPECT_EQ(judge_meta(c, devices_, dtype), "");
  }
  for (const DType dtype : {DType::f64, DType::f32}) {
    EXPECT_EQ(judge_values(c, real_, dtype), "");
    EXPECT_EQ(judge_narrow_gradients(c, real_, dtype), "");
  }
  EXPECT_EQ(judge_gradients(c, real_), "");
  EXPECT_EQ(judge_second_order(c, real_), "");
  EXPECT_EQ(judge_slots(c, real_), "");
}

TEST_F(Judge, RefusesAWrongValueShapeOrNaN) {
  const CaseInput x(Shape{50});
  const auto times = [](double factor) { return [=](const Tensors& t) { return affine(t[0], factor); }; };
  EXPECT_EQ(judge_values(one({x}, times(1), kSame), real_, DType::f64), "");
  EXPECT_THAT(judge_values(one({x}, times(1 + 1e-14), kSame), real_, DType::f64), HasSubstr("the reference says"));
  EXPECT_THAT(judge_values(one({x}, times(1 + 1e-6), kSame), real_, DType::f32), HasSubstr("the reference says"));
  EXPECT_THAT(judge_values(one({x}, times(1 + 1e-2), kSame), real_, DType::bf16), HasSubstr("the reference says"));
  EXPECT_THAT(judge_values(one({x}, times(NAN), kSame), real_, DType::f64), HasSubstr("nan"));
  EXPECT_THAT(judge_values(one(
                               {x},
                               [](const Tensors& t) {
                                 return reshape(t[0], {5, 10});
                               },
                               kSame),
                           real_, DType::f64),
              HasSubstr("f64[5, 10]"));
}

// y = 2 x, with a rule that says the gradient is `factor`.
void plan_double(Plan& p) { p.output(p.in[0]); }
void run_double(const KernelArgs& k) {
  for (int64_t i = 0; i < k.in[0].numel(); ++i) k.out[0].data<double>()[i] = 2 * k.in[0].data<double>()[i];
}
template <int kPercent>
const OpDef kDouble{
    -1, "double", plan_double, [](Vjp& v) -> Tensors { return {affine(v.dy[0], 0.02 * kPercent)}; }, {}, {.own_kernel = run_double}};
template <int kPercent>
Tensors run_with_rule(const Tensors& x) {
  return call(kDouble<kPercent>, {contiguous(x[0])});
}
const auto kTwice = [](const Arrays& x) { return map(x[0], [](const Real& r) { return r + r; }); };

TEST_F(Judge, RefusesAWrongGradient) {
  for (const Shape& shape : {Shape{}, Shape{5}, Shape{30, 40}}) {
    EXPECT_EQ(judge_gradients(one({CaseInput(shape)}, run_with_rule<100>, kTwice), real_), "");
    EXPECT_THAT(judge_gradients(one({CaseInput(shape)}, run_with_rule<101>, kTwice), real_), HasSubstr("by differences"));
  }
}

TEST_F(Judge, RefusesOneWrongElementOfALargeGradient) {
  static const OpDef wrong{-1,
                           "double",
                           plan_double,
                           [](Vjp& v) -> Tensors {
                             const Tensor dx = affine(v.dy[0], 2);
                             dx.data<double>()[777] += 0.1;
                             return {dx};
                           },
                           {},
                           {.own_kernel = run_double}};
  EXPECT_THAT(judge_gradients(one(
                                  {CaseInput(Shape{2000})}, [](const Tensors& x) { return call(wrong, x); }, kTwice),
                              real_),
              HasSubstr("along a direction"));
}

TEST_F(Judge, RefusesAMissingGradient) {
  EXPECT_THAT(judge_gradients(one(
                                  {CaseInput(Shape{5}), CaseInput(Shape{5})}, [](const Tensors& x) { return add(x[0], x[1].detached()); },
                                  [](const Arrays& x) { return map(x[0], x[1], [](const Real& a, const Real& b) { return a + b; }); }),
                              real_),
              HasSubstr("got no gradient"));
}

TEST_F(Judge, RefusesAWrongSecondDerivative) {
  // A product whose rule treats the other factor as a constant.
  static const OpDef wrong{-1,
                           "product",
                           plan_double,
                           [](Vjp& v) -> Tensors { return {mul(v.dy[0], affine(v.in(0), 2).detached())}; },
                           {.in = 1},
                           {.own_kernel = [](const KernelArgs& k) {
                             for (int64_t i = 0; i < k.in[0].numel(); ++i)
                               k.out[0].data<double>()[i] = k.in[0].data<double>()[i] * k.in[0].data<double>()[i];
                           }}};
  const OpCase c = one(
      {CaseInput(Shape{4})}, [](const Tensors& x) { return call(wrong, x); }, kTwice);
  EXPECT_EQ(judge_gradients(c, real_), "");
  EXPECT_THAT(judge_second_order(c, real_), HasSubstr("second derivative"));
}

TEST_F(Judge, RefusesAnotherTraceOnMeta) {
  const OpCase branches = one(
      {CaseInput(Shape{5})}, [](const Tensors& x) { return x[0].device().is_meta() ? x[0] : affine(x[0], 1); }, kSame);
  EXPECT_THAT(judge_meta(branches, devices_, DType::f32), HasSubstr("real and meta differ"));
}

TEST_F(Judge, NoticesOtherBitsAndAGradientThatAddsUpWrongly) {
  const OpCase c = one(
      {CaseInput(Shape{5})}, [](const Tensors& x) { return affine(x[0], thread_count() == 1 ? 1 : 2); }, kSame);
  const int before = thread_count();
  set_thread_count(1);
  const uint64_t one_thread = bits_of(c, real_, DType::f32);
  EXPECT_EQ(bits_of(c, real_, DType::f32), one_thread);
  set_thread_count(2);
  EXPECT_NE(bits_of(c, real_, DType::f32), one_thread);
  set_thread_count(before);
  // A rule that writes the slot and forgets what was in it.
  static const OpDef forgetful{-1,
                               "forgetful",
                               plan_double,
                               [](Vjp& v) -> Tensors {
                                 if (!v.slot(0).defined()) return {affine(v.dy[0], 2)};
                                 call(op::accumulate, {v.slot(0), affine(v.dy[0], 2)}, AccumulateParams{false});
                                 v.filled(0);
                                 return {Tensor()};
                               },
                               {},
                               {.own_kernel = run_double}};
  EXPECT_THAT(judge_slots(one(
                              {CaseInput(Shape{5})}, [](const Tensors& x) { return call(forgetful, x); }, kTwice),
                          real_),
              HasSubstr("after 2 passes"));
}
}  // namespace
}  // namespace reckon
