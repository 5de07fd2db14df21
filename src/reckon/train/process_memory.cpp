#include "reckon/train/process_memory.h"

#include <fcntl.h>
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <map>
#include <numeric>

#include "reckon/base/error.h"
#include "reckon/base/text.h"
#include "reckon/io/files.h"

namespace reckon {
namespace {
constexpr std::string_view kClassNames[kMemoryClasses] = {"arena",          "heap",  "stacks", "program", "libraries",
                                                          "generated_code", "files", "system", "unnamed"};
constexpr const char* kSmaps = "/proc/self/smaps";
constexpr uint64_t kPage = 4096;

// Reads /proc/PID/smaps line by line: a line of addresses, then lines "Key: value" about them.
class SmapsReader {
 public:
  void line(std::string_view text) {
    ++number_;
    if (text.empty()) bad(text);
    const bool begins_mapping = (text[0] >= '0' && text[0] <= '9') || (text[0] >= 'a' && text[0] <= 'f');
    if (begins_mapping) {
      begin(text);
    } else if (text.starts_with("Rss:")) {
      resident(text);
    }
  }
  std::vector<Mapping> finish() {
    if (mappings_.empty() || !has_resident_) fail_as(Failure::corrupt, "{}: ends without the Rss of a mapping", kSmaps);
    return std::move(mappings_);
  }

 private:
  [[noreturn]] void bad(std::string_view text) const {
    fail_as(Failure::corrupt, "{}: line {} is not what the system writes: '{}'", kSmaps, number_, printable_line(text, 80));
  }
  // "begin-end perm offset device inode   name"; takes a field and the blanks behind it.
  static std::string_view field(std::string_view& rest) {
    const std::string_view word = rest.substr(0, rest.find(' '));
    rest.remove_prefix(std::min(rest.size(), word.size()));
    rest.remove_prefix(std::min(rest.size(), rest.find_first_not_of(' ')));
    return word;
  }
  void begin(std::string_view text) {
    if (!mappings_.empty() && !has_resident_) bad(text);
    std::string_view rest = text;
    const std::string_view range = field(rest), permissions = field(rest);
    Mapping m;
    const char* const end = range.data() + range.size();
    const auto [dash, first_error] = std::from_chars(range.data(), end, m.begin, 16);
    if (first_error != std::errc() || dash == end || *dash != '-') bad(text);
    const auto [stop, second_error] = std::from_chars(dash + 1, end, m.end, 16);
    const uint64_t before = mappings_.empty() ? 0 : mappings_.back().end;
    if (second_error != std::errc() || stop != end || m.begin >= m.end || m.begin < before || permissions.size() != 4) bad(text);
    for (int skipped = 0; skipped < 3; ++skipped)
      if (field(rest).empty()) bad(text);
    m.readable = permissions[0] == 'r';
    m.executable = permissions[2] == 'x';
    // A name that the program gave to memory without a file is no path.
    if (!rest.starts_with("[anon")) m.name = rest;
    mappings_.push_back(std::move(m));
    has_resident_ = false;
  }
  void resident(std::string_view text) {
    if (mappings_.empty() || has_resident_) bad(text);
    std::string_view rest = text;
    field(rest);
    const std::string_view digits = field(rest);
    uint64_t kib = 0;
    const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), kib);
    Mapping& m = mappings_.back();
    if (error != std::errc() || stop != digits.data() + digits.size() || rest != "kB" || kib > (m.end - m.begin) / 1024) bad(text);
    m.resident = int64_t(kib) * 1024;
    has_resident_ = true;
  }

  std::vector<Mapping> mappings_;
  bool has_resident_ = false;
  int number_ = 0;
};

// What a mapping is where no range names it.
std::pair<MemoryClass, std::string> owner_of(const Mapping& m) {
  if (m.name == "[heap]") return {MemoryClass::heap, m.name};
  if (m.name == "[stack]") return {MemoryClass::stacks, "main thread"};
  if (m.name.starts_with('[')) return {MemoryClass::system, m.name};
  if (m.executable) return {MemoryClass::generated_code, "generated code"};  // not of a loaded object
  if (m.is_file()) return {MemoryClass::files, m.name};
#ifdef __SANITIZE_ADDRESS__
  return {MemoryClass::heap, "the sanitizer's heap and shadow"};
#else
  return {MemoryClass::unnamed, text("{:x}-{:x}", m.begin, m.end)};
#endif
}

class Tally {
 public:
  void add(MemoryClass owner, const std::string& name, int64_t bytes) { parts_[{owner, name}] += bytes; }
  ProcessMemory finish() const {
    ProcessMemory memory;
    for (const auto& [key, bytes] : parts_) {
      if (bytes == 0) continue;
      memory[key.first] += bytes;
      memory.parts.push_back({key.first, key.second, bytes});
    }
    std::stable_sort(memory.parts.begin(), memory.parts.end(), [](const NamedBytes& a, const NamedBytes& b) { return a.bytes > b.bytes; });
    return memory;
  }

 private:
  std::map<std::pair<MemoryClass, std::string>, int64_t> parts_;
};

// The mapping's addresses cut at the borders of the ranges (sorted by their start); each piece with its range, or null.
struct Piece {
  uint64_t begin, end;
  const NamedRange* range;
};
std::vector<Piece> cut(const Mapping& m, std::span<const NamedRange> ranges) {
  std::vector<Piece> pieces;
  uint64_t at = m.begin;
  for (const NamedRange& r : ranges) {
    const uint64_t begin = std::max(r.begin, at), end = std::min(r.end, m.end);
    if (begin >= end) continue;
    if (begin > at) pieces.push_back({at, begin, nullptr});
    pieces.push_back({begin, end, &r});
    at = end;
  }
  if (at < m.end) pieces.push_back({at, m.end, nullptr});
  return pieces;
}

int64_t resident_by_pagemap(uint64_t begin, uint64_t end) {
  const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  check(fd >= 0, "cannot read /proc/self/pagemap: {}", std::strerror(errno));
  constexpr uint64_t kPresent = uint64_t(1) << 63;
  int64_t pages = 0;
  uint64_t words[512];
  for (uint64_t page = begin / kPage; page < end / kPage;) {
    const uint64_t wanted = std::min<uint64_t>(std::size(words), end / kPage - page);
    const ssize_t got = pread(fd, words, wanted * 8, off_t(page * 8));
    if (got <= 0) break;
    for (ssize_t i = 0; i < got / 8; ++i) pages += (words[i] & kPresent) != 0;
    page += uint64_t(got) / 8;
  }
  close(fd);
  return pages * int64_t(kPage);
}
}  // namespace

std::string_view name_of(MemoryClass owner) { return kClassNames[size_t(owner)]; }
int64_t ProcessMemory::total() const { return std::accumulate(bytes.begin(), bytes.end(), int64_t(0)); }

std::vector<Mapping> parse_smaps(std::string_view text) {
  SmapsReader reader;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    reader.line(line);
    text.remove_prefix(std::min(text.size(), line.size() + 1));
  }
  return reader.finish();
}

std::vector<Mapping> read_mappings() {
  std::FILE* file = std::fopen(kSmaps, "re");
  check(file != nullptr, "cannot read {}: {}", kSmaps, std::strerror(errno));
  SmapsReader reader;
  char line[2 * 4096];  // a path may have 4095 bytes, and escaped ones
  try {
    while (std::fgets(line, sizeof line, file)) reader.line({line, std::strcspn(line, "\n")});
  } catch (...) {
    std::fclose(file);
    throw;
  }
  std::fclose(file);
  return reader.finish();
}

ProcessMemory classify(std::span<const Mapping> mappings, std::span<const NamedRange> ranges, ResidentIn resident_in) {
  std::vector<NamedRange> sorted(ranges.begin(), ranges.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const NamedRange& a, const NamedRange& b) { return a.begin < b.begin; });
  Tally tally;
  for (const Mapping& m : mappings) {
    if (m.resident == 0) continue;
    const std::vector<Piece> pieces = cut(m, sorted);
    int64_t left = m.resident;
    for (size_t i = 0; i < pieces.size(); ++i) {
      const Piece& piece = pieces[i];
      // The last piece takes what is left, so that the sum is the mapping's.
      const int64_t bytes = i + 1 == pieces.size() ? left : std::min(left, resident_in(piece.begin, piece.end));
      left -= bytes;
      const auto [owner, name] = piece.range ? std::pair(piece.range->owner, piece.range->name) : owner_of(m);
      tally.add(owner, name, bytes);
    }
  }
  return tally.finish();
}

ProcessMemory measure_process(const Device* device) {
  const std::vector<Mapping> mappings = read_mappings();
  return classify(mappings, known_ranges(mappings, device), resident_by_pagemap);
}

void return_free_heap() { malloc_trim(0); }

int64_t peak_resident_bytes() {
  // Not getrusage alone: its maximum survives exec, so it may be that of the program which started this one.
  if (std::FILE* file = std::fopen("/proc/self/status", "re")) {
    char line[256];
    long long kib = 0;
    bool found = false;
    while (!found && std::fgets(line, sizeof line, file)) found = std::sscanf(line, "VmHWM: %lld kB", &kib) == 1;
    std::fclose(file);
    if (found) return int64_t(kib) * 1024;
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t(usage.ru_maxrss) * 1024;
}
}  // namespace reckon
