// train/batch: where token batches come from, and the tensors that hold one.
#pragma once
#include <vector>

#include "reckon/ops/ops.h"

namespace reckon {

/// Where token batches come from. Sample i is the same sequence whenever and by whomever it is asked for.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  /// Fills `count` rows of seq_len tokens and their targets (the tokens shifted by one), samples first .. first + count - 1.
  virtual void fill(int64_t first, int64_t count, int64_t seq_len, int32_t* inputs, int32_t* targets) const = 0;
};

/// Uniform random tokens, keyed by (seed, sample, position).
class SyntheticBatches final : public BatchSource {
 public:
  SyntheticBatches(int64_t vocab, uint64_t seed) : vocab_(vocab), seed_(seed) {}
  void fill(int64_t first, int64_t count, int64_t seq_len, int32_t* inputs, int32_t* targets) const override;

 private:
  int64_t vocab_;
  uint64_t seed_;
};

/// One micro-batch of tokens on a device, with its staging on the host.
class TokenBatch {
 public:
  TokenBatch() = default;
  /// Allocates both tensors (category data) and fills them with zeros.
  TokenBatch(Device& device, int64_t rows, int64_t seq_len);
  /// Samples first .. first + count - 1 of `source` in the first `count` rows. The loss ignores the rows after them, so that a micro-batch
  /// that is not full has the shapes, and the plan, of one that is. On meta the source is not asked.
  void load(const BatchSource& source, int64_t first, int64_t count);

  int64_t rows() const { return inputs_.shape()[0]; }
  const Tensor& inputs() const { return inputs_; }    // i32 [rows, seq_len]
  const Tensor& targets() const { return targets_; }  // likewise

 private:
  Tensor inputs_, targets_;
  std::vector<int32_t> host_inputs_, host_targets_;  // empty on meta
};
}  // namespace reckon
