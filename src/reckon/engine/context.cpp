#include "reckon/engine/context.h"

#include <map>
#include <mutex>
#include <vector>

#include "reckon/tensor/device.h"

namespace reckon {

Context& context() {
  thread_local Context current;
  return current;
}

namespace {
// Append-only table of path names, shared by all threads.
struct Paths {
  std::mutex mutex;
  std::vector<std::string> names{""};
  std::map<std::string, uint32_t, std::less<>> ids{{"", 0}};
};
Paths& paths() {
  static Paths table;
  return table;
}
}  // namespace

std::string module_path(uint32_t id) {
  Paths& p = paths();
  const std::lock_guard lock(p.mutex);
  return p.names.at(id);
}

uint32_t module_id(std::string_view path) {
  Paths& p = paths();
  const std::lock_guard lock(p.mutex);
  const auto known = p.ids.find(path);
  if (known != p.ids.end()) return known->second;
  const uint32_t id = uint32_t(p.names.size());
  p.names.emplace_back(path);
  p.ids.emplace(path, id);
  return id;
}

namespace {
uint32_t child(std::string_view name) {
  const std::string parent = module_path(context().module);
  return module_id(parent.empty() ? std::string(name) : parent + "." + std::string(name));
}
}  // namespace

ModuleScope::ModuleScope(std::string_view name) : restore_(context().module, child(name)) {}

PhaseScope::PhaseScope(Device& device, Phase phase) : device_(device), old_(context().phase) {
  context().phase = phase;
  device_.allocator().enter_phase(phase);
}
PhaseScope::~PhaseScope() {
  context().phase = old_;
  device_.allocator().return_to_phase(old_);
}
}  // namespace reckon
