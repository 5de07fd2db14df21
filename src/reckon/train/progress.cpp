#include "reckon/train/progress.h"

#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "reckon/base/error.h"
#include "reckon/base/text.h"

namespace reckon {
namespace {
double now() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}
size_t terminal_width() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}
bool set_in_environment(const char* name) {
  const char* value = std::getenv(name);
  return value && *value;
}
}  // namespace

bool progress_terminal() {
  const char* term = std::getenv("TERM");
  return isatty(STDERR_FILENO) && !(term && std::string_view(term) == "dumb");
}

std::string progress_line(const ProgressState& s) {
  std::string line = text("step {}/{}  loss {:.4f}  {} tok/s", s.step, s.steps, s.loss, with_commas(std::llround(s.tokens_per_second)));
  if (s.recent_steps > 0) line += text(" (last {})", s.recent_steps);
  if (s.mfu >= 0) line += text("  MFU {:.0f} %", s.mfu * 100);
  return line + text("  {}  ETA {}", human_bytes(s.memory_bytes), human_seconds(s.seconds_left));
}

Progress::Progress() : terminal_(progress_terminal()), color_(terminal_ && !set_in_environment("NO_COLOR")) {}
Progress::~Progress() { erase(); }

void Progress::erase() {
  if (drawn_) std::fputs("\r\x1b[K", stderr);
  drawn_ = false;
}

void Progress::update(const ProgressState& s) {
  if (!terminal_) {
    const int64_t part = s.step * 20 / std::max<int64_t>(1, s.steps);
    if (part == last_line_ && s.step != 1) return;
    last_line_ = part;
    std::fprintf(stderr, "%s\n", progress_line(s).c_str());
    return;
  }
  const double time = now();
  if (time - last_drawn_ < 0.1 && s.step < s.steps) return;
  last_drawn_ = time;
  const std::string line = progress_line(s);
  const size_t width = terminal_width();
  std::string bar;
  if (width > line.size() + 14) {
    const size_t cells = std::min<size_t>(30, width - line.size() - 4), filled = size_t(double(cells) * double(s.step) / double(std::max<int64_t>(1, s.steps)));
    for (size_t i = 0; i < cells; ++i) bar += i < filled ? "█" : "░";
    bar += "  ";
  }
  std::fprintf(stderr, "\r%s%s%s%.*s\x1b[K", color_ ? "\x1b[32m" : "", bar.c_str(), color_ ? "\x1b[0m" : "", int(std::max<size_t>(width, 2) - 1), line.c_str());
  std::fflush(stderr);
  drawn_ = true;
}

void Progress::note(const std::string& line) {
  erase();
  std::fprintf(stderr, "%s\n", line.c_str());
}
}  // namespace reckon
