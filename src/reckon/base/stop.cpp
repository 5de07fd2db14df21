#include "reckon/base/stop.h"

#include <atomic>
#include <exception>

#include "reckon/base/error.h"

namespace reckon {
namespace {
std::atomic<int> asked = 0;  // the signal
std::atomic<int> keeping = 0;
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler writes it");
}  // namespace

void request_stop(int signal) { asked = signal; }
bool stop_requested() { return asked.load(std::memory_order_relaxed) != 0; }
int stop_signal() { return asked; }

KeepWorking::KeepWorking() { ++keeping; }
KeepWorking::~KeepWorking() { --keeping; }

void stop_point() {
  if (!stop_requested() || keeping.load(std::memory_order_relaxed) != 0 || std::uncaught_exceptions() != 0) return;
  fail_as(Failure::interrupted, "interrupted; nothing was kept of what had been begun");
}
}  // namespace reckon
