#include "reckon/data/dataset.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "reckon/base/error.h"
#include "reckon/base/philox.h"
#include "reckon/base/text.h"
#include "reckon/data/tokenize.h"

namespace reckon {
namespace {
constexpr int64_t kCheckedTokens = int64_t(1) << 29;  // 1 GiB of u16
constexpr int64_t kMaxSeqLen = int64_t(1) << 40;
constexpr uint64_t kSyntheticSite = 0x73796E74;  // keeps these draws apart from all others of the same seed

Ref<TokenFile> checked(const std::string& path, int64_t vocab) {
  Ref<TokenFile> file = TokenFile::open(path, vocab);
  if (file->size() <= kCheckedTokens) file->check_ids();
  return file;
}

Ref<TokenFile> open_text(const DatasetOptions& options, const Tokenizer& tokenizer) {
  const int64_t vocab = int64_t(tokenizer.vocab_size());
  const std::string text_hash = hash_of_file(options.path);
  // The number is the version of this cache's contents.
  const std::string key = hash_of(text("tokens 1 {} {}", text_hash, tokenizer.fingerprint())).substr(0, 16);
  const std::string cached = join_path(options.cache_dir, text("tokens-{}.npy", key));
  if (path_exists(cached)) {
    try {
      return checked(cached, vocab);
    } catch (const Error& error) {
      // A damaged cache is replaced; an id outside the vocabulary, elsewhere a mistake of usage, is damage here.
      if (error.kind() != Failure::corrupt && error.kind() != Failure::usage) throw;
    }
  }
  std::unique_ptr<PassingFolder> temporary;
  std::string path = cached;
  if (options.keep_cache) {
    if (!options.cache_dir.empty()) make_directories(options.cache_dir);
  } else {
    temporary = std::make_unique<PassingFolder>();
    path = join_path(temporary->path(), "tokens.npy");
  }
  TokenFileWriter writer(path, vocab);
  const TokenizedText tokenized = tokenize_text(tokenizer, options.path, &writer, options.progress);
  // The cache is named by the text's hash: what was tokenized must be what was hashed.
  check(tokenized.text_hash == text_hash, "{} was changed while it was tokenized: start again", options.path);
  writer.finish();
  return checked(path, vocab);  // an open file outlives its name
}

// A token file does not say what its ids stand for: only a tokenizer that was named on purpose, or bytes that must be bytes, count.
Ref<Tokenizer> tokenizer_of_tokens(const DatasetOptions& options) {
  check_as(Failure::usage, !options.tokenizer.starts_with("bpe:"),
           "{} holds token ids already: data.tokenizer={} would have to be trained on its text; name the tokenizer.json it was made with",
           options.path, options.tokenizer);
  if (options.tokenizer.empty()) return {};
  if (options.tokenizer == "bytes" && options.model_vocab != 256) return {};
  return open_tokenizer(options.tokenizer, "", options.cache_dir);
}
}  // namespace

const char* to_string(DataSplit split) { return split == DataSplit::train ? "training" : "validation"; }

void Dataset::split_tokens(int64_t total, double validation_fraction) {
  check_as(Failure::usage, validation_fraction >= 0 && validation_fraction < 1, "data.validation_fraction = {} is outside [0, 1)",
           validation_fraction);
  total_tokens_ = total;
  train_tokens_ = total - int64_t(std::floor(double(total) * validation_fraction));
}

Ref<Dataset> Dataset::open(const DatasetOptions& options) {
  Ref<Dataset> dataset(new Dataset);
  dataset->name_ = printable_line(options.path, 500);
  const bool is_tokens = is_token_file(options.path);
  if (!is_tokens)
    check_as(Failure::usage, InputFile(options.path).size() > 0, "{} is empty: a text of at least train.seq_len + 1 tokens is needed",
             dataset->name_);
  dataset->tokenizer_ = is_tokens ? tokenizer_of_tokens(options) : open_tokenizer(options.tokenizer, options.path, options.cache_dir);
  const int64_t tokenizer_vocab = dataset->tokenizer_ ? int64_t(dataset->tokenizer_->vocab_size()) : 0;
  check_as(Failure::usage, options.model_vocab == 0 || options.model_vocab >= tokenizer_vocab,
           "model.vocab = {} is smaller than the {} tokens of data.tokenizer={}: set model.vocab={}", options.model_vocab, tokenizer_vocab,
           options.tokenizer, tokenizer_vocab);
  dataset->vocab_ = tokenizer_vocab ? tokenizer_vocab : options.model_vocab;
  dataset->file_ = is_tokens ? checked(options.path, dataset->vocab_) : open_text(options, *dataset->tokenizer_);
  dataset->split_tokens(dataset->file_->size(), options.validation_fraction);
  return dataset;
}

Ref<Dataset> Dataset::synthetic(int64_t vocab, int64_t tokens, double validation_fraction, uint64_t seed) {
  check_as(Failure::usage, vocab > 0 && vocab <= INT32_MAX && tokens > 0, "{} synthetic tokens of a vocabulary of {} are not possible",
           tokens, vocab);
  Ref<Dataset> dataset(new Dataset);
  dataset->name_ = "synthetic data";
  dataset->vocab_ = vocab;
  dataset->seed_ = seed;
  dataset->split_tokens(tokens, validation_fraction);
  return dataset;
}

void Dataset::read(DataSplit split, int64_t first, std::span<int32_t> into) const {
  const int64_t count = tokens(split);
  check(first >= 0 && first <= count && int64_t(into.size()) <= count - first, "{}: {} tokens from {} on are outside the {} split of {}",
        name_, into.size(), first, split, count);
  if (split == DataSplit::validation) first += train_tokens_;
  if (file_) return file_->read(first, into);
  const uint64_t key = mix_key(seed_, kSyntheticSite);
  for (size_t i = 0; i < into.size(); ++i) {
    const uint64_t word = philox(key, 0, uint64_t(first) + i)[0];
    into[i] = int32_t(word * uint64_t(vocab_) >> 32);
  }
}

std::string Dataset::fingerprint() const {
  constexpr int64_t kPiece = 1 << 20;
  Hash128 hash;
  hash.update(std::as_bytes(std::span(&total_tokens_, 1)));
  std::vector<int32_t> ids;
  const int64_t seen = file_ ? std::min(total_tokens_, kCheckedTokens) : 0;
  for (int64_t at = 0; at < seen; at += kPiece) {
    ids.resize(size_t(std::min(kPiece, seen - at)));
    file_->read(at, ids);
    hash.update(std::as_bytes(std::span(ids)));
  }
  return hash.hex();
}

int64_t Dataset::text_bytes(DataSplit split) const {
  if (!tokenizer_) return -1;
  int32_t ids[4096];
  int64_t bytes = 0;
  for (int64_t first = 0; first < tokens(split);) {
    const std::span part = std::span(ids).first(size_t(std::min<int64_t>(std::size(ids), tokens(split) - first)));
    read(split, first, part);
    bytes += tokenizer_->decoded_bytes(part);
    first += int64_t(part.size());
  }
  return bytes;
}

void Dataset::check_fits(DataSplit split, int64_t seq_len) const {
  check_as(Failure::usage, seq_len >= 1 && seq_len <= kMaxSeqLen, "train.seq_len = {} is outside [1, {}]", seq_len, kMaxSeqLen);
  if (tokens(split) > seq_len) return;
  const bool train = split == DataSplit::train;
  fail_as(Failure::usage,
          "{}: {} for {}, but train.seq_len = {} needs at least {} (seq_len + 1): use more data, a smaller train.seq_len or a "
          "{} data.validation_fraction",
          name_, counted(tokens(split), "token"), split, seq_len, seq_len + 1, train ? "smaller" : "larger");
}
}  // namespace reckon
