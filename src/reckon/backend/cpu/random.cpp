// backend/cpu/random: element i takes word i % 4 of Philox block i / 4 (f64: words 2 (i % 2) and 2 (i % 2) + 1 of block i / 2). A pair of
// normals takes the two uniforms of its pair of elements.
#include "reckon/backend/cpu/random.h"

#include "reckon/backend/cpu/vec_targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "reckon/backend/cpu/random.cpp"
#include <hwy/foreach_target.h>

#include "reckon/backend/cpu/vec_random-inl.h"

HWY_BEFORE_NAMESPACE();
namespace reckon::cpu::HWY_NAMESPACE {
constexpr int64_t kBlocks = 256;  // Philox blocks of one part: 1024 elements, 4 KiB of words

// values [4 * kBlocks]: elements 4 * block, ... of the stream, as uniforms or standard normals.
void random_part(bool normal, uint64_t key, int64_t block, float* values) {
  HWY_ALIGN uint32_t words[4 * kBlocks];
  HWY_ALIGN float planes[4 * kBlocks];  // by word, then by block
  philox_blocks(key, uint64_t(block), kBlocks, kBlocks, words);
  const int64_t N = lanes();
  const V unit = set(0x1p-24f);
  for (int64_t k = 0; k < 4; k += 2) {
    uint32_t *first = words + k * kBlocks, *second = first + kBlocks;
    float *to = planes + k * kBlocks, *next = to + kBlocks;
    for (int64_t b = 0; b < kBlocks; b += N) {
      V u = hn::Mul(top_bits(first + b), unit), t = hn::Mul(top_bits(second + b), unit);
      if (normal) {
        const V radius = hn::Sqrt(hn::Mul(set(-2.0f), log_vec(hn::Add(u, unit))));  // u + 2^-24 is in (0, 1]
        V sine, cosine;
        turn_vec(t, sine, cosine);
        u = hn::Mul(radius, cosine), t = hn::Mul(radius, sine);
      }
      hn::StoreU(u, D(), to + b);
      hn::StoreU(t, D(), next + b);
    }
  }
  for (int64_t b = 0; b < kBlocks; ++b)
    for (int64_t k = 0; k < 4; ++k) values[4 * b + k] = planes[k * kBlocks + b];
}

// data[i - first] = shift + scale * value i, for i in [begin, end) of the stream.
void random_fill(bool normal, DType dtype, void* data, uint64_t key, int64_t first, int64_t begin, int64_t end, float shift, float scale) {
  HWY_ALIGN float values[4 * kBlocks], out[4 * kBlocks];
  const V vs = set(scale), vb = set(shift);
  for (int64_t i = begin; i < end;) {
    const int64_t skip = i % 4, most = 4 * kBlocks - skip, n = end - i < most ? end - i : most;
    random_part(normal, key, i / 4, values);
    float* place = write_place(dtype, data, i - first, out);
    for_vectors(n, [&](int64_t j, auto part) RECKON_VEC {
      RECKON_COUNT_VECTOR(10 * part.count());
      part.store(hn::MulAdd(part.load(values + skip + j), vs, vb), place + j);
    });
    write_chunk(dtype, data, i - first, n, out);
    i += n;
  }
}
}  // namespace reckon::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>
#include <cmath>

#include "reckon/backend/cpu/rows.h"
#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
HWY_EXPORT(random_fill);

// The two 53-bit uniforms of elements 2 * pair and 2 * pair + 1.
struct Pair {
  double a, b;
};
Pair uniform_pair(uint64_t key, int64_t pair) {
  const auto w = philox(key, 0, uint64_t(pair));
  return {uniform_double(w[0], w[1]), uniform_double(w[2], w[3])};
}

double uniform_f64(uint64_t key, int64_t i) {
  const Pair u = uniform_pair(key, i / 2);
  return i % 2 == 0 ? u.a : u.b;
}

double normal_f64(uint64_t key, int64_t i) {
  const Pair u = uniform_pair(key, i / 2);
  const double radius = std::sqrt(-2 * std::log(u.a + 0x1p-53)), angle = 6.283185307179586477 * u.b;
  return radius * (i % 2 == 0 ? std::cos(angle) : std::sin(angle));
}

double distribution(double z) { return 0.5 * std::erfc(-z * 0.70710678118654752440); }

double polynomial(const double (&c)[8], double x) {
  double sum = c[7];
  for (int i = 6; i >= 0; --i) sum = sum * x + c[i];
  return sum;
}

// Wichura's PPND16: the z with distribution(z) = p, to about 1e-16 relative, for 0 < p < 1.
double inverse_distribution(double p) {
  static constexpr double a[8] = {3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
                                  4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3};
  static constexpr double b[8] = {1.0,
                                  4.2313330701600911252e1,
                                  6.8718700749205790830e2,
                                  5.3941960214247511077e3,
                                  2.1213794301586595867e4,
                                  3.9307895800092710610e4,
                                  2.8729085735721942674e4,
                                  5.2264952788528545610e3};
  static constexpr double c[8] = {1.42343711074968357734e0,  4.63033784615654529590e0, 5.76949722146069140550e0,
                                  3.64784832476320460504e0,  1.27045825245236838258e0, 2.41780725177450611770e-1,
                                  2.27238449892691845833e-2, 7.74545014278341407640e-4};
  static constexpr double d[8] = {1.0,
                                  2.05319162663775882187e0,
                                  1.67638483018380384940e0,
                                  6.89767334985100004550e-1,
                                  1.48103976427480074590e-1,
                                  1.51986665636164571966e-2,
                                  5.47593808499534494600e-4,
                                  1.05075007164441684324e-9};
  static constexpr double e[8] = {6.65790464350110377720e0,  5.46378491116411436990e0,  1.78482653991729133580e0,
                                  2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
                                  2.71155556874348757815e-5, 2.01033439929228813265e-7};
  static constexpr double f[8] = {1.0,
                                  5.99832206555887937690e-1,
                                  1.36929880922735805310e-1,
                                  1.48753612908506148525e-2,
                                  7.86869131145613259100e-4,
                                  1.84631831751005468180e-5,
                                  1.42151175831644588870e-7,
                                  2.04426310338993978564e-15};
  const double q = p - 0.5;
  if (std::abs(q) <= 0.425) {
    const double r = 0.180625 - q * q;
    return q * polynomial(a, r) / polynomial(b, r);
  }
  const double r = std::sqrt(-std::log(q < 0 ? p : 1 - p));
  const double z = r <= 5 ? polynomial(c, r - 1.6) / polynomial(d, r - 1.6) : polynomial(e, r - 5) / polynomial(f, r - 5);
  return q < 0 ? -z : z;
}

// The inverse distribution function of a normal that is cut to [low, high].
struct Truncation {
  double mean, std, low, high, a, b, from, to;
  bool mirror;  // above the mean, distribution functions crowd at 1: there the mirror image keeps the digits
  Truncation(double mean_, double std_, double low_, double high_) : mean(mean_), std(std_), low(low_), high(high_), mirror(low_ > mean_) {
    a = mirror ? (mean - high) / std : (low - mean) / std;
    b = mirror ? (mean - low) / std : (high - mean) / std;
    from = distribution(a), to = distribution(b);
  }
  double draw(double u) const {
    const double p = from + (to - from) * u, z = p <= 0 ? a : p >= 1 ? b : inverse_distribution(p);
    return std::clamp(mean + (mirror ? -z : z) * std, low, high);
  }
};

void normal_part(DType dtype, void* data, int64_t n, uint64_t key, int64_t first, double mean, double std) {
  if (dtype != DType::f64)
    return HWY_DYNAMIC_DISPATCH(random_fill)(true, dtype, data, key, first, first, first + n, float(mean), float(std));
  for (int64_t i = 0; i < n; ++i) {
    RECKON_COUNT_VECTOR(10);
    static_cast<double*>(data)[i] = mean + std * normal_f64(key, first + i);
  }
}
}  // namespace

void fill_uniform(DType dtype, void* data, int64_t n, uint64_t key, int64_t first, double low, double high) {
  RECKON_ASSERT(is_float(dtype) && first >= 0);
  parallel_range(n, kTaskElements, [&](int64_t begin, int64_t end) {
    if (dtype != DType::f64) {
      return HWY_DYNAMIC_DISPATCH(random_fill)(false, dtype, data, key, first, first + begin, first + end, float(low), float(high - low));
    }
    for (int64_t i = begin; i < end; ++i) {
      RECKON_COUNT_VECTOR(10);
      static_cast<double*>(data)[i] = low + (high - low) * uniform_f64(key, first + i);
    }
  });
}

void fill_normal(DType dtype, void* data, int64_t n, uint64_t key, int64_t first, double mean, double std) {
  RECKON_ASSERT(is_float(dtype) && first >= 0);
  parallel_range(n, kTaskElements, [&](int64_t begin, int64_t end) {
    normal_part(dtype, static_cast<char*>(data) + begin * size_of(dtype), end - begin, key, first + begin, mean, std);
  });
}

void fill_truncated_normal(DType dtype, void* data, int64_t n, uint64_t key, int64_t first, double mean, double std, double low,
                           double high) {
  RECKON_ASSERT(is_float(dtype) && first >= 0 && std > 0 && low < high);
  const Truncation cut(mean, std, low, high);
  // Where the plain normal falls within the bounds, it is distributed as wanted; only the others are drawn anew, from their own stream.
  const uint64_t again = mix_key(key, 0x7472756E63617465ull);
  parallel_range(n, kTaskElements, [&](int64_t begin, int64_t end) {
    const int64_t bytes = size_of(dtype);
    normal_part(dtype, static_cast<char*>(data) + begin * bytes, end - begin, key, first + begin, mean, std);
    for (int64_t i = begin; i < end; ++i) {
      const double v = load_float(dtype, data, i);
      if (!(v >= low && v <= high)) store_float(dtype, data, i, cut.draw(uniform_f64(again, first + i)));
    }
  });
}
}  // namespace reckon::cpu
#endif
