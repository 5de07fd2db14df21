// io/tokenizer: text to token ids and back, exactly, for any bytes. Knows no model and no data set.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reckon/base/ref.h"

namespace reckon {

/// What to do with special tokens ("<|endoftext|>") spelled out in a text.
enum class Specials : uint8_t {
  as_text,  // they are ordinary text: what a user types or a file holds cannot forge them
  as_token  // they become their token, as Hugging Face's encode does
};

/// Immutable; threads may share it. Two kinds: `bytes` (id = byte, vocabulary 256) and byte-level BPE.
/// decode(encode(x)) == x for every byte string x.
class Tokenizer final : public RefCounted {
 public:
  static Ref<Tokenizer> bytes();
  /// Trains byte-level BPE with GPT-2's split pattern on a text. Ids: 0..255 the bytes, then the merges in order, then `specials`. Fewer
  /// than vocab_size tokens if no pair of the text occurs twice any more. Equal texts give equal tokenizers at any number of threads; the
  /// rule for ties stands at train_bpe (io/bpe.h). Throws Error (usage) if vocab_size < 256 + specials.size().
  static Ref<Tokenizer> train(std::string_view text, size_t vocab_size, std::span<const std::string> specials = {});
  /// The same from a file, read in pieces.
  static Ref<Tokenizer> train_file(const std::string& path, size_t vocab_size, std::span<const std::string> specials = {});
  /// Reads a Hugging Face tokenizer.json: byte-level BPE with GPT-2's ByteLevel pre-tokenizer or a Split pattern. Truncation, padding and
  /// the post-processor (which adds BOS and the like) are the caller's business and not applied. Throws Error: usage if there is no such
  /// file; corrupt if it is malformed, or asks for something that is not done here (the line says what).
  static Ref<Tokenizer> load(const std::string& path);
  static Ref<Tokenizer> from_json(std::string_view json, const std::string& source);
  ~Tokenizer() override;

  /// Hugging Face tokenizer.json. A tokenizer that was loaded gives back the text it was loaded from, with all it said.
  std::string to_json() const;
  /// Writes to_json(), atomically.
  void save(const std::string& path) const;

  /// "bytes" or "bpe".
  std::string_view kind() const;
  size_t vocab_size() const;
  /// What its tables hold on the heap.
  int64_t memory_bytes() const;
  /// The bytes a token stands for, at least one. Throws Error for an id outside the vocabulary.
  std::string_view token(int32_t id) const;
  /// Id of an added token ("<|endoftext|>"), -1 if there is none.
  int32_t special_id(std::string_view content) const;
  /// XXH3-128 of all that decides encode and decode, as 32 hex digits.
  const std::string& fingerprint() const;

  /// Large texts are spread over threads; the ids never depend on that. Throws Error where a loaded tokenizer cannot encode a text as its
  /// authors do (a missing byte, characters that NFC would change), naming the place.
  std::vector<int32_t> encode(std::string_view text, Specials specials = Specials::as_text) const;
  void encode_append(std::string_view text, std::vector<int32_t>& ids, Specials specials = Specials::as_text) const;
  /// Throws Error for an id outside the vocabulary.
  std::string decode(std::span<const int32_t> ids) const;
  /// How many bytes these ids decode to.
  int64_t decoded_bytes(std::span<const int32_t> ids) const;

  /// The last position c at which a text that may go on can be cut: encode(left) and encode(right + what follows) then make up the encoding
  /// of the whole. 0 if there is none. For reading large files in pieces.
  size_t safe_cut(std::string_view text) const;

  /// The representation; private to io/tokenizer_*.cpp.
  struct Content;

 private:
  explicit Tokenizer(Content* content) : content_(content) {}
  static Ref<Tokenizer> make(Content* content);
  Content* content_;
};

/// Ids to text as they arrive, for a terminal: gives out whole UTF-8 characters only, and U+FFFD for bytes that never become one.
class StreamDecoder {
 public:
  explicit StreamDecoder(Ref<Tokenizer> tokenizer) : tokenizer_(std::move(tokenizer)) {}
  /// What can be shown after this token; may be empty.
  std::string push(int32_t id);
  /// What is left at the end: at most one unfinished character, shown as U+FFFD.
  std::string finish();

 private:
  Ref<Tokenizer> tokenizer_;
  std::string pending_;  // an unfinished character: at most 3 bytes
};

/// spec: `bytes`, `bpe:N` (trained on text_path once, then kept in cache_dir under a name made from N and the text's hash), or the path of
/// a tokenizer.json. Throws Error (usage) for anything else, and for bpe:N without a text.
Ref<Tokenizer> open_tokenizer(const std::string& spec, const std::string& text_path, const std::string& cache_dir);
}  // namespace reckon
