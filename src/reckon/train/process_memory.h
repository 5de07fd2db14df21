// train/process_memory: the resident memory of this process, every mapping under a name that says whose it is. It reads what the system
// tells and knows no plan.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace reckon {
class Device;

/// Whose a resident byte is.
enum class MemoryClass : uint8_t {
  arena,           // the device's memory, which the ledger accounts for
  heap,            // malloc's: [heap], its arenas, its mapped blocks
  stacks,          // of all threads
  program,         // the program's file and its zeroed data
  libraries,       // shared libraries, their zeroed data, the loader's tables
  generated_code,  // written while running: oneDNN's kernels, PCRE2's patterns
  files,           // other mapped files
  system,          // pages that the kernel lends: vdso
  unnamed,         // of nobody we know; a test keeps it below 1 MiB
};
inline constexpr int kMemoryClasses = 9;
std::string_view name_of(MemoryClass owner);

/// A part of a class with a name of its own: a library, a thread's stack.
struct NamedBytes {
  MemoryClass owner;
  std::string name;
  int64_t bytes = 0;
};

/// Resident bytes of a process, or of one that is planned.
struct ProcessMemory {
  std::array<int64_t, kMemoryClasses> bytes{};
  std::vector<NamedBytes> parts;  // of a measured one, largest first; they sum to the classes

  int64_t& operator[](MemoryClass owner) { return bytes[size_t(owner)]; }
  int64_t operator[](MemoryClass owner) const { return bytes[size_t(owner)]; }
  int64_t total() const;
  /// All but the arena: what the process takes that the ledger does not know.
  int64_t runtime() const { return total() - (*this)[MemoryClass::arena]; }
};

/// One mapping of a process's addresses, as /proc/PID/smaps lists it.
struct Mapping {
  uint64_t begin = 0, end = 0;
  bool readable = false, executable = false;
  std::string name;      // a path, "[heap]", or "" for memory without a file
  int64_t resident = 0;  // bytes

  bool is_file() const { return name.starts_with('/'); }
  bool operator==(const Mapping&) const = default;
};
/// Throws Error (corrupt) with the line for anything that the kernel does not write.
std::vector<Mapping> parse_smaps(std::string_view text);
/// The mappings of this process. Throws Error if the system does not tell.
std::vector<Mapping> read_mappings();

/// Addresses [begin, end) whose owner is known.
struct NamedRange {
  uint64_t begin, end;
  MemoryClass owner;
  std::string name;
};
/// Who owns what in this process: the device's range (device may be null), loaded objects, threads' stacks, malloc's blocks.
std::vector<NamedRange> known_ranges(std::span<const Mapping> mappings, const Device* device);

/// Resident bytes of the pages in [begin, end), for a mapping that several share.
using ResidentIn = int64_t (*)(uint64_t begin, uint64_t end);
/// Every mapping to its owners; the classes sum to the mappings' resident bytes. Where ranges overlap, the first of them counts.
ProcessMemory classify(std::span<const Mapping> mappings, std::span<const NamedRange> ranges, ResidentIn resident_in);

/// This process now, with the range of `device` (may be null) as arena. Takes a walk over its page tables: milliseconds.
ProcessMemory measure_process(const Device* device);
/// Gives the system back what malloc keeps of freed memory.
void return_free_heap();
/// Largest resident set of this process so far, bytes.
int64_t peak_resident_bytes();
}  // namespace reckon
