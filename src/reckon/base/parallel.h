// base/parallel: the one way work is spread over threads. Tasks are numbered by the caller, so that what a task does never depends on
// how many threads there are; only who runs it does.
#pragma once
#include <cstdint>
#include <type_traits>
#include <vector>

namespace reckon {

/// Threads that parallel_for may use. Defaults to OMP_NUM_THREADS or the cores this process may run on.
int thread_count();
void set_thread_count(int threads);
/// Cores this process may run on; independent of OMP_NUM_THREADS.
int core_count();

/// For each thread that parallel_for may use, the caller's first: the address of its control block, which the C library keeps at the upper
/// end of the thread's stack. Starts those that have not run yet.
std::vector<uint64_t> thread_pointers();

namespace detail {
using TaskFunction = void (*)(void* body, int64_t task, int lane);
void run_tasks(int64_t tasks, int max_lanes, TaskFunction function, void* body);
}  // namespace detail

/// Calls body(task) or body(task, lane) for each task in [0, tasks), on up to thread_count() threads and at most max_lanes of them
/// (0: no limit). A lane runs one task at a time and is below max_lanes: it may index scratch. Nested calls run in their caller's thread.
/// The first exception thrown by a task is rethrown after all tasks are done.
template <class Body>
void parallel_for(int64_t tasks, Body&& body, int max_lanes = 0) {
  using B = std::remove_reference_t<Body>;
  detail::run_tasks(
      tasks, max_lanes,
      [](void* b, int64_t task, int lane) {
        if constexpr (std::is_invocable_v<B&, int64_t, int>) {
          (*static_cast<B*>(b))(task, lane);
        } else {
          (*static_cast<B*>(b))(task);
        }
      },
      const_cast<void*>(static_cast<const void*>(&body)));
}

/// Cuts [0, count) into chunks of `grain` (the last may be shorter) and calls body(begin, end) for each. The cut depends on grain only.
template <class Body>
void parallel_range(int64_t count, int64_t grain, Body&& body) {
  const int64_t tasks = (count + grain - 1) / grain;
  parallel_for(tasks, [&](int64_t task) {
    const int64_t begin = task * grain;
    body(begin, begin + grain < count ? begin + grain : count);
  });
}
}  // namespace reckon
