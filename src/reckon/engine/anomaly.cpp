#include "reckon/engine/anomaly.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "reckon/base/text.h"
#include "reckon/engine/node_extras.h"

extern char** environ;

namespace reckon {
namespace {
constexpr int kMaxFrames = 48;

struct Frame {
  std::string function, place;  // place: "file:line", "" if unknown
};

// Runs addr2line without a shell; "" if it cannot be run.
std::string addr2line(const std::string& binary, const std::vector<std::string>& addresses) {
  std::vector<std::string> words{"addr2line", "-a", "-f", "-i", "-C", "-e", binary};
  words.insert(words.end(), addresses.begin(), addresses.end());
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  int ends[2];
  if (pipe(ends) != 0) return {};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", 1, 0);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  pid_t child = 0;
  const bool started = posix_spawnp(&child, "addr2line", &actions, nullptr, arguments.data(), environ) == 0;
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  std::string output;
  char buffer[4096];
  for (ssize_t n; started && (n = read(ends[0], buffer, sizeof buffer)) > 0;) output.append(buffer, size_t(n));
  close(ends[0]);
  int status = 0;
  if (started) waitpid(child, &status, 0);
  return output;
}

std::vector<std::string> lines_of(const std::string& output) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < output.size();) {
    const size_t end = std::min(output.find('\n', at), output.size());
    lines.push_back(output.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

// addr2line's answer to each address: the address, then a function and a place for each call that was inlined there, the innermost first.
std::vector<std::vector<Frame>> parse(const std::string& output) {
  std::vector<std::vector<Frame>> answers;
  const std::vector<std::string> lines = lines_of(output);
  for (size_t i = 0; i < lines.size();) {
    if (lines[i].starts_with("0x")) {
      answers.emplace_back();
      ++i;
      continue;
    }
    if (answers.empty() || i + 1 >= lines.size()) break;
    std::string place = lines[i + 1].substr(0, lines[i + 1].find(" (discriminator"));
    if (place.find('?') != place.npos) place.clear();
    answers.back().push_back({lines[i] == "??" ? "" : lines[i], place});
    i += 2;
  }
  return answers;
}

std::string demangled(const char* symbol) {
  int status = 0;
  char* name = abi::__cxa_demangle(symbol, nullptr, nullptr, &status);
  const std::string result = status == 0 ? name : symbol;
  std::free(name);
  return result;
}

// One binary is asked once for all its frames.
std::vector<Frame> named(const std::vector<void*>& addresses) {
  struct Place {
    std::string binary, address;
    const char* symbol = nullptr;
  };
  std::vector<Place> places;
  std::map<std::string, std::vector<size_t>> of_binary;
  for (size_t i = 0; i < addresses.size(); ++i) {
    Dl_info info{};
    link_map* map = nullptr;
    const auto call = reinterpret_cast<uintptr_t>(addresses[i]) - 1;  // a return address may be the next line's
    Place place;
    if (dladdr1(reinterpret_cast<void*>(call), &info, reinterpret_cast<void**>(&map), RTLD_DL_LINKMAP) != 0 && map) {
      place.binary = *map->l_name ? map->l_name : "/proc/self/exe";
      place.address = fmt::format("0x{:x}", call - map->l_addr);
      place.symbol = info.dli_sname;
      of_binary[place.binary].push_back(i);
    }
    places.push_back(std::move(place));
  }
  std::vector<std::vector<Frame>> frames(addresses.size());
  for (const auto& [binary, numbers] : of_binary) {
    std::vector<std::string> asked;
    for (const size_t i : numbers) asked.push_back(places[i].address);
    // /proc/self would be addr2line's own.
    std::vector<std::vector<Frame>> answers = parse(addr2line(binary == "/proc/self/exe" ? text("/proc/{}/exe", getpid()) : binary, asked));
    answers.resize(numbers.size());
    for (size_t k = 0; k < numbers.size(); ++k) frames[numbers[k]] = std::move(answers[k]);
  }
  std::vector<Frame> all;
  for (size_t i = 0; i < frames.size(); ++i) {
    const bool known = !frames[i].empty() && (!frames[i][0].function.empty() || !frames[i][0].place.empty());
    if (known) {
      all.insert(all.end(), frames[i].begin(), frames[i].end());
    } else {
      all.push_back({places[i].symbol ? demangled(places[i].symbol) : "", ""});
    }
  }
  return all;
}

// Operations and what runs them: files of these two rooms, or, where no files are known, free functions of the namespace.
bool is_of_library(const Frame& frame) {
  if (!frame.place.empty())
    return frame.place.find("src/reckon/engine/") != frame.place.npos || frame.place.find("src/reckon/ops/") != frame.place.npos ||
           frame.place.find("src/reckon/base/") != frame.place.npos || frame.place.find("/include/c++/") != frame.place.npos;
  std::string_view name = frame.function;
  for (const std::string_view prefix : {"reckon::Node::", "reckon::detail::", "reckon::Ref<", "std::"})
    if (name.starts_with(prefix)) return true;
  if (!name.starts_with("reckon::")) return name.empty();
  name.remove_prefix(8);
  if (name.starts_with("(anonymous namespace)::")) name.remove_prefix(23);
  const size_t end = name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_");
  return end != name.npos && end > 0 && (name[end] == '(' || name[end] == '[');
}

std::string to_text(const Frame& frame) {
  const std::string function = frame.function.empty() ? "an unknown function" : frame.function;
  return frame.place.empty() ? function : frame.place + " in " + function;
}
}  // namespace

std::vector<void*> detail::stack_frames() {
  std::vector<void*> frames(kMaxFrames);
  frames.resize(size_t(backtrace(frames.data(), kMaxFrames)));
  frames.erase(frames.begin(), frames.begin() + std::min<std::ptrdiff_t>(1, std::ptrdiff_t(frames.size())));  // this function
  return frames;
}

CallSite call_site(const Node& node) {
  CallSite site{"an unknown place", {}};
  const Node::Extras* extras = node.extras_if_any();
  if (!extras || extras->frames.empty()) return site;
  bool found = false;
  for (const Frame& frame : named(extras->frames)) {
    site.calls.push_back(to_text(frame));
    if (found || is_of_library(frame)) continue;
    found = true;
    site.line = to_text(frame);
  }
  return site;
}

void detail::check_gradients(const Node& node, const Tensors& gradients, const char* what, bool made_by_rule) {
  for (size_t i = 0; i < gradients.size(); ++i) {
    const Tensor& g = gradients[i];
    if (!g.defined() || !is_float(g.dtype()) || g.device().is_meta()) continue;
    // Elements between the first and last that a strided view does not have are some other tensor's.
    int64_t bad = 0;
    if (g.is_contiguous()) {
      bad = g.device().count_nonfinite(g.raw(), g.dtype(), g.numel());
    } else {
      for (const double v : g.to_vector()) bad += !__builtin_isfinite(v);
    }
    if (bad == 0) continue;
    const CallSite site = call_site(node);
    std::string calls;
    for (const std::string& call : site.calls) calls += "  " + call + "\n";
    const std::string module = module_path(node.module());
    throw Error(text("anomaly: {} {} {}{}, {}, that has {} NaN or infinite {} of {}; the operation{}{} was called at {}",
                     made_by_rule ? "the rule of" : "at", node.name(), what, i, to_string(g.spec()), bad, bad == 1 ? "value" : "values",
                     g.numel(), module.empty() ? "" : " of module ", module, site.line),
                Failure::failed, calls.empty() ? "" : text("{} was called by (innermost first):\n{}", node.name(), calls));
  }
}
}  // namespace reckon
