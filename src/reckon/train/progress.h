// train/progress: one line that keeps up with a run on a terminal, and plain lines elsewhere. Writes to stderr only.
#pragma once
#include <cstdint>
#include <string>

namespace reckon {

/// True if stderr is a terminal; NO_COLOR (not empty) switches colour off, not the bar.
bool progress_terminal();

struct ProgressState {
  int64_t step = 0, steps = 0;  // done, of
  double loss = 0, tokens_per_second = 0, seconds_left = 0;
  int64_t recent_steps = 0;     // that the speed is the mean of; 0: do not say
  double mfu = -1;              // < 0: unknown
  int64_t memory_bytes = 0;
};

class Progress {
 public:
  Progress();
  ~Progress();
  Progress(const Progress&) = delete;
  /// Redraws the bar, at most ten times a second; elsewhere prints a line when a twentieth of the run is done.
  void update(const ProgressState& state);
  /// A line of its own above the bar.
  void note(const std::string& line);

 private:
  void erase();
  bool terminal_, color_, drawn_ = false;
  double last_drawn_ = -1;
  int64_t last_line_ = -1;
};
/// "step 12/200  loss 3.214  1,234 tok/s (last 12)  MFU 71 %  312.00 MiB  ETA 1m 05s"
std::string progress_line(const ProgressState& state);
}  // namespace reckon
