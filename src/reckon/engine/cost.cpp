#include "reckon/engine/cost.h"

#include "reckon/base/text.h"
#include "reckon/engine/context.h"

namespace reckon {
std::string to_string(const Cost& c) {
  std::string s;
  if (c.flops.matmul != 0) s = text("{} matmul", with_commas(c.flops.matmul));
  if (c.flops.vector != 0 || s.empty()) s += text("{}{}{}", s.empty() ? "" : " and ", with_commas(c.flops.vector), s.empty() ? "" : " other");
  const bool one = c.flops.matmul + c.flops.vector == 1;
  return text("{} {}, moves {} B, holds {} B", s, one ? "FLOP" : "FLOPs", with_commas(c.bytes_moved), with_commas(c.bytes_held));
}

CostScope::CostScope(Device& device) : device_(device), meter_(context().meter), installed_(!meter_) {
  if (installed_) meter_ = context().meter = &own_;
  before_ = total();
}
CostScope::~CostScope() {
  if (installed_) context().meter = nullptr;
}

Cost CostScope::total() const {
  Cost c;
  for (const MeterRow& row : meter_->rows()) {
    c.calls += row.calls;
    c.flops += row.flops;
    c.bytes_moved += row.bytes;
  }
  c.bytes_held = device_.allocator().ledger().live;
  return c;
}

Cost CostScope::take() {
  const Cost now = total(), before = before_;
  before_ = now;
  return {now.calls - before.calls,
          {now.flops.matmul - before.flops.matmul, now.flops.vector - before.flops.vector, now.flops.model - before.flops.model},
          now.bytes_moved - before.bytes_moved,
          now.bytes_held - before.bytes_held};
}
}  // namespace reckon
