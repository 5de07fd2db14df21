#include "reckon/train/machine.h"

#include <cstdlib>

#include "reckon/io/files.h"
#include "reckon/io/json.h"

namespace reckon {

std::string cache_directory() {
  const auto variable = [](const char* name) { return std::string(std::getenv(name) ? std::getenv(name) : ""); };
  if (!variable("RECKON_CACHE").empty()) return variable("RECKON_CACHE");
  if (!variable("XDG_CACHE_HOME").empty()) return join_path(variable("XDG_CACHE_HOME"), "reckon");
  return variable("HOME").empty() ? "" : join_path(variable("HOME"), ".cache/reckon");
}

std::string local_cpu_name() {
  // /proc files have no size; read what is there, line by line.
  std::string name = "unknown CPU";
  if (std::FILE* file = std::fopen("/proc/cpuinfo", "re")) {
    char line[512];
    while (std::fgets(line, sizeof line, file)) {
      const std::string_view text(line);
      if (!text.starts_with("model name")) continue;
      const size_t colon = text.find(": ");
      if (colon != text.npos) name = text.substr(colon + 2, text.find('\n') - colon - 2);
      break;
    }
    std::fclose(file);
  }
  return name;
}

namespace {
std::string profile_path() { return cache_directory().empty() ? "" : join_path(cache_directory(), "cpu.json"); }
}  // namespace

std::optional<MachineProfile> load_machine_profile(int lanes) {
  const std::string path = profile_path();
  if (path.empty() || !path_exists(path)) return {};
  try {
    const JsonDocument document(read_file(path, 1 << 16), path);
    const Json root = document.root();
    MachineProfile p;
    p.cpu = root.get("cpu").string();
    p.lanes = int(root.get("lanes").integer(1, 1 << 20));
    p.f32_flops_per_second = root.get("f32_flops_per_second").number();
    p.bf16_flops_per_second = root.get("bf16_flops_per_second").number();
    p.copy_bytes_per_second = root.get("copy_bytes_per_second").number();
    if (p.cpu != local_cpu_name() || p.lanes != lanes) return {};
    return p;
  } catch (const Error& error) {
    if (error.kind() == Failure::interrupted) throw;
    return {};  // a damaged cache is no profile; `reckon bench device` writes a new one
  }
}

void save_machine_profile(const MachineProfile& p) {
  const std::string path = profile_path();
  check(!path.empty(), "no place to keep the machine profile: set HOME or RECKON_CACHE");
  make_directories(cache_directory());
  JsonWriter j(true);
  j.begin_object();
  j.key("cpu").string(p.cpu);
  j.key("lanes").integer(p.lanes);
  j.key("f32_flops_per_second").number(p.f32_flops_per_second);
  j.key("bf16_flops_per_second").number(p.bf16_flops_per_second);
  j.key("copy_bytes_per_second").number(p.copy_bytes_per_second);
  j.end_object();
  write_file(path, j.str() + "\n");
}

double peak_flops(const MachineProfile& p, DType dtype) { return dtype == DType::bf16 ? p.bf16_flops_per_second : p.f32_flops_per_second; }
}  // namespace reckon
