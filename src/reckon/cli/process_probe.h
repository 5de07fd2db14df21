// cli/process_probe: what a run takes beside its arena, found out by another process of this program that makes two steps of a
// small model of the same kind.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "reckon/train/process_memory.h"

namespace reckon {
struct Config;

/// The hidden command that such a process runs.
inline constexpr const char* kProcessProbe = "process-probe";

/// Resident bytes by class, without the arena. Nothing, and a line on stderr that says why, if that process does not tell.
std::optional<ProcessMemory> probe_runtime(const Config& config);

/// In that process: arguments are the number of threads and the configuration as TOML; prints the classes as JSON on stdout.
int run_process_probe(const std::vector<std::string>& arguments);
}  // namespace reckon
