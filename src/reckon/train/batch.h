// train/batch: where token batches come from, and the tensors that hold one.
#pragma once
#include <vector>

#include "reckon/nn/decoder.h"
#include "reckon/train/config.h"

namespace reckon {

/// Where token batches come from. Sample i is the same sequence whenever and by whomever it is asked for.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  /// Fills `count` rows of seq_len tokens and their targets (the tokens shifted by one), samples first .. first + count - 1.
  virtual void fill(int64_t first, int64_t count, int64_t seq_len, int32_t* inputs, int32_t* targets) const = 0;
  /// The token that ends a document, which is its last one; -1: none does.
  virtual int32_t separator() const { return -1; }
};

/// Uniform random tokens, keyed by (seed, sample, position).
class SyntheticBatches final : public BatchSource {
 public:
  SyntheticBatches(int64_t vocab, uint64_t seed, int32_t separator = -1) : vocab_(vocab), seed_(seed), separator_(separator) {}
  void fill(int64_t first, int64_t count, int64_t seq_len, int32_t* inputs, int32_t* targets) const override;
  int32_t separator() const override { return separator_; }

 private:
  int64_t vocab_;
  uint64_t seed_;
  int32_t separator_;
};

/// Where a batch says what documents its rows hold.
enum class DocumentBounds : uint8_t {
  none,       // each row is one
  first,      // Documents::first
  positions,  // and Documents::positions
};
DocumentBounds document_bounds(const Config& config);
/// For each of `rows` rows of seq_len tokens: where its document begins in the row, and how far behind that it is.
void find_documents(const int32_t* tokens, int64_t rows, int64_t seq_len, int32_t separator, int32_t* first, int32_t* positions);

/// One micro-batch of tokens on a device, with its staging on the host.
class TokenBatch {
 public:
  TokenBatch() = default;
  /// Allocates its tensors (category data) and fills them with zeros.
  TokenBatch(Device& device, int64_t rows, int64_t seq_len, DocumentBounds bounds = DocumentBounds::none);
  /// Samples first .. first + count - 1 of `source` in the first `count` rows. The loss ignores the rows after them, so that a micro-batch
  /// that is not full has the shapes, and the plan, of one that is. On meta the source is not asked.
  void load(const BatchSource& source, int64_t first, int64_t count);

  int64_t rows() const { return inputs_.shape()[0]; }
  const Tensor& inputs() const { return inputs_; }    // i32 [rows, seq_len]
  const Tensor& targets() const { return targets_; }  // likewise
  const Documents& documents() const { return documents_; }

 private:
  Tensor inputs_, targets_;
  Documents documents_;
  std::vector<int32_t> host_inputs_, host_targets_, host_first_, host_positions_;  // empty on meta
};
}  // namespace reckon
