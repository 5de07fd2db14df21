// data/dataset: the tokens of a run, from a text (tokenized once) or a token file, cut into training and validation. Knows no batches.
#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "reckon/base/ref.h"
#include "reckon/data/token_file.h"
#include "reckon/io/tokenizer.h"

namespace reckon {

enum class DataSplit : uint8_t { train, validation };

struct DatasetOptions {
  std::string path;                   // a text or a token file
  std::string tokenizer = "bytes";    // bytes | bpe:N | a path
  std::string cache_dir;              // where the tokens of a text and a trained tokenizer are kept; created if need be
  bool keep_cache = true;             // false: cache_dir is only looked at; what is not there is made in a folder that goes at once
  double validation_fraction = 0.05;  // the tail, rounded down to tokens
  int64_t model_vocab = 0;            // model.vocab, to be checked against; 0: not known
  void (*progress)(int64_t bytes_done, int64_t bytes_total) = nullptr;  // while a text is tokenized
};

class Dataset : public RefCounted {
 public:
  /// A text is tokenized to cache_dir/tokens-KEY.npy, KEY from the text's and the tokenizer's contents, and read from there ever after; the
  /// memory this takes does not grow with the text (except for split patterns that are not ours: then the text is read whole). Any bytes
  /// are text. For a token file the tokenizer is known if it is a path, or `bytes` with a model_vocab of 256.
  /// Throws Error: usage for missing paths, a vocabulary larger than the model's, bpe:N for a token file; corrupt for damaged or empty
  /// files. Ids are checked at once up to 1 GiB, later ones when they are read.
  static Ref<Dataset> open(const DatasetOptions& options);
  /// Uniform random tokens below `vocab`, a pure function of seed and position; nothing is stored. For benchmarks.
  static Ref<Dataset> synthetic(int64_t vocab, int64_t tokens, double validation_fraction, uint64_t seed);

  /// Empty if the data says nothing about text.
  const Ref<Tokenizer>& tokenizer() const { return tokenizer_; }
  /// Ids are below this: the tokenizer's vocabulary, or else model_vocab; 0 if neither is known.
  int64_t vocab() const { return vocab_; }
  /// How the data is called in messages.
  const std::string& name() const { return name_; }

  int64_t tokens(DataSplit split) const { return split == DataSplit::train ? train_tokens_ : total_tokens_ - train_tokens_; }
  /// Tokens [first, first + into.size()) of the split. Allocates nothing; threads may share the object.
  void read(DataSplit split, int64_t first, std::span<int32_t> into) const;
  /// Bytes of text that the split's tokens stand for: for bits per byte. Reads the split once. -1 if there is no tokenizer.
  int64_t text_bytes(DataSplit split) const;
  /// Hash of the tokens, whatever kind of file holds them: what a continued run must find again. Of more than 2^29 tokens, of their number
  /// and the first 2^29.
  std::string fingerprint() const;
  /// Throws Error (usage) unless the split holds a sequence: seq_len inputs and the target after the last of them.
  void check_fits(DataSplit split, int64_t seq_len) const;

 private:
  Dataset() = default;
  void split_tokens(int64_t total, double validation_fraction);

  std::string name_;
  Ref<Tokenizer> tokenizer_;
  Ref<TokenFile> file_;  // empty: synthetic
  uint64_t seed_ = 0;    // of synthetic tokens
  int64_t vocab_ = 0;
  int64_t total_tokens_ = 0, train_tokens_ = 0;
};

const char* to_string(DataSplit split);
}  // namespace reckon
