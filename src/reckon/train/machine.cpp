#include "reckon/train/machine.h"

#include <cmath>
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
constexpr int64_t kProfileVersion = 2;
constexpr int64_t kMaxProfileBytes = int64_t(1) << 22;
constexpr size_t kMaxTablePoints = size_t(1) << 16;
std::string profile_path() { return cache_directory().empty() ? "" : join_path(cache_directory(), "cpu.json"); }
}  // namespace

std::optional<MachineProfile> load_machine_profile(int lanes) {
  const std::string path = profile_path();
  if (path.empty() || !path_exists(path)) return {};
  try {
    const MachineProfile p = read_machine_profile(read_file(path, kMaxProfileBytes), path);
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
  write_file(path, write_machine_profile(p));
}

std::string write_machine_profile(const MachineProfile& p) {
  JsonWriter j;
  const auto numbers = [&](const std::vector<double>& values) {
    j.begin_array();
    for (const double value : values) j.number(value);
    j.end_array();
  };
  j.begin_object();
  j.key("version").integer(kProfileVersion);
  j.key("cpu").string(p.cpu);
  j.key("lanes").integer(p.lanes);
  j.key("f32_flops_per_second").number(p.f32_flops_per_second);
  j.key("bf16_flops_per_second").number(p.bf16_flops_per_second);
  j.key("copy_bytes_per_second").number(p.copy_bytes_per_second);
  j.key("call_factor").number(p.call_factor);
  j.key("call_overhead_seconds").number(p.call_overhead_seconds);
  j.key("tables").begin_array();
  for (const TimeTable& table : p.tables) {
    j.begin_object();
    j.key("key").string(table.key);
    j.key("axes").begin_array();
    for (const std::vector<double>& axis : table.axes) numbers(axis);
    j.end_array();
    j.key("seconds");
    numbers(table.seconds);
    j.end_object();
  }
  j.end_array();
  j.end_object();
  return j.str() + "\n";
}

namespace {
double positive(const Json& value) {
  const double number = value.number();
  if (!(number > 0 && std::isfinite(number))) value.fail_here("is not a positive number");
  return number;
}

TimeTable read_table(const Json& json) {
  TimeTable table{.key = std::string(json.get("key").string())};
  size_t points = 1;
  for (const Json axis : json.get("axes")) {
    std::vector<double>& values = table.axes.emplace_back();
    for (const Json value : axis) {
      values.push_back(positive(value));
      if (values.size() > 1 && values.back() <= values[values.size() - 2]) value.fail_here("does not rise along its axis");
    }
    if (values.empty()) axis.fail_here("has no points");
    points *= values.size();
    if (points > kMaxTablePoints) axis.fail_here("makes the table too large");
  }
  if (table.axes.empty()) json.fail_here("has no axes");
  for (const Json value : json.get("seconds")) table.seconds.push_back(positive(value));
  if (table.seconds.size() != points) json.get("seconds").fail_here("does not have one value a point");
  return table;
}
}  // namespace

MachineProfile read_machine_profile(std::string_view text, const std::string& source) {
  const JsonDocument document(text, source);
  const Json root = document.root();
  root.get("version").integer(kProfileVersion, kProfileVersion);
  MachineProfile p;
  p.cpu = root.get("cpu").string();
  p.lanes = int(root.get("lanes").integer(1, 1 << 20));
  p.f32_flops_per_second = positive(root.get("f32_flops_per_second"));
  p.bf16_flops_per_second = positive(root.get("bf16_flops_per_second"));
  p.copy_bytes_per_second = positive(root.get("copy_bytes_per_second"));
  p.call_factor = positive(root.get("call_factor"));
  p.call_overhead_seconds = root.get("call_overhead_seconds").number();
  if (!(p.call_overhead_seconds >= 0 && p.call_overhead_seconds < 1)) root.get("call_overhead_seconds").fail_here("is no overhead");
  for (const Json table : root.get("tables")) p.tables.push_back(read_table(table));
  return p;
}

double peak_flops(const MachineProfile& p, DType dtype) { return dtype == DType::bf16 ? p.bf16_flops_per_second : p.f32_flops_per_second; }
}  // namespace reckon
