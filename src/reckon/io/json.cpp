// io/json: the parser drives nlohmann's SAX interface, which checks the grammar and UTF-8; what it lets pass (duplicate keys, any depth,
// numbers that silently change type) is refused here.
#include "reckon/io/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <iterator>
#include <nlohmann/json.hpp>

#include "reckon/base/text.h"

namespace reckon {
namespace {
constexpr uint32_t kMaxValues = uint32_t(1) << 31;

// Input for nlohmann that tells us how far it has read: its SAX events carry no position.
struct Cursor {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;
  const char* at;
  const char** read;
  reference operator*() const { return *at; }
  Cursor& operator++() {
    *read = ++at;
    return *this;
  }
  Cursor operator++(int) {
    Cursor old = *this;
    ++*this;
    return old;
  }
  bool operator==(const Cursor& other) const { return at == other.at; }
  bool operator!=(const Cursor& other) const { return at != other.at; }
};
}  // namespace

class JsonBuilder {
 public:
  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;
  using Kind = Json::Kind;

  JsonBuilder(JsonDocument& document, const char* begin, const JsonLimits& limits)
      : d_(document), limits_(limits), start(begin), read(begin) {}

  bool null() { return add(Kind::null, 0); }
  bool boolean(bool value) { return add(Kind::boolean, value); }
  bool number_integer(number_integer_t value) { return add(Kind::integer, uint64_t(value), value < 0); }
  bool number_unsigned(number_unsigned_t value) { return add(Kind::integer, value); }
  bool number_float(number_float_t value, const string_t&) {
    uint64_t bits;
    std::memcpy(&bits, &value, 8);
    return add(Kind::real, bits);
  }
  bool string(string_t& value) {
    const uint64_t at = d_.strings_.size();
    d_.strings_ += value;
    add(Kind::string, at);
    d_.nodes_.back().string_size = uint32_t(value.size());
    return true;
  }
  bool binary(binary_t&) { return false; }
  bool key(string_t& value) {
    key_start_ = d_.strings_.size();
    key_size_ = uint32_t(value.size());
    d_.strings_ += value;
    return true;
  }
  bool start_object(std::size_t) { return open(Kind::object); }
  bool start_array(std::size_t) { return open(Kind::array); }
  bool end_array() {
    close();
    return true;
  }
  bool end_object() {
    refuse_duplicate_keys(close());
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& error) {
    // "[json.exception...] parse error at line L, column C: WHAT": only WHAT is worth showing.
    std::string_view what = error.what();
    what.remove_prefix(std::min(what.find("] ") + 2, what.size()));
    if (what.starts_with("parse error")) what.remove_prefix(std::min(what.find(": ") + 2, what.size()));
    fail_as(Failure::corrupt, "{}: not valid JSON at byte {}: {}", d_.source_, position, printable_line(what));
  }

 private:
  bool add(Kind kind, uint64_t bits, bool negative = false) {
    if (d_.nodes_.size() >= kMaxValues) fail_as(Failure::corrupt, "{}: more than {} JSON values", d_.source_, kMaxValues);
    const uint32_t parent = open_.empty() ? 0 : open_.back();
    if (!open_.empty()) ++d_.nodes_[parent].count;
    const uint32_t index = uint32_t(d_.nodes_.size());
    d_.nodes_.push_back({kind, negative, parent, index + 1, 0, key_size_, 0, bits, key_start_, uint64_t(read - start)});
    key_size_ = 0;
    return true;
  }
  bool open(Kind kind) {
    if (open_.size() >= limits_.max_depth)
      fail_as(Failure::corrupt, "{}: JSON nested deeper than {} levels at byte {}", d_.source_, limits_.max_depth, read - start);
    add(kind, 0);
    open_.push_back(uint32_t(d_.nodes_.size() - 1));
    return true;
  }
  uint32_t close() {
    const uint32_t node = open_.back();
    open_.pop_back();
    d_.nodes_[node].end = uint32_t(d_.nodes_.size());
    return node;
  }
  // Sorting, not hashing: keys chosen to collide cannot make it slow.
  void refuse_duplicate_keys(uint32_t object) {
    keys_.clear();
    for (uint32_t child = object + 1; child < d_.nodes_[object].end; child = d_.nodes_[child].end)
      keys_.push_back({d_.string_at(d_.nodes_[child].key_start, d_.nodes_[child].key_size), child});
    std::sort(keys_.begin(), keys_.end(), [](const Key& a, const Key& b) { return a.name != b.name ? a.name < b.name : a.node < b.node; });
    for (size_t i = 1; i < keys_.size(); ++i) {
      if (keys_[i].name == keys_[i - 1].name)
        fail_as(Failure::corrupt, "{}: duplicate JSON key '{}' near byte {}", d_.source_, printable_line(keys_[i].name),
                d_.nodes_[keys_[i].node].offset);
    }
  }

  struct Key {
    std::string_view name;
    uint32_t node;
  };
  JsonDocument& d_;
  const JsonLimits& limits_;
  uint64_t key_start_ = 0;
  uint32_t key_size_ = 0;
  std::vector<uint32_t> open_;
  std::vector<Key> keys_;

 public:
  const char* start;
  const char* read;  // one past the last byte nlohmann took; written by Cursor
};

JsonDocument::JsonDocument(std::string_view text, std::string source, const JsonLimits& limits) : source_(std::move(source)) {
  check_as(Failure::corrupt, text.size() <= limits.max_bytes, "{}: JSON of {} is over the limit of {}", source_,
           human_bytes(int64_t(text.size())), human_bytes(int64_t(limits.max_bytes)));
  JsonBuilder builder(*this, text.data(), limits);
  const Cursor begin{text.data(), &builder.read}, end{text.data() + text.size(), &builder.read};
  const bool ok = nlohmann::json::sax_parse(begin, end, &builder);
  RECKON_ASSERT(ok && !nodes_.empty());  // every refusal throws
}

Json::Kind Json::kind() const { return document_->nodes_[node_].kind; }

namespace {
const char* name_of(Json::Kind kind) {
  static const char* const names[] = {"null",     "true or false", "an integer", "a number with a fraction or exponent",
                                      "a string", "an array",      "an object"};
  return names[int(kind)];
}
[[noreturn]] void fail_kind(const Json& value, const char* wanted) {
  value.fail_here(text("must be {}, but is {}", wanted, name_of(value.kind())));
}
}  // namespace

bool Json::boolean() const {
  if (kind() != Kind::boolean) fail_kind(*this, "true or false");
  return document_->nodes_[node_].bits != 0;
}

int64_t Json::integer(int64_t min, int64_t max) const {
  if (kind() != Kind::integer) fail_kind(*this, "an integer");
  const auto& node = document_->nodes_[node_];
  const bool fits = node.negative || node.bits <= uint64_t(INT64_MAX);
  if (!fits || int64_t(node.bits) < min || int64_t(node.bits) > max) {
    const std::string written = node.negative ? text("{}", int64_t(node.bits)) : text("{}", node.bits);
    fail_here(text("is {}, outside [{}, {}]", written, min, max));
  }
  return int64_t(node.bits);
}

uint64_t Json::unsigned_integer(uint64_t max) const {
  if (kind() != Kind::integer) fail_kind(*this, "an integer");
  const auto& node = document_->nodes_[node_];
  if (node.negative) fail_here(text("is {}, but must not be negative", int64_t(node.bits)));
  if (node.bits > max) fail_here(text("is {}, over the limit of {}", node.bits, max));
  return node.bits;
}

double Json::number() const {
  const auto& node = document_->nodes_[node_];
  if (node.kind == Kind::integer) return node.negative ? double(int64_t(node.bits)) : double(node.bits);
  if (node.kind != Kind::real) fail_kind(*this, "a number");
  double value;
  std::memcpy(&value, &node.bits, 8);
  return value;
}

std::string_view Json::string() const {
  if (kind() != Kind::string) fail_kind(*this, "a string");
  const auto& node = document_->nodes_[node_];
  return document_->string_at(node.bits, node.string_size);
}

size_t Json::size() const {
  if (!is_array() && !is_object()) fail_kind(*this, "an array or an object");
  return document_->nodes_[node_].count;
}

Json Json::at(size_t index) const {
  if (!is_array()) fail_kind(*this, "an array");
  if (index >= size()) fail_here(text("has {} elements, but element {} is needed", size(), index));
  Iterator it = begin();
  for (size_t i = 0; i < index; ++i) ++it;
  return *it;
}

Json Json::get(std::string_view name) const {
  if (!is_object()) fail_kind(*this, "an object");
  for (Json child : *this)
    if (child.key() == name) return child;
  fail_here(text("has no key '{}'", name));
}

bool Json::has(std::string_view name) const {
  if (!is_object()) fail_kind(*this, "an object");
  for (Json child : *this)
    if (child.key() == name) return true;
  return false;
}

std::string_view Json::key() const {
  const auto& node = document_->nodes_[node_];
  return document_->string_at(node.key_start, node.key_size);
}

Json::Iterator Json::begin() const {
  if (!is_array() && !is_object()) fail_kind(*this, "an array or an object");
  return Iterator(document_, node_ + 1);
}
Json::Iterator Json::end() const { return Iterator(document_, document_->nodes_[node_].end); }
Json Json::Iterator::operator*() const { return Json(document_, node_); }
Json::Iterator& Json::Iterator::operator++() {
  node_ = document_->nodes_[node_].end;
  return *this;
}

std::string Json::path() const {
  if (node_ == 0) return "the document";
  std::string path;
  for (uint32_t node = node_; node != 0; node = document_->nodes_[node].parent) {
    const Json parent(document_, document_->nodes_[node].parent);
    if (parent.is_object()) {
      path = "." + printable_line(Json(document_, node).key(), 60) + path;
    } else {
      size_t index = 0;
      for (Iterator it = parent.begin(); it.node_ != node; ++it) ++index;
      path = text("[{}]", index) + path;
    }
  }
  return path[0] == '.' ? path.substr(1) : path;
}

void Json::fail_here(std::string_view message) const {
  fail_as(Failure::corrupt, "{}: {} {} (byte {})", document_->source_, path(), message, document_->nodes_[node_].offset);
}

JsonWriter& JsonWriter::key(std::string_view name) {
  RECKON_ASSERT(!open_.empty() && open_.back() == '{' && !after_key_);
  before_value();
  quoted(name);
  out_ += indent_ ? ": " : ":";
  after_key_ = true;
  return *this;
}

JsonWriter& JsonWriter::open(char bracket) {
  RECKON_ASSERT(open_.empty() || open_.back() == '[' || after_key_);
  before_value();
  out_ += bracket;
  open_ += bracket;
  first_ = true;
  return *this;
}

JsonWriter& JsonWriter::close(char open_bracket, char bracket) {
  RECKON_ASSERT(!open_.empty() && open_.back() == open_bracket && !after_key_);
  open_.pop_back();
  if (!first_) new_line();
  out_ += bracket;
  first_ = false;
  return *this;
}

// The comma and the indentation, unless a key has already written them.
void JsonWriter::before_value() {
  if (after_key_) {
    after_key_ = false;
    return;
  }
  if (open_.empty()) {
    RECKON_ASSERT(out_.empty());  // one value a document
    return;
  }
  if (!first_) out_ += ',';
  first_ = false;
  new_line();
}

void JsonWriter::new_line() {
  if (!indent_) return;
  out_ += '\n';
  out_.append(2 * open_.size(), ' ');
}

JsonWriter& JsonWriter::string(std::string_view utf8) {
  RECKON_ASSERT(open_.empty() || open_.back() == '[' || after_key_);
  before_value();
  quoted(utf8);
  return *this;
}

void JsonWriter::quoted(std::string_view utf8) {
  try {
    out_ += nlohmann::json(std::string(utf8)).dump();
  } catch (const nlohmann::json::exception&) {
    fail("cannot write '{}' as a JSON string: it is not valid UTF-8", printable_line(utf8));
  }
}

namespace {
template <class T>
void append_number(std::string& out, T value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  out.append(buffer, end);
}
}  // namespace

JsonWriter& JsonWriter::integer(int64_t value) {
  RECKON_ASSERT(open_.empty() || open_.back() == '[' || after_key_);
  before_value();
  append_number(out_, value);
  return *this;
}

JsonWriter& JsonWriter::unsigned_integer(uint64_t value) {
  RECKON_ASSERT(open_.empty() || open_.back() == '[' || after_key_);
  before_value();
  append_number(out_, value);
  return *this;
}

JsonWriter& JsonWriter::number(double value) {
  if (!std::isfinite(value)) return null();
  RECKON_ASSERT(open_.empty() || open_.back() == '[' || after_key_);
  before_value();
  const size_t start = out_.size();
  append_number(out_, value);
  // Keep it a real number for readers that tell 1 from 1.0.
  if (out_.find_first_of(".e", start) == std::string::npos) out_ += ".0";
  return *this;
}

JsonWriter& JsonWriter::boolean(bool value) {
  RECKON_ASSERT(open_.empty() || open_.back() == '[' || after_key_);
  before_value();
  out_ += value ? "true" : "false";
  return *this;
}

JsonWriter& JsonWriter::null() {
  RECKON_ASSERT(open_.empty() || open_.back() == '[' || after_key_);
  before_value();
  out_ += "null";
  return *this;
}

const std::string& JsonWriter::str() const {
  RECKON_ASSERT(open_.empty() && !out_.empty());
  return out_;
}
}  // namespace reckon
