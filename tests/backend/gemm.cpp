// Matrix multiplication against the double reference: every dtype, transposition, accumulate and bias, over many shapes; the same bits
// at any number of threads; no memory taken behind the caller's back; no fork for work of one task.
#include "reckon/backend/cpu/gemm.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "reckon/base/parallel.h"
#include "reckon/base/philox.h"

// ---- witnesses: the largest allocation and the number of parallel regions since they were last cleared
std::atomic<size_t> largest_allocation{0};  // attention_allocation.cpp looks at it too
static std::atomic<int> forks{0};
static void* next(const char* symbol) { return dlsym(RTLD_NEXT, symbol); }
static void note(size_t bytes) {
  size_t seen = largest_allocation.load();
  while (bytes > seen && !largest_allocation.compare_exchange_weak(seen, bytes)) {
  }
}
#if defined(__SANITIZE_ADDRESS__)
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void*, size_t), void (*)(const volatile void*));
[[maybe_unused]] static const int hooks =
    __sanitizer_install_malloc_and_free_hooks([](const volatile void*, size_t bytes) { note(bytes); }, [](const volatile void*) {});
#else
extern "C" void* __libc_malloc(size_t);
extern "C" void* __libc_memalign(size_t, size_t);
extern "C" void* malloc(size_t bytes) {
  note(bytes);
  return __libc_malloc(bytes);
}
extern "C" void* aligned_alloc(size_t alignment, size_t bytes) {
  note(bytes);
  return __libc_memalign(alignment, bytes);
}
extern "C" int posix_memalign(void** p, size_t alignment, size_t bytes) {
  note(bytes);
  *p = __libc_memalign(alignment, bytes);
  return *p ? 0 : ENOMEM;
}
#endif
extern "C" void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags) {
  static const auto real = reinterpret_cast<void (*)(void (*)(void*), void*, unsigned, unsigned)>(next("GOMP_parallel"));
  ++forks;
  real(body, data, threads, flags);
}

namespace reckon::cpu {
namespace {
constexpr GemmEngine kEngines[] = {GemmEngine::packed, GemmEngine::onednn};

struct Buffer {  // 64-byte aligned
  explicit Buffer(int64_t bytes) : data(static_cast<char*>(std::aligned_alloc(64, size_t((bytes + 127) / 64 * 64)))), bytes(bytes) {}
  Buffer(const Buffer& other) : Buffer(other.bytes) { std::memcpy(data, other.data, size_t(bytes)); }
  ~Buffer() { std::free(data); }
  char* data;
  int64_t bytes;
};

void put(void* x, DType dtype, int64_t at, float value) {
  if (dtype == DType::f64)
    static_cast<double*>(x)[at] = value;
  else if (dtype == DType::bf16)
    static_cast<bfloat16*>(x)[at] = bfloat16(value);
  else if (dtype == DType::f16)
    static_cast<float16*>(x)[at] = float16(value);
  else
    static_cast<float*>(x)[at] = value;
}
double get(const void* x, DType dtype, int64_t at) {
  if (dtype == DType::f64) return static_cast<const double*>(x)[at];
  if (dtype == DType::bf16) return double(float(static_cast<const bfloat16*>(x)[at]));
  if (dtype == DType::f16) return double(float(static_cast<const float16*>(x)[at]));
  return double(static_cast<const float*>(x)[at]);
}

// Uniform in [-1, 1).
Buffer uniform(int64_t count, DType dtype, uint64_t seed) {
  Buffer x(count * size_of(dtype));
  for (int64_t i = 0; i < count; ++i) put(x.data, dtype, i, 2 * uniform_float(philox(seed, 0, uint64_t(i))[0]) - 1);
  return x;
}

struct Product {  // operands of one shape, and a workspace with a guard behind it
  explicit Product(const GemmShape& s, int lanes = 5, int64_t batch = 1)
      : shape(s),
        lanes(lanes),
        a(uniform(batch * s.m * s.k, s.a, 1)),
        b(uniform(batch * s.k * s.n, s.b, 2)),
        c(uniform(batch * s.m * s.n, s.c, 3)),
        bias(uniform(s.n, s.bias_dtype, 4)),
        workspace(gemm_workspace(s, lanes) + 64) {
    std::memset(workspace.data, 0x5A, size_t(workspace.bytes));
  }
  const void* bias_or_null() const { return shape.bias ? bias.data : nullptr; }
  Buffer run(int threads, GemmEngine engine = GemmEngine::best) {
    Buffer out(c);
    const int before = thread_count();
    set_thread_count(threads);
    gemm(shape, a.data, b.data, out.data, bias_or_null(), workspace.data, lanes, engine);
    set_thread_count(before);
    return out;
  }
  bool guard_intact() const {
    for (int64_t i = workspace.bytes - 64; i < workspace.bytes; ++i)
      if (workspace.data[i] != 0x5A) return false;
    return true;
  }
  GemmShape shape;
  int lanes;
  Buffer a, b, c, bias, workspace;
};

std::string describe(const GemmShape& s) {
  return "[" + std::to_string(s.m) + ", " + std::to_string(s.k) + "] x [" + std::to_string(s.k) + ", " + std::to_string(s.n) + "] " +
         to_string(s.a) + " -> " + to_string(s.c) + (s.trans_a ? " trans_a" : "") + (s.trans_b ? " trans_b" : "") +
         (s.accumulate ? " accumulate" : "") + (s.bias ? " bias " + to_string(s.bias_dtype) : "");
}

// Rounding errors of a sum of k + 2 terms below 1 walk randomly; one more rounding to c, whose values stay below 6 sqrt(k + 2).
double tolerance(const GemmShape& s) {
  const double sum_epsilon = epsilon(s.a == DType::f64 ? DType::f64 : DType::f32), terms = double(s.k + 2);
  const double largest = 6 * std::sqrt(terms / 3) + 1;
  return 4 * sum_epsilon * std::sqrt(terms) * std::sqrt(terms) + epsilon(s.c) * largest;
}

void expect_close(const GemmShape& s, const void* got, const void* want) {
  const double limit = tolerance(s);
  for (int64_t i = 0; i < s.m * s.n; ++i) {
    const double error = std::abs(get(got, s.c, i) - get(want, s.c, i));
    if (!(error <= limit)) FAIL() << describe(s) << ": element " << i << " is " << get(got, s.c, i) << ", not " << get(want, s.c, i);
  }
}

void expect_right(const GemmShape& s, bool both_engines = true) {
  Product p(s);
  Buffer want(p.c);
  gemm_reference(s, p.a.data, p.b.data, want.data, p.bias_or_null());
  for (const GemmEngine engine : kEngines) {
    if (engine == GemmEngine::onednn && !both_engines) continue;
    const Buffer got = p.run(2, engine);
    expect_close(s, got.data, want.data);
  }
  EXPECT_TRUE(p.guard_intact()) << describe(s);
}

struct Types {
  DType ab, c, bias;
};
const Types kTypes[] = {{DType::f32, DType::f32, DType::f32},   {DType::f64, DType::f64, DType::f64},
                        {DType::bf16, DType::f32, DType::f32},  {DType::bf16, DType::bf16, DType::bf16},
                        {DType::bf16, DType::bf16, DType::f32}, {DType::f16, DType::f16, DType::f16},
                        {DType::f16, DType::f32, DType::f32},   {DType::f16, DType::f16, DType::f32}};

GemmShape shape_of(int64_t m, int64_t n, int64_t k, const Types& t, int variant) {
  return {m, n, k, t.ab, t.ab, t.c, (variant & 1) != 0, (variant & 2) != 0, (variant & 4) != 0, (variant & 8) != 0, t.bias};
}

TEST(gemm, matches_the_reference_in_every_variant) {
  struct Extents {
    int64_t m, n, k;
    bool both_engines = false;  // oneDNN compiles each variant, which takes time
  };
  for (const Extents e : {Extents{1, 1, 1},
                          {2, 3, 5},
                          {1, 70, 33},
                          {7, 33, 129},
                          {8, 64, 64},
                          {9, 17, 31, true},
                          {33, 50, 1, true},
                          {64, 1, 40},
                          {37, 41, 300, true},
                          {67, 97, 65}})
    for (const Types& t : kTypes)
      for (int variant = 0; variant < 16; ++variant) expect_right(shape_of(e.m, e.n, e.k, t, variant), e.both_engines);
}

TEST(gemm, matches_the_reference_across_blocks) {
  for (const Types& t : kTypes)
    for (int variant : {0, 1, 6, 13}) {
      expect_right(shape_of(1041, 35, 70, t, variant));  // several blocks of rows, the last one short
      expect_right(shape_of(70, 35, 2100, t, variant));  // several passes over k
      expect_right(shape_of(30, 1050, 40, t, variant));  // several strips of columns
    }
}

TEST(gemm, empty_extents) {
  for (const Types& t : kTypes)
    for (int variant = 0; variant < 16; ++variant) {
      expect_right(shape_of(0, 5, 7, t, variant));
      expect_right(shape_of(5, 0, 7, t, variant));
      expect_right(shape_of(5, 7, 0, t, variant));
      expect_right(shape_of(0, 0, 0, t, variant));
    }
}

TEST(gemm, same_bits_at_any_number_of_threads) {
  struct Extents {
    int64_t m, n, k;
  };
  for (const Extents e : {Extents{1, 700, 90}, {200, 430, 200}, {1030, 40, 60}, {100, 64, 1500}})
    for (const Types& t : kTypes)
      for (int variant : {0, 3, 7, 13}) {
        Product p(shape_of(e.m, e.n, e.k, t, variant));
        for (const GemmEngine engine : kEngines) {
          const Buffer one = p.run(1, engine);
          for (int threads : {2, 5}) {
            const Buffer many = p.run(threads, engine);
            ASSERT_EQ(std::memcmp(one.data, many.data, size_t(one.bytes)), 0) << describe(p.shape) << " with " << threads << " threads";
          }
        }
      }
}

TEST(gemm, same_bits_at_any_number_of_lanes) {  // lanes cut the work differently
  for (const Types& t : kTypes)
    for (int variant : {1, 6}) {
      const GemmShape s = shape_of(300, 450, 1100, t, variant);
      Product narrow(s, 1), wide(s, 7);
      for (const GemmEngine engine : kEngines) {
        const Buffer one = narrow.run(5, engine), seven = wide.run(5, engine);
        ASSERT_EQ(std::memcmp(one.data, seven.data, size_t(one.bytes)), 0) << describe(s);
      }
    }
}

TEST(gemm, batches_are_products_side_by_side) {
  constexpr int64_t kBatch = 3;
  for (const Types& t : kTypes)
    for (int variant = 0; variant < 16; ++variant)
      for (const GemmEngine engine : kEngines) {
        const GemmShape s = shape_of(20, 24, 40, t, variant);
        Product p(s, 2, kBatch);
        for (const bool broadcast_b : {false, true}) {
          Buffer got(p.c), want(p.c);
          const int64_t stride_b = broadcast_b ? 0 : s.k * s.n;
          gemm_batched(s, kBatch, p.a.data, s.m * s.k, p.b.data, stride_b, got.data, s.m * s.n, p.bias_or_null(), p.workspace.data, 2,
                       engine);
          for (int64_t i = 0; i < kBatch; ++i)
            gemm(s, p.a.data + i * s.m * s.k * size_of(s.a), p.b.data + i * stride_b * size_of(s.b),
                 want.data + i * s.m * s.n * size_of(s.c), p.bias_or_null(), p.workspace.data, 2, engine);
          ASSERT_EQ(std::memcmp(got.data, want.data, size_t(got.bytes)), 0) << describe(s);
        }
      }
}

TEST(gemm, nan_and_infinity_stay_in_their_row) {
  for (const Types& t : kTypes) {
    const GemmShape s = shape_of(40, 30, 50, t, 2);
    Product p(s);
    put(p.a.data, s.a, 3 * s.k + 7, NAN);
    put(p.a.data, s.a, 9 * s.k + 2, INFINITY);
    const Buffer got = p.run(2);
    for (int64_t i = 0; i < s.m; ++i)
      for (int64_t j = 0; j < s.n; ++j) {
        const double x = get(got.data, s.c, i * s.n + j);
        if (i == 3)
          EXPECT_TRUE(std::isnan(x));
        else if (i == 9)
          EXPECT_TRUE(std::isinf(x));
        else
          EXPECT_TRUE(std::isfinite(x));
      }
  }
}

TEST(gemm, workspace_is_monotone_in_every_extent) {
  for (const Types& t : kTypes)
    for (int variant = 0; variant < 4; ++variant)
      for (int axis = 0; axis < 3; ++axis) {
        int64_t before = 0;
        for (int64_t extent = 0; extent < 5000; extent += extent < 200 ? 1 : 97) {
          GemmShape s = shape_of(700, 300, 900, t, variant);
          (axis == 0 ? s.m : axis == 1 ? s.n : s.k) = extent;
          const int64_t bytes = gemm_workspace(s, 2);
          ASSERT_GE(bytes, before) << describe(s);
          before = bytes;
        }
      }
}

TEST(gemm, steady_state_allocates_nothing_large) {
  largest_allocation = 0;
  { const Buffer seen(5000); }
  ASSERT_GE(largest_allocation, 5000u) << "the witness sees nothing";
  for (const Types& t : kTypes)
    for (int variant : {1, 2, 13})
      for (const int64_t m : {1, 100, 600}) {
        Product p(shape_of(m, 100, 1100, t, variant), 2);
        set_thread_count(2);
        for (const GemmEngine engine : kEngines) {
          const auto run = [&] { gemm(p.shape, p.a.data, p.b.data, p.c.data, p.bias_or_null(), p.workspace.data, 2, engine); };
          run();
          largest_allocation = 0;
          run();
          EXPECT_LE(largest_allocation, 4096u) << describe(p.shape);
        }
      }
}

TEST(gemm, one_task_does_not_fork) {
  set_thread_count(2);
  for (const GemmEngine engine : kEngines) {
    for (const Types& t : kTypes) {
      Product p(shape_of(9, 900, 60, t, 2), 2);  // wide, but too little work for two
      forks = 0;
      for (int i = 0; i < 2; ++i) gemm(p.shape, p.a.data, p.b.data, p.c.data, nullptr, p.workspace.data, 2, engine);
      EXPECT_EQ(forks, 0) << describe(p.shape);
    }
    Product large(shape_of(1024, 300, 300, kTypes[0], 2), 2);
    forks = 0;
    gemm(large.shape, large.a.data, large.b.data, large.c.data, nullptr, large.workspace.data, 2, engine);
    EXPECT_EQ(forks, 1);  // ours; none inside oneDNN
  }
}

TEST(gemm, tiles_inside_a_lane) {
  Buffer scratch(kGemmTileScratch);
  for (const int64_t m : {1, 16, 33, 128})
    for (const int64_t n : {1, 17, 64, 128})
      for (const int64_t k : {1, 31, 64, 300})
        for (int variant = 0; variant < 4; ++variant) {
          const bool trans_b = (variant & 1) != 0, accumulate = (variant & 2) != 0;
          const GemmShape s{m, n, k, DType::f32, DType::f32, DType::f32, false, trans_b, accumulate};
          const int64_t lda = k + 3, ldb = (trans_b ? k : n) + 5, ldc = n + 2;
          Product p(s);
          Buffer a(m * lda * 4), b((trans_b ? n : k) * ldb * 4), c = uniform(m * ldc, DType::f32, 9);
          for (int64_t i = 0; i < m; ++i) std::memcpy(a.data + i * lda * 4, p.a.data + i * k * 4, size_t(k * 4));
          for (int64_t i = 0, rows = trans_b ? n : k, width = trans_b ? k : n; i < rows; ++i)
            std::memcpy(b.data + i * ldb * 4, p.b.data + i * width * 4, size_t(width * 4));
          const Buffer before(c);
          for (int64_t i = 0; i < m; ++i) std::memcpy(c.data + i * ldc * 4, p.c.data + i * n * 4, size_t(n * 4));
          gemm_tile_f32(m, n, k, reinterpret_cast<float*>(a.data), lda, reinterpret_cast<float*>(b.data), ldb, trans_b,
                        reinterpret_cast<float*>(c.data), ldc, accumulate, scratch.data);
          Buffer got(p.c), want(p.c);
          for (int64_t i = 0; i < m; ++i) {
            std::memcpy(got.data + i * n * 4, c.data + i * ldc * 4, size_t(n * 4));
            ASSERT_EQ(std::memcmp(c.data + (i * ldc + n) * 4, before.data + (i * ldc + n) * 4, 8), 0) << "wrote beside the tile";
          }
          gemm_reference(s, p.a.data, p.b.data, want.data, nullptr);
          expect_close(s, got.data, want.data);
        }
}

TEST(gemm, refuses_what_it_cannot_do) {
  EXPECT_ANY_THROW(gemm_workspace({1, 1, 1, DType::f32, DType::f64, DType::f32}, 1));
  EXPECT_ANY_THROW(gemm_workspace({1, 1, 1, DType::i32, DType::i32, DType::i32}, 1));
  EXPECT_ANY_THROW(gemm_workspace({1, 1, 1, DType::f32, DType::f32, DType::bf16}, 1));
  EXPECT_ANY_THROW(gemm_workspace({-1, 1, 1}, 1));
  EXPECT_ANY_THROW(gemm_workspace({1, 1, 1, DType::f64, DType::f64, DType::f64, false, false, false, true, DType::f32}, 1));
}
}  // namespace
}  // namespace reckon::cpu
