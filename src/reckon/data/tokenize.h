// data/tokenize: a text file to token ids, of any size in bounded memory.
#pragma once
#include <cstdint>
#include <string>

#include "reckon/data/token_file.h"
#include "reckon/io/tokenizer.h"

namespace reckon {

struct TokenizedText {
  int64_t bytes = 0;
  int64_t tokens = 0;
  std::string text_hash;  // XXH3-128 of the bytes that were tokenized
};

/// Encodes the file window by window, cut where the tokenizer allows it: the ids are those of the whole text. writer: where they go, may be
/// null; the caller finishes it. progress: called after each window with bytes done and in all; may be null. Throws as InputFile and encode
/// do.
TokenizedText tokenize_text(const Tokenizer& tokenizer, const std::string& path, TokenFileWriter* writer,
                            void (*progress)(int64_t, int64_t) = nullptr);
}  // namespace reckon
