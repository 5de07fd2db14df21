// tests/report/support: plans of small runs, and what to look for in a page.
#pragma once
#include <gtest/gtest.h>

#include "reckon/backend/cpu/device.h"
#include "reckon/report/report.h"

namespace reckon {
inline RunPlan plan_of(const std::vector<std::string>& overrides) {
  const Ref<Device> meta = open_cpu(Mode::meta);
  return plan_run(load_config("", overrides), *meta);
}

inline const RunPart& part_of(const RunPlan& plan, std::string_view name) {
  for (const RunPart& part : plan.parts)
    if (part.name == name) return part;
  fail("no part {}", name);
}

inline int64_t change(const AllocationEvent& e) { return e.is_alloc ? e.bytes : -e.bytes; }
}  // namespace reckon
