#include "reckon/train/run_data.h"

#include <algorithm>

#include "reckon/base/text.h"
#include "reckon/data/batches.h"

namespace reckon {
namespace {

class DatasetBatches final : public BatchSource {
 public:
  DatasetBatches(Batches batches, int32_t separator) : batches_(std::move(batches)), separator_(separator) {}
  void fill(int64_t first, int64_t count, int64_t seq_len, int32_t* inputs, int32_t* targets) const override {
    const size_t tokens = size_t(count * seq_len);
    batches_.fill(first, {inputs, tokens}, {targets, tokens});
  }
  int32_t separator() const override { return separator_; }

 private:
  Batches batches_;
  int32_t separator_;
};

// The token that ends a document; -1 if documents are joined. tokenizer: of a token file, which alone may hold special tokens.
int32_t separator_of(const Config& config, const Ref<Tokenizer>& tokenizer) {
  if (config.data.documents == DocumentUse::joined) return -1;
  if (config.data.separator >= 0) return int32_t(config.data.separator);
  for (const char* name : {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"})
    if (const int32_t id = tokenizer ? tokenizer->special_id(name) : -1; id >= 0) return id;
  fail_as(Failure::usage, "data.documents = separate needs data.separator=ID, the token that ends a document: {}",
          config.data.path.empty()          ? "synthetic tokens have no end-of-text token"
          : is_token_file(config.data.path) ? "no tokenizer is known for this token file that has an end-of-text token"
                                            : "a text is tokenized without special tokens (the line feed of data.tokenizer=bytes is 10)");
}
}  // namespace

std::string fewer_tokens_note(const std::string& spec, const Tokenizer& tokenizer) {
  if (!spec.starts_with("bpe:")) return "";
  const int64_t asked = std::stoll(spec.substr(4)), learned = int64_t(tokenizer.vocab_size());
  if (learned >= asked) return "";
  return text("data.tokenizer={} learned only {}: no other pair occurs twice in the text; model.vocab={} is enough", spec,
              counted(learned, "token"), learned);
}

RunData open_run_data(const Config& config, const std::string& cache_dir, bool keep_cache) {
  RunData data;
  const uint64_t seed = uint64_t(config.seed);
  if (config.model.cruncher || config.data.path.empty()) {
    data.train = std::make_unique<SyntheticBatches>(config.model.vocab, seed, separator_of(config, {}));
    data.description = config.model.cruncher ? "synthetic regression" : "synthetic tokens (no data.path)";
    return data;
  }
  const Ref<Dataset> set = Dataset::open({.path = config.data.path,
                                          .tokenizer = config.data.tokenizer,
                                          .cache_dir = cache_dir,
                                          .keep_cache = keep_cache,
                                          .validation_fraction = config.data.validation_fraction,
                                          .model_vocab = config.model.vocab});
  const int64_t seq_len = config.train.seq_len;
  const int32_t separator = separator_of(config, is_token_file(config.data.path) ? set->tokenizer() : Ref<Tokenizer>());
  const auto order = config.data.order == SampleOrder::sequential ? Batches::Order::sequential : Batches::Order::random;
  data.train = std::make_unique<DatasetBatches>(Batches(set, DataSplit::train, seq_len, order, seed), separator);
  data.tokenizer = set->tokenizer();
  if (data.tokenizer) data.note = fewer_tokens_note(config.data.tokenizer, *data.tokenizer);
  data.fingerprint = set->fingerprint();
  data.description = text("{} of {}", counted(set->tokens(DataSplit::train), "training token"), set->name());
  if (set->tokens(DataSplit::validation) < seq_len + 1) return data;
  Batches validation(set, DataSplit::validation, seq_len, Batches::Order::sequential, seed);
  const int64_t whole = validation.samples() / config.train.micro_batch;  // micro-batches; compared first, as eval.batches may be any number
  data.validation_windows = config.eval.batches > whole ? validation.samples() : config.eval.batches * config.train.micro_batch;
  const int64_t bytes = set->text_bytes(DataSplit::validation);
  if (bytes > 0) data.validation_bytes_per_token = double(bytes) / double(set->tokens(DataSplit::validation));
  data.validation = std::make_unique<DatasetBatches>(std::move(validation), separator);
  return data;
}
}  // namespace reckon
