// backend/cpu/vec_gather-inl: strided elements of any float type but f64 as contiguous floats.
#if defined(RECKON_BACKEND_CPU_VEC_GATHER_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RECKON_BACKEND_CPU_VEC_GATHER_INL_H_
#undef RECKON_BACKEND_CPU_VEC_GATHER_INL_H_
#else
#define RECKON_BACKEND_CPU_VEC_GATHER_INL_H_
#endif

#include "reckon/backend/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
/// Elements of one gathered part.
constexpr int64_t kPart = 1024;

// n elements from `at` on, `stride` apart, as contiguous floats.
HWY_INLINE const float* gather(DType dtype, const void* data, int64_t at, int64_t stride, int64_t n, float* buffer) {
  if (stride == 1) return read_chunk(dtype, data, at, n, buffer);
  if (stride == 0) {
    float one[hn::MaxLanes(D())];
    const V value = set(*read_chunk(dtype, data, at, 1, one));
    for_vectors(n, [&](int64_t i, auto part) RECKON_VEC { part.store(value, buffer + i); });
    return buffer;
  }
  if (dtype == DType::f32) {
    const float* from = static_cast<const float*>(data) + at;
    for (int64_t i = 0; i < n; ++i) buffer[i] = from[i * stride];
    return buffer;
  }
  uint16_t halves[kPart];
  const uint16_t* from = static_cast<const uint16_t*>(data) + at;
  for (int64_t i = 0; i < n; ++i) halves[i] = from[i * stride];
  return read_chunk(dtype, halves, 0, n, buffer);
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
