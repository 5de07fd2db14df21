// backend/cpu/index_add: the indices are sorted first. Then each slice of the result is what it was and the slices that are added to it, in
// order: no locks, and the same bits at any number of threads.
#include "reckon/backend/cpu/index_add.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/index_add.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_dense-inl.h"
#include "reckon/backend/cpu/vec_gather-inl.h"
#include "reckon/backend/cpu/vec_held-inl.h"

#ifndef RECKON_BACKEND_CPU_INDEX_ADD_ONCE
#define RECKON_BACKEND_CPU_INDEX_ADD_ONCE
namespace reckon::cpu {
// n elements of a slice of y from y[to] on: those of x from x[from] on, and those of src from src[at + j * along] on for each j in order.
struct AddedRun {
  int64_t n, to, from, x_step, at, src_step, along, count;
  const int64_t* order;
};
}  // namespace reckon::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
// Of 32- and 16-bit floats; where one run is added to another and both are dense.
template <class T>
void add_two(const void* x, const void* src, void* y, const AddedRun& r, bool streams) {
  HWY_ALIGN T sums[kStored];
  const T* const base = static_cast<const T*>(x) + r.from;
  const T* const added = static_cast<const T*>(src) + r.at + r.order[0] * r.along;
  T* const to = static_cast<T*>(y) + r.to;
  for_stores(r.n, [&](int64_t c, int64_t n) RECKON_VEC {
    map2<0>(base + c, added + c, streams ? sums : to + c, n, [](V u, V v) RECKON_VEC { return hn::Add(u, v); });
    if (streams) stream_run(sums, to + c, n * int64_t(sizeof(T)));
  });
}
// Of any runs; count is at least 1.
void add_run(DType dtype, const void* x, const void* src, void* y, const AddedRun& r, bool streams) {
  static_assert(kStored <= kPart);
  if (r.count == 1 && r.x_step == 1 && r.src_step == 1)
    return with_type(dtype, [&](auto t) RECKON_VEC { add_two<decltype(t)>(x, src, y, r, streams); });
  HWY_ALIGN float base[kPart], added[kPart];
  RowWriter out(dtype, y, streams);
  for_stores(r.n, [&](int64_t c, int64_t n) RECKON_VEC {
    float* const sums = out.at(r.to + c);
    const float* from = gather(dtype, x, r.from + c * r.x_step, r.x_step, n, base);
    for (int64_t k = 0; k < r.count; ++k) {
      const int64_t at = r.at + r.order[k] * r.along + c * r.src_step;
      const float* more = gather(dtype, src, at, r.src_step, n, added);
      const Ahead ahead = ahead_of(dtype, src, at + 2 * kStored);
      for_vectors(n, [&](int64_t i, auto part) RECKON_VEC {
        ahead(i);
        part.store(hn::Add(part.load(from + i), part.load(more + i)), sums + i);
      });
      from = sums;
    }
    out.done(r.to + c, n);
  });
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <type_traits>

#include "reckon/backend/cpu/row_tasks.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(add_run);

// Columns of one task. Few slices are cut finer, so that there are tasks for several threads even if all go to the same one.
constexpr int64_t kColumns = 4096, kFewSlices = 64, kFewColumns = 512;

// For the slice `id` of y: order[begin[id]] up to order[begin[id + 1]].
struct Sorted {
  const int64_t *begin, *order;
};
Sorted sort_indices(const IndexAdd& a, int64_t extent, int64_t* workspace) {
  int64_t *const begin = workspace, *const order = workspace + extent + 2;
  const int64_t step = a.index.at.strides[a.axis];
  std::fill(begin, begin + extent + 2, 0);
  for (int64_t j = 0; j < a.length; ++j)
    if (const int64_t id = a.index[j * step]; id >= 0 && id < extent) ++begin[id + 2];
  for (int64_t id = 0; id < extent; ++id) begin[id + 2] += begin[id + 1];
  for (int64_t j = 0; j < a.length; ++j)
    if (const int64_t id = a.index[j * step]; id >= 0 && id < extent) order[begin[id + 1]++] = j;
  return {begin, order};
}

template <class T>
void copy_as(const void* x, void* y, const AddedRun& r) {
  for (int64_t i = 0; i < r.n; ++i) static_cast<T*>(y)[r.to + i] = static_cast<const T*>(x)[r.from + i * r.x_step];
}
void copy_run(int64_t bytes, const void* x, void* y, const AddedRun& r, bool streams) {
  const char* const from = static_cast<const char*>(x) + r.from * bytes;
  char* const to = static_cast<char*>(y) + r.to * bytes;
  if (from == to && r.x_step == 1) return;
  if (r.x_step == 1) return streams ? stream_run(from, to, r.n * bytes) : void(std::memcpy(to, from, size_t(r.n * bytes)));
  switch (bytes) {
    case 1:
      return copy_as<uint8_t>(x, y, r);
    case 2:
      return copy_as<uint16_t>(x, y, r);
    case 4:
      return copy_as<uint32_t>(x, y, r);
    default:
      return copy_as<uint64_t>(x, y, r);
  }
}

void fetch(const char* first, int64_t bytes) {
  constexpr int64_t kBeginning = 2048;
  for (int64_t line = 0; line < std::min(bytes, kBeginning); line += 64) __builtin_prefetch(first + line);
}

// The obvious loop, of what is not vectors of f32.
template <class T>
void add_plain(const void* src, void* y, const AddedRun& r) {
  T* const to = static_cast<T*>(y) + r.to;
  for (int64_t k = 0; k < r.count; ++k) {
    const T* const from = static_cast<const T*>(src) + r.at + r.order[k] * r.along;
    for (int64_t i = 0; i < r.n; ++i) {
      if constexpr (std::is_integral_v<T>) {
        using U = std::make_unsigned_t<T>;
        to[i] = T(U(to[i]) + U(from[i * r.src_step]));
      } else {
        to[i] += from[i * r.src_step];
      }
    }
  }
}

void run_of(const IndexAdd& a, const AddedRun& r, bool streams) {
  const bool plain = !is_float(a.dtype) || a.dtype == DType::f64;
  if (!plain && r.count > 0) return HWY_DYNAMIC_DISPATCH(add_run)(a.dtype, a.x.data, a.src.data, a.y, r, streams);
  copy_run(size_of(a.dtype), a.x.data, a.y, r, streams && r.count == 0);
  if (r.count == 0) return;
  switch (a.dtype) {
    case DType::f64:
      return add_plain<double>(a.src.data, a.y, r);
    case DType::i32:
      return add_plain<int32_t>(a.src.data, a.y, r);
    case DType::i64:
      return add_plain<int64_t>(a.src.data, a.y, r);
    case DType::u8:
      return add_plain<uint8_t>(a.src.data, a.y, r);
    default:
      fail("index_add: {} is not added", name_of(a.dtype));
  }
}
}  // namespace

int64_t index_add_workspace(int64_t extent, int64_t length) {
  return checked_multiply(checked_sum({extent, length, 2}), int64_t(sizeof(int64_t)));
}

void index_add(const IndexAdd& a, void* workspace) {
  RECKON_ASSERT(a.axis < a.shape.rank() - 1);
  RECKON_COUNT_VECTOR(a.shape.with(a.axis, a.length).numel());
  const int64_t extent = a.shape[a.axis];
  if (a.shape.numel() == 0) return;
  const Sorted sorted = sort_indices(a, extent, static_cast<int64_t*>(workspace));
  // The axes before the axis, and those behind it, in which y is dense.
  Shape before, behind;
  for (int i = 0; i < a.shape.rank(); ++i)
    if (i != a.axis) (i < a.axis ? before : behind) = (i < a.axis ? before : behind).appended(a.shape[i]);
  int64_t dense[kMaxRank];
  dense_strides(a.shape, dense);
  const int64_t *outer_strides[] = {dense, a.x.strides, a.src.strides},
                *inner_strides[] = {dense + a.axis + 1, a.x.strides + a.axis + 1, a.src.strides + a.axis + 1};
  const Loop outer = make_loop(before, 3, outer_strides), inner = make_loop(behind, 3, inner_strides);
  const int64_t slices = outer.total * extent, bytes = size_of(a.dtype);
  const int64_t columns = slices < kFewSlices ? kFewColumns : kColumns, across = (inner.total + columns - 1) / columns;
  const int64_t width = std::min(columns, inner.total);
  const RowTasks tasks = row_tasks(slices, 3 * width * bytes, width * bytes);
  const int64_t down = (slices + tasks.rows_each - 1) / tasks.rows_each;
  parallel_for(down * across, [&](int64_t task) {
    const int64_t first = task / across * tasks.rows_each, last = std::min(slices, first + tasks.rows_each);
    const int64_t c0 = task % across * columns, c1 = std::min(inner.total, c0 + columns);
    int64_t base[3] = {}, seen = -1;
    for (int64_t slice = first; slice < last; ++slice) {
      const int64_t id = slice % extent;
      if (id + 1 < extent && sorted.begin[id + 2] > sorted.begin[id + 1])  // what is added next lies anywhere
        fetch(static_cast<const char*>(a.src.data) + (base[2] + c0 + sorted.order[sorted.begin[id + 1]] * a.src.strides[a.axis]) * bytes,
              width * bytes);
      if (slice / extent != seen) {
        seen = slice / extent;
        walk(outer, seen, seen + 1, [&](int64_t, const int64_t* at) { std::copy(at, at + 3, base); });
      }
      walk(inner, c0, c1, [&](int64_t n, const int64_t* at) {
        run_of(a,
               {.n = n,
                .to = base[0] + at[0] + id * dense[a.axis],
                .from = base[1] + at[1] + id * a.x.strides[a.axis],
                .x_step = inner.inner_stride(1),
                .at = base[2] + at[2],
                .src_step = inner.inner_stride(2),
                .along = a.src.strides[a.axis],
                .count = sorted.begin[id + 1] - sorted.begin[id],
                .order = sorted.order + sorted.begin[id]},
               tasks.streams);
      });
    }
    if (tasks.streams) stream_fence();
  });
}
}  // namespace reckon::cpu
#endif
