#include "reckon/base/program.h"

#include <cstdlib>

#include "reckon/base/text.h"

namespace reckon {
namespace {
// The environment holds the names: it is there already, and threads only read it.
constexpr const char* kFromLauncher = "RECKON_PROGRAM";
constexpr const char* kFromArguments = "RECKON_ARGV0";

bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value && *value;
}
}  // namespace

std::string program_name() {
  for (const char* variable : {kFromLauncher, kFromArguments})
    if (is_set(variable)) return shell_word(printable_line(std::getenv(variable)));
  return "reckon";
}

void set_program_name(const char* argv0) { setenv(kFromArguments, argv0 && *argv0 ? argv0 : "reckon", 1); }

bool called_by_launcher() { return is_set(kFromLauncher); }

std::string shell_word(std::string_view word) {
  constexpr std::string_view kHarmless = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%";
  if (!word.empty() && word.find_first_not_of(kHarmless) == word.npos) return std::string(word);
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}
}  // namespace reckon
