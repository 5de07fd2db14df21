// tests/witness: what this process takes from the heap and the system, seen from outside: every allocation goes through this program's own
// malloc.
#pragma once
#include <cstddef>
#include <cstdint>

namespace witness {
/// Bytes of the heap that are allocated and not freed, of all threads.
int64_t outstanding_bytes();
/// The largest single allocation since it was last cleared.
int64_t largest_allocation();
void clear_largest_allocation();
/// Bytes of addresses that the process has mapped, and the end of its data segment: what mmap and brk change.
int64_t mapped_bytes();
intptr_t program_break();
}  // namespace witness
