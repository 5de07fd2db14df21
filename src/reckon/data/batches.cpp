#include "reckon/data/batches.h"

#include <algorithm>

#include "reckon/base/error.h"
#include "reckon/base/philox.h"

namespace reckon {
namespace {
constexpr uint64_t kBatchSite = 0x62617463;  // keeps these draws apart from all others of the same seed

// Uniform in [0, n) by the high word of a product; off by less than n / 2^64.
int64_t uniform_below(int64_t n, uint32_t high, uint32_t low) {
  __extension__ typedef unsigned __int128 Wide;
  return int64_t(uint64_t(Wide(uint64_t(high) << 32 | low) * uint64_t(n) >> 64));
}
}  // namespace

Batches::Batches(Ref<Dataset> dataset, DataSplit split, int64_t seq_len, Order order, uint64_t seed)
    : dataset_(std::move(dataset)), split_(split), seq_len_(seq_len), order_(order), key_(mix_key(seed, kBatchSite)) {
  dataset_->check_fits(split, seq_len);
  // A sample ends with the target of its last input, so the last start is tokens - seq_len - 1.
  const int64_t tokens = dataset_->tokens(split);
  samples_ = order == Order::random ? tokens - seq_len : (tokens - 1) / seq_len;
}

int64_t Batches::start(int64_t sample) const {
  check(sample >= 0, "sample {} is negative", sample);
  if (order_ == Order::sequential) return sample % samples_ * seq_len_;
  const auto words = philox(key_, 0, uint64_t(sample));
  return uniform_below(samples_, words[0], words[1]);
}

void Batches::fill(int64_t first_sample, std::span<int32_t> inputs, std::span<int32_t> targets) const {
  const size_t length = size_t(seq_len_);
  check(inputs.size() == targets.size() && inputs.size() % length == 0,
        "inputs of {} and targets of {} tokens do not hold whole sequences of {}", inputs.size(), targets.size(), seq_len_);
  for (size_t row = 0; row < inputs.size() / length; ++row) {
    const int64_t at = start(first_sample + int64_t(row));
    const std::span<int32_t> input = inputs.subspan(row * length, length), target = targets.subspan(row * length, length);
    dataset_->read(split_, at + 1, target);
    dataset_->read(split_, at, input.first(1));
    std::copy(target.begin(), target.end() - 1, input.begin() + 1);
  }
}
}  // namespace reckon
