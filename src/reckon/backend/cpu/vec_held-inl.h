// backend/cpu/vec_held-inl: rows that several passes go over: of bfloat16 where they are, of float16 held as floats between the passes; the
// next one fetched meanwhile, results stored past the caches. Knows contiguous runs of any float type but float64, and no operation.
#if defined(RECKON_BACKEND_CPU_VEC_HELD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RECKON_BACKEND_CPU_VEC_HELD_INL_H_
#undef RECKON_BACKEND_CPU_VEC_HELD_INL_H_
#else
#define RECKON_BACKEND_CPU_VEC_HELD_INL_H_
#endif

#include <type_traits>

#include "reckon/backend/cpu/stream.h"
#include "reckon/backend/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {

/// Floats of a row that are held on the stack; a longer row is converted anew by each pass.
constexpr int64_t kHeld = 8192;

/// Elements of a result that are stored together: their floats take little of the L1 cache beside a row.
constexpr int64_t kStored = 512;

/// body(c, n) for the parts of [0, count) that are stored together.
template <class Body>
HWY_INLINE void for_stores(int64_t count, Body body) {
  for (int64_t c = 0; c < count; c += kStored) body(c, count - c < kStored ? count - c : kStored);
}

/// Fetches elements for later. Any address will do, beyond an array too.
struct Ahead {
  const char* first;
  int64_t bytes;  // of an element
  HWY_INLINE void operator()(int64_t i) const { __builtin_prefetch(first + i * bytes); }
  HWY_INLINE Ahead from(int64_t i) const { return {first + i * bytes, bytes}; }
};
HWY_INLINE Ahead ahead_of(DType dtype, const void* data, int64_t i) {
  const int64_t bytes = dtype == DType::f32 ? 4 : 2;
  return {static_cast<const char*>(data) + i * bytes, bytes};
}

/// Where a pass loads its vectors from: floats, or bfloat16 as it stands in memory, whose widening costs no more than storing it would.
struct Floats {
  const float* p;
  template <class Part>
  HWY_INLINE V load(Part part, int64_t i) const {
    return part.load(p + i);
  }
};
struct Halves {
  const uint16_t* p;
  HWY_INLINE V load(Whole, int64_t i) const { return load_bf16(p + i); }
  HWY_INLINE V load(Tail part, int64_t i) const {
    HWY_ALIGN uint16_t rest[hn::MaxLanes(D())] = {};
    std::memcpy(rest, p + i, size_t(part.count()) * 2);
    return load_bf16(rest);
  }
};

/// A Reader that can hold a whole row.
struct RowReader {
  DType dtype;
  const void* data;
  int64_t begin = 0, count = 0;  // what the buffer holds
  HWY_ALIGN float buffer[kHeld];

  RowReader(DType type, const void* p) : dtype(type), data(p) {}
  /// Elements [i, i + n) are what the caller now writes here; n <= kHeld.
  HWY_INLINE float* hold(int64_t i, int64_t n) {
    begin = i, count = n;
    return buffer;
  }
  /// Converts a row once, if it fits.
  HWY_INLINE void row(int64_t i, int64_t n) {
    if (dtype == DType::f32 || n > kHeld || (begin == i && count == n)) return;
    read_chunk(dtype, data, i, n, hold(i, n));
  }
  HWY_INLINE const float* at(int64_t i, int64_t n) {
    if (i >= begin && i + n <= begin + count) return buffer + (i - begin);
    if (dtype == DType::f32) return static_cast<const float*>(data) + i;
    return read_chunk(dtype, data, i, n, hold(i, n));
  }
  /// body(source) of elements [i, i + n), n <= kHeld: of bfloat16 in memory, or of floats.
  template <class Body>
  HWY_INLINE void with(int64_t i, int64_t n, Body body) {
    if (is_halves(i, n)) {
      body(halves(i));
    } else {
      body(Floats{at(i, n)});
    }
  }
  HWY_INLINE bool is_halves(int64_t i, int64_t n) const { return dtype == DType::bf16 && !(i >= begin && i + n <= begin + count); }
  HWY_INLINE Halves halves(int64_t i) const { return {static_cast<const uint16_t*>(data) + i}; }
  /// Converts a row that with() would convert in each pass.
  HWY_INLINE void row_of_passes(int64_t i, int64_t n) {
    if (dtype == DType::f16) row(i, n);
  }
  HWY_INLINE Ahead ahead(int64_t i) const { return ahead_of(dtype, data, i); }
};

/// As store_bf16, of whole pairs of vectors; past the caches if `to` is where a cache line starts.
HWY_INLINE void narrow_bf16(const float* from, int64_t n, uint16_t* to, [[maybe_unused]] bool past = false) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::Repartition<uint16_t, D> halves;
  const int64_t N = lanes();
  for (; i + 2 * N <= n; i += 2 * N) {
    const auto rounded = round_pair(hn::LoadU(D(), from + i), hn::LoadU(D(), from + i + N));
    past ? hn::Stream(rounded, halves, to + i) : hn::StoreU(rounded, halves, to + i);
  }
#endif
  narrow<store_bf16>(from + i, n - i, to + i);
}

/// body(x source, y source) of n elements from i of x and from j of y.
template <class Body>
HWY_INLINE void with_both(RowReader& x, int64_t i, RowReader& y, int64_t j, int64_t n, Body body) {
  if (x.is_halves(i, n) && y.is_halves(j, n)) {
    body(x.halves(i), y.halves(j));
  } else {
    body(Floats{x.at(i, n)}, Floats{y.at(j, n)});
  }
}

/// Rounds n floats to bf16 or f16.
HWY_INLINE void narrow_chunk(DType dtype, const float* from, int64_t n, uint16_t* to) {
  if (dtype == DType::bf16) {
    narrow_bf16(from, n, to);
  } else {
    narrow<store_f16>(from, n, to);
  }
}

/// A Writer whose results may go past the caches; its user ends a task with stream_fence(). at() and done() take at most kStored elements.
struct RowWriter {
  DType dtype;
  void* data;
  bool streams;
  HWY_ALIGN float buffer[kStored];
  HWY_ALIGN uint16_t halves[kStored];

  RowWriter(DType type, void* p, bool past_caches) : dtype(type), data(p), streams(past_caches) {}
  HWY_INLINE float* at(int64_t i) { return dtype == DType::f32 && !streams ? static_cast<float*>(data) + i : buffer; }
  HWY_INLINE void done(int64_t i, int64_t n) {
    if (dtype == DType::f32) {
      if (streams) stream_run(buffer, static_cast<float*>(data) + i, n * 4);
      return;
    }
    uint16_t* const to = static_cast<uint16_t*>(data) + i;
    if (streams && dtype == DType::bf16 && reinterpret_cast<uintptr_t>(to) % 64 == 0) return narrow_bf16(buffer, n, to, true);
    narrow_chunk(dtype, buffer, n, streams ? halves : to);
    if (streams) stream_run(halves, to, n * 2);
  }
  /// Writes value(j, part) for each vector j of elements [i, i + n), straight from the registers.
  template <class Value>
  HWY_INLINE void write(int64_t i, int64_t n, Value value) {
    if (dtype == DType::f32) {
      float* const to = static_cast<float*>(data) + i;
      const int64_t head = streams ? to_line(to, n) : 0;
      for_vectors(head, [&](int64_t j, auto part) RECKON_VEC { part.store(value(j, part), to + j); });
      for_vectors(n - head, [&](int64_t j, auto part) RECKON_VEC {
        const V v = value(head + j, part);
        if constexpr (std::is_same_v<decltype(part), Whole>) {
          if (streams) return hn::Stream(v, D(), to + head + j);
        }
        part.store(v, to + head + j);
      });
    } else if (dtype == DType::bf16) {
      write_bf16(static_cast<uint16_t*>(data) + i, n, value);
    } else {
      for (int64_t c = 0; c < n; c += kStored) {
        const int64_t count = n - c < kStored ? n - c : kStored;
        for_vectors(count, [&](int64_t j, auto part) RECKON_VEC { part.store(value(c + j, part), buffer + j); });
        done(i + c, count);
      }
    }
  }
  /// Writes n floats from elsewhere, and rounds them there too.
  HWY_INLINE void put(int64_t i, int64_t n, float* from) {
    if (dtype == DType::bf16) return put_bf16(static_cast<uint16_t*>(data) + i, n, from);
    const int64_t bytes = n * (dtype == DType::f32 ? 4 : 2);
    const void* source = from;
    if (dtype != DType::f32) {
      narrow_chunk(dtype, from, n, halves);
      read_chunk(dtype, halves, 0, n, from);
      source = halves;
    }
    void* const to = static_cast<char*>(data) + i * (dtype == DType::f32 ? 4 : 2);
    streams ? stream_run(source, to, bytes) : void(std::memcpy(to, source, size_t(bytes)));
  }

 private:
  // Elements before the first cache line that starts among n.
  template <class T>
  HWY_INLINE static int64_t to_line(const T* to, int64_t n) {
    const int64_t before = int64_t(-reinterpret_cast<uintptr_t>(to) % 64) / int64_t(sizeof(T));
    return before < n ? before : n;
  }
  template <class Value>
  HWY_INLINE void write_bf16(uint16_t* to, int64_t n, Value value) {
    const int64_t N = lanes();
    int64_t j = 0;
    const auto write_rest = [&](int64_t end) RECKON_VEC {  // vector by vector
      for (; j + N <= end; j += N) store_bf16(value(j, Whole()), to + j);
      if (j == end) return;
      HWY_ALIGN uint16_t rest[hn::MaxLanes(D())];
      store_bf16(value(j, Tail{hn::FirstN(D(), size_t(end - j))}), rest);
      std::memcpy(to + j, rest, size_t(end - j) * 2);
      j = end;
    };
#if HWY_TARGET != HWY_SCALAR
    const hn::Repartition<uint16_t, D> d16;
    if (streams) write_rest(to_line(to, n));
    for (; j + 2 * N <= n; j += 2 * N) {
      const V low = value(j, Whole()), high = value(j + N, Whole());
      const auto rounded = round_pair(low, high);
      streams ? hn::Stream(rounded, d16, to + j) : hn::StoreU(rounded, d16, to + j);
    }
#endif
    write_rest(n);
  }
  HWY_INLINE void put_bf16(uint16_t* to, int64_t n, float* from) {
    int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
    const hn::Repartition<uint16_t, D> d16;
    const bool past = streams && reinterpret_cast<uintptr_t>(to) % 64 == 0;
    const int64_t N = lanes();
    for (; i + 2 * N <= n; i += 2 * N) {
      const auto rounded = round_pair(hn::LoadU(D(), from + i), hn::LoadU(D(), from + i + N));
      past ? hn::Stream(rounded, d16, to + i) : hn::StoreU(rounded, d16, to + i);
      const auto wide = [&](auto half) RECKON_VEC { return hn::BitCast(D(), hn::ShiftLeft<16>(hn::PromoteTo(DU(), half))); };
      hn::StoreU(wide(hn::LowerHalf(D16(), rounded)), D(), from + i);
      hn::StoreU(wide(hn::UpperHalf(D16(), rounded)), D(), from + i + N);
    }
#endif
    narrow<store_bf16>(from + i, n - i, to + i);
    widen<load_bf16>(to + i, n - i, from + i);
  }
};
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
