#include "reckon/engine/fuser.h"

#include <algorithm>

#include "reckon/base/text.h"
#include "reckon/engine/call.h"

namespace reckon {
namespace {
// What is this small may live longer than it would: inputs live until their group runs, results beside a waiting group from now on.
constexpr int64_t kSmallBytes = 64 << 10;

void plan_fused(Plan& p) {
  for (const FusedCall& c : p.params.as<FusedParams>().program->calls)
    if (c.output >= 0) p.output(c.out);
}
// Its work is charged to the operations of the group, its traffic and time to this row.
const OpDef fused_row{-1, "fused", plan_fused};

bool same_layout(const Layout& a, const Layout& b) {
  return a.shape == b.shape && a.offset == b.offset && std::equal(a.strides, a.strides + a.shape.rank(), b.strides);
}

bool repeats_one(const Layout& in) {
  for (int axis = 0; axis < in.shape.rank(); ++axis)
    if (in.shape[axis] != 1 && in.strides[axis] != 0) return false;
  return true;
}

// Broadcasts to `shape`, and neighbours along its last axis lie side by side or are the same element.
bool is_loadable(const Layout& in, const Shape& shape) {
  const int lead = shape.rank() - in.shape.rank();
  if (lead < 0) return false;
  bool innermost = true;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    const int64_t extent = axis < lead ? 1 : in.shape[axis - lead];
    if (extent != shape[axis] && extent != 1) return false;
    if (shape[axis] == 1) continue;
    const int64_t stride = extent == 1 ? 0 : in.strides[axis - lead];
    if (innermost && stride != 0 && stride != 1) return false;
    innermost = false;
  }
  return true;
}

// True if the bits of `axes` are the last ones of the shape, and more than one element goes into each sum.
bool sums_last_axes(uint32_t axes, const Shape& shape) {
  int first = shape.rank();
  int64_t count = 1;
  while (first > 0 && (axes >> (first - 1) & 1u)) count *= shape[--first];
  return count > 1 && axes == ((1u << shape.rank()) - 1) - ((1u << first) - 1);
}
}  // namespace

// ---- which calls wait

int Fuser::waiting_value(const Tensor& tensor) const {
  for (size_t i = waiting_.size(); i-- > 0;)
    if (waiting_[i].out.same_storage(tensor)) return int(i);
  return -1;
}

bool Fuser::reads_as_value(const Tensor& tensor, int value) const {
  const Waiting& w = waiting_[size_t(value)];
  return !w.call.op->traits.sums && tensor.dtype() == w.call.out.dtype && same_layout(tensor.layout(), w.out.layout());
}

bool Fuser::joins_as_sum(const OpDef& op, const Plan& plan, const Tensors& in) const {
  const int value = waiting_value(in[0]);
  const uint32_t axes = op.traits.sums(plan.params);
  return value >= 0 && is_float(in[0].dtype()) && reads_as_value(in[0], value) && sums_last_axes(axes, shape_) && (sum_axes_ == 0 || sum_axes_ == axes);
}

bool Fuser::joins(const OpDef& op, const Plan& plan, const Tensors& in) const {
  if (waiting_.size() == FusedProgram::kMaxCalls || inputs_.size() + in.size() > FusedProgram::kMaxInputs) return false;
  if (op.traits.sums) return joins_as_sum(op, plan, in);
  if (!op.traits.pointwise || op.id < 0 || in.size() > 3 || plan.out[0].numel() == 0) return false;
  const Shape& shape = waiting_.empty() ? plan.out[0].shape : shape_;
  if (!(plan.out[0].shape == shape)) return false;
  bool connected = waiting_.empty(), small = true;
  for (const Tensor& t : in) {
    const int value = waiting_value(t);
    if (value >= 0 ? !reads_as_value(t, value) : !is_loadable(t.layout(), shape)) return false;
    connected |= value >= 0 || std::any_of(inputs_.begin(), inputs_.end(), [&](const Tensor& known) { return known.same_storage(t); });
    small &= t.storage().block().bytes <= kSmallBytes;
  }
  return connected || small;
}

// A call that neither reads nor writes what waits, or what that reads, and hardly takes memory.
bool Fuser::passes(const OpDef& op, const Plan& plan, const Tensors& in) const {
  if (op.traits.mutates) return false;
  for (const Tensor& t : in)
    if (waiting_value(t) >= 0) return false;
  int64_t bytes = plan.workspace;
  for (const TensorSpec& spec : plan.out) bytes = checked_sum({bytes, spec.bytes()});
  return bytes <= kSmallBytes;
}

bool Fuser::waits(const OpDef& op, const Plan& plan, const Tensors& in) {
  if (off_) return false;
  return observes_ ? observe(op, plan, in) : follow(op, plan, in);
}

bool Fuser::observe(const OpDef& op, const Plan& plan, const Tensors& in) {
  plan_.push_back({&op, plan.out});
  ++next_;
  if (op.traits.view) return false;
  if (!context().finite_check) {
    if (joins(op, plan, in)) return true;
    if (!waiting_.empty() && passes(op, plan, in)) return false;
  }
  flush();
  return !context().finite_check && joins(op, plan, in);
}

bool Fuser::follow(const OpDef& op, const Plan& plan, const Tensors& in) {
  const size_t number = next_++;
  if (number >= plan_.size()) {
    diverge(text("call {} is {}, and the recorded step had no more", number, op.name));
    return false;
  }
  const CallPlan& planned = plan_[number];
  if (planned.op != &op || planned.out != plan.out) {
    const auto shown = [](const OpDef& row, const std::vector<TensorSpec>& out) {
      return row.name + (out.empty() ? "" : " " + to_string(out[0]));
    };
    diverge(text("call {} is {}, recorded was {}", number, shown(op, plan.out), shown(*planned.op, planned.out)));
    return false;
  }
  if (op.traits.view) return false;
  const bool can_wait = planned.group >= 0 && !context().finite_check;
  if (can_wait ? planned.group != open_ : !waiting_.empty() && (context().finite_check || !passes(op, plan, in))) flush();
  if (off_ || !can_wait) return false;
  open_ = planned.group;
  if (joins(op, plan, in)) return true;
  diverge(text("the inputs of call {}, {}, are not those of the recorded step", number, op.name));
  return false;
}

// ---- what waits

int Fuser::input_number(const Tensor& tensor) {
  for (size_t i = 0; i < inputs_.size(); ++i)
    if (inputs_[i].same_storage(tensor) && inputs_[i].dtype() == tensor.dtype() && same_layout(inputs_[i].layout(), tensor.layout()))
      return int(i);
  inputs_.push_back(tensor);
  return int(inputs_.size()) - 1;
}

// An input that nobody but the group and this call still has: its memory may hold the result. -1: there is none.
int Fuser::dead_input(const OpDef& op, const TensorSpec& out, const Tensors& in, bool is_tracked) const {
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const TensorState& s = inputs_[i].state();
    uint32_t holders = 1;
    bool is_kept = false;
    for (size_t k = 0; k < in.size(); ++k) {
      if (!(in[k].ref() == inputs_[i].ref())) continue;
      ++holders;
      is_kept |= is_tracked && op.vjp && (context().remade || (op.keep.in >> k & 1u));
    }
    if (!is_kept && s.use_count() == holders && s.storage->use_count() == 1 && s.layout.offset == 0 && s.layout.is_contiguous() &&
        s.layout.shape == out.shape && size_of(s.dtype) == size_of(out.dtype) && s.storage->block().requested == out.bytes())
      return int(i);
  }
  return -1;
}

Tensor Fuser::defer(const OpDef& op, const Plan& plan, const Tensors& in, bool is_tracked, Category category) {
  if (waiting_.empty()) shape_ = plan.out[0].shape;
  if (op.traits.sums) sum_axes_ = op.traits.sums(plan.params);
  Waiting w{{&op, plan.params, {}, plan.out[0], -1}, int(in.size()), {}, next_ - 1, category, context().module};
  for (size_t i = 0; i < in.size(); ++i) {
    const int value = waiting_value(in[i]);
    w.call.in[i] = value >= 0 ? ~value : input_number(in[i]);
  }
  if (!observes_ && !plan_[w.number].stored) {
    w.out = Tensor(Ref<Storage>(new Storage(device_)), plan.out[0]);
  } else if (const int dead = observes_ || op.traits.sums ? -1 : dead_input(op, plan.out[0], in, is_tracked); dead >= 0) {
    w.out = inputs_[size_t(dead)].alias(Layout(plan.out[0].shape), plan.out[0].dtype);
  } else {
    w.out = Tensor(device_, plan.out[0], category, context().module, op.name);
  }
  waiting_.push_back(w);
  device_.set_pending(this);
  return std::move(w.out);
}

// The waiting calls as a backend sees them; `out` is filled with the outputs.
FusedProgram Fuser::program_of(std::vector<Waiting>& calls, const Tensors& inputs, Tensors& out) const {
  FusedProgram program;
  program.shape = shape_;
  for (const Tensor& t : inputs) program.inputs.push_back({t.spec(), t.shape() == shape_ && t.is_contiguous(), repeats_one(t.layout())});
  for (Waiting& w : calls) {
    FusedCall call = w.call;
    for (int i = 0; i < 3; ++i) call.in[i] = i >= w.arity ? -1 : call.in[i] >= 0 ? call.in[i] : program.first_result() + ~call.in[i];
    if (w.out.storage().has_memory()) {
      call.output = int(out.size());
      out.push_back(w.out);
    }
    program.calls.push_back(call);
  }
  return program;
}

// One that saves nothing is dissolved: its calls run by themselves, and their inputs go earlier.
void Fuser::note_group(const std::vector<Waiting>& calls, const FusedProgram& all) {
  FusedGroup group{.shape = all.shape, .module = calls[0].module};
  for (const FusedInput& input : all.inputs) group.traffic_after = checked_sum({group.traffic_after, input.spec.bytes()});
  for (size_t i = 0; i < calls.size(); ++i) {
    const FusedCall& c = all.calls[i];
    group.ops.push_back(c.op);
    for (const int value : c.in)
      if (value >= 0) group.traffic_before = checked_sum({group.traffic_before, all.spec(value).bytes()});
    group.traffic_before = checked_sum({group.traffic_before, c.out.bytes()});
    CallPlan& planned = plan_[calls[i].number];
    planned.stored = c.op->traits.sums || calls[i].out.state().use_count() > 1 || calls[i].out.storage().use_count() > 1;
    if (planned.stored) {
      group.traffic_after = checked_sum({group.traffic_after, c.out.bytes()});
    } else {
      group.unstored = checked_sum({group.unstored, round_block(c.out.bytes())});
    }
  }
  const bool pays = group.traffic_after < group.traffic_before;
  for (const Waiting& w : calls) {
    plan_[w.number].group = pays ? int(groups_.size()) : -1;
    if (!pays) plan_[w.number].stored = true;
  }
  if (pays) groups_.push_back(std::move(group));
}

void Fuser::flush() {
  if (waiting_.empty()) return;
  device_.set_pending(nullptr);
  std::vector<Waiting> calls = std::exchange(waiting_, {});
  const Tensors inputs = std::exchange(inputs_, {});
  sum_axes_ = 0;
  open_ = -1;
  Tensors out;
  if (observes_) {
    const FusedProgram all = program_of(calls, inputs, out);
    out.clear();
    return note_group(calls, all);
  }
  for (const Waiting& w : calls) {
    Storage& storage = w.out.storage();
    if (storage.has_memory() || (w.out.state().use_count() == 1 && storage.use_count() == 1)) continue;
    diverge(text("the result of call {}, {} {}, is held or read by more than the recorded group", w.number, w.call.op->name, w.call.out));
    storage.take_memory(w.call.out.bytes(), w.category, w.module, w.call.op->name);
  }
  const FusedProgram program = program_of(calls, inputs, out);
  detail::run_into(fused_row, *device_.fused_kernel(), inputs, out, FusedParams{&program}, device_);
}

// The allocator's plan is left first: what gets memory now was not in it.
void Fuser::diverge(std::string why) {
  if (!off_) {
    off_ = true;
    difference_ = why;
    device_.allocator().leave_plan(std::move(why));
  }
  flush();
}

void Fuser::finish() {
  flush();
  if (!observes_ && !off_ && next_ < plan_.size()) diverge(text("it ended before call {}, {}", next_, plan_[next_].op->name));
}
}  // namespace reckon
