// backend/cpu/dropout: one read and one write of each element; the words that decide are made in between, 1024 at a time.
#include "reckon/backend/cpu/dropout.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/dropout.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_random-inl.h"

#ifndef RECKON_BACKEND_CPU_DROPOUT_CONSTANTS
#define RECKON_BACKEND_CPU_DROPOUT_CONSTANTS
namespace reckon::cpu {
constexpr int64_t kDropoutBlocks = 256, kDropoutGroup = 4 * kDropoutBlocks;
constexpr int64_t kDropoutCost = 12;  // a draw, a comparison, a product: docs/flops.md
}  // namespace reckon::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
// Words of the group's elements [begin, end), at their places; the four words of a block are 256 elements apart, as they come.
void group_words(uint64_t key, int64_t group, int64_t begin, int64_t end, uint32_t* words) {
  const bool one_plane = begin / kDropoutBlocks == (end - 1) / kDropoutBlocks;
  const int64_t from = one_plane ? begin % kDropoutBlocks / 16 * 16 : 0, to = one_plane ? (end - 1) % kDropoutBlocks + 1 : kDropoutBlocks;
  philox_blocks(key, uint64_t(group * kDropoutBlocks + from), to - from, kDropoutBlocks, words + from);
}

// Elements [begin, end) of the stream of one sample, at x and y [at, ...).
void dropout_part(const Dropout& a, uint64_t key, int64_t begin, int64_t end, int64_t at) {
  HWY_ALIGN uint32_t words[kDropoutGroup + hn::MaxLanes(D())] = {};
  HWY_ALIGN float in[kDropoutGroup], out[kDropoutGroup];
  const V scale = set(float(1 / (1 - a.p))), threshold = set(float(int64_t(a.p * 0x1p24 + 0.5)));
  for (int64_t e = begin; e < end;) {
    const int64_t group = e / kDropoutGroup, skip = e % kDropoutGroup, n = end - e < kDropoutGroup - skip ? end - e : kDropoutGroup - skip;
    group_words(key, group, skip, skip + n, words);
    const float* xs = read_chunk(a.dtype, a.x, at, n, in);
    float* ys = write_place(a.dtype, a.y, at, out);
    for_vectors(n, [&](int64_t i, auto part) RECKON_VEC {
      RECKON_COUNT_VECTOR(kDropoutCost * part.count());
      const M keep = hn::Ge(top_bits(words + skip + i), threshold);
      part.store(hn::IfThenElseZero(keep, hn::Mul(part.load(xs + i), scale)), ys + i);
    });
    write_chunk(a.dtype, a.y, at, n, out);
    e += n, at += n;
  }
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>

#include "reckon/backend/cpu/rows.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(dropout_part);

void dropout_part_f64(const Dropout& a, uint64_t key, int64_t begin, int64_t end, int64_t at) {
  const double *x = static_cast<const double*>(a.x) + at, scale = 1 / (1 - a.p);
  double* y = static_cast<double*>(a.y) + at;
  const uint32_t threshold = uint32_t(a.p * 0x1p24 + 0.5);
  for (int64_t e = begin; e < end; ++e, ++x, ++y) {
    RECKON_COUNT_VECTOR(kDropoutCost);
    const auto words = philox(key, 0, uint64_t(e / kDropoutGroup * kDropoutBlocks + e % kDropoutBlocks));
    *y = words[size_t(e / kDropoutBlocks % 4)] >> 8 >= threshold ? *x * scale : 0;
  }
}
}  // namespace

void dropout(const Dropout& a) {
  RECKON_ASSERT(is_float(a.dtype) && a.p >= 0 && a.p < 1);
  const uint64_t key = mix_key(uint64_t(a.draws[0]), a.site);
  // Whole groups of the stream, but for the ends of samples: a task shares no block with another.
  const int64_t part = std::max(kTaskElements / kDropoutGroup, int64_t(1)) * kDropoutGroup;
  const auto run = [&](int64_t sample, int64_t begin, int64_t end) {
    const uint64_t own = mix_key(key, uint64_t(a.draws[1] + sample));
    const int64_t at = sample * a.each + begin;
    if (a.dtype == DType::f64) return dropout_part_f64(a, own, a.first + begin, a.first + end, at);
    HWY_DYNAMIC_DISPATCH(dropout_part)(a, own, a.first + begin, a.first + end, at);
  };
  if (a.each < part) {  // several samples a task
    parallel_range(a.samples, std::max(part / std::max(a.each, int64_t(1)), int64_t(1)), [&](int64_t begin, int64_t end) {
      for (int64_t sample = begin; sample < end; ++sample) run(sample, 0, a.each);
    });
    return;
  }
  const int64_t parts = (a.each + part - 1) / part;
  parallel_for(a.samples * parts, [&](int64_t task) {
    const int64_t begin = task % parts * part;
    run(task / parts, begin, std::min(begin + part, a.each));
  });
}
}  // namespace reckon::cpu
#endif
