// data/batches: which tokens a sample holds. A pure function of (seed, sample index): there is no state to save or to lose.
#pragma once
#include <cstdint>
#include <span>

#include "reckon/data/dataset.h"

namespace reckon {

/// Samples of seq_len inputs and their targets (each the token after its input). The caller numbers them: sample
/// (step * grad_accum + accumulation) * micro_batch + row is the same whatever came before it, also after a resume.
class Batches {
 public:
  enum class Order : uint8_t {
    random,     // independent uniform starts, with repetition: Philox keyed by the seed, counted by the sample index
    sequential  // windows of seq_len one after another, from the front again after the last whole one
  };
  /// Throws Error (usage) if the split is shorter than seq_len + 1 tokens.
  Batches(Ref<Dataset> dataset, DataSplit split, int64_t seq_len, Order order, uint64_t seed);

  int64_t seq_len() const { return seq_len_; }
  /// Different samples: windows in sequential order, starts in random order.
  int64_t samples() const { return samples_; }
  /// First token of the sample within its split. sample >= 0.
  int64_t start(int64_t sample) const;
  /// Samples first, first + 1, ...: inputs and targets [n, seq_len], n as the spans' sizes say. Allocates nothing; threads may share this.
  void fill(int64_t first_sample, std::span<int32_t> inputs, std::span<int32_t> targets) const;

 private:
  Ref<Dataset> dataset_;
  DataSplit split_;
  int64_t seq_len_;
  Order order_;
  uint64_t key_;
  int64_t samples_;
};
}  // namespace reckon
