// backend/cpu/cumsum: the additions of a line wait for each other, so several lines are added up beside each other, as doubles in the L1
// cache, to and from which vectors convert. Columns that lie side by side are vectors of sums.
#include "reckon/backend/cpu/cumsum.h"

#include "reckon/backend/cpu/rounding.h"
#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/cumsum.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_held-inl.h"

#ifndef RECKON_BACKEND_CPU_CUMSUM_ONCE
#define RECKON_BACKEND_CPU_CUMSUM_ONCE
namespace reckon::cpu {
constexpr int64_t kScanLines = 8;                          // added up beside each other
constexpr int64_t kScanRun = 256;                          // elements of each of them at a time: 16 KiB of doubles
constexpr int64_t kScanPitch = kScanRun + 8;               // from a line to the next: not at the same place of a page
constexpr int64_t kScanColumns = 1024, kFewColumns = 256;  // side by side

// Lines or columns of one call: what both kernels see.
struct Scan {
  DType dtype;
  int64_t length;
  bool reverse, exclusive, streams;
  const void* x;
  int64_t x_next, x_along;  // from a line to the next, from an element of a line to the next
  void* y;
  int64_t y_next, y_along;
};
}  // namespace reckon::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
using DD = hn::ScalableTag<double>;
using DF = hn::Rebind<float, DD>;  // as many floats as doubles

// n <= kScanRun elements from x[at] on, `stride` apart, as floats.
HWY_INLINE const float* floats_of(DType dtype, const void* x, int64_t at, int64_t stride, int64_t n, float* buffer) {
  if (stride == 1) return read_chunk(dtype, x, at, n, buffer);
  if (dtype == DType::f32) {
    for (int64_t i = 0; i < n; ++i) buffer[i] = static_cast<const float*>(x)[at + i * stride];
    return buffer;
  }
  uint16_t halves[kScanRun];
  for (int64_t i = 0; i < n; ++i) halves[i] = static_cast<const uint16_t*>(x)[at + i * stride];
  return read_chunk(dtype, halves, 0, n, buffer);
}

void read_doubles(DType dtype, const void* x, int64_t at, int64_t stride, int64_t n, double* to) {
  if (dtype == DType::f64) {
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<const double*>(x)[at + i * stride];
    return;
  }
  HWY_ALIGN float buffer[kScanRun];
  const float* from = floats_of(dtype, x, at, stride, n, buffer);
  const int64_t N = int64_t(hn::Lanes(DD()));
  int64_t i = 0;
  for (; i + N <= n; i += N) hn::StoreU(hn::PromoteTo(DD(), hn::LoadU(DF(), from + i)), DD(), to + i);
  for (; i < n; ++i) to[i] = double(from[i]);
}

// Fetches n elements that are read later; any place will do.
HWY_INLINE void fetch(const Scan& a, int64_t at, int64_t n) {
  const int64_t bytes = size_of(a.dtype);
  const char* const first = static_cast<const char*>(a.x) + at * bytes;
  for (int64_t line = 0; line < n * bytes; line += 64) __builtin_prefetch(first + line, 0, 2);
}

// Doubles as floats; if they are rounded again later, to odd: see round_to_odd.
template <bool kAgain>
HWY_INLINE void to_floats(const double* from, int64_t n, float* to) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128  // whose conversions saturate
  const DD dd;
  const hn::RebindToUnsigned<DD> du;
  const int64_t N = int64_t(hn::Lanes(dd));
  for (; i + N <= n; i += N) {
    auto v = hn::LoadU(dd, from + i);
    if constexpr (kAgain) {
      // The 29 bits that a float has not: any of them sets the last one that it has. Below the normal floats it has fewer.
      const auto tiny = hn::And(hn::Lt(hn::Abs(v), hn::Set(dd, 0x1p-126)), hn::Gt(hn::Abs(v), hn::Zero(dd)));
      if (HWY_UNLIKELY(!hn::AllFalse(dd, tiny))) {
        for (int64_t k = i; k < i + N; ++k) to[k] = round_to_odd(from[k]);
        continue;
      }
      const auto bits = hn::BitCast(du, v), below = hn::And(bits, hn::Set(du, 0x1FFFFFFFu));
      const auto sticky = hn::And(hn::Add(below, hn::Set(du, 0x1FFFFFFFu)), hn::Set(du, 0x20000000u));
      v = hn::BitCast(dd, hn::Or(hn::AndNot(hn::Set(du, 0x1FFFFFFFu), bits), sticky));
    }
    hn::StoreU(hn::DemoteTo(DF(), v), DF(), to + i);
  }
#endif
  for (; i < n; ++i) to[i] = kAgain ? round_to_odd(from[i]) : float(from[i]);
}

void write_doubles(const Scan& a, const double* from, int64_t at, int64_t n) {
  char* const to = static_cast<char*>(a.y) + at * size_of(a.dtype);
  HWY_ALIGN float floats[kScanRun];
  HWY_ALIGN uint16_t halves[kScanRun];
  const void* source = from;
  if (a.dtype == DType::f32) {
    if (!a.streams) return to_floats<false>(from, n, reinterpret_cast<float*>(to));
    to_floats<false>(from, n, floats);
    source = floats;
  } else if (a.dtype != DType::f64) {
    to_floats<true>(from, n, floats);
    narrow_chunk(a.dtype, floats, n, a.streams ? halves : reinterpret_cast<uint16_t*>(to));
    if (!a.streams) return;
    source = halves;
  }
  a.streams ? stream_run(source, to, n * size_of(a.dtype)) : void(std::memcpy(to, source, size_t(n * size_of(a.dtype))));
}

// The running sums of kCount lines of n doubles, kScanPitch apart, from `sums` on, which go on.
template <int kCount>
HWY_INLINE void add_up(double* first, int64_t n, int64_t step, bool exclusive, double* sums) {
  double s[kCount];
#pragma GCC unroll 8
  for (int k = 0; k < kCount; ++k) s[k] = sums[k];
  for (int64_t j = 0; j < n; ++j, first += step) {
#pragma GCC unroll 8
    for (int k = 0; k < kCount; ++k) {
      const double next = s[k] + first[k * kScanPitch];
      first[k * kScanPitch] = exclusive ? s[k] : next;
      s[k] = next;
    }
  }
#pragma GCC unroll 8
  for (int k = 0; k < kCount; ++k) sums[k] = s[k];
}

#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
HWY_INLINE void add_lines(double* first, int64_t n, bool reverse, bool exclusive, double* sums) {
  add_up<kScanLines>(reverse ? first + n - 1 : first, n, reverse ? -1 : 1, exclusive, sums);
}
#else
using VD = hn::Vec<DD>;
// A block of as many lines as a vector has lanes by as many elements: lines become elements and back.
template <int kLanes>
struct Turned {
  VD a, b, c, d, e, f, g, h;

  HWY_INLINE explicit Turned(const double* p) {
    a = hn::LoadU(DD(), p), b = hn::LoadU(DD(), p + kScanPitch);
    c = hn::LoadU(DD(), p + 2 * kScanPitch), d = hn::LoadU(DD(), p + 3 * kScanPitch);
    e = f = g = h = a;
    if constexpr (kLanes == 8) {
      e = hn::LoadU(DD(), p + 4 * kScanPitch), f = hn::LoadU(DD(), p + 5 * kScanPitch);
      g = hn::LoadU(DD(), p + 6 * kScanPitch), h = hn::LoadU(DD(), p + 7 * kScanPitch);
    }
  }
  HWY_INLINE void store(double* p) const {
    hn::StoreU(a, DD(), p), hn::StoreU(b, DD(), p + kScanPitch);
    hn::StoreU(c, DD(), p + 2 * kScanPitch), hn::StoreU(d, DD(), p + 3 * kScanPitch);
    if constexpr (kLanes == 8) {
      hn::StoreU(e, DD(), p + 4 * kScanPitch), hn::StoreU(f, DD(), p + 5 * kScanPitch);
      hn::StoreU(g, DD(), p + 6 * kScanPitch), hn::StoreU(h, DD(), p + 7 * kScanPitch);
    }
  }
  static HWY_INLINE void pair(VD& low, VD& high) {
    const VD lower = hn::InterleaveLower(DD(), low, high), upper = hn::InterleaveUpper(DD(), low, high);
    low = lower, high = upper;
  }
  static HWY_INLINE void pair_halves(VD& low, VD& high) {
    const VD lower = hn::ConcatLowerLower(DD(), high, low), upper = hn::ConcatUpperUpper(DD(), high, low);
    low = lower, high = upper;
  }
  static HWY_INLINE void pair_blocks(VD& low, VD& high) {
    const VD even = hn::OddEvenBlocks(hn::SwapAdjacentBlocks(high), low), odd = hn::OddEvenBlocks(high, hn::SwapAdjacentBlocks(low));
    low = even, high = odd;
  }
  HWY_INLINE void turn() {
    pair(a, b), pair(c, d);
    if constexpr (kLanes == 4) {
      pair_halves(a, c), pair_halves(b, d);
    } else {
      pair(e, f), pair(g, h);
      pair_blocks(a, c), pair_blocks(b, d), pair_blocks(e, g), pair_blocks(f, h);
      pair_halves(a, e), pair_halves(b, f), pair_halves(c, g), pair_halves(d, h);
    }
  }
  template <bool kExclusive>
  HWY_INLINE void add(bool reverse, VD& sum) {
    const auto one = [&](VD& v) RECKON_VEC {
      const VD next = hn::Add(sum, v);
      v = kExclusive ? sum : next;
      sum = next;
    };
    if (!reverse) {
      one(a), one(b), one(c), one(d);
      if constexpr (kLanes == 8) one(e), one(f), one(g), one(h);
    } else {
      if constexpr (kLanes == 8) one(h), one(g), one(f), one(e);
      one(d), one(c), one(b), one(a);
    }
  }
};

// The running sums of kScanLines lines of n doubles: blocks of elements in turn, what is left of the line's far end one by one.
template <bool kExclusive>
HWY_INLINE void add_blocks(double* first, int64_t n, bool reverse, double* sums) {
  constexpr int kLanes = int(hn::MaxLanes(DD()));
  const int64_t whole = n / kLanes * kLanes;
  if (reverse && whole < n) add_up<kScanLines>(first + n - 1, n - whole, -1, kExclusive, sums);
  for (int64_t k = 0; k < kScanLines; k += kLanes) {
    VD sum = hn::LoadU(DD(), sums + k);
    for (int64_t j = 0; j < whole; j += kLanes) {
      double* const p = first + k * kScanPitch + (reverse ? whole - kLanes - j : j);
      Turned<kLanes> block(p);
      block.turn();
      block.template add<kExclusive>(reverse, sum);
      block.turn();
      block.store(p);
    }
    hn::StoreU(sum, DD(), sums + k);
  }
  if (!reverse && whole < n) add_up<kScanLines>(first + whole, n - whole, 1, kExclusive, sums);
}
HWY_INLINE void add_lines(double* first, int64_t n, bool reverse, bool exclusive, double* sums) {
  exclusive ? add_blocks<true>(first, n, reverse, sums) : add_blocks<false>(first, n, reverse, sums);
}
#endif

// `count` <= kScanLines lines, the first of which begin at x[from] and y[to], where elements lie side by side.
void scan_lines(const Scan& a, int64_t from, int64_t to, int64_t count) {
  HWY_ALIGN double lines[kScanLines * kScanPitch];
  double sums[kScanLines] = {};
  RECKON_COUNT_VECTOR(count * a.length);
  for (int64_t done = 0; done < a.length; done += kScanRun) {
    const int64_t n = a.length - done < kScanRun ? a.length - done : kScanRun, at = a.reverse ? a.length - done - n : done;
    for (int64_t k = 0; k < count; ++k) {
      const int64_t place = from + k * a.x_next + at * a.x_along;
      if (a.x_along == 1) fetch(a, a.reverse ? place - kScanRun : place + kScanRun, n);
      read_doubles(a.dtype, a.x, place, a.x_along, n, lines + k * kScanPitch);
    }
    if (count == kScanLines) {
      add_lines(lines, n, a.reverse, a.exclusive, sums);
    } else {
      double* const first = lines + (a.reverse ? n - 1 : 0);
      for (int64_t k = 0; k < count; ++k) add_up<1>(first + k * kScanPitch, n, a.reverse ? -1 : 1, a.exclusive, sums + k);
    }
    for (int64_t k = 0; k < count; ++k) write_doubles(a, lines + k * kScanPitch, to + k * a.y_next + at, n);
  }
}

// n <= kScanColumns columns from x[from] and y[to] on; those of y lie side by side.
void scan_columns(const Scan& a, int64_t from, int64_t to, int64_t n) {
  constexpr int64_t kRowsAhead = 4;
  HWY_ALIGN double sums[kScanColumns] = {}, row[kScanRun];
  const DD dd;
  const int64_t N = int64_t(hn::Lanes(dd)), next = (a.reverse ? -kRowsAhead : kRowsAhead) * a.x_along;
  for (int64_t j = 0; j < a.length; ++j) {
    const int64_t at = a.reverse ? a.length - 1 - j : j;
    RECKON_COUNT_VECTOR(n);
    for (int64_t c = 0; c < n; c += kScanRun) {
      const int64_t count = n - c < kScanRun ? n - c : kScanRun, place = from + at * a.x_along + c * a.x_next;
      if (a.x_next == 1) fetch(a, place + next, count);
      read_doubles(a.dtype, a.x, place, a.x_next, count, row);
      double* const sum = sums + c;
      if (a.exclusive) write_doubles(a, sum, to + at * a.y_along + c, count);
      int64_t i = 0;
      for (; i + N <= count; i += N) hn::StoreU(hn::Add(hn::LoadU(dd, sum + i), hn::LoadU(dd, row + i)), dd, sum + i);
      for (; i < count; ++i) sum[i] += row[i];
      if (!a.exclusive) write_doubles(a, sum, to + at * a.y_along + c, count);
    }
  }
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>

#include "reckon/backend/cpu/row_tasks.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(scan_lines);
HWY_EXPORT(scan_columns);

// Whole numbers: the obvious loop, columns beside each other where they lie so.
void scan_whole(const Scan& a, int64_t from, int64_t to, int64_t count) {
  const int64_t* const x = static_cast<const int64_t*>(a.x) + from;
  int64_t* const y = static_cast<int64_t*>(a.y) + to;
  uint64_t sums[kScanColumns] = {};
  RECKON_COUNT_VECTOR(count * a.length);
  for (int64_t j = 0; j < a.length; ++j) {
    const int64_t at = a.reverse ? a.length - 1 - j : j;
    for (int64_t k = 0; k < count; ++k) {
      const uint64_t before = sums[k];
      sums[k] += uint64_t(x[k * a.x_next + at * a.x_along]);
      y[k * a.y_next + at * a.y_along] = int64_t(a.exclusive ? before : sums[k]);
    }
  }
}
}  // namespace

void cumsum(DType dtype, const Shape& shape, int axis, bool reverse, bool exclusive, Strided x, void* y) {
  RECKON_ASSERT(is_float(dtype) || dtype == DType::i64);
  const int64_t length = shape[axis], bytes = size_of(dtype);
  int64_t dense[kMaxRank];
  dense_strides(shape, dense);
  const int64_t* strides[] = {dense, x.strides};
  const Loop loop = make_loop(shape.with(axis, 1), 2, strides);
  if (length == 0 || loop.total == 0) return;
  Scan a{dtype, length, reverse, exclusive, false, x.data, loop.inner_stride(1), x.strides[axis], y, loop.inner_stride(0), dense[axis]};
  const bool columns = a.y_next == 1;
  const int64_t together = !columns ? kScanLines : loop.total < 4 * kScanColumns ? kFewColumns : kScanColumns;
  const RowTasks tasks = row_tasks(loop.total, checked_product({2, length, bytes}), length * bytes);
  a.streams = tasks.streams && !columns && length * bytes % 64 == 0;  // else the ends of runs would be lines by parts
  const int64_t grain = (tasks.rows_each + together - 1) / together * together;
  parallel_range(loop.total, grain, [&](int64_t begin, int64_t end) {
    walk(loop, begin, end, [&](int64_t n, const int64_t* at) {
      for (int64_t c = 0; c < n; c += together) {
        const int64_t from = at[1] + c * a.x_next, to = at[0] + c * a.y_next, count = std::min(together, n - c);
        if (dtype == DType::i64) {
          scan_whole(a, from, to, count);
        } else if (columns) {
          HWY_DYNAMIC_DISPATCH(scan_columns)(a, from, to, count);
        } else {
          HWY_DYNAMIC_DISPATCH(scan_lines)(a, from, to, count);
        }
      }
    });
    if (a.streams) stream_fence();
  });
}
}  // namespace reckon::cpu
#endif
