#include "reckon/memory/allocator.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "reckon/base/debug.h"
#include "reckon/base/error.h"
#include "reckon/base/text.h"
#include "reckon/memory/arena.h"

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
  check_as(Failure::usage, bytes >= 0 && !__builtin_add_overflow(bytes, kBlockAlignment - 1, &sum),
           "a block of {} bytes is beyond 2^63 - 1 bytes", bytes);
  return sum & ~(kBlockAlignment - 1);
}

std::string to_string(const AllocationEvent& e) {
  return text("{} #{} {} B {} {} ({})", e.is_alloc ? "alloc" : "free", e.serial, e.bytes, name_of(e.category), e.op, name_of(e.phase));
}

namespace {
constexpr int64_t kPage = 4096;
constexpr int kNaN = 0xFF;  // in every byte: NaN in every float format, -1 in integers

// Everything that a rehearsal puts back.
struct Books {
  Ledger ledger;
  Phase phase = Phase::init;
  int64_t next_serial = 0;
  std::map<int64_t, int64_t> free_by_offset;           // offset -> bytes, never adjacent
  std::set<std::pair<int64_t, int64_t>> free_by_size;  // (bytes, offset)
  std::vector<Block> live;                             // serial -1: an unused place
  std::vector<int64_t> unused;                         // places in live
  XXH3_state_t hash;
  bool recording = false;
  std::vector<AllocationEvent> events;
  std::vector<SegmentMark> marks;
};

// Where the running segment is in its plan.
struct Course {
  const SegmentPlan* plan = nullptr;
  int64_t base = 0;  // of its region
  int64_t first_serial = 0;
  size_t next = 0;         // event
  std::string divergence;  // the first difference, found where nothing can be thrown
  bool may_leave = false;
  std::string left;  // why the plan is not followed any more
};
}  // namespace

struct Allocator::State {
  RawMemory& memory;
  Books books;
  int64_t budget = 0;
  Guard guard = Guard::none;
  std::unique_ptr<ArenaPlan> arena;
  bool in_segment = false;
  Course course;
  int64_t region_offset = 0, region_bytes = 0;
  int64_t region_blocks = 0, kept_blocks = 0;  // planned ones that are live; kept: left by their segment
  std::unique_ptr<Books> before_rehearsal;
  int32_t rehearsals = 0;
  std::vector<Block> freed_in_rehearsal;  // older blocks
  int64_t mapped = 0;                     // end of the last block with pages of its own

  explicit State(RawMemory& m) : memory(m) { XXH3_64bits_reset(&books.hash); }

  std::byte* base() const { return before_rehearsal ? nullptr : memory.base(); }

  void add_free(int64_t offset, int64_t bytes) {
    books.free_by_offset.emplace(offset, bytes);
    books.free_by_size.emplace(bytes, offset);
  }
  void remove_free(std::map<int64_t, int64_t>::iterator at) {
    books.free_by_size.erase({at->second, at->first});
    books.free_by_offset.erase(at);
  }
  // Where a block of `bytes` goes: the smallest hole that holds it, else the end (joined with a hole that touches it).
  int64_t place(int64_t bytes) {
    if (guard == Guard::mapping) return place_apart(bytes);
    const auto hole = books.free_by_size.lower_bound({bytes, 0});
    if (hole != books.free_by_size.end()) {
      const auto [hole_bytes, offset] = *hole;
      remove_free(books.free_by_offset.find(offset));
      if (hole_bytes > bytes) add_free(offset + bytes, hole_bytes - bytes);
      return offset;
    }
    Ledger& ledger = books.ledger;
    int64_t offset = ledger.extent;
    const auto last = books.free_by_offset.empty() ? books.free_by_offset.end() : std::prev(books.free_by_offset.end());
    const bool joins = last != books.free_by_offset.end() && last->first + last->second == ledger.extent;
    if (joins) offset = last->first;
    int64_t end = 0;
    check_as(Failure::usage, !__builtin_add_overflow(offset, bytes, &end), "a block of {} bytes on top of {} is beyond 2^63 - 1 bytes",
             bytes, offset);
    if (!before_rehearsal) memory.grow(end);
    if (joins) remove_free(last);
    ledger.extent = end;
    return offset;
  }
  // Pages that no block had before, with one on each side that stays closed; the block ends where its pages end.
  int64_t place_apart(int64_t bytes) {
    const int64_t pages = (bytes + kPage - 1) / kPage * kPage, start = mapped + kPage;
    mapped = start + pages;
    if (!before_rehearsal) memory.protect(start, pages, true);
    return start + pages - bytes;
  }
  void give_back(int64_t offset, int64_t bytes) {
    if (guard == Guard::mapping) {
      if (!before_rehearsal) memory.protect(offset / kPage * kPage, offset + bytes - offset / kPage * kPage, false);
      return;
    }
    auto next = books.free_by_offset.lower_bound(offset);
    if (next != books.free_by_offset.begin()) {
      const auto previous = std::prev(next);
      if (previous->first + previous->second == offset) {
        offset = previous->first;
        bytes += previous->second;
        remove_free(previous);
      }
    }
    if (next != books.free_by_offset.end() && offset + bytes == next->first) {
      bytes += next->second;
      remove_free(next);
    }
    add_free(offset, bytes);
  }
  // True if place() would stay within the budget. A rehearsal takes nothing; what it planned is judged when its region is reserved.
  bool within_budget(int64_t bytes) const {
    if (budget <= 0 || before_rehearsal || books.free_by_size.lower_bound({bytes, 0}) != books.free_by_size.end()) return true;
    int64_t offset = books.ledger.extent;
    if (!books.free_by_offset.empty()) {
      const auto last = std::prev(books.free_by_offset.end());
      if (last->first + last->second == books.ledger.extent) offset = last->first;
    }
    return bytes <= budget - offset;
  }
  void check_budget(int64_t bytes, const char* op, std::string_view what) const {
    if (within_budget(bytes)) return;  // not check(): naming the holders walks all blocks
    fail_as(Failure::memory, "out of memory: {} ({}) needs {} on top of {} live; the budget is {}; largest: {}", op, what,
            human_bytes(bytes), human_bytes(books.ledger.live), human_bytes(budget), holders());
  }

  AllocationEvent event_of(bool is_alloc, const Block& b) const {
    return {is_alloc, b.category, books.phase, b.module, b.op, b.serial, b.bytes};
  }
  // The difference between the plan's next event and this one; "" if they agree.
  std::string leaves_plan(const AllocationEvent& got) const {
    const SegmentPlan& plan = *course.plan;
    AllocationEvent relative = got;
    relative.serial -= course.first_serial;
    if (course.next >= plan.events.size()) return text("planned nothing more, got {}", to_string(relative));
    const AllocationEvent& planned = plan.events[course.next];
    // Quick on the way that is always taken: names of operations are constants, so their addresses nearly always agree.
    if (planned.is_alloc == relative.is_alloc && planned.serial == relative.serial && planned.bytes == relative.bytes &&
        planned.category == relative.category && planned.op == relative.op)
      return "";
    return difference(planned, relative);
  }
  [[noreturn]] void fail_divergence(const std::string& differs) const {
    fail("{} left its plan at event {}: {}; the same inputs must make the same calls", course.plan->name, course.next, differs);
  }

  void count_planned(const Block& block, int64_t by) {
    if (block.bytes > 0) (block.kept ? kept_blocks : region_blocks) += by;
  }
  // Blocks of a segment that failed, or of the last one, would lie under those of the next.
  void check_region_is_free(std::string_view next, bool also_kept) const {
    check(region_blocks + (also_kept ? kept_blocks : 0) == 0,
          "{}: a tensor of an earlier planned step is still held; let go of it, or copy it, before the next", next);
  }

  void trace(const AllocationEvent& event) {
    struct {
      int64_t serial, bytes;
      uint32_t is_alloc, category;
    } fields = {event.serial, event.bytes, event.is_alloc, uint32_t(event.category)};
    XXH3_64bits_update(&books.hash, &fields, sizeof fields);
    XXH3_64bits_update(&books.hash, event.op, std::strlen(event.op));
    if (books.recording) books.events.push_back(event);
    if (debug(Debug::memory)) debug_line(Debug::memory, to_string(event) + text(", live {}", books.ledger.live));
  }
  void enter(Block& block) {
    if (books.unused.empty()) {
      block.place = int64_t(books.live.size());
      books.live.push_back(block);
    } else {
      block.place = books.unused.back();
      books.unused.pop_back();
      books.live[size_t(block.place)] = block;
    }
  }
  void leave(const Block& block) {
    RECKON_ASSERT(size_t(block.place) < books.live.size() && books.live[size_t(block.place)].serial == block.serial);
    books.live[size_t(block.place)].serial = -1;
    books.unused.push_back(block.place);
  }
  void open_bytes(const Block& block) const {
    std::byte* start = base();
    if (!start) return;
    RECKON_UNPOISON(start + block.offset, size_t(block.bytes));
    if (guard != Guard::none) std::memset(start + block.offset, kNaN, size_t(block.bytes));
    RECKON_POISON(start + block.offset + block.requested, size_t(block.bytes - block.requested));
  }
  void close_bytes(const Block& block) const {
    std::byte* start = base();
    if (!start) return;
    RECKON_UNPOISON(start + block.offset, size_t(block.bytes));
    if (guard == Guard::poison) std::memset(start + block.offset, kNaN, size_t(block.bytes));
    RECKON_POISON(start + block.offset, size_t(block.bytes));
  }
  std::string holders() const {
    std::vector<Block> blocks;
    for (const Block& block : books.live)
      if (block.serial >= 0) blocks.push_back(block);
    const size_t shown = std::min<size_t>(3, blocks.size());
    std::partial_sort(blocks.begin(), blocks.begin() + long(shown), blocks.end(),
                      [](const Block& a, const Block& b) { return a.bytes != b.bytes ? a.bytes > b.bytes : a.serial < b.serial; });
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
  Books& books = s.books;
  Block block;
  block.serial = books.next_serial;
  block.bytes = round_block(bytes);
  block.requested = bytes;
  block.category = category;
  block.module = module;
  block.op = op;
  block.rehearsal = s.before_rehearsal ? s.rehearsals : 0;
  const AllocationEvent event = s.event_of(true, block);
  if (s.course.plan) {
    const std::string differs = s.course.divergence.empty() ? s.leaves_plan(event) : s.course.divergence;
    if (!differs.empty() && !s.course.may_leave) s.fail_divergence(differs);
    if (!differs.empty()) leave_plan(text("at event {}: {}", s.course.next, differs));
  }
  if (s.course.plan) {
    const size_t n = size_t(block.serial - s.course.first_serial);
    const int64_t planned = s.course.base + s.course.plan->offsets[n];
    block.offset = s.guard == Guard::mapping && block.bytes > 0 ? s.place(block.bytes) : planned;
    block.planned = true;
    block.kept = s.course.plan->kept[n];
    ++s.course.next;
  } else if (s.arena) {
    fail("{} ({}) asks for {} outside of every planned segment", op, name_of(category), human_bytes(bytes));
  } else if (block.bytes > 0) {
    s.check_budget(block.bytes, op, name_of(category));
    block.offset = s.place(block.bytes);
  }
  if (block.bytes > 0) s.open_bytes(block);
  if (block.planned) s.count_planned(block, 1);
  ++books.next_serial;
  Ledger& l = books.ledger;
  ++l.allocations;
  l.live += block.bytes;
  l.live_by_category[size_t(category)] += block.bytes;
  if (l.live > l.peak) {
    l.peak = l.live;
    l.at_peak = l.live_by_category;
  }
  l.phase_peak[size_t(books.phase)] = std::max(l.phase_peak[size_t(books.phase)], l.live);
  s.enter(block);
  s.trace(event);
  return block;
}

void Allocator::free(const Block& block) {
  State& s = *state_;
  Books& books = s.books;
  if (block.rehearsal != 0 && !(s.before_rehearsal && block.rehearsal == s.rehearsals)) return;  // what a rehearsal left behind
  const AllocationEvent event = s.event_of(false, block);
  if (s.course.plan && s.course.divergence.empty()) {
    s.course.divergence = s.leaves_plan(event);
    if (s.course.divergence.empty()) ++s.course.next;
  }
  s.leave(block);
  books.ledger.live -= block.bytes;
  books.ledger.live_by_category[size_t(block.category)] -= block.bytes;
  s.trace(event);
  if (s.before_rehearsal && block.rehearsal == 0) {
    s.freed_in_rehearsal.push_back(block);
    return;
  }
  if (block.planned) s.count_planned(block, -1);
  if (block.bytes == 0) return;
  s.close_bytes(block);
  if (!block.planned || s.guard == Guard::mapping) s.give_back(block.offset, block.bytes);
}

void Allocator::set_budget(int64_t bytes) { state_->budget = bytes; }
void Allocator::set_guard(Guard guard) {
  RECKON_ASSERT(state_->books.next_serial == 0 && !state_->arena);
  state_->guard = guard;
}
void Allocator::return_to_phase(Phase phase) { state_->books.phase = phase; }
void Allocator::enter_phase(Phase phase) {
  Books& books = state_->books;
  books.phase = phase;
  int64_t& peak = books.ledger.phase_peak[size_t(phase)];
  peak = std::max(peak, books.ledger.live);
}
Phase Allocator::phase() const { return state_->books.phase; }
const Ledger& Allocator::ledger() const { return state_->books.ledger; }
std::string Allocator::trace_hash() const { return text("{:016x}", uint64_t(XXH3_64bits_digest(&state_->books.hash))); }
void Allocator::record_events(bool on) { state_->books.recording = on; }
const std::vector<AllocationEvent>& Allocator::events() const { return state_->books.events; }
const std::vector<SegmentMark>& Allocator::marks() const { return state_->books.marks; }

void Allocator::adopt(const ArenaPlan& plan) {
  State& s = *state_;
  check(s.books.next_serial == 0 && !s.arena && !s.before_rehearsal, "a device adopts its plan before its first allocation");
  check_as(Failure::memory, s.budget <= 0 || plan.bytes <= s.budget, "out of memory: the plan takes {} and the budget is {}",
           human_bytes(plan.bytes), human_bytes(s.budget));
  // With pages of its own for every block there is no arena; the plan is followed all the same.
  if (s.guard != Guard::mapping) s.memory.grow_exactly(plan.bytes);
  s.arena = std::make_unique<ArenaPlan>(plan);
  s.books.ledger.extent = plan.bytes;
  if (std::byte* base = s.base()) {
    RECKON_UNPOISON(base, size_t(plan.bytes));  // of an earlier mapping at these addresses
    if (s.guard == Guard::poison) std::memset(base, kNaN, size_t(plan.bytes));
  }
}

void Allocator::reserve_region(int64_t bytes) {
  State& s = *state_;
  RECKON_ASSERT(!s.in_segment && !s.arena);
  bytes = round_block(bytes);
  if (bytes <= s.region_bytes) return;
  s.check_region_is_free("a larger step", true);
  if (s.guard == Guard::mapping) {
    s.region_bytes = bytes;
    return;
  }
  // The old region makes room for the new one, and is put back if there is still too little.
  const auto by_offset = s.books.free_by_offset;
  const auto by_size = s.books.free_by_size;
  if (s.region_bytes > 0) s.give_back(s.region_offset, s.region_bytes);
  try {
    s.check_budget(bytes, "planned", "all of a step's blocks");
    s.region_offset = s.place(bytes);
  } catch (...) {
    s.books.free_by_offset = by_offset;
    s.books.free_by_size = by_size;
    throw;
  }
  s.region_bytes = bytes;
}

bool Allocator::begin_segment(std::string_view name) {
  State& s = *state_;
  if (s.in_segment) return false;
  if (s.arena) {
    const SegmentPlan* plan = s.arena->find(name);
    check(plan != nullptr, "{} is not part of the plan", name);
    s.check_region_is_free(name, plan == &s.arena->segments[0]);
    s.course = Course{plan, s.arena->base_of(*plan), s.books.next_serial, 0, {}, false, {}};
  }
  s.in_segment = true;
  if (s.books.recording) s.books.marks.push_back({std::string(name), s.books.events.size(), s.books.events.size()});
  return true;
}

void Allocator::begin_segment(const SegmentPlan& plan, bool may_leave) {
  State& s = *state_;
  RECKON_ASSERT(!s.in_segment && plan.bytes <= s.region_bytes);
  s.check_region_is_free(plan.name, true);
  s.in_segment = true;
  s.course = Course{&plan, s.region_offset, s.books.next_serial, 0, {}, may_leave, {}};
}

// Blocks that have a place in the region keep it; those to come lie elsewhere, so none can meet another.
void Allocator::leave_plan(std::string why) {
  Course& course = state_->course;
  if (!course.plan) return;
  RECKON_ASSERT(course.may_leave);
  course = Course{.may_leave = true, .left = std::move(why)};
}

void Allocator::end_segment() {
  const std::string name = state_->course.plan ? state_->course.plan->name : "", differs = close_segment();
  if (!differs.empty()) fail("{} left its plan {}; the same inputs must make the same calls", name, differs);
}

std::string Allocator::close_segment() {
  State& s = *state_;
  RECKON_ASSERT(s.in_segment);
  s.in_segment = false;
  if (s.books.recording && !s.books.marks.empty()) s.books.marks.back().end = s.books.events.size();
  const Course course = std::exchange(s.course, {});
  if (!course.plan || (course.divergence.empty() && course.next == course.plan->events.size())) return course.left;
  const std::string differs =
      !course.divergence.empty() ? course.divergence : text("planned {}, got its end", to_string(course.plan->events[course.next]));
  return text("at event {}: {}", course.next, differs);
}

void Allocator::abandon_segment() noexcept {
  state_->in_segment = false;
  state_->course = {};
  Books& books = state_->books;
  if (books.recording && !books.marks.empty()) books.marks.back().end = books.events.size();
}

bool Allocator::in_rehearsal() const { return bool(state_->before_rehearsal); }
void Allocator::begin_rehearsal() {
  State& s = *state_;
  check(!s.arena && !s.in_segment && !s.before_rehearsal, "a step cannot be rehearsed inside another planned step");
  s.before_rehearsal = std::make_unique<Books>(s.books);
  ++s.rehearsals;
  s.books.recording = true;
  s.books.events.clear();
  s.books.marks.clear();
}

void Allocator::end_rehearsal() {
  State& s = *state_;
  std::string left;
  for (const Block& block : s.books.live)
    if (block.serial >= 0 && block.rehearsal == s.rehearsals && left.empty())
      left = text("{} {} of {}", human_bytes(block.bytes), name_of(block.category), block.op);
  s.books = std::move(*s.before_rehearsal);
  s.before_rehearsal.reset();
  for (const Block& block : std::exchange(s.freed_in_rehearsal, {})) free(block);
  check(left.empty(), "the step leaves {} behind: what outlives a step is made before it, or returned by it", left);
}
}  // namespace reckon
