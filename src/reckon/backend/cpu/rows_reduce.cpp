// backend/cpu/rows_reduce: an output element walks what it reduces in runs (summed along them if they are dense, gathered if not); where
// the outputs themselves lie side by side, a block of them walks together. Few outputs of many elements are cut into slices first.
#include "reckon/backend/cpu/rows_reduce.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/rows_reduce.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_gather-inl.h"
#include "reckon/backend/cpu/vec_held-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
// How far ahead of what it adds a sum fetches, in elements. Reading alone, a core waits for more lines than it foresees.
constexpr int64_t kAhead = 4 * kPart;

HWY_INLINE double sum_of(const float* x, int64_t n, Ahead ahead) {
  double sum[1] = {0};
  add_sums<1>(n, sum, [&](int64_t i, auto part, V* acc) RECKON_VEC {
    RECKON_COUNT_VECTOR(part.count());
    ahead(i);
    acc[0] = hn::Add(acc[0], part.load(x + i));
  });
  return sum[0];
}

// NaN if any is NaN.
HWY_INLINE double max_of(const float* x, int64_t n, Ahead ahead) {
  V most = set(-__builtin_inff()), numbers = hn::VecFromMask(D(), is_number(zero()));
  for_vectors(n, [&](int64_t i, auto part) RECKON_VEC {
    RECKON_COUNT_VECTOR(part.count());
    ahead(i);
    const V v = part.load(x + i);
    most = hn::Max(most, part.keep_or(v, most));
    numbers = hn::And(numbers, hn::VecFromMask(D(), is_number(v)));
  });
  return hn::AllTrue(D(), hn::MaskFromVec(numbers)) ? double(max_lanes(most)) : __builtin_nan("");
}

// One output: elements [begin, end) of `inner`, starting from x[at].
double reduce_one(bool max, DType dtype, const void* x, int64_t at, const Loop& inner, int64_t begin, int64_t end) {
  HWY_ALIGN float buffer[kPart];
  double result = max ? -__builtin_inf() : 0;
  const int64_t stride = inner.inner_stride(0);
  walk(inner, begin, end, [&](int64_t n, const int64_t* from) HWY_ATTR {
    for (int64_t i = 0; i < n; i += kPart) {
      const int64_t count = n - i < kPart ? n - i : kPart;
      const float* xs = gather(dtype, x, at + from[0] + i * stride, stride, count, buffer);
      const Ahead ahead = stride == 1 ? ahead_of(dtype, x, at + from[0] + i + kAhead) : Ahead{reinterpret_cast<const char*>(buffer), 0};
      if (!max) {
        result += sum_of(xs, count, ahead);
      } else if (const double most = max_of(xs, count, ahead); !(most <= result)) {
        result = result != result ? result : most;
      }
    }
  });
  return result;
}

double sum_dense(DType dtype, const void* x, int64_t n, double sum) {
  static_assert(kSumRun == kPart);
  HWY_ALIGN float buffer[kPart];
  for (int64_t i = 0; i < n; i += kPart) {
    const int64_t count = n - i < kPart ? n - i : kPart;
    sum += sum_of(read_chunk(dtype, x, i, count, buffer), count, ahead_of(dtype, x, i + kAhead));
  }
  return sum;
}

HWY_INLINE V load_as(Whole part, const float* p) { return part.load(p); }
HWY_INLINE V load_as(Tail part, const float* p) { return part.load(p); }
HWY_INLINE V load_as(Whole, const uint16_t* p) { return load_bf16(p); }
HWY_INLINE V load_as(Tail part, const uint16_t* p) {
  HWY_ALIGN uint16_t rest[hn::MaxLanes(D())] = {};
  std::memcpy(rest, p, size_t(part.count()) * 2);
  return load_bf16(rest);
}

// Adds kGroup rows, `stride` elements apart, to n sums, in order, and fetches the next ones.
constexpr int64_t kGroup = 4;
template <class T>
HWY_INLINE void add_group(const T* x, int64_t stride, int64_t n, float* sums) {
  const Ahead ahead{reinterpret_cast<const char*>(x) + kGroup * stride * int64_t(sizeof(T)), sizeof(T)};
  for_vectors(n, [&](int64_t i, auto part) RECKON_VEC {
    RECKON_COUNT_VECTOR(kGroup * part.count());
    V sum = part.load(sums + i);
    for (int64_t r = 0; r < kGroup; ++r) {
      ahead(r * stride + i);
      sum = hn::Add(sum, load_as(part, x + r * stride + i));
    }
    part.store(sum, sums + i);
  });
}

// n outputs side by side, n <= kPart: x[at + c] for each c, over elements [begin, end) of `inner`.
void reduce_block(bool max, DType dtype, const void* x, int64_t at, int64_t n, const Loop& inner, int64_t begin, int64_t end, double* out) {
  HWY_ALIGN float buffer[kPart], most[kPart];
  constexpr int64_t kFlush = 128;  // rows that are added in f32
  int64_t held = 0;
  const auto flush = [&]() HWY_ATTR {
    for (int64_t c = 0; c < n; ++c) out[c] = max ? double(most[c]) : out[c] + double(most[c]);
    if (!max) std::memset(most, 0, sizeof most);
    held = 0;
  };
  for (int64_t c = 0; c < n; ++c) out[c] = 0, most[c] = max ? -__builtin_inff() : 0.0f;
  walk(inner, begin, end, [&](int64_t rows, const int64_t* from) HWY_ATTR {
    const int64_t stride = inner.inner_stride(0);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t row = at + from[0] + r * stride;
      if (!max && dtype != DType::f16 && rows - r >= kGroup && held + kGroup <= kFlush) {
        if (dtype == DType::f32) {
          add_group(static_cast<const float*>(x) + row, stride, n, most);
        } else {
          add_group(static_cast<const uint16_t*>(x) + row, stride, n, most);
        }
        r += kGroup - 1;
        held += kGroup;
        if (held == kFlush) flush();
        continue;
      }
      const float* xs = read_chunk(dtype, x, row, n, buffer);
      for_vectors(n, [&](int64_t i, auto part) RECKON_VEC {
        RECKON_COUNT_VECTOR(part.count());
        const V v = part.load(xs + i), old = part.load(most + i);
        const V greater = hn::IfThenElse(is_number(old), hn::IfThenElse(is_number(v), hn::Max(old, v), v), old);
        part.store(max ? greater : hn::Add(old, v), most + i);
      });
      if (!max && ++held == kFlush) flush();
    }
  });
  flush();
}

// Outputs [k0, k1) of `outer` (operands: out, x), each over elements [begin, end) of `inner`; out[0] is output k0.
void reduce_part(bool max, DType dtype, const void* x, const Loop& outer, int64_t k0, int64_t k1, const Loop& inner, int64_t begin,
                 int64_t end, double* out) {
  const int64_t stride = outer.inner_stride(1);
  const bool side_by_side = stride == 1 && inner.inner_stride(0) != 1;
  walk(outer, k0, k1, [&](int64_t n, const int64_t* at) HWY_ATTR {
    if (side_by_side) {
      for (int64_t c = 0; c < n; c += kPart)
        reduce_block(max, dtype, x, at[1] + c, n - c < kPart ? n - c : kPart, inner, begin, end, out + c);
    } else {
      for (int64_t c = 0; c < n; ++c) out[c] = reduce_one(max, dtype, x, at[1] + c * stride, inner, begin, end);
    }
    out += n;
  });
}

// to[c] += sum over rows [begin, end) of x[r * row_stride + c].
void column_sums_part(DType dtype, const void* x, int64_t cols, int64_t row_stride, int64_t begin, int64_t end, float* to) {
  Reader in(dtype, x);
  for (int64_t row = begin; row < end; ++row) {
    for_chunks(cols, [&](int64_t c, int64_t n) RECKON_VEC {
      const float* xs = in.at(row * row_stride + c, n);
      for_vectors(n, [&](int64_t i, auto part) RECKON_VEC {
        RECKON_COUNT_VECTOR(part.count());
        part.store(hn::Add(part.load(to + c + i), part.load(xs + i)), to + c + i);
      });
    });
  }
}

double squares_part(DType dtype, const void* x, int64_t begin, int64_t end) {
  const hn::ScalableTag<double> dd;
  const hn::Rebind<float, decltype(dd)> df;
  const int64_t N = int64_t(hn::Lanes(dd));
  Reader in(dtype, x);
  auto a = hn::Zero(dd), b = a, c = a, d = a;
  double rest = 0;
  for_chunks(end - begin, [&](int64_t at, int64_t n) RECKON_VEC {
    const float* xs = in.at(begin + at, n);
    int64_t i = 0;
    for (; i + 4 * N <= n; i += 4 * N) {
      const auto u = hn::PromoteTo(dd, hn::LoadU(df, xs + i)), v = hn::PromoteTo(dd, hn::LoadU(df, xs + i + N));
      const auto w = hn::PromoteTo(dd, hn::LoadU(df, xs + i + 2 * N)), z = hn::PromoteTo(dd, hn::LoadU(df, xs + i + 3 * N));
      RECKON_COUNT_VECTOR(2 * 4 * N);
      a = hn::MulAdd(u, u, a), b = hn::MulAdd(v, v, b), c = hn::MulAdd(w, w, c), d = hn::MulAdd(z, z, d);
    }
    for (; i < n; ++i) {
      RECKON_COUNT_VECTOR(2);
      rest += double(xs[i]) * double(xs[i]);
    }
  });
  return hn::GetLane(hn::SumOfLanes(dd, hn::Add(hn::Add(a, b), hn::Add(c, d)))) + rest;
}

double nonfinite_part(DType dtype, const void* x, int64_t begin, int64_t end) {
  const D d;
  const DU du;
  Reader in(dtype, x);
  int64_t count = 0;
  for_chunks(end - begin, [&](int64_t at, int64_t n) RECKON_VEC {
    const float* xs = in.at(begin + at, n);
    for_vectors(n, [&](int64_t i, auto part) RECKON_VEC {
      // An exponent of all ones, as an integer, so that no instruction sees a signalling NaN.
      const auto bits = hn::And(hn::BitCast(du, part.load(xs + i)), hn::Set(du, 0x7F800000u));
      count += int64_t(hn::CountTrue(d, hn::RebindMask(d, hn::Eq(bits, hn::Set(du, 0x7F800000u)))));
    });
  });
  return double(count);
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <cmath>
#include <limits>

#include "reckon/backend/cpu/rows.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(reduce_part);
HWY_EXPORT(sum_dense);
HWY_EXPORT(column_sums_part);
HWY_EXPORT(squares_part);
HWY_EXPORT(nonfinite_part);

// Slices of what one output reduces: only where the outputs alone are too few to share.
constexpr int64_t kSliceElements = 512, kFewOutputs = 2048, kSlices = 64, kBlock = 1024;
// From this many elements on, tasks are larger: a thread reads on in one place.
constexpr int64_t kManyElements = 8 << 20, kLongTasks = 8;
int64_t slice_count(int64_t reduced) { return std::clamp<int64_t>(reduced / kSliceElements, 1, kSlices); }

// Splits a shape and strides into the axes that stay and those that go.
struct Split {
  Shape kept, reduced;
  int64_t kept_strides[kMaxRank] = {}, reduced_strides[kMaxRank] = {};
};
Split split(const Shape& shape, const int64_t* strides, uint32_t axes) {
  Split s;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    const bool gone = (axes >> axis & 1) != 0;
    if (strides) (gone ? s.reduced_strides[s.reduced.rank()] : s.kept_strides[s.kept.rank()]) = strides[axis];
    (gone ? s.reduced : s.kept) = (gone ? s.reduced : s.kept).appended(shape[axis]);
  }
  return s;
}

double joined(bool max, double a, double b) { return !max ? a + b : std::isnan(a) || b <= a ? a : b; }
int64_t joined(bool max, int64_t a, int64_t b) { return max ? std::max(a, b) : int64_t(uint64_t(a) + uint64_t(b)); }
template <class Result>
Result start_of(bool max) {
  using Limits = std::numeric_limits<Result>;
  return !max ? Result(0) : Limits::has_infinity ? Result(-Limits::infinity()) : Limits::min();
}

// The obvious loops: float64 in double, whole numbers in int64_t.
template <class T, class Result>
void reduce_part_plain(bool max, const void* data, const Loop& outer, int64_t k0, int64_t k1, const Loop& inner, int64_t begin, int64_t end,
                       Result* out) {
  const T* x = static_cast<const T*>(data);
  const int64_t outer_stride = outer.inner_stride(1), stride = inner.inner_stride(0);
  walk(outer, k0, k1, [&](int64_t n, const int64_t* at) {
    for (int64_t c = 0; c < n; ++c, ++out) {
      Result result = start_of<Result>(max);
      walk(inner, begin, end, [&](int64_t count, const int64_t* from) {
        const T* xs = x + at[1] + c * outer_stride + from[0];
        for (int64_t i = 0; i < count; ++i) {
          RECKON_COUNT_VECTOR(1);
          result = joined(max, result, Result(xs[i * stride]));
        }
      });
      *out = result;
    }
  });
}

// One output element each of `outer`, from `reduced` elements. part(k0, k1, begin, end, results) reduces elements [begin, end) for the
// outputs [k0, k1); finish(k, result) stores one.
template <class Result, class Part, class Finish>
void reduce_in_slices(bool max, const Loop& outer, int64_t reduced, void* workspace, Part part, Finish finish) {
  const int64_t outputs = outer.total;
  const auto [slices, each] = sum_cut(outputs, reduced);
  const bool many = reduced > 0 && outputs > kManyElements / reduced;
  const int64_t by_work = (many ? kLongTasks : 1) * kTaskElements / std::max<int64_t>(each, 1);
  const int64_t grain = outer.inner_stride(1) == 1 ? (many ? kBlock : kBlock / 2) : std::clamp<int64_t>(by_work, 1, kBlock),
                parts = (outputs + grain - 1) / grain;
  Result* partial = static_cast<Result*>(workspace);  // [slices, outputs]
  static_assert(sizeof(Result) == 8);
  parallel_for(parts * slices, [&](int64_t task) {
    const int64_t k0 = task % parts * grain, k1 = std::min(outputs, k0 + grain), slice = task / parts;
    const int64_t begin = std::min(reduced, slice * each), end = std::min(reduced, begin + each);
    Result result[kBlock];
    std::fill(result, result + kBlock, start_of<Result>(max));
    if (begin < end) part(k0, k1, begin, end, result);
    for (int64_t k = k0; k < k1; ++k) slices == 1 ? finish(k, result[k - k0]) : void(partial[slice * outputs + k] = result[k - k0]);
  });
  if (slices == 1) return;
  parallel_range(outputs, kBlock, [&](int64_t k0, int64_t k1) {
    for (int64_t k = k0; k < k1; ++k) {
      Result value = partial[k];
      for (int64_t slice = 1; slice < slices; ++slice) value = joined(max, value, partial[slice * outputs + k]);
      finish(k, value);
    }
  });
}

void store_whole(DType dtype, void* out, int64_t at, int64_t value) {
  switch (dtype) {
    case DType::i64:
      static_cast<int64_t*>(out)[at] = value;
      return;
    case DType::i32:
      static_cast<int32_t*>(out)[at] = int32_t(value);
      return;
    default:
      static_cast<uint8_t*>(out)[at] = uint8_t(value);
  }
}

// A flat reduction: f(begin, end) -> double for each slice, added in order.
template <class F>
double sum_flat(int64_t n, void* workspace, F f) {
  const int64_t bound = flat_reduce_workspace(n) / 8, each = bound ? (n + bound - 1) / bound : 1, slices = (n + each - 1) / each;
  double* partial = static_cast<double*>(workspace);
  parallel_for(slices, [&](int64_t s) { partial[s] = f(s * each, std::min(n, (s + 1) * each)); });
  double sum = 0;
  for (int64_t s = 0; s < slices; ++s) sum += partial[s];
  return sum;
}
}  // namespace

int64_t reduce_workspace(const Shape& shape, uint32_t axes) {
  const Split s = split(shape, nullptr, axes);
  return checked_product({std::min(s.kept.numel(), kFewOutputs), slice_count(s.reduced.numel()), 8});
}

SumCut sum_cut(int64_t outputs, int64_t reduced) {
  const int64_t slices = outputs <= kFewOutputs ? slice_count(reduced) : 1;
  return {slices, (reduced + slices - 1) / slices};
}

double sum_run(DType dtype, const void* x, int64_t n, double sum) {
  if (dtype != DType::f64) return HWY_DYNAMIC_DISPATCH(sum_dense)(dtype, x, n, sum);
  for (int64_t i = 0; i < n; ++i) {
    RECKON_COUNT_VECTOR(1);
    sum += static_cast<const double*>(x)[i];
  }
  return sum;
}

void reduce(Reduce op, DType dtype, const Shape& shape, Strided x, uint32_t axes, DType out_dtype, void* out, void* workspace) {
  RECKON_ASSERT(is_float(dtype) == is_float(out_dtype));
  const Split s = split(shape, x.strides, axes);
  int64_t dense[kMaxRank];
  dense_strides(s.kept, dense);
  const int64_t *outer_strides[] = {dense, s.kept_strides}, *inner_strides[] = {s.reduced_strides};
  const Loop outer = make_loop(s.kept, 2, outer_strides), inner = make_loop(s.reduced, 1, inner_strides);
  const bool max = op == Reduce::max;
  const int64_t reduced = inner.total;
  if (is_float(dtype)) {
    const auto part = [&](int64_t k0, int64_t k1, int64_t begin, int64_t end, double* result) {
      if (dtype == DType::f64) return reduce_part_plain<double>(max, x.data, outer, k0, k1, inner, begin, end, result);
      HWY_DYNAMIC_DISPATCH(reduce_part)(max, dtype, x.data, outer, k0, k1, inner, begin, end, result);
    };
    return reduce_in_slices<double>(max, outer, reduced, workspace, part, [&](int64_t k, double value) {
      store_float(out_dtype, out, k, op == Reduce::mean ? value / double(reduced) : value);
    });
  }
  const auto part = [&](int64_t k0, int64_t k1, int64_t begin, int64_t end, int64_t* result) {
    if (dtype == DType::i32) return reduce_part_plain<int32_t>(max, x.data, outer, k0, k1, inner, begin, end, result);
    if (dtype == DType::i64) return reduce_part_plain<int64_t>(max, x.data, outer, k0, k1, inner, begin, end, result);
    reduce_part_plain<uint8_t>(max, x.data, outer, k0, k1, inner, begin, end, result);
  };
  reduce_in_slices<int64_t>(max, outer, reduced, workspace, part, [&](int64_t k, int64_t value) { store_whole(out_dtype, out, k, value); });
}

int64_t column_sums_workspace(DType dtype, int64_t rows, int64_t cols) {
  return checked_product({slice_bound(rows), cols, size_of(statistics_dtype(dtype))});
}

void column_sums(DType dtype, const void* x, int64_t rows, int64_t cols, int64_t row_stride, DType out_dtype, void* out, bool accumulate,
                 void* workspace) {
  RECKON_ASSERT(is_float(dtype) && is_float(out_dtype));
  if (cols == 0) return;  // no scratch either
  const Slices slices = slices_of(rows);
  const int64_t bytes = size_of(statistics_dtype(dtype));
  parallel_for(slices.count, [&](int64_t s) {
    const int64_t begin = s * slices.rows_each, end = std::min(rows, begin + slices.rows_each);
    char* to = static_cast<char*>(workspace) + s * cols * bytes;
    std::memset(to, 0, size_t(cols * bytes));
    if (dtype != DType::f64)
      return HWY_DYNAMIC_DISPATCH(column_sums_part)(dtype, x, cols, row_stride, begin, end, reinterpret_cast<float*>(to));
    double* sums = reinterpret_cast<double*>(to);
    for (int64_t row = begin; row < end; ++row)
      for (int64_t c = 0; c < cols; ++c) {
        RECKON_COUNT_VECTOR(1);
        sums[c] += static_cast<const double*>(x)[row * row_stride + c];
      }
  });
  sum_slices(workspace, dtype == DType::f64, slices.count, cols, cols, out, out_dtype, accumulate);
}

int64_t flat_reduce_workspace(int64_t n) { return std::min<int64_t>(256, (n + kTaskElements - 1) / kTaskElements) * 8; }

void sum_of_squares(DType dtype, const void* x, int64_t n, double* out, void* workspace) {
  RECKON_ASSERT(is_float(dtype));
  *out = sum_flat(n, workspace, [&](int64_t begin, int64_t end) {
    if (dtype != DType::f64) return HWY_DYNAMIC_DISPATCH(squares_part)(dtype, x, begin, end);
    double sum = 0;
    for (int64_t i = begin; i < end; ++i) {
      RECKON_COUNT_VECTOR(2);
      sum += static_cast<const double*>(x)[i] * static_cast<const double*>(x)[i];
    }
    return sum;
  });
}

void count_nonfinite(DType dtype, const void* x, int64_t n, int64_t* out, void* workspace) {
  RECKON_ASSERT(is_float(dtype));
  *out = int64_t(sum_flat(n, workspace, [&](int64_t begin, int64_t end) {
    if (dtype != DType::f64) return HWY_DYNAMIC_DISPATCH(nonfinite_part)(dtype, x, begin, end);
    int64_t count = 0;
    for (int64_t i = begin; i < end; ++i) count += !std::isfinite(static_cast<const double*>(x)[i]);
    return double(count);
  }));
}
}  // namespace reckon::cpu
#endif
