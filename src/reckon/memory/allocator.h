// memory/allocator: one allocator for every device. It does arithmetic on offsets and never touches a byte.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace reckon {

/// Who a byte belongs to. Every allocation has exactly one.
enum class Category : uint8_t { parameter, gradient, optimizer, master, activation, temporary, data, communication, cache };
inline constexpr int kCategories = 9;
std::string_view name_of(Category category);

/// What the program is doing; peaks are kept for each.
enum class Phase : uint8_t { init, data, forward, backward, step, eval, save };
inline constexpr int kPhases = 7;
std::string_view name_of(Phase phase);

/// Every block is a multiple of this many bytes and starts at one.
inline constexpr int64_t kBlockAlignment = 64;
/// Bytes rounded up to a whole block; throws Error (usage) if that overflows.
int64_t round_block(int64_t bytes);

/// The bytes behind an allocator: one range of offsets from 0 that can grow.
class RawMemory {
 public:
  virtual ~RawMemory() = default;
  /// Makes offsets [0, bytes) usable. Throws Error (memory) if the system refuses.
  virtual void grow(int64_t bytes) = 0;
  /// The same to the page, for an arena that will not grow: what lies beyond stays inaccessible.
  virtual void grow_exactly(int64_t bytes) { grow(bytes); }
  /// (offset, bytes, accessible): opens or closes a range of pages, where every block has pages of its own (witnesses only).
  virtual void protect(int64_t, int64_t, bool) {}
  /// Address of offset 0; null on meta.
  virtual std::byte* base() const = 0;
  /// Bytes of addresses from base() on that are nobody else's, usable yet or not.
  virtual int64_t reserved() const { return 0; }
};

/// One allocation or free, as the trace sees it.
struct AllocationEvent {
  bool is_alloc;
  Category category;
  Phase phase;
  uint32_t module;  // id of the module path, see engine/context.h
  const char* op;
  int64_t serial;  // blocks are numbered in the order of their allocation
  int64_t bytes;   // rounded
};

struct Block {
  int64_t serial = -1;
  int64_t place = -1;  // where the allocator keeps it among the live ones
  int64_t offset = 0;
  int64_t bytes = 0;  // rounded
  int64_t requested = 0;
  Category category = Category::temporary;
  uint32_t module = 0;
  const char* op = "";
  bool planned = false;   // lies where a segment's plan put it
  bool kept = false;      // its plan leaves it behind
  int32_t rehearsal = 0;  // the rehearsal that made it; 0: none
};

/// A recorded stretch of the program: events [begin, end).
struct SegmentMark {
  std::string name;
  size_t begin = 0, end = 0;
};
struct SegmentPlan;  // memory/arena.h
struct ArenaPlan;

/// The ledger: what was live, when, and whose it was. Byte counts are of rounded blocks.
struct Ledger {
  int64_t live = 0;
  int64_t peak = 0;
  int64_t extent = 0;  // bytes of the arena; without a plan, the highest offset ever used
  int64_t allocations = 0;
  std::array<int64_t, kCategories> live_by_category{};
  std::array<int64_t, kCategories> at_peak{};  // sums to peak, at its first maximum
  std::array<int64_t, kPhases> phase_peak{};
};

/// How much the allocator helps to find kernels that read or write what is not theirs. Places and bits must not depend on it.
enum class Guard : uint8_t {
  none,
  poison,   // memory that is free, or new, is filled with NaN
  mapping,  // every block lies in pages of its own that nobody can touch before and after its life, with untouchable pages around
};

/// Gives blocks offsets in one of two ways. Inside a segment that has a plan, block n of the segment gets its planned offset, and anything
/// but the planned sequence is an error. Elsewhere: best fit over one growing range, ties to the lowest offset. Nothing here depends on an
/// address, on time or on threads.
class Allocator {
 public:
  explicit Allocator(RawMemory& memory);
  ~Allocator();
  Allocator(const Allocator&) = delete;
  Allocator& operator=(const Allocator&) = delete;

  /// Throws Error (memory) naming the request and the largest holders if the budget or the system is exceeded, and Error (failed) if a plan
  /// is followed and has something else here; nothing is changed then.
  Block allocate(int64_t bytes, Category category, uint32_t module, const char* op);
  void free(const Block& block);

  /// Bytes that offsets may reach; 0: no limit but the system's.
  void set_budget(int64_t bytes);
  /// Only before the first block.
  void set_guard(Guard guard);
  /// What is live counts towards the peak of a phase that begins; going back to an outer phase counts nothing by itself.
  void enter_phase(Phase phase);
  void return_to_phase(Phase phase);
  Phase phase() const;
  const Ledger& ledger() const;

  /// Hash of the sequence (alloc | free, serial, bytes, category, op) so far, 16 hex digits.
  std::string trace_hash() const;
  /// From now on every event is also kept in events(), and every segment in marks(): for reports, plans and first differences.
  void record_events(bool on);
  const std::vector<AllocationEvent>& events() const;
  const std::vector<SegmentMark>& marks() const;

  /// From now on every block lies in an arena of exactly plan.bytes, taken from the system at once; only segments of the plan may allocate.
  /// Only before the first block. Throws Error (memory) if the plan is over the budget or the system refuses.
  void adopt(const ArenaPlan& plan);
  /// A part of the range for the blocks of planned segments that run one at a time; it grows (and may move) between segments. Throws Error
  /// (memory) if that is over the budget; the region is then what it was.
  void reserve_region(int64_t bytes);
  /// The following calls are a segment's. Segments do not nest: an inner one is part of the outer. True if this one is the outer one.
  /// Throws Error if the arena's plan has no such segment, or if a block of one that failed is still held.
  bool begin_segment(std::string_view name);
  /// The same with its plan, inside the region. Throws Error if a block of the region's last segment is still held. A segment that may
  /// leave its plan goes on without it, beside the region, from the first difference on.
  void begin_segment(const SegmentPlan& plan, bool may_leave = false);
  /// The rest of the running segment has no plan.
  void leave_plan(std::string why);
  /// Throws Error naming the first difference if the segment left its plan or ended before it.
  void end_segment();
  /// The same for one that may leave its plan: returns the first difference, "" if there was none.
  std::string close_segment();
  /// After an exception: whatever the segment did is no error.
  void abandon_segment() noexcept;

  /// A rehearsal runs code for its trace alone: blocks get no memory, events() holds its events only, and what ledger, trace, places and
  /// events were before is put back at its end.
  void begin_rehearsal();
  /// Throws Error naming a block that the rehearsal left behind; all is put back nevertheless.
  void end_rehearsal();
  bool in_rehearsal() const;

 private:
  struct State;
  State* state_;
};

/// The calls between construction and end() are one segment; without end(), because an exception was thrown, it is abandoned.
class SegmentScope {
 public:
  SegmentScope(Allocator& allocator, std::string_view name) : allocator_(allocator), open_(allocator.begin_segment(name)) {}
  ~SegmentScope() {
    if (open_) allocator_.abandon_segment();
  }
  SegmentScope(const SegmentScope&) = delete;
  SegmentScope& operator=(const SegmentScope&) = delete;
  void end() {
    if (open_) allocator_.end_segment();
    open_ = false;
  }

 private:
  Allocator& allocator_;
  bool open_;
};

/// One line an event: "alloc #12 4096 B activation matmul".
std::string to_string(const AllocationEvent& event);
}  // namespace reckon
