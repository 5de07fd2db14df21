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
  /// Address of offset 0; null on meta.
  virtual std::byte* base() const = 0;
};

/// One allocation or free, as the trace sees it.
struct AllocationEvent {
  bool is_alloc;
  Category category;
  Phase phase;
  uint32_t module;      // id of the module path, see engine/context.h
  const char* op;
  int64_t serial;       // blocks are numbered in the order of their allocation
  int64_t bytes;        // rounded
};

struct Block {
  int64_t serial = -1;
  int64_t offset = 0;
  int64_t bytes = 0;    // rounded
  int64_t requested = 0;
  Category category = Category::temporary;
  uint32_t module = 0;
  const char* op = "";
};

/// The ledger: what was live, when, and whose it was. Byte counts are of rounded blocks.
struct Ledger {
  int64_t live = 0;
  int64_t peak = 0;
  int64_t extent = 0;  // highest offset ever used: what the placement needed
  int64_t allocations = 0;
  std::array<int64_t, kCategories> live_by_category{};
  std::array<int64_t, kCategories> at_peak{};  // sums to peak, at its first maximum
  std::array<int64_t, kPhases> phase_peak{};
};

/// Best fit over one growing range; ties go to the lowest offset. Nothing here depends on an address, on time or on threads.
class Allocator {
 public:
  explicit Allocator(RawMemory& memory);
  ~Allocator();
  Allocator(const Allocator&) = delete;
  Allocator& operator=(const Allocator&) = delete;

  /// Throws Error (memory) naming the request and the largest holders if the budget or the system is exceeded; nothing is changed then.
  Block allocate(int64_t bytes, Category category, uint32_t module, const char* op);
  void free(const Block& block);

  /// Bytes that offsets may reach; 0: no limit but the system's.
  void set_budget(int64_t bytes);
  /// What is live counts towards the peak of a phase that begins; going back to an outer phase counts nothing by itself.
  void enter_phase(Phase phase);
  void return_to_phase(Phase phase);
  Phase phase() const;
  const Ledger& ledger() const;

  /// Hash of the sequence (alloc | free, serial, bytes, category, op) so far, 16 hex digits.
  std::string trace_hash() const;
  /// From now on every event is also kept in events(), for reports and for naming the first difference.
  void record_events(bool on);
  const std::vector<AllocationEvent>& events() const;

 private:
  struct State;
  State* state_;
};

/// One line an event: "alloc #12 4096 B activation matmul".
std::string to_string(const AllocationEvent& event);
}  // namespace reckon
