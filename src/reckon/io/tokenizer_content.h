// io/tokenizer_content: what a Tokenizer holds; shared by the files that build, use and store it, and by nobody else.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "reckon/io/bpe.h"
#include "reckon/io/pretokenize.h"
#include "reckon/io/tokenizer.h"

namespace reckon {

/// A token that is found in the text by its spelling, before the text is split.
struct AddedToken {
  std::string content;
  uint32_t id = 0;
  bool special = false;     // only recognized when the caller asks for Specials::as_token
  bool normalized = false;  // looked for after those that are not
};

struct Tokenizer::Content {
  BpeModel model;                 // all tokens' bytes, also of added ones
  Ref<SplitPattern> pattern;      // none for the kind `bytes`
  std::vector<AddedToken> added;  // longest first
  bool nfc = false;               // the text must be in normalization form C
  std::string json;               // what it was loaded from; empty if trained
  std::string fingerprint;

  bool is_bytes() const { return !pattern; }
};

/// The 256 characters that stand for bytes in tokenizer.json: printable Latin-1 stands for itself, the other 68 for U+0100 on.
uint32_t byte_level_character(uint8_t byte);
/// Bytes as such characters in UTF-8.
std::string byte_level_spelling(std::string_view bytes);
/// The reverse; false if a character stands for no byte.
bool byte_level_bytes(std::string_view spelling, std::string& bytes);
/// Throws Error if the (valid UTF-8 part of the) text may change under NFC. Strict: some text that NFC would leave alone is refused too.
void check_nfc_stable(std::string_view text);
}  // namespace reckon
