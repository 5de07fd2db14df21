// train/process_ranges: who owns which addresses of this process. The loader, OpenMP and malloc are asked or, where they do not tell,
// proved to be the owner by the headers that they write. Memory is read through the system, so that no address can be a wrong one.
#include <fcntl.h>
#include <link.h>
#include <unistd.h>

#include <algorithm>

#include "reckon/base/parallel.h"
#include "reckon/tensor/device.h"
#include "reckon/train/process_memory.h"

namespace reckon {
namespace {
constexpr uint64_t kPage = 4096;
uint64_t page_floor(uint64_t address) { return address / kPage * kPage; }
uint64_t page_ceil(uint64_t address) { return (address + kPage - 1) / kPage * kPage; }

// glibc's malloc (malloc/malloc.c, malloc/arena.c): a block with a mapping of its own starts with {unused, size | 2}; an arena of a thread
// starts at a multiple of 64 MiB with {its state, the arena's part before this one, size, usable size, ...}.
constexpr uint64_t kMappedBlock = 2, kArenaAlignment = uint64_t(64) << 20, kStateDistance = 256;

class Memory {
 public:
  Memory() : fd_(open("/proc/self/mem", O_RDONLY | O_CLOEXEC)) {}
  ~Memory() {
    if (fd_ >= 0) close(fd_);
  }
  Memory(const Memory&) = delete;
  bool read(uint64_t address, std::span<uint64_t> words) const {
    return fd_ >= 0 && pread(fd_, words.data(), words.size_bytes(), off_t(address)) == ssize_t(words.size_bytes());
  }

 private:
  int fd_;
};

class Ranges {
 public:
  explicit Ranges(std::span<const Mapping> mappings) : mappings_(mappings) {}

  void add(uint64_t begin, uint64_t end, MemoryClass owner, std::string name) {
    if (begin < end) ranges_.push_back({begin, end, owner, std::move(name)});
  }

  // Program headers say where an object's file and the zeroes behind it lie.
  void add_objects() {
    dl_iterate_phdr(
        [](dl_phdr_info* object, size_t, void* self) {
          const std::string path = object->dlpi_name ? object->dlpi_name : "";
          if (path.starts_with("linux-vdso")) return 0;  // named by the system
          for (int i = 0; i < object->dlpi_phnum; ++i) {
            const ElfW(Phdr)& part = object->dlpi_phdr[i];
            if (part.p_type != PT_LOAD) continue;
            const uint64_t begin = object->dlpi_addr + part.p_vaddr;
            static_cast<Ranges*>(self)->add(page_floor(begin), page_ceil(begin + part.p_memsz),
                                            path.empty() ? MemoryClass::program : MemoryClass::libraries,
                                            path.empty() ? "program" : path.substr(path.rfind('/') + 1));
          }
          return 0;
        },
        this);
  }

  // A thread's control block is at the upper end of its stack, and a closed page keeps the lower end apart from other mappings. The main
  // thread's is among the loader's tables instead.
  void add_threads() {
    for (const uint64_t control_block : thread_pointers()) {
      const Mapping* m = at(control_block);
      if (!m || !m->name.empty()) continue;
      const bool is_stack = m != mappings_.data() && (m - 1)->end == m->begin && !(m - 1)->readable;
      if (is_stack) add(m->begin, page_ceil(control_block), MemoryClass::stacks, "threads");
    }
  }

  // The blocks that malloc maps lie at the lower ends of mappings, one behind the other: new mappings go below old ones.
  void add_malloc() {
    const Memory memory;
    for (const Mapping& m : mappings_) {
      if (!m.name.empty() || m.executable || m.resident == 0) continue;
      uint64_t words[4];
      if (m.begin % kArenaAlignment == 0 && memory.read(m.begin, words) && is_arena(m, words)) {
        add(m.begin, m.begin + words[3], MemoryClass::heap, "malloc's arenas of threads");
        continue;
      }
      uint64_t block = m.begin;
      while (block < m.end && !is_known(block) && memory.read(block, std::span(words).first(2)) && is_mapped_block(words, m.end - block))
        block += words[1] - kMappedBlock;
      add(m.begin, block, MemoryClass::heap, "malloc's mapped blocks");
    }
  }

  // What the loader took before there was a malloc: its list of objects, the main thread's local variables, and tables that point into the
  // list. They lie between the objects that were loaded before and after, or are one mapping with the zeroes of the one below.
  void add_loader() {
    std::vector<uint64_t> objects;
    for (const link_map* object = _r_debug.r_map; object; object = object->l_next) objects.push_back(reinterpret_cast<uint64_t>(object));
    for (const uint64_t object : objects) add_loader_at(object);
    add_loader_at(reinterpret_cast<uint64_t>(__builtin_thread_pointer()));
    std::vector<uint64_t> starts;  // of what nobody owns so far
    for (const Mapping& m : mappings_) starts.push_back(m.begin);
    for (const NamedRange& r : ranges_) starts.push_back(r.end);
    for (const uint64_t start : starts)
      if (holds_any(free_around(start), objects)) add_loader_at(start);
  }

  std::vector<NamedRange> finish() { return std::move(ranges_); }

 private:
  const Mapping* at(uint64_t address) const {
    const auto after =
        std::upper_bound(mappings_.begin(), mappings_.end(), address, [](uint64_t a, const Mapping& m) { return a < m.end; });
    return after != mappings_.end() && after->begin <= address ? &*after : nullptr;
  }
  bool is_known(uint64_t address) const {
    return std::any_of(ranges_.begin(), ranges_.end(), [&](const NamedRange& r) { return r.begin <= address && address < r.end; });
  }
  static bool holds_any(const NamedRange& range, std::span<const uint64_t> pointers) {
    constexpr uint64_t kMostOfLoader = 1 << 20;
    if (range.begin == range.end || range.end - range.begin > kMostOfLoader) return false;
    std::vector<uint64_t> words((range.end - range.begin) / sizeof(uint64_t));
    if (!Memory().read(range.begin, words)) return false;
    return std::find_first_of(words.begin(), words.end(), pointers.begin(), pointers.end()) != words.end();
  }
  static bool is_arena(const Mapping& m, const uint64_t (&words)[4]) {
    const uint64_t state = words[0], size = words[2], usable = words[3];
    return state % kArenaAlignment < kStateDistance && state != 0 && size <= usable && usable <= m.end - m.begin && usable % kPage == 0;
  }
  static bool is_mapped_block(const uint64_t (&words)[4], uint64_t room) {
    const uint64_t size = words[1] - kMappedBlock;
    return words[0] == 0 && size > 0 && size % kPage == 0 && size <= room;
  }
  // What nobody owns around an address of memory without a file: up to the neighbouring ranges, or to the mapping's ends. Else nothing.
  NamedRange free_around(uint64_t address) const {
    const Mapping* m = at(address);
    if (!m || !m->name.empty() || m->executable || is_known(address)) return {};
    NamedRange free = {m->begin, m->end, MemoryClass::unnamed, ""};
    for (const NamedRange& r : ranges_) {
      if (r.end <= address) free.begin = std::max(free.begin, r.end);
      if (r.begin > address) free.end = std::min(free.end, r.begin);
    }
    return free;
  }
  void add_loader_at(uint64_t address) {
    const NamedRange free = free_around(address);
    add(free.begin, free.end, MemoryClass::libraries, "the loader's tables");
  }

  std::span<const Mapping> mappings_;
  std::vector<NamedRange> ranges_;
};
}  // namespace

std::vector<NamedRange> known_ranges(std::span<const Mapping> mappings, const Device* device) {
  Ranges ranges(mappings);
  if (device) {
    const uint64_t begin = reinterpret_cast<uint64_t>(device->base());
    ranges.add(begin, begin + uint64_t(device->reserved_bytes()), MemoryClass::arena, "arena");
  }
  ranges.add_objects();
  ranges.add_threads();
  ranges.add_malloc();
  ranges.add_loader();
  return ranges.finish();
}
}  // namespace reckon
