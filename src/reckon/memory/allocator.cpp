#include "reckon/memory/allocator.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>
#include <unordered_map>

#include "reckon/base/debug.h"
#include "reckon/base/error.h"
#include "reckon/base/text.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define RECKON_POISON(address, bytes) ASAN_POISON_MEMORY_REGION(address, bytes)
#define RECKON_UNPOISON(address, bytes) ASAN_UNPOISON_MEMORY_REGION(address, bytes)
#else
#define RECKON_POISON(address, bytes) ((void)(address), (void)(bytes))
#define RECKON_UNPOISON(address, bytes) ((void)(address), (void)(bytes))
#endif

namespace reckon {
namespace {
constexpr std::string_view kCategoryNames[kCategories] = {"parameter", "gradient", "optimizer",     "master", "activation",
                                                          "temporary", "data",     "communication", "cache"};
constexpr std::string_view kPhaseNames[kPhases] = {"init", "data", "forward", "backward", "step", "eval", "save"};
}  // namespace

std::string_view name_of(Category category) { return kCategoryNames[size_t(category)]; }
std::string_view name_of(Phase phase) { return kPhaseNames[size_t(phase)]; }

int64_t round_block(int64_t bytes) {
  int64_t sum = 0;
  check_as(Failure::usage, bytes >= 0 && !__builtin_add_overflow(bytes, kBlockAlignment - 1, &sum), "a block of {} bytes is beyond 2^63 - 1 bytes", bytes);
  return sum & ~(kBlockAlignment - 1);
}

std::string to_string(const AllocationEvent& e) {
  return text("{} #{} {} B {} {} ({})", e.is_alloc ? "alloc" : "free", e.serial, e.bytes, name_of(e.category), e.op, name_of(e.phase));
}

struct Allocator::State {
  RawMemory& memory;
  Ledger ledger;
  Phase phase = Phase::init;
  int64_t budget = 0;
  int64_t next_serial = 0;
  std::map<int64_t, int64_t> free_by_offset;            // offset -> bytes, never adjacent
  std::set<std::pair<int64_t, int64_t>> free_by_size;   // (bytes, offset)
  std::unordered_map<int64_t, Block> live;              // serial -> block
  XXH3_state_t hash;
  bool recording = false;
  std::vector<AllocationEvent> events;

  explicit State(RawMemory& m) : memory(m) { XXH3_64bits_reset(&hash); }

  void add_free(int64_t offset, int64_t bytes) {
    free_by_offset.emplace(offset, bytes);
    free_by_size.emplace(bytes, offset);
  }
  void remove_free(std::map<int64_t, int64_t>::iterator at) {
    free_by_size.erase({at->second, at->first});
    free_by_offset.erase(at);
  }
  // Where a block of `bytes` goes: the smallest hole that holds it, else the end (joined with a hole that touches it).
  int64_t place(int64_t bytes) {
    const auto hole = free_by_size.lower_bound({bytes, 0});
    if (hole != free_by_size.end()) {
      const auto [hole_bytes, offset] = *hole;
      remove_free(free_by_offset.find(offset));
      if (hole_bytes > bytes) add_free(offset + bytes, hole_bytes - bytes);
      return offset;
    }
    int64_t offset = ledger.extent;
    const auto last = free_by_offset.empty() ? free_by_offset.end() : std::prev(free_by_offset.end());
    const bool joins = last != free_by_offset.end() && last->first + last->second == ledger.extent;
    if (joins) offset = last->first;
    int64_t end = 0;
    check_as(Failure::usage, !__builtin_add_overflow(offset, bytes, &end), "a block of {} bytes on top of {} is beyond 2^63 - 1 bytes", bytes, offset);
    memory.grow(end);
    if (joins) remove_free(last);
    ledger.extent = end;
    return offset;
  }
  // True if place() would stay within the budget.
  bool within_budget(int64_t bytes) const {
    if (budget <= 0 || free_by_size.lower_bound({bytes, 0}) != free_by_size.end()) return true;
    int64_t offset = ledger.extent;
    if (!free_by_offset.empty()) {
      const auto last = std::prev(free_by_offset.end());
      if (last->first + last->second == ledger.extent) offset = last->first;
    }
    return bytes <= budget - offset;
  }
  void trace(bool is_alloc, const Block& b) {
    struct {
      int64_t serial, bytes;
      uint32_t is_alloc, category;
    } fields = {b.serial, b.bytes, is_alloc, uint32_t(b.category)};
    XXH3_64bits_update(&hash, &fields, sizeof fields);
    XXH3_64bits_update(&hash, b.op, std::strlen(b.op));
    const AllocationEvent event{is_alloc, b.category, phase, b.module, b.op, b.serial, b.bytes};
    if (recording) events.push_back(event);
    if (debug(Debug::memory)) debug_line(Debug::memory, to_string(event) + text(", live {}", ledger.live));
  }
  std::string holders() const {
    std::vector<Block> blocks;
    for (const auto& [serial, block] : live) blocks.push_back(block);
    const size_t shown = std::min<size_t>(3, blocks.size());
    std::partial_sort(blocks.begin(), blocks.begin() + long(shown), blocks.end(), [](const Block& a, const Block& b) {
      return a.bytes != b.bytes ? a.bytes > b.bytes : a.serial < b.serial;
    });
    std::string list;
    for (size_t i = 0; i < shown; ++i)
      list += text("{}{} {} of {}", i ? ", " : "", human_bytes(blocks[i].bytes), name_of(blocks[i].category), blocks[i].op);
    return list.empty() ? "nothing else" : list;
  }
};

Allocator::Allocator(RawMemory& memory) : state_(new State(memory)) {}
Allocator::~Allocator() { delete state_; }

Block Allocator::allocate(int64_t bytes, Category category, uint32_t module, const char* op) {
  State& s = *state_;
  Block block{s.next_serial, 0, round_block(bytes), bytes, category, module, op};
  if (block.bytes > 0) {
    if (!s.within_budget(block.bytes))  // not check(): naming the holders walks all blocks
      fail_as(Failure::memory, "out of memory: {} ({}) needs {} on top of {} live; the budget is {}; largest: {}", op, name_of(category),
              human_bytes(block.bytes), human_bytes(s.ledger.live), human_bytes(s.budget), s.holders());
    block.offset = s.place(block.bytes);
    if (std::byte* base = s.memory.base()) {
      RECKON_POISON(base + block.offset, size_t(block.bytes));
      RECKON_UNPOISON(base + block.offset, size_t(bytes));
    }
  }
  ++s.next_serial;
  Ledger& l = s.ledger;
  ++l.allocations;
  l.live += block.bytes;
  l.live_by_category[size_t(category)] += block.bytes;
  if (l.live > l.peak) {
    l.peak = l.live;
    l.at_peak = l.live_by_category;
  }
  l.phase_peak[size_t(s.phase)] = std::max(l.phase_peak[size_t(s.phase)], l.live);
  s.live.emplace(block.serial, block);
  s.trace(true, block);
  return block;
}

void Allocator::free(const Block& block) {
  State& s = *state_;
  RECKON_ASSERT(s.live.erase(block.serial) == 1);
  s.ledger.live -= block.bytes;
  s.ledger.live_by_category[size_t(block.category)] -= block.bytes;
  s.trace(false, block);
  if (block.bytes == 0) return;
  if (std::byte* base = s.memory.base()) RECKON_POISON(base + block.offset, size_t(block.bytes));
  int64_t offset = block.offset, bytes = block.bytes;
  auto next = s.free_by_offset.lower_bound(offset);
  if (next != s.free_by_offset.begin()) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == offset) {
      offset = previous->first;
      bytes += previous->second;
      s.remove_free(previous);
    }
  }
  if (next != s.free_by_offset.end() && offset + bytes == next->first) {
    bytes += next->second;
    s.remove_free(next);
  }
  s.add_free(offset, bytes);
}

void Allocator::set_budget(int64_t bytes) { state_->budget = bytes; }
void Allocator::return_to_phase(Phase phase) { state_->phase = phase; }
void Allocator::enter_phase(Phase phase) {
  state_->phase = phase;
  int64_t& peak = state_->ledger.phase_peak[size_t(phase)];
  peak = std::max(peak, state_->ledger.live);
}
Phase Allocator::phase() const { return state_->phase; }
const Ledger& Allocator::ledger() const { return state_->ledger; }
std::string Allocator::trace_hash() const { return text("{:016x}", uint64_t(XXH3_64bits_digest(&state_->hash))); }
void Allocator::record_events(bool on) { state_->recording = on; }
const std::vector<AllocationEvent>& Allocator::events() const { return state_->events; }
}  // namespace reckon
