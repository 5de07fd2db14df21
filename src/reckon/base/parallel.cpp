#include "reckon/base/parallel.h"

#include <omp.h>
#include <sched.h>

#include <algorithm>
#include <exception>

#include "reckon/base/stop.h"

namespace reckon {
int core_count() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}
int thread_count() { return omp_get_max_threads(); }
void set_thread_count(int threads) { omp_set_num_threads(std::max(1, threads)); }

std::vector<uint64_t> thread_pointers() {
  std::vector<uint64_t> pointers(static_cast<size_t>(thread_count()));
#pragma omp parallel num_threads(int(pointers.size()))
  pointers[size_t(omp_get_thread_num())] = reinterpret_cast<uint64_t>(__builtin_thread_pointer());
  std::erase(pointers, 0u);  // the system may have refused a thread
  return pointers;
}

namespace detail {
void run_tasks(int64_t tasks, int max_lanes, TaskFunction function, void* body) {
  int threads = thread_count();
  if (max_lanes > 0) threads = std::min(threads, max_lanes);
  threads = int(std::min<int64_t>(threads, tasks));
  if (threads <= 1 || omp_in_parallel()) {
    for (int64_t task = 0; task < tasks; ++task) {
      stop_point();
      function(body, task, 0);
    }
    return;
  }
  std::exception_ptr first;
#pragma omp parallel num_threads(threads)
  {
    const int lane = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < tasks; ++task) {
      try {
        stop_point();
        function(body, task, lane);
      } catch (...) {
#pragma omp critical(reckon_first_exception)
        if (!first) first = std::current_exception();
      }
    }
  }
  if (first) std::rethrow_exception(first);
}
}  // namespace detail
}  // namespace reckon
