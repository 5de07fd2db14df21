#include "reckon/train/step.h"

#include <algorithm>
#include <cmath>

#include "reckon/base/philox.h"
#include "reckon/engine/backward.h"
#include "reckon/engine/context.h"
#include "reckon/ops/dropout.h"
#include "reckon/train/recompute.h"

namespace reckon {
namespace {
constexpr uint64_t kCruncherSite = 0x6372756E6368;  // keys of different uses never meet
}  // namespace

double mean_loss(const Decoder& decoder, TokenBatch& batch, const BatchSource& source, int64_t windows, const TrainConfig& train) {
  const NoGrad guard;
  Device& device = batch.inputs().device();
  double sum = 0;
  for (int64_t first = 0; first < windows; first += batch.rows()) {
    const int64_t count = std::min(batch.rows(), windows - first);
    SegmentScope segment(device.allocator(), "eval");
    {
      const PhaseScope phase(device, Phase::data);
      batch.load(source, first, count);
    }
    {
      const PhaseScope phase(device, Phase::eval);
      const Tensor loss = is_chunked(train) ? decoder.loss_in_chunks(batch.inputs(), batch.targets(), train.sequence_chunk,
                                                                     train.fused_loss, batch.documents())
                                            : decoder.loss(batch.inputs(), batch.targets(), {}, train.fused_loss, batch.documents());
      // All windows have the same number of tokens: a micro-batch weighs as many as it has windows.
      if (!device.is_meta()) sum += loss.item() * double(count);
    }
    segment.end();
  }
  return device.is_meta() ? std::nan("") : sum / double(windows);
}

TrainStep::TrainStep(const Config& config, Device& device) : config_(config), device_(device) {
  SegmentScope segment(device.allocator(), "init");
  allocate();
  segment.end();
}

void TrainStep::allocate() {
  const PhaseScope phase(device_, Phase::init);
  const ModelConfig& model = config_.model;
  if (model.cruncher) {
    cruncher_ = std::make_unique<Cruncher>(model);
  } else {
    decoder_ = std::make_unique<Decoder>(model);
    decoder_->set_fused_kernels(config_.train.fused_kernels);
    decoder_->set_plain_attention(config_.train.attention == AttentionKind::plain);
  }
  const DType dtype = dtype_of(config_.train.precision);
  const StorageOptions storage{.dtype = dtype,
                               .master = config_.train.master_weights,
                               .quantized_from = quantized_from(config_.optim.name),
                               .lasting_gradients = false};
  parameters().materialize(device_, storage, uint64_t(config_.seed));
  if (config_.train.precision == Precision::fp8) {
    const int64_t window = config_.train.fp8_amax_history;
    decoder_ ? decoder_->use_float8(device_, window) : cruncher_->use_float8(device_, window);
  }
  optimizer_ = std::make_unique<Optimizer>(device_, parameters(), effective_optim(config_), loss_scaling(config_.train), uint64_t(config_.seed));

  const int64_t B = config_.train.micro_batch;
  if (!cruncher_ && model.dropout > 0) decoder_->set_dropout(draws_ = make_dropout_draws(device_));
  if (!cruncher_) {
    batch_ = TokenBatch(device_, B, config_.train.seq_len, document_bounds(config_));
    return;
  }
  const CategoryScope data(Category::data);
  inputs_ = zeros(device_, {{B, model.d_model}, dtype});
  targets_ = zeros(device_, {{B, 1}, dtype});
}

int64_t TrainStep::tokens_per_step() const {
  return config_.train.micro_batch * config_.train.grad_accum * (cruncher_ ? 1 : config_.train.seq_len);
}

void TrainStep::load_batch(int64_t first, const BatchSource& source) {
  const PhaseScope phase(device_, Phase::data);
  const ModuleScope scope("data");
  const NoGrad guard;
  if (cruncher_) {
    // Targets are the mean of the inputs: something a linear net can learn.
    const uint64_t key = mix_key(mix_key(uint64_t(config_.seed), kCruncherSite), uint64_t(first));
    fill_normal_(inputs_, key);
    const Tensor sums = mean(inputs_, {1}, true);
    if (!device_.is_meta()) targets_.write(sums.raw(), sums.spec().bytes());
    return;
  }
  batch_.load(source, first, config_.train.micro_batch);
}

// The gradient of the step's loss with respect to one of k micro-batch losses: 1/k, and in fp16 times the loss scale, which only the device
// knows.
Tensor TrainStep::loss_seed(const TensorSpec& loss) const {
  const double share = 1.0 / double(config_.train.grad_accum);
  if (config_.train.precision != Precision::fp16) return full(device_, loss, share);
  return affine(cast(optimizer_->loss_scale(), loss.dtype), share);
}

// Forward and backward of the batch that is loaded; its loss.
Tensor TrainStep::micro_batch() {
  const bool fused = decoder_ && config_.train.fused_loss;
  if (decoder_ && is_chunked(config_.train)) {
    const PhaseScope phase(device_, Phase::backward);
    const Tensor seed = loss_seed({Shape{}, statistics_dtype(dtype_of(config_.train.precision))});
    return decoder_->loss_and_backward_in_chunks(batch_.inputs(), batch_.targets(), seed, config_.train.sequence_chunk,
                                                 recompute_policy(config_), fused, batch_.documents());
  }
  Tensor out;  // the loss, or what the head reads
  {
    const PhaseScope phase(device_, Phase::forward);
    out = cruncher_ ? cruncher_->loss(inputs_, targets_)
          : fused   ? decoder_->hidden(batch_.inputs(), recompute_policy(config_), batch_.documents())
                    : decoder_->loss(batch_.inputs(), batch_.targets(), recompute_policy(config_), false, batch_.documents());
  }
  const PhaseScope phase(device_, Phase::backward);
  const NoGrad guard;
  const Tensor seed = loss_seed(fused ? TensorSpec{Shape{}, statistics_dtype(out.dtype())} : out.spec());
  if (fused) return decoder_->loss_and_backward(std::move(out), batch_.targets(), seed);
  backward(out, seed);
  return out.detached();
}

Tensor TrainStep::accumulate_gradients(int64_t step, const BatchSource& source) {
  const int64_t k = config_.train.grad_accum, B = config_.train.micro_batch;
  parameters().zero_grad();  // what a step that threw may have left
  Tensor total;
  for (int64_t micro = 0; micro < k; ++micro) {
    load_batch((step * k + micro) * B, source);
    if (draws_.defined()) write_dropout_draws(draws_, uint64_t(config_.seed), step, (step * k + micro) * B);
    const Tensor loss = micro_batch();
    const PhaseScope phase(device_, Phase::backward);
    const NoGrad guard;
    Tensor share = affine(loss, 1.0 / double(k));
    total = total.defined() ? add(std::move(total), std::move(share)) : std::move(share);
  }
  return total;
}

// After the optimizer, which knows if the step counts.
void TrainStep::step_float8_scales() const {
  const NoGrad guard;
  for (const NamedFloat8State& layer : float8_states()) {
    const ModuleScope scope(layer.name);
    step_fp8_scales_(optimizer_->scalars(), layer.state);
  }
}

TrainStep::Result TrainStep::run(int64_t step, const BatchSource& source) {
  SegmentScope segment(device_.allocator(), "step");
  Result result;
  {
    const Tensor loss = accumulate_gradients(step, source);
    {
      const PhaseScope phase(device_, Phase::step);
      optimizer_->write_scalars(step, config_.train.steps);
      optimizer_->step(loss);
      if (watcher) watcher->on_gradients(parameters());
      parameters().zero_grad();
      step_float8_scales();
    }
    const Optimizer::Outcome outcome = optimizer_->outcome();
    result = {device_.is_meta() ? std::nan("") : loss.item(), outcome.grad_norm, outcome.updated, outcome.loss_scale, outcome.rescaled};
  }
  segment.end();
  return result;
}

void TrainStep::find_nonfinite(int64_t step, const BatchSource& source) {
  const FiniteCheck check;
  const SegmentScope segment(device_.allocator(), "step");  // without its update, so never ended
  accumulate_gradients(step, source);
  parameters().zero_grad();
}

namespace {
// Also after an exception the next step drops again.
class WithoutDropout {
 public:
  WithoutDropout(Decoder& decoder, const Tensor& draws) : decoder_(decoder), draws_(draws) { decoder_.set_dropout({}); }
  ~WithoutDropout() { decoder_.set_dropout(draws_); }
  WithoutDropout(const WithoutDropout&) = delete;

 private:
  Decoder& decoder_;
  const Tensor& draws_;
};
}  // namespace

double TrainStep::evaluate(const BatchSource& source, int64_t windows) {
  check(decoder_ != nullptr, "preset cruncher has no text to evaluate");
  const WithoutDropout guard(*decoder_, draws_);
  return mean_loss(*decoder_, batch_, source, windows, config_.train);
}
}  // namespace reckon
