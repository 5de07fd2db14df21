// tests/backend/attention_reference: attention with materialized scores, in double, and helpers to fill and compare buffers of any float
// type. It shares no code with the kernels it judges.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "reckon/backend/cpu/attention.h"
#include "reckon/backend/cpu/attention_pairs.h"
#include "reckon/base/parallel.h"
#include "reckon/base/philox.h"

namespace reckon::test {

/// 64-byte aligned bytes of exactly the asked size, every byte set: unwritten parts show up as NaN.
class Buffer {
 public:
  explicit Buffer(int64_t bytes) : raw_(size_t(bytes) + 64, 0xFF) { at_ = (64 - reinterpret_cast<uintptr_t>(raw_.data()) % 64) % 64; }
  void* data() { return raw_.data() + at_; }
  const void* data() const { return raw_.data() + at_; }

 private:
  std::vector<unsigned char> raw_;
  size_t at_;
};

/// An array of a float type, read and written as doubles.
class Array {
 public:
  Array(DType dtype, int64_t count) : dtype_(dtype), count_(count), bytes_(count * size_of(dtype)) {}
  DType dtype() const { return dtype_; }
  int64_t count() const { return count_; }
  void* data() { return bytes_.data(); }
  const void* data() const { return bytes_.data(); }
  double operator[](int64_t i) const {
    switch (dtype_) {
      case DType::f64:
        return static_cast<const double*>(data())[i];
      case DType::f32:
        return static_cast<const float*>(data())[i];
      case DType::bf16:
        return float(static_cast<const bfloat16*>(data())[i]);
      default:
        return float(static_cast<const float16*>(data())[i]);
    }
  }
  void set(int64_t i, double x) {
    switch (dtype_) {
      case DType::f64:
        static_cast<double*>(data())[i] = x;
        break;
      case DType::f32:
        static_cast<float*>(data())[i] = float(x);
        break;
      case DType::bf16:
        static_cast<bfloat16*>(data())[i] = bfloat16(float(x));
        break;
      default:
        static_cast<float16*>(data())[i] = float16(float(x));
        break;
    }
  }
  std::vector<double> doubles() const {
    std::vector<double> out(static_cast<size_t>(count_));
    for (int64_t i = 0; i < count_; ++i) out[size_t(i)] = (*this)[i];
    return out;
  }
  bool same_bits(const Array& other) const {
    return count_ == other.count_ && std::memcmp(data(), other.data(), size_t(count_ * size_of(dtype_))) == 0;
  }

 private:
  DType dtype_;
  int64_t count_;
  Buffer bytes_;
};

/// Uniform in [-width, width), rounded to the type.
inline Array uniform(DType dtype, int64_t count, uint64_t seed, double width = 1) {
  Array a(dtype, count);
  for (int64_t i = 0; i < count; ++i) a.set(i, width * (2 * double(uniform_float(philox(seed, 0, uint64_t(i))[0])) - 1));
  return a;
}

inline double max_abs(const std::vector<double>& x) {
  double largest = 0;
  for (double v : x) largest = std::max(largest, std::abs(v));
  return largest;
}

struct Reference {
  std::vector<double> out, lse, dqkv;
  double mass = 1;  // largest sum of the probabilities that one key receives from all rows
};

/// Forward, and backward if dout is not empty, of [B, T, (H + 2 KV) D] rows, with every score in memory.
inline Reference reference_attention(const cpu::AttentionShape& s, const std::vector<double>& qkv, const std::vector<double>& dout = {}) {
  const int64_t B = s.batch, T = s.tokens, H = s.heads, KV = s.kv_heads, D = s.head_dim, width = (H + 2 * KV) * D;
  const double scale = s.scale != 0 ? s.scale : 1 / std::sqrt(double(D));
  Reference r{std::vector<double>(size_t(B * T * H * D)), std::vector<double>(size_t(B * H * T)),
              std::vector<double>(dout.empty() ? 0 : qkv.size())};
  std::vector<double> p(static_cast<size_t>(T)), dp(static_cast<size_t>(T)), mass(size_t(B * KV * T));
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t h = 0; h < H; ++h) {
      for (int64_t t = 0; t < T; ++t) {
        int64_t first = s.causal && s.window > 0 ? std::max<int64_t>(t + 1 - s.window, 0) : 0;
        if (s.documents) first = std::max<int64_t>(first, s.documents[b * T + t]);
        const int64_t keys = s.causal ? t + 1 : T, kv = h / (H / KV);
        const int64_t q = (b * T + t) * width + h * D, o = ((b * T + t) * H + h) * D;
        auto k = [&](int64_t j) { return (b * T + j) * width + (H + kv) * D; };
        auto v = [&](int64_t j) { return k(j) + KV * D; };
        double sum = 0;
        for (int64_t j = first; j < keys; ++j) {
          double score = 0;
          for (int64_t d = 0; d < D; ++d) score += qkv[size_t(q + d)] * qkv[size_t(k(j) + d)];
          sum += std::exp(p[size_t(j)] = score * scale);
        }
        const double lse = r.lse[size_t((b * H + h) * T + t)] = std::log(sum);
        for (int64_t j = first; j < keys; ++j) p[size_t(j)] = std::exp(p[size_t(j)] - lse);
        for (int64_t j = first; j < keys; ++j) {
          for (int64_t d = 0; d < D; ++d) r.out[size_t(o + d)] += p[size_t(j)] * qkv[size_t(v(j) + d)];
        }
        for (int64_t j = first; j < keys; ++j) mass[size_t((b * KV + kv) * T + j)] += p[size_t(j)];
        if (dout.empty()) continue;
        double mean = 0;
        for (int64_t j = first; j < keys; ++j) {
          dp[size_t(j)] = 0;
          for (int64_t d = 0; d < D; ++d) dp[size_t(j)] += dout[size_t(o + d)] * qkv[size_t(v(j) + d)];
          mean += p[size_t(j)] * dp[size_t(j)];
        }
        for (int64_t j = first; j < keys; ++j) {
          const double ds = scale * p[size_t(j)] * (dp[size_t(j)] - mean);
          for (int64_t d = 0; d < D; ++d) {
            r.dqkv[size_t(q + d)] += ds * qkv[size_t(k(j) + d)];
            r.dqkv[size_t(k(j) + d)] += ds * qkv[size_t(q + d)];
            r.dqkv[size_t(v(j) + d)] += p[size_t(j)] * dout[size_t(o + d)];
          }
        }
      }
    }
  }
  r.mass = std::max(1.0, max_abs(mass));
  return r;
}

/// How far the kernels may be from the reference. With u the unit roundoff of the sums, X the largest input and G the largest gradient:
/// a score of D products is off by u D X^2 scale (random walk over partial sums of size sqrt(D) X^2, taken three times), a probability
/// relatively by that, a sum of T of them by sqrt(T) u more; dp is off by u D X G; delta, from the rounded output, by its rounding walked
/// over D. Where pairs of bf16 are multiplied, probabilities and the gradients of scores are rounded to bf16 before.
struct Tolerance {
  double out, lse, dqkv;
};
inline Tolerance tolerance(const cpu::AttentionShape& s, const Reference& r, double X, double G) {
  const double u = epsilon(statistics_dtype(s.dtype)) / 2, rounding = epsilon(s.dtype) / 2, D = double(s.head_dim), T = double(s.tokens);
  const double scale = s.scale != 0 ? std::abs(s.scale) : 1 / std::sqrt(D);
  const double operand = s.dtype == DType::bf16 && cpu::detail::multiplies_pairs() ? rounding : 0;
  const double score = 4 * u * (D * X * X * scale + 1), probability = 2 * score + 4 * u * std::sqrt(T);
  Tolerance t;
  t.out = X * (probability + operand) + rounding * max_abs(r.out);
  t.lse = score + 4 * u * (1 + max_abs(r.lse));
  const double dp = 4 * u * D * X * G, delta = 2 * rounding * std::sqrt(D) * G * max_abs(r.out);
  const double ds = scale * (dp + delta + 2 * std::sqrt(D) * X * G * (probability + operand));
  t.dqkv = r.mass * std::max(X * ds, G * (probability + operand)) + rounding * max_abs(r.dqkv);
  return t;
}

inline std::string describe(const cpu::AttentionShape& s) {
  return "B" + std::to_string(s.batch) + " T" + std::to_string(s.tokens) + " H" + std::to_string(s.heads) + " KV" +
         std::to_string(s.kv_heads) + " D" + std::to_string(s.head_dim) + " " + to_string(s.dtype) + (s.causal ? "" : " full") +
         (s.window > 0 ? " window " + std::to_string(s.window) : "") + (s.documents ? " documents" : "");
}

/// One call's buffers.
struct Call {
  cpu::AttentionShape shape;
  int lanes;
  Array qkv, out, lse, dout, dqkv;
  Call(const cpu::AttentionShape& s, int lanes_, double width = 1)
      : shape(s),
        lanes(lanes_),
        qkv(uniform(s.dtype, s.batch * s.tokens * (s.heads + 2 * s.kv_heads) * s.head_dim, 1, width)),
        out(s.dtype, s.batch * s.tokens * s.heads * s.head_dim),
        lse(statistics_dtype(s.dtype), s.batch * s.heads * s.tokens),
        dout(uniform(s.dtype, out.count(), 2)),
        dqkv(s.dtype, qkv.count()) {}
  void forward() {
    Buffer workspace(cpu::attention_workspace(shape, lanes));
    cpu::attention_forward(shape, qkv.data(), out.data(), lse.data(), workspace.data(), lanes);
  }
  void backward() {
    Buffer workspace(cpu::attention_back_workspace(shape, lanes));
    cpu::attention_backward(shape, dout.data(), qkv.data(), out.data(), lse.data(), dqkv.data(), workspace.data(), lanes);
  }
};

/// Outputs and gradients on any number of threads and lanes are those on one.
inline void expect_same_bits_everywhere(const cpu::AttentionShape& s) {
  const int before = thread_count();
  set_thread_count(1);
  Call one(s, 1);
  one.forward();
  one.backward();
  for (int threads : {1, 2, 5}) {
    set_thread_count(threads);
    for (int lanes : {1, 2, 5}) {
      Call many(s, lanes);
      many.forward();
      many.backward();
      EXPECT_TRUE(many.out.same_bits(one.out)) << describe(s) << " " << threads << " threads, " << lanes << " lanes";
      EXPECT_TRUE(many.dqkv.same_bits(one.dqkv)) << describe(s) << " " << threads << " threads, " << lanes << " lanes";
    }
  }
  set_thread_count(before);
}
}  // namespace reckon::test
