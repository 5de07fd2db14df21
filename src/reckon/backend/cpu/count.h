// backend/cpu/count: the work that kernels do, counted in their own loops where RECKON_COUNT is defined, as for tests/counting; elsewhere the
// macros are nothing. A trip counts the FLOPs that docs/flops.md gives it, for the elements that it covers. It knows no plan.
#pragma once
#include <cstdint>

#ifdef RECKON_COUNT
namespace reckon::cpu {
struct Counted {
  int64_t matmul = 0, vector = 0;
};
/// Adds to the count; from any thread.
void count_work(int64_t matmul, int64_t vector);
/// What was counted since the last call. Not while a kernel runs.
Counted take_counted();
}  // namespace reckon::cpu
#define RECKON_COUNT_MATMUL(flops) ::reckon::cpu::count_work(flops, 0)
#define RECKON_COUNT_VECTOR(flops) ::reckon::cpu::count_work(0, flops)
#else
#define RECKON_COUNT_MATMUL(flops) ((void)0)
#define RECKON_COUNT_VECTOR(flops) ((void)0)
#endif
