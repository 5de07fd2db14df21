// base/error: the one exception type, and check(), which throws it. Knows nothing of ours.
#pragma once
#include <fmt/core.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace reckon {

/// What went wrong, in the terms of the program's exit code (docs: design contracts).
enum class Failure : int {
  failed = 1,       // the work could not be done
  usage = 2,        // bad usage or configuration
  memory = 3,       // does not fit in memory
  corrupt = 4,      // an input file is damaged or malformed
  interrupted = 130  // stopped by a signal
};

/// Every error Reckon throws. what() is one clear line: what, where, the limit, the way out.
class Error : public std::runtime_error {
 public:
  /// details: what a person may want to read before that line; "" if nothing.
  explicit Error(const std::string& message, Failure kind = Failure::failed, const std::string& details = "")
      : std::runtime_error(message), kind_(kind), details_(details) {}
  Failure kind() const { return kind_; }
  const std::string& details() const { return details_; }
  int exit_code() const { return static_cast<int>(kind_); }

 private:
  Failure kind_;
  std::string details_;
};

namespace detail {
// Numbers and strings go to fmt as they are; every other type is printed through its own to_string().
template <class T>
auto printable(const T& value) {
  if constexpr (std::is_arithmetic_v<T>) {
    return value;
  } else if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    return std::string_view(value);
  } else {
    return to_string(value);
  }
}
[[noreturn]] void throw_error(Failure kind, std::string_view format, fmt::format_args args);
std::string vformat(std::string_view format, fmt::format_args args);
template <class... P>
[[noreturn]] void fail_printed(Failure kind, std::string_view format, const P&... printed) {
  throw_error(kind, format, fmt::make_format_args(printed...));
}
template <class... P>
std::string text_printed(std::string_view format, const P&... printed) {
  return vformat(format, fmt::make_format_args(printed...));
}
}  // namespace detail

/// Formats with {} placeholders. Types of ours print through their to_string().
template <class... Args>
std::string text(std::string_view format, const Args&... args) {
  return detail::text_printed(format, detail::printable(args)...);
}

/// Throws Error with the formatted message.
template <class... Args>
[[noreturn]] void fail(std::string_view format, const Args&... args) {
  detail::fail_printed(Failure::failed, format, detail::printable(args)...);
}
/// Throws Error of the given kind (which fixes the exit code).
template <class... Args>
[[noreturn]] void fail_as(Failure kind, std::string_view format, const Args&... args) {
  detail::fail_printed(kind, format, detail::printable(args)...);
}
/// For the caller's mistakes: throws Error with the formatted message unless the condition holds.
template <class... Args>
void check(bool condition, std::string_view format, const Args&... args) {
  if (!condition) [[unlikely]] detail::fail_printed(Failure::failed, format, detail::printable(args)...);
}
template <class... Args>
void check_as(Failure kind, bool condition, std::string_view format, const Args&... args) {
  if (!condition) [[unlikely]] detail::fail_printed(kind, format, detail::printable(args)...);
}

[[noreturn]] void assertion_failed(const char* condition, const char* file, int line);
}  // namespace reckon

/// For our own mistakes: aborts with file and line. Active in every build type.
#define RECKON_ASSERT(condition) ((condition) ? void(0) : ::reckon::assertion_failed(#condition, __FILE__, __LINE__))
