#include "tests/witness/heap.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace {
std::atomic<int64_t> outstanding{0};
std::atomic<size_t> largest{0};

void note_taken(size_t asked, size_t usable) {
  outstanding += int64_t(usable);
  size_t seen = largest.load();
  while (asked > seen && !largest.compare_exchange_weak(seen, asked)) {
  }
}
void note_freed(size_t usable) { outstanding -= int64_t(usable); }
}  // namespace

#if defined(__SANITIZE_ADDRESS__)
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void*, size_t), void (*)(const volatile void*));
extern "C" size_t __sanitizer_get_allocated_size(const volatile void*);
[[maybe_unused]] static const int hooks =
    __sanitizer_install_malloc_and_free_hooks([](const volatile void*, size_t bytes) { note_taken(bytes, bytes); },
                                              [](const volatile void* p) { note_freed(p ? __sanitizer_get_allocated_size(p) : 0); });
#else
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);

static void* taken(void* p, size_t bytes) {
  if (p) note_taken(bytes, malloc_usable_size(p));
  return p;
}
void* malloc(size_t bytes) { return taken(__libc_malloc(bytes), bytes); }
void* calloc(size_t count, size_t bytes) { return taken(__libc_calloc(count, bytes), count * bytes); }
void* realloc(void* old, size_t bytes) {
  const size_t before = old ? malloc_usable_size(old) : 0;
  void* p = __libc_realloc(old, bytes);
  if (p || bytes == 0) note_freed(before);
  return taken(p, bytes);
}
void* memalign(size_t alignment, size_t bytes) { return taken(__libc_memalign(alignment, bytes), bytes); }
void* aligned_alloc(size_t alignment, size_t bytes) { return taken(__libc_memalign(alignment, bytes), bytes); }
int posix_memalign(void** p, size_t alignment, size_t bytes) {
  *p = taken(__libc_memalign(alignment, bytes), bytes);
  return *p ? 0 : ENOMEM;
}
void free(void* p) {
  if (p) note_freed(malloc_usable_size(p));
  __libc_free(p);
}
}
#endif

namespace witness {
int64_t outstanding_bytes() { return outstanding; }
int64_t largest_allocation() { return int64_t(largest); }
void clear_largest_allocation() { largest = 0; }

int64_t mapped_bytes() {
  char text[128] = {};
  const int file = ::open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (file < 0 || ::read(file, text, sizeof text - 1) <= 0) std::abort();
  ::close(file);
  return std::strtoll(text, nullptr, 10) * int64_t(::sysconf(_SC_PAGESIZE));  // the first number: pages of the whole process
}
intptr_t program_break() { return reinterpret_cast<intptr_t>(::sbrk(0)); }
}  // namespace witness
