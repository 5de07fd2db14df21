#include "reckon/backend/cpu/count.h"

#ifdef RECKON_COUNT
#include <atomic>

namespace reckon::cpu {
namespace {
std::atomic<int64_t> matmul_count{0}, vector_count{0};
}

void count_work(int64_t matmul, int64_t vector) {
  if (matmul != 0) matmul_count.fetch_add(matmul, std::memory_order_relaxed);
  if (vector != 0) vector_count.fetch_add(vector, std::memory_order_relaxed);
}

Counted take_counted() { return {matmul_count.exchange(0), vector_count.exchange(0)}; }
}  // namespace reckon::cpu
#endif
