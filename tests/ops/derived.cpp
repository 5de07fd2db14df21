// The tests of every operation in the table of cases: one test an operation and a property.
#include <gtest/gtest.h>

#include <algorithm>

#include "reckon/backend/cpu/device.h"
#include "reckon/base/parallel.h"
#include "reckon/cli/op_cases_judge.h"

namespace reckon {
namespace {
constexpr DType kFloats[] = {DType::f64, DType::f32, DType::bf16, DType::f16};

class EveryOp : public testing::TestWithParam<std::string> {
 protected:
  // One thread, but where threads are the subject: most cases are too small to be worth waking another.
  void SetUp() override { set_thread_count(1); }
  void TearDown() override { set_thread_count(threads_before_); }

  // Runs judge(case) on each case of this operation; the first five failures are shown.
  template <class Judge>
  void each(Judge judge) {
    int failures = 0;
    for (const OpCase& c : op_cases())
      if (c.op == GetParam() && failures < 5)
        if (const std::string wrong = judge(c); !wrong.empty()) {
          ADD_FAILURE() << wrong;
          ++failures;
        }
  }
  template <class Judge>
  void each_with_dtypes(Judge judge) {
    each([&](const OpCase& c) -> std::string {
      for (const DType dtype : kFloats) {
        if (!c.runs_with(dtype)) continue;
        if (std::string wrong = judge(c, dtype); !wrong.empty()) return wrong;
      }
      return {};
    });
  }
  Ref<Device> device_ = open_cpu(Mode::real);
  const int threads_before_ = thread_count();
};

TEST_P(EveryOp, HasTwentyCases) {
  EXPECT_GE(std::count_if(op_cases().begin(), op_cases().end(), [](const OpCase& c) { return c.op == GetParam(); }), 20);
}

TEST_P(EveryOp, GivesTheReferenceValues) {
  each_with_dtypes([&](const OpCase& c, DType dtype) { return judge_values(c, *device_, dtype); });
}

TEST_P(EveryOp, HasTheGradientsOfFiniteDifferences) {
  each([&](const OpCase& c) { return judge_gradients(c, *device_); });
}

TEST_P(EveryOp, HasTheSameGradientsInNarrowTypes) {
  each_with_dtypes([&](const OpCase& c, DType dtype) { return judge_narrow_gradients(c, *device_, dtype); });
}

TEST_P(EveryOp, HasSecondDerivativesOrRefusesThem) {
  each([&](const OpCase& c) { return judge_second_order(c, *device_); });
}

TEST_P(EveryOp, AccumulatesIntoSlots) {
  each([&](const OpCase& c) { return judge_slots(c, *device_); });
}

TEST_P(EveryOp, LeavesTheSameTraceOnMeta) {
  const DevicePair devices{device_, open_cpu(Mode::meta)};
  each_with_dtypes([&](const OpCase& c, DType dtype) { return judge_meta(c, devices, dtype); });
  EXPECT_EQ(device_->allocator().ledger().live, 0);
}

TEST_P(EveryOp, GivesTheSameBitsOnAnyNumberOfThreads) {
  std::vector<uint64_t> one;
  for (const int threads : {1, 2, 5}) {
    set_thread_count(threads);
    size_t at = 0;
    each_with_dtypes([&](const OpCase& c, DType dtype) -> std::string {
      const uint64_t bits = bits_of(c, *device_, dtype);
      if (threads == 1) one.push_back(bits);
      return one[at++] == bits ? "" : text("{} {}: other bits with {} threads than with 1", c, dtype, threads);
    });
  }
}

TEST_P(EveryOp, TouchesNoMemoryButItsOwn) {
  const Ref<Device> guarded = open_cpu(Mode::real, local_cpu_profile(), Guard::mapping);
  for (const DType dtype : {DType::f32, DType::bf16})
    each([&](const OpCase& c) -> std::string {
      if (!c.runs_with(dtype)) return {};
      return bits_of(c, *guarded, dtype) == bits_of(c, *device_, dtype)
                 ? ""
                 : text("{} {}: other bits where every block has pages of its own", c, dtype);
    });
}

INSTANTIATE_TEST_SUITE_P(Ops, EveryOp, testing::ValuesIn(case_ops()), [](const auto& info) { return info.param; });
}  // namespace
}  // namespace reckon
