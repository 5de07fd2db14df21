// base/stop: has somebody asked this program to end, and may the work at hand be dropped for it? Knows no signal by name and no work.
#pragma once

namespace reckon {

/// Asks the program to end; `signal` is kept for its exit code. Safe in a signal handler.
void request_stop(int signal);
bool stop_requested();
/// The signal that asked last; 0 before that.
int stop_signal();

/// While one lives, work is brought to an end in good order: stop_point() does not throw, and who holds it looks at stop_requested().
class KeepWorking {
 public:
  KeepWorking();
  ~KeepWorking();
  KeepWorking(const KeepWorking&) = delete;
};

/// Throws Error (interrupted) if a stop was requested, unless a KeepWorking lives or the thread is unwinding already. Stands wherever much
/// work goes by: operations, tasks of parallel_for, reading and hashing files. So everything but a run that has begun can be interrupted at
/// once, and its destructors clean up.
void stop_point();
}  // namespace reckon
