#include "reckon/train/report.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <numeric>

namespace reckon {
namespace {
void value(JsonWriter& j, std::string_view key, const std::optional<int64_t>& v) {
  j.key(key);
  v ? j.integer(*v) : j.null();
}
void value(JsonWriter& j, std::string_view key, const std::optional<double>& v) {
  j.key(key);
  v ? j.number(*v) : j.null();
}
template <class Name, size_t N>
void table(JsonWriter& j, std::string_view key, const std::array<int64_t, N>* values) {
  j.key(key).begin_object();
  for (size_t i = 0; i < N; ++i) {
    j.key(name_of(Name(i)));
    values ? j.integer((*values)[i]) : j.null();
  }
  j.end_object();
}
// The arena's resident bytes apart from those of the runtime's classes.
void classes(JsonWriter& j, std::string_view arena, std::string_view runtime, const std::optional<ProcessMemory>& memory) {
  const auto bytes = [&](MemoryClass owner) { return memory ? std::optional((*memory)[owner]) : std::nullopt; };
  value(j, arena, bytes(MemoryClass::arena));
  j.key(runtime).begin_object();
  for (int i = 0; i < kMemoryClasses; ++i)
    if (MemoryClass(i) != MemoryClass::arena) value(j, name_of(MemoryClass(i)), bytes(MemoryClass(i)));
  j.end_object();
}
}  // namespace

void write_report(JsonWriter& j, const RunReport& r) {
  const Ledger* m = r.memory ? &*r.memory : nullptr;
  const Flops* f = r.flops_per_step ? &*r.flops_per_step : nullptr;
  const auto maybe = [](const auto* owner, auto member) { return owner ? std::optional<int64_t>(owner->*member) : std::nullopt; };
  j.begin_object();
  j.key("model").begin_object();
  value(j, "parameters", r.parameters);
  j.end_object();
  j.key("memory").begin_object();
  value(j, "peak_bytes", maybe(m, &Ledger::peak));
  value(j, "arena_bytes", maybe(m, &Ledger::extent));
  table<Category>(j, "at_peak", m ? &m->at_peak : nullptr);
  table<Phase>(j, "phases", m ? &m->phase_peak : nullptr);
  j.key("trace_hash");
  r.trace_hash.empty() ? j.null() : j.string(r.trace_hash);
  j.end_object();
  j.key("flops").begin_object();
  value(j, "matmul_per_step", maybe(f, &Flops::matmul));
  value(j, "vector_per_step", maybe(f, &Flops::vector));
  value(j, "model_per_step", maybe(f, &Flops::model));
  value(j, "hardware_per_step", maybe(f, &Flops::matmul));
  j.end_object();
  value(j, "step_seconds", r.step_seconds);
  value(j, "tokens_per_second", r.tokens_per_second);
  value(j, "mfu", r.mfu);
  value(j, "hfu", r.hfu);
  j.key("comm").begin_object().key("bytes_per_step").integer(0).end_object();
  j.key("loss").begin_object();
  value(j, "train", r.loss_train);
  value(j, "validation", r.loss_validation);
  value(j, "bits_per_byte", r.bits_per_byte);
  j.end_object();
  j.end_object();
}

std::string summary_json(const RunReport& predicted, const RunReport& measured, const ProcessReport& process) {
  JsonWriter j(true);
  j.begin_object();
  j.key("predicted");
  write_report(j, predicted);
  j.key("measured");
  write_report(j, measured);
  j.key("process").begin_object();
  value(j, "predicted_rss_bytes", process.predicted_rss_bytes);
  value(j, "peak_rss_bytes", process.peak_rss_bytes);
  classes(j, "predicted_arena_bytes", "predicted_runtime", process.predicted);
  classes(j, "arena_bytes", "runtime", process.measured);
  j.end_object();
  j.end_object();
  return j.str() + "\n";
}

namespace {
// The first number after `key` in a small text file of the system; -1 if there is none.
int64_t number_in(const char* path, const char* key) {
  std::FILE* file = std::fopen(path, "re");
  if (!file) return -1;
  char line[256];
  long long found = -1;
  while (found < 0 && std::fgets(line, sizeof line, file))
    if (std::strncmp(line, key, std::strlen(key)) == 0 && std::sscanf(line + std::strlen(key), "%lld", &found) != 1) found = -1;
  std::fclose(file);
  return found;
}
}  // namespace

int64_t cgroup_available_bytes(const std::string& directory) {
  const auto read = [&](const char* file, const char* key) { return number_in((directory + file).c_str(), key); };
  const int64_t limit = read("/memory.max", ""), used = read("/memory.current", "");
  if (limit <= 0 || used < 0) return -1;
  // Pages of files count as used, but the system takes them back when memory is asked for.
  const int64_t files = std::max<int64_t>(0, read("/memory.stat", "active_file ")) + std::max<int64_t>(0, read("/memory.stat", "inactive_file "));
  return std::clamp<int64_t>(limit - used + files, 0, limit);
}

int64_t available_memory_bytes() {
  int64_t kib = number_in("/proc/meminfo", "MemAvailable:");
  int64_t bytes = kib < 0 ? int64_t(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE) : kib * 1024;
  const int64_t limited = cgroup_available_bytes("/sys/fs/cgroup");
  return limited >= 0 ? std::min(bytes, limited) : bytes;
}

double StepTimer::median() const {
  if (seconds_.empty()) return 0;
  std::vector<double> sorted(seconds_.begin() + (seconds_.size() > 1 ? 1 : 0), seconds_.end());
  std::nth_element(sorted.begin(), sorted.begin() + long(sorted.size() / 2), sorted.end());
  return sorted[sorted.size() / 2];
}

int64_t StepTimer::recent_steps() const { return std::min<int64_t>(20, int64_t(seconds_.size())); }

double StepTimer::recent() const {
  if (seconds_.empty()) return 0;
  const int64_t count = recent_steps();
  return std::accumulate(seconds_.end() - count, seconds_.end(), 0.0) / double(count);
}
}  // namespace reckon
