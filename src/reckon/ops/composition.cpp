#include "reckon/ops/composition.h"

#include <algorithm>

#include "reckon/ops/axes.h"
#include "reckon/ops/rows.h"

namespace reckon {

Composition::Composition(const Tensors& inputs) : device_(&inputs.at(0).device()), inputs_(inputs.size()) {
  for (const Tensor& t : inputs) {
    check(&t.device() == device_.get(), "inputs live on two devices");
    values_.push_back({t.layout(), t.dtype()});
  }
}

int Composition::apply(const OpDef& row, int a, int b, const Params& params) {
  Step step{&row, params, {a, b}, 0, {}};
  Plan plan(step.params, device_->profile());
  for (int i = 0; i < 2 && step.in[i] >= 0; ++i) {
    const Layout& l = layout(step.in[i]);
    const bool any = row.traits.view || (row.traits.any_stride >> i & 1u), inner = row.traits.inner_contiguous >> i & 1u;
    if (!any && !l.is_contiguous() && !(inner && l.inner_contiguous())) step.in[i] = apply(op::contiguous, step.in[i]);
    plan.in.push_back(spec(step.in[i]));
  }
  try {
    row.plan(plan);
  } catch (const Error& error) {
    fail_as(error.kind(), "{}: {}", row.name, error.what());
  }
  step.flops = plan.flops;
  step.out = int(values_.size());
  values_.push_back({row.traits.view ? row.traits.view(layout(step.in[0]), step.params) : Layout(plan.out[0].shape), plan.out[0].dtype});
  steps_.push_back(step);
  return step.out;
}
int Composition::reshape(int value, const Shape& to) {
  if (shape(value) == to) return value;
  Layout seen;
  if (!reshape_layout(layout(value), to, seen)) value = apply(op::contiguous, value);
  return apply(op::reshape, value, ShapeParams(to));
}
int Composition::permute(int value, std::span<const int> axes) {
  RECKON_ASSERT(int(axes.size()) == shape(value).rank());
  if (std::is_sorted(axes.begin(), axes.end())) return value;
  PermuteParams params{};
  std::copy(axes.begin(), axes.end(), params.axes);
  return apply(op::permute, value, params);
}
int Composition::expand(int value, const Shape& to) { return shape(value) == to ? value : apply(op::expand, value, ShapeParams(to)); }

bool Composition::is_view() const {
  return std::all_of(steps_.begin(), steps_.end(), [](const Step& s) { return s.is_view(); });
}
int64_t Composition::copied_bytes() const {
  int64_t bytes = 0;
  for (const Step& s : steps_)
    if (s.row == &op::contiguous) bytes = checked_sum({bytes, spec(s.out).bytes()});
  return bytes;
}
Flops Composition::flops() const {
  Flops total;
  for (const Step& s : steps_) total += s.flops;
  return total;
}

std::string Composition::describe(const Step& step) const {
  std::string line = text("{} {}", step.row->name, shape(step.in[0]));
  if (step.in[1] >= 0) line += text(" {}", shape(step.in[1]));
  if (step.row == &op::contiguous) return line + text(": copies {} B", spec(step.out).bytes());
  line += text(" -> {}", shape(step.out));
  const int64_t flops = step.flops.matmul + step.flops.vector;
  return line + (step.is_view() ? ": view" : text(": {} {}", flops, flops == 1 ? "FLOP" : "FLOPs"));
}

Tensor Composition::run(Tensors inputs) const {
  check(inputs.size() == inputs_, "{} tensors are given to a composition of {}", inputs.size(), inputs_);
  for (size_t i = 0; i < inputs_; ++i)
    check(inputs[i].spec() == spec(int(i)), "{} is given to a composition that was made for {}", inputs[i].spec(), spec(int(i)));
  Tensors values = std::move(inputs);
  values.resize(values_.size());
  std::vector<int> uses(values_.size(), 0);
  for (const Step& s : steps_)
    for (const int value : s.in)
      if (value >= 0) ++uses[size_t(value)];
  for (const Step& s : steps_) {
    Tensors in;
    for (const int value : s.in) {
      if (value < 0) continue;
      Tensor& t = values[size_t(value)];
      in.push_back(--uses[size_t(value)] == 0 ? std::move(t) : t);  // who is used no more lets its memory go
    }
    values[size_t(s.out)] = call(*s.row, std::move(in), s.params)[0];
  }
  return std::move(values[size_t(result())]);
}

std::string to_string(const Composition& composition) {
  std::string lines;
  for (const Composition::Step& s : composition.steps()) lines += (lines.empty() ? "" : "; ") + composition.describe(s);
  return lines.empty() ? "nothing to do" : lines;
}
}  // namespace reckon
