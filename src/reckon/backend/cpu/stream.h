// backend/cpu/stream: stores that go past the caches, for results that are too large to be found there again.
#pragma once
#include <cstdint>

namespace reckon::cpu {
/// memcpy of bytes that do not overlap, in the calling thread; 64-byte aligned parts of the destination are not read into a cache first.
void stream_run(const void* from, void* to, int64_t bytes);
/// To be called by each thread after its last stream_run, before others read what it wrote.
void stream_fence();
}  // namespace reckon::cpu
