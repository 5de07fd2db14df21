// io/tokenizer_json: Hugging Face's tokenizer.json, read with suspicion. What is not done here exactly as its authors do is refused.
#include <algorithm>
#include <memory>
#include <unordered_map>

#include "reckon/base/error.h"
#include "reckon/base/text.h"
#include "reckon/io/files.h"
#include "reckon/io/json.h"
#include "reckon/io/tokenizer_content.h"

namespace reckon {
namespace {
constexpr size_t kMaxFileBytes = size_t(128) << 20;
constexpr uint64_t kMaxTokens = uint64_t(1) << 24;

class Reader {
 public:
  Reader(const JsonDocument& document, Tokenizer::Content& content)
      : root_(document.root()), source_(document.source()), content_(content) {}
  void read() {
    refuse_unless_same(root_, "version", "1.0");
    read_normalizer();
    read_pre_tokenizer();
    if (is_given(root_, "decoder") && type_of(root_.get("decoder")) != "ByteLevel")
      refuse(root_.get("decoder"), "the decoder must be ByteLevel");
    read_added();
    read_vocab();
    read_merges();
  }

 private:
  [[noreturn]] static void refuse(Json at, std::string_view what) { at.fail_here(text("cannot be used: {}", what)); }
  static bool is_given(Json object, std::string_view key) { return object.has(key) && !object.get(key).is_null(); }
  static bool flag(Json object, std::string_view key, bool otherwise) {
    return is_given(object, key) ? object.get(key).boolean() : otherwise;
  }
  static std::string_view type_of(Json object) { return object.get("type").string(); }
  static void refuse_unless_same(Json object, std::string_view key, std::string_view value) {
    if (is_given(object, key) && object.get(key).string() != value) refuse(object.get(key), text("only '{}' is known", value));
  }

  void read_normalizer();
  void read_pre_tokenizer();
  void read_byte_level(Json byte_level, bool use_regex);
  void read_split(Json split);
  void read_added();
  void read_vocab();
  void place(uint32_t id, std::string_view bytes, Json at);
  void read_merges();
  uint32_t part_id(std::string_view part, Json at) const;

  const Json root_;
  const std::string& source_;
  Tokenizer::Content& content_;
  std::unordered_map<std::string_view, uint32_t> ids_;  // model.vocab by spelling
};

void Reader::read_normalizer() {
  if (!is_given(root_, "normalizer")) return;
  const Json normalizer = root_.get("normalizer");
  if (type_of(normalizer) != "NFC") refuse(normalizer, "the only normalizer known is NFC");
  content_.nfc = true;
}

void Reader::read_byte_level(Json byte_level, bool use_regex) {
  if (type_of(byte_level) != "ByteLevel") refuse(byte_level, "only byte-level BPE is known, and ByteLevel must be the last pre-tokenizer");
  if (flag(byte_level, "add_prefix_space", true)) refuse(byte_level, "add_prefix_space must be false");
  if (flag(byte_level, "use_regex", true) != use_regex)
    refuse(byte_level, use_regex ? "use_regex must be true where there is no Split" : "use_regex must be false after a Split");
}

void Reader::read_split(Json split) {
  if (type_of(split) != "Split") refuse(split, "the pre-tokenizers known are ByteLevel, and Split followed by ByteLevel");
  if (split.get("behavior").string() != "Isolated" || flag(split, "invert", false))
    refuse(split, "behavior must be Isolated, not inverted");
  const Json pattern = split.get("pattern");
  if (!pattern.has("Regex")) refuse(pattern, "a Regex is needed");
  content_.pattern = SplitPattern::compile(pattern.get("Regex").string(), source_);
}

void Reader::read_pre_tokenizer() {
  const Json pre = root_.get("pre_tokenizer");
  if (pre.is_null()) refuse(pre, "a ByteLevel pre-tokenizer is needed");
  if (type_of(pre) != "Sequence") {
    read_byte_level(pre, true);
    content_.pattern = SplitPattern::compile(kGpt2Pattern, source_);
    return;
  }
  const Json list = pre.get("pretokenizers");
  if (!list.is_array() || list.size() < 1 || list.size() > 2) refuse(list, "it must be [ByteLevel] or [Split, ByteLevel]");
  if (list.size() == 1) {
    read_byte_level(list.at(0), true);
    content_.pattern = SplitPattern::compile(kGpt2Pattern, source_);
  } else {
    read_split(list.at(0));
    read_byte_level(list.at(1), false);
  }
}

void Reader::read_added() {
  if (!is_given(root_, "added_tokens")) return;
  for (Json entry : root_.get("added_tokens")) {
    AddedToken token;
    token.content = entry.get("content").string();
    token.id = uint32_t(entry.get("id").unsigned_integer(kMaxTokens - 1));
    token.special = flag(entry, "special", false);
    token.normalized = flag(entry, "normalized", true);
    if (token.content.empty()) refuse(entry, "an added token needs content");
    for (const char* key : {"single_word", "lstrip", "rstrip"})
      if (flag(entry, key, false)) refuse(entry, text("added tokens with {} are not known", key));
    content_.added.push_back(std::move(token));
  }
  auto by_content = content_.added;
  std::sort(by_content.begin(), by_content.end(), [](auto& a, auto& b) { return a.content < b.content; });
  for (size_t i = 1; i < by_content.size(); ++i)
    if (by_content[i].content == by_content[i - 1].content)
      root_.get("added_tokens").fail_here(text("has the token '{}' twice", printable_line(by_content[i].content, 60)));
}

void Reader::read_vocab() {
  const Json model = root_.get("model");
  if (model.has("type") && model.get("type").string() != "BPE") refuse(model.get("type"), "only BPE is known");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (is_given(model, key) && !model.get(key).string().empty()) refuse(model.get(key), "byte-level BPE has none");
  if (is_given(model, "dropout") && model.get("dropout").number() != 0) refuse(model.get("dropout"), "encoding must not be random");
  if (flag(model, "byte_fallback", false)) refuse(model.get("byte_fallback"), "only byte-level BPE is known");
  const Json vocab = model.get("vocab");
  if (!vocab.is_object()) vocab.fail_here("must be an object of token: id");

  // Ids of the vocabulary and of added tokens together must be 0, 1, 2, ... with nothing missing and nothing twice.
  std::vector<std::string> tokens;
  std::vector<bool> taken;
  const uint64_t limit = std::min(kMaxTokens, uint64_t(vocab.size() + content_.added.size()));
  const auto take = [&](uint32_t id, std::string bytes, Json at) {
    if (id >= limit) at.fail_here(text("is id {}, but {} tokens have ids below {} only", id, limit, limit));
    if (id >= tokens.size()) tokens.resize(id + 1), taken.resize(id + 1);
    if (taken[id]) at.fail_here(text("is id {}, which another token has too", id));
    taken[id] = true;
    tokens[id] = std::move(bytes);
  };
  std::unordered_map<uint32_t, const AddedToken*> added_by_id;
  for (const AddedToken& token : content_.added)
    if (!added_by_id.emplace(token.id, &token).second) root_.get("added_tokens").fail_here(text("gives id {} to two tokens", token.id));
  ids_.reserve(vocab.size());
  for (Json entry : vocab) {
    const uint32_t id = uint32_t(entry.unsigned_integer(kMaxTokens - 1));
    const auto added = added_by_id.find(id);
    std::string bytes;
    if (added != added_by_id.end()) {
      if (added->second->content != entry.key()) entry.fail_here(text("and an added token share the id {}", id));
      bytes = entry.key();
    } else if (entry.key().empty() || !byte_level_bytes(entry.key(), bytes)) {
      entry.fail_here("is not spelled in the byte-level alphabet");
    }
    take(id, std::move(bytes), entry);
    ids_.emplace(entry.key(), id);
  }
  for (const AddedToken& token : content_.added) {
    const auto known = ids_.find(token.content);
    if (known != ids_.end() && known->second == token.id) continue;
    if (known != ids_.end())
      root_.get("added_tokens")
          .fail_here(text("gives '{}' the id {}, model.vocab the id {}", printable_line(token.content, 60), token.id, known->second));
    take(token.id, token.content, root_.get("added_tokens"));
  }
  const auto gap = std::find(taken.begin(), taken.end(), false);
  if (gap != taken.end()) vocab.fail_here(text("has no token with id {}: ids must be dense", gap - taken.begin()));
  if (tokens.empty()) vocab.fail_here("is empty");
  for (const std::string& token : tokens) content_.model.tokens.add(token);
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const char c = char(byte);
    const auto id = ids_.find(byte_level_spelling({&c, 1}));
    content_.model.byte_id[byte] = id == ids_.end() ? kNoToken : id->second;
  }
  if (!flag(model, "ignore_merges", false)) return;
  content_.model.whole.reserve(ids_.size());
  for (Json entry : vocab) content_.model.whole.add(content_.model.tokens, ids_.at(entry.key()));
}

uint32_t Reader::part_id(std::string_view part, Json at) const {
  const auto id = ids_.find(part);
  if (id == ids_.end()) at.fail_here(text("names '{}', which is not in model.vocab", printable_line(part, 60)));
  return id->second;
}

void Reader::read_merges() {
  const Json merges = root_.get("model").get("merges");
  if (!merges.is_array()) merges.fail_here("must be an array");
  BpeModel& model = content_.model;
  if (merges.size() > kMaxTokens) merges.fail_here(text("has more than {} merges", kMaxTokens));
  model.table.reserve(merges.size());
  for (Json entry : merges) {
    std::string_view left, right;
    if (entry.is_array()) {
      if (entry.size() != 2) entry.fail_here("must hold two tokens");
      left = entry.at(0).string();
      right = entry.at(1).string();
    } else {
      const std::string_view both = entry.string();
      const size_t space = both.find(' ');
      if (space == both.npos || both.find(' ', space + 1) != both.npos) entry.fail_here("must be two tokens with a space between");
      left = both.substr(0, space);
      right = both.substr(space + 1);
    }
    const uint32_t left_id = part_id(left, entry), right_id = part_id(right, entry);
    const uint32_t id = part_id(std::string(left).append(right), entry);
    if (!model.table.add(left_id, right_id, {uint32_t(model.merges.size()), id})) entry.fail_here("repeats an earlier merge");
    model.merges.push_back({left_id, right_id, id});
  }
}

void write_byte_level(JsonWriter& w) {
  w.begin_object().key("type").string("ByteLevel").key("add_prefix_space").boolean(false).key("trim_offsets").boolean(true);
  w.key("use_regex").boolean(true).end_object();
}

// In the order that Hugging Face writes. Only ever of our own tokenizers: GPT-2's pattern, no normalizer.
std::string written(const Tokenizer::Content& c) {
  JsonWriter w;
  w.begin_object().key("version").string("1.0").key("truncation").null().key("padding").null();
  std::vector<const AddedToken*> added;
  for (const AddedToken& token : c.added) added.push_back(&token);
  std::sort(added.begin(), added.end(), [](auto* a, auto* b) { return a->id < b->id; });
  w.key("added_tokens").begin_array();
  for (const AddedToken* token : added) {
    w.begin_object().key("id").integer(token->id).key("content").string(token->content);
    for (const char* key : {"single_word", "lstrip", "rstrip"}) w.key(key).boolean(false);
    w.key("normalized").boolean(token->normalized).key("special").boolean(token->special).end_object();
  }
  w.end_array().key("normalizer").null().key("pre_tokenizer");
  write_byte_level(w);
  w.key("post_processor").null().key("decoder");
  write_byte_level(w);
  w.key("model").begin_object().key("type").string("BPE").key("dropout").null().key("unk_token").null();
  w.key("continuing_subword_prefix").null().key("end_of_word_suffix").null();
  for (const char* key : {"fuse_unk", "byte_fallback", "ignore_merges"}) w.key(key).boolean(false);
  const TokenTable& tokens = c.model.tokens;
  w.key("vocab").begin_object();
  for (size_t id = 0; id < tokens.size(); ++id) {
    const bool is_added = std::any_of(added.begin(), added.end(), [&](auto* token) { return token->id == id; });
    if (!is_added) w.key(byte_level_spelling(tokens[id])).integer(int64_t(id));
  }
  w.end_object().key("merges").begin_array();
  for (const BpeMerge& merge : c.model.merges)
    w.begin_array().string(byte_level_spelling(tokens[merge.left])).string(byte_level_spelling(tokens[merge.right])).end_array();
  w.end_array().end_object().end_object();
  return w.str();
}
}  // namespace

Ref<Tokenizer> Tokenizer::from_json(std::string_view json, const std::string& source) {
  auto content = std::make_unique<Content>();
  const JsonDocument document(json, source, {.max_bytes = kMaxFileBytes});
  Reader(document, *content).read();
  content->json = json;
  return make(content.release());
}

Ref<Tokenizer> Tokenizer::load(const std::string& path) { return from_json(read_file(path, int64_t(kMaxFileBytes)), path); }

std::string Tokenizer::to_json() const { return content_->json.empty() ? written(*content_) : content_->json; }

void Tokenizer::save(const std::string& path) const { write_file(path, to_json()); }
}  // namespace reckon
