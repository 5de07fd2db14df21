// What nodes keep, in another form: the bytes that it saves, to the byte, and the same on meta.
#include "reckon/engine/saved_tensors.h"

#include <cmath>
#include <optional>

#include "reckon/engine/function.h"
#include "reckon/ops/functional.h"
#include "tests/engine/support.h"

namespace reckon {
namespace {
constexpr int64_t kRows = 96, kWidth = 64, kElements = kRows * kWidth;

class SavedTensors : public OnCpu {};

struct Result {
  int64_t kept, peak;
  std::string hash;
  Values gradient;
};
// Four layers of a product and an activation: each product keeps its input, each activation its own.
Result run(Mode mode, bool is_packed) {
  const Ref<Device> device = open_cpu(mode);
  Tensor x = empty(*device, {{kRows, kWidth}, DType::f32}), w = empty(*device, {{kWidth, kWidth}, DType::f32});
  fill_normal_(x, 1);
  fill_normal_(w, 2, 0, 0.1);
  w.set_requires_grad();
  Tensor loss;
  const int64_t before = device->allocator().ledger().live;
  {
    const PhaseScope phase(*device, Phase::forward);
    const auto pack = [](const Tensor& t) { return cast(t, DType::bf16); };
    const auto unpack = [](const Tensor& t) { return cast(t, DType::f32); };
    std::optional<SavedTensorHooks> scope;
    if (is_packed) scope.emplace(pack, unpack);
    Tensor h = x;
    for (int layer = 0; layer < 4; ++layer) h = gelu(linear(h, w));
    loss = sum(h);
  }
  Result r{device->allocator().ledger().live - before, 0, "", {}};
  {
    const PhaseScope phase(*device, Phase::backward);
    backward(loss);
  }
  r.peak = device->allocator().ledger().peak;
  r.hash = device->allocator().trace_hash();
  if (mode == Mode::real) r.gradient = w.grad().to_vector();
  return r;
}

TEST_F(SavedTensors, ShrinkByExactlyWhatTheyShould) {
  const Result plain = run(Mode::real, false), packed = run(Mode::real, true);
  // Kept: the inputs of three products (the first is x, which lives anyhow) and of four activations; packed, that of the first product too.
  // The weight is a parameter and stays as it is.
  EXPECT_EQ(plain.kept, 7 * 4 * kElements + 64);
  EXPECT_EQ(packed.kept, 8 * 2 * kElements + 64);
  double largest = 0, off = 0;
  for (size_t i = 0; i < plain.gradient.size(); ++i) {
    largest = std::max(largest, std::fabs(plain.gradient[i]));
    off = std::max(off, std::fabs(plain.gradient[i] - packed.gradient[i]));
  }
  EXPECT_GT(off, 0) << "they were rounded";
  EXPECT_LE(off, 8 * 0x1p-8 * largest) << "eight tensors, each rounded by half an epsilon of bfloat16";
}

TEST_F(SavedTensors, OnMetaItIsTheSame) {
  for (const bool packed : {false, true}) {
    const Result real = run(Mode::real, packed), meta = run(Mode::meta, packed);
    EXPECT_EQ(real.kept, meta.kept);
    EXPECT_EQ(real.peak, meta.peak);
    EXPECT_EQ(real.hash, meta.hash);
  }
}

// Kept outside of the device: what pack gives is no tensor.
TEST_F(SavedTensors, MayBeKeptElsewhere) {
  const Tensor x = leaf({2, 3}, {0.1, 0.2, 0.3, -1, 2, 1.5});
  int packs = 0, unpacks = 0;
  Tensor y;
  const auto model = [&] { return sum(mul(exp(x), square(affine(x, 2)))); };
  backward(model());
  const Values plain = x.grad().to_vector();
  Tensor(x).zero_grad();
  const int64_t before = live();
  {
    const SavedTensorHooks scope(
        [&](const Tensor& t) {
          ++packs;
          return std::pair(t.spec(), t.to_vector());
        },
        [&](const auto& held) {
          ++unpacks;
          return from_values<double>(*device_, held.first.shape, held.second);
        });
    y = model();
  }
  EXPECT_EQ(packs, 4) << "exp's output, the square's input, and both factors";
  EXPECT_EQ(live(), before + 64) << "the sum alone";
  backward(y);
  EXPECT_EQ(unpacks, 4);
  EXPECT_EQ(x.grad().to_vector(), plain);
}

TEST_F(SavedTensors, CanBeDifferentiatedAgain) {
  const auto f = [](const Tensor& t) {
    const SavedTensorHooks as_they_are([](const Tensor& s) { return affine(s, 1); }, [](const Tensor& s) { return affine(s, 1); });
    return mul(exp(square(t)), layer_norm(t, ones(t.device(), {{3}, DType::f64}), {}));
  };
  EXPECT_EQ(gradgradcheck(f, {tensor({2, 3}, {0.1, 0.2, 0.3, -1, 0.5, 0.9})}), "");
}

TEST_F(SavedTensors, FunctionsAndCheckpointsTakePart) {
  struct Cube {
    Tensor forward(FunctionContext& c, const Tensor& x) {
      const Tensor slope = affine(square(x), 3);
      c.save_for_backward({slope});
      return mul(x, square(x));
    }
    Tensor backward(FunctionContext& c, const Tensor& dy) { return mul(dy, c.saved()[0]); }
  };
  const Tensor x = leaf({2}, {1, 2});
  int packs = 0;
  const SavedTensorHooks scope(
      [&](const Tensor& t) {
        ++packs;
        return t;
      },
      [](const Tensor& t) { return t; });
  backward(sum(apply_function(Cube{}, x)));
  EXPECT_EQ(packs, 1);
  EXPECT_THAT(x.grad().to_vector(), ElementsAre(3, 12));
  backward(sum(checkpoint([](const Tensors& in) { return exp(in[0]); }, {affine(x, 0)})));
  EXPECT_EQ(packs, 3) << "the segment's input, and exp's output in the second run";
}

TEST_F(SavedTensors, WrongFormsAreRefused) {
  const Tensor x = leaf({2}, {1, 2});
  Tensor y, place;
  {
    const SavedTensorHooks scope([](const Tensor& t) { return t; }, [](const Tensor& t) { return cast(t, DType::f32); });
    y = sum(exp(x));
  }
  EXPECT_THAT(error_of([&] { backward(y); }), HasSubstr("exp: unpack gave f32[2] for output 0 that was kept for backward, f64[2]"));
  {
    const SavedTensorHooks scope([&](const Tensor& t) { return place = affine(t, 1); }, [](const Tensor& t) { return t; });
    y = sum(exp(x));
  }
  fill_uniform_(place, 1);
  EXPECT_THAT(error_of([&] { backward(y); }), HasSubstr("which pack gave, was changed in place after it was kept"));
}
}  // namespace
}  // namespace reckon
