// io/bpe: byte-pair encoding on bytes: tokens, merges, encoding of one piece, and training. Knows no files and no regular expressions.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace reckon {

constexpr uint32_t kNoToken = UINT32_MAX;

/// The tokens' bytes by id, back to back.
class TokenTable {
 public:
  void add(std::string_view bytes) {
    bytes_ += bytes;
    ends_.push_back(bytes_.size());
  }
  size_t size() const { return ends_.size(); }
  std::string_view operator[](size_t id) const {
    const size_t begin = id == 0 ? 0 : ends_[id - 1];
    return std::string_view(bytes_).substr(begin, ends_[id] - begin);
  }
  size_t memory_bytes() const { return bytes_.capacity() + ends_.capacity() * sizeof(uint64_t); }

 private:
  std::string bytes_;
  std::vector<uint64_t> ends_;
};

/// (left id, right id) -> rank and merged id. A lower rank merges first.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank = kNoToken;  // kNoToken: these two do not merge
    uint32_t id = kNoToken;
  };
  void reserve(size_t merges);
  /// False if the pair is there already.
  bool add(uint32_t left, uint32_t right, Merge merge);
  Merge find(uint32_t left, uint32_t right) const {
    if (slots_.empty()) return {};
    const uint64_t key = uint64_t(left) << 32 | right;
    for (size_t i = start(key);; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i].key == key) return slots_[i].merge;
      if (slots_[i].merge.id == kNoToken) return {};
    }
  }
  size_t size() const { return size_; }
  size_t memory_bytes() const { return slots_.capacity() * sizeof(Slot); }

 private:
  struct Slot {
    uint64_t key = UINT64_MAX;
    Merge merge;
  };
  size_t start(uint64_t key) const { return size_t(key * 0x9E3779B97F4A7C15ull >> shift_); }
  std::vector<Slot> slots_;  // a power of two, at most half full
  int shift_ = 0;
  size_t size_ = 0;
};

/// Token ids by the tokens' bytes.
class TokenIndex {
 public:
  void reserve(size_t tokens);
  void add(const TokenTable& tokens, uint32_t id);
  /// kNoToken if no token that was added has these bytes.
  uint32_t find(const TokenTable& tokens, std::string_view bytes) const;
  bool empty() const { return slots_.empty(); }
  size_t memory_bytes() const { return slots_.capacity() * sizeof(uint32_t); }

 private:
  std::vector<uint32_t> slots_;  // a power of two, at most half full
};

/// One merge of the list, in ids. In files, two merges may make the same token from different parts.
struct BpeMerge {
  uint32_t left, right, id;
};

/// Everything encode needs; immutable once built.
struct BpeModel {
  TokenTable tokens;
  std::vector<BpeMerge> merges;  // by rank
  MergeTable table;              // the same merges
  uint32_t byte_id[256];         // kNoToken where a file has no token for the byte
  TokenIndex whole;              // not empty (Llama-3's ignore_merges): a piece that is one of these is taken whole
};

/// Encodes pieces with one model and remembers short ones. The memory is bounded (2 MiB and 20 bytes per byte of the longest
/// piece), and what it remembers never changes a result. One thread at a time; the model must outlive it.
class BpeEncoder {
 public:
  /// text_bytes: how much will be encoded, roughly; it sizes the memory for pieces.
  BpeEncoder(const BpeModel& model, size_t text_bytes);
  ~BpeEncoder();
  BpeEncoder(const BpeEncoder&) = delete;
  BpeEncoder& operator=(const BpeEncoder&) = delete;
  /// Appends the piece's ids: the pair of the lowest rank merges first, the leftmost of several, until none merges. O(n log n).
  /// Throws Error for a byte that the vocabulary lacks.
  void encode(std::string_view piece, std::vector<int32_t>& ids);

 private:
  struct State;
  State* state_;
};

/// Counts how often each piece occurs; what training needs to know of a text. Memory grows with the different pieces only.
class PieceCounts {
 public:
  PieceCounts();
  ~PieceCounts();
  PieceCounts(const PieceCounts&) = delete;
  PieceCounts& operator=(const PieceCounts&) = delete;
  void add(std::string_view piece, int64_t times = 1);
  void add(const PieceCounts& other);
  size_t size() const;
  /// Pieces in lexicographic order (valid while this lives, until the next add), and how often each occurs.
  void sorted(std::vector<std::string_view>& pieces, std::vector<int64_t>& counts) const;

 private:
  struct State;
  State* state_;
};

/// Learns merges until there are vocab_size tokens (ids 0..255 are the bytes), or no pair occurs twice. Each step merges the pair of
/// adjacent tokens that occurs most often, overlapping occurrences counted; of equals, the one whose left token's bytes come first in
/// lexicographic order, then whose right token's do. Sennrich et al. 2016,
/// arXiv:1508.07909.
BpeModel train_bpe(const PieceCounts& pieces, size_t vocab_size);
}  // namespace reckon
