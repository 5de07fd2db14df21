#include "reckon/backend/cpu/fused_blocks.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/fused_blocks.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_narrow-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
// As for_vectors, four at a time: for bodies of few instructions.
template <class Body>
HWY_INLINE void for_vectors_by_four(int64_t n, Body body) {
  const int64_t N = lanes();
  int64_t i = 0;
  for (; i + 4 * N <= n; i += 4 * N) {
    body(i, Whole());
    body(i + N, Whole());
    body(i + 2 * N, Whole());
    body(i + 3 * N, Whole());
  }
  for (; i + N <= n; i += N) body(i, Whole());
  if (i < n) body(i, Tail{hn::FirstN(D(), size_t(n - i))});
}

// kQuick: for functions of one or two instructions.
template <bool kQuick, class F>
HWY_INLINE void over_vectors(int64_t n, F body) {
  if constexpr (kQuick) {
    for_vectors_by_four(n, body);
  } else {
    for_vectors(n, body);
  }
}
template <bool kQuick, bool kRounds, class F>
HWY_INLINE void apply1(const BlockCall& c, int64_t at, int64_t n, F f) {
  const float* x = c.in[0].at(at);
  float* y = c.out.at(at);
  over_vectors<kQuick>(n, [&](int64_t i, auto part) RECKON_VEC {
    const V value = f(part.load(x + i));
    part.store(kRounds ? round_to_bf16(value) : value, y + i);
  });
}
template <bool kQuick, bool kRounds, class F>
HWY_INLINE void apply2(const BlockCall& c, int64_t at, int64_t n, F f) {
  const float *a = c.in[0].at(at), *b = c.in[1].at(at);
  float* y = c.out.at(at);
  over_vectors<kQuick>(n, [&](int64_t i, auto part) RECKON_VEC {
    const V value = f(part.load(a + i), part.load(b + i));
    part.store(kRounds ? round_to_bf16(value) : value, y + i);
  });
}
template <bool kQuick = false, class F>
HWY_INLINE void each1(const BlockCall& c, int64_t at, int64_t n, F f) {
  c.rounds ? apply1<kQuick, true>(c, at, n, f) : apply1<kQuick, false>(c, at, n, f);
}
template <bool kQuick = false, class F>
HWY_INLINE void each2(const BlockCall& c, int64_t at, int64_t n, F f) {
  c.rounds ? apply2<kQuick, true>(c, at, n, f) : apply2<kQuick, false>(c, at, n, f);
}
// A function whose rounded results are those of another.
template <class F, class Narrow>
HWY_INLINE void each1(const BlockCall& c, int64_t at, int64_t n, F f, Narrow narrow) {
  c.rounds ? apply1<false, true>(c, at, n, narrow) : apply1<false, false>(c, at, n, f);
}
template <class F, class Narrow>
HWY_INLINE void each2(const BlockCall& c, int64_t at, int64_t n, F f, Narrow narrow) {
  c.rounds ? apply2<false, true>(c, at, n, narrow) : apply2<false, false>(c, at, n, f);
}

void load_block(const BlockCall& c, int64_t at, int64_t n) {
  float* y = c.out.at(at);
  if (c.source_dtype == DType::bf16) {
    widen<load_bf16>(reinterpret_cast<const uint16_t*>(c.source) + at, n, y);
  } else {
    const auto* from = reinterpret_cast<const uint8_t*>(c.source) + at;
    for (int64_t i = 0; i < n; ++i) y[i] = float(from[i] != 0);
  }
}

// Exact: the value is one of bfloat16.
HWY_INLINE void store_exact(V v, uint16_t* p) { hn::StoreU(hn::TruncateTo(D16(), hn::ShiftRight<16>(hn::BitCast(DU(), v))), D16(), p); }

// n is kBlockElements, the destination starts at a cache line. Whole vectors of 16-bit values: half a line at a time would be slow.
void stream_block(const BlockSink& sink, const float* x, int64_t at, int64_t n) {
  const int64_t N = lanes();
#if HWY_TARGET != HWY_SCALAR
  if (sink.dtype == DType::bf16) {
    const hn::Repartition<uint16_t, D> d16;
    const auto upper = [&](int64_t i)
                           RECKON_VEC { return hn::TruncateTo(D16(), hn::ShiftRight<16>(hn::BitCast(DU(), hn::LoadU(D(), x + i)))); };
    auto* to = reinterpret_cast<uint16_t*>(sink.data) + at;
    for (int64_t i = 0; i < n; i += 2 * N) hn::Stream(hn::Combine(d16, upper(i + N), upper(i)), d16, to + i);
    return;
  }
#endif
  auto* to = reinterpret_cast<float*>(sink.data) + at;
  for (int64_t i = 0; i < n; i += N) hn::Stream(hn::LoadU(D(), x + i), D(), to + i);
}

void store_block(const BlockSink& sink, const float* x, int64_t at, int64_t n) {
  std::byte* to = sink.data + at * (sink.dtype == DType::f32 ? 4 : sink.dtype == DType::bf16 ? 2 : 1);
  const bool has_stream = sink.dtype == DType::f32 || (sink.dtype == DType::bf16 && HWY_TARGET != HWY_SCALAR);
  if (sink.streams && has_stream && n == kBlockElements && reinterpret_cast<uintptr_t>(to) % 64 == 0) return stream_block(sink, x, at, n);
  if (sink.dtype == DType::f32) {
    std::memcpy(to, x, size_t(n) * 4);
  } else if (sink.dtype == DType::bf16) {
    narrow<store_exact>(x, n, reinterpret_cast<uint16_t*>(to));
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] = std::byte(x[i] != 0);
  }
}

HWY_INLINE V zero_or_one(M mask) { return hn::IfThenElseZero(mask, set(1.0f)); }

// The activations and their backward forms: dy, kept -> dy * slope(kept).
void run_activation(const BlockCall& c, int64_t at, int64_t n) {
  switch (c.code) {
    case BlockCode::tanh:
      return each1(
          c, at, n, [](V v) RECKON_VEC { return tanh_vec(v); }, [](V v) RECKON_VEC { return tanh_narrow(v); });
    case BlockCode::sigmoid:
      return each1(
          c, at, n, [](V v) RECKON_VEC { return sigmoid_vec(v); }, [](V v) RECKON_VEC { return sigmoid_narrow(v); });
    case BlockCode::relu:
      return each1<true>(c, at, n, [](V v) RECKON_VEC { return relu_vec(v); });
    case BlockCode::gelu:
      return each1(
          c, at, n, [](V v) RECKON_VEC { return gelu_vec(v); }, [](V v) RECKON_VEC { return gelu_narrow(v); });
    case BlockCode::silu:
      return each1(
          c, at, n, [](V v) RECKON_VEC { return silu_vec(v); }, [](V v) RECKON_VEC { return silu_narrow(v); });
    case BlockCode::tanh_back:
      return each2(c, at, n, [](V dy, V y) RECKON_VEC { return hn::Mul(dy, tanh_slope_vec(y)); });
    case BlockCode::sigmoid_back:
      return each2(c, at, n, [](V dy, V y) RECKON_VEC { return hn::Mul(dy, sigmoid_slope_vec(y)); });
    case BlockCode::relu_back:
      return each2(c, at, n, [](V dy, V y) RECKON_VEC { return hn::Mul(dy, relu_slope_vec(y)); });
    case BlockCode::gelu_back:
      return each2(
          c, at, n, [](V dy, V x) RECKON_VEC { return hn::Mul(dy, gelu_slope_vec(x)); },
          [](V dy, V x) RECKON_VEC { return hn::Mul(dy, gelu_slope_narrow(x)); });
    default:
      return each2(
          c, at, n, [](V dy, V x) RECKON_VEC { return hn::Mul(dy, silu_slope_vec(x)); },
          [](V dy, V x) RECKON_VEC { return hn::Mul(dy, silu_slope_narrow(x)); });
  }
}

void run_where(const BlockCall& c, int64_t at, int64_t n) {
  const float *condition = c.in[0].at(at), *a = c.in[1].at(at), *b = c.in[2].at(at);
  float* y = c.out.at(at);
  for_vectors(n, [&](int64_t i, auto part) RECKON_VEC {
    part.store(hn::IfThenElse(hn::Ne(part.load(condition + i), zero()), part.load(a + i), part.load(b + i)), y + i);
  });
}

void run_pow(const BlockCall& c, int64_t at, int64_t n) {
  const float *a = c.in[0].at(at), *b = c.in[1].at(at);
  float* y = c.out.at(at);
  for (int64_t i = 0; i < n; ++i) y[i] = __builtin_powf(a[i], b[i]);
  if (c.rounds) for_vectors(n, [&](int64_t i, auto part) RECKON_VEC { part.store(round_to_bf16(part.load(y + i)), y + i); });
}

void run_one(const BlockCall& c, int64_t at, int64_t n) {
  switch (c.code) {
    case BlockCode::none:
      return;
    case BlockCode::load:
      return load_block(c, at, n);
    case BlockCode::copy:
      return each1<true>(c, at, n, [](V v) RECKON_VEC { return v; });
    case BlockCode::affine: {
      const V alpha = set(c.alpha), beta = set(c.beta);
      return each1<true>(c, at, n, [&](V v) RECKON_VEC { return hn::MulAdd(alpha, v, beta); });
    }
    case BlockCode::neg:
      return each1<true>(c, at, n, [](V v) RECKON_VEC { return hn::Neg(v); });
    case BlockCode::exp:
      return each1(
          c, at, n, [](V v) RECKON_VEC { return exp_vec(v); }, [](V v) RECKON_VEC { return exp_narrow(v); });
    case BlockCode::log:
      return each1(
          c, at, n, [](V v) RECKON_VEC { return log_vec(v); }, [](V v) RECKON_VEC { return log_narrow(v); });
    case BlockCode::sqrt:
      return each1(c, at, n, [](V v) RECKON_VEC { return hn::Sqrt(v); });
    case BlockCode::rsqrt:
      return each1(c, at, n, [](V v) RECKON_VEC { return hn::Div(set(1.0f), hn::Sqrt(v)); });
    case BlockCode::square:
      return each1<true>(c, at, n, [](V v) RECKON_VEC { return hn::Mul(v, v); });
    case BlockCode::reciprocal:
      return each1(c, at, n, [](V v) RECKON_VEC { return hn::Div(set(1.0f), v); });
    case BlockCode::abs:
      return each1<true>(c, at, n, [](V v) RECKON_VEC { return hn::Abs(v); });
    case BlockCode::add:
      return each2<true>(c, at, n, [](V u, V v) RECKON_VEC { return hn::Add(u, v); });
    case BlockCode::sub:
      return each2<true>(c, at, n, [](V u, V v) RECKON_VEC { return hn::Sub(u, v); });
    case BlockCode::mul:
      return each2<true>(c, at, n, [](V u, V v) RECKON_VEC { return hn::Mul(u, v); });
    case BlockCode::div:
      return each2(c, at, n, [](V u, V v) RECKON_VEC { return hn::Div(u, v); });
    case BlockCode::max:
      return each2(c, at, n, [](V u, V v) RECKON_VEC { return with_nan(u, v, hn::Max(u, v)); });
    case BlockCode::min:
      return each2(c, at, n, [](V u, V v) RECKON_VEC { return with_nan(u, v, hn::Min(u, v)); });
    case BlockCode::pow:
      return run_pow(c, at, n);
    case BlockCode::equal:
      return each2(c, at, n, [](V u, V v) RECKON_VEC { return zero_or_one(hn::Eq(u, v)); });
    case BlockCode::less:
      return each2(c, at, n, [](V u, V v) RECKON_VEC { return zero_or_one(hn::Lt(u, v)); });
    case BlockCode::less_equal:
      return each2(c, at, n, [](V u, V v) RECKON_VEC { return zero_or_one(hn::Le(u, v)); });
    case BlockCode::where:
      return run_where(c, at, n);
    default:
      return run_activation(c, at, n);
  }
}

// The processor fetches ahead by itself, but not across the arithmetic of a block: 1.18 times a copy without this, 1.04 with it.
HWY_INLINE void fetch_ahead(const BlockCall& c, int64_t at, int64_t n) {
  constexpr int64_t kAhead = 2048;  // bytes
  for (int k = 0; k < 3; ++k) {
    if (!(c.fetches >> k & 1u)) continue;
    const bool is_source = c.code == BlockCode::load;
    const int64_t bytes = is_source ? (c.source_dtype == DType::bf16 ? 2 : 1) : 4;
    const std::byte* from = (is_source ? c.source : reinterpret_cast<const std::byte*>(c.in[k].base)) + at * bytes + kAhead;
    for (int64_t line = 0; line < n * bytes; line += 64) __builtin_prefetch(from + line);
  }
}

void run_all(const BlockCall* calls, int count, int64_t n) {
  for (int64_t at = 0; at < n; at += kBlockElements) {
    const int64_t m = n - at < kBlockElements ? n - at : kBlockElements;
    for (int i = 0; i < count; ++i) {
      const BlockCall& c = calls[i];
      if (c.fetches) fetch_ahead(c, at, m);
      run_one(c, at, m);
      RECKON_COUNT_VECTOR(c.flops * m);
      for (const BlockSink& sink : c.sinks)
        if (sink.data) store_block(sink, c.out.at(at), at, m);
    }
  }
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace reckon::cpu {
namespace {
HWY_EXPORT(run_all);
}
void run_blocks(const BlockCall* calls, int count, int64_t n) { HWY_DYNAMIC_DISPATCH(run_all)(calls, count, n); }
}  // namespace reckon::cpu
#endif
