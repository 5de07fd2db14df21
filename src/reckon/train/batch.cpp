#include "reckon/train/batch.h"

#include <algorithm>

#include "reckon/base/philox.h"
#include "reckon/engine/context.h"

namespace reckon {
namespace {
constexpr uint64_t kSyntheticSite = 0x73796E7468;  // keys of different uses never meet
}

void SyntheticBatches::fill(int64_t first, int64_t count, int64_t seq_len, int32_t* inputs, int32_t* targets) const {
  const uint64_t key = mix_key(seed_, kSyntheticSite);
  for (int64_t row = 0; row < count; ++row) {
    const auto token = [&](int64_t t) { return int32_t(philox(key, uint64_t(first + row), uint64_t(t))[0] % uint64_t(vocab_)); };
    for (int64_t t = 0; t < seq_len; ++t) {
      inputs[row * seq_len + t] = token(t);
      targets[row * seq_len + t] = token(t + 1);
    }
  }
}

DocumentBounds document_bounds(const Config& c) {
  if (c.data.documents == DocumentUse::joined) return DocumentBounds::none;
  return c.model.position == PositionKind::learned ? DocumentBounds::positions : DocumentBounds::first;
}

void find_documents(const int32_t* tokens, int64_t rows, int64_t seq_len, int32_t separator, int32_t* first, int32_t* positions) {
  for (int64_t row = 0; row < rows; ++row) {
    int64_t start = 0;
    for (int64_t t = 0; t < seq_len; ++t) {
      const int64_t at = row * seq_len + t;
      first[at] = int32_t(start);
      positions[at] = int32_t(t - start);
      if (tokens[at] == separator) start = t + 1;
    }
  }
}

TokenBatch::TokenBatch(Device& device, int64_t rows, int64_t seq_len, DocumentBounds bounds) {
  const CategoryScope data(Category::data);
  inputs_ = zeros(device, {{rows, seq_len}, DType::i32});
  targets_ = zeros(device, {{rows, seq_len}, DType::i32});
  if (bounds != DocumentBounds::none) documents_.first = zeros(device, {{rows, seq_len}, DType::i32});
  if (bounds == DocumentBounds::positions) documents_.positions = zeros(device, {{rows, seq_len}, DType::i32});
  if (device.is_meta()) return;
  for (std::vector<int32_t>* host : {&host_inputs_, &host_targets_}) host->resize(size_t(inputs_.numel()));
  if (bounds == DocumentBounds::none) return;
  for (std::vector<int32_t>* host : {&host_first_, &host_positions_}) host->resize(size_t(inputs_.numel()));
}

void TokenBatch::load(const BatchSource& source, int64_t first, int64_t count) {
  const int64_t seq_len = inputs_.shape()[1], bytes = inputs_.spec().bytes();
  if (!inputs_.device().is_meta()) {
    source.fill(first, count, seq_len, host_inputs_.data(), host_targets_.data());
    std::fill(host_inputs_.begin() + count * seq_len, host_inputs_.end(), 0);
    std::fill(host_targets_.begin() + count * seq_len, host_targets_.end(), kIgnoredTarget);
  }
  inputs_.write(host_inputs_.data(), bytes);
  targets_.write(host_targets_.data(), bytes);
  if (!documents_.first.defined()) return;
  if (!inputs_.device().is_meta())
    find_documents(host_inputs_.data(), rows(), seq_len, source.separator(), host_first_.data(), host_positions_.data());
  documents_.first.write(host_first_.data(), bytes);
  if (documents_.positions.defined()) documents_.positions.write(host_positions_.data(), bytes);
}
}  // namespace reckon
