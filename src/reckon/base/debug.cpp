#include "reckon/base/debug.h"

#include <cstdio>
#include <cstdlib>

namespace reckon {
namespace {
constexpr std::string_view kTopics[] = {"ops", "memory", "dispatch", "grad"};

unsigned read_topics() {
  const char* value = std::getenv("RECKON_DEBUG");
  unsigned topics = 0;
  for (std::string_view rest = value ? value : ""; !rest.empty();) {
    const size_t comma = rest.find_first_of(",|");
    const std::string_view word = rest.substr(0, comma);
    rest = comma == rest.npos ? "" : rest.substr(comma + 1);
    bool known = word.empty();
    for (unsigned i = 0; i < 4; ++i)
      if (word == kTopics[i]) topics |= 1u << i, known = true;
    if (!known)
      std::fprintf(stderr, "reckon: RECKON_DEBUG=%.*s is unknown; it takes ops, memory, dispatch and grad, separated by commas\n", int(word.size()), word.data());
  }
  return topics;
}
}  // namespace

bool debug(Debug topic) {
  static const unsigned topics = read_topics();
  return (topics & static_cast<unsigned>(topic)) != 0;
}

void debug_line(Debug topic, std::string_view line) {
  const std::string_view name = kTopics[__builtin_ctz(static_cast<unsigned>(topic))];
  std::fprintf(stderr, "%.*s: %.*s\n", int(name.size()), name.data(), int(line.size()), line.data());
}
}  // namespace reckon
