// io/bpe_train: learns merges from piece counts. Every pair knows where it occurs, so a merge touches its own occurrences only.
#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <unordered_map>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "reckon/base/error.h"
#include "reckon/base/stop.h"
#include "reckon/io/bpe.h"

namespace reckon {
namespace {
constexpr size_t kBlockBytes = size_t(1) << 20;

struct CountedPiece {
  const char* bytes = nullptr;  // null: a free slot
  size_t size = 0;
  uint64_t hash = 0;
  int64_t count = 0;
};
}  // namespace

struct PieceCounts::State {
  std::vector<CountedPiece> slots = std::vector<CountedPiece>(1024);  // a power of two, at most half full
  size_t used = 0;
  std::vector<std::unique_ptr<char[]>> blocks;  // the pieces' bytes; never move
  size_t block_left = 0;
  char* block_at = nullptr;

  const char* keep(std::string_view piece) {
    if (piece.size() > block_left) {
      block_left = std::max(kBlockBytes, piece.size());
      blocks.push_back(std::make_unique_for_overwrite<char[]>(block_left));
      block_at = blocks.back().get();
    }
    char* kept = block_at;
    std::memcpy(kept, piece.data(), piece.size());
    block_at += piece.size();
    block_left -= piece.size();
    return kept;
  }
  void grow() {
    std::vector<CountedPiece> old(slots.size() * 2);
    old.swap(slots);
    for (const CountedPiece& piece : old) {
      if (!piece.bytes) continue;
      size_t i = piece.hash & (slots.size() - 1);
      while (slots[i].bytes) i = (i + 1) & (slots.size() - 1);
      slots[i] = piece;
    }
  }
};

PieceCounts::PieceCounts() : state_(new State) {}
PieceCounts::~PieceCounts() { delete state_; }
size_t PieceCounts::size() const { return state_->used; }

void PieceCounts::add(std::string_view piece, int64_t times) {
  State& s = *state_;
  if (piece.empty()) return;
  const uint64_t hash = XXH3_64bits(piece.data(), piece.size());
  size_t i = hash & (s.slots.size() - 1);
  for (; s.slots[i].bytes; i = (i + 1) & (s.slots.size() - 1)) {
    CountedPiece& slot = s.slots[i];
    if (slot.hash == hash && slot.size == piece.size() && std::memcmp(slot.bytes, piece.data(), piece.size()) == 0) {
      slot.count += times;
      return;
    }
  }
  s.slots[i] = {s.keep(piece), piece.size(), hash, times};
  if (2 * ++s.used > s.slots.size()) s.grow();
}

void PieceCounts::add(const PieceCounts& other) {
  for (const CountedPiece& piece : other.state_->slots)
    if (piece.bytes) add({piece.bytes, piece.size}, piece.count);
}

void PieceCounts::sorted(std::vector<std::string_view>& pieces, std::vector<int64_t>& counts) const {
  std::vector<const CountedPiece*> order;
  for (const CountedPiece& piece : state_->slots)
    if (piece.bytes) order.push_back(&piece);
  const auto view = [](const CountedPiece* piece) { return std::string_view(piece->bytes, piece->size); };
  std::sort(order.begin(), order.end(), [&](auto* a, auto* b) { return view(a) < view(b); });
  for (const CountedPiece* piece : order) {
    pieces.push_back(view(piece));
    counts.push_back(piece->count);
  }
}

namespace {
struct Pair {
  uint32_t left, right;
  int64_t count = 0;                // weighted by how often each piece occurs
  std::vector<uint32_t> positions;  // of the left symbol, ascending; may hold places where the pair no longer is
};

// The count may be out of date, but only too high: a pair's count rises in the step that makes one of its tokens, and then only falls.
struct HeapEntry {
  int64_t count;
  uint32_t pair;
};

class Trainer {
 public:
  Trainer(const PieceCounts& pieces, size_t vocab_size);
  BpeModel run();

 private:
  Pair& pair_of(uint32_t left, uint32_t right);
  void add(uint32_t left, uint32_t right, uint32_t position);
  void remove(uint32_t left, uint32_t right, uint32_t position);
  bool below(const HeapEntry& a, const HeapEntry& b) const;
  void push(uint32_t pair);
  uint32_t pop_best();
  void merge(uint32_t pair_index, uint32_t id);

  size_t vocab_size_;
  BpeModel model_;
  // All different pieces, one after another.
  std::vector<uint32_t> symbols_;          // token, kNoToken once merged into its left neighbour
  std::vector<uint32_t> previous_, next_;  // kNoToken at a piece's ends
  std::vector<uint32_t> piece_of_;
  std::vector<int64_t> counts_;  // by piece
  std::vector<Pair> pairs_;
  std::unordered_map<uint64_t, uint32_t> pair_index_;
  std::vector<HeapEntry> heap_;
  std::vector<uint32_t> raised_;  // pairs whose count rose in this step
};

Trainer::Trainer(const PieceCounts& pieces, size_t vocab_size) : vocab_size_(vocab_size) {
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const char c = char(byte);
    model_.tokens.add({&c, 1});
    model_.byte_id[byte] = byte;
  }
  std::vector<std::string_view> views;
  pieces.sorted(views, counts_);
  size_t total = 0;
  for (std::string_view view : views) total += view.size();
  check(total < kNoToken, "the text has {} bytes of different words, over the trainer's limit of 4 GiB: train on less text", total);
  for (auto* list : {&symbols_, &previous_, &next_, &piece_of_}) list->reserve(total);
  for (uint32_t piece = 0; piece < views.size(); ++piece) {
    for (size_t i = 0; i < views[piece].size(); ++i) {
      const uint32_t position = uint32_t(symbols_.size());
      symbols_.push_back(uint8_t(views[piece][i]));
      previous_.push_back(i == 0 ? kNoToken : position - 1);
      next_.push_back(i + 1 == views[piece].size() ? kNoToken : position + 1);
      piece_of_.push_back(piece);
    }
  }
  for (uint32_t position = 0; position < symbols_.size(); ++position)
    if (next_[position] != kNoToken) add(symbols_[position], symbols_[position + 1], position);
}

Pair& Trainer::pair_of(uint32_t left, uint32_t right) {
  const auto [it, added] = pair_index_.try_emplace(uint64_t(left) << 32 | right, uint32_t(pairs_.size()));
  if (added) pairs_.push_back({left, right});
  return pairs_[it->second];
}

void Trainer::add(uint32_t left, uint32_t right, uint32_t position) {
  Pair& pair = pair_of(left, right);
  pair.count += counts_[piece_of_[position]];
  pair.positions.push_back(position);
  raised_.push_back(uint32_t(&pair - pairs_.data()));
}

void Trainer::remove(uint32_t left, uint32_t right, uint32_t position) { pair_of(left, right).count -= counts_[piece_of_[position]]; }

// Highest count first; of equals the lexicographically smallest bytes, left token before right. A total order: tokens differ in bytes.
bool Trainer::below(const HeapEntry& a, const HeapEntry& b) const {
  if (a.count != b.count) return a.count < b.count;
  const Pair &p = pairs_[a.pair], &q = pairs_[b.pair];
  if (p.left != q.left) return model_.tokens[p.left] > model_.tokens[q.left];
  return model_.tokens[p.right] > model_.tokens[q.right];
}

void Trainer::push(uint32_t pair) {
  heap_.push_back({pairs_[pair].count, pair});
  std::push_heap(heap_.begin(), heap_.end(), [this](auto& a, auto& b) { return below(a, b); });
}

// The best pair that occurs at least twice, or kNoToken.
uint32_t Trainer::pop_best() {
  const auto order = [this](auto& a, auto& b) { return below(a, b); };
  while (!heap_.empty()) {
    const HeapEntry top = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end(), order);
    heap_.pop_back();
    const int64_t count = pairs_[top.pair].count;
    RECKON_ASSERT(count <= top.count);
    if (count < 2) continue;
    if (count == top.count) return top.pair;
    push(top.pair);
  }
  return kNoToken;
}

void Trainer::merge(uint32_t pair_index, uint32_t id) {
  const uint32_t left = pairs_[pair_index].left, right = pairs_[pair_index].right;
  std::vector<uint32_t> positions;
  positions.swap(pairs_[pair_index].positions);
  // Left to right, so that of "aaa" the first two merge.
  raised_.clear();
  for (const uint32_t at : positions) {
    const uint32_t other = next_[at];
    if (symbols_[at] != left || other == kNoToken || symbols_[other] != right) continue;
    const uint32_t before = previous_[at], after = next_[other];
    if (before != kNoToken) remove(symbols_[before], left, before);
    if (after != kNoToken) remove(right, symbols_[after], other);
    remove(left, right, at);
    symbols_[at] = id;
    symbols_[other] = kNoToken;
    next_[at] = after;
    if (after != kNoToken) previous_[after] = at;
    if (before != kNoToken) add(symbols_[before], id, before);
    if (after != kNoToken) add(id, symbols_[after], at);
  }
  std::sort(raised_.begin(), raised_.end());
  raised_.erase(std::unique(raised_.begin(), raised_.end()), raised_.end());
  for (const uint32_t pair : raised_) push(pair);
}

BpeModel Trainer::run() {
  raised_ = {};
  for (uint32_t pair = 0; pair < pairs_.size(); ++pair) push(pair);
  while (model_.tokens.size() < vocab_size_) {
    stop_point();
    const uint32_t best = pop_best();
    if (best == kNoToken) break;
    const uint32_t left = pairs_[best].left, right = pairs_[best].right, id = uint32_t(model_.tokens.size());
    // No token is spelled twice: bytes whose ends no merge has crossed have been through the same merges wherever they stand.
    std::string bytes(model_.tokens[left]);
    model_.tokens.add(bytes.append(model_.tokens[right]));
    model_.merges.push_back({left, right, id});
    merge(best, id);
  }
  model_.table.reserve(model_.merges.size());
  for (uint32_t rank = 0; rank < model_.merges.size(); ++rank) {
    const BpeMerge& merge = model_.merges[rank];
    const bool added = model_.table.add(merge.left, merge.right, {rank, merge.id});
    RECKON_ASSERT(added);
  }
  return std::move(model_);
}
}  // namespace

BpeModel train_bpe(const PieceCounts& pieces, size_t vocab_size) {
  check_as(Failure::usage, vocab_size >= 256, "a byte-level BPE vocabulary needs at least 256 tokens, not {}", vocab_size);
  return Trainer(pieces, vocab_size).run();
}
}  // namespace reckon
