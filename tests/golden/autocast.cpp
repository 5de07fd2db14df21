// Two layers under Autocast against the same under PyTorch's.
#include "reckon/engine/autocast.h"

#include "reckon/backend/cpu/device.h"
#include "reckon/engine/backward.h"
#include "tests/golden/golden.h"

namespace golden {
namespace {
const std::vector<std::string> kNames{"w1", "b1", "w2", "b2"};

struct Result {
  double loss;
  std::vector<std::vector<double>> gradients;
};
Result run(const File& file, bool is_autocast) {
  const Ref<Device> device = open_cpu(Mode::real);
  const auto load = [&](const std::string& name) {
    const Tensor t = empty(*device, {file.shape(name), DType::f32});
    store(t, file.values(name));
    return t;
  };
  Tensors p;
  for (const std::string& name : kNames) p.push_back(load("init/" + name).set_requires_grad());
  const Tensor x = load("x"), targets = from_values<int32_t>(*device, file.shape("targets"), file.ids("targets"));
  Tensor loss;
  {
    const Autocast scope(DType::bf16, is_autocast);
    const Tensor hidden = gelu(linear(x, p[0], p[1]));
    const Tensor again = gelu(linear(linear(hidden, transpose(p[0])), p[0], p[1]));
    loss = cross_entropy(linear(again, p[2], p[3]), targets);
  }
  backward(loss);
  Result r{loss.item(), {}};
  for (const Tensor& t : p) {
    EXPECT_EQ(t.grad().dtype(), DType::f32);
    r.gradients.push_back(t.grad().to_vector());
  }
  return r;
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::abs(a[i] - b[i]));
  return most;
}

TEST(AutocastGolden, InFloat32TheModelIsTheSame) {
  const File file("autocast");
  const Result ours = run(file, false);
  EXPECT_NEAR(ours.loss, file.values("f32/loss")[0], 1e-5);
  for (size_t i = 0; i < kNames.size(); ++i) expect_close(ours.gradients[i], file.values("f32/grad/" + kNames[i]), 1e-5, kNames[i]);
}

// Behind the deepest gradient lie four layers forward and four back. Each rounds once here, more often in some of PyTorch's, so that a
// value may be another one of two neighbours: half an epsilon each.
TEST(AutocastGolden, InBfloat16ItIsNearPytorchs) {
  const File file("autocast");
  const Result ours = run(file, true);
  const double share = 8 * 0.5 * epsilon(DType::bf16);
  EXPECT_NEAR(ours.loss, file.values("bf16/loss")[0], share * file.values("bf16/loss")[0]);
  for (size_t i = 0; i < kNames.size(); ++i) {
    expect_close(ours.gradients[i], file.values("bf16/grad/" + kNames[i]), share, kNames[i]);
    EXPECT_GT(distance(ours.gradients[i], file.values("f32/grad/" + kNames[i])), 0) << kNames[i] << " was not rounded";
  }
}
}  // namespace
}  // namespace golden
