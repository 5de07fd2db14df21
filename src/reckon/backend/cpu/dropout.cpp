// backend/cpu/dropout: one read and one write of each element; the words that decide are made in between, 1024 at a time, and each
// decides twice: making them is most of the work.
#include "reckon/backend/cpu/dropout.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/dropout.cpp"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_random-inl.h"

#ifndef RECKON_BACKEND_CPU_DROPOUT_CONSTANTS
#define RECKON_BACKEND_CPU_DROPOUT_CONSTANTS
namespace reckon::cpu {
constexpr int64_t kDropoutBlocks = 256, kDropoutWords = 4 * kDropoutBlocks, kDropoutGroup = 2 * kDropoutWords;
constexpr int64_t kDropoutCost = 7;  // half a draw, a comparison, a product: docs/flops.md
inline int32_t dropout_threshold(double p) { return int32_t(p * 0x1p16 + 0.5); }
}  // namespace reckon::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
// The group's words [begin, end), at their places; the four words of a block are 256 apart, as they come.
void group_words(uint64_t key, int64_t group, int64_t begin, int64_t end, uint32_t* words) {
  const bool one_plane = begin / kDropoutBlocks == (end - 1) / kDropoutBlocks;
  const int64_t from = one_plane ? begin % kDropoutBlocks / 16 * 16 : 0, to = one_plane ? (end - 1) % kDropoutBlocks + 1 : kDropoutBlocks;
  philox_blocks(key, uint64_t(group * kDropoutBlocks + from), to - from, kDropoutBlocks, words + from);
}

// Lines come while words are made.
void prefetch(const std::byte* from, int64_t bytes) {
  for (int64_t line = 0; line < bytes; line += 64) hwy::Prefetch(from + line);
}

// ys[i] = xs[i] * scale where half of word i, the upper if kHigh, reaches the threshold, else 0.
template <bool kHigh>
void drop(const uint32_t* words, const float* xs, float* ys, int64_t n, V scale, int32_t least) {
  const DU du;
  const auto threshold = hn::Set(DI(), least);
  for_vectors(n, [&](int64_t i, auto part) RECKON_VEC {
    RECKON_COUNT_VECTOR(kDropoutCost * part.count());
    const auto word = hn::LoadU(du, words + i);
    const auto bits = hn::BitCast(DI(), kHigh ? hn::ShiftRight<16>(word) : hn::And(word, hn::Set(du, 0xFFFFu)));
    const M keep = hn::RebindMask(D(), hn::Not(hn::Lt(bits, threshold)));
    part.store(hn::IfThenElseZero(keep, hn::Mul(part.load(xs + i), scale)), ys + i);
  });
}

// Elements [begin, end) of the stream of one sample, at x and y [at, ...).
void dropout_part(const Dropout& a, uint64_t key, int64_t begin, int64_t end, int64_t at) {
  HWY_ALIGN uint32_t words[kDropoutWords + hn::MaxLanes(D())] = {};
  HWY_ALIGN float in[kDropoutGroup], out[kDropoutGroup];
  const V scale = set(float(1 / (1 - a.p)));
  const int32_t least = dropout_threshold(a.p);
  for (int64_t e = begin; e < end;) {
    const int64_t group = e / kDropoutGroup, skip = e % kDropoutGroup, n = end - e < kDropoutGroup - skip ? end - e : kDropoutGroup - skip;
    prefetch(static_cast<const std::byte*>(a.x) + at * size_of(a.dtype), n * size_of(a.dtype));
    const int64_t low = skip < kDropoutWords ? (n < kDropoutWords - skip ? n : kDropoutWords - skip) : 0;  // of them in the lower halves
    if (low > 0 && low < n) {
      group_words(key, group, 0, kDropoutWords, words);
    } else {
      group_words(key, group, skip % kDropoutWords, skip % kDropoutWords + n, words);
    }
    const float* xs = read_chunk(a.dtype, a.x, at, n, in);
    float* ys = write_place(a.dtype, a.y, at, out);
    drop<false>(words + skip % kDropoutWords, xs, ys, low, scale, least);
    drop<true>(words + (low > 0 ? 0 : skip - kDropoutWords), xs + low, ys + low, n - low, scale, least);
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
  const uint32_t threshold = uint32_t(dropout_threshold(a.p));
  for (int64_t e = begin; e < end; ++e, ++x, ++y) {
    RECKON_COUNT_VECTOR(kDropoutCost);
    const auto words = philox(key, 0, uint64_t(e / kDropoutGroup * kDropoutBlocks + e % kDropoutBlocks));
    const uint32_t word = words[size_t(e / kDropoutBlocks % 4)], half = e / kDropoutWords % 2 == 0 ? word & 0xFFFFu : word >> 16;
    *y = half >= threshold ? *x * scale : 0;
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
