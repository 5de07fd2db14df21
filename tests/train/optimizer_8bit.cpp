// AdamW with 8-bit states as a run has it: what it takes, what it leaves alone, and that it moves weights as AdamW does.
#include <cmath>

#include "reckon/engine/backward.h"
#include "reckon/ops/step_scalars.h"
#include "tests/train/small_runs.h"

namespace small {
namespace {
// Large and small parameters with and without decay, and gradients that depend on name and step alone.
class Mixed {
 public:
  Mixed(DType dtype, const OptimConfig& config, Mode mode = Mode::real, bool master = true) : device_(open_cpu(mode)) {
    for (const auto& [name, shape] : {std::pair<const char*, Shape>{"a", {64, 64}}, {"b", {83, 61}}, {"c", {9, 31}}, {"d", {77, 90}}})
      parameters_.declare(text("{}.weight", name), shape, {Init::normal, 0.5, 1}, true);
    parameters_.declare("a.bias", {53}, {Init::normal, 0.5, 1}, false);
    parameters_.declare("d.bias", {5000}, {Init::normal, 0.5, 1}, false);
    parameters_.materialize(*device_, {dtype, true, master, quantized_from(config.name)}, 11);
    optimizer_ = std::make_unique<Optimizer>(*device_, parameters_, config);
  }
  // A step of the parameters whose names begin with one of these letters.
  void step(int64_t i, const std::string& letters) {
    parameters_.zero_grad();
    for (Parameter& p : parameters_.all()) {
      if (letters.find(p.name[0]) == letters.npos) continue;
      fill_normal_(Parameters::view_of(parameters_.buckets()[size_t(p.bucket)].gradients, p),
                   uint64_t(1000 * i) + uint64_t(p.shape.numel()));
      p.value.state().grad_filled = true;
    }
    optimizer_->write_scalars(i, 20);
    optimizer_->step(full(*device_, {Shape{}, DType::f32}, 1));
  }
  // Every plane of a parameter.
  std::string bytes(const Parameter& p) {
    const Bucket& bucket = parameters_.buckets()[size_t(p.bucket)];
    std::string all = bytes_of(p.value);
    if (bucket.residual.defined()) all += bytes_of(Parameters::view_of(bucket.residual, p));
    if (bucket.master.defined()) all += bytes_of(Parameters::view_of(bucket.master, p));
    for (const Optimizer::State& s : optimizer_->states())
      if (const Tensor part = s.of(p); part.defined()) all += bytes_of(part);
    return all;
  }
  std::map<std::string, std::string> bytes() {
    std::map<std::string, std::string> all;
    for (const Parameter& p : parameters_.all()) all[p.name] = bytes(p);
    return all;
  }
  Device& device() { return *device_; }
  Parameters& parameters() { return parameters_; }
  Optimizer& optimizer() { return *optimizer_; }

 private:
  Ref<Device> device_;
  Parameters parameters_;
  std::unique_ptr<Optimizer> optimizer_;
};

TEST(Optimizer8bit, takes_two_bytes_a_parameter_and_the_scales) {
  for (const char* precision : {"fp32", "bf16", "fp16"}) {
    const Config c =
        load_config("", std::vector<std::string>{"model.preset=gpt2-124m", "optim.name=adamw8bit", text("train.precision={}", precision)});
    const Ref<Device> meta = open_cpu(Mode::meta);
    TrainStep step(c, *meta);
    int64_t large = 0, small = 0;
    for (const Parameter& p : step.parameters().all()) {
      const int64_t n = p.shape.numel(), alignment = n >= 4096 ? 256 : 32;
      (n >= 4096 ? large : small) += (n + alignment - 1) / alignment * alignment;
    }
    // Parts of the large ones, with and without decay, are multiples of 256, so of a block of memory; their scales are not.
    int64_t expected = round_block(kStepScalars * 8) + 2 * large + 2 * 4 * small;
    for (const Bucket& b : step.parameters().buckets())
      if (b.quantized) expected += 2 * round_block(4 * b.numel / 256);
    const int64_t got = meta->allocator().ledger().live_by_category[size_t(Category::optimizer)];
    EXPECT_EQ(got, expected);
    EXPECT_LT(double(got), 2.04 * double(step.parameters().count()));
    EXPECT_EQ(meta->allocator().ledger().live_by_category[size_t(Category::master)] > 0, precision != std::string_view("fp32"));
  }
}

TEST(Optimizer8bit, leaves_small_parameters_to_AdamW) {
  Mixed narrow(DType::f32, plain(OptimizerKind::adamw8bit)), wide(DType::f32, plain(OptimizerKind::adamw));
  for (int64_t i = 0; i < 5; ++i) narrow.step(i, "abcd"), wide.step(i, "abcd");
  auto a = narrow.bytes(), b = wide.bytes();
  for (const char* same : {"c.weight", "a.bias"}) EXPECT_TRUE(a[same] == b[same]) << same;
  for (const char* other : {"a.weight", "b.weight", "d.weight", "d.bias"}) EXPECT_FALSE(a[other] == b[other]) << other;
}

// Runs of parameters begin at blocks: codes and scales of one parameter never move another.
TEST(Optimizer8bit, steps_only_what_has_a_gradient) {
  OptimConfig config = plain(OptimizerKind::adamw8bit);
  config.weight_decay = 0.25;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    Mixed some(dtype, config), all(dtype, config);
    for (Mixed* m : {&some, &all}) m->step(0, "abcd");
    const auto before = some.bytes();
    for (const std::string letters : {"b", "ad", "bc", "d", "", "abcd"}) {
      SCOPED_TRACE(text("{} in {}", letters, dtype));
      Mixed fresh(dtype, config);
      fresh.step(0, "abcd");
      fresh.step(1, letters);
      if (letters == "abcd") all.step(1, "abcd");
      for (const auto& [name, planes] : fresh.bytes()) EXPECT_EQ(planes != before.at(name), letters.find(name[0]) != letters.npos) << name;
      if (letters == "abcd") {
        EXPECT_EQ(fresh.bytes(), all.bytes());
      }
    }
    // Alone or among others, without clipping a parameter moves alike.
    Mixed alone(dtype, config);
    alone.step(0, "abcd");
    for (const char* letter : {"a", "b", "c", "d"}) alone.step(1, letter);
    EXPECT_EQ(alone.bytes(), all.bytes());
  }
}

// Not the same steps, but nearly: the error of a moment is at most half a part of its decade.
TEST(Optimizer8bit, moves_weights_as_AdamW_does) {
  Mixed narrow(DType::f32, plain(OptimizerKind::adamw8bit)), wide(DType::f32, plain(OptimizerKind::adamw)),
      start(DType::f32, plain(OptimizerKind::adamw));
  for (int64_t i = 0; i < 20; ++i) narrow.step(i, "abcd"), wide.step(i, "abcd");
  for (const char* name : {"a.weight", "b.weight", "d.weight", "d.bias"}) {
    const std::vector<double> a = narrow.parameters().find(name)->value.to_vector(), b = wide.parameters().find(name)->value.to_vector(),
                              from = start.parameters().find(name)->value.to_vector();
    double apart = 0, moved = 0;
    for (size_t i = 0; i < a.size(); ++i) apart += (a[i] - b[i]) * (a[i] - b[i]), moved += (b[i] - from[i]) * (b[i] - from[i]);
    EXPECT_LT(std::sqrt(apart / moved), 0.02) << name;
  }
}

// What is padded between parameters stays zero, in codes and weights.
TEST(Optimizer8bit, padding_stays_zero) {
  Mixed mixed(DType::f16, plain(OptimizerKind::adamw8bit));
  for (int64_t i = 0; i < 3; ++i) mixed.step(i, "abcd");
  for (const Parameter& p : mixed.parameters().all()) {
    const Bucket& bucket = mixed.parameters().buckets()[size_t(p.bucket)];
    Tensors planes = {bucket.values, bucket.master};
    for (const Optimizer::State& s : mixed.optimizer().states())
      if (!s.name.ends_with("_scale")) planes.push_back(s.buckets[size_t(p.bucket)]);
    for (const Tensor& plane : planes) {
      const std::vector<double> values = plane.to_vector();
      for (int64_t i = p.offset + p.shape.numel(); i < p.offset + p.padded; ++i) ASSERT_EQ(values[size_t(i)], 0) << p.name << " at " << i;
    }
  }
}

TEST(Optimizer8bit, is_the_same_on_meta) {
  std::string hashes[2];
  for (const Mode mode : {Mode::real, Mode::meta}) {
    Mixed mixed(DType::bf16, plain(OptimizerKind::adamw8bit), mode);
    for (const char* letters : {"abcd", "bd", "", "ac"}) mixed.step(0, letters);
    hashes[mode == Mode::meta] = mixed.device().allocator().trace_hash();
  }
  EXPECT_EQ(hashes[0], hashes[1]);
}
}  // namespace
}  // namespace small
