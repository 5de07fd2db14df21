// io/json: JSON read from files nobody vouches for, and JSON written the same way every time. Knows no schema.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "reckon/base/error.h"

namespace reckon {

struct JsonLimits {
  size_t max_bytes = size_t(256) << 20;  // of the document's text
  size_t max_depth = 64;                 // of nested objects and arrays
};

class JsonDocument;

/// One value of a document: a cheap handle, valid while its JsonDocument lives. The getters throw Error (corrupt) naming the file, the
/// path in the document ("model.vocab", "merges[3]") and the byte where the value ends, when the value is not exactly what is asked for.
class Json {
 public:
  enum class Kind : uint8_t { null, boolean, integer, real, string, array, object };

  Kind kind() const;
  bool is_null() const { return kind() == Kind::null; }
  bool is_string() const { return kind() == Kind::string; }
  bool is_array() const { return kind() == Kind::array; }
  bool is_object() const { return kind() == Kind::object; }

  bool boolean() const;
  /// Written as an integer and within [min, max]: 1.0, 1e3, -1 for a minimum of 0 and 2^64 are all errors, never rounded or wrapped.
  int64_t integer(int64_t min = INT64_MIN, int64_t max = INT64_MAX) const;
  uint64_t unsigned_integer(uint64_t max = UINT64_MAX) const;
  /// Any number, as the nearest double.
  double number() const;
  /// UTF-8, escapes resolved. Points into the document.
  std::string_view string() const;

  /// Children of an array or object.
  size_t size() const;
  /// Array element. O(i): walk large arrays with a range for.
  Json at(size_t index) const;
  /// Object member; throws if absent. O(size): walk large objects with a range for.
  Json get(std::string_view key) const;
  bool has(std::string_view key) const;
  /// Name of this value in its parent object, "" for array elements and the root.
  std::string_view key() const;

  class Iterator {
   public:
    Json operator*() const;
    Iterator& operator++();
    bool operator==(const Iterator&) const = default;

   private:
    friend class Json;
    Iterator(const JsonDocument* document, uint32_t node) : document_(document), node_(node) {}
    const JsonDocument* document_;
    uint32_t node_;
  };
  /// Children of an array or object in document order.
  Iterator begin() const;
  Iterator end() const;

  /// "model.merges[3]"; "the document" for the root.
  std::string path() const;
  /// Throws Error (corrupt): "FILE: PATH MESSAGE (byte N)".
  [[noreturn]] void fail_here(std::string_view message) const;

 private:
  friend class JsonDocument;
  Json(const JsonDocument* document, uint32_t node) : document_(document), node_(node) {}
  const JsonDocument* document_;
  uint32_t node_;
};

/// A parsed document. Rejected with Failure::corrupt, file name and byte offset: anything that is not one JSON value (RFC 8259), invalid
/// UTF-8, duplicate keys, nesting beyond the limit, a text beyond the limit, more than 2^31 values.
class JsonDocument {
 public:
  /// source: what errors call the text, normally its file name. The text itself is not kept.
  JsonDocument(std::string_view text, std::string source, const JsonLimits& limits = {});
  JsonDocument(const JsonDocument&) = delete;
  JsonDocument& operator=(const JsonDocument&) = delete;

  Json root() const { return Json(this, 0); }
  const std::string& source() const { return source_; }

 private:
  friend class Json;
  friend class Json::Iterator;
  friend class JsonBuilder;
  // Values in document order, a parent before its children; `end` is one past the last descendant.
  struct Node {
    Json::Kind kind;
    bool negative;  // of an integer: then `bits` is an int64
    uint32_t parent, end, count;
    uint32_t key_size;  // the key lies before the value's own text in strings_
    uint32_t string_size;
    uint64_t bits;  // boolean, integer, double, or where the string starts
    uint64_t key_start;
    uint64_t offset;  // bytes read when the value was complete (containers: when opened)
  };
  std::string_view string_at(uint64_t start, uint32_t size) const { return std::string_view(strings_).substr(start, size); }

  std::string source_;
  std::string strings_;
  std::vector<Node> nodes_;
};

/// Writes one JSON document into a string: keys in the order given, two-space indentation or none, shortest exact numbers. The same
/// calls give the same bytes everywhere. Wrong nesting is our own mistake and aborts; invalid UTF-8 in a string throws Error.
class JsonWriter {
 public:
  explicit JsonWriter(bool indent = false) : indent_(indent) {}
  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('{', '}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close('[', ']'); }
  JsonWriter& key(std::string_view name);
  JsonWriter& string(std::string_view utf8);
  JsonWriter& integer(int64_t value);
  JsonWriter& unsigned_integer(uint64_t value);
  /// Not finite: null, which is all that JSON has for it.
  JsonWriter& number(double value);
  JsonWriter& boolean(bool value);
  JsonWriter& null();
  /// The finished document.
  const std::string& str() const;

 private:
  JsonWriter& open(char bracket);
  JsonWriter& close(char open_bracket, char bracket);
  void before_value();
  void new_line();
  void quoted(std::string_view utf8);
  std::string out_;
  std::string open_;  // the brackets that are open, innermost last
  bool indent_;
  bool first_ = true;  // nothing written in the innermost bracket yet
  bool after_key_ = false;
};
}  // namespace reckon
