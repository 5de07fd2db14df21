// Rows of tensors beyond the caches, which are stored past them, against the same rows a few at a time: equal bits, wherever rows begin.
#include <algorithm>
#include <cstring>

#include "reckon/ops/ops.h"
#include "reckon/ops/unary.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {
constexpr int64_t kFew = 97;  // rows at a time: far below the size from which stores go past the caches

class LargeRows : public OnCpu {
 protected:
  Tensor random(const Shape& shape, DType dtype, uint64_t key) {
    const Tensor x = empty(*device_, {shape, dtype});
    fill_normal_(x, key);
    return x;
  }
  // f of all rows and its gradient with respect to them, against those of a few rows at a time.
  template <class F>
  void expect_same(const char* name, DType dtype, int64_t rows, int64_t width, F f) {
    SCOPED_TRACE(text("{} {} [{}, {}]", name, dtype, rows, width));
    const Tensor x = random({rows, width}, dtype, 1), other = random({rows, width}, dtype, 2), dy = random({rows, width}, dtype, 3);
    const auto run = [&](int64_t begin, int64_t end) {
      const auto part = [&](const Tensor& t) { return contiguous(slice(t, 0, begin, end)); };
      Tensor in = part(x).detached();
      in.set_requires_grad();
      const Tensor y = f(in, part(other), begin, end);
      const Tensor seed = y.shape() == in.shape() && y.dtype() == in.dtype() ? part(dy) : ones(*device_, y.spec());
      return Tensors{y.detached(), grad(y, {in}, seed)[0]};
    };
    const Tensors whole = run(0, rows);
    for (int64_t begin = 0; begin < rows; begin += kFew) {
      const int64_t end = std::min(rows, begin + kFew);
      const Tensors few = run(begin, end);
      for (size_t i = 0; i < few.size(); ++i) {
        const int64_t row = few[i].spec().bytes() / (end - begin);
        const auto* all = static_cast<const std::byte*>(whole[i].raw()) + begin * row;
        ASSERT_EQ(std::memcmp(all, few[i].raw(), size_t((end - begin) * row)), 0)
            << (i ? "gradient" : "result") << " of rows from " << begin;
      }
    }
  }
};

TEST_F(LargeRows, HaveTheBitsOfFewOfThem) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const int64_t width : {4096, 4099, 9001}) {
      if (dtype == DType::f16 && width == 4096) continue;  // as those of other widths
      const int64_t rows = (int64_t(25) << 20) / width;    // 25 M elements: above 32 MB of traffic in both types
      const Tensor weight = random({width}, dtype, 4), bias = random({width}, dtype, 5);
      std::vector<int32_t> ids(static_cast<size_t>(rows));
      for (size_t i = 0; i < ids.size(); ++i) ids[i] = int32_t(i % size_t(width));
      const Tensor targets = from_values<int32_t>(*device_, {rows}, ids);
      const auto expect = [&](const char* name, auto f) { expect_same(name, dtype, rows, width, f); };
      expect("layer_norm", [&](const Tensor& x, const Tensor&, int64_t, int64_t) { return layer_norm(x, weight, bias); });
      expect("rms_norm", [&](const Tensor& x, const Tensor&, int64_t, int64_t) { return rms_norm(x, weight); });
      expect("add_layer_norm", [&](const Tensor& x, const Tensor& r, int64_t, int64_t) { return add_layer_norm(x, r, weight, bias).norm; });
      expect("add_rms_norm", [&](const Tensor& x, const Tensor& r, int64_t, int64_t) { return add_rms_norm(x, r, weight).norm; });
      expect("softmax", [](const Tensor& x, const Tensor&, int64_t, int64_t) { return softmax(x); });
      expect("log_softmax", [](const Tensor& x, const Tensor&, int64_t, int64_t) { return log_softmax(x); });
      expect("cross_entropy", [&](const Tensor& x, const Tensor&, int64_t begin, int64_t end) {
        return cross_entropy(x, contiguous(slice(targets, 0, begin, end)), {.reduction = Reduction::none});
      });
    }
}

TEST_F(LargeRows, ElementWiseHaveTheBitsOfFewOfThem) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const int64_t width : {4096, 4099}) {  // rows that start at cache lines, or anywhere
      const int64_t rows = (int64_t(17) << 20) / width;
      const auto expect = [&](const char* name, auto f) {
        expect_same(name, dtype, rows, width, [f](const Tensor& x, const Tensor& other, int64_t, int64_t) { return f(x, other); });
      };
      expect("add", [](const Tensor& x, const Tensor& o) { return add(x, o); });
      const Tensor shared = random({width}, dtype, 4);
      expect("add to all", [&](const Tensor& x, const Tensor&) { return add(x, shared); });
      expect("maximum", [](const Tensor& x, const Tensor& o) { return maximum(x, o); });
      expect("where", [](const Tensor& x, const Tensor& o) { return where(less(o, x), x, o); });
      expect("affine", [](const Tensor& x, const Tensor&) { return affine(x, 3, -1); });
      expect("exp", [](const Tensor& x, const Tensor&) { return exp(x); });
      expect("sin", [](const Tensor& x, const Tensor&) { return sin(x); });
      expect("clamp", [](const Tensor& x, const Tensor&) { return clamp(x, -0.5, 0.5); });
      expect("gelu", [](const Tensor& x, const Tensor&) { return gelu(x); });
      expect("tanh", [](const Tensor& x, const Tensor&) { return tanh(x); });
      expect("cast", [](const Tensor& x, const Tensor&) { return cast(x, x.dtype() == DType::f32 ? DType::bf16 : DType::f32); });
    }
}

TEST_F(LargeRows, SwigluHasTheBitsOfFewOfThem) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const int64_t width : {2048, 2050}) {  // of the result; gates and values are as wide
      const int64_t rows = (int64_t(9) << 20) / width;
      const Tensor x = random({rows, 2 * width}, dtype, 1), whole = swiglu(x);
      for (int64_t begin = 0; begin < rows; begin += kFew) {
        const int64_t end = std::min(rows, begin + kFew);
        const Tensor few = swiglu(contiguous(slice(x, 0, begin, end)));
        const auto* all = static_cast<const std::byte*>(whole.raw()) + begin * width * size_of(dtype);
        ASSERT_EQ(std::memcmp(all, few.raw(), size_t(few.spec().bytes())), 0) << to_string(dtype) << " rows from " << begin;
      }
    }
}

TEST_F(LargeRows, FillsAndCopiesReachEveryByte) {
  const int64_t n = (int64_t(9) << 20) + 13;  // of 4 bytes: a fill alone is above 32 MB
  const Tensor x = full(*device_, {{n}, DType::f32}, 1.5), zero = zeros(*device_, {{n}, DType::f32});
  const auto count = [n](const Tensor& t, float value) { return std::count(t.data<float>(), t.data<float>() + n, value); };
  EXPECT_EQ(count(x, 1.5f), n);
  EXPECT_EQ(count(zero, 0.0f), n);
  const Tensor slot = full(*device_, {{n}, DType::f32}, 7);
  call(op::accumulate, {slot, x}, AccumulateParams{false});
  EXPECT_EQ(count(slot, 1.5f), n);
}
}  // namespace
}  // namespace reckon
