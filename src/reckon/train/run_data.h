// train/run_data: the batches of a run: from the text or token file that data.path names, or synthetic ones.
#pragma once
#include <memory>

#include "reckon/io/tokenizer.h"
#include "reckon/train/batch.h"
#include "reckon/train/config.h"

namespace reckon {

struct RunData {
  std::unique_ptr<BatchSource> train;
  std::unique_ptr<BatchSource> validation;  // null: no validation data
  int64_t validation_windows = 0;           // samples of one evaluation: all of the tail, or eval.batches micro-batches
  double validation_bytes_per_token = 0;    // 0: unknown
  Ref<Tokenizer> tokenizer;                 // null: synthetic data or a token file without one
  std::string description;                  // one line for people
  std::string note;                         // what they should know besides; "" if nothing
  std::string fingerprint;                  // of the tokens; "" for synthetic ones
};

/// Opens or makes the data of a run; texts are tokenized once into cache_dir, or with keep_cache = false, if they are not there, for this
/// time only. Throws Error (usage, corrupt) for unusable data: missing,
/// too short for seq_len + 1 tokens, or with token ids that model.vocab does not cover.
RunData open_run_data(const Config& config, const std::string& cache_dir, bool keep_cache = true);
/// For bpe:N that could learn fewer than N tokens from its text: one line that says so; else "".
std::string fewer_tokens_note(const std::string& spec, const Tokenizer& tokenizer);
}  // namespace reckon
