// Configurations whose bytes or FLOPs no 64-bit number holds are refused by name, and whatever is accepted is counted without overflow.
#include "reckon/train/config_counts.h"

#include <random>

#include "reckon/engine/context.h"
#include "reckon/train/trainer.h"
#include "tests/train/config_check.h"
#include "tests/train/small_runs.h"

namespace reckon {
namespace {
void expect_refused(const Arguments& arguments, const std::vector<std::string>& parts) {
  const std::string message = usage_error([&] { parse("", arguments); });
  for (const std::string& part : parts) expect_contains(message, part);
}

TEST(ConfigCounts, CountsBeyond63BitsNameTheirKeys) {
  // Each key alone at its limit, with what it takes to get there.
  const std::string limit = "above the 2^63 - 1 that can be counted";
  expect_refused({"model.layers=65536", "train.micro_batch=1048576", "train.seq_len=4096", "model.max_seq_len=4096", "model.d_ff=16777216"},
                 {"the run's tensors take some ", limit,
                  "model.layers = 65536 times train.micro_batch = 1048576 times train.seq_len = 4096 times model.d_ff = 16777216"});
  expect_refused({"model.d_model=1048576", "model.heads=4096", "train.micro_batch=256", "train.seq_len=16777216", "model.position=rope"},
                 {limit, "train.micro_batch = 256", "train.seq_len = 16777216"});
  expect_refused({"train.seq_len=16777216", "model.position=rope", "train.micro_batch=64", "model.heads=65536", "model.head_dim=2"},
                 {"the matrix work of a step", limit, "model.heads = 65536", "model.head_dim = 2", "train.seq_len = 16777216"});
  expect_refused(
      {"model.vocab=16777216", "train.micro_batch=1048576", "train.grad_accum=1048576"},
      {"the matrix work of a step", limit, "train.grad_accum = 1048576", "train.micro_batch = 1048576", "model.vocab = 16777216"});
  expect_refused(
      {"model.preset=cruncher", "model.d_model=1048576", "model.layers=1000", "train.micro_batch=1048576"},
      {"the matrix work of a step", limit, "model.layers = 1000 times model.d_model = 1048576 times train.micro_batch = 1048576:"});
  expect_refused({"model.head_dim=2", "model.d_model=8", "model.vocab=2", "model.d_ff=1", "train.seq_len=16777216", "model.position=rope",
                  "train.micro_batch=256", "train.grad_accum=1048576"},
                 {limit, "train.seq_len = 16777216"});
}

TEST(ConfigCounts, WhatIsRealIsAccepted) {
  for (const std::string& name : model_preset_names()) {
    if (name == "cruncher") continue;
    const Config c = parse("", {"model.preset=" + name, text("train.seq_len={}", model_preset(name).max_seq_len), "train.micro_batch=1"});
    EXPECT_LT(count_bounds(c).matrix_flops, 0x1p63) << name;
  }
  // A step of four million tokens of the largest preset, 1.9e18 FLOPs, on one device.
  EXPECT_EQ(refusal(parse("", {"model.preset=llama-3-70b", "train.seq_len=8192", "train.micro_batch=1", "train.grad_accum=512"})), "");
}

struct Counted {
  double bytes, moved = 0, matrix, vector;
};
Counted counted(const Config& c) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  TrainStep step(c, *meta);
  const SyntheticBatches none(c.model.vocab, 0);
  Meter meter;
  {
    const MeterScope scope(meter);
    step.run(0, none);
  }
  if (!c.model.cruncher) step.evaluate(none, 1);
  const Flops total = meter.total();
  Counted result{double(meta->allocator().ledger().extent), 0, double(total.matmul), double(total.vector)};
  for (const MeterRow& row : meter.rows()) result.moved = std::max(result.moved, double(row.bytes));
  return result;
}

TEST(ConfigCounts, TheMatrixBoundIsCloseWhereSizesAreCommon) {
  for (const Arguments& arguments :
       {Arguments{"model.preset=gpt2-124m", "train.seq_len=1024", "train.micro_batch=4"},
        Arguments{"model.preset=llama-3-8b", "train.seq_len=8192", "train.micro_batch=1"},
        Arguments{"model.preset=qwen3-0.6b", "train.seq_len=4096", "train.micro_batch=1", "train.recompute=full"}}) {
    const Config c = parse("", arguments);
    EXPECT_LT(count_bounds(c).matrix_flops, 1.25 * counted(c).matrix) << arguments[0];
  }
}

// Sizes at random, spread evenly over their orders of magnitude: what is accepted runs on meta within its bounds, so nothing overflows.
// Layers and micro-batches are few here; everything that is counted is proportional to them.
TEST(ConfigCounts, WhatIsAcceptedStaysBelowItsBounds) {
  std::mt19937_64 random(20240611);
  const auto size = [&](int64_t most) {
    return int64_t(std::exp2(std::uniform_real_distribution<double>(0, std::log2(double(most) + 0.5))(random)));
  };
  const auto coin = [&] { return random() % 2 == 0; };
  int accepted = 0, refused = 0;
  while (accepted < 150) {
    Config c;
    c.model.position = PositionKind::rope;
    c.model.layers = 1 + coin();
    c.train.grad_accum = 1 + coin();
    c.model.kv_heads = size(256);
    c.model.heads = c.model.kv_heads * size(kMaxHeads / c.model.kv_heads);
    c.model.head_dim = 2 * size(kMaxHeadDim / 2);
    c.model.d_model = size(kMaxWidth);
    c.model.d_ff = size(kMaxInnerWidth);
    c.model.vocab = size(kMaxVocab);
    c.train.seq_len = size(kMaxSeqLen);
    c.train.micro_batch = size(int64_t(1) << 20);
    if (coin()) c.train.recompute = Recompute::full;
    if (coin()) c.train.sequence_chunk = std::max<int64_t>(c.train.seq_len / int64_t(1 + random() % 9), 1);
    if (c.train.sequence_chunk == 0 && coin()) c.train.attention = AttentionKind::plain;
    if (coin()) c.train.precision = coin() && c.train.sequence_chunk == 0 ? Precision::fp8 : Precision::bf16;
    if (coin()) c.model.mlp = MlpKind::swiglu;
    if (coin()) c.model.qk_norm = true;
    if (coin()) c.model.sliding_window = 1 + int64_t(random() % 300);
    if (coin()) c.model.norm = NormKind::rms_norm;
    if (coin()) c.model.tied_head = false;
    if (coin()) c.model.dropout = 0.1;
    const std::string what = text("L {} k {} H {} KV {} D {} C {} F {} V {} T {} B {} chunk {} {}", c.model.layers, c.train.grad_accum,
                                  c.model.heads, c.model.kv_heads, c.model.head_dim, c.model.d_model, c.model.d_ff, c.model.vocab,
                                  c.train.seq_len, c.train.micro_batch, c.train.sequence_chunk, to_string(c.train.attention));
    if (refusal(c) != "") {
      ++refused;
      continue;
    }
    ++accepted;
    const CountBounds bounds = count_bounds(c);
    const Counted is = counted(c);
    EXPECT_LE(is.bytes, bounds.tensor_bytes) << what;
    EXPECT_LE(is.moved, bounds.moved_bytes) << what;
    EXPECT_LE(is.matrix, bounds.matrix_flops) << what;
    EXPECT_LE(is.vector, bounds.vector_flops) << what;
  }
  EXPECT_GT(refused, 10) << "the limits were not reached";
}

TEST(ConfigCounts, TheCruncherStaysBelowItsBounds) {
  for (const int64_t width : {1, 4, 100, 1 << 18})
    for (const int64_t batch : {1, 1000, 1 << 20}) {
      Config c =
          parse("", {"model.preset=cruncher", text("model.d_model={}", width), text("train.micro_batch={}", batch), "train.grad_accum=2"});
      const CountBounds bounds = count_bounds(c);
      const Counted is = counted(c);
      EXPECT_TRUE(is.bytes <= bounds.tensor_bytes && is.moved <= bounds.moved_bytes && is.matrix <= bounds.matrix_flops &&
                  is.vector <= bounds.vector_flops)
          << width << " " << batch;
    }
}
}  // namespace
}  // namespace reckon
