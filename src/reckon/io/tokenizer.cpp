#include "reckon/io/tokenizer.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "reckon/base/error.h"
#include "reckon/base/parallel.h"
#include "reckon/io/files.h"
#include "reckon/io/tokenizer_content.h"

namespace reckon {
namespace {
// Threads share the work from here on, in chunks of about kChunkBytes cut at safe places.
constexpr size_t kParallelBytes = size_t(1) << 19, kChunkBytes = size_t(1) << 18;

void append_number(std::string& out, uint64_t value) { out.append(reinterpret_cast<const char*>(&value), 8); }
void append_bytes(std::string& out, std::string_view bytes) {
  append_number(out, bytes.size());
  out += bytes;
}

std::string fingerprint_of(const Tokenizer::Content& c) {
  std::string all = "reckon tokenizer 1";
  append_bytes(all, c.is_bytes() ? "" : c.pattern->regex());
  append_number(all, uint64_t(c.nfc) | uint64_t(!c.model.whole.empty()) << 1);
  append_number(all, c.model.tokens.size());
  for (size_t id = 0; id < c.model.tokens.size(); ++id) append_bytes(all, c.model.tokens[id]);
  for (uint32_t id : c.model.byte_id) append_number(all, id);
  append_number(all, c.model.merges.size());
  for (const BpeMerge& merge : c.model.merges) {
    append_number(all, uint64_t(merge.left) << 32 | merge.right);
    append_number(all, merge.id);
  }
  for (const AddedToken& token : c.added) {
    append_bytes(all, token.content);
    append_number(all, uint64_t(token.id) << 2 | uint64_t(token.special) << 1 | uint64_t(token.normalized));
  }
  return hash_of(all);
}

// What one thread needs to encode.
struct Lane {
  PieceScanner scanner;
  BpeEncoder encoder;
  Lane(const Tokenizer::Content& c, size_t text_bytes) : scanner(*c.pattern), encoder(c.model, text_bytes) {}
  void encode(std::string_view text, std::vector<int32_t>& ids) {
    scanner.start(text);
    for (std::string_view piece; scanner.next(piece);) encoder.encode(piece, ids);
  }
};

// Text between added tokens.
void encode_plain(const Tokenizer::Content& c, std::string_view text, std::vector<int32_t>& ids) {
  if (text.size() < kParallelBytes || !c.pattern->allows_cuts()) return Lane(c, text.size()).encode(text, ids);
  std::vector<std::string_view> chunks;
  size_t window = kChunkBytes;
  while (!text.empty()) {
    const size_t cut = window < text.size() ? safe_cut(text.substr(0, window)) : text.size();
    window = cut ? kChunkBytes : 2 * window;
    if (!cut) continue;
    chunks.push_back(text.substr(0, cut));
    text.remove_prefix(cut);
  }
  std::vector<std::vector<int32_t>> parts(chunks.size());
  const int lanes = thread_count();
  std::vector<std::unique_ptr<Lane>> states(static_cast<size_t>(lanes));
  parallel_for(
      int64_t(chunks.size()),
      [&](int64_t task, int lane) {
        auto& state = states[size_t(lane)];
        if (!state) state = std::make_unique<Lane>(c, SIZE_MAX);
        state->encode(chunks[size_t(task)], parts[size_t(task)]);
      },
      lanes);
  size_t total = ids.size();
  for (const auto& part : parts) total += part.size();
  ids.reserve(total);
  for (auto& part : parts) {
    ids.insert(ids.end(), part.begin(), part.end());
    part = {};
  }
}

const AddedToken* added_at(const Tokenizer::Content& c, std::string_view text, bool normalized, Specials specials) {
  for (const AddedToken& token : c.added)
    if (token.normalized == normalized && (specials == Specials::as_token || !token.special) && text.starts_with(token.content))
      return &token;
  return nullptr;
}

// Added tokens first: the leftmost, of several the longest; those that ask for normalized text after the others, as Hugging Face does.
void encode_with_added(const Tokenizer::Content& c, std::string_view text, bool normalized, Specials specials, std::vector<int32_t>& ids) {
  const auto encode_rest = [&](std::string_view part) {
    if (part.empty()) return;
    if (normalized) {
      encode_plain(c, part, ids);
    } else {
      encode_with_added(c, part, true, specials, ids);
    }
  };
  bool starts[256] = {};
  for (const AddedToken& token : c.added)
    if (token.normalized == normalized && (specials == Specials::as_token || !token.special)) starts[uint8_t(token.content[0])] = true;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const AddedToken* token = starts[uint8_t(text[i])] ? added_at(c, text.substr(i), normalized, specials) : nullptr;
    if (!token) {
      ++i;
      continue;
    }
    encode_rest(text.substr(begin, i - begin));
    ids.push_back(int32_t(token->id));
    begin = i += token->content.size();
  }
  encode_rest(text.substr(begin));
}

void encode_bytes(std::string_view text, std::vector<int32_t>& ids) {
  const size_t before = ids.size();
  ids.resize(before + text.size());
  for (size_t i = 0; i < text.size(); ++i) ids[before + i] = uint8_t(text[i]);
}
}  // namespace

Tokenizer::~Tokenizer() { delete content_; }

Ref<Tokenizer> Tokenizer::make(Content* content) {
  Ref<Tokenizer> tokenizer(new Tokenizer(content));
  bool plain = content->model.tokens.size() == 256 && content->model.merges.empty() && content->added.empty() && !content->nfc;
  for (uint32_t byte = 0; byte < 256; ++byte) plain = plain && content->model.byte_id[byte] == byte;
  // A BPE without merges is the kind `bytes`, however it came here: one behaviour, one fingerprint.
  if (plain) {
    content->pattern = {};
    content->model.whole = {};
  }
  std::stable_sort(content->added.begin(), content->added.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.content.size() > b.content.size(); });
  content->fingerprint = fingerprint_of(*content);
  return tokenizer;
}

Ref<Tokenizer> Tokenizer::bytes() {
  auto* content = new Content;
  content->model = train_bpe(PieceCounts(), 256);
  return make(content);
}

std::string_view Tokenizer::kind() const { return content_->is_bytes() ? "bytes" : "bpe"; }
size_t Tokenizer::vocab_size() const { return content_->model.tokens.size(); }
int64_t Tokenizer::memory_bytes() const {
  const BpeModel& m = content_->model;
  return int64_t(sizeof *content_ + m.tokens.memory_bytes() + m.merges.capacity() * sizeof(BpeMerge) + m.table.memory_bytes() +
                 m.whole.memory_bytes() + content_->json.capacity());
}
const std::string& Tokenizer::fingerprint() const { return content_->fingerprint; }

std::string_view Tokenizer::token(int32_t id) const {
  check(id >= 0 && size_t(id) < vocab_size(), "token id {} is outside the tokenizer's vocabulary of {}", id, vocab_size());
  return content_->model.tokens[size_t(id)];
}

int32_t Tokenizer::special_id(std::string_view content) const {
  for (const AddedToken& token : content_->added)
    if (token.content == content) return int32_t(token.id);
  return -1;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, Specials specials) const {
  std::vector<int32_t> ids;
  encode_append(text, ids, specials);
  return ids;
}

void Tokenizer::encode_append(std::string_view text, std::vector<int32_t>& ids, Specials specials) const {
  if (content_->is_bytes()) return encode_bytes(text, ids);
  if (content_->nfc) check_nfc_stable(text);
  if (content_->added.empty()) {
    if (!text.empty()) encode_plain(*content_, text, ids);
    return;
  }
  encode_with_added(*content_, text, false, specials, ids);
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (int32_t id : ids) text += token(id);
  return text;
}

int64_t Tokenizer::decoded_bytes(std::span<const int32_t> ids) const {
  int64_t bytes = 0;
  for (int32_t id : ids) bytes += int64_t(token(id).size());
  return bytes;
}

size_t Tokenizer::safe_cut(std::string_view text) const {
  if (content_->is_bytes()) return text.size();
  if (!content_->pattern->allows_cuts()) return 0;
  // No added token may lie across the cut, not even one that is not complete yet.
  const size_t longest = content_->added.empty() ? 1 : content_->added.front().content.size();
  for (size_t cut = text.size() + 1 - std::min(text.size() + 1, longest); cut > 0;) {
    cut = reckon::safe_cut(text.substr(0, cut + 1 < text.size() ? cut + 1 : text.size()));
    bool inside = false;
    for (const AddedToken& token : content_->added)
      for (size_t n = 1; n < token.content.size() && n <= cut && !inside; ++n) inside = text.substr(cut - n).starts_with(token.content);
    if (!inside) return cut;
    --cut;
  }
  return 0;
}

std::string StreamDecoder::push(int32_t id) {
  pending_ += tokenizer_->token(id);
  std::string shown;
  size_t at = 0;
  while (at < pending_.size()) {
    const std::string_view rest = std::string_view(pending_).substr(at);
    if (const size_t n = utf8_character(rest.substr(0, 4))) {
      shown += rest.substr(0, n);
      at += n;
      continue;
    }
    // Unfinished, if some continuation bytes would make it a character: try the lowest and the highest.
    std::string low(rest), high(rest);
    bool unfinished = false;
    for (size_t n = rest.size(); n < 4 && !unfinished; ++n) {
      low += char(0x80);
      high += char(0xBF);
      unfinished = utf8_character(low) == low.size() || utf8_character(high) == high.size();
    }
    if (unfinished) break;
    shown += "\xEF\xBF\xBD";
    ++at;
  }
  pending_.erase(0, at);
  return shown;
}

std::string StreamDecoder::finish() {
  const bool unfinished = !pending_.empty();
  pending_.clear();
  return unfinished ? "\xEF\xBF\xBD" : "";
}
}  // namespace reckon
