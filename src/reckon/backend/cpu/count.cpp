#include "reckon/backend/cpu/count.h"

#ifdef RECKON_COUNT
#include <mutex>
#include <vector>

namespace reckon::cpu {
namespace {
// One per thread, so that counting does not make loops wait for each other; threads live as long as the program.
struct alignas(64) ThreadCount {
  ThreadCount();
  Counted done;
};
std::mutex mutex;
std::vector<ThreadCount*> threads;
ThreadCount::ThreadCount() {
  const std::lock_guard lock(mutex);
  threads.push_back(this);
}
}  // namespace

void count_work(int64_t matmul, int64_t vector) {
  static thread_local ThreadCount& mine = *new ThreadCount;
  mine.done.matmul += matmul;
  mine.done.vector += vector;
}

Counted take_counted() {
  const std::lock_guard lock(mutex);
  Counted sum;
  for (ThreadCount* thread : threads) {
    sum.matmul += thread->done.matmul;
    sum.vector += thread->done.vector;
    thread->done = {};
  }
  return sum;
}
}  // namespace reckon::cpu
#endif
