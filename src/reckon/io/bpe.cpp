#include "reckon/io/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <string_view>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "reckon/base/error.h"

namespace reckon {

void MergeTable::reserve(size_t merges) {
  RECKON_ASSERT(size_ == 0);
  slots_.assign(std::bit_ceil(std::max<size_t>(2 * merges, 16)), {});
  shift_ = 64 - std::countr_zero(slots_.size());
}

bool MergeTable::add(uint32_t left, uint32_t right, Merge merge) {
  RECKON_ASSERT(2 * (size_ + 1) <= slots_.size() && merge.id != kNoToken);
  const uint64_t key = uint64_t(left) << 32 | right;
  size_t i = start(key);
  for (; slots_[i].merge.id != kNoToken; i = (i + 1) & (slots_.size() - 1))
    if (slots_[i].key == key) return false;
  slots_[i] = {key, merge};
  ++size_;
  return true;
}

void TokenIndex::reserve(size_t tokens) { slots_.assign(std::bit_ceil(std::max<size_t>(2 * tokens, 16)), kNoToken); }

void TokenIndex::add(const TokenTable& tokens, uint32_t id) {
  size_t i = XXH3_64bits(tokens[id].data(), tokens[id].size()) & (slots_.size() - 1);
  while (slots_[i] != kNoToken) i = (i + 1) & (slots_.size() - 1);
  slots_[i] = id;
}

uint32_t TokenIndex::find(const TokenTable& tokens, std::string_view bytes) const {
  if (slots_.empty()) return kNoToken;
  size_t i = XXH3_64bits(bytes.data(), bytes.size()) & (slots_.size() - 1);
  while (slots_[i] != kNoToken && tokens[slots_[i]] != bytes) i = (i + 1) & (slots_.size() - 1);
  return slots_[i];
}

namespace {
constexpr size_t kMaxCacheSlots = size_t(1) << 15;
constexpr size_t kCachedBytes = 30, kCachedIds = 8;
// Up to here the quadratic scan beats the heap.
constexpr size_t kShortPiece = 64;

// A direct-mapped slot, one cache line: a newer piece simply replaces an older one.
struct CachedPiece {
  char bytes[kCachedBytes];
  uint8_t size = 0;  // 0: empty
  uint8_t count;
  int32_t ids[kCachedIds];
};
static_assert(sizeof(CachedPiece) == 64);

// Candidate merge in a long piece. May be out of date when it comes up.
struct Candidate {
  uint32_t rank, position;
  bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : position > other.position; }
};
}  // namespace

struct BpeEncoder::State {
  const BpeModel& model;
  std::vector<CachedPiece> cache;
  std::vector<uint32_t> ids, ranks, previous, next;
  std::vector<Candidate> heap;

  void bytes_to_ids(std::string_view piece);
  void merge_short();
  void merge_long();
  void push(uint32_t position);
};

BpeEncoder::BpeEncoder(const BpeModel& model, size_t text_bytes) : state_(new State{model, {}, {}, {}, {}, {}, {}}) {
  // A short text must not pay for clearing megabytes.
  state_->cache.resize(std::bit_ceil(std::clamp<size_t>(text_bytes / 16, 16, kMaxCacheSlots)));
}
BpeEncoder::~BpeEncoder() { delete state_; }

void BpeEncoder::encode(std::string_view piece, std::vector<int32_t>& out) {
  State& s = *state_;
  if (piece.empty()) return;
  if (piece.size() == 1 && s.model.byte_id[uint8_t(piece[0])] != kNoToken) {
    out.push_back(int32_t(s.model.byte_id[uint8_t(piece[0])]));
    return;
  }
  CachedPiece* slot = nullptr;
  if (piece.size() <= kCachedBytes) {
    slot = &s.cache[XXH3_64bits(piece.data(), piece.size()) & (s.cache.size() - 1)];
    if (slot->size == piece.size() && std::memcmp(slot->bytes, piece.data(), piece.size()) == 0) {
      out.insert(out.end(), slot->ids, slot->ids + slot->count);
      return;
    }
  }
  const uint32_t whole = s.model.whole.find(s.model.tokens, piece);
  if (whole != kNoToken) {
    s.ids.assign(1, whole);
  } else {
    s.bytes_to_ids(piece);
    if (s.ids.size() <= kShortPiece) {
      s.merge_short();
    } else {
      s.merge_long();
    }
  }
  out.insert(out.end(), s.ids.begin(), s.ids.end());
  if (slot && s.ids.size() <= kCachedIds) {
    std::memcpy(slot->bytes, piece.data(), piece.size());
    slot->size = uint8_t(piece.size());
    slot->count = uint8_t(s.ids.size());
    std::copy(s.ids.begin(), s.ids.end(), slot->ids);
  }
}

void BpeEncoder::State::bytes_to_ids(std::string_view piece) {
  check(piece.size() < UINT32_MAX, "a stretch of {} bytes without a place to split is over the limit of 4 GiB", piece.size());
  ids.resize(piece.size());
  for (size_t i = 0; i < piece.size(); ++i) {
    ids[i] = model.byte_id[uint8_t(piece[i])];
    check(ids[i] != kNoToken, "the tokenizer has no token for byte {}, which the text contains: use another tokenizer", uint8_t(piece[i]));
  }
}

// ranks[i] is the rank of merging ids[i] with ids[i + 1]; a merge changes two of them.
void BpeEncoder::State::merge_short() {
  size_t n = ids.size();
  ranks.resize(n);
  for (size_t i = 0; i + 1 < n; ++i) ranks[i] = model.table.find(ids[i], ids[i + 1]).rank;
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i)
      if (ranks[i] < ranks[best]) best = i;
    if (ranks[best] == kNoToken) break;
    ids[best] = model.table.find(ids[best], ids[best + 1]).id;
    std::copy(ids.begin() + best + 2, ids.begin() + n, ids.begin() + best + 1);
    if (best + 2 < n) std::copy(ranks.begin() + best + 2, ranks.begin() + n, ranks.begin() + best + 1);
    --n;
    if (best + 1 < n) ranks[best] = model.table.find(ids[best], ids[best + 1]).rank;
    if (best > 0) ranks[best - 1] = model.table.find(ids[best - 1], ids[best]).rank;
  }
  ids.resize(n);
}

void BpeEncoder::State::push(uint32_t position) {
  if (next[position] == kNoToken) return;
  const uint32_t rank = model.table.find(ids[position], ids[next[position]]).rank;
  if (rank == kNoToken) return;
  heap.push_back({rank, position});
  std::push_heap(heap.begin(), heap.end(), std::greater<>());
}

// The symbols are a linked list, so that a merge costs the heap's log n and nothing moves.
void BpeEncoder::State::merge_long() {
  const uint32_t n = uint32_t(ids.size());
  previous.resize(n);
  next.resize(n);
  heap.clear();
  for (uint32_t i = 0; i < n; ++i) {
    previous[i] = i - 1;  // of the first: kNoToken
    next[i] = i + 1 < n ? i + 1 : kNoToken;
    const uint32_t rank = i + 1 < n ? model.table.find(ids[i], ids[i + 1]).rank : kNoToken;
    if (rank != kNoToken) heap.push_back({rank, i});
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  while (!heap.empty()) {
    const auto [rank, position] = heap.front();
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    heap.pop_back();
    const uint32_t right = ids[position] == kNoToken ? kNoToken : next[position];
    if (right == kNoToken) continue;
    const MergeTable::Merge merge = model.table.find(ids[position], ids[right]);
    if (merge.rank != rank) continue;  // out of date: one of the two has merged since
    ids[position] = merge.id;
    ids[right] = kNoToken;
    next[position] = next[right];
    if (next[right] != kNoToken) previous[next[right]] = position;
    push(position);
    if (previous[position] != kNoToken) push(previous[position]);
  }
  ids.erase(std::remove(ids.begin(), ids.end(), kNoToken), ids.end());
}
}  // namespace reckon
