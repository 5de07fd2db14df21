// Counts of bytes and FLOPs beyond 2^63 - 1. Some wrapped in silence, others ended with exit code 1 instead of 2 (bad usage).
#include "reckon/engine/meter.h"
#include "reckon/ops/rows.h"
#include "reckon/ops/training.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {
class HugeSizes : public testing::Test {
 protected:
  Tensor make(const Shape& shape, DType dtype = DType::f32) { return empty(*meta_, {shape, dtype}); }
  template <class Body>
  void refused(const char* what, Body body) {
    try {
      body();
      ADD_FAILURE() << what << ": nothing was refused";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Failure::usage) << what << ": " << error.what();
      EXPECT_THAT(error.what(), HasSubstr("2^63 - 1")) << what;
    }
  }
  Ref<Device> meta_ = open_cpu(Mode::meta);
};

// Every formula of a plan that multiplies extents, at sizes whose tensors still fit.
TEST_F(HugeSizes, WorkBeyond63BitsIsRefused) {
  const NoGrad guard;
  const int64_t k20 = int64_t(1) << 20, k30 = int64_t(1) << 30, k31 = int64_t(1) << 31, k59 = int64_t(1) << 59;
  const AttentionParams one_head{1, 1, 1, 1, true};
  {
    const Tensor qkv = make({1, k31, 3}), out = make({1, k31, 1}), lse = make({1, 1, k31});
    refused("attention", [&] { attention(qkv, 1, 1, 1); });
    refused("attention, full", [&] { attention(qkv, 1, 1, 1, false); });
    refused("attention_back", [&] { call(op::attention_back, {out, qkv, out, lse}, one_head); });
    const Tensor cache = make({1, 1, k31, 1}), position = make({1}, DType::i64);
    refused("attention_cached", [&] { call(op::attention_cached, {qkv, cache, cache, position}, one_head); });
  }
  {
    const Tensor x = make({k30, k20}), w = make({k20, k20});
    refused("linear", [&] { linear(x, w); });
    refused("linear_back_x", [&] { call(op::linear_back_x, {x, w}); });
    refused("linear_back_w", [&] { call(op::linear_back_w, {x, x}, LinearParams{false, DType::f32}); });
    refused("matmul", [&] { matmul(x, w); });
  }
  {
    const Tensor x = make({k59});
    const Tensor wide = make({k59 / 16, 16}), weight = make({16}), statistic = make({k59 / 16});
    refused("gelu_back", [&] { call(op::gelu_back, {x, x}); });
    refused("random", [&] { fill_normal_(make({2 * k59}), 1); });
    refused("layer_norm_back", [&] {
      call(op::layer_norm_back, {make({2 * k59 / 16, 16}), make({2 * k59 / 16, 16}), weight, make({2 * k59 / 16}), make({2 * k59 / 16})},
           NormParams{1e-5});
    });
    refused("swiglu_back", [&] { call(op::swiglu_back, {make({2 * k59}, DType::bf16), make({4 * k59}, DType::bf16)}); });
    refused("qk_norm_back", [&] {
      const Tensor qkv = make({4 * k59 / 16, 16}, DType::bf16), w = make({4}, DType::bf16);
      call(op::qk_norm_back, {qkv, qkv, w, w, make({4 * k59 / 16, 3})}, QkNormParams{1e-6, 2, 1, 4});
    });
    refused("embedding", [&] { embedding(make({2, 2}), make({2 * k59}, DType::i32)); });
  }
  {
    const Tensor p = make({k59}), scalars = make({kStepScalars}, DType::f64);
    refused("adamw_step", [&] { call(op::adamw_step, {scalars, p, p, p, p}, OptimizerParams{0}); });
  }
  EXPECT_EQ(meta_->allocator().ledger().live, 0);
}

TEST_F(HugeSizes, ASumOfWorkBeyond63BitsIsRefused) {
  const NoGrad guard;
  const int64_t k20 = int64_t(1) << 20;
  const Tensor x = make({k20, k20}), w = make({k20, k20});  // a product is 2^61
  Meter meter;
  {
    const MeterScope scope(meter);
    for (int i = 0; i < 3; ++i) linear(x, w);
    refused("the fourth product of one row", [&] { linear(x, w); });
  }
  ASSERT_EQ(meter.rows().size(), 1u);
  EXPECT_EQ(meter.rows()[0].calls, 3) << "what was refused is not counted";
  EXPECT_EQ(meter.rows()[0].flops.matmul, 3 * (int64_t(1) << 61));
  EXPECT_EQ(meter.total().matmul, 3 * (int64_t(1) << 61));
  {
    const MeterScope scope(meter);
    const ModuleScope other("other");
    for (int i = 0; i < 3; ++i) linear(x, w);
  }
  refused("the sum of two rows", [&] { meter.total(); });
}

TEST_F(HugeSizes, BytesBeyond63BitsAreRefused) {
  const int64_t k60 = int64_t(1) << 60;
  refused("elements", [&] { make({k60, k60}); });
  refused("bytes of an element", [&] { make({2 * k60}, DType::f64); });
  refused("a whole block", [&] { make({INT64_MAX}, DType::u8); });
  const Tensor a = make({k60}), b = make({k60 / 2});
  refused("all tensors together", [&] { make({k60}); });
  EXPECT_EQ(meta_->allocator().ledger().live, 6 * k60) << "what is refused changes nothing";
}

TEST(CheckedCounts, AreExactUpToTheirLimit) {
  EXPECT_EQ(checked_product({}), 1);
  EXPECT_EQ(checked_product({3, 5, 7}), 105);
  EXPECT_EQ(checked_product({INT64_MAX}), INT64_MAX);
  EXPECT_EQ(checked_product({INT64_MAX, INT64_MAX, 0}), 0);
  EXPECT_EQ(checked_sum({}), 0);
  EXPECT_EQ(checked_sum({INT64_MAX - 5, 2, 3}), INT64_MAX);
  EXPECT_THROW(checked_sum({INT64_MAX, 1}), Error);
  EXPECT_THROW(checked_product({int64_t(1) << 32, int64_t(1) << 31}), Error);
  EXPECT_EQ(checked_product({int64_t(1) << 31, int64_t(1) << 31}), int64_t(1) << 62);
}
}  // namespace
}  // namespace reckon
