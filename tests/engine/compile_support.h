// tests/engine/compile_support: a compiled step beside the same step run eagerly: bits, memory and traffic.
#pragma once
#include "reckon/engine/compile.h"
#include "tests/engine/support.h"

namespace reckon {

using Bytes = std::vector<std::byte>;
inline Bytes bytes_of(const Tensor& tensor) {
  if (!tensor.defined()) return {};
  Bytes bytes(size_t(tensor.spec().bytes()));
  tensor.device().copy_out(bytes.data(), contiguous(tensor).raw(), bytes.size());
  return bytes;
}
inline std::vector<Bytes> bytes_of(const Tensors& all) {
  std::vector<Bytes> list;
  for (const Tensor& t : all) list.push_back(bytes_of(t));
  return list;
}

inline Tensor normal(Device& device, const Shape& shape, uint64_t key, DType dtype = DType::f32) {
  const Tensor t = empty(device, {shape, dtype});
  fill_normal_(t, key);
  return t;
}

/// Leaves with gradient slots.
inline Tensors leaves(Device& device, const std::vector<Shape>& shapes, DType dtype = DType::f32) {
  const CategoryScope category(Category::parameter);
  Tensors all;
  for (size_t i = 0; i < shapes.size(); ++i) {
    all.push_back(normal(device, shapes[i], 100 + i, dtype));
    all.back().set_requires_grad();
    all.back().set_grad_slot(zeros(device, {shapes[i], dtype}));
  }
  return all;
}
inline std::vector<Bytes> gradients(const Tensors& all) {
  std::vector<Bytes> list;
  for (const Tensor& t : all) list.push_back(bytes_of(t.grad()));
  return list;
}

/// The events of one call of a compiled step are the planned ones.
inline void expect_planned(Device& device, CompiledStep& step, const Tensors& in) {
  const CompiledPlan& plan = step.plan(in);
  Allocator& allocator = device.allocator();
  allocator.record_events(true);
  const size_t before = allocator.events().size();
  const int64_t first = allocator.ledger().allocations;
  step(in);
  allocator.record_events(false);
  std::vector<AllocationEvent> got(allocator.events().begin() + long(before), allocator.events().end());
  ASSERT_GE(got.size(), plan.run.events.size());  // then the results are let go
  int64_t live = 0, peak = 0;
  for (size_t i = 0; i < plan.run.events.size(); ++i) {
    got[i].serial -= first;
    EXPECT_EQ(difference(plan.run.events[i], got[i]), "");
    peak = std::max(peak, live += got[i].is_alloc ? got[i].bytes : -got[i].bytes);
  }
  EXPECT_EQ(peak, plan.run.step_peak);
}
inline int64_t workspace_of(const DryRun& run) {
  int64_t bytes = 0;
  for (const CallRecord& c : run.calls)
    if (std::string_view(c.op->name) == "fused") bytes = std::max(bytes, round_block(c.workspace));
  return bytes;
}
}  // namespace reckon
