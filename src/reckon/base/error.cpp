#include "reckon/base/error.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>

namespace reckon {
namespace detail {
std::string vformat(std::string_view format, fmt::format_args args) { return fmt::vformat(fmt::string_view(format.data(), format.size()), args); }

void throw_error(Failure kind, std::string_view format, fmt::format_args args) { throw Error(vformat(format, args), kind); }
}  // namespace detail

void assertion_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "reckon: internal error: %s does not hold (%s:%d)\n", condition, file, line);
  std::abort();
}
}  // namespace reckon
