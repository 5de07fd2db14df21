#include "reckon/backend/cpu/stream.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/stream.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

void stream_part(const uint8_t* from, uint8_t* to, int64_t bytes) {
  const hn::ScalableTag<uint8_t> d;
  const int64_t N = int64_t(hn::Lanes(d)), misaligned = int64_t(reinterpret_cast<uintptr_t>(to) % 64);
  const int64_t head = misaligned == 0 ? 0 : bytes < 64 - misaligned ? bytes : 64 - misaligned;
  std::memcpy(to, from, size_t(head));
  int64_t i = head;
  for (; i + 4 * N <= bytes; i += 4 * N) {
    const auto a = hn::LoadU(d, from + i), b = hn::LoadU(d, from + i + N);
    const auto e = hn::LoadU(d, from + i + 2 * N), f = hn::LoadU(d, from + i + 3 * N);
    hn::Stream(a, d, to + i);
    hn::Stream(b, d, to + i + N);
    hn::Stream(e, d, to + i + 2 * N);
    hn::Stream(f, d, to + i + 3 * N);
  }
  for (; i + N <= bytes; i += N) hn::Stream(hn::LoadU(d, from + i), d, to + i);
  std::memcpy(to + i, from + i, size_t(bytes - i));
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <hwy/cache_control.h>

namespace reckon::cpu {
namespace {
HWY_EXPORT(stream_part);
}
void stream_run(const void* from, void* to, int64_t bytes) {
  HWY_DYNAMIC_DISPATCH(stream_part)(static_cast<const uint8_t*>(from), static_cast<uint8_t*>(to), bytes);
}
void stream_fence() { hwy::FlushStream(); }
}  // namespace reckon::cpu
#endif
