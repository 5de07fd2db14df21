// Resident memory by name: the parser takes what the kernel writes and nothing else, the classes sum to what the kernel counts, and no
// byte of a process of ours is of nobody.
#include "reckon/train/process_memory.h"

#include <malloc.h>
#include <sys/mman.h>

#include <cstring>
#include <numeric>

#include "reckon/engine/context.h"
#include "reckon/ops/ops.h"
#include "tests/train/small_runs.h"

namespace {
using namespace reckon;

// As kernel 6 writes it; of the fields only the first few, and one that is not known.
constexpr const char* kSample = R"(55912115f000-559121176000 r--p 00000000 fe:00 5375832                    /opt/my programs/reckon
Size:                 92 kB
KernelPageSize:        4 kB
Rss:                  92 kB
Pss:                  46 kB
VmFlags: rd mr mw me sd
559121176000-559121372000 r-xp 00017000 fe:00 5375832                    /opt/my programs/reckon
Size:               2032 kB
Rss:                1556 kB
55913922e000-5591392bc000 rw-p 00000000 00:00 0                          [heap]
Rss:                 396 kB
7eb17d600000-7eb17de00000 rw-p 00000000 00:00 0 
Rss:                  28 kB
AFieldOfTomorrow:     12 of something
7fb180a00000-7fb180a10000 rwxp 00000000 00:00 0 
Rss:                  12 kB
7fb180beb000-7fb180bef000 r--p 00000000 00:00 0                          [anon:glibc: malloc]
Rss:                   4 kB
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
Rss:                   0 kB
)";

TEST(Smaps, are_read) {
  const std::vector<Mapping> m = parse_smaps(kSample);
  ASSERT_EQ(m.size(), 7u);
  EXPECT_EQ(m[0], (Mapping{0x55912115f000, 0x559121176000, true, false, "/opt/my programs/reckon", 92 << 10}));
  EXPECT_EQ(m[1], (Mapping{0x559121176000, 0x559121372000, true, true, "/opt/my programs/reckon", 1556 << 10}));
  EXPECT_EQ(m[2].name, "[heap]");
  EXPECT_EQ(m[3], (Mapping{0x7eb17d600000, 0x7eb17de00000, true, false, "", 28 << 10}));
  EXPECT_EQ(m[5].name, "");  // a name that a program gave
  EXPECT_EQ(m[6], (Mapping{0xffffffffff600000, 0xffffffffff601000, false, true, "[vsyscall]", 0}));
}

TEST(Smaps, of_another_form_are_refused) {
  const std::string first = "1000-3000 rw-p 00000000 00:00 0 \n", rss = "Rss:   4 kB\n";
  EXPECT_EQ(parse_smaps(first + rss)[0].resident, 4096);
  for (const std::string& text : {
           std::string(),                                            // nothing
           rss,                                                      // of which mapping?
           first,                                                    // cut off
           first + first + rss,                                      // a mapping without Rss
           first + rss + first + rss,                                // the same addresses again
           first + rss + rss,                                        // two
           first + "Rss:  4 MB\n",                                   // units
           first + "Rss:  kB\n",                                     // no number
           first + "Rss: -4 kB\n",                                   //
           first + "Rss: 12 kB\n",                                   // more than there is
           first + "Rss: 99999999999999999999 kB\n",                 //
           std::string("3000-1000 rw-p 00000000 00:00 0 \n") + rss,  // backwards
           std::string("1000-1000 rw-p 00000000 00:00 0 \n") + rss,  // empty
           std::string("1000 rw-p 00000000 00:00 0 \n") + rss,       //
           std::string("1000-2x00 rw-p 00000000 00:00 0 \n") + rss,  //
           std::string("1000-fffffffffffffffff rw-p 00000000 00:00 0 \n") + rss,
           std::string("1000-3000 rw 00000000 00:00 0 \n") + rss,
           std::string("1000-3000 rw-p 00000000\n") + rss,
           "\n" + first + rss,
       }) {
    try {
      parse_smaps(text);
      ADD_FAILURE() << "was read: " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Failure::corrupt) << text;
    }
  }
}

// Every second page of the sample is resident.
int64_t half(uint64_t begin, uint64_t end) { return int64_t(end - begin) / 2; }

TEST(ProcessMemory, gives_every_mapping_to_its_owners) {
  const NamedRange ranges[] = {{0x55912115f000, 0x559121372000, MemoryClass::program, "program"},
                               {0x7eb17d600000, 0x7eb17d602000, MemoryClass::stacks, "threads"},
                               {0x7eb17d602000, 0x7eb17d604000, MemoryClass::arena, "arena"}};
  const ProcessMemory memory = classify(parse_smaps(kSample), ranges, half);
  EXPECT_EQ(memory[MemoryClass::program], (92 + 1556) << 10);
  EXPECT_EQ(memory[MemoryClass::stacks], 4 << 10);
  EXPECT_EQ(memory[MemoryClass::arena], 4 << 10);
  EXPECT_EQ(memory[MemoryClass::generated_code], 12 << 10);
  EXPECT_EQ(memory[MemoryClass::system], 0);
  EXPECT_EQ(memory.total(), (92 + 1556 + 396 + 28 + 12 + 4) << 10);
  EXPECT_EQ(memory.runtime(), memory.total() - (4 << 10));
  // What nobody names is the sanitizer's where there is one.
  EXPECT_EQ(memory[MemoryClass::heap] + memory[MemoryClass::unnamed], (396 + 20 + 4) << 10);
#ifndef __SANITIZE_ADDRESS__
  EXPECT_EQ(memory[MemoryClass::heap], 396 << 10);
#endif
}

int64_t sum(const std::vector<NamedBytes>& parts) {
  return std::accumulate(parts.begin(), parts.end(), int64_t(0), [](int64_t s, const NamedBytes& p) { return s + p.bytes; });
}

std::string named(const ProcessMemory& memory) {
  std::string list;
  for (const NamedBytes& p : memory.parts) list += text("{} {}: {}\n", name_of(p.owner), p.name, p.bytes);
  return list;
}

// The state of a process in the middle of its work: an arena, threads that have run, memory from malloc in all its forms, generated code.
TEST(ProcessMemory, knows_every_page_of_this_process) {
  const small::Threads threads(3);
  const Ref<Device> device = open_cpu(Mode::real);
  const NoGrad guard;
  const Tensor ones_ = ones(*device, {{1 << 20}, DType::f32});
  const std::string large(40 << 20, 'x'), other(300 << 10, 'y');
  std::vector<std::string> by_lane(3);
  parallel_for(3, [&](int64_t task) { by_lane[size_t(task)].assign(100 << 10, 'z'); });
  ::malloc_trim(0);

  const std::vector<Mapping> mappings = read_mappings();
  const ProcessMemory memory = measure_process(&*device);
  const int64_t mapped =
      std::accumulate(mappings.begin(), mappings.end(), int64_t(0), [](int64_t s, const Mapping& m) { return s + m.resident; });
  // The two readings are moments apart; reading takes some heap itself.
  EXPECT_NEAR(double(memory.total()), double(mapped), double(1 << 20));
  EXPECT_EQ(memory.total(), sum(memory.parts));
  EXPECT_LT(memory[MemoryClass::unnamed], 1 << 20) << named(memory);
  EXPECT_GE(memory[MemoryClass::arena], 4 << 20);
  EXPECT_LT(memory[MemoryClass::arena], 40 << 20);  // as far as it was touched, in huge pages
  EXPECT_GE(memory[MemoryClass::heap], 40 << 20) << named(memory);
  EXPECT_GT(memory[MemoryClass::libraries], 1 << 20);
  EXPECT_GT(memory[MemoryClass::program], 1 << 20);
#ifndef __SANITIZE_ADDRESS__
  const auto part = [&](MemoryClass owner, std::string_view name) {
    for (const NamedBytes& p : memory.parts)
      if (p.owner == owner && p.name == name) return p.bytes;
    return int64_t(0);
  };
  EXPECT_GE(part(MemoryClass::heap, "malloc's mapped blocks"), 40 << 20) << named(memory);
  EXPECT_GE(part(MemoryClass::stacks, "threads"), 8 << 10) << named(memory);
  EXPECT_GT(part(MemoryClass::libraries, "the loader's tables"), 0) << named(memory);
#endif
}

TEST(ProcessMemory, names_code_that_was_generated_and_pages_of_nobody) {
  constexpr size_t kBytes = 2 << 20;
  const auto mapped = [](int protection) {
    void* at = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(at, MAP_FAILED);
    std::memset(at, 1, kBytes);
    EXPECT_EQ(mprotect(at, kBytes, protection), 0);
    return at;
  };
  const ProcessMemory before = measure_process(nullptr);
  void *code = mapped(PROT_READ | PROT_EXEC), *data = mapped(PROT_READ);
  const ProcessMemory after = measure_process(nullptr);
  munmap(code, kBytes);
  munmap(data, kBytes);
  EXPECT_EQ(after[MemoryClass::generated_code] - before[MemoryClass::generated_code], int64_t(kBytes));
#ifndef __SANITIZE_ADDRESS__
  EXPECT_EQ(after[MemoryClass::unnamed] - before[MemoryClass::unnamed], int64_t(kBytes));
#endif
}

TEST(ProcessMemory, of_the_peak_is_no_less_than_now) {
  const int64_t now = measure_process(nullptr).total();
  EXPECT_GE(peak_resident_bytes(), now - (1 << 20));  // the kernel counts in batches of pages for each core
}
}  // namespace
