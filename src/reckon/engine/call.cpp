#include "reckon/engine/call.h"

#include <algorithm>
#include <chrono>

#include "reckon/base/debug.h"
#include "reckon/base/stop.h"
#include "reckon/engine/autocast.h"
#include "reckon/engine/fuser.h"
#include "reckon/engine/meter.h"
#include "reckon/engine/node.h"

namespace reckon {
namespace {
std::string list(const Tensors& tensors) {
  std::string s;
  for (const Tensor& t : tensors) s += (s.empty() ? "" : " ") + to_string(t);
  return s;
}
// Printed only when a check fails: a string of all inputs costs more than the rest of a call.
struct Inputs {
  const Tensors& tensors;
};
std::string to_string(const Inputs& inputs) { return list(inputs.tensors); }

// Inputs in a layout that the row accepts; a copy is an operation of its own, visible in the trace.
void fix_layouts(const OpDef& op, Tensors& in) {
  for (size_t i = 0; i < in.size(); ++i) {
    const bool any = op.traits.view || (op.traits.any_stride >> i & 1u), inner = op.traits.inner_contiguous >> i & 1u;
    if (any || in[i].is_contiguous() || (inner && in[i].layout().inner_contiguous())) continue;
    check(!(op.traits.mutates >> i & 1u), "{}: input {} is written and must be contiguous  (inputs: {})", op.name, i, Inputs{in});
    in[i] = call(op::contiguous, tensors(std::move(in[i])))[0];
  }
}

Plan make_plan(const OpDef& op, const Tensors& in, const Params& params, Device& device) {
  Plan plan(params, device.profile());
  plan.in.reserve(in.size());
  for (const Tensor& t : in) plan.in.push_back(t.spec());
  try {
    for (const TensorSpec& spec : plan.in)
      check(!is_float8(spec.dtype) || op.traits.float8 || op.traits.view, "{} is for storage, and nothing is computed in it: cast it to bf16 or f32 first",
            spec.dtype);
    op.plan(plan);
    if (op.id >= 0 && device.kernel(op.id).book) device.kernel(op.id).book(plan);
  } catch (const Error& error) {
    fail_as(error.kind(), "{}: {}  (inputs: {})", op.name, error.what(), list(in));
  }
  return plan;
}

bool any_requires_grad(const Tensors& in) {
  return std::any_of(in.begin(), in.end(), [](const Tensor& t) { return t.requires_grad(); });
}

// An operation without a rule may be called on tracked inputs only if nothing that depends on them could want a gradient.
void check_rule(const OpDef& op, const Tensors& in, size_t outputs) {
  bool cut = op.traits.detached_outputs != (1u << outputs) - 1;
  if (op.traits.mutates)  // what is written depends on the inputs that are read
    for (size_t i = 0; i < in.size(); ++i) cut |= !(op.traits.mutates >> i & 1u) && in[i].requires_grad();
  check(!cut, "{}: has no gradient rule, but an input requires one  (inputs: {})", op.name, Inputs{in});
}

// A leaf may be filled. A result may not be written while a graph is recorded: the graph would not see it.
void check_written(const OpDef& op, const Tensors& in) {
  for (size_t i = 0; i < in.size(); ++i)
    check(!(op.traits.mutates >> i & 1u) || in[i].is_leaf(),
          "{}: input {} is written, but it has no gradient rule and that is the result of a recorded operation  (inputs: {})", op.name, i,
          Inputs{in});
}

// A checkpointed segment runs a second time in backward: what it writes must be its own.
void check_effects(const OpDef& op, const Tensors& in) {
  for (size_t i = 0; i < in.size(); ++i)
    check(!(op.traits.mutates >> i & 1u) || in[i].storage().block().serial >= context().segment_begin,
          "{}: input {} was there before the checkpointed segment that writes it, and backward would run the segment and write it again: "
          "move the write out of the segment, or do not checkpoint it  (inputs: {})",
          op.name, i, Inputs{in});
}

// The input whose storage output 0 may take: nobody else holds it and it is exactly as large.
int reusable(const OpDef& op, const Tensors& in, const TensorSpec& out, bool is_tracked) {
  for (size_t i = 0; i < in.size(); ++i) {
    if (!(op.traits.reuse >> i & 1u)) continue;
    const bool is_kept = context().remade || (op.keep.in >> i & 1u);
    if (is_tracked && op.vjp && is_kept && !is_remade(in[i])) continue;
    const TensorState& s = in[i].state();
    if (s.use_count() == 1 && s.storage->use_count() == 1 && s.layout.offset == 0 && s.layout.is_contiguous() &&
        s.layout.shape == out.shape && size_of(s.dtype) == size_of(out.dtype) && s.storage->block().requested == out.bytes())
      return int(i);
  }
  return -1;
}

Category output_category(const Context& c, bool is_tracked) {
  if (c.has_category) return c.category;
  // What a forward pass makes may be kept for backward, also by a checkpoint that records nothing while it runs.
  return is_tracked || c.phase == Phase::forward ? Category::activation : Category::temporary;
}

Tensors make_outputs(const Context& c, const OpDef& op, const Plan& plan, const Tensors& in, Device& device, bool is_tracked) {
  Tensors out;
  out.reserve(plan.out.size());
  const int taken = plan.out.empty() ? -1 : reusable(op, in, plan.out[0], is_tracked);
  for (size_t i = 0; i < plan.out.size(); ++i) {
    if (i == 0 && taken >= 0) {
      out.push_back(in[size_t(taken)].alias(Layout(plan.out[0].shape), plan.out[0].dtype));
    } else {
      out.emplace_back(device, plan.out[i], output_category(c, is_tracked), c.module, op.name);
    }
  }
  return out;
}

void check_finite(const OpDef& op, Device& device, const Tensors& tensors, const char* what) {
  for (const Tensor& t : tensors) {
    if (!is_float(t.dtype()) || !t.is_contiguous()) continue;
    const int64_t bad = device.count_nonfinite(t.raw(), t.dtype(), t.numel());
    if (bad > 0)
      fail("{}{}{} gave {} NaN or infinite values of {} in its {} {} ({} pass)", op.name, context().module ? " in " : "",
           module_path(context().module), bad, t.numel(), what, to_string(t), name_of(context().phase));
  }
}

Kernel kernel_of(const OpDef& op, const Device& device) {
  return op.traits.own_kernel || op.id < 0 ? op.traits.own_kernel : device.kernel(op.id).run;
}

// A kernel may touch its tensors while other calls wait.
class WhileOthersWait {
 public:
  explicit WhileOthersWait(Device& device) : device_(device), pending_(device.pending()) { device_.set_pending(nullptr); }
  ~WhileOthersWait() { device_.set_pending(pending_); }
  WhileOthersWait(const WhileOthersWait&) = delete;
  WhileOthersWait& operator=(const WhileOthersWait&) = delete;

 private:
  Device& device_;
  PendingCalls* pending_;
};

void launch(const OpDef& op, const Plan& plan, const Tensors& in, Tensors& out, const Params& params, Device& device, Kernel kernel,
            MeterRow* row, CallRecord* record) {
  Ref<Storage> scratch;
  if (plan.workspace > 0) scratch = Ref<Storage>(new Storage(device, plan.workspace, Category::temporary, context().module, op.name));
  if (device.is_meta()) return;
  if (debug(Debug::dispatch))
    debug_line(Debug::dispatch, text("{} on {}: {} kernel, workspace {} B, {} lanes", op.name, device.profile().name, op.traits.own_kernel ? "own" : "built-in", plan.workspace,
                                     device.profile().lanes));
  const WhileOthersWait guard(device);
  const KernelArgs args{in, out, params, scratch ? scratch->data() : nullptr, plan.workspace, device.profile().lanes};
  if (row && (record || context().meter->timing)) {
    if (record) record->start = context().meter->clock();
    const auto start = std::chrono::steady_clock::now();
    kernel(args);
    device.synchronize();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    row->seconds += seconds;
    if (record) record->seconds = seconds;
  } else {
    kernel(args);
  }
}

// Outputs that depend on what requires a gradient require one; `node` is what made them, or null while they are only marked.
void mark(const OpDef& op, Tensors& out, const Ref<Node>& node) {
  for (size_t i = 0; i < out.size(); ++i) {
    if (op.traits.detached_outputs >> i & 1u || !is_float(out[i].dtype())) continue;
    TensorState& state = out[i].state();
    state.requires_grad = true;
    state.grad_fn = Ref<RefCounted>(node);
    state.output_index = node ? int(i) : kMarked;
  }
}
}  // namespace

void detail::run_into(const OpDef& op, const KernelRow& kernel, const Tensors& in, Tensors& out, const Params& params, Device& device) {
  Plan plan(params, device.profile());
  for (const Tensor& t : in) plan.in.push_back(t.spec());
  op.plan(plan);
  if (kernel.book) kernel.book(plan);
  Meter* meter = context().meter;
  MeterRow* row = meter ? &meter->charge(op, plan) : nullptr;
  CallRecord* record = row && meter->records_calls() ? &meter->record(op, plan, device.allocator().events().size()) : nullptr;
  launch(op, plan, in, out, params, device, kernel.run, row, record);
}

bool tracked(const Tensors& in) { return context().grad_enabled && any_requires_grad(in); }

Tensors call(const OpDef& op, Tensors in, const Params& params) {
  check(!in.empty() && in[0].defined(), "{}: the first input is undefined", op.name);
  Device& device = in[0].device();
  return call_on(device, op, std::move(in), params);
}

Tensors call_on(Device& device, const OpDef& op, Tensors in, const Params& params) {
  for (const Tensor& t : in) {
    check(t.defined(), "{}: an input is undefined  (inputs: {})", op.name, Inputs{in});
    check(&t.device() == &device, "{}: inputs live on two devices  (inputs: {})", op.name, Inputs{in});
  }
  stop_point();
  const Context& now = context();
  if (now.autocast != DType::f32) [[unlikely]] detail::autocast_inputs(op, in);
  fix_layouts(op, in);
  Plan plan = make_plan(op, in, params, device);
  const bool is_tracked = now.grad_enabled && any_requires_grad(in);
  if (is_tracked && !op.vjp) check_rule(op, in, plan.out.size());
  if (is_tracked && op.traits.mutates) check_written(op, in);
  if (op.traits.mutates && now.segment_begin >= 0) check_effects(op, in);
  if (debug(Debug::ops)) debug_line(Debug::ops, text("{} [{}] {}", op.name, module_path(now.module), list(in)));
  Fuser* fuser = now.fuser && now.fuser->serves(device) ? now.fuser : nullptr;
  const bool waits = fuser && fuser->waits(op, plan, in);
  if (waits) plan.bytes_moved = 0;  // charged when its group runs
  MeterRow* row = now.meter ? &now.meter->charge(op, plan) : nullptr;

  const bool is_marked = now.marking && op.vjp && any_requires_grad(in);  // before a reused input goes
  Tensors out;
  if (op.traits.view) {
    out.push_back(in[0].alias(op.traits.view(in[0].layout(), params)));
  } else if (waits) {
    out.push_back(fuser->defer(op, plan, in, is_tracked, output_category(now, is_tracked)));
  } else {
    CallRecord* record = row && now.meter->records_calls() ? &now.meter->record(op, plan, device.allocator().events().size()) : nullptr;
    out = make_outputs(now, op, plan, in, device, is_tracked);
    launch(op, plan, in, out, params, device, kernel_of(op, device), row, record);
    for (size_t i = 0; i < in.size(); ++i)
      if (op.traits.mutates >> i & 1u) in[i].storage().bump_version();
    if (now.finite_check && !device.is_meta()) {
      check_finite(op, device, out, "output");
      for (size_t i = 0; i < in.size(); ++i)
        if (op.traits.mutates >> i & 1u) check_finite(op, device, {in[i]}, "result");
    }
  }
  if (op.vjp && is_tracked) {
    mark(op, out, Ref<Node>(new Node(op, params, in, out, {}, now.remade)));
  } else if (is_marked) {
    mark(op, out, {});
  }
  return out;
}

FillParams::FillParams(const TensorSpec& spec, double v) : value(v), dtype(spec.dtype), rank(uint8_t(spec.shape.rank())) {
  std::copy(spec.shape.begin(), spec.shape.end(), extents);
}

TensorSpec FillParams::spec() const { return {Shape(std::span<const int64_t>(extents, rank)), dtype}; }
}  // namespace reckon
