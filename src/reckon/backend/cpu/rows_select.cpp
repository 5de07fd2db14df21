// backend/cpu/rows_select: comparisons and selection on vectors, where every operand is dense or one repeated element; other strides and
// types take the plain loops of rows_plain.
#include "reckon/backend/cpu/row_tasks.h"
#include "reckon/backend/cpu/rows_elementwise.h"
#include "reckon/backend/cpu/rows_plain.h"
#include "reckon/backend/cpu/stream.h"
#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/rows_select.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_dense-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
// An operand of a run: its elements, or one line of copies of the same one, from which every vector is loaded.
template <class T>
struct Side {
  const T* data;
  bool moves;
  HWY_ALIGN T copies[64 / sizeof(T)];
  Side(const void* base, int64_t at, int64_t stride) : data(static_cast<const T*>(base) + at), moves(stride == 1) {
    if (moves) return;
    for (T& copy : copies) copy = *data;
    data = copies;
  }
  Side(const Side&) = delete;
  HWY_INLINE const T* at(int64_t i) const { return data + (moves ? i : 0); }
};

template <class T>
HWY_INLINE void where_rest(const Side<uint8_t>& c, const Side<T>& a, const Side<T>& b, T* to, int64_t i, int64_t n) {
  for (; i < n; ++i) to[i] = *c.at(i) ? *a.at(i) : *b.at(i);
}
// Bytes of 0 or not as a mask of the elements' lanes.
template <class Tag>
HWY_INLINE auto mask_of(Tag d, const uint8_t* c) {
  using T = hn::TFromD<Tag>;
  if constexpr (sizeof(T) == 1) {
    return hn::Ne(hn::LoadU(d, c), hn::Zero(d));
  } else if constexpr (sizeof(T) == 8) {
    const hn::Rebind<uint8_t, Tag> d8;
    const hn::Rebind<uint32_t, Tag> d32;
    return hn::Ne(hn::PromoteTo(d, hn::PromoteTo(d32, hn::LoadU(d8, c))), hn::Zero(d));
  } else {
    const hn::Rebind<uint8_t, Tag> d8;
    return hn::Ne(hn::PromoteTo(d, hn::LoadU(d8, c)), hn::Zero(d));
  }
}
template <class T>
void where_run(const Side<uint8_t>& c, const Side<T>& a, const Side<T>& b, T* to, int64_t n, bool streams) {
  const bool past = goes_past(to, streams);
  const hn::ScalableTag<T> d;
  const int64_t N = int64_t(hn::Lanes(d));
  int64_t i = 0;
  for (; i + 2 * N <= n; i += 2 * N) {
    fetch_ahead(c.at(i), 2 * N);
    fetch_ahead(a.at(i), 2 * N);
    fetch_ahead(b.at(i), 2 * N);
    const auto low = hn::IfThenElse(mask_of(d, c.at(i)), hn::LoadU(d, a.at(i)), hn::LoadU(d, b.at(i)));
    const auto high = hn::IfThenElse(mask_of(d, c.at(i + N)), hn::LoadU(d, a.at(i + N)), hn::LoadU(d, b.at(i + N)));
    if (past) {
      hn::Stream(low, d, to + i);
      hn::Stream(high, d, to + i + N);
      continue;
    }
    hn::StoreU(low, d, to + i);
    hn::StoreU(high, d, to + i + N);
  }
  for (; i + N <= n; i += N) hn::StoreU(hn::IfThenElse(mask_of(d, c.at(i)), hn::LoadU(d, a.at(i)), hn::LoadU(d, b.at(i))), d, to + i);
  where_rest(c, a, b, to, i, n);
}
template <class T>
void where_of(const Loop& l, const void* condition, const void* a, const void* b, void* out, const ElementPart& part) {
  walk(l, part.begin, part.end, [&](int64_t n, const int64_t* at) {
    const Side<uint8_t> c(condition, at[1], l.inner_stride(1));
    where_run<T>(c, Side<T>(a, at[2], l.inner_stride(2)), Side<T>(b, at[3], l.inner_stride(3)), static_cast<T*>(out) + at[0], n, part.streams);
  });
}
void where_part(int64_t element_bytes, const Loop& l, const void* condition, const void* a, const void* b, void* out,
                const ElementPart& part) {
  switch (element_bytes) {
    case 1:
      return where_of<uint8_t>(l, condition, a, b, out, part);
    case 2:
      return where_of<uint16_t>(l, condition, a, b, out, part);
    case 4:
      return where_of<uint32_t>(l, condition, a, b, out, part);
    default:
      return where_of<uint64_t>(l, condition, a, b, out, part);
  }
}

using D8 = hn::Rebind<uint8_t, D>;
HWY_INLINE void store_mask(M mask, uint8_t* to) {
  const DU du;
  hn::StoreU(hn::TruncateTo(D8(), hn::IfThenElseZero(hn::RebindMask(du, mask), hn::Set(du, 1u))), D8(), to);
}
template <class T, class F>
HWY_INLINE void compare_run(const Side<T>& a, const Side<T>& b, uint8_t* to, int64_t n, F f) {
  const int64_t N = lanes();
  int64_t i = 0;
  for (; i + 2 * N <= n; i += 2 * N) {
    RECKON_COUNT_VECTOR(2 * N);
    fetch_ahead(a.at(i), 2 * N);
    fetch_ahead(b.at(i), 2 * N);
    store_mask(f(load_vector(a.at(i)), load_vector(b.at(i))), to + i);
    store_mask(f(load_vector(a.at(i + N)), load_vector(b.at(i + N))), to + i + N);
  }
  for (; i < n; i += N) {
    const int64_t count = n - i < N ? n - i : N;
    RECKON_COUNT_VECTOR(count);
    HWY_ALIGN uint8_t rest[hn::MaxLanes(D())];
    store_mask(f(load_first(a.at(i), count), load_first(b.at(i), count)), rest);
    std::memcpy(to + i, rest, size_t(count));
  }
}
template <class T, class F>
HWY_INLINE void compare_of(const Loop& l, const void* a, const void* b, void* out, int64_t begin, int64_t end, F f) {
  walk(l, begin, end, [&](int64_t n, const int64_t* at) HWY_ATTR {
    compare_run(Side<T>(a, at[1], l.inner_stride(1)), Side<T>(b, at[2], l.inner_stride(2)), static_cast<uint8_t*>(out) + at[0], n, f);
  });
}
template <class T>
void compare_as(Compare op, const Loop& l, const void* a, const void* b, void* out, int64_t begin, int64_t end) {
  switch (op) {
    case Compare::eq:
      return compare_of<T>(l, a, b, out, begin, end, [](V u, V v) RECKON_VEC { return hn::Eq(u, v); });
    case Compare::ne:  // Highway's Ne is false for NaN
      return compare_of<T>(l, a, b, out, begin, end, [](V u, V v) RECKON_VEC { return hn::Not(hn::Eq(u, v)); });
    case Compare::lt:
      return compare_of<T>(l, a, b, out, begin, end, [](V u, V v) RECKON_VEC { return hn::Lt(u, v); });
    case Compare::le:
      return compare_of<T>(l, a, b, out, begin, end, [](V u, V v) RECKON_VEC { return hn::Le(u, v); });
    case Compare::gt:
      return compare_of<T>(l, a, b, out, begin, end, [](V u, V v) RECKON_VEC { return hn::Gt(u, v); });
    case Compare::ge:
      return compare_of<T>(l, a, b, out, begin, end, [](V u, V v) RECKON_VEC { return hn::Ge(u, v); });
  }
}
void compare_part(Compare op, DType dtype, const Loop& l, const void* a, const void* b, void* out, int64_t begin, int64_t end) {
  if (dtype == DType::f32) return compare_as<float>(op, l, a, b, out, begin, end);
  if (dtype == DType::bf16) return compare_as<bfloat16>(op, l, a, b, out, begin, end);
  compare_as<float16>(op, l, a, b, out, begin, end);
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "reckon/backend/cpu/rows.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(where_part);
HWY_EXPORT(compare_part);

// The output is dense along the innermost axis, the inputs are or repeat one element.
bool fits_vectors(const Loop& loop) {
  bool fits = loop.inner_stride(0) == 1 || loop.inner() == 1;
  for (int k = 1; k < loop.operands; ++k) fits &= loop.inner_stride(k) == 0 || loop.inner_stride(k) == 1;
  return fits;
}
}  // namespace

void compare(Compare op, DType dtype, const Shape& shape, Strided a, Strided b, void* out, const int64_t* out_strides) {
  const int64_t* strides[] = {out_strides, a.strides, b.strides};
  const Loop loop = make_loop(shape, 3, strides);
  const bool on_vectors = (dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16) && fits_vectors(loop);
  parallel_range(loop.total, kTaskElements, [&](int64_t begin, int64_t end) {
    if (!on_vectors) return compare_plain(op, dtype, loop, a.data, b.data, out, begin, end);
    HWY_DYNAMIC_DISPATCH(compare_part)(op, dtype, loop, a.data, b.data, out, begin, end);
  });
}

void where(int64_t element_bytes, const Shape& shape, Strided condition, Strided a, Strided b, void* out, const int64_t* out_strides) {
  RECKON_ASSERT(element_bytes == 1 || element_bytes == 2 || element_bytes == 4 || element_bytes == 8);
  const int64_t* strides[] = {out_strides, condition.strides, a.strides, b.strides};
  const Loop loop = make_loop(shape, 4, strides);
  const bool on_vectors = fits_vectors(loop);
  const bool near = a.data == out || b.data == out || loop.inner() * element_bytes < kLeastRun;
  const ElementTasks tasks = element_tasks(loop.total, 3 * element_bytes + 1, near);
  parallel_range(loop.total, tasks.elements_each, [&](int64_t begin, int64_t end) {
    if (!on_vectors) return where_plain(element_bytes, loop, condition.data, a.data, b.data, out, begin, end);
    HWY_DYNAMIC_DISPATCH(where_part)(element_bytes, loop, condition.data, a.data, b.data, out, {begin, end, tasks.streams});
    if (tasks.streams) stream_fence();
  });
}
}  // namespace reckon::cpu
#endif
