#include "reckon/base/stop.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "reckon/base/error.h"
#include "reckon/base/parallel.h"

using namespace reckon;

namespace {
bool interrupted(void (*work)()) {
  try {
    work();
  } catch (const Error& error) {
    return error.kind() == Failure::interrupted;
  }
  return false;
}

// A request is for the rest of the process, so each story is told in one of its own.
int story() {
  if (interrupted(stop_point) || stop_requested() || stop_signal() != 0) return 1;
  request_stop(15);
  if (!stop_requested() || stop_signal() != 15) return 2;
  if (!interrupted(stop_point)) return 3;
  {
    const KeepWorking outer;
    { const KeepWorking inner; }
    if (interrupted(stop_point)) return 4;
  }
  if (!interrupted(stop_point)) return 5;
  // Destructors that run because of it may call what has stop points.
  struct Cleaner {
    ~Cleaner() { stop_point(); }
  };
  if (!interrupted([] {
        const Cleaner cleaner;
        stop_point();
      }))
    return 6;
  // No task begins any more, on however many threads.
  for (const int threads : {1, 3}) {
    set_thread_count(threads);
    static int begun = 0;
    if (!interrupted([] { parallel_for(100, [](int64_t) { ++begun; }); }) || begun != 0) return 7;
  }
  return 0;
}
}  // namespace

TEST(StopDeathTest, WorkIsDroppedUnlessItIsKept) { EXPECT_EXIT(std::_Exit(story()), testing::ExitedWithCode(0), ""); }
