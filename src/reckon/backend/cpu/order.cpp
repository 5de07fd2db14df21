// backend/cpu/order: lines along the axis are independent of each other: a task takes some. Values become unsigned keys of the same order,
// so that one loop sorts every type; (key, position) pairs are all different, which makes the result unique.
#include "reckon/backend/cpu/order.h"

#include <algorithm>
#include <bit>
#include <type_traits>

#include "reckon/backend/cpu/count.h"
#include "reckon/backend/cpu/order_scan.h"
#include "reckon/backend/cpu/rows.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
struct Entry {
  uint64_t key;
  int64_t position;
  bool operator<(const Entry& o) const { return key != o.key ? key < o.key : position < o.position; }
};

constexpr int64_t kFew = 32;  // elements of a line that are found by insertion, on the stack

// Larger values, larger keys. A NaN is the largest; infinities have other keys than it.
uint64_t key_of(double value) {
  if (value != value) return UINT64_MAX;
  const uint64_t bits = std::bit_cast<uint64_t>(value == 0 ? 0.0 : value);
  return bits >> 63 ? ~bits : bits | uint64_t(1) << 63;
}
uint64_t key_of(int64_t value) { return uint64_t(value) ^ uint64_t(1) << 63; }

template <class T>
uint64_t ordered_key(const T& value, bool descending, bool nan_first) {
  uint64_t key;
  if constexpr (std::is_integral_v<T>) {
    key = key_of(int64_t(value));
  } else {
    double wide;
    if constexpr (std::is_class_v<T>)
      wide = double(float(value));
    else
      wide = double(value);
    if (nan_first && wide != wide) return 0;
    key = key_of(wide);
  }
  return descending ? ~key : key;
}

// Comparisons an element of a merge sort of n: the binary logarithm, rounded up.
constexpr int64_t depth(int64_t n) { return n <= 1 ? 0 : int64_t(std::bit_width(uint64_t(n - 1))); }

// The types that are searched a vector at a time, where they are contiguous.
template <class T>
constexpr bool kScanned = std::is_same_v<T, float> || std::is_class_v<T>;

// The position of the first element of a line, elements `step` apart.
template <class T>
int64_t first_of(const Order& a, const T* x, int64_t step, int64_t extent) {
  using Compared = std::conditional_t<std::is_class_v<T>, float, T>;  // the 16-bit floats are classes
  if constexpr (kScanned<T>)
    if (step == 1 && extent > 0)
      if (const int64_t at = first_extreme(a.dtype, a.descending, x, extent); at >= 0) return at;
  Compared best{};
  int64_t at = -1;
  for (int64_t i = 0; i < extent; ++i) {
    const Compared v = Compared(x[i * step]);
    if (v != v) {  // a NaN is first or last
      if (a.descending || a.nan_first) return i;
      continue;
    }
    if (at >= 0 && !(a.descending ? v > best : v < best)) continue;
    best = v;
    at = i;
  }
  return std::max<int64_t>(at, 0);
}

// The first k of a line in order: a list of the best so far, into which few elements come.
template <class Key>
struct Selection {
  Entry* best;
  int64_t k;
  Key key;
  int64_t held = 0;
  void offer(int64_t i) {
    const Entry e{key(i), i};
    if (held == k && !(e < best[k - 1])) return;
    int64_t to = held < k ? held++ : k - 1;
    for (; to > 0 && e < best[to - 1]; --to) best[to] = best[to - 1];
    best[to] = e;
  }
};

// Elements of a dense line: first those that a bound leaves, then one by one what comes before the last of the best.
template <class T, class Key>
void select_scanned(const Order& a, const T* x, int64_t extent, Selection<Key>& best) {
  int32_t positions[kMostCandidates];
  const Candidates found = candidates(a.dtype, a.descending, x, extent, a.k, positions);
  for (int64_t i = 0; i < found.count; ++i) best.offer(positions[i]);
  for (int64_t i = found.next; i < extent; ++i) {
    if (best.held == a.k)
      if (const float bound = float(x[best.best[a.k - 1].position]); bound == bound)
        i = next_beyond(a.dtype, a.descending, x, i, extent, bound);
    if (i < extent) best.offer(i);
  }
}

// One line: elements `step` apart.
template <class T>
void order_line(const Order& a, const T* x, int64_t step, int64_t extent, Entry* scratch, T* values, int64_t* indices, int64_t out_step) {
  const auto key = [&](int64_t i) { return ordered_key(x[i * step], a.descending, a.nan_first); };
  Entry few[kFew];
  const Entry* sorted = few;
  if (a.k == 1) {
    few[0].position = first_of(a, x, step, extent);
  } else if (a.k <= kFew) {
    Selection<decltype(key)> best{few, a.k, key};
    if constexpr (kScanned<T>) {
      if (step == 1) select_scanned(a, x, extent, best);
    }
    if (!kScanned<T> || step != 1)
      for (int64_t i = 0; i < extent; ++i) best.offer(i);
  } else {
    for (int64_t i = 0; i < extent; ++i) scratch[i] = {key(i), i};
    if (a.k < extent) std::nth_element(scratch, scratch + a.k, scratch + extent);
    std::sort(scratch, scratch + a.k);
    sorted = scratch;
  }
  RECKON_COUNT_VECTOR((a.k < extent ? extent : 0) + a.k * depth(a.k));  // what they need: the search above compares less or more
  for (int64_t i = 0; i < a.k; ++i) {
    values[i * out_step] = x[sorted[i].position * step];
    indices[i * out_step] = sorted[i].position;
  }
}

template <class T>
void order_as(const Order& a, Entry* workspace, int lanes) {
  const int64_t extent = a.shape[a.axis];
  const Shape y_shape = a.shape.with(a.axis, a.k), lines = a.shape.with(a.axis, 1);
  int64_t dense[kMaxRank];
  dense_strides(y_shape, dense);
  const int64_t* strides[] = {dense, a.x.strides};
  const Loop loop = make_loop(lines, 2, strides);
  if (extent == 0 || a.k == 0) return;
  const int64_t grain = rows_per_task(extent * int64_t(sizeof(Entry)));
  parallel_for((loop.total + grain - 1) / grain,
               [&](int64_t task, int lane) {
                 Entry* const scratch = workspace ? workspace + lane * extent : nullptr;
                 walk(loop, task * grain, std::min(loop.total, (task + 1) * grain), [&](int64_t n, const int64_t* at) {
                   for (int64_t i = 0; i < n; ++i) {
                     const int64_t to = at[0] + i * loop.inner_stride(0), from = at[1] + i * loop.inner_stride(1);
                     order_line(a, static_cast<const T*>(a.x.data) + from, a.x.strides[a.axis], extent, scratch,
                                static_cast<T*>(a.values) + to, a.indices + to, dense[a.axis]);
                   }
                 });
               },
               lanes);
}
}  // namespace

int64_t order_workspace(int64_t extent, int64_t k, int lanes) {
  return k <= kFew ? 0 : checked_product({extent, lanes, int64_t(sizeof(Entry))});
}

void order(const Order& a, void* workspace, int lanes) {
  Entry* const scratch = static_cast<Entry*>(workspace);
  switch (a.dtype) {
    case DType::f32:
      return order_as<float>(a, scratch, lanes);
    case DType::f64:
      return order_as<double>(a, scratch, lanes);
    case DType::bf16:
      return order_as<bfloat16>(a, scratch, lanes);
    case DType::f16:
      return order_as<float16>(a, scratch, lanes);
    case DType::i32:
      return order_as<int32_t>(a, scratch, lanes);
    case DType::i64:
      return order_as<int64_t>(a, scratch, lanes);
    case DType::u8:
    case DType::boolean:
      return order_as<uint8_t>(a, scratch, lanes);
    case DType::f8e4m3fn:
    case DType::f8e5m2:
      break;
  }
  fail("order: {} is for storage", name_of(a.dtype));
}
}  // namespace reckon::cpu
