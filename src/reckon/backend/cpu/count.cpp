#include "reckon/backend/cpu/count.h"

#ifdef RECKON_COUNT
#include <deque>
#include <mutex>

namespace reckon::cpu {
namespace {
// One per thread, so that counting does not make loops wait for each other.
struct alignas(64) ThreadCount {
  Counted done;
};
std::mutex mutex;
std::deque<ThreadCount> threads;  // which stay where they are

ThreadCount& new_thread() {
  const std::lock_guard lock(mutex);
  return threads.emplace_back();
}
}  // namespace

void count_work(int64_t matmul, int64_t vector) {
  static thread_local ThreadCount& mine = new_thread();
  mine.done.matmul += matmul;
  mine.done.vector += vector;
}

Counted take_counted() {
  const std::lock_guard lock(mutex);
  Counted sum;
  for (ThreadCount& thread : threads) {
    sum.matmul += thread.done.matmul;
    sum.vector += thread.done.vector;
    thread.done = {};
  }
  return sum;
}
}  // namespace reckon::cpu
#endif
