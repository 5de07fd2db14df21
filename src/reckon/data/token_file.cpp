#include "reckon/data/token_file.h"

#include <algorithm>
#include <cctype>
#include <cstring>

#include "reckon/base/error.h"
#include "reckon/base/text.h"

namespace reckon {
namespace {
constexpr size_t kReadBytes = 16384;  // on the stack
constexpr size_t kMaxNpyHeaderBytes = 65536;
constexpr int64_t kLlmcHeaderBytes = 1024;
constexpr int32_t kLlmcU16 = 20240520, kLlmcU32 = 20240801;

uint32_t little_u32(const unsigned char* p) { return uint32_t(p[0]) | uint32_t(p[1]) << 8 | uint32_t(p[2]) << 16 | uint32_t(p[3]) << 24; }
bool ends_with_any(std::string_view name, std::initializer_list<std::string_view> endings) {
  return std::any_of(endings.begin(), endings.end(), [&](std::string_view ending) { return name.ends_with(ending); });
}

size_t read_start(const InputFile& file, unsigned char* into, size_t bytes) {
  bytes = std::min(bytes, size_t(file.size()));
  file.read(0, std::as_writable_bytes(std::span(into, bytes)));
  return bytes;
}

// The header of .npy is a Python dict literal. Only the three keys of the format, each once, in any order, are accepted.
class NpyDict {
 public:
  NpyDict(std::string_view text, const std::string& path) : rest_(text), path_(path) { parse(); }
  std::string descr, order;
  std::vector<int64_t> shape;

 private:
  [[noreturn]] void refuse(std::string_view why) const {
    fail_as(Failure::corrupt, "{}: malformed .npy header: {}", printable_line(path_, 500), why);
  }
  void skip_spaces() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\n')) rest_.remove_prefix(1);
  }
  bool take(char c) {
    skip_spaces();
    if (rest_.empty() || rest_[0] != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!take(c)) refuse(text("'{}' expected", std::string_view(&c, 1)));
  }
  std::string quoted() {
    const char quote = take('\'') ? '\'' : take('"') ? '"' : '\0';
    const size_t end = quote ? rest_.find(quote) : rest_.npos;
    if (end == rest_.npos) refuse("a string expected (structured types are not token ids)");
    std::string value(rest_.substr(0, end));
    rest_.remove_prefix(end + 1);
    return value;
  }
  std::string word() {
    skip_spaces();
    size_t n = 0;
    while (n < rest_.size() && std::isalpha(uint8_t(rest_[n]))) ++n;
    std::string value(rest_.substr(0, n));
    rest_.remove_prefix(n);
    return value;
  }
  int64_t integer() {
    skip_spaces();
    size_t n = 0;
    int64_t value = 0;
    for (; n < rest_.size() && std::isdigit(uint8_t(rest_[n])); ++n) {
      if (n == 18) refuse("the shape is too large");
      value = value * 10 + (rest_[n] - '0');
    }
    if (n == 0) refuse("a dimension expected");
    rest_.remove_prefix(n);
    return value;
  }
  void parse_shape() {
    expect('(');
    while (!take(')')) {
      shape.push_back(integer());
      if (!take(',')) {
        expect(')');
        break;
      }
    }
  }
  void parse() {
    bool seen_shape = false;
    expect('{');
    while (!take('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr" && descr.empty()) {
        descr = quoted();
      } else if (key == "fortran_order" && order.empty()) {
        order = word();
      } else if (key == "shape" && !seen_shape) {
        parse_shape();
        seen_shape = true;
      } else {
        refuse(text("unexpected or repeated key '{}'", printable_line(key, 40)));
      }
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    skip_spaces();
    if (!rest_.empty()) refuse("text after the dictionary");
    if (descr.empty() || !seen_shape || (order != "True" && order != "False")) refuse("descr, fortran_order and shape are needed");
  }

  std::string_view rest_;
  const std::string& path_;
};
}  // namespace

// Finds out what a file is; the only one that fills in a TokenFile.
class TokenFileHeader {
 public:
  explicit TokenFileHeader(TokenFile& file) : f_(file), path_(printable_line(file.path(), 500)) {}
  void read() {
    check_as(Failure::corrupt, f_.file_.size() > 0, "{} is empty: a token file needs at least one token", path_);
    unsigned char start[kLlmcHeaderBytes] = {};
    const size_t bytes = read_start(f_.file_, start, sizeof start);
    const int32_t magic = int32_t(little_u32(start));
    if (bytes >= 6 && std::memcmp(start, "\x93NUMPY", 6) == 0) {
      read_npy(start, bytes);
    } else if (bytes == size_t(kLlmcHeaderBytes) && (magic == kLlmcU16 || magic == kLlmcU32)) {
      read_llmc(start, magic);
    } else {
      check_as(Failure::corrupt, !path_.ends_with(".npy"), "{} is named .npy but does not start as one", path_);
      read_raw();
    }
    check_as(Failure::corrupt, f_.size_ > 0, "{} holds no tokens: at least one is needed", path_);
  }

 private:
  void set(std::string_view kind, int width, bool is_signed, int64_t offset, int64_t count) {
    f_.width_ = width;
    f_.is_signed_ = is_signed;
    f_.data_offset_ = offset;
    f_.size_ = count;
    f_.format_ = text("{} {}{}", kind, is_signed ? "i" : "u", 8 * width);
    const int64_t data = f_.file_.size() - offset;
    // No multiplication: a count from a file may be anything.
    check_as(Failure::corrupt, count >= 0 && data % width == 0 && data / width == count,
             "{}: its header says {} of {} bytes, but {} follow it: the file is damaged", path_, counted(count, "token"), width,
             counted(data, "byte"));
  }

  void read_npy(const unsigned char* start, size_t bytes) {
    const int version = bytes >= 8 ? start[6] : 0;
    check_as(Failure::corrupt, version >= 1 && version <= 3 && start[7] == 0 && bytes >= (version == 1 ? 10u : 12u),
             "{}: .npy version {}.{} is not known: 1.0, 2.0 and 3.0 are", path_, version, bytes >= 8 ? start[7] : 0);
    const size_t prefix = version == 1 ? 10 : 12;
    const size_t length = version == 1 ? size_t(start[8] | start[9] << 8) : little_u32(start + 8);
    check_as(Failure::corrupt, length <= kMaxNpyHeaderBytes && int64_t(prefix + length) <= f_.file_.size(),
             "{}: malformed .npy header: it says it has {} bytes", path_, length);
    std::string header(length, '\0');
    f_.file_.read(int64_t(prefix), std::as_writable_bytes(std::span(header)));
    const NpyDict dict(header, f_.path());
    static constexpr struct {
      const char* descr;
      int width;
      bool is_signed;
    } kTypes[] = {{"<u2", 2, false}, {"<u4", 4, false}, {"<i4", 4, true}, {"<i8", 8, true}};
    const auto type = std::find_if(std::begin(kTypes), std::end(kTypes), [&](auto& t) { return dict.descr == t.descr; });
    check_as(Failure::corrupt, type != std::end(kTypes), "{}: .npy type '{}' is not one of token ids: <u2, <u4, <i4 or <i8", path_,
             printable_line(dict.descr, 40));
    check_as(Failure::corrupt, dict.shape.size() == 1, "{}: token ids need one dimension, this .npy has {}", path_, dict.shape.size());
    check_as(Failure::corrupt, dict.order == "False", "{}: the .npy is in Fortran order: write it in C order", path_);
    set("npy", type->width, type->is_signed, int64_t(prefix + length), dict.shape[0]);
  }

  void read_llmc(const unsigned char* start, int32_t magic) {
    const int32_t version = int32_t(little_u32(start + 4)), wanted = magic == kLlmcU16 ? 1 : 7;
    check_as(Failure::corrupt, version == wanted, "{}: llm.c token file {} of version {} is not known: {} is", path_, magic, version,
             wanted);
    set("llm.c", magic == kLlmcU16 ? 2 : 4, false, kLlmcHeaderBytes, int32_t(little_u32(start + 8)));
  }

  void read_raw() {
    const int width = path_.ends_with(".u16") ? 2 : path_.ends_with(".u32") ? 4 : f_.vocab_ <= 65536 ? 2 : 4;
    check_as(Failure::corrupt, f_.file_.size() % width == 0, "{} has {}, which is not a whole number of u{} token ids: the file is damaged",
             path_, counted(f_.file_.size(), "byte"), 8 * width);
    set("raw", width, false, 0, f_.file_.size() / width);
    if (width == 2 && !path_.ends_with(".u16")) refuse_u32_as_u16();
  }

  // u32 ids below 65536 read as u16 have a zero after every id: silently wrong data.
  void refuse_u32_as_u16() {
    unsigned char start[kReadBytes];
    const size_t bytes = read_start(f_.file_, start, sizeof start) / 4 * 4;
    size_t low = 0, high = 0;
    for (size_t i = 0; i < bytes; i += 4) {
      low += start[i] || start[i + 1];
      high += start[i + 2] || start[i + 3];
    }
    check_as(Failure::corrupt, high > 0 || low < 8,
             "{} looks like u32 token ids, but is to be read as u16: name it {}.u32 if it is u32, {}.u16 if not", path_, path_, path_);
  }

  TokenFile& f_;
  const std::string path_;
};

Ref<TokenFile> TokenFile::open(const std::string& path, int64_t vocab) {
  check_as(Failure::usage, vocab >= 0 && vocab <= INT32_MAX, "a vocabulary of {} is not possible", vocab);
  Ref<TokenFile> file(new TokenFile(path, vocab));
  TokenFileHeader(*file).read();
  return file;
}

void TokenFile::fail_id(int64_t index, int64_t id) const {
  const std::string name = printable_line(path(), 500), shown = is_signed_ ? text("{}", id) : text("{}", uint64_t(id));
  check_as(Failure::corrupt, id >= 0 && id <= INT32_MAX, "{}: token {} is id {}, which no vocabulary has", name, index, shown);
  // Nothing is wrong with the file then, as long as none of its ids is impossible: it was made with a larger vocabulary.
  const int64_t largest = largest_id();
  fail_as(Failure::usage,
          "{}: token {} is id {}, outside the vocabulary of {}; ids go up to {}, which takes a model.vocab of {}", name, index,
          shown, vocab_, largest, largest + 1);
}

int64_t TokenFile::largest_id() const {
  TokenFile all(path(), 0);
  all.size_ = size_, all.data_offset_ = data_offset_, all.width_ = width_, all.is_signed_ = is_signed_;
  int32_t ids[kReadBytes / 4], largest = 0;
  for (int64_t first = 0; first < size_;) {
    const std::span part = std::span(ids).first(size_t(std::min<int64_t>(std::size(ids), size_ - first)));
    all.read(first, part);
    largest = std::max(largest, *std::max_element(part.begin(), part.end()));
    first += int64_t(part.size());
  }
  return largest;
}

template <class T>
void TokenFile::convert(const unsigned char* bytes, int64_t first, std::span<int32_t> into) const {
  const uint64_t limit = vocab_ > 0 ? uint64_t(vocab_) : uint64_t(INT32_MAX) + 1;
  for (size_t i = 0; i < into.size(); ++i) {
    T id;
    std::memcpy(&id, bytes + i * sizeof(T), sizeof(T));  // the machines we run on are little-endian
    // A negative id becomes a huge one: one comparison serves both ends.
    if (uint64_t(int64_t(id)) >= limit) fail_id(first + int64_t(i), int64_t(id));
    into[i] = int32_t(id);
  }
}

void TokenFile::read(int64_t first, std::span<int32_t> into) const {
  check(first >= 0 && first <= size_ && int64_t(into.size()) <= size_ - first, "{} tokens from {} on are outside {}, which holds {}",
        into.size(), first, path(), size_);
  unsigned char bytes[kReadBytes];
  while (!into.empty()) {
    const std::span<int32_t> part = into.first(std::min(into.size(), kReadBytes / size_t(width_)));
    file_.read(data_offset_ + first * width_, std::as_writable_bytes(std::span(bytes, part.size() * size_t(width_))));
    if (width_ == 2) {
      convert<uint16_t>(bytes, first, part);
    } else if (width_ == 8) {
      convert<int64_t>(bytes, first, part);
    } else if (is_signed_) {
      convert<int32_t>(bytes, first, part);
    } else {
      convert<uint32_t>(bytes, first, part);
    }
    first += int64_t(part.size());
    into = into.subspan(part.size());
  }
}

void TokenFile::check_ids() const {
  int32_t ids[kReadBytes / 4];
  for (int64_t first = 0; first < size_;) {
    const std::span part = std::span(ids).first(size_t(std::min<int64_t>(std::size(ids), size_ - first)));
    read(first, part);
    first += int64_t(part.size());
  }
}

bool is_token_file(const std::string& path) {
  const InputFile file(path);
  if (ends_with_any(path, {".bin", ".npy", ".u16", ".u32"})) return true;
  unsigned char start[6] = {};
  const size_t bytes = read_start(file, start, sizeof start);
  const int32_t magic = int32_t(little_u32(start));
  return (bytes == 6 && std::memcmp(start, "\x93NUMPY", 6) == 0) ||
         (file.size() >= kLlmcHeaderBytes && (magic == kLlmcU16 || magic == kLlmcU32));
}
}  // namespace reckon
