// backend/cpu/gemm_whole: products of whole-number matrices, row by row.
#include <algorithm>

#include "reckon/backend/cpu/count.h"
#include "reckon/backend/cpu/gemm.h"
#include "reckon/backend/cpu/rows.h"
#include "reckon/base/parallel.h"

namespace reckon::cpu {
namespace {
// Unsigned arithmetic wraps; U is at least as wide as int.
template <class T, class U>
void rows_of(const GemmShape& s, const T* a, const T* b, T* c, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    T* row = c + i * s.n;
    std::fill(row, row + s.n, T(0));
    for (int64_t l = 0; l < s.k; ++l) {
      RECKON_COUNT_MATMUL(2 * s.n);
      const U factor = U(a[s.trans_a ? l * s.m + i : i * s.k + l]);
      const T* from = s.trans_b ? b + l : b + l * s.n;
      const int64_t step = s.trans_b ? s.k : 1;
      for (int64_t j = 0; j < s.n; ++j) row[j] = T(U(row[j]) + factor * U(from[j * step]));
    }
  }
}
}  // namespace

void gemm_whole(const GemmShape& s, const void* a, const void* b, void* c) {
  const int64_t work = std::max<int64_t>(1, s.n * s.k), grain = std::max<int64_t>(1, kTaskElements / work);
  parallel_range(s.m, grain, [&](int64_t begin, int64_t end) {
    const auto run = [&]<class T, class U>(T, U) {
      rows_of<T, U>(s, static_cast<const T*>(a), static_cast<const T*>(b), static_cast<T*>(c), begin, end);
    };
    if (s.a == DType::i32) return run(int32_t(), uint32_t());
    if (s.a == DType::i64) return run(int64_t(), uint64_t());
    run(uint8_t(), uint32_t());
  });
}
}  // namespace reckon::cpu
