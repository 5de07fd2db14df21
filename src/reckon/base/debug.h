// base/debug: RECKON_DEBUG=ops,memory,dispatch,grad prints what the engine does, to stderr.
#pragma once
#include <string_view>

namespace reckon {
enum class Debug : unsigned { ops = 1, memory = 2, dispatch = 4, grad = 8 };

/// True if RECKON_DEBUG names this topic. The variable is read once.
bool debug(Debug topic);
/// One line to stderr, prefixed with the topic.
void debug_line(Debug topic, std::string_view line);
}  // namespace reckon
